"""Why the units of tokens, temperature and values don't matter: powers of two, taken out before an engine sees them.

Weights exp(-f / (2 eps)) stay as they are when features are multiplied by 2^k and eps by 2^(k q), q the degree of f.
With k such that eps comes to lie near 1, a pair whose f then overflows weighs nothing and one whose f underflows weighs
as much as at distance 0: both are right. Only the features themselves must not overflow, which limits k. Powers of two
round nothing: tokens and eps in other units of that kind give the same bits. log(1 + d^2) has a unit of its own and is
refused where it leaves the range of its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor, frexp, ldexp, log2

import numpy as np

from ..similarity import PseudoMetric
from ..similarity.expressions import Expression
from ..similarity.pairs import Numbers, Pair

_MOST = {np.float64: 500, np.float32: 60}  # exponent of the largest feature: its square is a number
_LEAST = 2.0**-1000  # of eps, where features limit k
_ZERO = -10_000  # exponent of 0, below that of any number
_VALUES = {np.float64: (-30, 600), np.float32: (-30, 60)}  # exponents of values that need no scaling


@dataclass(frozen=True)
class Multiple:
    """A user's function times 2^exponent."""

    function: Callable
    exponent: int

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return times(self.function(u, v), self.exponent)


def expression_of(f: PseudoMetric) -> tuple[Expression, int] | None:
    """The sympy expression that f is, if it is one, and the exponent of a power of two that it is multiplied by."""
    function, exponent = f.pair.function, 0
    if isinstance(function, Multiple):
        exponent, function = function.exponent, function.function
    return (function, exponent) if isinstance(function, Expression) else None


class Rescaled(PseudoMetric):
    """f with query and key features, or the values of a callable, multiplied by powers of two."""

    def __init__(self, f: PseudoMetric, of_queries: int, of_keys: int, of_f: int = 0, transform: str = "") -> None:
        self._f, self._of_queries, self._of_keys, self._of_f = f, of_queries, of_keys, of_f
        self.dim, self.space, self.symmetric, self.positive_definite = f.dim, f.space, f.symmetric, f.positive_definite
        pair = replace(f.pair, transform=transform or f.pair.transform)
        if pair.period is not None:
            pair = replace(pair, period=tuple(ldexp(side, of_keys) for side in pair.period))
        if f.pair.function is not None:
            pair = replace(pair, function=Multiple(f.pair.function, of_f))
        self.pair = pair

    def __repr__(self) -> str:
        return repr(self._f)

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return times(self._f.query_features(x), self._of_queries)

    def key_features(self, y: np.ndarray) -> np.ndarray:
        return times(self._f.key_features(y), self._of_keys)

    def paired(self, u: np.ndarray, v: np.ndarray, first: Numbers = (0, 0)) -> np.ndarray:
        if self.pair.function is None:
            return super().paired(u, v, first)
        f_values = self._f.paired(u, v, first)
        with np.errstate(over="ignore"):
            scaled = times(f_values, self._of_f)
        largest = np.finfo(float).max  # what was finite stays so: infinity is a mask
        return np.where(np.isfinite(f_values), np.clip(scaled, -largest, largest), f_values) if self._of_f > 0 else scaled


