"""Spectral discretisation of L for smooth problems, in any metric: Fourier where an axis wraps, Legendre between walls.

With w the conserved weight and q the quadrature weights of the nodes, L = w^-1 d_i (w T^ij d_j) is, in
u = sqrt(q w) H, symmetric and non-positive:

    S = -sum_ij A_i' T^ij A_j,     A_i = sqrt(q) d_i / sqrt(q) - (d_i log w) / 2.

Integration by parts is exact on these nodes, so a no-flux wall needs nothing; at a Dirichlet wall the node on it
is held. Written with log w, no entry grows as w spans many orders of magnitude. sqrt(q w), the constant's
image, is projected out exactly: constants stay, and the integral of w H is conserved, on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..grid import Axis, Grid
from . import chebyshev
from .boundaries import Walls
from .coefficients import build_grid, coefficients, extent

if TYPE_CHECKING:
    from .equations import DriftDiffusion

KINDS = ("fourier", "lobatto")


@dataclass(frozen=True)
class SymmetricForm:
    """S on a grid, as factors to be applied axis by axis to fields (c, *grid).

    Attributes
    ----------
    grid : Grid
    derivatives : list of (n_k, n_k) arrays
        sqrt(q) d / sqrt(q) along each axis.
    slopes : (n, *grid) array
        (d_k log w) / 2.
    tensor : (n, n, *grid) array or None
        T^ij; None for the identity.
    root : (*grid) array
        sqrt(q w), of norm 1.
    held : (*grid) array or None
        1 where features move, 0 on Dirichlet walls.
    xp : module
        The arrays' namespace, numpy or cupy.
    """

    grid: Grid
    derivatives: list
    slopes: Any
    tensor: Any
    root: Any
    held: Any = None
    xp: Any = np

    @cached_property
    def bound(self) -> float:
        """|S| <= max eigenvalue of T * sum |A_k|^2."""
        xp, total = self.xp, 0.0
        for k, derivative in enumerate(self.derivatives):
            total += (float(xp.linalg.norm(derivative, 2)) + float(abs(self.slopes[k]).max())) ** 2
        if self.tensor is None:
            return total
        largest = xp.linalg.eigvalsh(xp.moveaxis(self.tensor, (0, 1), (-2, -1))).max()
        return float(largest) * total

    def bare(self, v):
        """-sum A_i' T^ij A_j v for fields (c, *grid), Dirichlet walls and projection left out."""
        slopes = [self._along(v, k) - self.slopes[k] * v for k in range(len(self.derivatives))]
        if self.tensor is not None:
            slopes = [sum(self.tensor[i, j] * s for j, s in enumerate(slopes)) for i in range(len(slopes))]
        return -sum(self._along(s, k, adjoint=True) - self.slopes[k] * s for k, s in enumerate(slopes))

    def apply(self, v):
        """S v for fields (c, *grid)."""
        result = self.bare(v if self.held is None else self.held * v)
        if self.held is not None:
            return self.held * result
        axes = tuple(range(1, v.ndim))
        along, against = ((factor * v).sum(axis=axes, keepdims=True) for factor in (self.root, self._residual))
        return result - self._residual * along - self.root * against

    def dense(self) -> np.ndarray:
        """S as a matrix, (size, size)."""
        identity = np.eye(self.grid.size).reshape(-1, *self.grid.shape)
        matrix = self.apply(identity).reshape(self.grid.size, -1)
        return (matrix + matrix.T) / 2

    @cached_property
    def _residual(self):
        """What S leaves of the constant's image, zero but for truncation, made orthogonal to half of it."""
        residual = self.bare(self.root[None])[0]
        return residual - (self.root * residual).sum() / 2 * self.root

    def _along(self, v, k: int, adjoint: bool = False):
        matrix = self.derivatives[k].T if adjoint else self.derivatives[k]
        if k == len(self.derivatives) - 1:
            return v @ matrix.T
        shape = v.shape
        return (matrix @ v.reshape(int(np.prod(shape[: k + 1])), shape[k + 1], -1)).reshape(shape)


def symmetric_form(pde: DriftDiffusion, grid: Grid, walls: Walls, backend: str = "numpy") -> SymmetricForm:
    """S on a grid of fourier axes of odd size and lobatto axes.

    Raises
    ------
    ValueError
        If an axis is of another kind, or of even size where it wraps: an even number of nodes has a mode that its
        derivative does not see.
    """
    for axis in grid.axes:
        if axis.kind not in KINDS or (axis.kind == "fourier" and axis.size % 2 == 0):
            raise ValueError(
                "grid must have axes of kind 'lobatto', or of kind 'fourier' and odd size, "
                f"got kind {axis.kind!r}, size {axis.size}"
            )
    xp = namespace(backend)
    log_w, tensor = coefficients(pde, grid)
    slopes = [grid.derivative(k) @ log_w / 2 for k in range(len(grid.axes))]
    root = np.exp((log_w - log_w.max()) / 2) * np.sqrt(grid.weights)
    if tensor is not None:
        tensor = xp.asarray(np.moveaxis(tensor.reshape(*grid.shape, *tensor.shape[1:]), (-2, -1), (0, 1)))
    held = held_nodes(grid, walls)
    return SymmetricForm(
        grid,
        [xp.asarray(_scaled_derivative(axis)) for axis in grid.axes],
        xp.asarray(np.stack(slopes).reshape(-1, *grid.shape)),
        tensor,
        xp.asarray((root / np.linalg.norm(root)).reshape(grid.shape)),
        None if held is None else xp.asarray(1.0 - held),
        xp,
    )


