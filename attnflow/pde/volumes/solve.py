"""Finite-volume solutions of known accuracy: ever finer grids, extrapolated to spacing zero.

Each grid halves the spacing. Where the error is c1 h^2 + c2 h^4 + ... (h^2, h^3, h^4 between walls that are not no-flux,
or not square to the metric),

    E_j(fine) = E_{j-1}(fine) + (E_{j-1}(fine) - E_{j-1}(coarse)) / (2^order_j - 1)

removes one term at a time (Richardson, Romberg); the last correction estimates the error. Fields are compared on
the coarser nodes, where the finer ones are interpolated to sixth order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...solution import Solution
from ..generator import Generator
from ..grids import cell_grid, on_sphere, relative_error, steepness, transfer, weighted_maximum, weighted_norm
from ..problem import Problem
from ..propagator import compared_growth
from ..refinement import BUDGET, EXACT, MOST_CELLS
from ..report import report, report_interrupted, warn_if_coarse
from .march import march
from .operator import STEEPEST, Cells
from .sampling import missed_by_cells, shapes_that_see

Assemble = Callable[[tuple[int, ...]], Cells]  # cells per axis -> the operator on them

_COARSEST = {1: 32, 2: 8, 3: 8}
_FINEST_ROUGH = 2**15  # cells that jumps get in one dimension
_ROWS = 4  # grids that enter an extrapolation; a fifth gains nothing in double precision
_ROUNDOFF = 1e-11
_FLOOR = 2e-13  # of any estimate: the rational exponential and rounding errors
_GENTLE = 16.0  # change of log w per cell above which a grid is too coarse to start from
_MATTERS = 48.0  # log w below its maximum where a grid need not follow it


@dataclass(frozen=True)
class Level:
    """One grid's initial values (*grid, c) and fields (T, *grid, c)."""

    cells: Cells
    initial: np.ndarray
    fields: np.ndarray
    stats: dict


@dataclass(frozen=True)
class _Estimate:
    """Extrapolated fields on the finest grid, their estimated error, and which columns (c,) were extrapolated."""

    levels: list[Level]
    fields: np.ndarray
    error: float
    smooth: np.ndarray
    mean: np.ndarray
    checked: bool = False

    @property
    def stats(self) -> dict:
        coarse, fine = self.levels[-2:]
        return compared_growth(_stats(fine, self.error, bool(self.smooth.all())), coarse.stats)


def solve_refined(generator: Generator, problem: Problem, rtol: float, method: str, assemble: Assemble) -> Solution:
    """Halve the spacing until the estimated error is below rtol or the grid is the finest allowed."""
    tol = min(1e-3 * rtol, 1e-6)
    levels: list[Level] = []
    best = None
    seconds = [0.0, 0.0]
    for shape in shapes_that_see(generator, problem, grid_shapes(generator, problem.ranges, rtol)):
        began = time.perf_counter()
        level = _solve_level(assemble, problem, shape, tol, method)
        seconds = [seconds[1], time.perf_counter() - began]
        if len(level.fields) < len(problem.times):
            if best is None:
                return _stopped(problem, level)
            return report_interrupted(
                problem.times, best.fields, best.levels[-1].cells.grid, _checked(generator, problem, best).stats
            )
        levels = [*levels[1 - _ROWS :], level]
        if len(levels) < 3:
            continue
        found = _extrapolate(generator, problem, levels)
        if found.error <= rtol:
            found = _checked(generator, problem, found)
        best = found if best is None or best.checked or found.error < best.error else best
        if best.error <= rtol or 2 * level.stats.get("round_off", 0.0) > found.error:  # which finer grids do not lower
            break
        if generator.space.dim == 1 and shape[0] >= _FINEST_ROUGH and not found.smooth.all():
            break
        growth = np.clip(seconds[1] / max(seconds[0], 1e-3), 4, 16)
        if seconds[1] * growth > BUDGET:
            break
    assert best is not None  # there are three shapes at least
    best = _checked(generator, problem, best)
    shapes = [level.cells.grid.shape for level in best.levels]
    dense = partial(_fields_at, generator, assemble, problem, shapes, tol, method)
    last = best.levels[-1].cells
    return report(generator, problem, best.fields, last.grid, rtol, best.stats, last.mass, dense, best.mean)


def _checked(generator: Generator, problem: Problem, found: _Estimate) -> _Estimate:
    """With what both finer grids do not see in the estimate."""
    if found.checked:
        return found
    coarse, fine = ((level.cells, level.initial) for level in found.levels[-2:])
    missed = missed_by_cells(generator, problem, coarse, fine, found.smooth, found.error)
    return replace(found, error=max(found.error, missed, _FLOOR), checked=True)


