"""The bias on flat spaces in closed form, to first order.

For an isotropic similarity with moments m2, m4 on a flat space, tau = m2 / 2 and the normalisation's
own r and L = r^-2 div(r^2 grad), one plain layer is A H = H + tau (L H + E H) + ..., with

    E H = m4 / (12 m2) (Delta^2(r H) - H Delta^2 r) / r - (m2 / 2) (Delta r / r) L H - k m2 grad V . grad H

    softmax: r = p, k = 0;   alpha: r = p^(1 - alpha), k = alpha, V = Delta p / p;   Sinkhorn: r = sqrt p,
    k = 1/2, V = Delta r / r.

Layers with residual step a then deviate from the equation by

    integral_0^t e^((t-u) L) (E - (a tau / 2) L^2) e^(u L) H du.

All is computed for psi = r H, which decays at the ends of a line, by Fourier modes: with U = Delta r / r,

    r L H = Delta psi - U psi,    Delta^2 r / r = Delta U + 2 grad U . grad log r + U^2.

(Singer 2006 for softmax at one layer; the rest derived for this package and checked numerically.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np

from .. import checks
from ..attention import Attention
from ..geometry import Density, Euclidean, Space, Torus
from ..grid import Axis, Grid, bandwidth
from ..resolution import interpolation_error
from ..similarity import LogDistance, Mahalanobis, PowerDistance, SquaredDistance
from .nodes import centred
from .on_nodes import OnNodes, least_held

_SIZES = {1: (65, 129, 257, 513, 1281), 2: (21, 31, 45), 3: (13,)}  # odd nodes per axis: no Nyquist mode
_HELD, _SEEN = 1e-8, 1e-6  # of r and r H: modes that do not count, error between the nodes that does not
_TOLD = 1e-5  # error between the nodes that is warned of: of 13 nodes in three dimensions the bias is good to as much
_STEPS, _STEPS_PER_MODE = 160, 8  # of differences along an axis: at least, and for each mode of the density
_STENCIL = np.arange(-4, 5)


def is_flat(layer: Attention, space: Space) -> bool:
    """Whether the closed form holds: a distance on a flat torus or Euclidean space of at most three dimensions, or Mahalanobis."""
    f = layer.f
    known = isinstance(f, (SquaredDistance, PowerDistance, LogDistance, Mahalanobis))
    return known and isinstance(space, (Torus, Euclidean)) and space.dim <= 3


def flat_bias(layer: Attention, density: Density, initial: Callable, t: float) -> Callable:
    """The first order by the closed form above, as `predicted_bias` has it."""
    if not np.isfinite(layer.f.moments(layer.epsilon, density.space.dim)[1]):
        raise ValueError(f"epsilon must be smaller for a predicted bias: the fourth moment is infinite at {layer.epsilon}")
    power = layer.normalization.drift / 2
    grid, features, r, steps = _resolving_grid(density, initial, power)
    features, _ = centred(layer, features, density.pdf(grid.points))
    if all(density.space.periodic) and r.min() < 1e-9:
        raise ValueError(
            f"density must not fall below 1e-9 of its top (to the power {power:g}) on a torus for a predicted bias, "
            f"got {r.min():.1g}: rounding errors would take over there"
        )
    inverse_metric = np.linalg.inv(layer.f.metric(grid.points[:1])[0])
    of_p = _derivatives(density.log_pdf, grid, steps)
    slopes, U, dU, laplacian_U = _ratio(of_p, power, inverse_metric)
    first = [grid.derivative(k).toarray() for k in range(len(grid.axes))]
    laplacian = sum(inverse_metric[a, b] * first[a] @ first[b] for a in range(len(first)) for b in range(len(first)))

    def along(field: np.ndarray) -> np.ndarray:
        """(field . grad) of H as a matrix on psi."""
        raised = field @ inverse_metric
        return sum(raised[:, a, None] * first[a] for a in range(len(first))) - np.diag(np.sum(raised * slopes, axis=1))

    L = (laplacian + laplacian.T) / 2 - np.diag(U)
    m2, m4 = layer.f.moments(layer.epsilon, density.space.dim)
    bilaplacian_r = laplacian_U + 2 * np.sum(dU @ inverse_metric * slopes, axis=1) + U**2
    E = m4 / (12 * m2) * (laplacian @ laplacian - np.diag(bilaplacian_r)) - m2 / 2 * U[:, None] * L
    k, s = layer.normalization.first_order()
    E -= k * m2 * along(_ratio(of_p, s, inverse_metric).gradient)

    eigenvalues, basis = np.linalg.eigh(L)
    M = basis.T @ (E - layer.time_step / 2 * L @ L) @ basis
    psi = (basis @ ((M * duhamel(eigenvalues, t)) @ (basis.T @ (r[:, None] * features)))).reshape(*grid.shape, -1)
    return OnNodes(grid, psi / r.reshape(*grid.shape, 1), density, power, least_held(density, power))


def duhamel(eigenvalues: np.ndarray, t: float) -> np.ndarray:
    """integral_0^t e^((t-u) a_j + u a_k) du for eigenvalues a (k,): the divided differences of exp(t .), (k, k)."""
    gap = np.abs(eigenvalues[:, None] - eigenvalues)
    slower = np.maximum(eigenvalues[:, None], eigenvalues)
    apart = np.where(t * gap > 1e-9, gap, 1.0)
    return np.exp(t * slower) * np.where(t * gap > 1e-9, -np.expm1(-t * apart) / apart, t)


def _resolving_grid(density: Density, initial: Callable, power: float) -> tuple[Grid, np.ndarray, np.ndarray, np.ndarray]:
    """The smallest periodic grid that holds r and r H to 1e-8; the features, and r = p^power below its top, on it.

    Last the steps per axis (n,) in which the density changes little enough for differences.
    """
    extent = _extent(density, power)
    for size in _SIZES[density.space.dim]:
        grid = Grid(tuple(Axis("fourier", size, low, high) for low, high in extent))
        features = checks.evaluate(initial, grid.points, "initial")
        log_p = density.log_pdf(grid.points)
        top = log_p.max()

        def fields(x: np.ndarray) -> np.ndarray:
            r = np.exp(power * (density.log_pdf(x) - top))[:, None]
            return np.concatenate([r, r * checks.evaluate(initial, x, "initial")], axis=1)

        r = np.exp(power * (log_p - top))
        values = np.concatenate([r[:, None], r[:, None] * features], axis=1)
        unseen = float(interpolation_error(fields, grid, values, "initial").max())
        on_grid = values.reshape(*grid.shape, -1)
        if bandwidth(on_grid, _HELD) is not None and unseen < _SEEN:
            break
    if unseen > _TOLD:
        checks.warn(
            f"the predicted bias needs smooth log_pdf and initial: {grid.shape} nodes do not hold them to {_HELD:g}; "
            f"between the nodes they are off by {unseen:.1g}",
            checks.AccuracyWarning,
        )
    widths = bandwidth(on_grid[..., :1], _HELD) or grid.shape
    return grid, features, r, np.maximum(_STEPS, _STEPS_PER_MODE * np.array(widths))


def _extent(density: Density, power: float) -> list[tuple[float, float]]:
    """A torus as it is; a line cut where r has fallen to 1e-9, so that r H is periodic there for all purposes."""
    if all(density.space.periodic):
        return list(density.space.bounds)
    grid = density.grid({1: 1000, 2: 200, 3: 60}[density.space.dim])
    log_p = density.log_pdf(grid.points)
    inside = grid.points[power * (log_p - log_p.max()) > -20.7]
    return [(low - axis.spacing, high + axis.spacing) for low, high, axis in zip(inside.min(0), inside.max(0), grid.axes)]


class _Ratio(NamedTuple):
    """For r = p^power: grad log r (m, n), U = Delta r / r (m,), its gradient (m, n) and its Laplacian (m,)."""

    slopes: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    laplacian: np.ndarray


def _ratio(of_p: list[np.ndarray], power: float, inverse_metric: np.ndarray) -> _Ratio:
    """Delta r / r = Delta l + |grad l|^2 with l = log r, and the chain rule from there."""
    one, two, three, four = (power * derivative for derivative in of_p)
    g = inverse_metric
    value = np.einsum("ab,mab->m", g, two) + np.einsum("ab,ma,mb->m", g, one, one)
    gradient = np.einsum("ab,mabc->mc", g, three) + 2 * np.einsum("ab,mac,mb->mc", g, two, one)
    laplacian = np.einsum("cd,ab,mabcd->m", g, g, four) + 2 * (
        np.einsum("cd,ab,macd,mb->m", g, g, three, one) + np.einsum("cd,ab,mac,mbd->m", g, g, two, two)
    )
    return _Ratio(one, value, gradient, laplacian)


def _derivatives(function: Callable, grid: Grid, count: np.ndarray) -> list[np.ndarray]:
    """All partial derivatives of order 1 to 4 at the nodes, as symmetric tensors, by nine-point differences.

    Of sixth order at least; with `count` (n,) steps along the extent, at 160 the fourth derivative is good to about 1e-8 for
    functions as smooth as a density that some fifty modes hold.
    """
    n, steps = len(grid.axes), np.array([axis.high - axis.low for axis in grid.axes]) / count
    offsets = np.stack(np.meshgrid(*[_STENCIL] * n, indexing="ij"), axis=-1)
    values = function(grid.points[(slice(None),) + (None,) * n] + offsets * steps)
    powers = np.vander(_STENCIL.astype(float), increasing=True).T
    weights = np.linalg.solve(powers, np.diag([float(factorial(k)) for k in range(9)]))[:, :5].T  # [order, node]
    tensors = []
    for order in range(1, 5):
        tensor = np.empty((grid.size,) + (n,) * order)
        for index in itertools.product(range(n), repeat=order):
            result = values
            for axis in reversed(range(n)):  # the last axis first: each contraction removes one
                result = result @ weights[index.count(axis)] / steps[axis] ** index.count(axis)
            place: tuple[slice | int, ...] = (slice(None), *index)
            tensor[place] = result
        tensors.append(tensor)
    return tensors
