"""What cells do not see of an equation and its initial values: asked between their nodes."""

from __future__ import annotations

import numpy as np

from ... import checks
from ...resolution import among, interpolation_error
from ..generator import Generator
from ..grids import cell_grid, transfer
from ..peaks import unseen
from ..problem import Problem
from ..refinement import JUDGED
from .operator import Cells

_BLIND = 0.5  # relative error of samples that nothing explains
_FALLS = 8.0  # by which the error of smooth samples falls at least from a grid to the next; 64 once it is small


def missed_by_cells(
    generator: Generator,
    problem: Problem,
    coarse: tuple[Cells, np.ndarray],
    fine: tuple[Cells, np.ndarray],
    smooth: np.ndarray | bool = False,
    least: float = 0.0,
) -> float:
    """Error of the samples on the finer cells, between them, where that of the coarser ones does not lead to expect it.

    Where samples are expected to err, the solutions on both tell by how much they do; what is here comes on top:
    what both see alike, and wrongly.

    Parameters
    ----------
    generator, problem
    coarse, fine : Cells, (*grid, c) array
        Cells and initial values there; the finer ones on about half the spacing.
    smooth : bool or (c,) array of bool
        Whether initial values seemed to be smooth.
    least : float
        What smaller errors do not matter against; for them it is 0.

    Returns
    -------
    float
        The largest, each function relative to its size: in the norm of the weight, its root in the plain one.
    """
    (cells, start), (coarser, coarse_start) = fine, coarse
    grid, mass = cells.grid, generator.error_weights(cells.grid) if generator.outgrows_tokens else cells.mass
    points, shares = among(grid, mass)
    missed = unseen(problem.peaks, grid)
    if missed:
        return missed
    initial = callable(problem.initial) and not problem.starts_narrow  # points among cells say nothing of narrow peaks
    known = cells.ingredients(grid.points, (cells.log_weight, cells.tensor))
    tops = known[0].max(axis=0)

    def together(logarithms: np.ndarray, others: np.ndarray, given: np.ndarray) -> np.ndarray:
        roots = np.exp(np.minimum((logarithms - tops) / 2, 300.0))
        return np.concatenate([roots, others, given.reshape(len(roots), -1)] if initial else [roots, others], axis=1)

    def fields(x: np.ndarray) -> np.ndarray:
        logarithms, others = cells.ingredients(x)
        return together(logarithms, others, checks.evaluate(problem.initial, x, "initial") if initial else x)

    here = together(known[0], known[1], start)
    plain = np.arange(here.shape[1]) < len(tops)
    found = interpolation_error(fields, grid, here, JUDGED, points, np.where(plain, shares[:, :1], shares[:, 1:]))
    if found.max() <= least:
        return 0.0

    logarithms, others = coarser.ingredients(coarser.grid.points, (coarser.log_weight, coarser.tensor))
    there = together(logarithms, others, coarse_start)
    carried = transfer(there.reshape(1, *coarser.grid.shape, -1), coarser.grid, grid).reshape(here.shape)
    weights = np.where(plain, grid.weights[:, None] / grid.weights.sum(), mass[:, None])
    size = np.sqrt(np.sum(weights * here**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    gap = np.abs(carried - here) / size
    expected = np.sqrt(np.sum(weights * gap**2, axis=0))
    falls = np.zeros(len(found), dtype=bool)
    if initial:
        falls[-problem.columns :] = smooth
    chance = 3 / len(points) * (np.sqrt(weights * grid.size) * gap).max(axis=0) ** 2
    allowed = np.where(falls, expected / _FALLS, np.sqrt(4 * expected**2 + chance))
    return float(np.max(np.where((found > allowed + 1e-13) | (found > _BLIND), found, 0.0)))


def shapes_that_see(generator: Generator, problem: Problem, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Without those shapes, but the last three, whose cells see nothing of some column of the initial values."""
    if not callable(problem.initial):
        return shapes
    k = next((k for k, shape in enumerate(shapes[:-3]) if not sees_nothing(generator, problem, shape)), -3)
    return shapes[k:]


def sees_nothing(generator: Generator, problem: Problem, shape: tuple[int, ...]) -> bool:
    """Whether cells of that shape see nothing of some column of the initial values."""
    grid = cell_grid(generator.space, shape, problem.ranges)
    if unseen(problem.peaks, grid):
        return True
    if problem.starts_narrow:
        return False
    values = checks.evaluate(problem.initial, grid.points, "initial")
    return bool(interpolation_error(problem.initial, grid, values, "initial").max() >= _BLIND)
