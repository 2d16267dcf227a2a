"""Whether samples on a grid say all there is to say: the interpolant against the function itself, between the nodes.

Grids that share a factor see the same alias: cos 64x is a constant on 64 nodes and on 128. Whoever decides from
samples how finely to sample asks here, at points no grid has in common with another: one drawn at random, but the same
every time, in each of many equal cells, so that neither a wave nor a feature wider than two cells can hide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from . import checks
from .grid import Grid, to_sphere

POINTS = 256


def interpolation_error(
    function: Callable, grid: Grid, values: np.ndarray, name: str = "function", points: np.ndarray | None = None
) -> np.ndarray:
    """How far the interpolant of samples is from what was sampled, each column by itself.

    Parameters
    ----------
    function : callable
        Points (M, n) -> (M,) or (M, c).
    grid : Grid
    values : (*grid.shape, c) or (grid.size, c) array
        The function at the grid's points.
    name : str
        What to call the function in messages.
    points : (M, n) array, optional
        Where to compare; `between(grid)` when absent.

    Returns
    -------
    (c,) array
        Root mean square of the difference over that of the function at nodes and points; 0 for a column that vanishes.

    Examples
    --------
    >>> from attnflow.grid import Axis
    >>> grid = Grid((Axis("fourier", 64, 0.0, 2 * np.pi),))
    >>> wave = lambda x: np.cos(np.outer(x[:, 0], [3, 64]))     # the second is 1 at every node
    >>> interpolation_error(wave, grid, wave(grid.points)) > 0.1
    array([False,  True])
    """
    points = between(grid) if points is None else points
    there = checks.evaluate(function, points, name)
    values = values.reshape(grid.size, -1)
    gap = grid.interpolate(values.reshape(*grid.shape, -1), points) - there
    scale = np.maximum(np.sqrt(np.mean(there**2, axis=0)), np.sqrt(np.mean(values**2, axis=0)))
    return np.sqrt(np.mean(gap**2, axis=0)) / np.where(scale > 0, scale, 1.0)


def between(grid: Grid, count: int = POINTS) -> np.ndarray:
    """About `count` points (M, columns) of the grid's domain that no grid shares."""
    low, high = np.array([(axis.low, axis.high) for axis in grid.axes]).T
    unit = jittered(count, len(grid.axes))
    if grid.axes[0].kind == "colatitude":  # evenly over the sphere's area
        unit = np.column_stack([np.arccos(1 - 2 * unit[:, 0]) / np.pi, unit[:, 1]])
    points = low + (high - low) * unit
    return to_sphere(points) if grid.sphere else points


@lru_cache(maxsize=16)
def jittered(count: int, dim: int) -> np.ndarray:
    """One point in each of round(count^(1/dim))^dim equal cells of the unit cube, read-only (M, dim)."""
    size = max(1, round(count ** (1 / dim)))
    corner = np.indices((size,) * dim).reshape(dim, -1).T
    points = (corner + np.random.default_rng(20260).random(corner.shape)) / size
    points.flags.writeable = False
    return points
