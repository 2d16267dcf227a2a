"""What acts for a part of the time: asked for beforehand, since a solver that has seen nothing takes ever longer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import Space
from .boundaries import Walls, wall_places
from .peaks import Peaks, on_wall

SELDOM = 25  # of the times at which it is asked what moves, one in so many at which that is searched for peaks
_TIMES = 300  # at which it is asked whether it changes
_SAME = 1e-12  # relative change that is rounding
_STEPS = 64  # of a solver at least, where it does
_JUMPS, _HALVINGS = 0.05, 40  # of all its changes, from one time to the next: a jump, if halving the time leaves half of it


@dataclass(frozen=True)
class Timing:
    """What a solver has to know of something that changes in time.

    Attributes
    ----------
    jumps : tuple of (before, after)
        Times between which it was seen to jump, increasing.
    longest_step : float
        That a solver may take.
    """

    jumps: tuple[tuple[float, float], ...] = ()
    longest_step: float = np.inf

    def beside(self, other: Timing) -> Timing:
        """That of both together."""
        jumps: list[tuple[float, float]] = []
        for before, after in sorted(self.jumps + other.jumps):
            if jumps and before <= jumps[-1][1]:
                before, after = jumps[-1][0], max(after, jumps.pop()[1])
            jumps.append((before, after))
        return Timing(tuple(jumps), min(self.longest_step, other.longest_step))


def asked_times(times: np.ndarray) -> np.ndarray:
    """Output times and those between at which one asks: jittered, no whole fractions of the last."""
    even = (np.arange(1, _TIMES - 1) + np.random.default_rng(0).uniform(-0.5, 0.5, _TIMES - 2)) / (_TIMES - 1)
    return np.unique(np.concatenate([[0.0], times[-1] * even, times]))


def timing_of(function: Callable[[float], np.ndarray], times: np.ndarray) -> Timing:
    """Of a function of time to (M, c), as far as it shows at increasing times."""
    values = [function(t) for t in times]
    sizes = np.max([np.abs(value).max(axis=0) for value in values], axis=0)
    sizes = np.where(sizes > 0, sizes, 1.0)

    def change(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(b / sizes - a / sizes).max())

    changes = [change(a, b) for a, b in zip(values, values[1:])]
    if max(changes, default=0.0) <= _SAME:
        return Timing()
    jumps = []
    for k in np.flatnonzero(np.array(changes) > _JUMPS * max(change(values[0], v) for v in values)):
        (before, after), (a, b) = times[k : k + 2].tolist(), values[k : k + 2]
        for _ in range(_HALVINGS):
            between = (before + after) / 2
            value = function(between)
            left = change(a, value) > change(value, b)
            before, after, a, b = (before, between, a, value) if left else (between, after, value, b)
            if change(a, b) < changes[k] / 2:
                break
        else:
            jumps.append((before, after))
    return Timing(tuple(jumps), float(times[-1]) / _STEPS)


def wall_timing(
    walls: Walls, space: Space, places: np.ndarray, peaks: Sequence[Peaks], columns: int, times: np.ndarray
) -> Timing:
    """Of what is said of walls that move, at the points (M, n) and on the peaks there."""
    asked = []
    for k, end, side in wall_places(walls, space):
        if side.moves:
            on_peaks = [found.points for found in peaks if found.wall == (k, end)]
            asked.append((side, np.concatenate([on_wall(np.delete(places, k, axis=1), k, end), *on_peaks])))
    if not asked:
        return Timing()
    most = max(len(points) for _, points in asked)
    asked = [(side, np.resize(points, (most, space.dim))) for side, points in asked]
    return timing_of(lambda t: np.concatenate([side.at(points, columns, t) for side, points in asked], axis=1), times)
