"""The compiled half of the cells engine: tokens sorted into cells, and blocks of queries that gather their neighbours.

Cells are numbered row by row, so that neighbours along the last axis are neighbours in memory. Queries of one cell
form a block; the keys that may matter to any of them are copied into a tile, relative to a corner of the block and as
the periodic image nearest to it. What follows is the arithmetic of a dense tile: long contiguous loops that vectorise,
no image to look for, and in float32 nothing lost to large coordinates.

Everything compiled is in this file, but for the elementary functions of `tiles`: numba's disk cache does not notice
when only those change.
"""

from __future__ import annotations

import numba
import numpy as np

from .tiles import _exp, _transform

BLOCK = 32  # most queries of one cell that share their tiles
TILE = 512  # keys in a tile, a multiple of ROUND
ROUND = 8  # tiles are filled up to multiples, so that vectors have no remainder
_LEAST = 128  # candidates are looked at in pieces of at least this many, where there are as many

_free = numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
_compiled = numba.njit(fastmath={"contract"}, error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")


@_free
def encode(first, last, points, origin, per_side, counts, code):
    """The number of the cell of each point (m, N)."""
    for i in range(first, last):
        number = 0
        for d in range(len(points)):
            k = np.int64(np.floor((points[d, i] - origin[d]) * per_side[d]))
            number = number * counts[d] + min(max(k, 0), counts[d] - 1)
        code[i] = number


@_free
def count_digits(first, last, bounds, code, shift, histogram):
    """How often each digit occurs in each of some chunks of the codes: the first half of a counting sort."""
    mask = histogram.shape[1] - 1
    for chunk in range(first, last):
        row = histogram[chunk]
        row[:] = 0
        for i in range(bounds[chunk], bounds[chunk + 1]):
            row[(code[i] >> shift) & mask] += 1


@_free
def scatter(first, last, bounds, code, order, shift, position, sorted_code, sorted_order):
    """Codes to where the chunks before and the smaller digits leave them: the second half, stable."""
    mask = position.shape[1] - 1
    for chunk in range(first, last):
        row = position[chunk]
        for i in range(bounds[chunk], bounds[chunk + 1]):
            digit = (code[i] >> shift) & mask
            sorted_code[row[digit]], sorted_order[row[digit]] = code[i], order[i]
            row[digit] += 1


@_free
def arrange(first, last, order, columns, arranged):
    """arranged[:, i] = columns[:, order[i]]."""
    for i in range(first, last):
        for d in range(len(columns)):
            arranged[d, i] = columns[d, order[i]]


@_free
def index(code, shift, table):
    """table[b] becomes the first place in the sorted codes where code >> shift is at least b."""
    b = 0
    for i in range(code.size):
        while b <= code[i] >> shift:
            table[b] = i
            b += 1
    table[b:] = code.size


@_free
def split(code, starts):
    """Starts of the runs of equal codes, longer ones cut at `BLOCK`; how many there are is returned."""
    count = 0
    for i in range(code.size):
        if count == 0 or code[i] != code[i - 1] or i - starts[count - 1] == BLOCK:
            starts[count] = i
            count += 1
    starts[count] = code.size
    return count


@_free
def sweep(first, last, blocks, queries, keys, cells, grid, rule, bias, values, total, mean):
    """Sums of weights, and of weights times values (c, N), over all keys within reach, for some blocks of queries.

    The weights are exp(b_j - f_ij scale). A key farther than the reach of a block from its bounding box is left out.
    """
    (starts, reach), (code, table, shift), (transform, parameter, scale) = blocks, cells, rule
    origin, per_side, counts, period, wrapped = grid
    m = len(queries)
    corner, width, low, high = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    window, extent = np.empty(m, np.int64), np.empty(m, np.int64)
    x, near, where = np.empty(m, bias.dtype), np.empty((m, TILE), bias.dtype), np.empty(TILE, np.int64)
    near_bias, near_values = np.empty(TILE, bias.dtype), np.empty((len(values), TILE), bias.dtype)
    weights = np.empty((ROUND, TILE), bias.dtype)
    span = np.empty((2, 2), np.int64)
    side = period.astype(bias.dtype)
    for block in range(first, last):
        begin, end, far = starts[block], starts[block + 1], reach[block]
        rows, alone = 1, wrapped  # alone: no two images of a key are within reach
        for d in range(m):
            corner[d], top = queries[d, begin], queries[d, begin]
            for i in range(begin + 1, end):
                corner[d], top = min(corner[d], queries[d, i]), max(top, queries[d, i])
            width[d] = top - corner[d]
            low[d], high[d] = (corner[d] - origin[d]) * per_side[d], (top - origin[d]) * per_side[d]
            alone = alone and width[d] + 2 * far < period[d]
            if d < m - 1:
                window[d], extent[d] = _window(
                    (corner[d] - far - origin[d]) * per_side[d], (top + far - origin[d]) * per_side[d], counts[d], wrapped
                )
                rows *= extent[d]
        everything = rows > code.size // ROUND + 1
        rows = 1 if everything else rows
        fill = 0
        for row in range(rows):
            if everything:
                span[0, 0], span[0, 1], pieces = 0, code.size, 1
            else:
                pieces = _spans(
                    row, window, extent, low, high, corner, width, far, origin, per_side, counts, wrapped, code, table, shift, span
                )
            for piece in range(pieces):
                start, stop = span[piece]
                while start < stop:
                    if TILE - fill < _LEAST:
                        _absorb(
                            begin, end, fill, queries, corner, side, wrapped and not alone, transform, parameter, scale,
                            x, near, where, bias, values, near_bias, near_values, weights, total, mean,
                        )
                        fill = 0
                    length = min(stop - start, TILE - fill)
                    fill = _gather(keys, start, length, corner, width, period, wrapped, far * far, fill, near, where)
                    start += length
        if fill > 0:
            _absorb(
                begin, end, fill, queries, corner, side, wrapped and not alone, transform, parameter, scale,
                x, near, where, bias, values, near_bias, near_values, weights, total, mean,
            )


@_compiled
def _window(low, high, count, wrapped):
    """First cell and number of cells that meet the positions low to high (in cells) along an axis; none twice."""
    first, last = max(np.floor(low), -2.0 * count), min(np.floor(high), 3.0 * count)
    if wrapped:
        return (np.int64(0), count) if last - first + 1 >= count else (np.int64(first), np.int64(last - first + 1))
    first, last = max(first, 0.0), min(last, count - 1.0)
    return np.int64(first), np.int64(max(last - first + 1, 0.0))


@_compiled
def _spans(
    row, window, extent, low, high, corner, width, far, origin, per_side, counts, wrapped, code, table, shift, span
):
    """Where in memory the cells of one row lie that are within reach: at most two ranges, two where the row wraps."""
    m = len(window)
    base, stride, left, rest = 0, counts[m - 1], far * far, row
    for d in range(m - 2, -1, -1):
        k = window[d] + rest % extent[d]
        rest //= extent[d]
        if extent[d] < counts[d] or not wrapped:
            gap = max(k - high[d], low[d] - k - 1) - 1e-15 * counts[d]  # positions are rounded
            if gap > 0:
                left -= (gap / per_side[d]) ** 2
        base += (k % counts[d]) * stride
        stride *= counts[d]
    if left < 0:
        return 0
    d, near = m - 1, np.sqrt(left)
    first, length = _window(
        (corner[d] - near - origin[d]) * per_side[d], (corner[d] + width[d] + near - origin[d]) * per_side[d],
        counts[d], wrapped,
    )
    if length == 0:
        return 0
    first %= counts[d]
    inside = min(length, counts[d] - first)
    span[0, 0], span[0, 1] = _find(base + first, code, table, shift), _find(base + first + inside, code, table, shift)
    if inside == length:
        return 1
    span[1, 0], span[1, 1] = _find(base, code, table, shift), _find(base + length - inside, code, table, shift)
    return 2


@_compiled
def _find(wanted, code, table, shift):
    """The first place in the sorted codes where the code is at least `wanted`."""
    low = table[wanted >> shift]
    if shift == 0:
        return low
    high = table[(wanted >> shift) + 1]
    while low < high:
        middle = (low + high) // 2
        if code[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@_compiled
def _gather(keys, start, length, corner, width, period, wrapped, square, fill, near, where):
    """Append the keys whose distance to the block's box has at most the given square; return how many there are."""
    for j in range(start, start + length):
        gap = 0.0
        for d in range(len(keys)):
            y = keys[d, j] - corner[d]
            if wrapped:
                # the shift goes to the corner: key and shifted corner are close, their difference is rounded least
                y = keys[d, j] - (corner[d] + period[d] * np.rint((y - 0.5 * width[d]) / period[d]))
            beyond = max(max(-y, y - width[d]), 0.0)
            gap += beyond * beyond
            near[d, fill] = y
        where[fill] = j
        fill += gap <= square
    return fill


@_compiled
def _absorb(
    begin, end, fill, queries, corner, side, wrapped, transform, parameter, scale,
    x, near, where, bias, values, near_bias, near_values, weights, total, mean,
):
    """Add a tile of gathered keys to the sums of a block."""
    size = -(-fill // ROUND) * ROUND
    for k in range(fill, size):
        where[k] = where[0]
        near[:, k] = near[:, 0]
    for k in range(size):
        near_bias[k] = bias[where[k]]
    near_bias[fill:size] = -np.inf
    for c in range(len(values)):
        for k in range(size):
            near_values[c, k] = values[c, where[k]]
    for block in range(begin, end, ROUND):
        count = min(ROUND, end - block)
        for k in range(count):
            row = weights[k, :size]
            for d in range(len(x)):
                x[d] = queries[d, block + k] - corner[d]
            _squares(x, near, side, wrapped, row)
            _transform(transform, parameter, row)
            total[block + k] += _weigh(row, near_bias, scale)
        _average(weights[:count, :size], near_values, mean[block : block + count])


@_compiled
def _squares(x, near, side, wrapped, row):
    """Squared distances; to the nearest image where it is not yet known."""
    if wrapped:
        row[:] = 0
        for d in range(x.size):
            per_side, coordinate = x.dtype.type(1) / side[d], near[d]
            for j in range(row.size):
                difference = x[d] - coordinate[j]
                difference -= side[d] * np.rint(difference * per_side)
                row[j] += difference * difference
    elif x.size == 1:
        x0, near0 = x[0], near[0]
        for j in range(row.size):
            a = x0 - near0[j]
            row[j] = a * a
    elif x.size == 2:
        x0, x1, near0, near1 = x[0], x[1], near[0], near[1]
        for j in range(row.size):
            a, b = x0 - near0[j], x1 - near1[j]
            row[j] = a * a + b * b
    else:
        x0, x1, x2, near0, near1, near2 = x[0], x[1], x[2], near[0], near[1], near[2]
        for j in range(row.size):
            a, b, c = x0 - near0[j], x1 - near1[j], x2 - near2[j]
            row[j] = a * a + b * b + c * c


@_summing
def _weigh(row, bias, scale):
    """Turn f into weights and return their sum."""
    total = row.dtype.type(0)
    for j in range(row.size):
        row[j] = _exp(bias[j] - row[j] * scale)
        total += row[j]
    return total


@_summing
def _average(weights, values, mean):
    """mean += weights @ values'."""
    for k in range(len(values)):
        column = values[k]
        for i in range(len(weights)):
            row, s = weights[i], weights.dtype.type(0)
            for j in range(row.size):
                s += row[j] * column[j]
            mean[i, k] += s
