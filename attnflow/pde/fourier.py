"""Spectral solution on a torus with any smooth periodic metric: exact in time, exponentially accurate in space.

In u = sqrt(w) H, w = p^drift sqrt(det g), the operator L = w^-1 d_i (w g^ij d_j) is symmetric:

    S = sqrt(w) L / sqrt(w) = -sum_ij A_i' g^ij A_j,     A_i = d_i - (d_i log w) / 2,

with the antisymmetric differentiation matrices of an odd number of nodes (an even number has a mode
they do not see). Written with log w, no entry grows as w spans many orders of magnitude. sqrt(w), the
constant's image, is projected out exactly: constants stay, and sum w H is conserved, on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..grid import Grid, bandwidth
from ..solution import Solution
from .coefficients import build_grid, error_weights, inverse_metric, log_weight, relative_error, transfer, weighted_norm
from .problem import Problem, finished

if TYPE_CHECKING:
    from .equations import DriftDiffusion

KINDS = ("fourier", "fourier")
_LARGEST = {1: 800, 2: 2500}  # unknowns of a dense eigendecomposition, at most a few seconds
_SAMPLED = {1: 513, 2: 97}  # nodes per axis on which smoothness is judged
_ROUNDOFF = 1e-15


@dataclass(frozen=True)
class Modes:
    """L on a grid; eigenvalues (m,) from 0 down, vectors (m, m) orthonormal, root = sqrt(w) (m,)."""

    grid: Grid
    eigenvalues: np.ndarray
    vectors: np.ndarray
    root: np.ndarray

    def evolve(self, initial: np.ndarray, times: np.ndarray) -> np.ndarray:
        """exp(t L) initial, (T, *grid, c)."""
        amplitude = self.vectors.T @ (self.root[:, None] * initial.reshape(len(self.root), -1))
        decayed = np.exp(times[:, None, None] * self.eigenvalues[:, None]) * amplitude
        return ((self.vectors @ decayed) / self.root[:, None]).reshape(len(times), *initial.shape)


def fourier_matrix(pde: DriftDiffusion, grid: Grid) -> np.ndarray:
    """The dense matrix of L on a periodic grid: values at the nodes to values of L H there.

    Parameters
    ----------
    pde : DriftDiffusion
        On a space all of whose coordinates wrap.
    grid : Grid
        Axes of kind "fourier", odd sizes.

    Returns
    -------
    (grid.size, grid.size) array
        Rows sum to zero; symmetric and non-positive in the weight w = p^drift sqrt(det g).

    Raises
    ------
    ValueError
        If an axis is of another kind or has an even size.

    Notes
    -----
    Where w is small, L H loses relative accuracy: rounding errors there grow as sqrt(max(w) / w).

    Examples
    --------
    >>> import attnflow as af, attnflow.pde
    >>> from attnflow.pde.fourier import fourier_matrix
    >>> p = af.VonMises(1.0)
    >>> grid = p.space.grid(41)
    >>> H = np.cos(grid.points[:, 0])
    >>> expected = -H + 2 * np.sin(grid.points[:, 0]) ** 2   # H'' - 2 sin H'
    >>> bool(np.abs(fourier_matrix(af.pde.DriftDiffusion(p), grid) @ H - expected).max() < 1e-11)
    True
    """
    form, root = _symmetric_form(pde, grid)
    return form * (root / root[:, None])


def modes(pde: DriftDiffusion, grid: Grid) -> Modes:
    """Eigendecomposition of L; see `fourier_matrix` for the grid."""
    form, root = _symmetric_form(pde, grid)
    values, vectors = np.linalg.eigh(-form)
    values[0] = 0.0  # of sqrt(w), but for rounding
    return Modes(grid, -np.maximum(values, 0.0), vectors, root)


def solve_fourier(
    pde: DriftDiffusion, problem: Problem, rtol: float, insist: bool = False
) -> Solution | None:
    """Grow the grid until two solutions agree to rtol; the finer one is returned.

    None if they do not up to the largest affordable grid, unless told to `insist` on the best there is.
    """
    sizes = smooth_sizes(pde, problem, rtol) or (15,) * pde.space.dim
    coarse, best, lowest = _solve(pde, problem, sizes), None, np.inf
    while lowest > rtol and (best is None or affordable(grown(sizes))):
        sizes = grown(sizes)
        fine = _solve(pde, problem, sizes)
        error = _difference(pde, problem, coarse, fine)
        if best is None or error < lowest:
            best, lowest = fine, error
        coarse = fine
    if lowest > rtol and not insist:
        return None
    return finished(problem.times, best[1], best[0], rtol, _stats(best[0], lowest))


def solve_fourier_on(pde: DriftDiffusion, problem: Problem, shape: tuple[int, ...]) -> Solution:
    """On the given nodes. An even size is solved with one node more and interpolated back."""
    sizes = tuple(odd(n) for n in shape)
    here = _solve(pde, problem, sizes)
    larger = grown(sizes)
    other = _solve(pde, problem, larger if affordable(larger) else tuple(odd(0.7 * n) for n in sizes))
    error = _difference(pde, problem, *sorted((here, other), key=lambda solved: solved[0].size))
    grid = _periodic_grid(pde, shape)
    return finished(problem.times, transfer(here[1], here[0], grid), grid, None, _stats(grid, error))


def smooth_sizes(pde: DriftDiffusion, problem: Problem | None, rtol: float) -> tuple[int, ...] | None:
    """Odd nodes per axis to start from: they hold sqrt(w), the metric and the initial values to rtol.

    None if only too many would do, and where sqrt(w) spans more than rtol / 1e-15: in the wells of the
    weight the features are lost in rounding errors, from where trigonometric interpolation spreads them.
    """
    grid = _periodic_grid(pde, (_SAMPLED[pde.space.dim],) * pde.space.dim)
    log_w, inverse = log_weight(pde, grid.points), inverse_metric(pde.space, grid.points)
    if np.ptp(log_w) > 2 * np.log(max(rtol, 1e-12) / _ROUNDOFF):
        return None
    fields = [log_w[:, None], np.exp((log_w - log_w.max()) / 2)[:, None], inverse.reshape(grid.size, -1)]
    fields = [field.reshape(*grid.shape, -1) for field in fields]
    if problem is not None:
        fields.append(problem.sample(grid) if callable(problem.initial) else problem.initial)
    widths = [bandwidth(field, rtol) for field in fields]
    if any(width is None for width in widths):
        return None
    # coefficients may alias into the upper half of the modes: products with H are integrated, not expanded
    share = [1.0] * 3 + [2.0] * (problem is not None)
    sizes = tuple(odd(max(s * k for s, k in zip(share, along)) + 3) for along in zip(*widths))
    return sizes if affordable(grown(sizes)) else None


def odd(size: float) -> int:
    """The least odd integer >= size, at least 3."""
    return max(3, int(np.ceil(size)) | 1)


def grown(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The next larger odd sizes worth a comparison."""
    return tuple(odd(1.3 * n + 2) for n in sizes)


