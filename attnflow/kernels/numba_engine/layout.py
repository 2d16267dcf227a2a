"""How keys and values lie in memory for the tiles, and which squared distances are summed by products.

Keys and values lie in panels as wide as a block of `blocks`: what a block reads is one piece of memory. How many queries
share a tile follows from the size of the second-level cache; how wide a panel is, from the processor's vectors.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np

from ...similarity.pairs import Pair
from . import blocks
from .tiles import TILE

SHARE_OF_ALL, FEW, SHARE_OF_FEW = 1.0, 3, 0.3  # of rtol that products may lose; less where squares take little longer


def panels_of_keys(pair: Pair, epsilon: float, v: np.ndarray, dtype: np.dtype, rtol: float) -> tuple[np.ndarray, ...]:
    """The keys as `absorb` takes them: panels, centres, squared lengths, and which tiles' squares are summed by products.

    A logit by products is off by about (2 + sqrt n) u (|u - c|^2 + |v - c|^2) / (2 eps) <= 2 (2 + sqrt n) u (r + R^2)
    / (2 eps), with u the unit of rounding and R the largest |v - c| of a tile: what comes with r the squares have as
    well, and the rest may be `rtol`. One centre of all keys saves time, if it does; else each tile has its own, and for
    few coordinates all are summed by squares.
    """
    size, dim = v.shape
    wide, count = blocks.width(dtype), -(-size // TILE)
    most = _most(pair, epsilon, dim, dtype, rtol)
    centres, by_products = np.zeros((1, dim)), np.zeros(count, bool)
    if most > 0:
        if by_products_about_one_centre(pair, epsilon, v, dtype, rtol):
            centres, by_products = v.mean(axis=0, keepdims=True), np.ones(count, bool)
        elif count > 1 and dim > FEW:
            starts = np.arange(0, size, TILE)
            own = np.add.reduceat(v, starts) / np.diff(np.append(starts, size))[:, None]
            square = np.square(v - own.repeat(TILE, axis=0)[:size]).sum(axis=1)
            by_products = np.maximum.reduceat(square, starts) <= most
            if by_products.any():
                centres = np.where(by_products[:, None], own, 0.0)
    less = v - (centres if len(centres) == 1 else centres.repeat(TILE, axis=0)[:size])
    less = np.pad(less, ((0, -size % wide), (0, 0)))
    panels = less.reshape(-1, wide, dim).transpose(0, 2, 1)
    return cast(panels, dtype), cast(centres, np.float64), cast(np.square(less).sum(axis=1), dtype), by_products


def by_products_about_one_centre(pair: Pair, epsilon: float, v: np.ndarray, dtype: np.dtype | str, rtol: float) -> bool:
    """Whether the squared distances of all keys are summed by products about their mean."""
    most = _most(pair, epsilon, v.shape[1], dtype, rtol)
    return most > 0 and bool((np.square(v - v.mean(axis=0)).sum(axis=1) <= most).all())


def _most(pair: Pair, epsilon: float, dim: int, dtype: np.dtype | str, rtol: float) -> float:
    """The largest R^2 that `rtol` bears; 0 for what is no sum of squares, or a root of one."""
    if pair.reduction != "squared" or pair.geodesic or pair.transform not in ("identity", "log1p"):
        return 0.0
    share = SHARE_OF_FEW if dim <= FEW else SHARE_OF_ALL
    return share * rtol * epsilon / ((2 + np.sqrt(dim)) * float(np.finfo(dtype).eps) / 2)


def panels_of_values(values: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, c) as `absorb` takes them: columns (c, N), or panels (., N, W) of columns, padded with zeros."""
    size, columns = values.shape
    lanes = blocks.width(dtype) // blocks.VECTORS
    if columns < lanes:
        return cast(values.T, dtype), np.empty((0, size, lanes), dtype)
    wide = lanes if columns <= lanes else lanes * blocks.VECTORS
    padded = np.pad(values, ((0, 0), (0, -columns % wide)))
    return np.empty((0, size), dtype), cast(padded.reshape(size, -1, wide).transpose(1, 0, 2), dtype)


@cache
def queries_together(dtype: np.dtype) -> int:
    """Queries that share a tile: their weights fill a quarter of the second-level cache, where values pass by."""
    try:
        second = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        second = 0
    rows = max(second, 2**18) // 4 // (TILE * dtype.itemsize)
    return blocks.ROWS * min(max(rows // blocks.ROWS, 1), 16)


def cast(array, dtype):
    # writeable, because a read-only array is another type to numba and would compile everything again
    return np.require(array, dtype, ("C", "W"))
