"""What is asked of an equation: initial values, times and walls, read and checked, of moderate size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import capacity, checks
from ..geometry import Space
from ..grid import Grid
from ..norms import unit
from .backends import namespace
from .boundaries import Side, Walls, check_walls, read_boundary, sides
from .generator import Generator
from .grids import on_sphere, transfer
from .peaks import Peaks, find_peaks, scattered_in, wall_peaks
from .sources import Source, read_source, source_peaks
from .timing import SELDOM, Timing, asked_times, wall_timing

_BYTES = {1: 350, 2: 140, 3: 230}  # a cell, at least: what finite volumes take for one feature at one time
_INITIAL = "initial"
_FAINT, _MANY = 1e-100, 2**12  # sizes below which as many points are asked
_USUAL = 1e-100, 1e100  # sizes whose squares neither overflow nor vanish


@dataclass(frozen=True)
class Problem:
    """What is asked of an equation, once every argument is checked.

    Attributes
    ----------
    initial : callable or (*grid, c) array
        Features at time 0.
    sizes : (c,) array
        Of the columns, as a few points tell: their largest absolute values there.
    times : (T,) array
        Increasing, >= 0.
    walls : Walls
    ranges : tuple of (low, high), or None
        Where the equation is solved, up to the last time: on a line, where it is cut.
    backend : str
        Where fields are computed: "numpy" or "cupy".
    progress : bool
    peaks : tuple of Peaks
        Of the initial values, the equation, the walls and the source.
    mixed : bool
        Whether the equation mixes columns: one then leaves the range of its initial values.
    norm_name : str
        What errors are measured in, in words.
    source : Source or None
        What is added to dH/dt.
    timing : Timing
        Of walls that move.
    """

    initial: Callable | np.ndarray
    sizes: np.ndarray
    times: np.ndarray
    walls: Walls
    ranges: tuple[tuple[float, float], ...] | None = None
    backend: str = "numpy"
    progress: bool = False
    peaks: tuple[Peaks, ...] = ()
    mixed: bool = False
    norm_name: str = ""
    source: Source | None = None
    timing: Timing = Timing()

    @property
    def closed(self) -> bool:
        """Whether nothing comes in: features then keep between their first extrema, if columns are not mixed."""
        return self.source is None and not sides(self.walls)

    @property
    def columns(self) -> int:
        return len(self.sizes)

    @property
    def starts_narrow(self) -> bool:
        """Whether the initial values have such peaks."""
        return any(peaks.name == _INITIAL for peaks in self.peaks)

    def sample(self, grid: Grid) -> np.ndarray:
        """Initial values on a grid, (*grid, c); an array is interpolated at the grid's order."""
        capacity.fits(24 * grid.size * self.columns * len(self.times), "t")
        if callable(self.initial):
            values = checks.evaluate(self.initial, grid.points, "initial").astype(float)
            return values.reshape(*grid.shape, self.columns)
        sizes = self.initial.shape[:-1]
        source = replace(grid, axes=tuple(replace(axis, size=n) for axis, n in zip(grid.axes, sizes)))
        return transfer(self.initial[None], source, grid)[0]

    def at_times(self, times: np.ndarray, bound: bool) -> Problem:
        """Asked for other output times, for dense output; `bound` where its ranges reach to its last time only."""
        if bound and times[-1] > self.times[-1] * (1 + 1e-12):
            raise ValueError(f"t must be at most {self.times[-1]:g}, where the line was cut for that time, got {times[-1]:g}")
        return replace(self, times=times, progress=False)


