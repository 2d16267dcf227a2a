"""The compiled half of the cells engine: tokens sorted into cells, and blocks of queries that gather their neighbours.

Cells are numbered row by row, so that neighbours along the last axis are neighbours in memory. Queries of one cell
form a block; the keys that may matter to any of them are copied into a tile, relative to a corner of the block and as
the periodic image nearest to it. What follows is the arithmetic of a dense tile: long contiguous loops that vectorise,
no image to look for, and in float32 nothing lost to large coordinates.

The arithmetic is that of `numba_engine`: what is kept on disk is compiled anew when it changes there, see `cached_njit`.
"""

from __future__ import annotations

import numba
import numpy as np

from ...compilation import cached_njit
from ..numba_engine import tiles
from ..numba_engine.arithmetic import exp2
from ..numba_engine.tiles import apply_transform

BLOCK = 32  # most queries of one cell that share their tiles
FEW, ADJACENT = 8, 4  # fewer queries than this share a block with those of the next cells, as long as these
TILE = 512  # keys in a tile, a multiple of ROUND
ROUND = 16  # keys are copied and tiles are filled in multiples, for whole vectors
ROWS = 4096  # most rows of cells looked up for a block; where more are within reach, it takes all keys

_free = cached_njit((*tiles.SHARED, tiles.__file__), fastmath={"contract"}, error_model="numpy")
_compiled = numba.njit(fastmath={"contract"}, error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")


@_free
def encode(first, last, points, origin, side, counts, code):
    """The number of the cell of each point (m, N)."""
    skipped = 3 - len(points)
    for i in range(first, last):
        number = 0
        for d in range(len(points)):
            k = np.int64(np.floor((points[d, i] - origin[d]) / side[skipped + d]))
            number = number * counts[skipped + d] + min(max(k, 0), counts[skipped + d] - 1)
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
    for d in range(len(columns)):
        source, target = columns[d], arranged[d]
        for i in range(first, last):
            target[i] = source[order[i]]


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
def split(code, row, starts):
    """Starts of blocks of sorted queries, those of a cell or a few of adjacent ones; how many there are is returned."""
    count = 0
    for i in range(code.size):
        first = starts[count - 1] if count > 0 else 0
        apart = code[i] - code[first]
        together = apart == 0 or (i - first < FEW and apart < ADJACENT and code[i] // row == code[first] // row)
        if count == 0 or i - first == BLOCK or not (together or code[i] == code[i - 1]):
            starts[count] = i
            count += 1
    starts[count] = code.size
    return count


@_free
def sweep(first, last, blocks, queries, keys, cells, grid, rule, bias, values, total, mean):
    """Sums of weights, and of weights times values (c, N), over all keys within reach, for some blocks of queries.

    The weights are 2^(b_j - f_ij scale). Cells farther than the reach of a block from its bounding box are left out.
    """
    starts, reach = blocks
    origin, side, counts, period, wrapped = grid
    m, skipped = len(queries), 3 - len(queries)  # a line or plane of cells has leading axes of one cell
    corner, width, low, high = np.empty(m), np.empty(m), np.zeros(3), np.zeros(3)
    spans = np.empty((2 * ROWS, 2), np.int64)
    x, sides, weights = np.empty(m, bias.dtype), period.astype(bias.dtype), np.empty(TILE, bias.dtype)
    room = TILE + ROUND  # for what is copied too much
    tile = np.empty((m, room), bias.dtype), np.empty(room, bias.dtype), np.empty((len(values), room), bias.dtype)
    for block in range(first, last):
        begin, end, far, fill, several = starts[block], starts[block + 1], reach[block], 0, False
        for d in range(m):
            corner[d], top = queries[d, begin:end].min(), queries[d, begin:end].max()
            width[d] = top - corner[d]
            low[skipped + d] = (corner[d] - origin[d]) / side[skipped + d]
            high[skipped + d] = (top - origin[d]) / side[skipped + d]
            several = several or (wrapped and width[d] + 2 * far >= period[d])  # images of a key within reach
        for k in range(_ranges(low, high, far, side, counts, wrapped, cells, spans)):
            start, stop = spans[k]
            while start < stop:
                if fill == TILE:
                    _absorb(begin, end, queries, corner, sides, several, rule, tile, fill, x, weights, total, mean)
                    fill = 0
                length = min(stop - start, TILE - fill)
                copied = min(-(-length // ROUND) * ROUND, bias.size - start)
                _take(start, copied, keys, bias, values, corner, width, period, wrapped, fill, tile)
                start, fill = start + length, fill + length
        if fill > 0:
            _absorb(begin, end, queries, corner, sides, several, rule, tile, fill, x, weights, total, mean)


@_compiled
def _ranges(low, high, far, side, counts, wrapped, cells, spans):
    """Where in memory the keys of the cells within reach of a box (given in cells) lie: how many ranges, in `spans`."""
    first_i, count_i = _window(low[0] - far / side[0], high[0] + far / side[0], counts[0], wrapped)
    first_j, count_j = _window(low[1] - far / side[1], high[1] + far / side[1], counts[1], wrapped)
    if count_i * count_j > ROWS:
        spans[0, 0], spans[0, 1] = 0, cells[0].size
        return 1
    found = 0
    for i in range(first_i, first_i + count_i):
        left = far * far - _gap(i, low[0], high[0], side[0], wrapped and count_i == counts[0])
        for j in range(first_j, first_j + count_j):
            rest = left - _gap(j, low[1], high[1], side[1], wrapped and count_j == counts[1])
            if rest < 0:
                continue
            near = np.sqrt(rest) / side[2]
            first, count = _window(low[2] - near, high[2] + near, counts[2], wrapped)
            row = (_folded(i, counts[0]) * counts[1] + _folded(j, counts[1])) * counts[2]
            first = _folded(first, counts[2])
            inside = min(count, counts[2] - first)
            found = _append(row + first, inside, cells, spans, found)
            if inside < count:  # around the period
                found = _append(row, count - inside, cells, spans, found)
    return found


@_compiled
def _window(low, high, count, wrapped):
    """First cell and number of cells that meet the positions low to high along an axis; none twice."""
    first, last = max(np.floor(low), -1.0 * count), min(np.floor(high), 2.0 * count)
    if wrapped:
        return (np.int64(0), count) if last - first + 1 >= count else (np.int64(first), np.int64(last - first + 1))
    first, last = max(first, 0.0), min(last, count - 1.0)
    return np.int64(first), np.int64(max(last - first + 1, 0.0))


@_compiled
def _gap(cell, low, high, side, around):
    """Squared distance along an axis between a cell and a box; 0 where it is not clear which way round is shorter."""
    gap = 0.0 if around else max(cell - high, low - cell - 1, 0.0) * side
    return gap * gap


@_compiled
def _folded(cell, count):
    return cell + count if cell < 0 else cell - count if cell >= count else cell


@_compiled
def _append(number, count, cells, spans, found):
    """The range of the keys in some consecutive cells, joined to the last one where they touch."""
    start, stop = _find(number, cells), _find(number + count, cells)
    if start == stop:
        return found
    touching = found > 0 and spans[found - 1, 1] == start
    found += not touching
    spans[found - 1, 0], spans[found - 1, 1] = spans[found - 1, 0] if touching else start, stop
    return found


@_compiled
def _find(wanted, cells):
    """The first place in the sorted codes where the code is at least `wanted`."""
    code, table, shift = cells
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
def _take(start, length, keys, bias, values, corner, width, period, wrapped, fill, tile):
    """Copy keys into a tile, relative to the corner of the block and as the image nearest to the middle of its box."""
    near, near_bias, near_values = tile
    stop, full = start + length, fill + length
    for d in range(len(keys)):
        source, target, base = keys[d, start:stop], near[d, fill:full], corner[d]
        if wrapped:
            side, middle = period[d], base + 0.5 * width[d]
            per_side = 1 / side
            for j in range(target.size):
                # the shift goes to the corner: key and shifted corner are close, so that their difference is accurate
                target[j] = source[j] - (base + side * np.rint((source[j] - middle) * per_side))
        else:
            for j in range(target.size):
                target[j] = source[j] - base
    _copy(bias[start:stop], near_bias[fill:full])
    for c in range(len(values)):
        _copy(values[c, start:stop], near_values[c, fill:full])


@_compiled
def _copy(source, target):
    for j in range(target.size):
        target[j] = source[j]


@_compiled
def _absorb(begin, end, queries, corner, sides, several, rule, tile, fill, x, weights, total, mean):
    """Add the keys that fill a tile to the sums of a block."""
    (transform, parameter, scale), (near, near_bias, near_values) = rule, tile
    size = -(-fill // ROUND) * ROUND
    near[:, fill:size], near_bias[fill:size], near_values[:, fill:size] = 0, -np.inf, 0
    row = weights[:size]
    for i in range(begin, end):
        for d in range(x.size):
            x[d] = queries[d, i] - corner[d]
        _squares(x, near, sides, several, row)
        apply_transform(transform, parameter, row)
        total[i] += _weigh(row, near_bias, scale)
        for c in range(len(near_values)):
            mean[i, c] += _dot(row, near_values[c])


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
        row[j] = exp2(bias[j] - row[j] * scale)
        total += row[j]
    return total


@_summing
def _dot(weights, column):
    total = weights.dtype.type(0)
    for j in range(weights.size):
        total += weights[j] * column[j]
    return total
