"""How the pairwise sum runs on all cores of a CPU: threads that take blocks of queries past all keys.

The compiled half, one block past all tiles of keys, is in `tiles`. Each query is summed by one thread over the
keys in their order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from ...similarity import PseudoMetric
from ...similarity.pairs import evaluate
from ..costs import BEGUN, SINGLE, TRANSFORM, Request
from ..masks import Ranges
from ..rules import REDUCTIONS, TRANSFORMS, as_products, beyond_range, nothing_to_see, reduction_of, transform_of
from ..scaling import centred, expression_of
from ..threads import in_threads
from . import blocks, expressions
from .layout import by_products_about_one_centre, cast, panels_of_keys, panels_of_values, queries_together
from .logits import Lines, bounds_of, pieces, rule_of
from .tiles import QUERIES, TILE, absorb, gaussian

# rules of Gaussians, with the most value columns whose sums fit into registers beside what their pairs need
_GAUSSIAN = {(REDUCTIONS[r], False, TRANSFORMS["identity"]): most for r, most in (("squared", 3), ("wrapped", 1))}
_SPAN = {np.float64: 600.0, np.float32: 40.0}  # how far a log-sum-exp may lie below what its weights are relative to
_GEODESIC, _SAMPLE = 2.4, 4096  # what a pair costs more; keys that tell whether squares are summed by products
_CALLED, _WEIGHED = 20.0, 1.5  # what one costs where Python computes f; where a loop does, beside what f takes
SHARE = 2**19  # coordinates of pairs, about a millisecond: the least that is worth handing to a thread


def plan(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray | None,
    keys: np.ndarray,
    dtype: type,
    rtol: float,
    mask: Ranges | None = None,
) -> Callable:
    """The pairwise sum on fixed tokens; see `attnflow.kernels.plan`.

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
        Temperature, in the unit of `f`.
    queries, keys : (M, n), (N, n) array of float
        Points; N is at least 1. Queries None: the keys.
    dtype : numpy.float64 or numpy.float32
        Arithmetic of a tile; tiles are added up in float64. The error of a weight, relative to it, is a few units
        of rounding times max(1, f / (2 epsilon), |b_j|), with |u| |v| in the place of an inner product u . v.
        float32 also rounds the features: distances below 1e-7 of the extent of the tokens are lost. A user's f is
        computed in float64.
    rtol : float
        What squared distances may lose by products, see `layout`, and a logit of a sympy expression by sines and
        cosines that are taken apart, see `hoisting`; nothing else is truncated.
    mask : Ranges, optional
        Tiles that no query of a block sees are not computed.

    Raises
    ------
    ValueError
        When called, if a user's f is NaN somewhere, or everything a query sees is infinite or beyond the range of
        `dtype` (1e308, 3e38). A single pair beyond it weighs nothing.
    """
    if mask is not None:
        return _Ordered(f, epsilon, keys, np.dtype(dtype), rtol, mask)
    return _dense(f, epsilon, queries, keys, np.dtype(dtype), rtol)


def _dense(f, epsilon, queries, keys, dtype, rtol, ranges=None) -> Dense:
    """`Dense`, with f from a compiled loop where there is one."""
    if expression_of(f) is not None:
        made = expressions.program(f, epsilon, queries, keys, rtol)
        if not made.reason:
            return _Compiled(f, epsilon, queries, keys, dtype, rtol, made, ranges)
    return Dense(f, epsilon, queries, keys, dtype, rtol, ranges)


def predict(request: Request) -> float:
    """Pairs it takes: all that are seen, times what the reduction, the transform and the columns add; and each beginning."""
    return request.applications * (BEGUN + float(request.pairs) * pair_cost(request) * request.share)


def pair_cost(request: Request) -> float:
    """What a pair takes, in those of two dimensions and one column by squares."""
    (f, epsilon), columns = request.scaled, max(request.columns, 1)
    pair, v = f.pair, f.key_features(request.keys[:: -(-len(request.keys) // _SAMPLE)])
    if pair.reduction == "general":
        cost, how = _CALLED, "evaluated by Python"
        if expression_of(f) is not None:
            made = expressions.program(f, epsilon, request.queries, request.keys, request.rtol)
            own = made.cost / (SINGLE if request.dtype == "float32" else 1.0)  # f is in float64 always
            how, cost = str(made), cost if made.reason else _WEIGHED + own
        request.facts["f"] = how
        return cost
    dim, products = v.shape[1], by_products_about_one_centre(pair, epsilon, v, request.dtype, request.rtol)
    wraps = pair.reduction == "wrapped"
    few = _GAUSSIAN.get((reduction_of(pair), pair.geodesic, TRANSFORMS[transform_of(pair)[0]]), 0)
    if dim <= 3 and columns <= few:
        cost = (0.7 if products else 0.79) + 0.08 * dim + 0.06 * (columns - 1) + (0.24 + 0.05 * dim) * wraps
    else:
        cost = 1.0 + (0.03 if products or pair.reduction == "inner" else 0.05) * dim + 0.03 * columns + 0.1 * wraps
    return cost + TRANSFORM[transform_of(pair)[0]] + _GEODESIC * pair.geodesic


class Dense:
    """Features in the layout of the tiles, ready for values and biases; `rows` are the queries' numbers in messages.

    With `ranges` (M,), (M,), each query sees the keys from the first to before the last of its own.
    """

    rows: np.ndarray | None = None

    def __init__(
        self,
        f: PseudoMetric,
        epsilon: float,
        queries: np.ndarray | None,
        keys: np.ndarray,
        dtype: np.dtype,
        rtol: float,
        ranges: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.f, self.epsilon, self.dtype, self.masked = f, epsilon, dtype, ranges is not None
        v = f.key_features(keys)
        u = f.query_features(keys if queries is None else queries)
        with np.errstate(all="ignore"):
            alone = queries is None and f.pair.reduction != "general"
            self.own = -evaluate(f.pair, u, v) / (2 * epsilon) if alone else None  # a query's own logit
        if dtype == np.float32 and f.pair.reduction in ("squared", "wrapped") and not f.pair.geodesic:
            u, v = (centred(f.pair, x, v) for x in (u, v))  # differences do not notice, and less is rounded away
        self.u, self.v = u, v = as_products(f.pair, u, v)
        every = np.zeros(len(u), np.int64), np.full(len(u), len(v))
        self.ranges = every if ranges is None else tuple(cast(ends, np.int64) for ends in ranges)
        with np.errstate(all="ignore"):  # what overflows shows in the result
            self.bounds = bounds_of(f.pair, u, v)
            self.rule = rule_of(f.pair, epsilon, u.shape[1], dtype)
            self.keys = panels_of_keys(f.pair, epsilon, v, dtype, rtol)
            if self._few(columns=0):
                self.lines = Lines.of(u, v, self.rule, self.keys, dtype)

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        mean, lse, lost = self.sum(values, key_bias)
        if lost.any():
            self._refuse(int(lost.argmax()), key_bias)
        return mean, lse

    def sum(
        self, values: np.ndarray | None, key_bias: np.ndarray | None, near: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (M, c), log-sum-exp (M,), and the queries (M,) that are out of range; with lists of `near` tiles, see
        `absorb`, of the keys in these."""
        dtype, count = self.dtype, len(self.u)
        values = np.empty((len(self.v), 0)) if values is None else values
        bias = np.zeros(len(self.v)) if key_bias is None else key_bias
        level = bias.max()
        if level == -np.inf:
            raise nothing_to_see(0)
        bias = bias - level  # less is rounded away
        least = np.full(count, np.nan)
        with np.errstate(all="ignore"):
            top = self._shift(bias)
            steady = top is not None
            top = cast(top / np.log(2), dtype).astype(np.float64) if steady else np.full(count, -np.inf)  # as tiles see it
            tilt = cast(bias / np.log(2), dtype)
            if steady and near is None and self._few(values.shape[1]):
                total, mean = self._few_columns(values, tilt, top)
            else:
                total, mean = self._tiles(values, tilt, steady, top, least, near)
            mean /= total[:, None]
            lse = (top + np.log2(total)) * np.log(2)
            lost = ~((np.abs(lse) < np.finfo(dtype).max / 2) & np.isfinite(mean).all(axis=1))
            lse += level
            if self.f.pair.reduction == "general":
                lse -= least / (2 * self.epsilon)
        return mean, lse, lost

    def _few(self, columns: int) -> bool:
        """Whether it is a sum of Gaussians that the loops without rows of weights take."""
        most = _GAUSSIAN.get(self.rule[0])
        return most is not None and self.u.shape[1] <= 3 and columns <= most

    def _few_columns(self, values, tilt, top):
        lines, columns = self.lines, cast(values.T, self.dtype)
        kernel = gaussian(lines.reduction, len(lines.keys), max(len(columns), 1))
        total, mean = np.zeros(len(lines.queries)), np.zeros((len(lines.queries), len(columns)))
        shift = cast(top + lines.of_queries, self.dtype).astype(np.float64)  # as the loop sees it
        top += shift - (top + lines.of_queries)
        rest = (
            self.ranges,
            lines.scale,
            lines.sides,
            lines.queries,
            lines.keys,
            columns,
            cast(tilt - lines.of_keys, self.dtype),
            shift,
        )
        _in_threads(lambda first, last: kernel(first, last, *rest, total, mean), len(total), lines.keys.size, QUERIES)
        return total, mean

    def _tiles(self, values, tilt, steady, top, least, near):
        lines, panels = panels_of_values(values, self.dtype)
        total, mean = np.zeros(len(self.u)), np.zeros((len(self.u), len(lines) + panels.shape[0] * panels.shape[2]))
        self._add((lines, panels), tilt, steady, near, least, top, total, mean)
        return total, mean[:, : values.shape[1]]

    def _add(self, values, tilt, steady, near, least, top, total, mean) -> None:
        """Add all keys, with values and biases, to the sums; `least` (M,) is what is taken off a user's f."""
        together, offset = queries_together(self.dtype), 0 if self.rows is None else int(self.rows[0])
        piece = blocks.ROWS if near is None else together
        order = self.rows if self.masked else None
        for rows, some, f_values in pieces(self.f, self.u, self.v, self.ranges, least, top, self.rule[1][1], offset, order):
            ranges = tuple(ends[rows] - (some.start or 0) for ends in self.ranges)
            columns, bias = tuple(cast(array[:, some], self.dtype) for array in values), tilt[some]
            tiles = -(-bias.size // TILE)
            lists = (np.array([0, tiles]), np.arange(tiles)) if near is None else near
            tokens = cast(self.u[rows], np.float64), self.keys, columns, bias, cast(f_values, self.dtype)
            rest = together, lists, ranges, *self.rule, *tokens, steady, top[rows], total[rows], mean[rows]
            _in_threads(lambda first, last: absorb(first, last, *rest), len(total[rows]), bias.size * self.v.shape[1], piece)

    def _refuse(self, query: int, key_bias: np.ndarray | None) -> None:
        named, some = query if self.rows is None else int(self.rows[query]), slice(*(ends[query] for ends in self.ranges))
        if self.masked and key_bias is not None and key_bias[some].max() == -np.inf:
            raise nothing_to_see(named)
        own_f = self.f.pair.reduction == "general"
        if own_f and not np.isfinite(self.f.evaluate(self.u[query : query + 1], self.v[some])).any():
            raise nothing_to_see(named)
        raise beyond_range(named, self.dtype)

    def _shift(self, bias: np.ndarray) -> np.ndarray | None:
        """Upper bounds of every query's logits (M,), if its log-sum-exp is proven to be near its bound; else None.

        A sum is at least what the query's own key gives, and what the key of the largest bias, 0, gives from afar if all
        see it. A log-sum-exp from an earlier call would tell more, but other shifts round to other bits.
        """
        if self.bounds is None:
            return None
        highest, lowest = (-f / (2 * self.epsilon) for f in self.bounds)
        reached = lowest if not self.masked else np.full(len(self.u), -np.inf)
        if self.own is not None:
            reached = np.maximum(reached, self.own + bias)
        return highest if (highest - reached).max() < _SPAN[self.dtype.type] else None


class _Compiled(Dense):
    """`Dense` with f from a compiled loop, and from Python in rows where that meets what it leaves to others."""

    def __init__(self, f, epsilon, queries, keys, dtype, rtol, program: expressions.Program, ranges=None) -> None:
        super().__init__(f, epsilon, queries, keys, dtype, rtol, ranges)
        self._rtol = rtol
        assert program.u is not None and program.v is not None
        _, self._exponent = expression_of(f) or (None, 0)
        factor = np.ldexp(np.divide(0.5 / np.log(2), epsilon), self._exponent)
        self._factor = min(float(factor), np.finfo(float).max / 2)
        self._points = (keys if queries is None else queries), keys
        self._features = np.ascontiguousarray(program.u), expressions.in_tiles(program.v)
        self._fill = program.load()
        self.stats: dict[str, int] = {}

    def __call__(self, values, key_bias):
        mean, lse, lost = self.sum(values, key_bias)
        lost |= ~np.isfinite(lse)
        self.stats = {"rows_by_python": int(lost.sum())}
        if lost.any():
            first, last = int(lost.argmax()), len(lost) - int(lost[::-1].argmax())
            ranges = tuple(ends[first:last] for ends in self.ranges) if self.masked else None
            python = Dense(self.f, self.epsilon, self._points[0][first:last], self._points[1], self.dtype, self._rtol, ranges)
            python.rows = np.arange(first, last) if self.rows is None else self.rows[first:last]
            for result, again in zip((mean, lse), python(values, key_bias)):
                result[first:last][lost[first:last]] = again[lost[first:last]]
        return mean, lse

    def _add(self, values, tilt, steady, near, least, top, total, mean) -> None:
        strange = np.zeros(len(total), np.int64)
        together, tokens = queries_together(self.dtype), (*self._features, values, tilt, self._factor)
        rest = together, self.ranges, *tokens, least, top, total, mean, strange
        _in_threads(
            lambda first, last: expressions.absorb(self._fill, first, last, *rest), len(total), self.v.size, blocks.ROWS
        )
        np.ldexp(least, self._exponent, out=least)
        total[strange > 0] = np.nan


class _Ordered:
    """`Dense` of tokens in the order of a mask."""

    def __init__(self, f, epsilon, keys, dtype, rtol, mask: Ranges) -> None:
        self._order = mask.order
        self._run = _dense(f, epsilon, None, keys[mask.order], dtype, rtol, (mask.first, mask.last))
        self._run.rows = mask.order

    def __call__(self, values, key_bias):
        ordered = self._run(*(None if array is None else array[self._order] for array in (values, key_bias)))
        results = tuple(np.empty_like(result) for result in ordered)
        for result, there in zip(results, ordered):
            result[self._order] = there
        return results

    @property
    def stats(self) -> dict[str, int]:
        return getattr(self._run, "stats", {})


def _in_threads(kernel: Callable, count: int, coordinates: int, together: int) -> None:
    """kernel(first, last) for chunks of all queries, so many `together`, each of which meets so many coordinates."""
    rows = max(count // (8 * numba.get_num_threads()), SHARE // coordinates, 1)
    in_threads(kernel, count, together * -(-rows // together))
