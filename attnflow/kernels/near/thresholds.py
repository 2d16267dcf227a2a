"""What each row's numbers are: where its keys end, or its temperature, from lists of f; compiled.

All take a list's starts, places and f (see `sources.Lists`), the masses of the keys, the bounds up to which lists hold
every key, and fill the fields of `laws.Found`.
"""

from __future__ import annotations

from math import log

import numba
import numpy as np

from ...compilation import cached_njit
from ..numba_engine import tiles
from ..numba_engine.arithmetic import exp2

TIE = 1e-11  # of |f| in a row: what differs by less is the same, and goes by the number of the key
_WHOLE = 1e-14  # of a mass
_LN2, _NOTHING = log(2), 1100.0  # bits from which on a weight is none
_free = cached_njit(tiles.SHARED, error_model="numpy")
_compiled = numba.njit(error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@_free
def nearest(first, last, starts, places, f, number, bound, k, numbers, reach, short):
    """numbers: below which f counts, and up to which by the key's number; the last such number."""
    for i in range(first, last):
        row, keys = f[starts[i] : starts[i + 1]], places[starts[i] : starts[i + 1]]
        complete = bound[i] == np.inf
        if row.size < k and not complete:
            short[i] = True
            continue
        edge = smallest(row.copy(), k - 1) if row.size >= k else np.inf
        if edge == np.inf:  # all of them
            numbers[i, 0] = numbers[i, 1] = reach[i] = np.inf
            continue
        tie = TIE * max(abs(edge), abs(row.min()))
        if edge + tie > bound[i]:  # a tie may lie just beyond
            short[i] = True
            continue
        before, count = 0, 0
        for e in range(row.size):
            before += row[e] < edge - tie
            count += row[e] <= edge + tie
        ties, at = np.empty(count - before, np.int64), 0
        for e in range(row.size):
            if edge - tie <= row[e] <= edge + tie:
                ties[at] = number[keys[e]]
                at += 1
        numbers[i, 0], numbers[i, 1], reach[i] = edge - tie, edge + tie, edge + tie
        numbers[i, 2] = smallest(ties, k - before - 1)


@_compiled
def smallest(values, k):
    """The entry that sorting would leave at place k; values are reordered (Hoare's selection, no entry NaN).

    Pivots are taken from scrambled places: no order that keys may have makes it slow. np.partition compiles for ten times
    as long.
    """
    low, high, place = 0, values.size - 1, 1
    while low < high:
        place = (1103515245 * place + 12345) & 0x7FFFFFFF
        pivot, i, j = values[low + place % (high - low + 1)], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i, j = i + 1, j - 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@_free
def spread(first, last, starts, places, f, mass, bound, k, exponent, numbers, reach, short):
    """numbers: the row's lowest f, the radius, and the width of a node."""
    for i in range(first, last):
        row, own = f[starts[i] : starts[i + 1]], mass[places[starts[i] : starts[i + 1]]]
        if row.size == 0:
            short[i] = True
            continue
        lowest, nearest, highest = row.min(), np.inf, 0.0
        distance = np.empty(row.size)
        for e in range(row.size):
            distance[e] = (row[e] - lowest) ** (1 / exponent)
            if distance[e] > 0:
                nearest = min(nearest, distance[e])
            if distance[e] < np.inf:
                highest = max(highest, distance[e])
        complete, total = bound[i] == np.inf, 0.0
        width = nearest if nearest < np.inf else 1.0
        low, high = -width, highest + width
        for e in range(row.size):
            total += own[e] * share_of(distance[e], high, width) if distance[e] < np.inf else 0.0
        radius = high
        if total > k or not complete:  # a broken line that grows with the radius: Newton's steps, halvings where they go astray
            for _ in range(100):
                total, slope = 0.0, 0.0
                for e in range(row.size):
                    share = share_of(distance[e], radius, width)
                    total += own[e] * share
                    slope += own[e] / width if 0 < share < 1 else 0.0
                if total < k:
                    low = radius
                else:
                    high = radius
                new = radius + (k - total) / slope
                if not (low < new < high):
                    new = (low + high) / 2
                if abs(new - radius) <= 1e-15 * high:
                    break
                radius = new
        numbers[i, 0], numbers[i, 1], numbers[i, 2] = lowest, radius, width
        reach[i] = lowest + (radius + width / 2) ** exponent
        short[i] = not complete and reach[i] > bound[i]


@_free
def entmax(first, last, starts, places, f, mass, bound, unit, power, numbers, reach, short):
    """numbers: the row's lowest f; the level above it where weights end, sum of m ((level - f) / unit)^power = 1; what keys
    at that very level weigh, for each mass.

    The level lies between those of all keys together and of the lowest alone. The sum's root of order `power` is convex in
    it (Minkowski), near to linear for a large power: Newton's steps, halvings where they leave the bracket. A power below 1
    grows so fast beyond the level that no number is fine enough for it: keys there have what the others leave.
    """
    order = max(power, 1.0)
    for i in range(first, last):
        row, own = f[starts[i] : starts[i + 1]], mass[places[starts[i] : starts[i + 1]]]
        if row.size == 0:
            short[i] = True
            continue
        lowest, highest, least_mass, all_mass = row.min(), 0.0, 0.0, 0.0
        for e in range(row.size):
            if row[e] < np.inf:
                highest = max(highest, row[e] - lowest)
                all_mass += own[e]
            if row[e] == lowest:
                least_mass += own[e]
        low = unit * all_mass ** (-1 / power)
        high = min(unit * least_mass ** (-1 / power), highest + low)
        if bound[i] < np.inf:
            seen = bound[i] - lowest
            total = _depths(row, own, lowest, seen, unit, power)[0]
            if total < 1:  # a plane of keys would need so much more
                short[i], reach[i] = (
                    True,
                    lowest + min(1.1 * seen * total ** (-1 / (power + 1)), unit * least_mass ** (-1 / power)),
                )
                continue
            high = min(high, seen)
        low, level = min(low, high), high
        for _ in range(200):
            total, slope = _depths(row, own, lowest, level, unit, power)
            root = total ** (1 / order)
            if root > 1:
                high = level
            else:
                low = level
            new = level + (1 - root) * total * unit * order / (root * slope * power)
            if not (low < new < high):
                new = np.sqrt(low) * np.sqrt(high) if low < high / 4 else (low + high) / 2
            if abs(new - level) <= 4e-16 * level:
                break
            level = new
        numbers[i, 0], numbers[i, 1], reach[i] = lowest, level, lowest + level
        if power < 1:
            inside, edge, edge_mass = 0.0, TIE * level, 0.0
            for e in range(row.size):
                above = row[e] - lowest
                if above < level - edge:
                    inside += own[e] * ((level - above) / unit) ** power
                elif above <= level + edge:
                    edge_mass += own[e]
            numbers[i, 2] = max(1 - inside, 0.0) / edge_mass if edge_mass > 0 else 0.0
            reach[i] += edge
            short[i] = reach[i] > bound[i]


@_compiled
def _depths(row, own, lowest, level, unit, power):
    """sum of m d^power and of m d^(power - 1), d the depths (level - f) / unit that are positive."""
    total, slope = 0.0, 0.0
    for e in range(row.size):
        depth = (level - (row[e] - lowest)) / unit
        if depth > 0:
            part = own[e]
            if power == 2.0:
                part *= depth
            elif power != 1.0:
                part *= depth ** (power - 1)
            slope += part
            total += part * depth
    return total, slope


@_free
def calibrated(first, last, starts, places, f, mass, bound, goal, depth, numbers, reach, short):
    """numbers: the row's lowest f; 1 / (2 eps), of which inf stands for the lowest alone and 0 for all alike; whether the
    target is out of reach; the f where weights end."""
    begun = np.log(0.25 * depth)  # of highest / (2 eps): where the row before ended
    for i in range(first, last):
        row, own = f[starts[i] : starts[i + 1]], mass[places[starts[i] : starts[i + 1]]]
        complete = bound[i] == np.inf
        if row.size == 0:
            short[i] = True
            continue
        lowest, nearest, highest, all_mass, least_mass = row.min(), np.inf, 0.0, 0.0, 0.0
        for e in range(row.size):
            g = row[e] - lowest
            if g < np.inf:
                all_mass += own[e]
                highest = max(highest, g)
            if g > 0:
                nearest = min(nearest, g)
            else:
                least_mass += own[e]
        numbers[i, 0] = lowest
        if np.log(all_mass) <= goal * (1 + 1e-12) or nearest == np.inf:
            if not complete:
                short[i] = True
            else:  # fewer than the target: all alike
                numbers[i, 1], numbers[i, 2], numbers[i, 3], reach[i] = 0.0, 1.0, np.inf, np.inf
            continue
        if np.log(least_mass) >= goal:  # so many copies of the nearest that no temperature is low enough
            numbers[i, 1], numbers[i, 2], numbers[i, 3], reach[i] = np.inf, 1.0, lowest, lowest
            continue
        x_low, x_high = np.log(1e-300), np.log(750.0) - np.log(nearest)
        x = begun - np.log(highest)
        for _ in range(200):
            entropy, variance = _entropy(row, own, lowest, np.exp(x))
            if entropy > goal:
                x_low = x
            else:
                x_high = x
            step = (entropy - goal) / variance if variance > 0 else np.inf
            new = x + min(max(step, -8.0), 8.0)
            if not (x_low < new < x_high):
                new = (x_low + x_high) / 2
            done = abs(new - x) < 1e-12  # halvings have to come so far, too
            x = new
            if done:
                break
        beta = np.exp(x)
        reach[i] = lowest + depth / beta
        if reach[i] > bound[i] and not complete:
            short[i] = True
            continue
        numbers[i, 1], numbers[i, 3] = beta, reach[i]
        begun = x + np.log(highest)


@_summing
def _entropy(row, own, lowest, beta):
    """Of weights m exp(-beta f), and minus its derivative by log beta: beta^2 times the variance of f."""
    bits, total, first, second = beta / _LN2, 0.0, 0.0, 0.0
    for e in range(row.size):
        g = bits * (row[e] - lowest)
        g = g if g < _NOTHING else _NOTHING
        w = own[e] * exp2(-g)
        total += w
        first += w * g
        second += w * g * g
    mean = first / total
    return np.log(total) + mean * _LN2, (second / total - mean * mean) * _LN2**2


@_compiled
def share_of(distance, radius, width):
    return min(max((radius - distance) / width + 0.5, 0.0), 1.0)
