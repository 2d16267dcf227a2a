"""Very large or small initial values by powers of two: equations are linear, but squares overflow and vanish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..norms import unit
from ..solution import Solution
from .problem import Problem

_USUAL = 1e-100, 1e100
_MONITORS = ("mean", "deviation")


def moderated(problem: Problem, together: bool) -> tuple[Problem, np.ndarray | None]:
    """The problem for columns of usual size, and the powers of two (c,) they are too small by; None if all are usual.

    Sizes are those of values at a few points, or of an array, and of Dirichlet values that are numbers; one for all
    columns where an equation mixes them.
    """
    sizes = problem.sizes
    for side in (side for pair in problem.walls for side in pair or () if side):
        if not callable(side.value):
            sizes = np.maximum(sizes, np.abs(side.value))
    if together:
        sizes = np.full_like(sizes, sizes.max())
    unusual = (sizes > 0) & ((sizes < _USUAL[0]) | (sizes > _USUAL[1]))
    if not unusual.any():
        return problem, None
    powers = np.where(unusual, unit(sizes[None], axis=0), 1.0)
    less = 1 / powers
    walls = tuple(pair and tuple(side and replace(side, value=_times(side.value, less)) for side in pair) for pair in problem.walls)
    return replace(problem, initial=_times(problem.initial, less), walls=walls), powers


def restored(solution: Solution, powers: np.ndarray | None) -> Solution:
    """The solution of the problem that was given."""
    if powers is None:
        return solution
    monitors = {name: (np.array(solution.stats[name]) * powers).tolist() for name in _MONITORS if name in solution.stats}
    return replace(
        solution,
        y=solution.y * powers,
        stats={**solution.stats, **monitors},
        dense=None if solution.dense is None else _times(solution.dense, powers),
        local_error=None if solution.local_error is None else _times(solution.local_error, powers),
    )


def _times(value, powers: np.ndarray):
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
