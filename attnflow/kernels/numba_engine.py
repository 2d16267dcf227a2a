"""How the pairwise sum runs on all cores of a CPU: threads that take blocks of queries past all keys.

The compiled half, one block past all tiles of keys, is `tiles.absorb`. Each query is summed by one thread over the
keys in their order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Thread

import numba
import numpy as np

from ..similarity import PseudoMetric
from .tiles import QUERIES, REDUCTIONS, TILE, TRANSFORMS, absorb

ROWS, COLUMNS = 256, 8 * TILE  # the piece of f that a Python callable evaluates at once
SHARE = 2**19  # coordinates of pairs, about a millisecond: the least that is worth handing to a thread


def plan(
    f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float
) -> Callable:
    """See `attnflow.kernels.plan`; nothing is truncated, so `rtol` is not needed."""
    queries = keys if queries is None else queries
    return lambda values, key_bias, log_sum_exp: attend(f, epsilon, queries, keys, values, key_bias, dtype)


def attend(
    f: PseudoMetric, epsilon: float, queries: np.ndarray, keys: np.ndarray, values: np.ndarray | None,
    key_bias: np.ndarray | None, dtype: type,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the values and log-sum-exp of the logits, for every query.

    With the logits l_ij = -f(x_i, y_j) / (2 epsilon) + b_j,

        mean_i = sum_j exp(l_ij) v_j / sum_j exp(l_ij),     lse_i = log sum_j exp(l_ij).

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
        Temperature, in the unit of `f`.
    queries, keys : (M, n), (N, n) array of float
        Points; N is at least 1.
    values : (N, c) array of float, or None
        None for the log-sum-exp alone.
    key_bias : (N,) array of float, or None
        -inf takes a key out.
    dtype : numpy.float64 or numpy.float32
        Arithmetic of a tile; tiles are added up in float64. The error of a weight, relative to it, is a few units
        of rounding times max(1, f / (2 epsilon), |b_j|), with |u| |v| in the place of an inner product u . v.
        float32 also rounds the features: distances below 1e-7 of the extent of the tokens are lost.

    Returns
    -------
    mean : (M, c) array of float64
        (M, 0) without values.
    lse : (M,) array of float64

    Raises
    ------
    ValueError
        If a user's f is NaN somewhere, or everything a query sees is beyond the range of `dtype` (1e308, 3e38).
        A single pair beyond it weighs nothing.
    """
    dtype, pair = np.dtype(dtype), f.pair
    u, v = f.query_features(queries), f.key_features(keys)
    values = np.empty((len(v), 0)) if values is None else values
    bias, shift = np.zeros(len(v)) if key_bias is None else key_bias, 0.0
    if dtype == np.float32:
        # neither weights nor differences notice, and less is rounded away
        shift = bias.max() if np.isfinite(bias.max()) else 0.0
        centre = v.mean(axis=0) if pair.reduction in ("squared", "wrapped") and not pair.geodesic else 0.0
        u, v, bias = u - centre, v - centre, bias - shift

    top, total, mean = np.full(len(u), -np.inf), np.zeros(len(u)), np.zeros((len(u), values.shape[1]))
    with np.errstate(all="ignore"):  # what overflows shows in the result
        rule = _rule(pair, epsilon, u.shape[1], dtype)
        u_cast, *by_key = (_cast(array, dtype) for array in (u, v.T, values.T, bias))
        for rows, some, f_values in _pieces(f, u, v):
            tokens = u_cast[rows], *(_cast(array[..., some], dtype) for array in by_key), _cast(f_values, dtype)
            _in_threads(*rule, *tokens, top[rows], total[rows], mean[rows])
        mean /= total[:, None]
        lse = top + np.log(total) + shift
        lost = ~((np.abs(lse) < np.finfo(dtype).max / 2) & np.isfinite(mean).all(axis=1))
    if lost.any():
        raise ValueError(
            f"epsilon={epsilon!r} takes query {lost.argmax()} beyond the range of {dtype}: logits or values overflow"
            + ("; use dtype='float64'" if dtype == np.float32 else "")
        )
    return mean, lse


def _rule(pair, epsilon, dim, dtype):
    """How r, then f, then a logit come about: integer codes, and numbers of the arithmetic's type."""
    transform, parameter = TRANSFORMS[pair.transform], pair.parameter or 0.0
    if transform == TRANSFORMS["power"]:
        transform = TRANSFORMS[{1: "root", 2: "identity"}.get(parameter, "power")]
        parameter = parameter / 2
    codes = REDUCTIONS[pair.reduction], bool(pair.geodesic), transform
    period = np.ones(dim) if pair.period is None else pair.period
    return codes, (dtype.type(parameter), np.divide(0.5, epsilon).astype(dtype)), _cast(period, dtype)


def _pieces(f, u, v):
    """Slices of queries and keys; with their f, a piece at a time, where only Python can compute it."""
    if f.pair.reduction != "general":
        yield slice(None), slice(None), np.empty((0, 0))
        return
    for first in range(0, len(u), ROWS):
        for start in range(0, len(v), COLUMNS):
            rows, some = slice(first, first + ROWS), slice(start, start + COLUMNS)
            f_values = f.evaluate(u[rows], v[some])
            if np.isnan(f_values).any():
                i, j = np.argwhere(np.isnan(f_values))[0]
                raise ValueError(f"f must be a number, got nan for query {first + i} and key {start + j}")
            yield rows, some, f_values


def _cast(array, dtype):
    # writeable, because a read-only array is another type to numba and would compile everything again
    return np.require(array, dtype, ("C", "W"))


def _in_threads(codes, numbers, period, queries, keys, *rest):
    """`absorb` for all queries.

    The threads are Python's, share a queue of chunks and live as long as the call. Those of numba (prange) have layers that abort the process
    when two callers meet (workqueue) or after a fork (omp), and double the time to compile.
    """
    threads, count = numba.get_num_threads(), len(queries)
    rows = max(count // (8 * threads), SHARE // keys.size, 1)
    chunk = QUERIES * -(-rows // QUERIES)
    if threads == 1 or count <= chunk:
        absorb(0, count, codes, numbers, period, queries, keys, *rest)
        return
    starts = deque(range(0, count, chunk))

    def work():
        while True:
            try:
                first = starts.popleft()
            except IndexError:
                return
            absorb(first, min(first + chunk, count), codes, numbers, period, queries, keys, *rest)

    helpers = [Thread(target=work, daemon=True) for _ in range(min(threads, len(starts)) - 1)]
    for helper in helpers:
        helper.start()
    try:
        work()
    finally:
        starts.clear()  # when interrupted, the others stop at the end of their chunk
        for helper in helpers:
            helper.join()