def read_problem(
    generator: Generator,
    ranges_to: Callable,
    peaks_in: Callable,
    initial,
    t,
    shape: tuple[int, ...] | None,
    boundary,
    backend: str,
    progress: bool,
    source,
) -> Problem:
    """Check every argument; raises ValueError or TypeError naming the one at fault.

    `ranges_to` tells where the equation is solved up to a time, `peaks_in` the equation's peaks there.
    """
    namespace(checks.choice(backend, "backend", ("numpy", "cupy")))
    times, space = checks.output_times(t), generator.space
    walls = read_boundary(boundary, space)
    if callable(initial):
        known = checks.evaluate(initial, space.probe_points(), "initial")
        if (np.abs(known).max(axis=0) < _FAINT).any():  # a few points may meet tails alone
            known = checks.evaluate(initial, space.probe_points(_MANY), "initial")
        sizes = np.abs(known).max(axis=0).astype(float)
    else:
        initial = checks.array(initial, "initial", bools=True).astype(float)
        if initial.ndim == 0:
            raise TypeError(f"initial must be callable on points (..., n), or an array on the grid, got {initial}")
        if shape is None:
            raise ValueError(
                "grid must be given with an array of initial values: the number of cells, or one per axis; "
                "or give initial as a callable on points (N, n)"
            )
        initial = initial[..., None] if initial.ndim == len(shape) else initial
        if initial.shape[:-1] != shape or initial.size == 0:
            sizes = ", ".join(map(str, shape))
            raise ValueError(f"initial must have shape ({sizes}) or ({sizes}, c) on the grid, got {initial.shape}")
        sizes = np.abs(initial).max(axis=tuple(range(initial.ndim - 1)))
    if any(walls):
        check_walls(walls, space, len(sizes))
    ranges = ranges_to(times[-1])
    peaks: tuple[Peaks, ...] = ()
    if callable(initial):
        peaks = find_peaks(initial, _INITIAL, space, ranges, known)
        for found in peaks:
            sizes = np.maximum(sizes, np.abs(checks.evaluate(initial, found.points, _INITIAL)).max(axis=0))
    places, asked = scattered_in(space, ranges), asked_times(times)
    added = read_source(source, places, asked, sizes)
    if added is not None:
        spots = source_peaks(added, space, ranges, places, asked)
        if spots:
            added = read_source(source, np.concatenate([places, *(spot.points for spot in spots)]), asked, sizes)
        peaks += spots
    peaks += peaks_in(ranges) + wall_peaks(walls, space, ranges, places, len(sizes), asked[::SELDOM])
    timing = wall_timing(walls, space, places, peaks, len(sizes), asked)
    name = generator.norm_name
    return Problem(
        initial, sizes, times, walls, ranges, backend, bool(progress), peaks, norm_name=name, source=added, timing=timing
    )


def read_shape(grid: int | Sequence[int] | None, space: Space) -> tuple[int, ...] | None:
    """Cells per axis: an integer or one per axis, at least 3; on S^2 colatitudes and an even number of longitudes."""
    if grid is None:
        return None
    dim = space.dim
    around = on_sphere(space) and dim == 2
    sizes = tuple(grid) if checks.listed(grid) else (checks.integer(grid, "grid", least=3),) * dim
    if around and not checks.listed(grid):
        sizes = (sizes[0], 2 * sizes[0])
    if len(sizes) != dim:
        raise ValueError(f"grid must be the number of cells or one per axis ({dim}), got {checks.short(grid)}")
    sizes = tuple(checks.integer(n, "grid", least=3) for n in sizes)
    if around and sizes[1] % 2:
        raise ValueError(f"grid must have an even number of longitudes, got {sizes[1]}")
    capacity.fits(_BYTES[dim] * math.prod(sizes), "grid")
    return sizes


def moderated(problem: Problem) -> tuple[Problem, np.ndarray | None]:
    """The problem for columns of usual size, and the powers of two (c,) they are too small by; None if all are usual.

    Sizes are those of values at a few points, or of an array, and of walls' values that are numbers; one for all
    columns where an equation mixes them.
    """
    sizes = problem.sizes
    for side in sides(problem.walls):
        if not callable(side.value):
            sizes = np.maximum(sizes, np.abs(side.value))
    if problem.mixed:
        sizes = np.full_like(sizes, sizes.max())
    unusual = (sizes > 0) & ((sizes < _USUAL[0]) | (sizes > _USUAL[1]))
    if not unusual.any():
        return problem, None
    powers = np.where(unusual, unit(sizes[None], axis=0), 1.0)
    less = 1 / powers

    def scaled(side: Side | None) -> Side | None:
        return side and replace(side, value=times_powers(side.value, less))

    walls = tuple(pair and (scaled(pair[0]), scaled(pair[1])) for pair in problem.walls)
    source = problem.source and problem.source.scaled(powers)
    return replace(problem, initial=times_powers(problem.initial, less), walls=walls, source=source), powers


def times_powers(value, powers: np.ndarray):
    """A function, or an array (..., c), times a power of two per column."""
    return _Times(value, powers) if callable(value) else value * powers


@dataclass(frozen=True)
class _Times:
    """A function times powers of two per column."""

    function: Callable
    powers: np.ndarray

    @property
    def __wrapped__(self) -> Callable:  # whose arguments decide whether a wall's value moves
        return self.function

    def __call__(self, *arguments) -> np.ndarray:
        return self.function(*arguments) * self.powers
