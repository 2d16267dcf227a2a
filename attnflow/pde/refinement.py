"""Better and better solutions, until two say that the finer one is accurate enough.

Every method is driven by it, and judges smoothness by samples that are compared with the functions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from ..grid import Grid

JUDGED = "initial, density or metric"  # what samples are taken of, in messages
MOST_CELLS = {1: 2**19, 2: 512, 3: 96}  # per axis, that finite volumes may have
ROUND_OFF = 1e-15
BUDGET = 20.0  # seconds a next, finer grid may be expected to take
EXACT = 1e-15  # relative error of the time integration on a given grid

_Size = TypeVar("_Size")
_Solution = TypeVar("_Solution")


def refinements(
    solve: Callable[[_Size], _Solution | None],
    size: _Size,
    larger: Callable[[_Size], _Size | None],
    difference: Callable[[_Solution, _Solution], float],
    tol: float,
) -> Iterator[tuple[_Solution, float]]:
    """Better and better solutions, each with its difference from the one of the size before, until that is below tol.

    Ends where `solve` or `larger` says None: too expensive.
    """
    coarse, best, lowest = solve(size), None, np.inf
    while coarse is not None and lowest > tol:
        following = larger(size)
        fine = None if following is None else solve(following)
        if following is None or fine is None:
            return
        error = difference(coarse, fine)
        if best is None or error < lowest:
            best, lowest = fine, error
            yield best, lowest
        size, coarse = following, fine


def interpolation_round_off(grid: Grid) -> float:
    """What rounding errors leave of interpolation on a spectral grid, relatively."""
    return 2e-15 * sum(grid.shape)
