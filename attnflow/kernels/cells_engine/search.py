"""How a decaying similarity is summed over near keys only: tokens in cells, a reach, and a proof for every row.

That is for up to three features; tokens with more lie in `patches`.

**What is left out, and why that is safe.** Let w_j = exp(l_ij - B), with B the largest key bias, and let a query sum
the keys within a distance R: S = sum of their w_j, and D = sum of all others. A key beyond R has f >= h(R^2), since h
grows, and a bias of at most B, hence w_j <= exp(-T), T = h(R^2) / (2 eps), the depth of the search. So, with N keys,

    D <= n exp(-T),    n = min(N, sum_k exp(-k) K(T + k + 1)),

because the keys of depth T + k to T + k + 1 weigh at most exp(-T - k) each and are at most K(T + k + 1): as many as a
ball of that depth can hold, the fullest cell times the cells it can meet, prod_d (2 R / side_d + 2).

A row is accepted if n exp(-T) <= (rtol / 2) S, that is, if T >= log(2 n / rtol) - log S: then D / S <= rtol / 2.

- The log-sum-exp is off by log(1 + D / S) <= rtol / 2.
- The mean over all keys is (S m + D m') / (S + D), m and m' the means over the near and the far keys. The one over the
  near keys is off by D / (S + D) |m - m'| <= 2 (D / S) max|v| <= rtol max|v|.

S is what was collected, so that the condition is checked and not assumed, for every query, whatever the bias. A first
search has T = log(2 n / rtol): enough where S >= 1, as it is without a bias for a query that is a key itself. Where
cells are much smaller than the reach, a glance of depth 2 costs little and finds most of S: the first search then has
T = log(2 n / rtol) - log s, s what it found. (The log-sum-exp of an earlier call would tell as much, but no call may
depend on those before it; the glance, which only a bias decides, is kept.) A row that fails tells by its S, a lower
bound, how deep a second search must go to be accepted for certain. (n grows with T: it is computed once, for the
deepest first search, and N takes its place beyond.)

The arithmetic replaces weights below its smallest normal number by 0, so that T is also kept far enough
from minus its logarithm for N of them to count nothing. Rows that need more, or have found nothing at all (far from
every key), are left to the dense engine, in float64. Rounding is not part of the bound: depth and reach are taken
larger by far more than it can move them.

On a torus a key that lies beyond R from a query may be seen through an image that is not the nearest: its weight is
then between 0 and the true one, and it counts as left out.

**Cost.** Sorting is linear in the tokens, a sweep in the pairs within reach, memory in the tokens: no cell is stored,
empty or not. Each row is summed by one thread in the order of the sorted keys: results do not depend on the number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite, log

import numpy as np

from ...similarity import PseudoMetric
from ...similarity.pairs import Pair
from .. import numba_engine
from ..costs import COLUMN, TRANSFORM, Request
from ..numba_engine import TILE, pair_cost
from ..rules import TRANSFORMS, reach_of, transform_of
from . import lists, sweep
from .lists import Grid, Sorted
from .patches import Patches

_SEARCH, _NEAR = (100, 175, 360), (0.95, 1.25, 1.55)  # by dimension: pairs per token, and per key met
_MET = (1.0, 1.1, 2.1)  # keys met, by dimension, over those within reach; at most all
_PREPARED, _BEGUN = (4e5, 50), 3e5  # what comes before the sums, in all and per token; per application
CELLED = 3  # features of tokens that are put in cells; more, and they lie in patches
_ARRANGED, _PATCH = 600.0, 1.5  # pairs per token that patches take; how far beyond the reach keys are met, in their radii
MARGIN = 1e-3  # added to every depth, so that rounding decides nothing
SPARE = 2.0  # added to the depth of a first search with a bias, for which S is often a little below 1
GLANCE = 2.0  # depth of the search that shows about how much a query sees
FILLING, FINEST = 8, 8  # keys that share a cell with a key, aimed at by cells down to this part of the reach


def plan(f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float) -> Callable:
    """See `attnflow.kernels.plan`; what is truncated is bounded at the top of this file.

    The returned function counts in its `stats` the rows of its last run that were searched a second time
    ("widened") and those that the dense engine summed ("dense").

    Raises
    ------
    ValueError
        If f is not a growing function of a flat distance.
    """
    v = f.key_features(keys)
    check(f)
    u = v if queries is None and f.symmetric else f.query_features(keys if queries is None else queries)
    given, queries = queries, keys if queries is None else queries

    def dense(rows, values, key_bias):
        # logits of such rows are large: float32 would round them by more than their weights bear
        run = numba_engine.plan(f, epsilon, queries[rows], keys, np.float64, rtol)
        run.rows = rows
        return run(values, key_bias)

    rtol = min(rtol, 1.0)
    if v.shape[1] > CELLED:
        return Patches(f, epsilon, given, keys, np.dtype(dtype), rtol, dense)
    return _Search(f.pair, epsilon, np.dtype(dtype), rtol, *_prepared(u, v, f.pair, epsilon, rtol), dense)


def predict(request: Request) -> float:
    """Pairs it takes: a token's share of sorting and searching, and the keys met within reach, counted on a sample.

    Raises
    ------
    ValueError
        As `plan`.
    """
    (f, epsilon), keys, queries = request.scaled, request.keys, request.queries
    v = f.key_features(keys)
    check(f)
    u = v if queries is None else f.query_features(queries)
    many = v.shape[1] > CELLED
    within = request.facts["keys within reach"] = round(
        _within_reach(f.pair, radius(f, epsilon, request.size, request.rtol), u, v, request.size, TILE if many else 0)
    )
    if many:
        return _ARRANGED * request.tokens + request.applications * request.count * within * pair_cost(request) * request.share
    n = v.shape[1] - 1
    met = min(_MET[n] * within, request.size)
    step = request.count * (_SEARCH[n] + (_NEAR[n] + COLUMN * (request.columns - 1) + TRANSFORM[transform_of(f.pair)[0]]) * met)
    return _PREPARED[0] + _PREPARED[1] * request.tokens + request.applications * (_BEGUN + step * request.share)


def _within_reach(
    pair: Pair, distance: float, u: np.ndarray, v: np.ndarray, size: int, patch: int = 0, queries: int = 64, sample: int = 8192
) -> float:
    """Mean number of keys, of `size`, within a distance of a query, from evenly spaced samples of both; farther by the
    width of a patch of so many keys."""
    u, some = u[:: -(-len(u) // queries)], v[:: -(-len(v) // sample)]
    square = np.zeros((len(u), len(some)))
    for k in range(u.shape[1]):
        difference = u[:, k, None] - some[:, k]
        if pair.period is not None:
            difference -= pair.period[k] * np.round(difference / pair.period[k])
        square += difference**2
    if patch:
        rank = min(max(round(patch * len(some) / size), 1), len(some) - 1)
        distance += _PATCH * float(np.sqrt(np.median(np.partition(square, rank, axis=1)[:, rank])))
    near = square <= distance**2
    if size > len(v):  # keys of which v is a sample: that a query is in it would count too much
        near &= square > 0
    return max(1.0, float(near.mean()) * size)


def radius(f: PseudoMetric, epsilon: float, size: int, rtol: float) -> float:
    """Distance of features beyond which `size` keys weigh less than rtol / 2 of one at distance 0, all together.

    R with h(R^2) / (2 epsilon) = log(2 size / rtol), h the transform of f; infinite where it overflows. Without a bias
    no query that is a key is searched farther, and most not as far.

    Examples
    --------
    >>> import attnflow as af
    >>> round(radius(af.SquaredDistance(af.Euclidean(2)), 0.5, 100_000, 1e-12) ** 2, 3)   # log(2e17)
    39.837
    """
    return float(reach_of(f.pair, epsilon, log(2 * size / rtol)))


def check(f: PseudoMetric) -> None:
    """Raise a ValueError that says why cells can't sum this f, if they can't."""
    name, reason = repr(f), None
    if f.pair.reduction not in ("squared", "wrapped") or f.pair.geodesic:
        reason = f"f must be a function of a flat distance for near keys to be found in cells, got {name}"
    elif f.pair.transform == "affine":
        reason = f"f must grow with the distance for far keys to be left out, got {name} = offset - r"
    if reason:
        raise ValueError(f'{reason}; use backend="numba"')


@dataclass
class _Search:
    """The engine for fixed queries and keys."""

    pair: Pair
    epsilon: float
    dtype: np.dtype
    rtol: float
    grid: Grid
    queries: Sorted
    keys: Sorted
    crowd: float
    fine: bool
    dense: Callable
    stats: dict[str, int] = field(default_factory=dict)
    seen: tuple[np.ndarray, np.ndarray] | None = None  # a bias and its glance

    def __post_init__(self) -> None:
        transform, parameter = transform_of(self.pair)
        scale = min(0.5 / log(2) / self.epsilon, np.finfo(self.dtype).max / 2)  # weights are powers of two
        self.rule = TRANSFORMS[transform], self.dtype.type(parameter), self.dtype.type(scale)
        bits, size = self.grid.bits, self.keys.code.size
        shift = max(bits - size.bit_length(), 0)
        table = np.empty((1 << (bits - shift)) + 2, np.int64)
        sweep.index(self.keys.code, shift, table)
        self.cells = self.keys.code, table, shift
        self.deepest = -log(float(np.finfo(self.dtype).tiny) * 64 * size) - 10

    def __call__(self, values, key_bias):
        count, size, order = self.queries.code.size, self.keys.code.size, self.queries.order
        values = np.empty((size, 0)) if values is None else values
        key_bias = np.zeros(size) if key_bias is None else key_bias
        top, depth = float(key_bias.max()), np.full(count, inf)
        enough, near_enough = log(2 * size / self.rtol), log(2 * self.crowd / self.rtol)
        searched = isfinite(top) and isfinite(self.grid.diameter)
        log_sum, mean, accepted = np.zeros(count), np.zeros((count, values.shape[1])), np.zeros(count, bool)
        widened = 0
        with np.errstate(all="ignore"):  # what overflows is not accepted
            by_key = np.vstack([(key_bias - top) / log(2), values.T])
            by_key = lists.arrange(np.ascontiguousarray(by_key), self.keys.order).astype(self.dtype)
            if searched:
                spare = near_enough + min(top - key_bias.min(), SPARE)
                depth = np.full(count, spare)
                if self.fine:
                    seen = self._glance(key_bias, by_key[:1])
                    needed = np.where(near_enough - seen <= enough + SPARE, near_enough, enough) - seen
                    depth = np.where(needed <= self.deepest, needed, spare)  # else nothing is that near
            for widen in (False, True):
                rows = np.flatnonzero(~accepted & (depth <= self.deepest))
                if len(rows) == 0:
                    break
                widened = len(rows) if widen else 0
                rows = slice(None) if len(rows) == count else rows
                total, sums = self.sums(rows, depth[rows] + MARGIN, by_key)
                log_sum[rows], mean[rows] = np.log(total), sums / total[:, None]
                needed = np.where(depth[rows] <= enough + SPARE, near_enough, enough) - log_sum[rows]
                accepted[rows] = (needed <= depth[rows] + MARGIN / 2) & np.isfinite(mean[rows]).all(axis=1)
                depth[rows] = enough - log_sum[rows]
            attended, lse = np.empty_like(mean), np.empty(count)
            attended[order], lse[order] = mean, top + log_sum
        left = order[~accepted]
        if len(left):
            attended[left], lse[left] = self.dense(left, values, key_bias)
        self.stats = {"widened": widened, "dense": len(left)}
        return attended, lse

    def _glance(self, key_bias, by_key):
        """The logarithm of about what every query sees (N,), at most."""
        known = self.seen  # read once: another thread may bring another one
        if known is None or not np.array_equal(known[0], key_bias):
            total, _ = self.sums(slice(None), np.full(self.queries.code.size, GLANCE), by_key)
            known = self.seen = key_bias.copy(), np.log(total)
        return known[1]

    def sums(self, rows, depth, by_key):
        """Sums of weights (N,), and of weights times values, for all or some of the sorted queries, to depths (N,)."""
        queries = self.queries if isinstance(rows, slice) else self.queries.some(rows)
        starts = np.empty(len(depth) + 1, np.int64)
        starts = starts[: sweep.split(queries.code, self.grid.cells[2][2], starts) + 1]
        reach = np.maximum.reduceat(reach_of(self.pair, self.epsilon, depth), starts[:-1])
        reach = np.minimum(reach, self.grid.diameter) + self.grid.rounding
        total, mean = np.zeros(len(depth)), np.zeros((len(depth), len(by_key) - 1))
        grids, by_key = (self.cells, self.grid.cells, self.rule), (by_key[0], by_key[1:])
        tokens = (starts, reach), queries.points, self.keys.points, *grids, *by_key, total, mean
        lists.in_pieces(lambda *some: sweep.sweep(*some, *tokens), len(reach), 16)
        return total, mean


def _prepared(
    u: np.ndarray, v: np.ndarray, pair: Pair, epsilon: float, rtol: float
) -> tuple[Grid, Sorted, Sorted, float, bool]:
    """A grid that suits the reach and the keys, queries and keys in its cells, and a bound on how the keys crowd."""

    def flat(x):
        x = x if pair.period is None else x - np.array(pair.period) * np.floor(x / np.array(pair.period))
        return np.ascontiguousarray(x.T, dtype=np.float64)

    keys = flat(v)
    queries, size = keys if u is v else flat(u), len(v)
    deepest = log(2 * size / rtol) + SPARE
    grid = lists.grid(queries, keys, pair.period, float(reach_of(pair, epsilon, deepest)))
    filling = lists.filling(keys, grid)
    crowd = _crowd(pair, epsilon, deepest, grid, len(keys), filling.max(), size)
    seen = np.square(filling, dtype=float).sum() / size  # keys in the cell of a key, on average over the keys
    finer = min(max(round((seen / FILLING) ** (1 / len(keys))), 1), FINEST)
    reach = float(reach_of(pair, epsilon, log(2 * crowd / rtol) + MARGIN))
    grid = lists.grid(queries, keys, pair.period, reach / finer)
    sorted_keys = lists.sort(keys, grid)
    return grid, sorted_keys if u is v else lists.sort(queries, grid), sorted_keys, crowd, finer == FINEST


def _crowd(pair, epsilon, depth, grid, axes, fullest, size):
    """The n of the bound above, for searches down to some depth."""
    steps = np.arange(60)
    reach = reach_of(pair, epsilon, depth + steps + 1)
    with np.errstate(over="ignore"):
        meets = np.prod([2 * reach / side + 2 for side in grid.cells[1][3 - axes :]], axis=0)
        held = np.minimum(fullest * meets, size)
    return min((held * np.exp(-steps)).sum() + size * np.exp(-59.0), size)
