"""The compiled half: keys within a bound of f, found in rows of f or in cells, and sums over lists of them."""

from __future__ import annotations

import numba
import numpy as np

from ...compilation import cached_njit
from ..cells_engine import sweep
from ..cells_engine.sweep import ROUND, ROWS, TILE, _ranges, _squares, _take
from ..numba_engine import tiles
from ..numba_engine.tiles import apply_transform

_CELLS = (*tiles.SHARED, tiles.__file__, sweep.__file__)
_free = cached_njit(_CELLS, fastmath={"contract"}, error_model="numpy")
_compiled = numba.njit(fastmath={"contract"}, error_model="numpy")


@_free
def count_in_rows(first, last, f_values, bound, seen, counts):
    """How many keys each row of f (R, N) holds up to its bound, of those at places seen[i, 0] to seen[i, 1] - 1."""
    for i in range(first, last):
        row, most, count = f_values[i, seen[i, 0] : seen[i, 1]], bound[i], 0
        for j in range(row.size):
            count += row[j] <= most
        counts[i] = count


@_free
def take_from_rows(first, last, f_values, bound, seen, starts, places, found):
    """Those keys' places and f, from starts[i] on."""
    for i in range(first, last):
        at, most = starts[i], bound[i]
        for j in range(seen[i, 0], seen[i, 1]):
            if f_values[i, j] <= most:
                places[at], found[at] = j, f_values[i, j]
                at += 1


@_free
def within_cells(first, last, blocks, queries, keys, cells, grid, rule, bound, starts, counts, places, found):
    """As `count_in_rows`, for blocks of sorted queries (m, M) among keys in cells; with `places` as `take_from_rows`, but
    no more keys than there is room for.

    Parameters
    ----------
    blocks : tuple
        Where the blocks begin, and their reaches.
    rule : tuple
        Transform and its parameter.
    """
    begins, reach = blocks
    origin, side, counts_of_cells, period, wrapped = grid
    transform, parameter = rule
    m, skipped, taking = len(queries), 3 - len(queries), places.size > 0
    corner, width, low, high = np.empty(m), np.empty(m), np.zeros(3), np.zeros(3)
    spans = np.empty((2 * ROWS, 2), np.int64)
    x, row = np.empty(m), np.empty(TILE)
    none, no_values = np.zeros(keys.shape[1]), np.empty((0, keys.shape[1]))
    near, near_bias, near_values = np.zeros((m, TILE + ROUND)), np.empty(TILE + ROUND), np.empty((0, TILE + ROUND))
    for block in range(first, last):
        begin, end, far, several = begins[block], begins[block + 1], reach[block], False
        for d in range(m):
            least, top = queries[d, begin:end].min(), queries[d, begin:end].max()
            width[d], corner[d] = top - least, least if wrapped else 0.0  # flat differences need no corner to be accurate
            low[skipped + d] = (least - origin[d]) / side[skipped + d]
            high[skipped + d] = (top - origin[d]) / side[skipped + d]
            several = several or (wrapped and width[d] + 2 * far >= period[d])
        for i in range(begin, end):
            counts[i] = 0
        for k in range(_ranges(low, high, far, side, counts_of_cells, wrapped, cells, spans)):
            start, stop = spans[k]
            while start < stop:
                length = min(stop - start, TILE)
                copied = min(-(-length // ROUND) * ROUND, keys.shape[1] - start)
                _take(start, copied, keys, none, no_values, corner, width, period, wrapped, 0, (near, near_bias, near_values))
                size = -(-length // ROUND) * ROUND
                for i in range(begin, end):
                    for d in range(m):
                        x[d] = queries[d, i] - corner[d]
                    _squares(x, near, period, several, row[:size])
                    apply_transform(transform, parameter, row[:size])
                    most, count = bound[i], counts[i]
                    if taking:
                        base, room = starts[i], starts[i + 1] - starts[i]
                        for j in range(length):
                            if row[j] <= most and count < room:
                                places[base + count], found[base + count] = start + j, row[j]
                                count += 1
                    else:
                        for j in range(length):
                            count += row[j] <= most
                    counts[i] = count
                start += length


@_free
def sum_lists(first, last, starts, places, weights, values, sums):
    """sums[i] = sum over the list of row i of weight times values (N, c)."""
    columns = values.shape[1]
    for i in range(first, last):
        for c in range(columns):
            sums[i, c] = 0.0
        for e in range(starts[i], starts[i + 1]):
            w, j = weights[e], places[e]
            for c in range(columns):
                sums[i, c] += w * values[j, c]
