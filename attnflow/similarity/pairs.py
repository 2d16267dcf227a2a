"""From two feature rows to f: the pair reductions and scalar transforms every engine shares.

A pseudo-metric is f(x, y) = h(r(phi(x), psi(y))): feature maps phi, psi, a reduction r and a
transform h. The description below is all an engine needs to know of it.

==========  ==========================================
reduction   r(u, v)
==========  ==========================================
squared     |u - v|^2
wrapped     |u - v|^2 to the nearest image, with periods
inner       u . v
additive    u + v, of one feature
general     the user's own function; h is the identity
==========  ==========================================

==========  ======================  =========
transform   h(r)                    parameter
==========  ======================  =========
identity    r
power       r^(q/2)                 q
log1p       log(1 + r)
affine      offset - r              offset
leaky       -r, -slope r below 0    slope
elu         -r, 1 - e^r below 0
tanh        -tanh(r)
==========  ======================  =========

On a sphere r is a squared chord and `geodesic` asks for the squared angle in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import checks


@dataclass(frozen=True)
class Pair:
    """Reduction, transform and their parameters; see the module's tables."""

    reduction: str = "squared"
    transform: str = "identity"
    parameter: float = 0.0
    period: tuple[float, ...] | None = None
    geodesic: bool = False
    function: Callable | None = None


Numbers = tuple[int, int] | tuple[np.ndarray, np.ndarray]  # of queries and keys in messages: the first, or all


def evaluate(pair: Pair, u: np.ndarray, v: np.ndarray, first: Numbers = (0, 0)) -> np.ndarray:
    """f for feature rows (..., m) broadcast against each other: (...). Messages number queries and keys by `first`."""
    if pair.reduction == "general":
        assert pair.function is not None
        return _own(pair.function, u, v, first)
    return transformed(pair, _reduce(pair, u, v))


def _own(function: Callable, u: np.ndarray, v: np.ndarray, first: Numbers) -> np.ndarray:
    """A user's f as floats: any number, or inf between two tokens that do not see each other."""
    result = checks.reals(function(u, v), "f(x, y)", bools=True).astype(float, copy=False)
    shape = np.broadcast_shapes(u.shape[:-1], v.shape[:-1])
    if result.shape != shape:
        raise ValueError(
            f"f must return shape {shape} for points of shapes {u.shape} and {v.shape}, got {result.shape}; "
            "index the coordinates, as in x[..., 0] - y[..., 0]"
        )
    if not result.min(initial=np.inf) > -np.inf:
        where = tuple(int(i) for i in np.argwhere(~(result > -np.inf))[0])
        place = f"the points at index {where}"
        if isinstance(first[0], np.ndarray) or len(where) == 2:
            place = f"query {_numbered(first[0], where[0])} and key {_numbered(first[1], where[-1])}"
        raise ValueError(f"f must be a number or inf, got {result[where]} for {place}")
    return result


def _numbered(numbers: int | np.ndarray, k: int) -> int:
    return int(numbers[k] if isinstance(numbers, np.ndarray) else numbers + k)


def _reduce(pair: Pair, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    total = np.zeros(np.broadcast_shapes(u.shape[:-1], v.shape[:-1]))
    opposite, period = np.zeros_like(total), () if pair.period is None else pair.period
    if pair.reduction == "additive":
        return u[..., 0] + v[..., 0]
    for k in range(u.shape[-1]):  # one coordinate at a time: no (M, N, m) array
        if pair.reduction == "inner":
            total += u[..., k] * v[..., k]
            continue
        difference = u[..., k] - v[..., k]
        if pair.reduction == "wrapped":
            difference -= period[k] * np.round(difference / period[k])
        total += difference**2
        if pair.geodesic:
            opposite += (u[..., k] + v[..., k]) ** 2
    # accurate for neighbours and for antipodes, where arccos and arcsin lose half the digits
    return (2 * np.arctan2(np.sqrt(total), np.sqrt(opposite))) ** 2 if pair.geodesic else total


def transformed(pair: Pair, r: np.ndarray) -> np.ndarray:
    """h(r)."""
    if pair.transform == "power":
        return r ** (pair.parameter / 2)
    if pair.transform == "log1p":
        return np.log1p(r)
    if pair.transform == "affine":
        return pair.parameter - r
    if pair.transform == "leaky":
        return -np.where(r > 0, r, pair.parameter * r)
    if pair.transform == "elu":
        return -np.where(r > 0, r, np.expm1(np.minimum(r, 0.0)))
    if pair.transform == "tanh":
        return -np.tanh(r)
    return r
