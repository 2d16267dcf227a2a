"""Laws by which a query chooses its keys from a list of near ones: each row has numbers of its own, found once.

With g = f / (2 eps) and masses m_j of the keys (1 for a token), rows of weights w_ij proportional to m_j times

    Nearest      exp(-g) for the smallest f, of mass k together
    Spread       the same of nodes that stand for the cells around them, of which a part counts
    Entmax       (T_i - g)_+^m with sum_j m_j ((T_i - g_j) / m)^m = 1
    Calibrated   exp(-f / (2 eps_i)) with exp(entropy) = target

f counts from the row's smallest, f_i, everywhere: a constant in a row changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar, NamedTuple

import numba
import numpy as np

from ...compilation import cached_njit
from ..numba_engine import tiles
from ..numba_engine.arithmetic import exp2
from ..threads import in_threads

TIE = 1e-11  # of |f|: what differs by less is the same, and goes by the number of the key
_ROWS = 32  # worth handing to a thread
_LN2, _NOTHING = log(2), 1100.0  # bits from which on a weight is none
_free = cached_njit(tiles.SHARED, error_model="numpy")
_compiled = numba.njit(error_model="numpy")
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


class Found(NamedTuple):
    """The rows' numbers (R, 4), the bounds of f that hold all their keys (R,), and the rows whose list was too short."""

    numbers: np.ndarray
    bound: np.ndarray
    short: np.ndarray


@dataclass(frozen=True)
class Nearest:
    """The k most similar keys, with softmax weights at temperature epsilon."""

    k: float
    epsilon: float
    code: ClassVar[int] = 0

    @property
    def rank(self) -> float:
        """About how many keys a list must hold."""
        return self.k

    def at(self, epsilon: float) -> Nearest:
        """At another temperature."""
        return replace(self, epsilon=epsilon)

    @property
    def scale(self) -> tuple[float, float]:
        """What `weigh` needs of the law."""
        return 0.5 / self.epsilon, 1.0

    def find(self, lists, key_mass: np.ndarray, key_number: np.ndarray, bound: np.ndarray, size: float) -> Found:
        """The numbers of rows from lists of all keys up to `bound`; `size` is the mass of all keys."""
        return _found(_nearest, lists, (key_mass, key_number, bound, self.k))


@dataclass(frozen=True)
class Spread:
    """As `Nearest` for nodes of a quadrature: those up to a distance r = (f - f_i)^(1/q), and at it a part of their cells,
    clip((r - d) / h + 1/2, 0, 1), h the distance of the next node: of second order in h, where whole nodes are of first."""

    k: float
    epsilon: float
    exponent: float
    code: ClassVar[int] = 3

    @property
    def rank(self) -> float:
        return np.nan  # nodes of unequal mass

    def at(self, epsilon: float) -> Spread:
        return replace(self, epsilon=epsilon)

    @property
    def scale(self) -> tuple[float, float]:
        return 0.5 / self.epsilon, self.exponent

    def find(self, lists, key_mass: np.ndarray, key_number: np.ndarray, bound: np.ndarray, size: float) -> Found:
        return _found(_spread, lists, (key_mass, bound, self.k, self.exponent))


@dataclass(frozen=True)
class Entmax:
    """(T - g)_+^m at temperature epsilon; sparsemax is m = 1. Rows keep about `rank` keys."""

    power: float
    epsilon: float
    rank: float
    code: ClassVar[int] = 1

    def at(self, epsilon: float) -> Entmax:
        return replace(self, epsilon=epsilon)

    @property
    def scale(self) -> tuple[float, float]:
        return 0.5 / self.epsilon / self.power, self.power

    def find(self, lists, key_mass: np.ndarray, key_number: np.ndarray, bound: np.ndarray, size: float) -> Found:
        return _found(_entmax, lists, (key_mass, bound, 2 * self.epsilon * self.power, self.power))


