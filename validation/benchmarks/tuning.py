"""How a method is tuned before it is timed: the coarsest grid, then the loosest tolerance, that reach the error.

Seconds are processor time: the work is done by one thread, and other programs disturb it less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import Case, Family, Solver

_PATIENCE = 60.0  # seconds of one solve that misses the error, after which a finer grid is not tried
_SLACK = 5.0  # a solve that misses the error in so many times the best family's seconds ends its family
_REPEATS, _ENOUGH = 5, 0.5  # solves per trial, and the seconds after which two will do
_FINER = 2  # a finer grid, so many sizes up, allows a looser tolerance


@dataclass(frozen=True)
class Trial:
    """One solve: with what, how wrong, how long."""

    family: Family
    grid: int
    tolerance: float
    error: float
    seconds: float
    first_seconds: float
    setup_seconds: float
    solver: Solver

    @property
    def setting(self) -> str:
        return f"{self.family.name}, {self.grid} cells, {self.tolerance:.3g}"


def tune(case: Case, families: Sequence[Family], log: Callable[[str], None] = lambda line: None) -> Trial | None:
    """The fastest trial that reaches case.error; None if no family does.

    Parameters
    ----------
    case : Case
    families : sequence of Family
        The likely fastest first: slow ones are given up against it.
    log : callable
        Takes a line per trial.
    """
    exact, best = case.reference(), None
    for family in families:
        found = _tune_family(case, family, exact, best, log)
        if found is not None and (best is None or found.seconds < best.seconds):
            best = found
    return best


def measure_error(solver: Solver, result, exact: Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest error over the method's own nodes relative to the largest |H| there; infinite if not finite."""
    points, values = solver.read(result)
    expected = exact(points)
    error = np.abs(values - expected).max() / np.abs(expected).max()
    return float(error) if np.isfinite(error) else np.inf


def _tune_family(case: Case, family: Family, exact, rival: Trial | None, log) -> Trial | None:
    """Doubling grids until the error is reached, bisection between the last two, then looser tolerances."""
    tried: dict[tuple[int, float], Trial] = {}

    def attempt(index: int, tolerance: float) -> Trial:
        if (index, tolerance) not in tried:
            trial = tried[index, tolerance] = _attempt(case, family, family.grids[index], tolerance, exact)
            log(f"{case.name}: {trial.setting}: error {trial.error:.2e} in {trial.seconds:.4f} s")
        return tried[index, tolerance]

    tightest, last = family.tolerances[-1], len(family.grids) - 1
    slack = 1.5 if len(family.tolerances) == 1 else _SLACK
    limit = min(_PATIENCE, slack * rival.seconds) if rival else _PATIENCE
    missed, reached = -1, None
    for index in _strides(family.grids, rival.grid / 2 if rival else 0.0):
        trial = attempt(index, tightest)
        if trial.error <= case.error:
            reached = index
            break
        missed = index
        if trial.seconds > limit:
            return None
    if reached is None:
        return None
    while reached - missed > 1:
        middle = (reached + missed) // 2
        missed, reached = (missed, middle) if attempt(middle, tightest).error <= case.error else (middle, reached)
    if len(family.tolerances) > 1:
        for index in sorted({reached, min(reached + _FINER, last)}):
            for tolerance in family.tolerances:
                if attempt(index, tolerance).error <= case.error:
                    break
    return min((trial for trial in tried.values() if trial.error <= case.error), key=lambda trial: trial.seconds)


def _strides(grids: Sequence[int], least: float) -> list[int]:
    """Indices of the first grid of at least so many cells, of grids that double from one to the next, of the last."""
    chosen = [next((index for index, size in enumerate(grids) if size >= least), len(grids) - 1)]
    for index, size in enumerate(grids):
        if size >= 1.95 * grids[chosen[-1]]:
            chosen.append(index)
    return sorted({*chosen, len(grids) - 1})


def _attempt(case: Case, family: Family, grid: int, tolerance: float, exact) -> Trial:
    """The first solve may compile: one that reaches the error is repeated, and timed by its fastest repetition."""
    began = time.process_time()
    solver = family.prepare(case, grid, tolerance)
    setup, seconds, error = time.process_time() - began, [], np.inf
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unstable step overflows; the error says so
        while not seconds or (error <= case.error and _again(seconds)):
            start = solver.fresh()
            began = time.process_time()
            try:
                result = solver.step(start)
            except (ArithmeticError, RuntimeError):
                break
            seconds.append(time.process_time() - began)
            if len(seconds) == 1:
                error = measure_error(solver, result, exact)
    first, warm = (seconds[0], min(seconds[1:] or seconds)) if seconds else (0.0, 0.0)
    return Trial(family, grid, tolerance, error, warm, first, setup, solver)


def _again(seconds: list[float]) -> bool:
    return len(seconds) < 2 or (len(seconds) < _REPEATS and sum(seconds) < _ENOUGH)
