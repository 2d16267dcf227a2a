"""What is asked of a solver once every argument is checked, and how its answer is reported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import checks
from ..geometry import Space
from ..grid import Grid
from ..solution import Solution
from .boundaries import Walls, check_walls, read_boundary
from .coefficients import transfer


@dataclass(frozen=True)
class Problem:
    """Initial values, output times and walls.

    Attributes
    ----------
    initial : callable or (*grid, c) array
        Features at time 0.
    columns : int
        c.
    times : (T,) array
        Increasing, >= 0.
    walls : Walls
    """

    initial: Callable | np.ndarray
    columns: int
    times: np.ndarray
    walls: Walls

    def sample(self, grid: Grid) -> np.ndarray:
        """Initial values on a grid, (*grid, c); an array is interpolated at the grid's order."""
        if callable(self.initial):
            values = checks.evaluate(self.initial, grid.points, "initial").astype(float)
            return values.reshape(*grid.shape, self.columns)
        sizes = self.initial.shape[:-1]
        source = Grid(tuple(replace(axis, size=n) for axis, n in zip(grid.axes, sizes)))
        return transfer(self.initial[None], source, grid)[0]


def read_problem(initial, t, shape: tuple[int, ...] | None, boundary, space: Space) -> Problem:
    """Check every argument; raises ValueError or TypeError naming the one at fault."""
    times = checks.output_times(t)
    walls = read_boundary(boundary, space)
    if callable(initial):
        columns = checks.evaluate(initial, space.probe_points(), "initial").shape[1]
    else:
        initial = checks.array(initial, "initial").astype(float)
        if shape is None:
            raise ValueError(
                "grid must be given with an array of initial values: the number of cells, or one per axis; "
                "or give initial as a callable on points (N, n)"
            )
        initial = initial[..., None] if initial.ndim == len(shape) else initial
        if initial.shape[:-1] != shape or initial.size == 0:
            sizes = ", ".join(map(str, shape))
            raise ValueError(f"initial must have shape ({sizes}) or ({sizes}, c) on the grid, got {initial.shape}")
        columns = initial.shape[-1]
    check_walls(walls, space, columns)
    return Problem(initial, columns, times, walls)


def read_shape(grid: int | Sequence[int] | None, dim: int) -> tuple[int, ...] | None:
    """Cells per axis: an integer or one per axis, at least 3."""
    if grid is None:
        return None
    sizes = (grid,) * dim if np.ndim(grid) == 0 else tuple(grid)
    if len(sizes) != dim:
        raise ValueError(f"grid must be the number of cells or one per axis ({dim}), got {grid!r}")
    return tuple(checks.integer(n, "grid", least=3) for n in sizes)


def finished(times: np.ndarray, fields: np.ndarray, grid: Grid, rtol: float | None, stats: dict) -> Solution:
    """The Solution, which says so when its estimated error exceeds rtol (None: the user chose the grid)."""
    error, status, message = stats["estimated_error"], 0, "finished"
    if not np.isfinite(fields).all() or not np.isfinite(error):
        status, message = -1, "the linear solves overflowed: p^drift changes too fast for this grid; use more cells"
    elif rtol is None:
        message = f"finished on the given grid; estimated relative error {error:.1g}"
    elif error > rtol:
        message = (
            f"estimated relative error {error:.1g} on the finest grid {stats['grid']}, above rtol = {rtol:g}: initial "
            "or the density is not smooth enough; pass a larger rtol, smoother data, or a grid to accept its error"
        )
    if status or (rtol is not None and error > rtol):
        warnings.warn(message, checks.AccuracyWarning, stacklevel=4)
    return Solution(t=times, y=fields, grid=grid, status=status, message=message, stats=stats)
