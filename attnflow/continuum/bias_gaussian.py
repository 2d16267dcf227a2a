"""The bias of Gaussian tokens in any number of dimensions, in closed form: layers and equation carry Gaussians to Gaussians.

In coordinates z in which the metric is 1 and the tokens' covariance diag(l), a plain layer and the equation both take H to
its mean under a normal law about M z of variance V, each axis by itself: with c = drift / (2 l) and tau = s / 2

    equation    M = e^(-2 c t),    V = (1 - M^2) / (2 c),
    layers      log M = -t (2 c - b tau),    V = (1 - M^2) (1 / (2 c) + b tau / (4 c^2)),    b = 2 c^2 - 4 k (s_0 / l)^2,

to first order in tau, (k, s_0) the normalisation's `first_order`. Sinkhorn's b is 0: there log M = -(t / tau) asinh(tau / l)
and V = (1 - M^2) l exactly. With a residual a < 1 the bias has tau (1 - a) t / 2 d^2 H / dt^2 more. Changes of a law are
weights on it,

    d E[H] = E[H (dm' C^-1 (y - m) + tr(C^-1 dC (C^-1 (y - m)(y - m)' - 1)) / 2)],

so H is only evaluated: on Smolyak's sparse sums of Gauss and Hermite, in the coordinates on which it depends, exact for
polynomials of a degree that is raised until the bias stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb
from typing import NamedTuple

import numpy as np

from .. import checks
from ..attention import Attention
from ..geometry import Density, Gaussian
from ..similarity import Mahalanobis, SquaredDistance
from .bias_extrapolated import may_vanish

_PROBES, _MOVED = 12, 256  # points at which the bias must stand; at which a coordinate may change initial
_ENOUGH, _WARN = 1e-7, 1e-2  # relative change by the last degree
_MOST_NODES, _LEVELS = 50_000, 60
_EVALUATIONS = 2**21  # of H at a time
_STEP = 1e-2  # of t, in a difference


def has_gaussian_bias(layer: object, density: Density) -> bool:
    """Whether the closed form is known: Gaussian tokens and a Gaussian similarity, of one head."""
    known = isinstance(layer, Attention) and isinstance(layer.f, (SquaredDistance, Mahalanobis))
    return known and isinstance(density, Gaussian) and not layer.normalization.selects  # type: ignore[attr-defined]


def gaussian_bias(layer: Attention, density: Gaussian, initial: Callable, t: float) -> GaussianBias:
    """The bias to its leading order, as `predicted_bias` has it."""
    layer.normalization.require("first_order", "predicted bias")
    points = density.sample(_PROBES, rng=0)
    varies = _coordinates(initial, density.sample(_MOVED, rng=0))
    bias = GaussianBias(layer, density, initial, t, varies, 2)
    if t == 0 or not len(varies):
        return bias
    before, change = bias(points), np.inf
    while change > _ENOUGH and bias.level < _LEVELS and _count(len(varies), bias.level + 1) <= _MOST_NODES:
        bias = replace(bias, level=bias.level + 1)
        here = bias(points)
        change = float(np.max(np.linalg.norm(here - before, axis=0) / np.maximum(np.linalg.norm(here, axis=0), 1e-300)))
        before = here
    if change > _WARN:
        checks.warn(
            f"the predicted bias is good to {change:.1g} of itself: initial depends on {len(varies)} coordinates, and is no "
            f"polynomial of a degree as low as {2 * bias.level - 3}",
            checks.AccuracyWarning,
        )
    return bias


@dataclass(frozen=True, eq=False)
class GaussianBias:
    """Points (M, n) -> signed bias (M, c).

    Attributes
    ----------
    layer, density, initial, t
        As `predicted_bias` has them.
    varies : (k,) array of int
        The coordinates on which initial depends.
    level : int
        Polynomials of degree 2 level - 3 are exact.
    """

    layer: Attention
    density: Gaussian
    initial: Callable
    t: float
    varies: np.ndarray
    level: int

    def __call__(self, points: np.ndarray) -> np.ndarray:
        points = self.density.space.check(points, "points")
        if self.t == 0 or not len(self.varies):
            return 0.0 * checks.evaluate(self.initial, points, "initial")
        tau, a = self.layer.time_step / self.layer.residual, self.layer.residual
        axes = _Axes.of(self.layer, self.density)
        law = axes.law(self.t)
        if may_vanish(self.layer):
            return tau**2 * self._change(points, axes, law, axes.second_order(self.t, law))
        bias = tau * self._change(points, axes, law, axes.first_order(self.t, law))
        if a < 1:
            rates = [
                weight * self._change(points, axes, axes.law(t), axes.rate(t))
                for weight, t in zip((1 / 12, -2 / 3, 2 / 3, -1 / 12), self.t * (1 + _STEP * np.array([-2, -1, 1, 2])))
            ]
            bias = bias + tau * (1 - a) / 2 * sum(rates) / _STEP  # t times the second derivative
        return bias

    def _change(self, points: np.ndarray, axes: _Axes, law: _Law, change: _Law) -> np.ndarray:
        """How the mean of initial changes with M and V of its law, (M, c)."""
        kept, mean = self.varies, self.density.mean
        means, shifts = (mean[kept] + axes.mean(points - mean, one.M)[:, kept] for one in (law, change))
        shifts -= mean[kept]
        root = np.linalg.cholesky(axes.covariance(law.V)[np.ix_(kept, kept)])
        inverse = np.linalg.inv(root)
        spread = inverse @ axes.covariance(change.V)[np.ix_(kept, kept)] @ inverse.T
        xi, weights = sparse_rule(len(kept), self.level)
        even = (np.einsum("ij,mi,mj->m", spread, xi, xi) - np.trace(spread)) / 2
        found = []
        for some, shift in _blocks(means, shifts, max(1, _EVALUATIONS // len(xi))):
            y = np.broadcast_to(mean, (len(some), len(xi), len(mean))).copy()
            y[..., kept] = some[:, None] + xi @ root.T
            H = checks.evaluate(self.initial, y.reshape(-1, len(mean)), "initial").reshape(len(some), len(xi), -1)
            whole = weights * (even + shift @ inverse.T @ xi.T)
            found.append(np.einsum("im,imc->ic", whole, H - H[:, :1]))  # the weights of a change add up to nothing
        return np.concatenate(found)


class _Law(NamedTuple):
    """M and V of each axis, or their changes."""

    M: np.ndarray
    V: np.ndarray


class _Axes(NamedTuple):
    """x - mean = turn @ z; c and b of each axis, and l."""

    turn: np.ndarray
    c: np.ndarray
    b: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, layer: Attention, density: Gaussian) -> _Axes:
        root = np.linalg.cholesky(layer.f.metric(density.mean[None])[0])
        spread, turn = np.linalg.eigh(root.T @ density.cov @ root)
        k, power = layer.normalization.first_order()
        c = layer.normalization.drift / 2 / spread
        return cls(np.linalg.solve(root.T, turn), c, 2 * c**2 - 4 * k * (power / spread) ** 2, spread)

    def mean(self, x: np.ndarray, M: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.turn, x.T).T * M @ self.turn.T

    def covariance(self, V: np.ndarray) -> np.ndarray:
        return (self.turn * V) @ self.turn.T

    def law(self, t: float) -> _Law:
        return _Law(np.exp(-2 * self.c * t), -np.expm1(-4 * self.c * t) / (2 * self.c))

    def rate(self, t: float) -> _Law:
        """d / dt."""
        M = np.exp(-2 * self.c * t)
        return _Law(-2 * self.c * M, 2 * M**2)

    def first_order(self, t: float, law: _Law) -> _Law:
        """d / dtau of the layers."""
        M, V = law
        return _Law(t * self.b * M, self.b * (V / (2 * self.c) - t * M**2 / self.c))

    def second_order(self, t: float, law: _Law) -> _Law:
        """Of tau^2, plain Sinkhorn layers."""
        dM = t / (6 * self.spread**3) * law.M
        return _Law(dM, -2 * self.spread * law.M * dM)


def sparse_rule(dim: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (m, dim) and weights (m,) of the standard normal law, exact up to total degree 2 level - 1.

    Smolyak's combination of products of Gauss's rules of few nodes.

    Examples
    --------
    >>> x, w = sparse_rule(6, 3)
    >>> bool(abs(w @ x[:, 0] ** 4 - 3) < 1e-12 and abs(w @ (x[:, 1] * x[:, 5]) ** 2 - 1) < 1e-12)
    True
    """
    rules = [np.polynomial.hermite_e.hermegauss(size) for size in range(1, level + 1)]
    nodes, weights = [], []
    for above in range(max(0, level - dim), level):
        factor = (-1.0) ** (level - 1 - above) * comb(dim - 1, level - 1 - above)
        for sizes in _parts(above, dim):
            grids = np.meshgrid(*[rules[size][0] for size in sizes], indexing="ij")
            products = np.meshgrid(*[rules[size][1] / np.sqrt(2 * np.pi) for size in sizes], indexing="ij")
            nodes.append(np.stack([grid.ravel() for grid in grids], axis=1))
            weights.append(factor * np.prod([one.ravel() for one in products], axis=0))
    return np.concatenate(nodes), np.concatenate(weights)


def _parts(total: int, dim: int) -> list[tuple[int, ...]]:
    """All ways to write a number as a sum of `dim` others, from 0 on."""
    bars = itertools.combinations(range(total + dim - 1), dim - 1)
    return [tuple(int(n) for n in np.diff([-1, *bar, total + dim - 1]) - 1) for bar in bars]


def _count(dim: int, level: int) -> int:
    """Nodes of that rule: products of (size + 1) over all parts."""
    return sum(comb(above + 2 * dim - 1, 2 * dim - 1) for above in range(max(0, level - dim), level))


def _coordinates(initial: Callable, points: np.ndarray) -> np.ndarray:
    """Those that change initial at some of the points, as far as these tell."""
    values, found = checks.evaluate(initial, points, "initial"), []
    for k in range(points.shape[1]):
        moved = points.copy()
        moved[:, k] = np.roll(points[:, k], 1)
        if (checks.evaluate(initial, moved, "initial") != values).any():
            found.append(k)
    return np.array(found, int)


def _blocks(means: np.ndarray, shifts: np.ndarray, size: int):
    return ((means[k : k + size], shifts[k : k + size]) for k in range(0, len(means), size))
