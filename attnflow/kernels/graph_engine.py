"""Sums over the edges of a graph only: what is kept and computed grows with the edges.

f is computed once per edge, and kept less the smallest of its query: a constant in f rounds nothing away. A sum then takes two
passes over the edges of a query, for the largest logit and for the weights. Each query is summed by one thread over its
keys in their order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..compilation import cached_njit
from ..similarity import PseudoMetric
from ..similarity.pairs import transformed
from . import rules
from .costs import COLUMN, Request
from .masks import Edges
from .rules import REDUCTIONS, as_products, beyond_range, nothing_to_see, reduction_of
from .threads import in_threads

SHARED = (rules.__file__,)  # sources of what is compiled into the loops below
_WRAPPED, _INNER = REDUCTIONS["wrapped"], REDUCTIONS["inner"]
_PIECE = 2**14  # edges whose f is computed at once: their features stay in the caches
_SHARE = 2**16  # edges, a millisecond: the least that is worth handing to a thread
_EDGE, _FEATURE, _CALLED = 12.0, 4.0, 20.0  # what an edge costs in pairs of the dense tile, its f per feature, in Python


def plan(
    f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float, mask: Edges
) -> Callable:
    """The sum over the edges of fixed tokens; see `attnflow.kernels.plan`.

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
    queries : None
        The keys are the queries.
    keys : (N, n) array
    dtype : numpy.float64 or numpy.float32
        Of what is kept of f, and of a weight; f is computed, and weights are added up, in float64.
    rtol : float
        Nothing is truncated.
    mask : Edges
        A query without edges has the mean 0 and the log-sum-exp -inf.

    Raises
    ------
    ValueError
        When called, if all that a query with edges sees is infinite or beyond the range of numbers.
    """
    degrees = np.diff(mask.starts)
    with np.errstate(all="ignore"):  # what overflows shows in the result
        f_values = on_edges(f, keys, mask)
        least = np.full(len(degrees), np.inf)
        least[degrees > 0] = np.minimum.reduceat(f_values, mask.starts[:-1][degrees > 0]) if len(f_values) else 0.0
        least[~np.isfinite(least)] = 0.0
        exponents = ((f_values - np.repeat(least, degrees)) / (2 * epsilon)).astype(dtype)
        level = -least / (2 * epsilon)

    def run(values: np.ndarray | None, key_bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        values = np.empty((len(keys), 0)) if values is None else values
        bias = np.zeros(len(keys)) if key_bias is None else key_bias
        mean, log_sum = np.zeros((len(keys), values.shape[1])), np.empty(len(keys))
        given = (np.require(array, dtype, ("C", "W")) for array in (bias, values))
        rest = mask.starts, mask.keys, exponents, *given, mean, log_sum
        rows = max(1, int(_SHARE / max(degrees.mean(), 1)))
        with np.errstate(all="ignore"):
            in_threads(lambda first, last: _sum(first, last, *rest), len(keys), rows)
            log_sum += level
        lost = ~(np.isfinite(log_sum) & np.isfinite(mean).all(axis=1)) & (degrees > 0)
        if lost.any():
            query = int(lost.argmax())
            edges = slice(mask.starts[query], mask.starts[query + 1])
            seen = np.isfinite(exponents[edges]) & (bias[mask.keys[edges]] > -np.inf)
            raise beyond_range(query, np.dtype(dtype)) if seen.any() else nothing_to_see(query)
        return mean, log_sum

    return run


def predict(request: Request) -> float:
    """Pairs it takes: what the edges cost, their f once."""
    (f, _), columns = request.scaled, max(request.columns, 1)
    once = _CALLED if f.pair.reduction == "general" else _FEATURE * (1 + f.key_features(request.keys[:1]).shape[1])
    request.facts["edges"] = request.pairs
    return float(request.pairs) * (once + request.applications * (_EDGE + COLUMN * columns) * request.share)


def on_edges(f: PseudoMetric, keys: np.ndarray, mask: Edges) -> np.ndarray:
    """f (E,) between the ends of every edge."""
    u, v, queries = f.query_features(keys), f.key_features(keys), mask.queries
    result = np.empty(len(queries))

    if f.pair.reduction != "general" and not f.pair.geodesic:
        code, (u, v) = reduction_of(f.pair), as_products(f.pair, u, v)
        period = np.ones(u.shape[1]) if f.pair.period is None else np.array(f.pair.period)
        rest = queries, mask.keys, code, *(np.require(x, np.float64, ("C", "W")) for x in (u, v)), period, result
        in_threads(lambda first, last: _reduce(first, last, *rest), len(result), max(1, _SHARE // u.shape[1]))
        return transformed(f.pair, result)
    for start in range(0, len(queries), _PIECE):
        some = slice(start, start + _PIECE)
        ends = queries[some], mask.keys[some]
        result[some] = f.paired(u[ends[0]], v[ends[1]], ends)
    return result


@cached_njit(SHARED, fastmath={"contract", "reassoc"}, error_model="numpy")
def _reduce(first, last, queries, keys, reduction, u, v, period, out):
    """r of some edges; see `similarity.pairs`."""
    for e in range(first, last):
        i, j, total = queries[e], keys[e], 0.0
        if reduction == _INNER:
            for k in range(u.shape[1]):
                total += u[i, k] * v[j, k]
        elif reduction == _WRAPPED:
            for k in range(u.shape[1]):
                difference = u[i, k] - v[j, k]
                difference -= period[k] * np.rint(difference / period[k])
                total += difference * difference
        else:
            for k in range(u.shape[1]):
                total += (u[i, k] - v[j, k]) ** 2
        out[e] = total


@cached_njit(error_model="numpy")
def _sum(first, last, starts, keys, exponents, bias, values, mean, log_sum):
    """Means of values and log-sum-exp of bias - exponents over the edges of some queries."""
    for i in range(first, last):
        top = -np.inf
        for e in range(starts[i], starts[i + 1]):
            top = max(top, bias[keys[e]] - exponents[e])
        total = 0.0
        if top > -np.inf:
            for e in range(starts[i], starts[i + 1]):
                j = keys[e]
                w = np.exp(exponents.dtype.type((bias[j] - exponents[e]) - top))
                total += w
                for c in range(values.shape[1]):
                    mean[i, c] += w * values[j, c]
            for c in range(values.shape[1]):
                mean[i, c] /= total
        log_sum[i] = top + np.log(total) if total > 0 else -np.inf