@dataclass(frozen=True)
class Calibrated:
    """A temperature of its own for each row; weights are left out where they are below rtol together."""

    target: float
    rtol: float
    code: ClassVar[int] = 2

    @property
    def rank(self) -> float:
        return 8 * self.target

    @property
    def scale(self) -> tuple[float, float]:
        return 1.0, 1.0

    def find(self, lists, key_mass: np.ndarray, key_number: np.ndarray, bound: np.ndarray, size: float) -> Found:
        depth = log(2 * len(key_mass) / min(self.rtol, 1.0))
        return _found(_calibrated, lists, (key_mass, bound, log(self.target), depth))


Law = Nearest | Spread | Entmax | Calibrated


def weigh(law: Law, lists, key_mass: np.ndarray, key_number: np.ndarray, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the lists' entries, every row's of sum one, 0 for what it does not choose; and of each row (3, R) how many
    keys there are up to its bound, how many have a weight, and their mass."""
    weights, seen = np.empty(len(lists.f)), np.empty((3, len(found.bound)))
    t = (lists.starts, lists.places, lists.f, key_mass, key_number, found.bound, found.numbers, weights, seen)
    in_threads(lambda a, b: _weigh(a, b, law.code, *law.scale, *t), len(found.bound), _ROWS)
    return weights, seen


def _found(kernel, lists, rest) -> Found:
    count = len(lists.starts) - 1
    found = Found(np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool))
    in_threads(lambda a, b: kernel(a, b, lists.starts, lists.places, lists.f, *rest, *found), count, _ROWS)
    return found


@_free
def _nearest(first, last, starts, places, f, mass, number, bound, k, numbers, reach, short):
    """numbers: below which f counts in full, up to which by the key's number, the last such number, its share."""
    for i in range(first, last):
        row, keys = f[starts[i] : starts[i + 1]], places[starts[i] : starts[i + 1]]
        order = np.argsort(row)
        total, last_one = 0.0, -1
        for e in order:
            total += mass[keys[e]]
            last_one = e
            if total >= k * (1 - 1e-14):
                break
        complete = bound[i] == np.inf
        if row.size == 0 or (total < k * (1 - 1e-14) and not complete):
            short[i] = True
            continue
        edge = row[last_one]
        if complete and (edge == np.inf or (total <= k * (1 + 1e-14) and last_one == order[-1])):  # all of them
            numbers[i, 0] = numbers[i, 1] = np.inf
            numbers[i, 2], numbers[i, 3], reach[i] = -1, 0.0, np.inf
            continue
        tie = TIE * abs(edge)
        if edge + tie > bound[i]:  # a tie may lie just beyond
            short[i] = True
            continue
        rest, count = k, 0
        for e in range(row.size):
            if row[e] < edge - tie:
                rest -= mass[keys[e]]
            elif row[e] <= edge + tie:
                count += 1
        ties, masses, at = np.empty(count, np.int64), np.empty(count), 0
        for e in range(row.size):
            if abs(row[e] - edge) <= tie:
                ties[at], masses[at] = number[keys[e]], mass[keys[e]]
                at += 1
        by_number = np.argsort(ties)
        share, chosen = 0.0, -1
        for e in by_number:
            if rest <= 1e-14 * k:
                break
            chosen, share = ties[e], min(rest / masses[e], 1.0) if masses[e] > 0 else 1.0
            rest -= masses[e]
        numbers[i, 0], numbers[i, 1], numbers[i, 2], numbers[i, 3] = edge - tie, edge + tie, chosen, share
        reach[i] = edge + tie


@_free
def _spread(first, last, starts, places, f, mass, bound, k, exponent, numbers, reach, short):
    """numbers: the row's lowest f, the radius, and the width of a node."""
    for i in range(first, last):
        row, keys = f[starts[i] : starts[i + 1]], places[starts[i] : starts[i + 1]]
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
            total += mass[keys[e]] * _share(distance[e], high, width) if distance[e] < np.inf else 0.0
        if total > k or not complete:
            for _ in range(100):
                radius, total = (low + high) / 2, 0.0
                for e in range(row.size):
                    total += mass[keys[e]] * _share(distance[e], radius, width)
                if total < k:
                    low = radius
                else:
                    high = radius
                if high - low <= 1e-15 * high:
                    break
        numbers[i, 0], numbers[i, 1], numbers[i, 2] = lowest, high, width
        reach[i] = lowest + (high + width / 2) ** exponent
        short[i] = not complete and reach[i] > bound[i]


@_free
def _entmax(first, last, starts, places, f, mass, bound, unit, power, numbers, reach, short):
    """numbers: the row's lowest f, and how far above it weights end: sum of m ((level - f) / unit)^power = 1."""
    for i in range(first, last):
        row, keys = f[starts[i] : starts[i + 1]], places[starts[i] : starts[i + 1]]
        if row.size == 0:
            short[i] = True
            continue
        lowest, highest = row.min(), -np.inf
        for e in range(row.size):
            if row[e] < np.inf and row[e] > highest:
                highest = row[e]
        complete = bound[i] == np.inf
        high = (highest if complete else bound[i]) - lowest
        if complete:
            high = max(high, 1e-300)
            while _sum(row, keys, mass, lowest, high, unit, power) < 1:
                high = 2 * high + unit
        elif _sum(row, keys, mass, lowest, high, unit, power) < 1:
            short[i] = True
            continue
        low, level = 0.0, high
        for _ in range(200):
            total, slope = 0.0, 0.0
            for e in range(row.size):
                depth = (level - (row[e] - lowest)) / unit
                if depth > 0:
                    if power == 1.0:
                        total += mass[keys[e]] * depth
                        slope += mass[keys[e]]
                    else:
                        part = mass[keys[e]] * depth**power
                        total += part
                        slope += power * part / depth
            if total > 1:
                high = level
            else:
                low = level
            step = (1 - total) / slope * unit if slope > 0 else np.inf
            new = level + step
            if not (low < new < high):
                new = (low + high) / 2
            if abs(new - level) <= 4e-16 * level or new == level:
                level = new
                break
            level = new
        numbers[i, 0], numbers[i, 1] = lowest, level
        reach[i] = lowest + level


@_compiled
def _sum(row, keys, mass, lowest, level, unit, power):
    total = 0.0
    for e in range(row.size):
        depth = (level - (row[e] - lowest)) / unit
        if depth > 0:
            total += mass[keys[e]] * depth**power
    return total


@_free
def _calibrated(first, last, starts, places, f, mass, bound, goal, depth, numbers, reach, short):
    """numbers: the row's lowest f; 1 / (2 eps), of which inf stands for the lowest alone and 0 for all alike; unreached; where weights end."""
    for i in range(first, last):
        row, keys = f[starts[i] : starts[i + 1]], places[starts[i] : starts[i + 1]]
        complete = bound[i] == np.inf
        if row.size == 0:
            short[i] = True
            continue
        lowest, nearest, highest, all_mass, least_mass = row.min(), np.inf, 0.0, 0.0, 0.0
        for e in range(row.size):
            g = row[e] - lowest
            if g < np.inf:
                all_mass += mass[keys[e]]
                highest = max(highest, g)
            if g > 0:
                nearest = min(nearest, g)
            else:
                least_mass += mass[keys[e]]
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
        x_low, x_high = np.log(1e-300), np.log(750.0 / nearest)
        x = np.log(0.25 * depth / highest)
        for _ in range(200):
            entropy, variance = _entropy(row, keys, mass, lowest, np.exp(x))
            if entropy > goal:
                x_low = x
            else:
                x_high = x
            step = (entropy - goal) / variance if variance > 0 else np.inf
            new = x + min(max(step, -8.0), 8.0)
            if not (x_low < new < x_high):
                new = (x_low + x_high) / 2
            if abs(new - x) < 1e-15 * max(abs(x), 1.0) or abs(entropy - goal) < 1e-15 * max(goal, 1e-3):
                break
            x = new
        beta = np.exp(x)
        reach[i] = lowest + depth / beta
        if reach[i] > bound[i] and not complete:
            short[i] = True
            continue
        numbers[i, 1], numbers[i, 3] = beta, reach[i]


@_summing
def _entropy(row, keys, mass, lowest, beta):
    """Of weights m exp(-beta f), and minus its derivative by log beta: beta^2 times the variance of f."""
    bits, total, first, second = beta / _LN2, 0.0, 0.0, 0.0
    for e in range(row.size):
        g = bits * (row[e] - lowest)
        g = g if g < _NOTHING else _NOTHING
        w = mass[keys[e]] * exp2(-g)
        total += w
        first += w * g
        second += w * g * g
    mean = first / total
    return np.log(total) + mean * _LN2, (second / total - mean * mean) * _LN2**2


@_free
def _weigh(first, last, code, scale, power, starts, places, f, mass, number, bound, numbers, weights, seen):
    """Weights of rows, and in `seen` (3, R) how many keys have f up to the bound, and of those with a weight number and mass."""
    for i in range(first, last):
        begin, end = starts[i], starts[i + 1]
        row, keys, out = f[begin:end], places[begin:end], weights[begin:end]
        if code == 0:
            _weigh_nearest(row, keys, mass, number, scale, numbers[i], out)
        elif code == 1:
            _weigh_depths(row, keys, mass, scale, power, numbers[i], out)
        elif code == 3:
            _weigh_spread(row, keys, mass, scale, power, numbers[i], out)
        else:
            _weigh_calibrated(row, keys, mass, numbers[i], out)
        total, length, count, weighed = 0.0, 0, 0, 0.0
        for e in range(row.size):
            total += out[e]
            length += row[e] <= bound[i]
            count += out[e] > 0
            weighed += mass[keys[e]] if out[e] > 0 else 0.0
        for e in range(row.size):
            out[e] /= total
        seen[0, i], seen[1, i], seen[2, i] = length, count, weighed


@_compiled
def _weigh_nearest(row, keys, mass, number, scale, numbers, out):
    low, high, chosen, share = numbers
    lowest = row[0]
    for e in range(row.size):
        lowest = min(lowest, row[e])
    for e in range(row.size):
        part = 1.0 if row[e] < low else 0.0
        if low <= row[e] <= high and low < np.inf:
            j = number[keys[e]]
            part = 1.0 if j < chosen else share if j == chosen else 0.0
        out[e] = part
    for e in range(row.size):
        out[e] *= mass[keys[e]] * exp2((lowest - row[e]) * scale / _LN2)


@_compiled
def _weigh_spread(row, keys, mass, scale, exponent, numbers, out):
    lowest, radius, width = numbers[0], numbers[1], numbers[2]
    for e in range(row.size):
        above = row[e] - lowest
        share = _share(above ** (1 / exponent), radius, width)
        out[e] = share * mass[keys[e]] * exp2(-above * scale / _LN2) if share > 0 else 0.0


@_compiled
def _share(distance, radius, width):
    return min(max((radius - distance) / width + 0.5, 0.0), 1.0)


@_compiled
def _weigh_depths(row, keys, mass, scale, power, numbers, out):
    lowest, level = numbers[0], numbers[1]
    for e in range(row.size):
        depth = (level - (row[e] - lowest)) * scale
        out[e] = max(depth, 0.0)
    if power != 1.0:
        for e in range(row.size):
            out[e] = out[e] ** power
    for e in range(row.size):
        out[e] *= mass[keys[e]]


@_compiled
def _weigh_calibrated(row, keys, mass, numbers, out):
    lowest, beta, cut = numbers[0], numbers[1], numbers[3]
    if beta == np.inf or beta == 0:
        for e in range(row.size):
            out[e] = mass[keys[e]] if row[e] <= cut and row[e] < np.inf else 0.0
        return
    bits = beta / _LN2
    for e in range(row.size):
        w = mass[keys[e]] * exp2((lowest - row[e]) * bits)
        out[e] = w if row[e] <= cut else 0.0
