"""The weights of a row, made of its numbers; compiled."""

from __future__ import annotations

from math import log

import numba
import numpy as np

from ...compilation import cached_njit
from ..numba_engine import tiles
from ..numba_engine.arithmetic import exp2
from . import thresholds
from .thresholds import TIE, share_of

_LN2 = log(2)
_free = cached_njit((*tiles.SHARED, thresholds.__file__), error_model="numpy")
_compiled = numba.njit(error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@_free
def weigh_rows(first, last, code, scale, power, starts, places, f, mass, number, bound, numbers, weights, seen):
    """Weights of rows, and in `seen` (3, R) how many keys have f up to the bound, and of those with a weight number and mass."""
    for i in range(first, last):
        begin, end = starts[i], starts[i + 1]
        row, keys, out = f[begin:end], places[begin:end], weights[begin:end]
        own = mass[keys]
        if code == 0:
            _weigh_nearest(row, keys, number, scale, numbers[i], out)
        elif code == 1:
            _weigh_depths(row, own, scale, power, numbers[i], out)
        elif code == 3:
            _weigh_spread(row, own, scale, power, numbers[i], out)
        else:
            _weigh_calibrated(row, own, numbers[i], out)
        total, seen[2, i] = _totals(out, own)
        length, count, most = 0, 0, bound[i]
        for e in range(row.size):
            length += row[e] <= most
            count += out[e] > 0
        for e in range(row.size):
            out[e] /= total
        seen[0, i], seen[1, i] = length, count


@_summing
def _totals(out, own):
    """Of the weights, and of the masses of keys that have one."""
    total, weighed = 0.0, 0.0
    for e in range(out.size):
        total += out[e]
        weighed += own[e] if out[e] > 0 else 0.0
    return total, weighed


@_compiled
def _weigh_nearest(row, keys, number, scale, numbers, out):
    low, high, last = numbers[0], numbers[1], numbers[2]
    lowest = row[0]
    for e in range(row.size):
        lowest = min(lowest, row[e])
        out[e] = 1.0 if row[e] < low or (row[e] <= high and number[keys[e]] <= last) else 0.0
    for e in range(row.size):
        out[e] *= exp2((lowest - row[e]) * scale / _LN2)


@_compiled
def _weigh_spread(row, own, scale, exponent, numbers, out):
    lowest, radius, width = numbers[0], numbers[1], numbers[2]
    for e in range(row.size):
        above = row[e] - lowest
        share = share_of(above ** (1 / exponent), radius, width)
        out[e] = share * own[e] * exp2(-above * scale / _LN2) if share > 0 else 0.0


@_compiled
def _weigh_depths(row, own, scale, power, numbers, out):
    """Those at the very level weigh nothing, or what the others leave: see `thresholds.entmax`."""
    lowest, level, at_level = numbers[0], numbers[1], numbers[2]
    edge = TIE * level
    for e in range(row.size):
        depth = level - (row[e] - lowest)
        out[e] = depth * scale if depth > edge else 0.0
    if power == 2.0:
        for e in range(row.size):
            out[e] *= out[e]
    elif power != 1.0:
        for e in range(row.size):
            out[e] = out[e] ** power
    if power < 1:
        for e in range(row.size):
            if abs(level - (row[e] - lowest)) <= edge:
                out[e] = at_level
    for e in range(row.size):
        out[e] *= own[e]


@_compiled
def _weigh_calibrated(row, own, numbers, out):
    lowest, beta, cut = numbers[0], numbers[1], numbers[3]
    if beta == np.inf or beta == 0:
        for e in range(row.size):
            out[e] = own[e] if row[e] <= cut and row[e] < np.inf else 0.0
        return
    bits = beta / _LN2
    for e in range(row.size):
        w = own[e] * exp2((lowest - row[e]) * bits)
        out[e] = w if row[e] <= cut else 0.0
