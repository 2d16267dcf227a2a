"""What is asked of a solver once every argument is checked, and how its answer is reported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .. import capacity, checks
from ..geometry import Space
from ..grid import Grid
from ..resolution import interpolation_error, narrow_peaks
from ..solution import Solution
from .boundaries import Walls, check_walls, read_boundary
from .coefficients import build_grid, error_weights, on_sphere, transfer
from .finite_volume import KINDS
from .pointwise import pointwise_error

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_BYTES = {1: 350, 2: 140, 3: 230}  # a cell, at least: what finite volumes take for one feature at one time
_FAINT, _MANY = 1e-100, 2**12  # sizes below which as many points are asked
_STEPS = 0.01  # of rtol is left to the integration in time, which a comparison of grids does not see


@dataclass(frozen=True)
class Problem:
    """Initial values, output times and walls.

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
    peaks : (M, columns) array or None
        Points on narrow peaks of the initial values, which a grid has to see.
    """

    initial: Callable | np.ndarray
    sizes: np.ndarray
    times: np.ndarray
    walls: Walls
    ranges: tuple[tuple[float, float], ...] | None = None
    backend: str = "numpy"
    progress: bool = False
    peaks: np.ndarray | None = None

    @property
    def columns(self) -> int:
        return len(self.sizes)

    def missed_peaks(self, grid: Grid, values: np.ndarray, points: np.ndarray | None = None) -> float:
        """Error of the interpolant of initial values (*grid, c) on those peaks, relative to what stands out there.

        `points` are the peaks in the coordinates of the grid, where these are others.
        """
        if self.peaks is None:
            return 0.0
        usual = np.median(values.reshape(grid.size, -1), axis=0)
        there = checks.evaluate(self.initial, self.peaks, "initial")
        return float(interpolation_error(there - usual, grid, values - usual, points=self.peaks if points is None else points).max())

    def sample(self, grid: Grid) -> np.ndarray:
        """Initial values on a grid, (*grid, c); an array is interpolated at the grid's order."""
        capacity.fits(24 * grid.size * self.columns * len(self.times), "t")
        if callable(self.initial):
            values = checks.evaluate(self.initial, grid.points, "initial").astype(float)
            return values.reshape(*grid.shape, self.columns)
        sizes = self.initial.shape[:-1]
        source = replace(grid, axes=tuple(replace(axis, size=n) for axis, n in zip(grid.axes, sizes)))
        return transfer(self.initial[None], source, grid)[0]


def read_problem(
    pde: DriftDiffusion, initial, t, shape: tuple[int, ...] | None, boundary, backend: str, progress: bool
) -> Problem:
    """Check every argument; raises ValueError or TypeError naming the one at fault."""
    namespace(checks.choice(backend, "backend", ("numpy", "cupy")))
    times, space = checks.output_times(t), pde.space
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
    ranges, peaks = pde.ranges(times[-1]), None
    if callable(initial):
        peaks = narrow_peaks(initial, build_grid(space, KINDS, (8,) * space.dim, ranges), known, "initial")
        if peaks is not None:
            sizes = np.maximum(sizes, np.abs(checks.evaluate(initial, peaks, "initial")).max(axis=0))
    return Problem(initial, sizes, times, walls, ranges, backend, bool(progress), peaks)


def namespace(backend: str):
    """The arrays' module, numpy or cupy.

    Raises
    ------
    ImportError, RuntimeError
        If CuPy is not installed, or finds no device.
    """
    if backend == "numpy":
        return np
    try:
        import cupy
    except ImportError:
        raise ImportError("backend 'cupy' needs CuPy: pip install 'attnflow[gpu]'") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own error classes need a driver to be told apart
        raise RuntimeError(f"backend 'cupy' needs a CUDA device and its driver: {error}") from None
    if not count:
        raise RuntimeError("backend 'cupy' needs a CUDA device, found none")
    return cupy


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


def finished(
    pde: DriftDiffusion, problem: Problem, fields: np.ndarray, grid: Grid, rtol: float | None, stats: dict,
    mass: np.ndarray | None = None, dense: Callable | None = None, mean: np.ndarray | None = None,
) -> Solution:
    """The Solution, which says so when its estimated error exceeds rtol (None: the user chose the grid).

    Its stats monitor each output time: the weighted `mean`, conserved without Dirichlet walls, and the
    `deviation` from it, the root weighted mean square, zero in the steady state.
    """
    error, status, message = stats["estimated_error"], 0, "finished"
    if not np.isfinite(fields).all() or not np.isfinite(error):
        status, message = -1, "the linear solves overflowed: p^drift changes too fast for this grid; use more cells"
    elif rtol is None:
        message = f"finished on the given grid; estimated relative error {error:.1g} in {pde.norm_name}"
    elif error > rtol:
        message = (
            f"estimated relative error {error:.1g} in {pde.norm_name}, on the finest grid {stats['grid']}, above rtol = "
            f"{rtol:g}: initial or the density is not smooth enough; pass a larger rtol, smoother data, or a grid to "
            "accept its error"
        )
    if status or (rtol is not None and error > rtol):
        warnings.warn(message, checks.AccuracyWarning, stacklevel=5)
    if rtol is not None:
        error = max(error, _STEPS * min(rtol, 1e-4))
        if not status and stats["integrator"] != "eigenvectors":
            stats = {**stats, "estimated_error": error}
    mass = error_weights(pde, grid) if mass is None else mass
    flat = fields.reshape(len(fields), grid.size, -1)
    mean = np.einsum("i,tic->tc", mass, flat) if mean is None else mean
    deviation = np.sqrt(np.einsum("i,tic->tc", mass, (flat - mean[:, None]) ** 2))
    stats = {**stats, "mean": mean.tolist(), "deviation": deviation.tolist()}
    return Solution(
        problem.times, fields, grid=grid, status=status, message=message, stats=stats,
        embedding=embedded(pde.space, grid), dense=dense,
        local_error=None if status else partial(pointwise_error, pde, problem, fields, grid, error, mass),
    )  # fmt: skip


def later(problem: Problem, times: np.ndarray, bound: bool) -> Problem:
    """The problem with other output times, for dense output; `bound` where its ranges reach to its last time only."""
    if bound and times[-1] > problem.times[-1] * (1 + 1e-12):
        raise ValueError(f"t must be at most {problem.times[-1]:g}, where the line was cut for that time, got {times[-1]:g}")
    return replace(problem, times=times, progress=False)


def interrupted(times: np.ndarray, fields: np.ndarray, grid: Grid, stats: dict) -> Solution:
    """What was computed before the keyboard interrupt."""
    error = stats["estimated_error"]
    known = f"estimated relative error {error:.1g} in the weighted norm on grid {stats['grid']}"
    how_far = known if np.isfinite(error) else "error unknown"
    message = f"interrupted at t = {times[-1]:.4g}: {how_far}"
    return Solution(times, fields, grid=grid, status=1, message=message, stats=stats)


def embedded(space: Space, grid: Grid) -> np.ndarray | None:
    """Where the grid's nodes sit in the plane or in space, for pictures; None for the coordinates themselves."""
    embedding = getattr(space, "embedding", None)
    if embedding is None:
        return None
    nodes = np.asarray(embedding(grid.points), dtype=float)
    return nodes if nodes.shape[-1] in (2, 3) else None
