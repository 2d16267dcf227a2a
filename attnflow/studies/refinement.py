"""Seeds until a slope or a constant is known well enough: how many more, from how wide its interval still is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .design import MOST_CELLS, Design
from .result import StudyResult
from .store import Store
from .sweep import Budget, Means, sweep

_FEWEST = 3  # seeds with which every fit that there can be has cells enough


class Goal(NamedTuple):
    """How wide the interval of the slope or constant in size may be, and what may be spent on it; None for what it takes."""

    kind: str
    width: float
    cells: int | None = None
    seconds: float | None = None


def narrowed(study: Design, goal: Goal, kept: Store, path, means: Means) -> StudyResult:
    """The study with so many seeds that the goal is met, or as many as the budget has; where cells fail, it ends with them."""
    deadline = np.inf if goal.seconds is None else time.monotonic() + goal.seconds
    left = MOST_CELLS if goal.cells is None else goal.cells
    per_seed, computed = len(study.with_seeds(study.seeds + 1).cells()) - len(study.cells()), 0
    while True:
        budget = Budget(left - computed, deadline)
        result = sweep(study, kept, path, means, budget)
        computed += len(result.cells) - result.resumed
        result = replace(result, resumed=len(result.cells) - computed)
        try:
            now = max(found.high - found.low for found in (getattr(part, goal.kind)("size") for part in result.parts))
        except ValueError:
            if result.status == 0 and study.seeds < _FEWEST and left - computed >= per_seed and not budget.over():
                study = study.with_seeds(study.seeds + 1)
                continue
            if result.status == 0 and study.seeds >= _FEWEST:
                raise
            return result  # too few cells are there for it
        wide = f"the {goal.kind} in N is known to {now:.3g}, with {study.seeds} seeds"
        if result.status != 0:  # what failed would fail in every round
            return replace(result, message=f"{result.message}; {wide}")
        if now <= goal.width:
            return replace(result, message=f"{result.message}: {wide}")
        room = MOST_CELLS - len(study.cells())
        if budget.over():
            end = f"budget of {goal.seconds:g} seconds spent"
        elif room < per_seed:
            end = f"a study has at most {MOST_CELLS} cells"
        elif left - computed < per_seed:
            end = f"budget of {goal.cells} cells spent"
        else:
            # the width is an estimate: twice as many seeds at most
            wanted = int(np.ceil(study.seeds * min((now / goal.width) ** 2, 2.0)))
            more = min(wanted - study.seeds, min(left - computed, room) // per_seed)
            study = study.with_seeds(study.seeds + max(more, 1))
            continue
        return replace(result, message=f"{end}: {wide}", status=1)
