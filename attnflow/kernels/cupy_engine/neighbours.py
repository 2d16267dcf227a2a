"""Which keys lie near which queries, on the device: rows of cells, sorted along their last coordinate.

All axes but the last are cut into cells at least a reach wide; a row of cells runs along the last axis. Sorted by row,
then by last coordinate, the keys within reach of a chunk of queries of one row are one stretch (two, around a torus)
of each of at most 3^(m - 1) neighbouring rows. Empty space costs nothing, a cluster only its own pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ...similarity.pairs import Pair

if TYPE_CHECKING:
    import cupy as cp


@dataclass(frozen=True)
class Sweep:
    """Who meets whom: chunk c of the queries meets the keys of ranges[c].

    Queries (M,) and keys (N,) are the orders in which to take them; queries chunks[c] to chunks[c + 1], at most `chunk`
    of them, meet keys ranges[c, k, 0] to ranges[c, k, 1] for every k, in all `pairs` times.
    """

    queries: cp.ndarray
    keys: cp.ndarray
    chunks: cp.ndarray
    ranges: cp.ndarray
    chunk: int
    pairs: int


def looks_sparse(pair: Pair, v: cp.ndarray, distance: float) -> bool:
    """Whether evenly spread keys would leave most pairs out of reach."""
    import cupy as cp

    extent = np.array(pair.period) if pair.period else cp.asnumpy(v.max(axis=0) - v.min(axis=0))
    share = np.prod(np.minimum(3 * distance / np.maximum(extent, 1e-300), 1))
    return bool(share < 0.25 and extent.max() < 1e200)  # beyond, the numbers that sort would overflow


def sweep(pair: Pair, u: cp.ndarray, v: cp.ndarray, distance: float, chunk: int) -> Sweep:
    """Sort queries (M, m) and keys (N, m), float64, and find who is near whom; u may be v itself."""
    import cupy as cp

    period = None if pair.period is None else cp.asarray(pair.period, dtype=np.float64)
    own = u is v
    if period is not None:
        u, v = (cp.clip(x - period * cp.floor(x / period), 0, period) for x in (u, v))
    low = v.min(axis=0) * (period is None)
    extent = cp.asnumpy(v.max(axis=0) - low) if period is None else np.array(pair.period)
    # rounding of coordinates, and of the numbers that sort rows, must not lose a key
    distance = distance * (1 + 1e-6) + 1e-8 * float(extent.max())
    sides, counts = _cells(extent, distance, len(v), period is not None)
    width = 1.25 * float(extent[-1]) + 1e-300

    def sort_number(rows, last):
        number = last * 0
        for k, count in enumerate(counts):
            number = number * (count + 4) + rows[..., k] + 2
        return number * width + last

    def sorted_by_row(x, margin):
        rows = cp.floor((x - low)[:, :-1] / cp.asarray(sides))
        rows = cp.clip(rows, -margin, cp.asarray(counts, dtype=np.float64) - 1 + margin)
        last = cp.clip((x - low)[:, -1], 0, extent[-1])
        order = cp.argsort(sort_number(rows, last))
        return order, rows[order], last[order]

    key_order, key_rows, key_last = sorted_by_row(v, 0)
    numbers = sort_number(key_rows, key_last)
    order, rows, last = (key_order, key_rows, key_last) if own else sorted_by_row(u, 2 * (period is None))

    row_number = sort_number(rows, last * 0)
    within = cp.arange(len(u)) - cp.searchsorted(row_number, row_number)  # a chunk stays in one row
    starts = cp.flatnonzero(within % chunk == 0)
    chunks = cp.concatenate([starts, cp.full(1, len(u), starts.dtype)])
    near, far = last[starts] - distance, last[chunks[1:] - 1] + distance

    ranges = []
    for steps in product(*(_neighbours(count, period is not None) for count in counts)):
        there = rows[starts] + cp.asarray(steps, dtype=np.float64)
        if period is not None:
            there = there % cp.asarray(counts, dtype=np.float64)

        def find(x, side):
            return cp.searchsorted(numbers, sort_number(there, cp.clip(x, 0, extent[-1])), side=side)

        begin, end = find(near, "left"), find(far, "right")
        ranges.append(cp.stack([begin, end], axis=-1))
        if period is not None:  # what sticks out at one end comes in at the other, unless it was met already
            length = extent[-1]
            low_end, high_end = find(near * 0, "left"), find(near * 0 + length, "right")
            below = cp.maximum(find(near + length, "left"), end), high_end
            above = low_end, cp.minimum(find(far - length, "right"), begin)
            again = [cp.where(near < 0, b, cp.where(far > length, a, begin)) for b, a in zip(below, above)]
            ranges.append(cp.stack([again[0], cp.maximum(again[0], again[1])], axis=-1))
    ranges = cp.stack(ranges, axis=1)
    met = (ranges[..., 1] - ranges[..., 0]).sum(axis=1)
    pairs = int((met * (chunks[1:] - chunks[:-1])).sum())
    return Sweep(order, key_order, chunks.astype(np.int32), ranges.astype(np.int32), chunk, pairs)


def _cells(extent, distance, keys, periodic):
    """Sides and numbers of the cells along all axes but the last; no more rows than about the number of keys."""
    sides, counts = [], []
    most = int(np.ceil(keys ** (1 / max(len(extent) - 1, 1))))
    for length in extent[:-1]:
        if periodic:
            counts.append(int(np.clip(length // distance, 1, most)))
            sides.append(length / counts[-1])
        else:
            sides.append(max(distance, length / most))
            counts.append(int(length // sides[-1]) + 1)
    return np.array(sides), counts


def _neighbours(count, periodic):
    return range(-1, 2) if count > 2 or not periodic else range(count)
