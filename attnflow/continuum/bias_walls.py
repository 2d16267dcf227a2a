"""The bias at walls, of order sqrt(eps): what a wall has of the conserved weight beside p^drift.

Within a few sqrt(s) of a wall, s = m2, tokens see less on one side. With u the distance over sqrt(s), Phi the normal
distribution and r the part of the key weights that changes there, the layer's conserved weight is p^drift times

    w(u) = r(u) integral_0^inf phi(u - v) r(v) dv,      r = 1 (softmax), Phi^-alpha (density-corrected, column: alpha = 1),

which counts features and what flows along the wall alike; what flows across does not matter to this order, as the slope of
features vanishes there. So the wall carries the mass sqrt(s) m, m = integral_0^inf (w - 1) du, with the mobility of the
inside, and to first order in it features deviate by

    sqrt(s) m sum_jk phi_j (l_k W_jk - T_jk) h_k integral_0^t e^(-l_j (t-u) - l_k u) du,
    W, T = wall integrals of p^drift phi_j phi_k and of p^drift <grad phi_j, grad phi_k> along the wall,

with eigenfunctions L phi_j = -l_j phi_j and coefficients h_k of the start: the condition d_nu H = -sqrt(s) m d_nu^2 H in place
of no flux. (As a condition it is ill-posed for m < 0.) The same whatever the residual: one layer moves features by a tau.
Where m is about 0 the next order, of eps, leads at most temperatures that are asked for: there, and where m is not known, the
bias is what layers of infinitely many tokens say, at this eps. (Derived for this package and checked numerically.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from .. import checks
from ..attention import Attention, MultiHead
from ..geometry import Density
from ..grid import Grid
from ..norms import column_norms
from ..pde import DriftDiffusion
from ..pde.grids import node_grid
from ..pde.nodes.operator import symmetric_form
from ..pde.propagator import eigenpairs
from .bias_flat import duhamel
from .infinite import Difference, finished, infinite_layers
from .limits import limit
from .nodes import exact
from .on_nodes import OnNodes

_SIZES = {1: (25, 37, 55, 81, 121, 181, 271, 401), 2: (13, 19, 27, 37, 49), 3: (9, 11, 13)}  # nodes per axis
_LEADS = 0.1  # m from which on the order sqrt(eps) is taken; the next has a constant of about 1
_ENOUGH, _WARN = 1e-4, 1e-2  # relative change by the last nodes


def wall_bias(layer: Attention, density: Density, initial: Callable, t: float) -> Callable:
    """The bias to order sqrt(eps) on a space with walls, as `predicted_bias` has it, if `has_wall_order`."""
    equation = limit(layer, density)
    assert isinstance(equation, DriftDiffusion)
    scale = layer.normalization.wall_mass() * np.sqrt(layer.f.second_moment(layer.epsilon, density.space.dim))
    before, error = None, np.inf
    for size in _SIZES[density.space.dim]:
        grid = node_grid(density.space, (size,) * density.space.dim)
        values, mass = _on_nodes(equation, grid, checks.evaluate(initial, grid.points, "initial"), t)
        found = OnNodes(grid, scale * values.reshape(*grid.shape, -1), density)
        if before is not None:
            gap = column_norms(mass, scale * values - before(grid.points))
            whole = column_norms(mass, scale * values)
            error = float(np.max(gap / np.where(whole > 0, whole, 1.0)))  # of the column that changes most
            if error < _ENOUGH:
                return found
        before = found
    if error > _WARN:
        checks.warn(
            f"the predicted bias is good to {error:.1g} of itself on {grid.shape} nodes: density, f or initial is not smooth",
            checks.AccuracyWarning,
        )
    return found


def has_wall_order(layer: Attention | MultiHead, density: Density) -> bool:
    """Whether the bias is of order sqrt(eps) with a constant that is known.

    One head of a symmetric f whose similarity is a Gaussian as eps -> 0, on a bounded space, and a mass that is not about 0.
    """
    if not isinstance(layer, Attention) or layer.normalization.selects or layer.f.exponent not in (2.0, None):
        return False
    bounded = bool(np.isfinite(density.space.bounds).all())
    if not (bounded and layer.normalization.knows("wall_mass") and layer.f.is_symmetric(density.space.probe_points())):
        return False
    return abs(layer.normalization.wall_mass()) > _LEADS


def own_bias(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, n_tokens: float | None = None
) -> Difference:
    """The bias at this eps, not its leading order: layers of infinitely many tokens less the equation.

    Raises
    ------
    ValueError
        Where `limit` or the layers refuse.
    """
    equation = finished(limit(layer, density, n_tokens).solve(initial, t))
    return Difference(finished(infinite_layers(exact(layer), density, initial, t, n_tokens=n_tokens)), equation)


def _on_nodes(equation: DriftDiffusion, grid: Grid, features: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """The double sum on nodes, (size, c), and their masses: with u = root H the modes are orthonormal vectors."""
    form, dim = symmetric_form(equation.generator, grid, (None,) * len(grid.axes)), len(grid.axes)
    eigenvalues, modes = eigenpairs(form)
    root, coupling = form.root.reshape(-1, 1), 0.0
    slopes = [slope.reshape(len(eigenvalues), -1) for slope in form.gradient(modes.T.reshape(-1, *grid.shape))]
    tensor = np.broadcast_to(np.eye(dim), (grid.size, dim, dim))
    if form.tensor is not None:
        tensor = np.moveaxis(form.tensor.reshape(dim, dim, -1), -1, 0)
    for k, axis in enumerate(grid.axes):
        if axis.kind != "lobatto":
            continue
        end = np.take(np.arange(grid.size).reshape(grid.shape), (0, -1), axis=k).ravel()
        here, across = modes[end], tensor[end]
        wall = np.sqrt(across[:, k, k]) / axis.weights[-1]  # dS = sqrt(g^kk) dvol / dx_k
        along = across - across[:, :, k, None] * across[:, None, k] / across[:, k, k, None, None]
        coupling = coupling - (here.T @ (wall[:, None] * here)) * eigenvalues
        for i, j in itertools.product(range(dim), repeat=2):
            if k not in (i, j):
                coupling = coupling - slopes[i][:, end] @ ((wall * along[:, i, j])[:, None] * slopes[j][:, end].T)
    amplitudes = modes.T @ (root * features)
    return modes @ ((coupling * duhamel(eigenvalues, t)) @ amplitudes) / root, form.mass
