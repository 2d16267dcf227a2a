"""The compiled half of the CPU engine: tiles of pairs that stay in the first-level cache.

Per tile each query fills a row with its weights 2^l, l the logit in bits; the block of weight rows then meets the
value columns, which are thereby read once per block. Where the sum of a query is known beforehand to within a few
hundred bits, its weights are taken relative to that; otherwise to the running maximum of its logits, and what was
summed before a new maximum is rescaled (the online softmax of Milakov and Gimelshein, arXiv 1805.02867). Keys and
values lie transposed, so that every inner loop runs over contiguous keys and vectorises; which reduction and
transform runs is decided outside it.

What is kept on disk is compiled anew when `arithmetic` or `rules` change, too: see `cached_njit`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from ...compilation import cached_njit
from .. import rules
from . import arithmetic
from .arithmetic import CONTRACT, angle_of, exp2, inlined, larger, limits, log1p, power

TILE, LONG_TILE = 256, 2048  # keys at a time; where no row of weights is kept
QUERIES = 8  # queries that share a tile; even
TOGETHER = 8  # coordinates that share a loop
SHARED = (rules.__file__, arithmetic.__file__)  # sources of what is compiled into the loops below
_SQUARED, _WRAPPED, _INNER, _GENERAL = rules.REDUCTIONS.values()
_POWER, _LOG1P, _ROOT, _AFFINE = (rules.TRANSFORMS[name] for name in ("power", "log1p", "root", "affine"))

_compiled = numba.njit(fastmath=CONTRACT, error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
_comparing = numba.njit(fastmath={"contract", "nnan", "nsz"}, error_model="numpy")  # only where _logit removed NaN


@cached_njit(SHARED, fastmath=CONTRACT, error_model="numpy")
def absorb(first, last, codes, numbers, period, queries, keys, values, bias, f_values, steady, top, total, mean):
    """For every pseudo-metric, number of columns and shift: add keys (m, N) with values (c, N) and bias (N,) in bits to
    the sums of weights and the weighted sums of some queries, relative to 2^top; `steady`: top is known and stays."""
    reduction, geodesic, transform = codes
    parameter, scale = numbers
    weights = np.zeros((QUERIES, TILE), keys.dtype)
    scratch = np.empty(TILE, keys.dtype)
    fade = np.ones(QUERIES)
    for block in range(first, last, QUERIES):
        size = min(QUERIES, last - block)
        for start in range(0, bias.size, TILE):
            stop = min(start + TILE, bias.size)
            tilt = bias[start:stop]
            _reduce(reduction, queries, block, size, keys, period, f_values, start, stop, weights)
            for k in range(size):
                i, row = block + k, weights[k, : stop - start]
                if geodesic:
                    _square_of_angle(queries[i], keys, start, row, scratch)
                apply_transform(transform, parameter, row)
                if steady:
                    total[i] += _weigh(row, tilt, scale, row.dtype.type(top[i]))
                else:
                    fade[k] = _weigh_rising(row, tilt, scale, top, total, i)
            _average(weights, values, start, stop, fade, mean, block, size)


@lru_cache
def gaussian(reduction: int, dim: int) -> Callable:
    """`absorb` for exp(-r / (2 eps)) in at most three dimensions, at most one value column and a known top.

    No row of weights is kept, and each of the (reduction, dim) compiles alone: only what is needed, in about a second.
    """
    second, third = min(1, dim - 1), dim - 1

    @cached_njit(SHARED, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
    def absorb_gaussian(first, last, scale, period, queries, keys, values, bias, top, total, mean):
        one, columns = bias.dtype.type(1), len(values)
        p0, p1, p2 = period[0], period[second], period[third]
        i0, i1, i2 = one / p0, one / p1, one / p2
        for block in range(first, last, QUERIES):
            for start in range(0, bias.size, LONG_TILE):
                stop = min(start + LONG_TILE, bias.size)
                y0, y1, y2 = keys[0, start:stop], keys[second, start:stop], keys[third, start:stop]
                tilt = bias[start:stop]
                column = values[0, start:stop] if columns else tilt
                for i in range(block, min(block + QUERIES, last)):
                    x0, x1, x2, shift = queries[i, 0], queries[i, second], queries[i, third], bias.dtype.type(top[i])
                    t = m = bias.dtype.type(0)
                    for j in range(tilt.size):
                        r = _term(reduction, x0, y0[j], p0, i0)
                        if dim > 1:
                            r += _term(reduction, x1, y1[j], p1, i1)
                        if dim > 2:
                            r += _term(reduction, x2, y2[j], p2, i2)
                        w = exp2((tilt[j] - shift) - r * scale)
                        t += w
                        m += w * column[j]
                    total[i] += t
                    if columns:
                        mean[i, 0] += m

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


@inlined
def _four(reduction, r, x0, x1, x2, x3, y0, y1, y2, y3):
    """r and what four coordinates add to it; on a line, not a torus."""
    r += _term(reduction, x0, y0, r, r)
    r += _term(reduction, x1, y1, r, r)
    r += _term(reduction, x2, y2, r, r)
    return r + _term(reduction, x3, y3, r, r)


def _adding(reduction: int, together: int) -> Callable:
    """Compiled sums of terms over the coordinates, eight of them `together` or one by one: so many share one loading
    of a sum, and a block of queries shares one of a tile of keys.
    """

    @_compiled
    def add(queries, block, size, keys, period, start, stop, weights):
        length, whole, one = stop - start, 0, weights.dtype.type(1)
        if together == TOGETHER:
            whole = len(keys) - len(keys) % 8
            for d in range(0, whole, 8):
                y0, y1 = keys[d, start:stop], keys[d + 1, start:stop]
                y2, y3 = keys[d + 2, start:stop], keys[d + 3, start:stop]
                y4, y5 = keys[d + 4, start:stop], keys[d + 5, start:stop]
                y6, y7 = keys[d + 6, start:stop], keys[d + 7, start:stop]
                for k in range(size):
                    u, row = queries[block + k], weights[k, :length]
                    x0, x1, x2, x3 = u[d], u[d + 1], u[d + 2], u[d + 3]
                    x4, x5, x6, x7 = u[d + 4], u[d + 5], u[d + 6], u[d + 7]
                    for j in range(length):
                        r = _four(reduction, row[j], x0, x1, x2, x3, y0[j], y1[j], y2[j], y3[j])
                        row[j] = _four(reduction, r, x4, x5, x6, x7, y4[j], y5[j], y6[j], y7[j])
        for d in range(whole, len(keys)):
            side, y = period[d], keys[d, start:stop]
            inverse = one / side
            for k in range(size):
                x, row = queries[block + k, d], weights[k, :length]
                for j in range(length):
                    row[j] += _term(reduction, x, y[j], side, inverse)

    return add


_add_squares, _add_products = _adding(_SQUARED, TOGETHER), _adding(_INNER, TOGETHER)
_add_wrapped_squares = _adding(_WRAPPED, 1)


@_compiled
def _reduce(reduction, queries, block, size, keys, period, f_values, start, stop, weights):
    """r for a block of queries and a tile of keys."""
    if reduction == _GENERAL:
        for k in range(size):
            weights[k, : stop - start] = f_values[block + k, start:stop]
        return
    weights[:, :] = 0
    if reduction == _SQUARED:
        _add_squares(queries, block, size, keys, period, start, stop, weights)
    elif reduction == _WRAPPED:
        _add_wrapped_squares(queries, block, size, keys, period, start, stop, weights)
    else:
        _add_products(queries, block, size, keys, period, start, stop, weights)


@_compiled
def _square_of_angle(u, keys, start, row, scratch):
    """The squared angle between unit vectors from r = |u - v|^2; near r = 4 only |u + v|^2 still resolves it."""
    for j in range(row.size):
        scratch[j] = 0
    for d in range(u.size):
        x, coordinate = u[d], keys[d, start : start + row.size]
        for j in range(row.size):
            both = x + coordinate[j]
            scratch[j] += both * both
    for j in range(row.size):
        angle = angle_of(row[j], scratch[j])
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
        for j in range(row.size):
            row[j] = log1p(row[j])
    elif transform == _AFFINE:
        for j in range(row.size):
            row[j] = parameter - row[j]


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
def _average(weights, values, start, stop, fade, mean, block, size):
    """mean <- fade * mean + weights @ values', two queries and four columns at a time."""
    columns, length = len(values), stop - start
    whole = columns - columns % 4
    for k in range(0, whole, 4):
        v0, v1 = values[k, start:stop], values[k + 1, start:stop]
        v2, v3 = values[k + 2, start:stop], values[k + 3, start:stop]
        for i in range(0, size, 2):
            row, other = weights[i, :length], weights[i + 1, :length]
            s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = row.dtype.type(0)
            for j in range(length):
                s0 += row[j] * v0[j]
                s1 += row[j] * v1[j]
                s2 += row[j] * v2[j]
                s3 += row[j] * v3[j]
                t0 += other[j] * v0[j]
                t1 += other[j] * v1[j]
                t2 += other[j] * v2[j]
                t3 += other[j] * v3[j]
            _fade(mean[block + i], k, fade[i], s0, s1, s2, s3)
            if i + 1 < size:
                _fade(mean[block + i + 1], k, fade[i + 1], t0, t1, t2, t3)
    for k in range(whole, columns):
        column = values[k, start:stop]
        for i in range(size):
            row = weights[i, :length]
            s = row.dtype.type(0)
            for j in range(length):
                s += row[j] * column[j]
            mean[block + i, k] = mean[block + i, k] * fade[i] + s


@inlined
def _fade(mean, k, factor, s0, s1, s2, s3):
    mean[k] = mean[k] * factor + s0
    mean[k + 1] = mean[k + 1] * factor + s1
    mean[k + 2] = mean[k + 2] * factor + s2
    mean[k + 3] = mean[k + 3] * factor + s3
