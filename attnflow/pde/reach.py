"""Where a line is cut for a density wider than the invariant one: beyond all mass, that far out too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import checks
from ..geometry import Space
from ..solution import Solution
from .generator import Generator
from .grids import cell_grid

_GONE = 1e-16  # of the mass, in the cells next to a cut,
_LATER = 1e-12  # and at later times
_WIDENINGS = 40  # by a tenth to each side
_SAMPLED = 1024  # cells on which the first density is followed to its ends
_FAR, _RUNGS, _RAYS = (
    1e3,
    2000,
    64,
)  # of the cut's size: how far, at how many distances and along how many rays it is looked for


def reach(generator: Generator, initial: Callable, horizon: float) -> tuple[tuple[float, float], ...]:
    """Where a line is cut: beyond the invariant density's own cut, as far as the first density is found to have mass.

    Raises
    ------
    ValueError
        If that does not end.
    """
    ranges = generator.ranges(horizon)
    assert ranges is not None
    open_ends = np.isinf(generator.space.bounds[0])
    ranges = _with_far_mass(generator.space, initial, ranges)
    for _ in range(_WIDENINGS):
        grid = cell_grid(generator.space, (_SAMPLED,), ranges)
        rho = np.abs(checks.evaluate(initial, grid.points, "initial"))
        touched = (rho[[0, -1]] > _GONE * rho.sum(axis=0)).any(axis=1) & open_ends
        if not touched.any():
            return ranges
        ((low, high),) = ranges
        low, high = np.array([low, high]) + touched * (high - low) * np.array([-0.1, 0.1])
        ranges = ((float(low), float(high)),)
    raise ValueError(
        f"initial must fall off to nothing on a line, got {rho[[0, -1]].max():.3g} at the ends of [{low:.3g}, {high:.3g}]; "
        "use a density that does, or a Box"
    )


def _with_far_mass(space: Space, initial: Callable, ranges: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The range and every place beyond it where the first density is found to matter."""
    x, grid = outside(space, ranges), cell_grid(space, (_SAMPLED,), ranges)
    ((low, high),) = ranges
    middle, inside = (
        (low + high) / 2,
        np.abs(checks.evaluate(initial, grid.points, "initial")).sum(axis=0) * (high - low) / _SAMPLED,
    )
    mass = np.abs(checks.evaluate(initial, x, "initial")) * np.abs(x - middle)  # of a part about as wide as it is far
    far = x[(mass > _GONE * np.maximum(inside, mass.max(axis=0))).any(axis=1), 0]
    return ((float(min([low, *far])), float(max([high, *far]))),)


def outside(space: Space, ranges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Points (M, n) beyond the cuts of lines, on a geometric ladder of distances along rays: both ways in one dimension."""
    low, high = np.array(ranges).T
    rng, half = np.random.default_rng(0), (high - low) / 2
    rays = np.array([[-1.0], [1.0]]) if space.dim == 1 else rng.normal(size=(_RAYS, space.dim))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    steps = np.geomspace(1.0, _FAR, _RUNGS if space.dim == 1 else _RUNGS // _RAYS)[:, None, None]
    open_axes = np.isinf(np.array(space.bounds)).any(axis=1)
    x = (low + high) / 2 + half * np.where(open_axes, steps * rays, rng.uniform(-1, 1, (len(steps), *rays.shape)))
    x = x.reshape(-1, space.dim)
    bounds = np.array(space.bounds)
    return x[((x > bounds[:, 0]) & (x < bounds[:, 1])).all(axis=1) & ((x <= low) | (x >= high)).any(axis=1)]


def is_cut(solution: Solution) -> bool:
    """Whether at some time a cell next to a cut of the line has a part of the mass that matters."""
    assert solution.grid is not None
    ends = list(solution.grid.endless[0])
    share = np.abs(solution.y) / np.maximum(np.abs(solution.y).sum(axis=1, keepdims=True), 1e-300)
    return bool((share[:, [0, -1]][:, ends] > _LATER).any())


def wider(ranges: tuple[tuple[float, float], ...], space: Space) -> tuple[tuple[float, float], ...]:
    """With each cut of the line moved out by half."""
    ((low, high),) = ranges
    low, high = np.array([low, high]) + np.isinf(space.bounds[0]) * (high - low) * np.array([-0.5, 0.5])
    return ((float(low), float(high)),)
