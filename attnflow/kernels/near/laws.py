"""Laws by which a query chooses its keys from a list of near ones: each row has numbers of its own, found once.

With g = f / (2 eps) and masses m_j of the keys (1 for a token), rows of weights w_ij proportional to m_j times

    Nearest      exp(-g) for the k smallest f
    Spread       exp(-g) for the smallest f, of mass k together: nodes stand for the cells around them, of which a part counts
    Entmax       (T_i - g)_+^m with sum_j m_j ((T_i - g_j) / m)^m = 1
    Calibrated   exp(-f / (2 eps_i)) with exp(entropy) = target

f counts from the row's smallest, f_i, everywhere: a constant in a row changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar, NamedTuple

import numpy as np

from ..threads import in_threads
from . import thresholds
from .weights import weigh_rows

_ROWS = 32  # worth handing to a thread


class Found(NamedTuple):
    """The rows' numbers (R, 4), the bounds of f that hold all their keys (R,), and the rows whose list was too short."""

    numbers: np.ndarray
    bound: np.ndarray
    short: np.ndarray


@dataclass(frozen=True)
class Nearest:
    """The k most similar keys, with softmax weights at temperature epsilon. Masses don't count here: see `Spread`."""

    k: int
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
        return _found(thresholds.nearest, lists, (key_number, bound, self.k))


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
        return _found(thresholds.spread, lists, (key_mass, bound, self.k, self.exponent))


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
        return _found(thresholds.entmax, lists, (key_mass, bound, 2 * self.epsilon * self.power, self.power))


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
        depth = log(2 * size / min(self.rtol, 1.0))
        return _found(thresholds.calibrated, lists, (key_mass, bound, log(self.target), depth))


Law = Nearest | Spread | Entmax | Calibrated


def weigh(law: Law, lists, key_mass: np.ndarray, key_number: np.ndarray, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the lists' entries, every row's of sum one, 0 for what it does not choose; and of each row (3, R) how many
    keys there are up to its bound, how many have a weight, and their mass."""
    weights, seen = np.empty(len(lists.f)), np.empty((3, len(found.bound)))
    t = (lists.starts, lists.places, lists.f, key_mass, key_number, found.bound, found.numbers, weights, seen)
    in_threads(lambda a, b: weigh_rows(a, b, law.code, *law.scale, *t), len(found.bound), _ROWS)
    return weights, seen


def _found(kernel, lists, rest) -> Found:
    count = len(lists.starts) - 1
    found = Found(np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool))
    in_threads(lambda a, b: kernel(a, b, lists.starts, lists.places, lists.f, *rest, *found), count, _ROWS)
    return found
