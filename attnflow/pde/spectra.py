"""Eigenvalues and eigenfunctions of L, its spectral gap, and the sets it takes long to leave.

Smooth problems are solved on spectral nodes by a dense eigendecomposition; others on finite volumes by Lanczos
iteration on the shifted and inverted symmetric form, the eigenvalues extrapolated to spacing zero.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh, splu

from .. import checks
from ..grid import Grid
from .boundaries import Walls
from .coefficients import on_sphere
from .finite_volume import Cells
from .harmonics import harmonic_spectrum
from .nested import grid_shapes, romberg_orders
from .smooth import grown, smooth_sizes, solvable
from .propagator import eigenpairs
from .spectral import spectral_grid, symmetric_form, wrapping

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_TOLERANCE = {"spectral": 1e-10, "finite-volume": 1e-9}
_WARN = 1e-6
_ROUGH = 40.0  # range of log w above which eigenvectors of the symmetric form lose their tails
_DENSE = 2500  # unknowns of an eigendecomposition, at most a few seconds
_FINEST = {1: 2**15, 2: 256, 3: 24}  # cells per axis of a factorisation


class _Pair(NamedTuple):
    eigenvalues: np.ndarray
    eigenfunctions: np.ndarray


class Spectrum(_Pair):
    """(eigenvalues (k,), eigenfunctions (k, *grid)), with the grid and the eigenvalues' estimated error beside them."""

    grid: Grid
    estimated_error: float

    def __new__(cls, eigenvalues: np.ndarray, eigenfunctions: np.ndarray, grid: Grid, estimated_error: float):
        self = super().__new__(cls, eigenvalues, eigenfunctions)
        self.grid, self.estimated_error = grid, estimated_error
        return self

    @property
    def gap(self) -> float:
        """Size of the largest nonzero eigenvalue: the rate at which features forget all but their mean.

        Raises
        ------
        ValueError
            If only the eigenvalue 0 was computed.
        """
        size = np.abs(self.eigenvalues)
        slow = size[size > 1e-9 * max(size.max(), 1e-300)]
        if not len(slow):
            raise ValueError(f"k must be at least 2 to tell the spectral gap, got {len(size)}")
        return float(slow[0])

    def metastable_sets(self, count: int | None = None) -> np.ndarray:
        """Labels 0, ..., count - 1 of the sets that exchange features slowest, (*grid).

        Each eigenfunction of a slow mode is nearly constant on each of them; the labels are the nearest corners
        of the simplex that the first `count` eigenfunctions span (Weber & Galliat 2002; Deuflhard & Weber 2005).
        None counts the eigenvalues before the largest relative jump.

        Raises
        ------
        ValueError
            If count is not between 1 and the number of eigenvalues.

        Examples
        --------
        >>> import numpy as np, attnflow as af
        >>> wells = af.Density(af.Circle(), lambda x: 2 * np.cos(2 * x[..., 0]))
        >>> spectrum = af.DriftDiffusion(wells).spectrum(5)
        >>> len(np.unique(spectrum.metastable_sets()))
        2
        """
        size = np.abs(self.eigenvalues)
        if count is None:
            count = 1 + int(np.argmax(size[2:] / np.maximum(size[1:-1], 1e-300))) + 1 if len(size) > 2 else 1
        count = checks.integer(count, "count", least=1)
        if count > len(size):
            raise ValueError(f"count must be at most the {len(size)} eigenvalues computed, got {count}")
        rows = self.eigenfunctions[:count].reshape(count, -1).T
        left, corners = rows.copy(), []
        for k in range(count):
            if k == 1:  # the simplex lies in a plane off the origin: move it there
                left = rows - rows[corners[0]]
            elif k > 1:
                direction = left[corners[-1]] / np.linalg.norm(left[corners[-1]])
                left = left - np.outer(left @ direction, direction)
            corners.append(int(np.argmax(np.linalg.norm(left, axis=1))))
        memberships = np.linalg.solve(rows[corners].T, rows.T)
        return np.argmax(memberships, axis=0).reshape(self.eigenfunctions.shape[1:])


