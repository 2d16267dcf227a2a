"""How an answer is reported: a Solution that says how accurate it is, and where it may be less so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .. import checks
from ..grid import Grid
from ..solution import Solution
from .generator import Generator
from .grids import embedded, steepness, weighted_norm
from .peaks import unseen
from .problem import Problem, times_powers

_STEPS = 0.01  # of rtol is left to the integration in time, which a comparison of grids does not see
_COARSE = 4.0  # change of log w per cell of a given grid that is warned of,
_NEGLIGIBLE = 1e-8  # where w is more than this part of its maximum
_ROUNDOFF = 1e-16
_GATHERED = 2.0  # errors are not spread as the norm's mean has them
_UNKNOWN = 1e300  # finite, for files and for interpolation
_MONITORS = ("mean", "deviation")


def report(
    generator: Generator,
    problem: Problem,
    fields: np.ndarray,
    grid: Grid,
    rtol: float | None,
    stats: dict,
    mass: np.ndarray | None = None,
    dense: Callable | None = None,
    mean: np.ndarray | None = None,
) -> Solution:
    """The Solution, which says so when its estimated error exceeds rtol (None: the user chose the grid).

    Its stats monitor each output time: the weighted `mean`, conserved where all walls are no-flux and nothing is added, and the
    `deviation` from it, the root weighted mean square, zero in the steady state.
    """
    error, status, message = stats["estimated_error"], 0, "finished"
    if not np.isfinite(fields).all() or not np.isfinite(error):
        status, message = -1, "the linear solves overflowed: p^drift changes too fast for this grid; use more cells"
    elif rtol is None:
        message = f"finished on the given grid; estimated relative error {error:.1g} in {problem.norm_name}"
    elif error > rtol:
        lost = stats.get("round_off", 0.0)
        hidden = dict.fromkeys(peaks.name for peaks in problem.peaks if unseen([peaks], grid))
        data = (
            f"it does not see a narrow peak of {' and '.join(hidden)}"
            if hidden
            else "initial, a wall or the density is not smooth enough"
        )
        why = (
            f"rounding errors of L by that time may take {lost:.1g}; pass a larger rtol or an earlier t"
            if lost > rtol and 2 * lost > error
            else f"{data}; pass a larger rtol, smoother data, or a grid to accept its error"
        )
        message = (
            f"estimated relative error {error:.1g} in {problem.norm_name}, on the finest grid {stats['grid']}, above rtol = "
            f"{rtol:g}: {why}"
        )
    if status or (rtol is not None and error > rtol):
        checks.warn(message, checks.AccuracyWarning)
    if rtol is not None:
        error = max(error, _STEPS * min(rtol, 1e-4))
        if not status and stats["integrator"] != "eigenvectors":
            stats = {**stats, "estimated_error": error}
    mass = generator.error_weights(grid) if mass is None else mass
    flat = fields.reshape(len(fields), grid.size, -1)
    monitors = moments(mass, flat, mean)
    stats = {**stats, **{name: values.tolist() for name, values in monitors.items()}}
    return Solution(
        problem.times, fields, grid=grid, status=status, message=message, stats=stats,
        embedding=embedded(generator.space, grid), dense=dense,
        local_error=None if status else partial(pointwise_error, generator, problem, fields, grid, error, mass),
    )  # fmt: skip


def moments(mass: np.ndarray, fields: np.ndarray, mean: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The weighted mean of fields (T, n, c), or the one that is known better, and the deviation from it: each (T, c)."""
    mean = np.einsum("i,tic->tc", mass, fields) if mean is None else mean
    return {"mean": mean, "deviation": np.sqrt(np.einsum("i,tic->tc", mass, (fields - mean[:, None]) ** 2))}


def report_interrupted(times: np.ndarray, fields: np.ndarray, grid: Grid, stats: dict) -> Solution:
    """What was computed before the keyboard interrupt."""
    error = stats["estimated_error"]
    known = f"estimated relative error {error:.1g} in the weighted norm on grid {stats['grid']}"
    how_far = known if np.isfinite(error) else "error unknown"
    message = f"interrupted at t = {times[-1]:.4g}: {how_far}"
    return Solution(times, fields, grid=grid, status=1, message=message, stats=stats)


def restored(solution: Solution, powers: np.ndarray | None) -> Solution:
    """The solution of the problem that was given."""
    if powers is None:
        return solution
    monitors = {name: (np.array(solution.stats[name]) * powers).tolist() for name in _MONITORS if name in solution.stats}
    return replace(
        solution,
        y=solution.y * powers,
        stats={**solution.stats, **monitors},
        dense=None if solution.dense is None else times_powers(solution.dense, powers),
        local_error=None if solution.local_error is None else times_powers(solution.local_error, powers),
    )


def pointwise_error(
    generator: Generator, problem: Problem, fields: np.ndarray, grid: Grid, error: float, mass: np.ndarray
) -> np.ndarray:
    """Estimated absolute error of fields (T, *grid, c) at the nodes, at any of the times: (*grid, c).

    An error E of the norm is about E (max w / w(x))^(1/2) at x: as large at the weight's top, and where w is small no
    larger than the norm would notice. Where features stay between their first extrema, the error is no larger than
    what lies between the computed value and the farther one of these.
    """
    mass = generator.error_weights(grid) if generator.outgrows_tokens else mass
    start = problem.sample(grid).reshape(-1, problem.columns)
    flat = fields.reshape(len(fields), grid.size, problem.columns)
    scale = weighted_norm(np.concatenate([start[None], flat]), mass).max(axis=0)
    weight = mass / grid.weights
    with np.errstate(divide="ignore", over="ignore"):
        growth = np.sqrt(weight.max() / weight)
        estimate = _GATHERED * max(error, _ROUNDOFF) * np.minimum(growth, _UNKNOWN)[:, None] * scale
    if not problem.mixed and problem.closed:
        reach = np.maximum(start.max(axis=0) - flat.min(axis=0), flat.max(axis=0) - start.min(axis=0))
        estimate = np.minimum(estimate, np.maximum(reach, _ROUNDOFF * scale))
    return np.clip(estimate, 0.0, _UNKNOWN).reshape(*grid.shape, -1)


def warn_if_coarse(generator: Generator, grid: Grid, log_w: np.ndarray) -> None:
    """AccuracyWarning where the conserved weight changes too much from cell to cell, and there is any of it."""
    change = steepness(log_w, grid, least=log_w.max() + np.log(_NEGLIGIBLE))
    if change > _COARSE:
        checks.warn(
            f"grid is too coarse for p: the weight p^{generator.drift:g} changes by a factor {np.exp(change):.3g} from one cell "
            f"to the next on {list(grid.shape)}; use about {int(np.ceil(change / 0.5))} times more",
            checks.AccuracyWarning,
        )
