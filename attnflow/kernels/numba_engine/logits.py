"""How logits come about: their rule in numbers, how large they can be, what of them queries and keys know alone, and f in
pieces where only Python can compute it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...similarity.pairs import Pair, transformed
from ..rules import REDUCTIONS, TRANSFORMS, reduction_of, transform_of
from .layout import cast
from .tiles import TILE

ROWS, COLUMNS = 256, 16 * TILE  # the piece of f that a Python callable evaluates at once


def rule_of(pair, epsilon, dim, dtype):
    """How r, then f, then a logit come about: integer codes, and numbers of the arithmetic's type."""
    transform, parameter = transform_of(pair)
    codes = reduction_of(pair), bool(pair.geodesic), TRANSFORMS[transform]
    period = cast(np.ones(dim) if pair.period is None else pair.period, dtype)
    scale = min(np.divide(0.5 / np.log(2), epsilon), np.finfo(dtype).max / 2)  # times 0 is 0
    return codes, (dtype.type(parameter), dtype.type(scale)), (period, 1 / period)


def bounds_of(pair: Pair, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """For queries u (M, m) the least and the largest that f can be for any key among v (N, m); None if unknown."""
    if pair.reduction == "inner" and pair.transform == "affine":
        r = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1).max()
        return pair.parameter - r, pair.parameter + r
    if pair.reduction not in ("squared", "wrapped"):
        return None
    furthest = np.maximum(np.abs(u - v.min(axis=0)), np.abs(u - v.max(axis=0)))
    if pair.reduction == "wrapped":
        assert pair.period is not None
        furthest = np.minimum(furthest, np.divide(pair.period, 2))
    r = np.full(len(u), np.pi**2) if pair.geodesic else np.sum(furthest**2, axis=1)
    return np.zeros(len(u)), transformed(pair, r)


class Lines(NamedTuple):
    """Queries (M, n) and keys (n, N) for `gaussian`, and what of their logits they know alone, in bits."""

    reduction: int
    scale: np.floating
    sides: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    of_queries: np.ndarray | float = 0.0
    of_keys: np.ndarray | float = 0.0

    @classmethod
    def of(cls, u, v, rule, keys, dtype) -> Lines:
        """By products if all of the panels of `keys` are, about one centre."""
        (reduction, _, _), (_, scale), (sides, _) = rule
        _, centres, _, by_products = keys
        if len(centres) > 1 or not by_products.all():
            return cls(reduction, scale, sides, cast(u, dtype), cast(v.T, dtype))
        u, v, scale_64 = u - centres, v - centres, float(scale)
        lengths = (scale_64 * np.square(x).sum(axis=1) for x in (u, v))
        return cls(REDUCTIONS["inner"], scale, sides, cast(2 * scale_64 * u, dtype), cast(v.T, dtype), *lengths)


def pieces(f, u, v, ranges, least, top, scale, offset, order):
    """Slices of queries and keys; with their f, a piece at a time, where only Python can compute it, inf where unseen.

    What a row has in common is taken off, a constant in f rounds nothing away: `least` (M,), the smallest f so far, NaN
    before there is one; where a smaller one comes, `top` (M,), of logits so far, follows. Messages count queries from
    `offset`, or take the numbers of both from `order`.
    """
    if f.pair.reduction != "general":
        yield slice(None), slice(None), np.empty((0, 0))
        return
    for first in range(0, len(u), ROWS):
        rows = slice(first, first + ROWS)
        begin, end = ranges[0][rows].min(), ranges[1][rows].max()
        for start in range(int(begin) // TILE * TILE, int(end), COLUMNS):
            some = slice(start, min(start + COLUMNS, int(end)))
            numbers = (offset + first, start) if order is None else (order[rows], order[some])
            f_values, common = f.evaluate(u[rows], v[some], numbers), least[rows]
            if ranges[0][rows].max() > some.start or ranges[1][rows].min() < some.stop:
                places = np.arange(some.start, some.stop)
                seen = (places >= ranges[0][rows, None]) & (places < ranges[1][rows, None])
                f_values = np.where(seen, f_values, np.inf)
            lowest = f_values.min(axis=1)
            less, unset = lowest < common, np.isnan(common) & np.isfinite(lowest)
            top[rows][less] = cast(top[rows][less] - (common[less] - lowest[less]) * scale, type(scale))
            common[less | unset] = lowest[less | unset]
            yield rows, some, f_values - np.nan_to_num(common)[:, None]
