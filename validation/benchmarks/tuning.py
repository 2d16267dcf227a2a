"""How a method is tuned before it is timed: the coarsest grid, then the loosest tolerance, that reach the error.

Seconds are processor time: the work is done by one thread, and other programs disturb it less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import Case, Family, Solver

_PATIENCE = 120.0  # seconds of one solve that misses the error, after which a finer grid is not tried
_SLACK = 5.0  # a solve that misses the error in so many times the best family's seconds ends its family
_REPEATS, _ENOUGH = 5, 0.5  # solves per trial, and the seconds after which two will do
_MARGIN = 1.02  # on the number of cells that is predicted to reach the error
_FINER = (1.0, 1.12, 1.4)  # times as many cells allow looser tolerances


@dataclass(frozen=True)
class Trial:
    """One solve: with what, how wrong, how long.

    Attributes
    ----------
    grid, tolerance : int, float
    setting : str
        Family, grid and tolerance in words.
    error : float
    seconds, setup_seconds : float
        Of a warm solve, and of all that comes before the first.
    compile_seconds : float
        What the first solve took more than a warm one.
    solver : Solver
    """

    grid: int
    tolerance: float
    setting: str
    error: float
    seconds: float
    setup_seconds: float
    compile_seconds: float
    solver: Solver


def tune(case: Case, families: Sequence[Family], log: Callable[[str], None] = lambda line: None) -> Trial | None:
    """The fastest trial that reaches case.error; None if no family does. It carries the longest compilation of all.

    Parameters
    ----------
    case : Case
    families : sequence of Family
        The likely fastest first: slow ones are given up against it.
    log : callable
        Takes a line per trial.
    """
    exact, best, compiling = case.reference(), None, 0.0
    for family in families:
        trials = _tune_family(case, family, exact, best, log)
        compiling = max([compiling, *(trial.compile_seconds for trial in trials)])
        reaching = [trial for trial in [best, *trials] if trial is not None and trial.error <= case.error]
        best = min(reaching, key=lambda trial: trial.seconds, default=None)
    return best and replace(best, compile_seconds=compiling)


def measure_error(solver: Solver, result, exact: Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest error over the method's own nodes relative to the largest |H| there; infinite if not finite."""
    points, values = solver.read(result)
    expected = exact(points)
    error = np.abs(values - expected).max() / np.abs(expected).max()
    return float(error) if np.isfinite(error) else np.inf


def _tune_family(case: Case, family: Family, exact, rival: Trial | None, log) -> list[Trial]:
    """At most doubled grids until the error is reached, bisection between the last two, then looser tolerances."""
    tried: dict[tuple[int, float], Trial] = {}

    tightest, last = family.tolerances[-1], len(family.grids) - 1
    slack = 1.5 if len(family.tolerances) == 1 else _SLACK
    limit = min(_PATIENCE, slack * rival.seconds) if rival else _PATIENCE

    def attempt(index: int, tolerance: float) -> Trial:
        if (index, tolerance) not in tried:
            trial = tried[index, tolerance] = _attempt(case, family, family.grids[index], tolerance, exact, limit)
            log(f"{case.name}: {trial.setting}: error {trial.error:.2e} in {trial.seconds:.4f} s")
        return tried[index, tolerance]

    missed, reached, index = -1, None, _first_at_least(family.grids, rival.grid / 2 if rival else 0.0)
    while reached is None:
        trial = attempt(index, tightest)
        if trial.error <= case.error:
            reached = index
        elif index == last or trial.seconds > limit:
            return list(tried.values())
        else:
            missed, index = index, _next_index(case, family.grids, index, list(tried.values()))
    while reached - missed > 1:
        middle = (reached + missed) // 2
        missed, reached = (missed, middle) if attempt(middle, tightest).error <= case.error else (middle, reached)
    if len(family.tolerances) > 1:
        for index in sorted({_first_at_least(family.grids, factor * family.grids[reached]) for factor in _FINER}):
            for tolerance in family.tolerances:
                fastest = min(trial.seconds for trial in tried.values() if trial.error <= case.error)
                trial = attempt(index, tolerance)
                if trial.error <= case.error or trial.seconds > max(fastest, _ENOUGH):
                    break
    return list(tried.values())


def _first_at_least(grids: Sequence[int], size: float) -> int:
    return next((index for index, cells in enumerate(grids) if cells >= size), len(grids) - 1)


def _next_index(case: Case, grids: Sequence[int], index: int, misses: list[Trial]) -> int:
    """Twice as many cells, or as many as the fall of the last two errors says are needed, if those are fewer."""
    size = 2.0 * grids[index]
    if len(misses) > 1 and np.isfinite(misses[-2].error):
        (coarse, large), (fine, small) = ((trial.grid, trial.error) for trial in misses[-2:])
        order = np.log(large / small) / np.log(fine / coarse)
        if order > 1:
            size = min(size, _MARGIN * fine * (small / case.error) ** (1 / order))
    return max(index + 1, _first_at_least(grids, size))


def _attempt(case: Case, family: Family, grid: int, tolerance: float, exact, limit: float) -> Trial:
    """The first solve may compile: one that reaches the error, or takes longer than the limit, is repeated."""
    began = time.process_time()
    solver = family.prepare(case, grid, tolerance)
    setup, seconds, error = time.process_time() - began, [], np.inf
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unstable step overflows; the error says so
        while not seconds or (_again(seconds) if error <= case.error else len(seconds) < 2 and seconds[0] > limit):
            start = solver.fresh()
            began = time.process_time()
            try:
                result = solver.step(start)
            except NotImplementedError:
                raise
            except (ArithmeticError, RuntimeError):
                break
            seconds.append(time.process_time() - began)
            if len(seconds) == 1:
                error = measure_error(solver, result, exact)
    warm = min(seconds[1:] or seconds or [0.0])
    grids = f"{grid} cells" if solver.describe is None else solver.describe(result) if seconds else ""
    setting = ", ".join(part for part in (family.name, grids, family.knob.format(tolerance)) if part)
    return Trial(grid, tolerance, setting, error, warm, setup, (seconds[0] if seconds else 0.0) - warm, solver)


def _again(seconds: list[float]) -> bool:
    return len(seconds) < 2 or (len(seconds) < _REPEATS and sum(seconds) < _ENOUGH)