def evolve(form: SymmetricForm, initial: np.ndarray, times: np.ndarray, tol: float, walls: Walls):
    """Fields (T, *grid, c) at the times from initial values (*grid, c), and how they were computed.

    The cheaper of Chebyshev polynomials of S and its eigendecomposition.
    """
    xp = form.xp
    start = xp.asarray(np.moveaxis(initial, -1, 0)) * form.root
    source = None
    if form.held is not None:
        wall = xp.asarray(np.moveaxis(wall_values(form.grid, walls, initial), -1, 0)) * form.root
        start = form.held * start
        source = form.held * form.bare(wall)
    degree = chebyshev.degree_for(float(times[-1]) * form.bound / 2, tol)
    size, dim = form.grid.size, len(form.grid.axes)
    applied = degree * (2e-5 * dim**2 + 2e-9 * size * sum(form.grid.shape)) * (1 if source is None else 2)
    if xp is np and size <= 3000 and 2e-4 + 2e-6 * size + 1.5e-9 * size**3 < applied:
        fields, stats = _by_modes(form, start, source, times), {"integrator": "eigenvectors"}
    else:
        fields, stats = _by_chebyshev(form, start, source, times, tol), {"integrator": "chebyshev", "applications": degree}
    fields = xp.stack([field / form.root for field in fields])
    if form.held is not None:
        fields = fields * form.held + (1 - form.held) * (wall / form.root)
    fields = fields if xp is np else xp.asnumpy(fields)
    return np.moveaxis(fields, 1, -1), stats


def _by_chebyshev(form: SymmetricForm, start, source, times: np.ndarray, tol: float) -> list:
    def step(v):
        return v + (2 / form.bound) * form.apply(v)

    weights = chebyshev.coefficients(times, form.bound, tol)
    fields = chebyshev.propagate(step, start, weights, form.xp)
    if source is not None and bool((source != 0).any()):
        weights = chebyshev.integral_coefficients(times, form.bound, tol)
        fields = [a + b for a, b in zip(fields, chebyshev.propagate(step, source, weights, form.xp))]
    return fields


def _by_modes(form: SymmetricForm, start: np.ndarray, source: np.ndarray | None, times: np.ndarray) -> list:
    values, vectors = eigenpairs(form)
    columns = len(start)
    amplitude = start.reshape(columns, -1) @ vectors
    decay = np.exp(times[:, None] * values)
    result = decay[:, None] * amplitude
    if source is not None:
        scaled = times[:, None] * values
        phi = np.where(scaled < 0, np.expm1(scaled) / np.where(scaled < 0, scaled, 1.0), 1.0)
        result = result + (times[:, None] * phi)[:, None] * (source.reshape(columns, -1) @ vectors)
    return list((result @ vectors.T).reshape(len(times), *start.shape))


def eigenpairs(form: SymmetricForm) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (m,) of S from 0 down and orthonormal eigenvectors (m, m)."""
    values, vectors = np.linalg.eigh(-form.dense())
    if form.held is None:
        values[0] = 0.0  # of the constant, but for rounding
    return -np.maximum(values, 0.0), vectors


def held_nodes(grid: Grid, walls: Walls) -> np.ndarray | None:
    """1 on the nodes of Dirichlet walls, (*grid); None if there are none."""
    held = np.zeros(grid.shape)
    for k, pair in enumerate(walls):
        for end, side in enumerate(pair or ()):
            if side is not None:
                held[(slice(None),) * k + (-end,)] = 1.0
    return held if held.any() else None


def wall_values(grid: Grid, walls: Walls, like: np.ndarray) -> np.ndarray:
    """Dirichlet values on their nodes, zero elsewhere: (*grid, c)."""
    result, index = np.zeros(like.shape), np.arange(grid.size).reshape(grid.shape)
    flat = result.reshape(grid.size, -1)
    for k, pair in enumerate(walls):
        for end, side in enumerate(pair or ()):
            if side is not None:
                nodes = index.take(-end, axis=k).ravel()
                flat[nodes] = side.at(grid.points[nodes], flat.shape[1])
    return result


def spectral_grid(pde: DriftDiffusion, sizes: tuple[int, ...]) -> Grid:
    """The grid of that many nodes per axis."""
    return build_grid(pde.space, KINDS, sizes, extent(pde))


def namespace(backend: str):
    """numpy or cupy."""
    if backend == "numpy":
        return np
    import cupy

    return cupy


@lru_cache(maxsize=64)
def _scaled_derivative(axis: Axis) -> np.ndarray:
    root = np.sqrt(axis.weights)
    return root[:, None] * axis.derivative() / root
