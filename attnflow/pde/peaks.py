"""Narrow peaks of what an equation, its walls and its initial values are made of: a grid that misses one knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import checks
from ..geometry import Space
from ..grid import Grid
from ..resolution import between, interpolation_error, narrow_peaks
from .boundaries import COEFFICIENT, Robin, Side, Walls, wall_places
from .grids import cell_grid

HALF_SEEN = 0.1  # error on a peak from which on the solution says nothing of it


@dataclass(frozen=True)
class Peaks:
    """Points where a grid has to see a function: on its narrow peaks, or all along a wall.

    Attributes
    ----------
    function : callable
        Points (M, columns) -> (M,) or (M, c).
    name : str
        What to call it in messages.
    points : (M, columns) array
    wall : (int, float) or None
        Axis and coordinate of the wall the function is of, where all points are.
    size : float
        Peaks lower than that matter by so much less: of logarithms 1. 0: however low they are.
    """

    function: Callable
    name: str
    points: np.ndarray
    wall: tuple[int, float] | None = None
    size: float = 0.0

    def missed(self, grid: Grid, places: Callable | None = None, turned: Callable | None = None) -> float:
        """Error of the function's interpolant on the peaks, relative to what stands out there.

        Where the grid has other coordinates than points have, `places` are the points of some of the former, and `turned`
        the coordinates of some of the latter.
        """
        grid = _along(grid, self.wall)
        nodes, points = grid.points, self.points if turned is None else turned(self.points)
        if self.wall is not None:
            nodes, points = on_wall(nodes, *self.wall), np.delete(points, self.wall[0], axis=1)
        values = checks.evaluate(self.function, nodes if places is None else places(nodes), self.name)
        usual = np.median(values, axis=0)
        there = checks.evaluate(self.function, self.points, self.name) - usual
        error = interpolation_error(there, grid, values - usual, points=points)
        if self.size:
            error = error * np.minimum(1.0, np.sqrt(np.mean(there**2, axis=0)) / self.size)
        return float(error.max())


def find_peaks(
    function: Callable,
    name: str,
    space: Space,
    ranges: tuple[tuple[float, float], ...] | None,
    known: np.ndarray,
    wall: tuple[int, float] | None = None,
    size: float = 0.0,
) -> tuple[Peaks, ...]:
    """Those of a function that is `known` at a few points, or none."""
    grid = cell_grid(space, (8,) * space.dim, ranges)
    if wall is None:
        points = narrow_peaks(function, grid, known, name)
    else:
        points = narrow_peaks(lambda x: function(on_wall(x, *wall)), _along(grid, wall), known, name)
        points = None if points is None else on_wall(points, *wall)
    return () if points is None else (Peaks(function, name, points, wall, size),)


def scattered_in(space: Space, ranges: tuple[tuple[float, float], ...] | None) -> np.ndarray:
    """A few points (M, columns), everywhere on the ranges, at which functions tell what is usual."""
    places = space.probe_points()
    if ranges is None:
        return places
    return space.from_unit_cube(np.random.default_rng(0).random((len(places), space.dim)), ranges)


def missed_peaks(peaks: Sequence[Peaks], grid: Grid, places: Callable | None = None, turned: Callable | None = None) -> float:
    """The largest error on any of the peaks: see `Peaks.missed`."""
    return max((found.missed(grid, places, turned) for found in peaks), default=0.0)


def unseen(peaks: Sequence[Peaks], grid: Grid) -> float:
    """The same where the grid sees less than half of one; 0 where two grids that differ can tell."""
    error = missed_peaks(peaks, grid)
    return error if error > HALF_SEEN else 0.0


def on_wall(x: np.ndarray, axis: int, end: float) -> np.ndarray:
    """Points (M, n) of a wall from their coordinates along it (M, n - 1)."""
    return np.insert(x, axis, end, axis=1)


def _along(grid: Grid, wall: tuple[int, float] | None) -> Grid:
    """The grid, or that of a wall of it."""
    if wall is None:
        return grid
    return Grid(tuple(axis for k, axis in enumerate(grid.axes) if k != wall[0]))


def wall_peaks(
    walls: Walls,
    space: Space,
    ranges: tuple[tuple[float, float], ...] | None,
    places: np.ndarray,
    columns: int,
    times: np.ndarray,
) -> tuple[Peaks, ...]:
    """Those of what is said of the walls, at a few times where that moves; the points (M, n) tell what is usual.

    Where there are none, points everywhere: a wall is not part of what is asked between the nodes.
    """
    found: list[Peaks] = []
    for k, end, side in wall_places(walls, space) if space.dim > 1 else ():
        known = on_wall(np.delete(places, k, axis=1), k, end)
        everywhere = on_wall(between(_along(cell_grid(space, (8,) * space.dim, ranges), (k, end))), k, end)
        said: list[tuple[Callable, str]] = []
        if callable(side.value):
            said += [(partial(_value, side, columns, float(t)), side.name) for t in (times if side.moves else times[:1])]
        if isinstance(side, Robin) and callable(side.coefficient):
            said.append((side.coefficient_at, COEFFICIENT))
        for function, name in said:
            usual = checks.evaluate(function, known, name)
            found += find_peaks(function, name, space, ranges, usual, (k, end)) or (
                Peaks(function, name, everywhere, (k, end)),
            )
    return tuple(found)


def _value(side: Side, columns: int, t: float, x: np.ndarray) -> np.ndarray:
    return side.at(x, columns, t)
