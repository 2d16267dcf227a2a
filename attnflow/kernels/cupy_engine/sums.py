"""How the CUDA kernels are launched: one pass over pairs in registers, or blocks of pairs between matrix products.

Arrays of tokens, biases and sums are CuPy's, on the current stream. Biases and shifts are in units of log 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...similarity.pairs import Pair
from . import launch as cuda
from .launch import PRODUCTS, VALUES
from .neighbours import Sweep

if TYPE_CHECKING:
    import cupy as cp

THREADS, CELL_THREADS = 128, 32  # of a block; of one where few queries share their neighbours
BLOCK, CALLABLE_BLOCK = 2**24, 2**21  # pairs held at once; a callable makes arrays with coordinates of its own
LOG2E = 1 / np.log(2)


@dataclass(frozen=True)
class Tokens:
    """Features of queries (M, m) and keys (N, m), and how a logit comes from two of them: bias - scale h(r).

    `dtype` is the arithmetic of a pair, and the type of the features unless f is a callable.
    """

    pair: Pair
    dtype: np.dtype
    queries: cp.ndarray
    keys: cp.ndarray
    transform: int
    scale: float
    exponent: float

    def numbers(self) -> tuple:
        """Periods with their inverses, scale and exponent, as the kernels take them."""
        import cupy as cp

        number, period = self.dtype.type, self.pair.period or np.ones(self.keys.shape[1])
        periods = cp.asarray(np.concatenate([period, 1 / np.asarray(period)]), dtype=self.dtype)
        return periods, number(self.scale * LOG2E), number(self.exponent)


def fused(
    tokens: Tokens, values: cp.ndarray, bias: cp.ndarray, subtracted: int, sweep: Sweep | None = None
) -> tuple[cp.ndarray, cp.ndarray]:
    """Means (M, c) and log-sum-exps (M,) over all pairs, or over those of a sweep for tokens in its order."""
    import cupy as cp

    (queries, dim), keys, itemsize = tokens.queries.shape, len(tokens.keys), tokens.dtype.itemsize
    count, width = cuda.passes(values.shape[1])
    if sweep is None:
        threads, each = THREADS, cuda.queries_per_thread(dim, width, itemsize)
        parts = cuda.splits(queries, keys, threads * each, width, cp.cuda.Device().attributes["MultiProcessorCount"])
        chunks, ranges = (cp.asarray(table) for table in cuda.all_pairs(queries, keys, threads * each, parts))
        range_count, ranges_of_chunk = 1, 0
    else:
        threads, each, parts = CELL_THREADS, sweep.chunk // CELL_THREADS, 1
        chunks, ranges = sweep.chunks, sweep.ranges
        range_count = ranges_of_chunk = ranges.shape[1]

    defines = cuda.sums_defines(tokens.pair, tokens.transform, dim, width, itemsize, subtracted, each, threads)
    absorb, merge = (cuda.kernel("sums.cu", name, defines) for name in ("absorb", "merge"))
    rows = cp.zeros((keys, cuda.row_width(dim, width, itemsize)), tokens.dtype)
    rows[:, :dim], rows[:, dim] = tokens.keys, bias
    numbers = tokens.numbers()
    partial = cp.empty((parts, 2 + width, queries))
    mean, lse = cp.empty((queries, values.shape[1])), cp.empty(queries)
    for first in range(0, max(values.shape[1], 1), max(width, 1)):
        some = values[:, first : first + width]
        rows[:, dim + 1 : dim + 1 + some.shape[1]] = some
        absorb(
            (len(chunks) - 1, parts),
            (threads,),
            (
                tokens.queries,
                rows,
                chunks,
                ranges,
                np.int32(range_count),
                np.int32(ranges_of_chunk),
                *numbers,
                np.int32(queries),
                partial,
            ),
        )
        merge(
            (-(-queries // THREADS),),
            (THREADS,),
            (partial, np.int32(parts), np.int32(queries), np.int32(first), np.int32(values.shape[1]), mean, lse),
        )
    return mean, lse


def blocks(tokens: Tokens, values: cp.ndarray, bias: cp.ndarray, rtol: float) -> tuple[cp.ndarray, cp.ndarray]:
    """The same by blocks of logits that become weights in place; also for an f that is a Python callable."""
    import cupy as cp

    pair, dtype, (queries, dim), keys = tokens.pair, tokens.dtype, tokens.queries.shape, len(tokens.keys)
    squares = [(features.astype(np.float64) ** 2).sum(axis=1) for features in (tokens.queries, tokens.keys)]
    largest = float(squares[0].max() + squares[1].max())
    source = cuda.logits_from(pair, tokens.transform, tokens.scale, largest, dtype, rtol)
    weigh = cuda.kernel("blocks.cu", "weigh", cuda.blocks_defines(pair, tokens.transform, dtype.itemsize, source))
    rows, columns = cuda.block_shape(queries, keys, CALLABLE_BLOCK if source == VALUES else BLOCK)
    by_coordinate = cp.ascontiguousarray(tokens.keys.T)
    u_squares, v_squares = (square.astype(dtype) for square in squares)
    values, bias, numbers = values.astype(dtype), bias.astype(dtype), tokens.numbers()
    mean, total = cp.zeros((queries, values.shape[1])), cp.zeros(queries)
    top, fade = cp.full(queries, np.finfo(dtype).min, dtype), cp.empty(queries)
    for first in range(0, queries, rows):
        some = slice(first, min(first + rows, queries))
        u = tokens.queries[some]
        for start in range(0, keys, columns):
            here = slice(start, min(start + columns, keys))
            v = tokens.keys[here]
            if source == VALUES:
                block = _evaluate(pair, u, v, first, start).astype(dtype)
            else:
                block = cp.ascontiguousarray(u @ v.T) if source == PRODUCTS else cp.empty((len(u), len(v)), dtype)
            weigh(
                (len(u),),
                (cuda.BLOCK_THREADS,),
                (
                    block,
                    np.int32(len(v)),
                    u,
                    by_coordinate[:, here],
                    np.int32(dim),
                    np.int32(keys),
                    numbers[0],
                    u_squares[some],
                    v_squares[here],
                    bias[here],
                    *numbers[1:],
                    top[some],
                    total[some],
                    fade[some],
                ),
            )
            mean[some] = mean[some] * fade[some, None] + block @ values[here]
    return mean / total[:, None], (top + cp.log2(total)) / LOG2E


def sees_nothing(pair: Pair, query: cp.ndarray, keys: cp.ndarray) -> bool:
    """Whether a user's f is infinite between a query (1, m) and all keys."""
    import cupy as cp

    assert pair.function is not None
    return not bool(cp.isfinite(pair.function(query[:, None, :], keys[None, :, :])).any())


def _evaluate(pair: Pair, u: cp.ndarray, v: cp.ndarray, first: int, start: int) -> cp.ndarray:
    """A user's f for a block of pairs, by the user's own function on CuPy arrays."""
    import cupy as cp

    assert pair.function is not None
    try:
        block = pair.function(u[:, None, :], v[None, :, :])
    except (TypeError, AttributeError) as error:
        raise ValueError(f"f must compute with CuPy arrays for backend='cupy' ({error}); use backend='numba'") from error
    if not isinstance(block, cp.ndarray) or block.shape != (len(u), len(v)):
        raise ValueError(
            f"f must return a CuPy array of shape {(len(u), len(v))} for backend='cupy', got "
            f"{type(block).__name__} of shape {np.shape(block)}; use backend='numba'"
        )
    wrong = cp.flatnonzero(~(block > -np.inf))
    if len(wrong):
        i, j = divmod(int(wrong[0]), len(v))
        raise ValueError(f"f must be a number or inf, got {float(block[i, j])} for query {first + i} and key {start + j}")
    return cp.ascontiguousarray(block)