def compute_spectrum(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    """The k smallest eigenpairs; on a given shape those of that grid, otherwise refined.

    Warns (AccuracyWarning) when the refined eigenvalues are not good to 1e-6.
    """
    endless = not on_sphere(pde.space) and not np.isfinite(pde.space.bounds).all()
    if endless and pde.drift <= 0:
        raise ValueError(f"drift must be positive for a discrete spectrum on a line, got {pde.drift}")
    if shape is not None and k > np.prod(shape) - 2:
        raise ValueError(f"k must be at most {np.prod(shape) - 2} on a grid of {list(shape)}, got {k}")
    if shape is None and pde.on_globe:
        found = harmonic_spectrum(pde, k, _TOLERANCE["spectral"])
        if found is not None:
            values, functions, grid, error = found
            return Spectrum(values, _normalised(pde, functions.reshape(k, -1), grid), grid, error)
    nodes = not pde.on_globe and (shape is None or all(wrapping(pde)))  # a given grid elsewhere is one of cells
    sizes = smooth_sizes(pde, None, _TOLERANCE["spectral"]) if nodes else None
    least = int(np.ceil(2 * (k + 1) ** (1 / pde.space.dim)))
    if sizes is not None:
        sizes = solvable(pde, tuple(max(n, least) for n in sizes) if shape is None else shape)
    if sizes is None or np.prod(sizes) > _DENSE:
        result = _finite_volume(pde, k, shape, walls)
    else:
        result = _spectral(pde, k, sizes, shape is not None, walls)
    if shape is None and result.estimated_error > _WARN:
        warnings.warn(
            f"eigenvalues are good to {result.estimated_error:.1g} only on the finest grid; ask for fewer of them",
            checks.AccuracyWarning,
            stacklevel=3,
        )
    return result


def _spectral(pde: DriftDiffusion, k: int, sizes: tuple[int, ...], keep: bool, walls: Walls) -> Spectrum:
    """Refined until the eigenvalues stand, or on the nodes given, with their error from a finer or coarser grid."""
    found, error = _modes(pde, sizes, walls), np.inf
    while error > _TOLERANCE["spectral"] and np.prod(grown(pde, sizes)) <= _DENSE:
        sizes = grown(pde, sizes)
        finer = _modes(pde, sizes, walls)
        error = _relative_change(finer[1][:k], found[1][:k])
        if keep:
            break
        found = finer
    grid, values, vectors, root = found
    return Spectrum(values[:k], _normalised(pde, (vectors[:, :k] / root[:, None]).T, grid), grid, error)


def _modes(pde: DriftDiffusion, sizes: tuple[int, ...], walls: Walls):
    form = symmetric_form(pde, spectral_grid(pde, sizes), walls)
    values, vectors = eigenpairs(form)
    return form.grid, values, vectors, form.root.ravel()


def _finite_volume(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    dim = pde.space.dim
    if shape is not None:
        cells = pde.cells(shape, walls)
        values, vectors = _nearest_zero(cells, k)
        coarser = tuple(max(4, 2 * (n // 4)) for n in shape)
        error = np.inf
        if np.prod(coarser) > k + 2:
            error = _relative_change(_nearest_zero(pde.cells(coarser, walls), k)[0], values)
            error /= float(np.mean(np.divide(shape, coarser))) ** 2 - 1
        return Spectrum(values, _normalised(pde, _functions(cells, values, vectors), cells.grid), cells.grid, error)
    shapes = grid_shapes(pde, pde.ranges())
    # eigenfunctions are not extrapolated: where it costs nothing, they get fine grids
    shapes = shapes[3:] if dim == 1 else shapes if dim == 2 else [tuple(n // 2 for n in shapes[0]), *shapes]
    shapes = [shape for shape in shapes if np.prod(shape) >= 4 * k and max(shape) <= _FINEST[dim]]
    if len(shapes) < 3:
        raise ValueError(f"k must leave three grids of at least 4 k cells to compare, got {k}; give a grid")
    rows, error = [], np.inf
    for shape in shapes:
        cells = pde.cells(shape, walls)
        values, vectors = _nearest_zero(cells, k)
        rows.append([values])
        for order in romberg_orders(cells)[: len(rows) - 1]:
            fine, coarse = rows[-1][-1], rows[-2][len(rows[-1]) - 1]
            rows[-1].append(fine + (fine - coarse) / (2.0**order - 1))
        if len(rows[-1]) > 2:
            error = _relative_change(rows[-1][-1], rows[-1][-2])
        if error <= _TOLERANCE["finite-volume"]:
            break
    best = np.minimum(rows[-1][-1], 0.0)
    return Spectrum(best, _normalised(pde, _functions(cells, values, vectors), cells.grid), cells.grid, error)


def _nearest_zero(cells: Cells, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,) of the symmetric form sqrt(w) L / sqrt(w) and its orthonormal eigenvectors (n, k)."""
    symmetric = cells.operator(symmetric=True).tocsc()
    # a positive shift of about 1 / length^2: above the whole spectrum and close to its top
    shift = np.median(cells.loss) / (4 * max(cells.grid.shape) ** 2)
    start = np.random.default_rng(0).normal(size=cells.grid.size)  # same eigenvectors every time
    values, vectors = eigsh(symmetric, k, sigma=shift, which="LM", v0=start)
    order = np.argsort(-values)
    return np.minimum(values[order], 0.0), vectors[:, order]


def _functions(cells: Cells, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """phi = v / sqrt(w), (k, n). Where w is so small that v is rounding error, one inverse iteration with L
    itself, whose entries stay moderate, rebuilds phi from where it is known."""
    half = (cells.log_weight - cells.log_weight.max()) / 2
    known = half > -_ROUGH / 4
    functions = np.where(known[:, None], vectors * np.exp(-np.where(known, half, 0.0))[:, None], 0.0)
    if not known.all():
        scale = np.abs(values).max()
        identity = sparse.eye_array(cells.grid.size, format="csc")
        for m, value in enumerate(values):
            shifted = cells.operator().tocsc() - (value + 1e-7 * (scale or 1.0)) * identity
            solver = splu(shifted.tocsc())
            for _ in range(2):
                functions[:, m] = solver.solve(functions[:, m])
                functions[:, m] /= np.abs(functions[known, m]).max()
    return functions.T


def _normalised(pde: DriftDiffusion, functions: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, *grid): unit weighted norm, positive at the first node where they exceed half their maximum."""
    weight = np.exp(pde.log_weight(grid.points)) * grid.weights
    functions = functions / np.sqrt(functions**2 @ weight)[:, None]
    first = np.argmax(np.abs(functions) > 0.5 * np.abs(functions).max(axis=1, keepdims=True), axis=1)
    signs = np.sign(functions[np.arange(len(functions)), first])
    return (functions * signs[:, None]).reshape(len(functions), *grid.shape)


def _relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, relative to the eigenvalue or, for one near zero, to the next in size."""
    scale = np.abs(b)
    floor = scale[scale > 1e-9 * scale.max()].min(initial=np.inf)
    return float(np.max(np.abs(a - b) / np.maximum(scale, floor if np.isfinite(floor) else 1.0)))
