"""Laws by which a query chooses its keys from a list of near ones: each row has numbers of its own, found once.

With g = f / (2 eps) and masses m_j of the keys (1 for a token), rows of weights w_ij proportional to m_j times

    Nearest      exp(-g) for the smallest f, of mass k together
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
from ..threads import in_threads

TIE = 1e-11  # of |f|: what differs by less is the same, and goes by the number of the key
_ROWS = 32  # worth handing to a thread
_free = cached_njit(error_model="numpy")
_compiled = numba.njit(error_model="numpy")


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


Law = Nearest | Entmax | Calibrated


def weigh(law: Law, lists, key_mass: np.ndarray, key_number: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Weights of the lists' entries, every row's of sum one; 0 for what it does not choose."""
    weights = np.empty(len(lists.f))
    t = (law.code, *law.scale, lists.starts, lists.places, lists.f, key_mass, key_number, numbers, weights)
    in_threads(lambda a, b: _weigh(a, b, *t), len(numbers), _ROWS)
    return weights


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
        low, high = 1e-3 / highest, 750.0 / nearest
        while _entropy(row, keys, mass, lowest, low)[0] < goal and low > 1e-300:
            low /= 16
        x_low, x_high = np.log(low), np.log(high)
        x = (x_low + x_high) / 2
        for _ in range(200):
            entropy, variance = _entropy(row, keys, mass, lowest, np.exp(x))
            if entropy > goal:
                x_low = x
            else:
                x_high = x
            step = (entropy - goal) / variance if variance > 0 else np.inf
            new = x + step
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


@_compiled
def _entropy(row, keys, mass, lowest, beta):
    """Of weights m exp(-beta f), and minus its derivative by log beta: beta^2 times the variance of f."""
    total, first, second = 0.0, 0.0, 0.0
    for e in range(row.size):
        g = beta * (row[e] - lowest)
        if g < 745:
            w = mass[keys[e]] * np.exp(-g)
            total += w
            first += w * g
            second += w * g * g
    mean = first / total
    return np.log(total) + mean, second / total - mean * mean


@_free
def _weigh(first, last, code, scale, power, starts, places, f, mass, number, numbers, weights):
    for i in range(first, last):
        begin, end = starts[i], starts[i + 1]
        if code == 0:
            low, high, chosen, share = numbers[i, 0], numbers[i, 1], numbers[i, 2], numbers[i, 3]
            lowest = np.inf
            for e in range(begin, end):
                lowest = min(lowest, f[e])
            for e in range(begin, end):
                j = places[e]
                part = 1.0 if f[e] < low else 0.0
                if low <= f[e] <= high and low < np.inf:
                    part = 1.0 if number[j] < chosen else share if number[j] == chosen else 0.0
                weights[e] = part * mass[j] * np.exp(-(f[e] - lowest) * scale) if part > 0 else 0.0
        elif code == 1:
            lowest, level = numbers[i, 0], numbers[i, 1]
            for e in range(begin, end):
                depth = (level - (f[e] - lowest)) * scale
                weights[e] = mass[places[e]] * depth**power if depth > 0 else 0.0
        else:
            lowest, beta, cut = numbers[i, 0], numbers[i, 1], numbers[i, 3]
            for e in range(begin, end):
                g = f[e] - lowest
                if beta == np.inf or beta == 0:
                    weights[e] = mass[places[e]] if f[e] <= cut and g < np.inf else 0.0
                else:
                    weights[e] = mass[places[e]] * np.exp(-beta * g) if f[e] <= cut else 0.0
        total = 0.0
        for e in range(begin, end):
            total += weights[e]
        for e in range(begin, end):
            weights[e] /= total
