"""The compiled half of the CPU engine: tiles of pairs that stay in the nearest caches.

Per tile each query fills a row with its weights 2^l, l the logit in bits; the block of weight rows then meets the
value columns, which are thereby read once per block. Where the sum of a query is known beforehand to within a few
hundred bits, its weights are taken relative to that; otherwise to the running maximum of its logits, and what was
summed before a new maximum is rescaled (the online softmax of Milakov and Gimelshein, arXiv 1805.02867). What costs a
step per pair and coordinate, or per pair and value column, is summed in registers, see `blocks`; which reduction and
transform runs is decided outside the loops over keys.

**Squared distances by products.** |u - v|^2 = |u - c|^2 + |v - c|^2 - 2 (u - c).(v - c) takes half the instructions
of a sum of squares, and rounds to about (2 + sqrt n) units of |u - c|^2 + |v - c|^2, c a centre of the keys; `dense`
says for which tiles of keys that is accurate enough. The others are summed as they are.

What is kept on disk is compiled anew when `arithmetic`, `blocks` or `rules` change, too: see `cached_njit`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from ...compilation import cached_njit
from .. import rules
from . import arithmetic, blocks
from .arithmetic import CONTRACT, angle_of, exp2, expm1, inlined, larger, limits, log1p, power, tanh
from .blocks import ROWS

TILE, LONG_TILE = 256, 2048  # keys at a time, a multiple of every block's width; where no row of weights is kept
QUERIES = 8  # queries that share a long tile
SHARED = (rules.__file__, arithmetic.__file__, blocks.__file__)  # sources of what is compiled into the loops below
_SQUARED, _WRAPPED, _INNER, _GENERAL = rules.REDUCTIONS.values()
_POWER, _LOG1P, _ROOT, _AFFINE = (rules.TRANSFORMS[name] for name in ("power", "log1p", "root", "affine"))
_LEAKY, _ELU, _TANH = (rules.TRANSFORMS[name] for name in ("leaky", "elu", "tanh"))

_compiled = numba.njit(fastmath=CONTRACT, error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
_comparing = numba.njit(fastmath={"contract", "nnan", "nsz"}, error_model="numpy")  # only where _logit removed NaN

_TOKENS, _WEIGHTS = (1, ROWS), (TILE, 1)  # how rows and terms of the left side lie in memory
_add_products, _add_squares = blocks.block("product", _TOKENS), blocks.block("square", _TOKENS)
_add_wrapped_squares = blocks.block("wrapped", _TOKENS)
_add_values, _add_few_values = blocks.block("product", _WEIGHTS), blocks.block("product", _WEIGHTS, 1)


@cached_njit(SHARED, fastmath=CONTRACT, error_model="numpy")
def absorb(
    first, last, together, near, ranges, codes, numbers, sides, queries, keys, values, bias, f_values, steady, top, total, mean
):
    """For every pseudo-metric, number of columns and shift: add keys with values and bias (N,) in bits to the sums of
    weights and the weighted sums of some queries, so many `together`, relative to 2^top; `steady`: top is known and stays.

    Parameters
    ----------
    together : int
        Queries that share a tile, a multiple of ROWS.
    near : tuple
        Where the tiles of each `together` queries begin in a list of tiles, and that list; one for all queries, or for
        each, and `first` is then a multiple of `together`.
    ranges : tuple
        The first key that each query (M,) sees, and the one after the last: others weigh nothing, and a tile of which no
        query of a block sees any is left out.
    codes, numbers, sides
        The rule of a logit; periods (n,).
    queries : (M, n) array of float64
    keys : tuple
        Panels (P, n, W) of keys less their centre, W a block's width; centres (C, n), one of each tile or one of all;
        squared lengths (P W,) of the keys less their centre; whether each tile's squares are summed by products.
    values : tuple
        Columns (c, N), if they are few, and panels of columns (c / W, N, W), if they are many; one of them is empty.
    f_values : (M, N) array
        f itself, where that is not made here.
    """
    reduction, geodesic, transform = codes
    parameter, scale = numbers
    panels, centres, lengths, by_products = keys
    starts, tiles = near
    weights = np.zeros(together * TILE, bias.dtype)
    opposite = np.zeros(weights.size if geodesic else 0, bias.dtype)
    left, own = np.zeros(together * panels.shape[1], bias.dtype), np.zeros(together, bias.dtype)
    none, fade = np.zeros(TILE, bias.dtype), np.ones(together)
    sums = np.zeros(ROWS * values[1].shape[2], bias.dtype)
    for block in range(first, last, together):
        size, begun = min(together, last - block), False
        begin, end = span(ranges, block, size)
        own_list = min(block // together, len(starts) - 2)
        for tile in tiles[starts[own_list] : starts[own_list + 1]]:
            start, stop = tile * TILE, min(tile * TILE + TILE, bias.size)
            if stop <= begin or end <= start:
                continue
            if reduction == _GENERAL:
                for k in range(size):
                    weights[k * TILE : k * TILE + stop - start] = f_values[block + k, start:stop]
            else:
                products = by_products[tile]
                if not begun or len(centres) > 1:
                    begun = True
                    _arrange(queries, block, size, centres[min(tile, len(centres) - 1)], products, left, own)
                row, at = (lengths, start) if products else (none, 0)
                _reduce(reduction, products, left, size, panels, start, stop, sides, row, at, own, weights)
                if geodesic:
                    left[:] = -left
                    _reduce(reduction, products, left, size, panels, start, stop, sides, row, at, own, opposite)
                    left[:] = -left
            for k in range(size):
                i, at = block + k, k * TILE - start
                low, high = seen(ranges, i, start, stop)
                if high - low < stop - start:
                    weights[at + start : at + low] = 0
                    weights[at + high : at + stop] = 0
                fade[k] = 1.0
                if low == high:
                    continue
                row, tilt = weights[at + low : at + high], bias[low:high]
                if geodesic:
                    _square_of_angle(row, opposite[at + low : at + high])
                apply_transform(transform, parameter, row)
                if steady:
                    total[i] += _weigh(row, tilt, scale, row.dtype.type(top[i]))
                else:
                    fade[k] = _weigh_rising(row, tilt, scale, top, total, i)
            _average(weights, values, start, stop, fade, none, sums, mean, block, size)


@_compiled
def span(ranges, block, size):
    """From the first key that some query of a block sees to the one after the last."""
    begin, end = ranges[0][block], ranges[1][block]
    for i in range(block + 1, block + size):
        begin, end = min(begin, ranges[0][i]), max(end, ranges[1][i])
    return begin, end


@_compiled
def seen(ranges, i, start, stop):
    """The keys of a tile that a query sees, as (low, high) with start <= low <= high <= stop."""
    low = min(max(ranges[0][i], start), stop)
    return low, max(min(ranges[1][i], stop), low)


@lru_cache
def gaussian(reduction: int, dim: int, columns: int) -> Callable:
    """`absorb` for exp(-r / (2 eps)) in at most three dimensions, with at most three value columns and a known top.

    The reduction "inner" stands for squared distances by products: queries come times 2 scale, and scale times squared
    lengths is in shift and bias. No row of weights is kept, and each of them compiles alone: only what is needed, in about
    a second. Without a value column the bias takes its place, and a sum that nobody looks at.
    """
    second, third = min(1, dim - 1), dim - 1
    after, last_one = min(1, columns - 1), columns - 1
    length = LONG_TILE if columns == 1 else TILE  # several sums have fewer lanes each: the shorter, the less is rounded

    @cached_njit(SHARED, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
    def absorb_gaussian(first, last, ranges, scale, period, queries, keys, values, bias, top, total, mean):
        one, counted = bias.dtype.type(1), len(values) > 0
        p0, p1, p2 = period[0], period[second], period[third]
        i0, i1, i2 = one / p0, one / p1, one / p2
        for block in range(first, last, QUERIES):
            begin, end = span(ranges, block, min(QUERIES, last - block))
            for start in range(begin // length * length, end, length):
                stop = min(start + length, bias.size)
                y0, y1, y2 = keys[0, start:stop], keys[second, start:stop], keys[third, start:stop]
                tilt = bias[start:stop]
                column = values[0, start:stop] if counted else tilt
                column_1 = values[after, start:stop] if counted else tilt
                column_2 = values[last_one, start:stop] if counted else tilt
                for i in range(block, min(block + QUERIES, last)):
                    x0, x1, x2, shift = queries[i, 0], queries[i, second], queries[i, third], bias.dtype.type(top[i])
                    t = m = m_1 = m_2 = bias.dtype.type(0)
                    low, high = seen(ranges, i, start, stop)
                    for j in range(np.uint64(low - start), np.uint64(high - start)):  # unsigned: not counted from the end
                        r = _term(reduction, x0, y0[j], p0, i0)
                        if dim > 1:
                            r += _term(reduction, x1, y1[j], p1, i1)
                        if dim > 2:
                            r += _term(reduction, x2, y2[j], p2, i2)
                        w = exp2((tilt[j] - shift) + r if reduction == _INNER else (tilt[j] - shift) - r * scale)
                        t += w
                        m += w * column[j]
                        if columns > 1:
                            m_1 += w * column_1[j]
                        if columns > 2:
                            m_2 += w * column_2[j]
                    total[i] += t
                    if counted:
                        mean[i, 0] += m
                        if columns > 1:
                            mean[i, 1] += m_1
                        if columns > 2:
                            mean[i, 2] += m_2

    return absorb_gaussian


@inlined
def _term(reduction, x, y, side, inverse):
    """What one coordinate adds to r."""
    if reduction == _INNER:
        return x * y
    difference = x - y
    if reduction == _WRAPPED:
        difference -= side * np.rint(difference * inverse)
    return difference * difference


@_compiled
def _arrange(queries, block, size, centre, products, left, own):
    """The left side of blocks: a group of ROWS queries after the other, less a centre; for products times -2, with
    their squared lengths (queries,), which are 0 otherwise."""
    dim = queries.shape[1]
    for k in range(size):
        at, square = k // ROWS * ROWS * dim + k % ROWS, 0.0
        for d in range(dim):
            x = queries[block + k, d] - centre[d]
            square += x * x
            left[at + d * ROWS] = -2 * x if products else x
        own[k] = square if products else 0.0


@_compiled
def _reduce(reduction, products, left, size, panels, start, stop, sides, row, at, own, out):
    """r for a block of queries and a tile of keys: out[k TILE + j]."""
    _, dim, wide = panels.shape
    right, (side, inverse) = panels.reshape(panels.size), sides
    for p in range(0, stop - start, wide):
        for k in range(0, size, ROWS):
            place = left, k * dim, right, (start + p) * dim, dim, side, inverse, row, at + p, own, k, out, k * TILE + p, TILE
            if products or reduction == _INNER:
                _add_products(*place)
            elif reduction == _WRAPPED:
                _add_wrapped_squares(*place)
            else:
                _add_squares(*place)


@_compiled
def _square_of_angle(row, opposite):
    """The squared angle between unit vectors from r = |u - v|^2; near r = 4 only |u + v|^2 still resolves it."""
    for j in range(row.size):
        angle = angle_of(row[j], opposite[j])
        row[j] = angle * angle


@_compiled
def apply_transform(transform, parameter, row):
    """f from r, in place."""
    if transform == _ROOT:
        for j in range(row.size):
            row[j] = np.sqrt(row[j])
    elif transform == _POWER:
        for j in range(row.size):
            row[j] = power(row[j], parameter)
    elif transform == _LOG1P:
        for j in range(row.size):  # r by products may be a little below 0
            row[j] = log1p(row[j] if row[j] > 0 else row.dtype.type(0))
    elif transform == _AFFINE:
        for j in range(row.size):
            row[j] = parameter - row[j]
    elif transform == _LEAKY:
        for j in range(row.size):
            row[j] = -(row[j] if row[j] > 0 else parameter * row[j])
    elif transform == _ELU:
        for j in range(row.size):  # e^-700 - 1 is -1
            x = np.float64(row[j])
            row[j] = -(x if x > 0 else expm1(x if x > -700.0 else -700.0))
    elif transform == _TANH:
        for j in range(row.size):
            row[j] = -tanh(np.float64(row[j]))


@_summing
def _weigh(row, bias, scale, shift):
    """Turn f into weights relative to 2^shift; their sum is returned."""
    total = row.dtype.type(0)
    for j in range(row.size):
        row[j] = exp2((bias[j] - shift) - row[j] * scale)
        total += row[j]
    return total


@_compiled
def _weigh_rising(row, bias, scale, top, total, i):
    """Turn f into weights relative to the running maximum; the factor by which earlier sums fade is returned."""
    highest = _logits(row, bias, scale)
    fade = 1.0
    if highest > top[i]:
        fade = 2.0 ** (top[i] - highest)
        top[i] = highest
    for j in range(row.size):
        row[j] = exp2(row[j] - row.dtype.type(top[i]))
    total[i] = total[i] * fade + _sum(row)
    return fade


@_comparing
def _logits(row, bias, scale):
    highest = limits(row[0])[0]
    for j in range(row.size):
        row[j] = _logit(row[j], bias[j], scale)
        highest = larger(highest, row[j])
    return highest


@inlined
def _logit(f, bias, scale):
    logit = bias - f * scale
    lowest = limits(f)[0]
    return logit if logit > lowest else lowest  # an overflowing f, and inf - inf, weigh nothing


@_summing
def _sum(row):
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    return total


@_summing
def _average(weights, values, start, stop, fade, none, sums, mean, block, size):
    """mean <- fade * mean + weights @ values."""
    lines, panels = values
    for c in range(len(lines)):
        column = lines[c, start:stop]
        for k in range(size):
            row, s = weights[k * TILE : k * TILE + stop - start], weights.dtype.type(0)
            for j in range(row.size):
                s += row[j] * column[j]
            mean[block + k, c] = mean[block + k, c] * fade[k] + s
    count, keys, wide = panels.shape
    right, few = panels.reshape(panels.size), wide * weights.itemsize == blocks.VECTOR_BYTES
    for c in range(count):
        for k in range(0, size, ROWS):
            place = (
                weights,
                k * TILE,
                right,
                (c * keys + start) * wide,
                stop - start,
                none,
                none,
                none,
                0,
                none,
                0,
                sums,
                0,
                wide,
            )
            if few:
                _add_few_values(*place)
            else:
                _add_values(*place)
            for i in range(min(ROWS, size - k)):
                for j in range(wide):
                    m = mean[block + k + i, c * wide + j]
                    mean[block + k + i, c * wide + j] = m * fade[k + i] + sums[i * wide + j]
