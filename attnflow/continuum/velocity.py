"""What an asymmetric f adds to the limit: a velocity c, and what of it is left where columns sum to one as rows do.

f leans at y = x by its third derivatives D_jkl in y. With g half its Hessian there, in any coordinates,

    c^i = -(1/2) g^ij g^kl D_jkl - d_j g^ij + (1/2) g^ij d_j log det g,

zero for a symmetric f: softmax's drift 2 g^ij d_j log q - (1/2) g^ij g^kl D_jkl, q the density in the coordinates, less that
of Delta_g + 2 grad log p . grad, p = q / sqrt(det g). Sums over rows or columns are p at leading order where f(x, x) is
constant, since its Hessians in x and in y are then the same: key weights made of them change p's power, not c.

Two-potential Sinkhorn has key weights v = p^(-1/2) exp(-psi / 2) such that p stays as it is. Its generator
Delta_g + (grad log p + c - grad psi) . grad keeps p where the flux of p by the rest vanishes:

    c' = c - grad psi,    div_g (p c') = 0,    no flux through walls,

the part of c that p does not feel (Helmholtz's projection). In one dimension the flux q c' is the same everywhere: none
between walls, and C = (integral g c dx) / (integral g / q dx) on a circle, where psi comes back to itself.

(Ruan & Zhang 2024, Theorem 5, for c; the rest derived for this package and checked numerically.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from .. import checks
from ..geometry import Density, Space
from ..geometry.differences import gradient
from ..grid import Axis, Grid
from ..pde import DriftDiffusion
from ..pde.grids import node_grid
from ..pde.nodes.operator import SymmetricForm, symmetric_form
from ..similarity import PseudoMetric

_SIZES = {2: (17, 25, 37, 55, 81, 121), 3: (13, 19, 27, 37)}  # odd nodes per axis
_CIRCLE = (65, 129, 257, 513, 1025, 4097)
_SEEN = 1e-6  # of c, to which grids agree; its third differences are no better than 1e-7
_SOLVED = 1e-12  # of the right-hand side: what conjugate gradients leave
_STEPS = 2000


def velocity(f: PseudoMetric, space: Space, x: np.ndarray) -> np.ndarray:
    """c at points (N, n) of a space: (N, n)."""
    inverse = np.linalg.inv(f.metric(x))
    divergence = np.einsum("mijj->mi", gradient(lambda z: np.linalg.inv(f.metric(z)), x, "the inverse metric of f", space))
    stretch = gradient(lambda z: np.linalg.slogdet(f.metric(z))[1], x, "log det of the metric of f", space)
    return np.einsum("mij,mj->mi", inverse, stretch - f.lean(x)) / 2 - divergence


def invariant_part(c: Callable, density: Density) -> Callable | None:
    """c' of a velocity c: points (N, n) -> (N, n). None where it vanishes, in one dimension with ends.

    Parameters
    ----------
    c : callable
        Points (N, n) -> (N, n).
    density : Density
        p, in the metric of f.

    Raises
    ------
    ValueError
        On lines of two and more dimensions, and beyond three.

    Warns
    -----
    AccuracyWarning
        If no grid that is tried holds p and c.

    Examples
    --------
    On a circle of uniform density the mean is left:

    >>> import attnflow as af
    >>> part = invariant_part(lambda x: 0.5 + np.cos(x), af.Uniform(af.Circle()))
    >>> part(np.array([[0.0], [2.0]])).round(12)
    array([[0.5],
           [0.5]])
    """
    space = density.space
    if space.dim == 1:
        return _around(c, density) if all(space.periodic) else None
    if space.dim > 3 or not np.isfinite(space.bounds).all():
        raise ValueError(
            "density must live on a torus, box or bounded chart of dimension at most 3 for the limit of two potentials of an "
            f"asymmetric f, got {space}"
        )
    before, error = None, np.inf
    for size in _SIZES[space.dim]:
        part = _projected(c, density, node_grid(space, (size,) * space.dim))
        if before is not None and (error := part.distance(before)) < _SEEN:
            return part
        before = part
    _warn(error)
    return before


@dataclass(frozen=True)
class Around:
    """C / q on a circle, `velocity` where log q is `lowest`: neither underflows."""

    density: Density
    velocity: float
    lowest: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.velocity * np.exp(self.lowest - _log_q(self.density, x))[:, None]


def _around(c: Callable, density: Density) -> Around:
    ((low, high),) = density.space.bounds
    before, error = None, np.inf
    for size in _CIRCLE:
        x = Axis("fourier", size, low, high).nodes[:, None]
        g, log_q = density.space.metric(x)[:, 0, 0], _log_q(density, x)
        around, lowest = g * c(x)[:, 0], float(log_q.min())
        resistance = (g * np.exp(lowest - log_q)).mean()
        part = Around(density, float(around.mean() / resistance), lowest)
        if before is not None:  # beside what all of c one way, and diffusion across the circle, would make of it
            error = abs(part.velocity - before.velocity * np.exp(before.lowest - lowest))
            error *= resistance / (np.abs(around).mean() + 1 / (high - low))
            if error < _SEEN:
                return part
        before = part
    _warn(error)
    return part


def _log_q(density: Density, x: np.ndarray) -> np.ndarray:
    """Log of the density in the coordinates, up to a constant; refused where there is none."""
    return DriftDiffusion(density, 1.0).generator.log_weight(x)


@dataclass(frozen=True)
class Projected:
    """A velocity known on the nodes of a grid.

    Attributes
    ----------
    grid : Grid
    values : (*grid, n) array
    mass : (size,) array
        Of the tokens around the nodes.
    scale : float
        The size of the velocity that it is a part of, and of what diffusion does across the space, as `_norm`.
    """

    grid: Grid
    values: np.ndarray
    mass: np.ndarray
    scale: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.grid.interpolate(self.values, x)

    def distance(self, other: Projected) -> float:
        """How far another grid's is from this at this one's nodes, beside the scale."""
        gap = self.values - other(self.grid.points).reshape(self.values.shape)
        return _norm(gap, self.grid, self.mass) / self.scale


def _norm(values: np.ndarray, grid: Grid, mass: np.ndarray) -> float:
    """Root mean square over the tokens of velocities (*grid, n), in sides of the space."""
    sides = np.array([axis.high - axis.low for axis in grid.axes])
    return float(np.sqrt(mass @ np.sum((values.reshape(grid.size, -1) / sides) ** 2, axis=1)))


def _projected(c: Callable, density: Density, grid: Grid) -> Projected:
    """c' on spectral nodes: with u = sqrt(w) psi and A_i of `pde.nodes.operator`, A_i' (g^ij A_j u - sqrt(w) c^i) = 0."""
    form, dim = symmetric_form(DriftDiffusion(density, 1.0).generator, grid, (None,) * len(grid.axes)), len(grid.axes)
    given = np.moveaxis(c(grid.points).reshape(*grid.shape, dim), -1, 0)[:, None]
    inverse_metric = np.eye(dim)[..., *(None,) * dim] * np.ones(grid.shape) if form.tensor is None else form.tensor

    def slope(u: np.ndarray) -> np.ndarray:
        return np.einsum("ij...,jc...->ic...", inverse_metric, np.array(form.gradient(u.reshape(1, *grid.shape))))

    operator = LinearOperator((grid.size, grid.size), matvec=lambda u: -form.divergence(slope(u)).ravel(), dtype=float)
    known = -form.divergence(form.root * given).ravel()
    u, left = cg(operator, known, rtol=_SOLVED, maxiter=_STEPS, M=_flat_inverse(form))
    if left:
        checks.warn(f"the velocity that keeps p is not converged after {_STEPS} steps", checks.ConvergenceWarning)
    sides = np.array([axis.high - axis.low for axis in grid.axes])
    diffusion = np.moveaxis(np.diagonal(inverse_metric), -1, dim) / sides
    scale = sum(_norm(part, grid, form.mass) for part in (np.moveaxis(given[:, 0], 0, -1), diffusion))
    kept = np.moveaxis((given - slope(u) / form.root)[:, 0], 0, -1)
    return Projected(grid, np.ascontiguousarray(kept), form.mass, scale)


def _flat_inverse(form: SymmetricForm) -> LinearOperator:
    """The inverse of the flat Laplacian, which S is like in high modes, of one more than its first rate."""
    grid = form.grid
    modes = replace(form, tensor=None, root=np.sqrt(grid.weights).reshape(grid.shape)).modes
    assert modes is not None  # without a weight
    rates = reduce(np.add.outer, [-mode.values for mode in modes])
    rates = rates + rates[rates > 1e-9 * rates.max()].min()

    def apply(v: np.ndarray) -> np.ndarray:
        v = v.reshape(grid.shape)
        for k, mode in enumerate(modes):
            v = mode.into(v, k)
        v = v / rates
        for k, mode in enumerate(modes):
            v = mode.back(v, k)
        return v.ravel()

    return LinearOperator((grid.size, grid.size), matvec=apply, dtype=float)


def _warn(error: float) -> None:
    checks.warn(
        f"the velocity that keeps p is good to {error:.1g} only: p or f is not smooth on the finest grid that is tried",
        checks.AccuracyWarning,
    )