def affordable(sizes: tuple[int, ...]) -> bool:
    """Whether a dense eigendecomposition on that many nodes takes seconds at most."""
    return np.prod(sizes) <= _LARGEST[len(sizes)]


def _symmetric_form(pde: DriftDiffusion, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """S (m, m), symmetric and non-positive, and sqrt(w) (m,), w relative to its maximum."""
    for axis in grid.axes:
        if axis.kind != "fourier" or axis.size % 2 == 0:
            raise ValueError(
                f"grid must have axes of kind 'fourier' and odd size, got kind {axis.kind!r}, size {axis.size}"
            )
    x = grid.points
    log_w, inverse = log_weight(pde, x), inverse_metric(pde.space, x)
    gradient = []
    for k in range(len(grid.axes)):
        derivative = grid.derivative(k)
        gradient.append(sparse.csr_array(derivative - sparse.diags_array(derivative @ log_w / 2)))
    form = np.zeros((grid.size, grid.size))
    for i, A_i in enumerate(gradient):
        for j, A_j in enumerate(gradient):
            if np.any(inverse[:, i, j]):
                form -= (A_i.T @ sparse.diags_array(inverse[:, i, j]) @ A_j).toarray()
    root = np.exp((log_w - log_w.max()) / 2)
    kernel = root / np.linalg.norm(root)
    residual = form @ kernel  # zero but for truncation
    residual -= (kernel @ residual) / 2 * kernel
    form -= np.outer(residual, kernel) + np.outer(kernel, residual)
    return (form + form.T) / 2, root


def _solve(pde: DriftDiffusion, problem: Problem, sizes: tuple[int, ...]) -> tuple[Grid, np.ndarray]:
    grid = _periodic_grid(pde, sizes)
    return grid, modes(pde, grid).evolve(problem.sample(grid), problem.times)


def _difference(
    pde: DriftDiffusion, problem: Problem, coarse: tuple[Grid, np.ndarray], fine: tuple[Grid, np.ndarray]
) -> float:
    """Relative error of the coarse fields (T, *grid, c): the larger of the plain and the weighted L2 norm.

    The plain one counts because interpolation spreads an error wherever it is.
    """
    grid, fields = fine
    gap = transfer(coarse[1], coarse[0], grid) - fields
    known = np.concatenate([problem.sample(grid)[None], fields])
    norms = (np.full(grid.size, 1 / grid.size), error_weights(pde, grid))
    return max(relative_error(weighted_norm(gap, w), weighted_norm(known, w)) for w in norms)


def _periodic_grid(pde: DriftDiffusion, sizes: tuple[int, ...]) -> Grid:
    return build_grid(pde.space, KINDS, sizes, pde.space.bounds)


def _stats(grid: Grid, error: float) -> dict:
    return {"method": "fourier", "grid": list(grid.shape), "estimated_error": error, "modes": grid.size}
