"""How tokens get into cells: a grid around them, and a sort by cell that all threads share."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numba
import numpy as np

from ..threads import in_threads
from . import sweep

DIGIT = 11  # bits sorted at a time
SHARE = 2**14  # tokens worth a thread of the sort
EPS, TINY = float(np.finfo(float).eps), 1e-150  # the square of the least side is still a number


class Grid(NamedTuple):
    """Cells as the compiled half takes them, no distance above `diameter`, coordinates good to `rounding`.

    `cells` are the origin (m,), sides (3,), counts (3,), periods (m,) and whether there are any; a plane or a line of
    cells has leading axes of one cell.
    """

    cells: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]
    diameter: float
    rounding: float

    @property
    def bits(self) -> int:
        """Of the number of cells, one past the last cell's."""
        return prod(map(int, self.cells[2])).bit_length()


class Sorted(NamedTuple):
    """Points (m, N) in the order of their cells, the cells' numbers, and where each point came from."""

    points: np.ndarray
    code: np.ndarray
    order: np.ndarray

    def some(self, rows: np.ndarray) -> Sorted:
        """The points of some rows, in ascending order."""
        return Sorted(np.ascontiguousarray(self.points[:, rows]), self.code[rows], self.order[rows])


def grid(queries: np.ndarray, keys: np.ndarray, period: tuple[float, ...] | None, side: float) -> Grid:
    """Cells of about the given side around all points (m, N), at most 2^60 of them."""
    m = len(keys)
    low = np.zeros(m) if period else np.minimum(queries.min(axis=1), keys.min(axis=1))
    high = np.array(period, dtype=float) if period else np.maximum(queries.max(axis=1), keys.max(axis=1))
    sides, counts, own = np.ones(3), np.ones(3, np.int64), slice(3 - m, None)
    with np.errstate(all="ignore"):  # an infinite diameter tells
        length = high - low
        side = min(max(side, TINY), length.max() + TINY)
        fitting = np.floor(length / side)
        counts[own] = np.clip(fitting if period else fitting + 1, 1, 2 ** min(60 // m, 30))
        sides[own] = np.maximum(length / counts[own], 0.0 if period else side)
        largest = float(max(np.abs(low).max(), np.abs(high).max()))
        return Grid((low, sides, counts, length, bool(period)), float(np.sqrt((length**2).sum())), 16 * EPS * largest)


def sort(points: np.ndarray, grid: Grid) -> Sorted:
    """Points by cell: a radix sort, stable, in which each thread counts and moves a chunk of its own."""
    size, bits = points.shape[1], grid.bits
    code, order = _encode(points, grid), np.arange(size)
    digit = -(-bits // -(-bits // DIGIT))
    bounds = np.linspace(0, size, min(numba.get_num_threads(), size // SHARE + 1) + 1).astype(np.int64)
    histogram = np.empty((len(bounds) - 1, 1 << digit), np.int64)
    for shift in range(0, bits, digit):
        now = bounds, code, shift, histogram
        in_pieces(lambda *some, now=now: sweep.count_digits(*some, *now), len(histogram), 1)
        position = (np.cumsum(histogram.T) - histogram.T.ravel()).reshape(histogram.T.shape).T.copy()
        moved = np.empty_like(code), np.empty_like(order)
        then = bounds, code, order, shift, position, *moved
        in_pieces(lambda *some, then=then: sweep.scatter(*some, *then), len(histogram), 1)
        code, order = moved
    return Sorted(arrange(points, order), code, order)


def filling(points: np.ndarray, grid: Grid) -> np.ndarray:
    """How many of the points each occupied cell holds."""
    code = _encode(points, grid)
    code.sort()
    return np.diff(np.flatnonzero(np.diff(code, prepend=-1, append=-1)))


def arrange(columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    """columns[:, order], by all threads."""
    arranged = np.empty_like(columns)
    in_pieces(lambda *some: sweep.arrange(*some, order, columns, arranged), len(order), SHARE)
    return arranged


def in_pieces(work: Callable, count: int, least: int) -> None:
    """work(first, last) for pieces of range(count), at least so long, by all threads."""
    in_threads(work, count, max(-(-count // (16 * numba.get_num_threads())), least))


def _encode(points: np.ndarray, grid: Grid) -> np.ndarray:
    """The number of the cell of each point (m, N)."""
    origin, side, counts, _, _ = grid.cells
    code = np.empty(points.shape[1], np.int64)
    in_pieces(lambda *some: sweep.encode(*some, points, origin, side, counts, code), code.size, SHARE)
    return code
