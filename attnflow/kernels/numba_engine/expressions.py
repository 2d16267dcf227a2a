"""How the pairwise sum of a sympy expression runs: features once per token, and a loop compiled for the rest.

f is computed in float64, whatever the weights are in. Rows in which the loop meets a NaN, -inf, or an argument that it
leaves to others (see `arithmetic`) are summed again with f from Python, which refuses them or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from ...compilation import cached_njit
from ...similarity import PseudoMetric
from ..scaling import expression_of
from . import tiles
from .arithmetic import CONTRACT, larger
from .blocks import ROWS
from .tiles import TILE

_compiled = numba.njit(fastmath=CONTRACT, error_model="numpy")
_comparing = numba.njit(fastmath={"contract", "nnan", "nsz"}, error_model="numpy")  # only where _clean removed NaN


@cached_njit((*tiles.SHARED, tiles.__file__), fastmath=CONTRACT, error_model="numpy")
def absorb(fill, first, last, together, ranges, queries, keys, values, bias, factor, least, top, total, mean, strange):
    """`tiles.absorb` for f that `fill` computes from features of queries (M, h) and of tiles of keys (T, h TILE).

    What a row has in common is taken off, a constant in f rounds nothing away: a logit is (least - f) factor, `least`
    the smallest f so far, NaN before there is one. `strange` counts the f that are no number above -inf.
    """
    weights, f = np.zeros(together * TILE, bias.dtype), np.empty(TILE)
    none, fade, one = np.zeros(TILE, bias.dtype), np.ones(together), bias.dtype.type(1)
    sums = np.zeros(ROWS * values[1].shape[2], bias.dtype)
    for block in range(first, last, together):
        size = min(together, last - block)
        begin, end = tiles.span(ranges, block, size)
        for start in range(begin // TILE * TILE, end, TILE):
            stop = min(start + TILE, bias.size)
            whole, every = f[: stop - start], bias[start:stop]
            for k in range(size):
                i, at = block + k, k * TILE - start
                low, high = tiles.seen(ranges, i, start, stop)
                some, tilt, fade[k] = whole, every, 1.0
                if high - low < stop - start:
                    weights[at + start : at + low] = 0
                    weights[at + high : at + stop] = 0
                    if low == high:
                        continue
                    some, tilt = f[low - start : high - start], bias[low:high]
                row = weights[at + low : at + high]
                fill(queries[i], keys[start // TILE], whole)
                strange[i] += _clean(some)
                lowest = _lowest(some)
                if lowest < least[i]:
                    top[i] = weights.dtype.type(top[i] - (least[i] - lowest) * factor)
                if lowest < least[i] or (np.isnan(least[i]) and lowest < np.inf):
                    least[i] = lowest
                _relative(some, least[i], factor, row)
                fade[k] = tiles._weigh_rising(row, tilt, one, top, total, i)
            tiles._average(weights, values, start, stop, fade, none, sums, mean, block, size)


@_compiled
def _clean(f):
    """Infinity in the place of what is no number above -inf; how many were."""
    strange = 0
    for j in range(f.size):
        good = f[j] > -np.inf
        strange += not good
        f[j] = f[j] if good else np.inf
    return strange


@_comparing
def _lowest(f):
    highest = -np.inf
    for j in range(f.size):
        highest = larger(highest, -f[j])
    return -highest


@_compiled
def _relative(f, least, factor, row):
    common = least if least == least else 0.0
    for j in range(row.size):
        row[j] = (f[j] - common) * factor


@dataclass(frozen=True)
class Program:
    """An expression that is compiled, or the reason why not; `cost` of a pair is in pairs of the dense tile.

    The features of query and key are `u` (M, h) and `v` (N, h).
    """

    reason: str = ""
    source: str = ""
    cost: float = 0.0
    u: np.ndarray | None = None
    v: np.ndarray | None = None
    hoisted: int = 0

    def load(self) -> Callable:
        """The loop that fills a row with f, compiled or taken from disk: for `absorb`."""
        from .generated import load

        return load(self.source)

    def __str__(self) -> str:
        if self.reason:
            return f"evaluated by Python, {self.reason}"
        return f"compiled, {self.hoisted} parts hoisted"


def program(f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, rtol: float) -> Program:
    """How the expression is computed between these points, with logits as good as `rtol` allows; nothing is compiled yet."""
    from . import generated, hoisting  # they bring sympy along, which is here already

    expression, exponent = expression_of(f) or (None, 0)
    assert expression is not None
    sides, points = expression.sides(), (keys if queries is None else queries, keys)
    with np.errstate(all="ignore"):
        allowed = np.ldexp(2 * epsilon * rtol, -exponent)
        parts = hoisting.hoist(hoisting.expand(expression.expression, sides, points, allowed), sides)
        unknown = generated.unknown(parts)
        if unknown:
            return Program(f"{', '.join(unknown)} is not compiled")
        if not (parts.queries and parts.keys):
            return Program("it depends on one token alone")
        u, v = (hoisting.evaluate(*some) for some in zip((parts.queries, parts.keys), sides, points))
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return Program("parts of it are no finite numbers")
    source, cost = _written(parts, f"{expression.expression}")
    return Program("", source, cost, u, v, len(parts.queries) + len(parts.keys))


@lru_cache(maxsize=256)
def _written(parts, title: str) -> tuple[str, float]:
    from .generated import write

    return write(parts, title)


def in_tiles(v: np.ndarray) -> np.ndarray:
    """Features (N, h) as (tiles, h TILE): those of a tile of keys lie together, at distances that a compiler knows."""
    count, width = v.shape
    padded = np.pad(v, ((0, -count % TILE), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, TILE, width).transpose(0, 2, 1).reshape(-1, width * TILE))
