"""Finite-volume solutions of known accuracy: three times finer grids, extrapolated to spacing zero.

Cell centres of N and 3N cells coincide, so grids N, 3N, 9N, ... can be compared without
interpolation. Where the error is c1 h^2 + c2 h^4 + ... (h^2, h^3, h^4 next to a Dirichlet wall),

    E_j(fine) = E_{j-1}(fine) + (E_{j-1}(fine) - E_{j-1}(coarse)) / (3^order_j - 1)

removes one term at a time (Richardson, Romberg); the last correction estimates the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..grid import Grid
from ..solution import Solution
from .boundaries import Walls
from .coefficients import build_grid, error_weights, extent, log_weight, relative_error, transfer
from .coefficients import weighted_maximum, weighted_norm
from .exponential import DEGREE
from .finite_volume import KINDS, Cells, assemble, march, steepness
from .problem import Problem, finished

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_COARSEST = {1: 27, 2: 11}
FINEST = {1: 20_000, 2: 300}
_COMPARED = {1: 20_000, 2: 100}  # a given grid is compared with a three times finer one up to this size
_ROWS = 4  # grids that enter an extrapolation; a fifth gains nothing in double precision
_ROUNDOFF = 1e-11
_GENTLE = 16.0  # change of log w per cell above which a grid is too coarse to start from


@dataclass(frozen=True)
class Level:
    """One grid's fields (T, *grid, c)."""

    cells: Cells
    fields: np.ndarray


def solve_nested(pde: DriftDiffusion, problem: Problem, rtol: float, progress: bool) -> Solution:
    """Refine by three until the estimated error is below rtol or the grid is the finest allowed."""
    levels: list[Level] = []
    best = None
    for size in grid_sizes(pde, problem.times[-1]):
        levels = [*levels[1 - _ROWS :], _solve_level(pde, problem, (size,) * pde.space.dim, progress)]
        if len(levels) < 3:
            continue
        found = _extrapolate(pde, problem, levels)
        best = found if best is None or found[2] < best[2] else best
        if best[2] <= rtol:
            break
    grid, fields, error, extrapolated = best
    return finished(problem.times, fields, grid, rtol, _stats(grid, error, extrapolated))


def solve_cells(pde: DriftDiffusion, problem: Problem, shape: tuple[int, ...], progress: bool) -> Solution:
    """On the given cells, as they are; the error is estimated from a three times finer or a coarser solution."""
    level = _solve_level(pde, problem, shape, progress)
    finer = tuple(3 * n for n in shape)
    if max(finer) <= _COMPARED[pde.space.dim]:
        other = _solve_level(pde, problem, finer, progress)
        difference = 9 / 8 * (_coincident(other.fields, other.cells.grid) - level.fields)
    else:
        coarser = tuple(max(3, n // 2) for n in shape)
        other = _solve_level(pde, problem, coarser, progress)
        difference = (transfer(other.fields, other.cells.grid, level.cells.grid) - level.fields) / 3
    error = _error(pde, problem, difference, level)
    grid = level.cells.grid
    return finished(problem.times, level.fields, grid, None, _stats(grid, error, extrapolated=False))


def grid_sizes(pde: DriftDiffusion, horizon: float = 0.0) -> list[int]:
    """Cells per axis, N, 3N, 9N, ..., from the first that follows the density; three sizes at least."""
    size, finest = _COARSEST[pde.space.dim], FINEST[pde.space.dim]
    sizes = [size * 3**k for k in range(20) if size * 3**k <= finest]
    while len(sizes) > 3:
        grid = build_grid(pde.space, KINDS, (sizes[0],) * pde.space.dim, extent(pde, horizon))
        if steepness(log_weight(pde, grid.points), grid) <= _GENTLE:
            break
        del sizes[0]
    return sizes


def romberg_orders(walls: Walls) -> tuple[int, ...]:
    """Powers of h in the error: even, unless a Dirichlet wall is half a cell away."""
    clamped = any(side is not None for pair in walls for side in pair or ())
    return (2, 3, 4) if clamped else (2, 4, 6)


def _solve_level(pde: DriftDiffusion, problem: Problem, shape: tuple[int, ...], progress: bool) -> Level:
    cells = assemble(pde, shape, problem.walls, problem.columns, problem.times[-1])
    return Level(cells, march(cells, problem.sample(cells.grid), problem.times, progress))


def _extrapolate(pde: DriftDiffusion, problem: Problem, levels: list[Level]) -> tuple[Grid, np.ndarray, float, bool]:
    """The finest fields with every correction added, the estimated error of `Solution.at`, and whether all were added.

    Corrections live on coarser nodes; they are small and smooth, so local cubics carry them over. Columns whose
    error does not fall as h^2 (steps in the initial values or the density) are left as computed.
    """
    finest, grids = levels[-1], [level.cells.grid for level in levels]
    scale = np.concatenate([problem.sample(grids[-1])[None], finest.fields])
    scale = weighted_norm(scale, error_weights(pde, grids[-1])).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)

    def size(difference: np.ndarray, grid: Grid, norm=weighted_norm) -> np.ndarray:
        return norm(difference, error_weights(pde, grid)).max(axis=0) / scale

    rows, fields = [level.fields for level in levels], finest.fields
    for j, order in enumerate(romberg_orders(problem.walls)[: len(levels) - 1], start=1):
        restricted = [_coincident(row, grids[-1]) for row in rows[1:]]
        corrections = [(fine - coarse) / (3.0**order - 1) for fine, coarse in zip(restricted, rows)]
        if j == 1:
            change = [size(8 * c, grid) for c, grid in zip(corrections[-2:], grids[-3:])]
            falls = (change[0] / 20 < change[1]) & (change[1] < change[0] / 5)  # by 9, if as h^2
            smooth = falls | (change[1] < _ROUNDOFF)
        rows = [fine + correction for fine, correction in zip(restricted, corrections)]
        fields = fields + np.where(smooth, transfer(corrections[-1], grids[-1 - j], grids[-1]), 0.0)
    discretisation = np.where(smooth, size(corrections[-1], grids[-1 - j]), np.maximum(change[1], change[0] / 3))
    gap = transfer(_coincident(fields, grids[-1]), grids[-2], grids[-1]) - fields
    # cubics on three times finer nodes err 81 times less; worst next to walls, so not averaged over the grid
    error = float(np.max(discretisation + size(gap, grids[-1], weighted_maximum) / 81))
    return grids[-1], fields, error, bool(np.all(smooth))


def _error(pde: DriftDiffusion, problem: Problem, difference: np.ndarray, level: Level) -> float:
    """Weighted norm of a difference (T, *grid, c), relative to that of the level's fields and initial values."""
    weights = error_weights(pde, level.cells.grid)
    known = np.concatenate([problem.sample(level.cells.grid)[None], level.fields])
    return relative_error(weighted_norm(difference, weights), weighted_norm(known, weights))


def _coincident(fields: np.ndarray, grid: Grid) -> np.ndarray:
    """Values at every third node: those of the coarser grid."""
    index = tuple(slice(0 if axis.kind == "periodic" else 1, None, 3) for axis in grid.axes)
    return fields[(slice(None), *index)]


def _stats(grid: Grid, error: float, extrapolated: bool) -> dict:
    return {
        "method": "finite-volume",
        "grid": list(grid.shape),
        "estimated_error": error,
        "extrapolated": extrapolated,
        "poles": DEGREE,
    }
