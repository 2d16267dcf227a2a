"""A study's cells, computed and kept: what is in the store is taken from it, what fails is told and left for the next run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..progress import track_seconds
from .cells import Answer, check_row
from .cost import cost_of_cells
from .design import MOST_CELLS, Cell, Design
from .execution import Outcome, check_client, compute, processes
from .result import StudyResult
from .signals import Signals, Terminated
from .store import Asked, Entry, Store, content_key, warnings_kept

_SAID = 2000  # characters of an error that are kept


class Means(NamedTuple):
    """What cells are computed with, and who watches: as `ConvergenceStudy.run` has them."""

    n_jobs: int = 1
    client: Any = None
    progress: bool = False
    callback: Callable[[StudyResult], Any] | None = None

    def check(self) -> None:
        """ValueError or TypeError naming the argument."""
        if checks.integer(self.n_jobs, "n_jobs", least=-1) == 0:
            raise ValueError("n_jobs must be positive, or -1 for all cores, got 0")
        if self.callback is not None:
            checks.function(self.callback, "callback", "callable on a StudyResult, or None")
        client = self.client
        if client is not None and not (hasattr(client, "submit") and hasattr(client, "gather")):
            raise TypeError(f"client must have submit(function, *args) and gather(futures), got {type(client).__name__}")


class Budget(NamedTuple):
    """So many cells may be computed, until time.monotonic() comes to the deadline."""

    cells: int = MOST_CELLS
    deadline: float = np.inf

    def over(self) -> bool:
        """Whether no cell may begin any more."""
        return time.monotonic() >= self.deadline


EVERYTHING = Budget()


def sweep(study: Design, kept: Store, path, means: Means, budget: Budget = EVERYTHING) -> StudyResult:
    """Compute the cells that are not in the store yet, as far as the budget goes."""
    cells, message, status = study.cells(), "finished", 0
    found: dict[str, dict] = {}
    done: dict[Cell, dict] = {}
    seen = StudyResult(study, [], "running", store=path, progress=means.progress)
    failed, first = 0, None  # the others are not kept: an error holds what its cell held

    def in_order() -> list[dict]:
        return [done[cell] for cell in cells if cell in done]

    def going_on() -> bool:
        nonlocal seen
        if means.callback is None:
            return True
        seen = seen.with_cells(in_order())
        return not means.callback(seen)

    with Signals() as signals:
        try:
            prints = [part.fingerprint for part in study.parts]
            keys = {cell: key_of(prints, cell) for cell in cells}
            found = kept.find({key: partial(check_row, study, cell) for cell, key in keys.items()})
            done = {cell: found[key] for cell, key in keys.items() if key in found}
            _say(kept.warned(found))
            missing = [cell for cell in cells if cell not in done][: 0 if budget.over() else budget.cells]
            if missing:
                if means.client is not None:
                    check_client(means.client)
                kept.prepare()
            with contextlib.nullcontext() if missing else contextlib.suppress(OSError):  # a disk that can only be read
                kept.ask(Asked(prints, study.description(), study.tables))
            stopped = bool(done) and not going_on()  # what there is already
            missing = [] if stopped else missing
            with _note(signals, lambda: _so_far(done, cells, path)), _outcomes(study, missing, means, signals) as outcomes:
                for outcome in outcomes:
                    signals.check()  # one that was lost in a callback: the cell may be half a one
                    outcome = _checked(study, outcome)
                    kept.add(_entry(study, keys[outcome.cell], outcome))
                    _say(outcome.answer.warned)
                    if outcome.answer.row is not None:
                        done[outcome.cell] = outcome.answer.row
                    else:
                        first = first if failed else outcome.answer.error
                        failed += 1
                    stopped = not going_on()
                    if stopped or budget.over():
                        break
                if first is not None and not done:
                    raise first
            if stopped:
                message, status = f"stopped by callback after {_so_far(done, cells, path)}", 1
        except KeyboardInterrupt:
            message, status = f"interrupted after {_so_far(done, cells, path)}", 1
    if not status and len(done) + failed < len(cells):
        message, status = f"budget spent after {_so_far(done, cells, path)}", 1
    if first is not None:
        what = f"{failed} of {len(cells)} cells failed, the first with {_said(first)}"
        checks.warn(f"{what}; a run with the same store tries them again", checks.PartialWarning)
        message, status = (f"partial: {what}", -1) if not status else (f"{message}; {what}", status)
    return StudyResult(study, in_order(), message, len(found), status, path, means.progress)


def _checked(study: Design, outcome: Outcome) -> Outcome:
    """With an error in place of a row that is none of its cell: NaN, or whatever a client has handed back."""
    try:
        if outcome.answer.row is not None:
            check_row(study, outcome.cell, outcome.answer.row)
    except ValueError as error:
        return outcome._replace(answer=Answer(None, error))
    return outcome


def _say(warned: Iterable[tuple[str, type[Warning]]]) -> None:
    """Each warning once."""
    for message, category in dict.fromkeys(warned):
        checks.warn(message, category)


@contextlib.contextmanager
def _outcomes(study: Design, missing: list[Cell], means: Means, signals: Signals) -> Iterator[Iterator[Outcome]]:
    """As they come, with a bar. Several at a time begin with the dearest, so that none is left to run alone at the end."""
    several = means.client is not None or processes(means.n_jobs) > 1
    costs = cost_of_cells(study, missing) if missing and (several or means.progress) else {}
    if several:
        missing = sorted(missing, key=costs.__getitem__, reverse=True)
    abreast = 1 if means.client is not None else min(processes(means.n_jobs), max(len(missing), 1))
    results = compute(study, missing, means.n_jobs, means.client, signals)
    total, shown = sum(costs.values()) / abreast, means.progress and bool(missing)
    tracked = track_seconds(results, shown, lambda outcome: costs[outcome.cell] / abreast, total)
    with contextlib.closing(results), contextlib.closing(tracked):
        yield tracked


def key_of(prints: list[str], cell: Cell) -> str:
    """Of a cell in a store, from the fingerprints of a study's parts: a digest of all that its numbers depend on."""
    return content_key([prints[cell.part], cell.epsilon, str(cell.size), cell.seed])


def _entry(study: Design, key: str, outcome: Outcome) -> Entry:
    cell, (row, error, warned), part = outcome.cell, outcome.answer, study.parts[outcome.cell.part]
    parameters = {
        "normalization": part.names[0],
        "epsilon": cell.epsilon,
        "size": "inf" if np.isinf(cell.size) else int(cell.size),
        "t": part.t,
        "residual": part.residual,
        "dtype": part.dtype,
    }
    return Entry(
        key=key,
        kind="cell",
        study=part.fingerprint,
        parameters=parameters,
        seed=cell.seed,
        versions=outcome.versions,
        engine=None if row is None else row["engine"],
        seconds=None if row is None else row["seconds"],
        status="failed" if row is None else "finished",
        host=outcome.host,
        message=warnings_kept(warned) if error is None else _said(error),
        result=row,
    )


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_SAID]


@contextlib.contextmanager
def _note(signals: Signals, so_far: Callable[[], str]) -> Iterator[None]:
    try:
        try:
            yield
        except Exception:  # a call that was interrupted may say so in an exception of its own
            signals.check()
            raise
    except (Exception, Terminated) as error:
        error.add_note(f"after {so_far()}")
        raise


def _so_far(done: dict, cells: list, path) -> str:
    how = "run again with a store to be able to" if path is None else "run again with the same store to"
    return f"{len(done)} of {len(cells)} cells; {how} resume"