def solve_given(generator: Generator, problem: Problem, shape: tuple[int, ...], method: str, assemble: Assemble) -> Solution:
    """On the given cells, as they are; the error is estimated from a coarser solution."""
    level = _solve_level(assemble, problem, shape, EXACT, method)
    if len(level.fields) < len(problem.times):
        return _stopped(problem, level)
    warn_if_coarse(generator, level.cells.grid, level.cells.log_weight)
    halve = min(shape) >= 8
    compared = tuple(_even(generator, n // 2 if halve else 2 * n, k) for k, n in enumerate(shape))
    other = _solve_level(assemble, replace(problem, progress=False), compared, EXACT, method)
    if len(other.fields) < len(problem.times):
        return _stopped(problem, level)
    grid = level.cells.grid
    difference = transfer(other.fields, other.cells.grid, grid) - level.fields
    ratio = float(np.mean([n / m for n, m in zip(shape, compared)]))
    weights = _weights(generator, level.cells)
    known = np.concatenate([level.initial[None], level.fields])
    error = relative_error(weighted_norm(difference, weights), weighted_norm(known, weights)) / abs(ratio**2 - 1)
    error += level.stats.get("round_off", 0.0)
    pair = sorted((level, other), key=lambda found: found.cells.grid.size)
    coarse, fine = ((found.cells, found.initial) for found in pair)
    error = max(error, missed_by_cells(generator, problem, coarse, fine, least=error), _FLOOR)
    dense = partial(_fields_at, generator, assemble, problem, [shape], EXACT, method)
    stats = compared_growth(_stats(level, error, False), other.stats)
    return report(generator, problem, level.fields, grid, None, stats, level.cells.mass, dense)


def _fields_at(
    generator: Generator,
    assemble: Assemble,
    problem: Problem,
    shapes: list[tuple[int, ...]],
    tol: float,
    method: str,
    times: np.ndarray,
) -> np.ndarray:
    """Dense output: fields at the times, extrapolated from the same grids."""
    again = problem.at_times(times, generator.outgrows_tokens)
    levels = [_solve_level(assemble, again, shape, tol, method) for shape in shapes]
    if any(len(level.fields) < len(times) for level in levels):
        raise KeyboardInterrupt
    return _extrapolate(generator, again, levels).fields if len(levels) > 1 else levels[0].fields


def grid_shapes(
    generator: Generator, ranges: tuple[tuple[float, float], ...] | None, rtol: float = 1.0
) -> list[tuple[int, ...]]:
    """Cells per axis, each shape twice the one before, from the first that follows the density; three at least.

    In two dimensions they start finer by half where rtol is below 5e-5: 48 cells a side then often are enough, where
    32 are not and 64 take twice as long.
    """
    dim = generator.space.dim
    globe = on_sphere(generator.space) and dim == 2
    shape = np.array([8, 16]) if globe else _proportions(generator, ranges, 3 / 2 if rtol < 5e-5 and dim == 2 else 1)
    count = MOST_CELLS[dim] ** dim // math.prod(shape.tolist())
    shapes = [tuple(n * 2**k for n in shape.tolist()) for k in range(20) if 2 ** (k * dim) <= count]
    while len(shapes) > 3:
        grid = cell_grid(generator.space, shapes[0], ranges)
        log_w = generator.log_weight(grid.points)
        if steepness(log_w, grid, least=log_w.max() - _MATTERS) <= _GENTLE and steepness(log_w, grid) <= STEEPEST:
            break
        del shapes[0]
    return shapes


def romberg_orders(cells: Cells) -> tuple[int, ...]:
    """Powers of h in the error: even, unless there are walls half a cell away or fluxes along them.

    Next to the poles of a sphere the coefficient of h^2 has a logarithm in it, so what is left after the first step
    is taken to fall no faster.
    """
    if cells.grid.sphere and len(cells.grid.shape) == 2:
        return (2, 2)
    skewed = any(sum(map(abs, offset)) > 1 for offset in cells.offsets)
    walled = any(axis.kind == "cells" for axis in cells.grid.axes)
    return (2, 3, 4) if cells.open_walls or (walled and skewed) else (2, 4, 6)


def _proportions(generator: Generator, ranges: tuple[tuple[float, float], ...] | None, finer: float) -> np.ndarray:
    """The coarsest shape: cells about as long as wide in the metric, within a factor of two."""
    dim = generator.space.dim
    if dim == 1 or ranges is None:
        return np.full(dim, int(finer * _COARSEST[dim]))
    low, high = np.array(ranges).T
    middle = low + (high - low) * np.linspace(0.1, 0.9, 5)[:, None]
    metric = generator.space.metric(middle)
    length = (high - low) * np.sqrt(np.diagonal(metric, axis1=1, axis2=2)).mean(axis=0)
    share = np.clip(length / np.exp(np.log(length).mean()), 1 / 2, 2)
    return 2 * np.round(finer * _COARSEST[dim] * share / 2).astype(int)


def _even(generator: Generator, size: int, k: int) -> int:
    """Longitudes come in pairs: the grid continues over the poles."""
    return size + size % 2 if on_sphere(generator.space) and k == 1 else size


def _solve_level(assemble: Assemble, problem: Problem, shape: tuple[int, ...], tol: float, method: str) -> Level:
    cells = assemble(shape)
    initial = problem.sample(cells.grid)
    return Level(cells, initial, *march(cells, initial, problem.times, tol, method, problem.backend, problem.progress))


def _extrapolate(generator: Generator, problem: Problem, levels: list[Level]) -> _Estimate:
    """The finest fields with every correction added, the estimated error of `Solution.at`, and whether all were added.

    Corrections live on coarser nodes; they are small and smooth, so local interpolation carries them over. Columns
    whose error does not fall as h^2 (steps in the initial values or the density) are left as computed.
    """
    finest, grids = levels[-1], [level.cells.grid for level in levels]
    weights = [_weights(generator, level.cells) for level in levels]
    scale = np.concatenate([finest.initial[None], finest.fields])
    scale = weighted_norm(scale, weights[-1]).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)

    def size(difference: np.ndarray, level: int, norm=weighted_norm) -> np.ndarray:
        return norm(difference, weights[level]).max(axis=0) / scale

    orders = romberg_orders(finest.cells)[: len(levels) - 1]
    rows, fields = [level.fields for level in levels], finest.fields
    means = [
        np.einsum("i,tic->tc", level.cells.mass, level.fields.reshape(len(rows[0]), -1, problem.columns)) for level in levels
    ]
    mean = means[-1]
    for j, order in enumerate(orders, start=1):
        restricted = [transfer(row, grids[k + 1], grids[k]) for k, row in enumerate(rows[1:])]
        corrections = [(fine - coarse) / (2.0**order - 1) for fine, coarse in zip(restricted, rows)]
        if j == 1:
            change = [size(3 * c, k) for k, c in enumerate(corrections)]
            smooth = _is_smooth(change, levels, size)
            if len(change) > 2 and (smooth & ~_in_order(change[0], change[1])).any():
                return _extrapolate(generator, problem, levels[1:])  # the coarsest follows no power of the spacing yet
        rows = [fine + correction for fine, correction in zip(restricted, corrections)]
        means = [fine + (fine - coarse) / (2.0**order - 1) for coarse, fine in zip(means, means[1:])]
        fields = fields + np.where(smooth, transfer(corrections[-1], grids[-1 - j], grids[-1]), 0.0)
        mean = np.where(smooth, means[-1], mean)
    if finest.cells.keeps_extrema:  # extrapolation knows no maximum principle
        start = finest.initial.reshape(-1, problem.columns)
        fields = np.clip(fields, start.min(axis=0), start.max(axis=0))
    last = len(levels) - 1 - len(orders)
    # a column that is not smooth: the largest change seen, if the error falls as the root of h only
    rough = np.max([c / np.sqrt(2) ** (len(change) - 1 - k) for k, c in enumerate(change)], axis=0)
    discretisation = np.where(smooth, size(corrections[-1], last), rough)
    gap = transfer(transfer(fields, grids[-1], grids[-2]), grids[-2], grids[-1]) - fields
    # sixth-order interpolation errs 64 times less on half the spacing; worst next to walls, so not averaged
    error = float(np.max(discretisation + size(gap, len(levels) - 1, weighted_maximum) / 64))
    error += finest.stats.get("round_off", 0.0)  # which grids may have in common
    return _Estimate(levels, fields, error, smooth, mean)


def _is_smooth(change: list[np.ndarray], levels: list[Level], size: Callable) -> np.ndarray:
    """Columns whose error falls as h^2, (c,): by four from grid to grid, as that of interpolating initial values at
    least does. One ratio of changes alone proves nothing: that of a jump depends on where in its cell it is."""
    falls = (change[-2] / 8 < change[-1]) & (change[-1] < change[-2] / 2.8)
    falls |= change[-1] < _ROUNDOFF
    gaps = [
        size(transfer(levels[k - 1].initial[None], levels[k - 1].cells.grid, levels[k].cells.grid) - levels[k].initial, k)
        for k in (len(levels) - 2, len(levels) - 1)
    ]
    return falls & (gaps[1] < np.maximum(gaps[0] / 4, 1e-9))


def _in_order(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether changes from grid to grid fall as where h^2 leads, (c,)."""
    return ((2 * after < before) & (before < 8 * after)) | (before < _ROUNDOFF)


def _weights(generator: Generator, cells: Cells) -> np.ndarray:
    """Of the norm of errors: the cells' own masses, except on a line where those need not decay."""
    return generator.error_weights(cells.grid) if generator.outgrows_tokens else cells.mass


def _stopped(problem: Problem, level: Level) -> Solution:
    """Nothing but the times a single grid had finished, or the initial values."""
    count = len(level.fields)
    grid = level.cells.grid
    fields = level.fields if count else problem.sample(grid)[None]
    times = problem.times[:count] if count else np.zeros(1)
    return report_interrupted(times, fields, grid, _stats(level, float("nan"), False))


def _stats(level: Level, error: float, extrapolated: bool) -> dict:
    return {
        "method": "finite-volume",
        "grid": list(level.cells.grid.shape),
        "estimated_error": error,
        "extrapolated": extrapolated,
        "monotone": level.cells.monotone,
        **level.stats,
    }