def rescale(
    f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: str | type = "float64"
) -> tuple[PseudoMetric, float]:
    """f and epsilon in units in which the tokens' weights can be computed in `dtype`; tokens on a device stay as they are.

    Raises
    ------
    ValueError
        If f is log(1 + d^2) and the tokens or epsilon leave the range of `dtype`.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = 2.0**400 * np.array([[0.0], [3.0]])
    >>> f, epsilon = rescale(af.SquaredDistance(af.Euclidean(1)), 2.0**800, None, tokens)
    >>> float(f.key_features(tokens).max()), epsilon
    (1.5, 0.25)
    """
    pair, number = f.pair, np.dtype(dtype).type
    if pair.geodesic or not all(array is None or type(array) is np.ndarray for array in (queries, keys)):
        return f, epsilon
    _, exponent = frexp(epsilon)
    if pair.reduction == "general":
        return (Rescaled(f, 0, 0, -exponent), ldexp(epsilon, -exponent)) if exponent else (f, epsilon)
    with np.errstate(over="ignore"):
        v = f.key_features(keys)
        top = _exponent(v), _exponent(f.query_features(keys if queries is None else queries))
    if pair.transform in ("elu", "tanh"):  # they have a unit of their own
        return f, epsilon
    if max(top) == _ZERO or pair.reduction == "inner":  # zeros have no unit; products with them neither
        top = (0 if top[0] == _ZERO else top[0], 0 if top[1] == _ZERO else top[1])
    most, transform = _MOST[number], pair.transform
    if pair.reduction == "inner":
        together, apart = -exponent, top[0] - top[1]
        of_queries = floor((together + apart) / 2)
        of_keys = together - of_queries
        excess = max(of_queries + top[1] - most, of_keys + top[0] - most, 0)
        of_queries, of_keys, degree = of_queries - excess, of_keys - excess, 1.0
        power = of_queries + of_keys
    else:
        if transform == "log1p":
            transform = _log_or_square(max(top) + 1, v.shape[1], epsilon, number)
            if transform == "log1p":
                return f, epsilon
        degree = pair.parameter if transform == "power" else 1.0 if transform == "leaky" else 2.0
        power = of_queries = of_keys = int(min(floor(-exponent / degree), most - max(top)))
    if of_queries == of_keys == 0 and transform == pair.transform:
        return f, epsilon
    return Rescaled(f, of_queries, of_keys, 0, transform), max(_scaled(epsilon, power * degree), _LEAST)


def _log_or_square(top: int, features: int, epsilon: float, number: type) -> str:
    """The transform of log(1 + d^2) where coordinates differ by less than 2^top: d^2 where that is the same."""
    range_, largest = np.finfo(number), 2 * top + ceil(log2(features))  # d^2 < 2^largest
    if largest >= range_.maxexp:
        raise ValueError(
            f"tokens must have squared distances within the range of {range_.dtype} for log(1 + d^2), which has a unit of "
            f"length, got coordinates up to about {2.0 ** min(top - 2, 1023):.1g}; rescale them"
        )
    if largest < -54:
        return "identity"
    if epsilon < range_.tiny / range_.eps:
        raise ValueError(
            f"epsilon must be at least {range_.tiny / range_.eps:.1g} for log(1 + d^2) in {range_.dtype}, got {epsilon!r}"
        )
    return "log1p"


def centred(pair: Pair, x, v, xp=np):
    """Features x (M, m) about the mean of v (N, m); where they wrap about that on the circle, half a period to either side."""
    if pair.reduction != "wrapped":
        return x - v.mean(axis=0)
    period = xp.asarray(pair.period)
    centre = xp.angle(xp.exp(2j * np.pi / period * v).mean(axis=0)) * period / (2 * np.pi)
    return x - centre - period * xp.rint((x - centre) / period)


def scale_columns(values: np.ndarray, dtype: str | type) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (N, c) with columns whose largest entries are no extreme numbers, and the exponents (c,) to undo that."""
    _, exponents = np.frexp(np.maximum(values.max(axis=0), -values.min(axis=0)))
    exponents = exponents - exponents.clip(*_VALUES[np.dtype(dtype).type])
    if not bool(exponents.any()):
        return values, None
    return np.ldexp(values, -exponents), exponents


def times(x: np.ndarray, exponent: int) -> np.ndarray:
    """x 2^exponent, in two steps where that power is no number itself."""
    if exponent == 0:
        return x
    half = exponent // 2 if abs(exponent) > 1000 else 0
    return x * 2.0 ** (exponent - half) * 2.0**half if half else x * 2.0**exponent


def _exponent(x: np.ndarray) -> int:
    """The least k with |x| < 2^k for all of x, `_ZERO` for zeros."""
    largest = float(max(x.max(initial=0.0), -x.min(initial=0.0)))
    if largest == 0:
        return _ZERO
    return frexp(largest)[1] if largest < np.inf else 1024


def _scaled(number: float, exponent: float) -> float:
    mantissa, own = frexp(number)
    whole = floor(exponent)
    return ldexp(mantissa * 2.0 ** (exponent - whole), own + whole)
