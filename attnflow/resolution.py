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
from .grid import Axis, Grid, to_sphere

_POINTS = {1: 256, 2: 14, 3: 6}  # per axis
_SCATTERED = {1: 512, 2: 256, 3: 256}  # in all, where they follow a mass
_LOOK = {1: 2**16, 2: 2**8, 3: 2**5}  # per axis, where the usual points leave room for something narrow:
_CALM = 0.01  # half of them within this part of their range;
_NARROW = 0.02  # and what is seen then is a narrow peak on less than this share of the domain
_SQUARED = 1e-250  # means of squares within which nothing of them has vanished
_REMEMBERED = 2**10  # nodes of an axis up to which the way to the points between them is kept


def interpolation_error(
    function: Callable | np.ndarray,
    grid: Grid,
    values: np.ndarray,
    name: str = "function",
    points: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """How far the interpolant of samples is from what was sampled, each column by itself.

    Parameters
    ----------
    function : callable or (M, c) array
        Points (M, n) -> (M,) or (M, c); or its values there, where they are known.
    grid : Grid
    values : (*grid.shape, c) or (grid.size, c) array
        The function at the grid's points.
    name : str
        What to call the function in messages.
    points : (M, n) array, optional
        Where to compare; `between(grid)` when absent.
    weights : (M,) or (M, c) array, optional
        Of the points, in both means below; all the same when absent.

    Returns
    -------
    (c,) array
        Root mean square of the difference over that of the function, there or at the nodes, whichever is larger; 0 for
        a column that vanishes. With weights, over that of the function there.

    Examples
    --------
    >>> from attnflow.grid import Axis
    >>> grid = Grid((Axis("fourier", 64, 0.0, 2 * np.pi),))
    >>> wave = lambda x: np.cos(np.outer(x[:, 0], [3, 64]))     # the second is 1 at every node
    >>> interpolation_error(wave, grid, wave(grid.points)) > 0.1
    array([False,  True])
    """
    values = values.reshape(*grid.shape, -1)
    if callable(function):
        there = checks.evaluate(function, between(grid) if points is None else points, name)
    else:
        there = function
    here = _at_points_between(grid, values) if points is None else grid.interpolate(values, points)
    nodes = values.reshape(grid.size, -1)
    if weights is not None:
        weights = weights.reshape(len(there), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        size, missed = _squares(there, here, nodes, weights)
    if not _SQUARED < size.min() <= size.max() < 1 / _SQUARED:  # they overflow or vanish
        top = np.maximum(np.abs(np.concatenate([there, here])).max(axis=0), np.abs(nodes).max(axis=0))
        top = np.where(top > 0, top, 1.0)
        size, missed = _squares(there / top, here / top, nodes / top, weights)
    return np.sqrt(missed / np.where(size > 0, size, 1.0))


def _squares(there: np.ndarray, here: np.ndarray, nodes: np.ndarray, weights: np.ndarray | None):
    """Of the function and of the difference, summed over points or weighted by them, (c,) each."""
    gap = here - there
    if weights is None:
        return np.maximum(_mean_square(there), _mean_square(nodes)), _mean_square(gap)
    return np.sum(weights * there**2, axis=0), np.sum(weights * gap**2, axis=0)


def narrow_peaks(function: Callable, grid: Grid, known: np.ndarray, name: str = "function") -> np.ndarray | None:
    """Points (M, columns) on peaks that grids, and the points between their nodes, may miss; None if there are none.

    The look is close, and only taken where some column of the values `known` at a few scattered points leaves room for
    such a peak: where half of them are all but the same. One that stands on a wave is not found.

    Examples
    --------
    >>> from attnflow.grid import Axis
    >>> grid = Grid((Axis("fourier", 64, 0.0, 2 * np.pi),))
    >>> peak = lambda x: np.exp(-((x - 1) ** 2) / 2e-8)             # 1e-4 wide
    >>> points = narrow_peaks(peak, grid, peak(np.arange(6.0)[:, None] + 0.5))
    >>> bool(np.all(abs(points - 1) < 3e-4))
    True
    """
    ordered = np.sort(known / 2, axis=0)  # whose differences do not overflow
    room = ordered[3 * len(known) // 4] - ordered[len(known) // 4] <= _CALM * (ordered[-1] - ordered[0])
    if not room.any():
        return None
    dim = min(len(grid.axes), 3)
    unit = np.stack(np.meshgrid(*(jittered(_LOOK[dim], 10 + k) for k in range(dim)), indexing="ij"), axis=-1).reshape(-1, dim)
    values = checks.evaluate(function, _from_unit(grid, unit), name)
    narrow = np.flatnonzero(room & (values != values[0]).any(axis=0) & (_carriers(values) < _NARROW * len(unit)))
    found = []
    for j in narrow:
        usual = np.median(values[:, j])
        places, heights = [unit], [abs(values[:, j] - usual)]
        for step in range(12):  # uphill
            best = max(zip(places, heights), key=lambda pair: pair[1].max())
            best = best[0][best[1].argmax()]
            spread = np.random.default_rng([20260, step]).uniform(-1, 1, (256, dim)) / (_LOOK[dim] * 2**step)
            places.append(np.clip(best + spread, 0, 1))
            heights.append(abs(checks.evaluate(function, _from_unit(grid, places[-1]), name)[:, j] - usual))
        height = np.concatenate(heights)
        high = np.flatnonzero(height > height.max() / 10)
        rising = high[np.argsort(height[high])]  # most are on the top, where a node may be by chance: as many on the slopes
        slopes = rising[np.searchsorted(height[rising], height.max() * np.linspace(0.1, 1, 64)).clip(max=len(high) - 1)]
        found.append(np.concatenate(places)[np.union1d(slopes, high[:: len(high) // 64 + 1])])
    return _from_unit(grid, np.concatenate(found)) if found else None


def _carriers(values: np.ndarray) -> np.ndarray:
    """How many of the values (N, c) make up what a column has beside its median."""
    gap = abs(values - np.median(values, axis=0))
    gap = gap / np.where(gap.any(axis=0), gap.max(axis=0), 1.0)
    return gap.sum(axis=0) ** 2 / np.maximum((gap**2).sum(axis=0), 0.5)


def _mean_square(fields: np.ndarray) -> np.ndarray:
    return np.einsum("mc,mc->c", fields, fields) / len(fields)


@lru_cache(maxsize=32)
def between(grid: Grid) -> np.ndarray:
    """Read-only points (M, columns) of the grid's domain that no grid shares: a few hundred, every combination of some per axis."""
    mesh = np.meshgrid(*(_coordinates(axis, len(grid.axes), k) for k, axis in enumerate(grid.axes)), indexing="ij")
    points = np.stack([x.ravel() for x in mesh], axis=-1)
    points = to_sphere(points) if grid.sphere else points
    points.flags.writeable = False
    return points


def among(grid: Grid, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn half by volume and half by mass, so that narrow ones are not missed; the same every time.

    Parameters
    ----------
    grid : Grid
        Of cells, or equispaced.
    mass : (grid.size,) array
        Not negative, of any sum.

    Returns
    -------
    points : (M, columns) array
    shares : (M, 2) array
        Weights of the points in a mean over the volume, and in one over the mass.
    """
    parts = np.stack([grid.weights / grid.weights.sum(), mass / mass.sum()], axis=1)
    both = parts.sum(axis=1)
    cumulative = np.cumsum(both)
    draw, spread = _draws(min(len(grid.axes), 3))
    cells = np.minimum(np.searchsorted(cumulative, draw * cumulative[-1], side="right"), grid.size - 1)
    places = zip(grid.axes, np.unravel_index(cells, grid.shape), spread)
    points = np.stack([axis.nodes[k] + axis.spacing * x for axis, k, x in places], axis=1)
    return to_sphere(points) if grid.sphere else points, 2 * parts[cells] / both[cells, None]


@lru_cache
def _draws(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """What draws cells (M,), and where in its cell each point is, in spacings from the middle (dim, M)."""
    count = _SCATTERED[dim]
    return jittered(count, 0), np.random.default_rng([20260, count, dim]).random((dim, count)) - 0.5


def _at_points_between(grid: Grid, values: np.ndarray) -> np.ndarray:
    """The interpolant of (*shape, c) there, (M, c), axis by axis."""
    axes, values = grid.unrolled(values)
    columns, done = values.shape[-1], 1
    for k, axis in enumerate(axes):
        build = _matrix if axis.size <= _REMEMBERED else _matrix.__wrapped__
        matrix = build(grid.axes[k], axis, len(axes), k)
        if len(axes) == 1:
            return np.asarray(matrix @ values)
        values = matrix @ values.reshape(done, axis.size, -1)
        done *= len(matrix)
    return values.reshape(-1, columns)


@lru_cache(maxsize=32)
def _matrix(axis: Axis, unrolled: Axis, dim: int, k: int):
    """Interpolation to the points between along axis k of dim; dense beyond one dimension."""
    matrix = unrolled.interpolation(_coordinates(axis, dim, k))
    return matrix.toarray() if dim > 1 and not isinstance(matrix, np.ndarray) else matrix


def _coordinates(axis: Axis, dim: int, k: int) -> np.ndarray:
    """Those of the points between along axis k of dim; evenly over the sphere's area in colatitude."""
    return _stretched(axis, jittered(_POINTS[min(dim, 3)], k))


def _stretched(axis: Axis, unit: np.ndarray) -> np.ndarray:
    return np.arccos(1 - 2 * unit) if axis.kind == "colatitude" else axis.low + (axis.high - axis.low) * unit


def _from_unit(grid: Grid, unit: np.ndarray) -> np.ndarray:
    points = np.stack([_stretched(axis, x) for axis, x in zip(grid.axes, unit.T)], axis=1)
    return to_sphere(points) if grid.sphere else points


@lru_cache(maxsize=16)
def jittered(count: int, stream: int) -> np.ndarray:
    """One number in each of `count` equal parts of the unit interval, increasing and read-only; others per stream."""
    points = (np.arange(count) + np.random.default_rng([20260, stream]).random(count)) / count
    points.flags.writeable = False
    return points
