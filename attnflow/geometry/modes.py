"""Modes of a function nobody described: many points are looked at, and the best of them climb.

The logarithm of a peak slopes far beyond where the peak itself has underflowed, so that a climb finds a narrow one
from far away. What cannot be found is a peak that rises from a plateau (a logarithm of a sum) within less than the
distance of two points that are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

_STEPS = 250  # of a climb: from one end of the unit interval to a peak of width 1e-15 takes 60
_CHUNK = 2**15  # points looked at together: they stay in the cache
_FLAT = 1e-10  # a climb ends where a step would change the logarithm by less


@dataclass(frozen=True, eq=False)
class Modes:
    """Local maxima of a logarithm.

    Attributes
    ----------
    points : (K, n) array
        Highest first.
    values : (K,) array
        The logarithm there; +inf where it has no bound.
    scale : (K, n) array
        How far along each axis until it has fallen by a half.
    pole : (K,) array of bool
        Whether it rises beyond all bounds, as far as numbers can tell.
    peaked : (K,) array of bool
        Whether it falls gradually, not as from a plateau's edge.
    """

    points: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    pole: np.ndarray
    peaked: np.ndarray

    @property
    def top(self) -> float:
        """The largest finite value."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite.max()) if len(finite) else -np.inf

    def __getitem__(self, chosen: np.ndarray) -> Modes:
        return Modes(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def joined(self, other: Modes) -> Modes:
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return _distinct(Modes(*map(np.concatenate, pairs)))


def climb(log_q: Callable, start: np.ndarray, step: np.ndarray, low: np.ndarray, high: np.ndarray) -> Modes:
    """Local maxima that pattern search reaches from points (K, n) in a box, with first steps (K, n).

    A step that rises is taken and the next is twice as long; else the step is halved.
    """
    x, value, step = start.copy(), log_q(start), step.copy()
    first, n = step.copy(), start.shape[1]
    along = np.concatenate([np.eye(n), -np.eye(n)])
    moving = np.isfinite(value)
    pole = value == np.inf
    for _ in range(_STEPS):
        here = np.flatnonzero(moving)
        if not len(here):
            break
        trial = np.clip(x[here, None] + along * step[here, None], low, high)
        there = log_q(trial.reshape(-1, n)).reshape(len(here), 2 * n)
        best = there.argmax(axis=1)
        found = there[np.arange(len(here)), best]
        up = found > value[here]
        x[here[up]], value[here[up]] = trial[np.arange(len(here)), best][up], found[up]
        moved = (trial != x[here, None]).any(axis=2)
        with np.errstate(invalid="ignore"):  # inf - inf on a pole
            drop = np.where(moved, value[here, None] - there, 0.0).max(axis=1)
        least = step[here].max(axis=1) <= 2**-50 * np.maximum(np.abs(x[here]).max(axis=1), first[here].max(axis=1))
        level = drop < np.maximum(_FLAT, 1e-15 * np.abs(value[here]))
        settled = ~up & level & (step[here] <= first[here] / 64).all(axis=1)
        pole[here[(least & (drop > 0.01) & (drop < 2)) | (value[here] == np.inf)]] = True
        step[here] *= np.where(up, 2.0, 0.5)[:, None]
        moving[here[settled | least | (value[here] == np.inf)]] = False
    alive = value > -np.inf
    x, value, step, pole = x[alive], value[alive], step[alive], pole[alive]
    scale, peaked = _scales(log_q, x, value, step, low, high)
    return _distinct(Modes(x, value, scale, pole, peaked))


def candidates(
    log_q: Callable, shape: tuple[int, ...], low: np.ndarray, high: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where climbs should start, and their first steps, from a lattice over a box: (K, n) each, K <= 2 most.

    The largest of the lattice's local maxima, and those that stand out most from their neighbours.
    """
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    sides = [a + (b - a) * (np.arange(size) + 0.5) / size for a, b, size in zip(low, high, shape)]
    index = np.arange(int(np.prod(shape)))
    parts = np.array_split(index, max(1, len(index) // _CHUNK))
    values = np.concatenate([log_q(_nodes(sides, part)) for part in parts]).reshape(shape)
    values = np.clip(values, -1e300, 1e300)
    peak, ahead = values > -1e300, np.full(shape, -np.inf)
    for axis in range(len(shape)):
        near, far = ([_shifted(values, side * k, axis) for side in (-1, 1)] for k in (1, 2))
        peak &= (values >= near[0]) & (values >= near[1])
        # above what four neighbours on a line foretell, to fourth order
        ahead = np.maximum(ahead, values - (2 / 3) * (near[0] + near[1]) + (far[0] + far[1]) / 6)
    found = np.flatnonzero(peak)
    by_value, by_excess = (found[np.argsort(-key.ravel()[found], kind="stable")[:most]] for key in (values, ahead))
    start = _nodes(sides, np.union1d(by_value, by_excess))
    return start, np.broadcast_to((high - low) / shape, start.shape)


def _nodes(sides: list[np.ndarray], index: np.ndarray) -> np.ndarray:
    places = np.unravel_index(index, [len(side) for side in sides])
    return np.stack([side[place] for side, place in zip(sides, places)], axis=-1)


def _shifted(values: np.ndarray, by: int, axis: int) -> np.ndarray:
    """values[i + by], at the ends the last one."""
    places = np.clip(np.arange(values.shape[axis]) + by, 0, values.shape[axis] - 1)
    return values.take(places, axis=axis)


def _scales(log_q: Callable, x: np.ndarray, value: np.ndarray, step: np.ndarray, low, high):
    """Along each axis, the first of doubling steps at which the function has fallen by a half on one side: (K, n).

    And whether it has fallen visibly half way there, on the axis of the least: (K,).
    """
    result, peaked = np.empty_like(x), np.ones(len(x), dtype=bool)
    powers = 2.0 ** np.arange(-6, 64)
    rows, least = np.arange(len(x)), np.full(len(x), np.inf)
    for k in range(x.shape[1]):
        reach = step[:, k, None] * powers
        drop = np.zeros(reach.shape)
        for side in (-1, 1):
            there = np.repeat(x[:, None], len(powers), axis=1)
            there[..., k] = np.clip(there[..., k] + side * reach, low[k], high[k])
            with np.errstate(invalid="ignore"):
                fall = value[:, None] - log_q(there.reshape(-1, x.shape[1])).reshape(reach.shape)
            drop = np.fmax(drop, fall)
        fallen = drop >= 0.5
        first = np.where(fallen.any(axis=1), fallen.argmax(axis=1), len(powers) - 1)
        result[:, k] = reach[rows, first]
        gradual = (first == 0) | (drop[rows, np.maximum(first - 1, 0)] > 1e-3)
        peaked = np.where(result[:, k] < least, gradual, peaked)
        least = np.minimum(least, result[:, k])
    return result, peaked


def _distinct(modes: Modes) -> Modes:
    """Highest first, without those within the scale of a higher one."""
    modes = modes[np.argsort(-modes.values, kind="stable")]
    kept: list[int] = []
    for i in range(len(modes.values)):
        near = np.abs(modes.points[kept] - modes.points[i]) <= np.maximum(modes.scale[kept], 1e-300)
        same = np.abs(modes.values[kept] - modes.values[i]) < 0.5 if np.isfinite(modes.values[i]) else near.all(axis=1)
        if not (near.all(axis=1) & same).any():
            kept.append(i)
    return modes[np.array(kept, dtype=int)]
