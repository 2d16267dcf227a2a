"""Where cells are computed: here, in processes, or by a client; and what comes of each."""

from __future__ import annotations

import platform
from collections.abc import Generator
from typing import NamedTuple

from ..provenance import versions
from .cells import Answer, answer_of, check_same, known_by
from .design import Cell, Design
from .signals import Signals
from .workers import cores, in_processes


class Outcome(NamedTuple):
    """A cell's answer; on which machine, by which versions."""

    cell: Cell
    answer: Answer
    host: str
    versions: dict[str, str]


def compute(study: Design, cells: list[Cell], n_jobs: int, client, signals: Signals) -> Generator[Outcome, None, None]:
    """Outcomes as they come. Close it: then nothing is left running, but what a client has begun."""
    if client is not None:
        return _by_client(study, cells, client)
    n_jobs = min(processes(n_jobs), len(cells))
    return _here(study, cells) if n_jobs <= 1 else _beside(study, cells, n_jobs, signals)


def processes(n_jobs: int) -> int:
    """How many are asked for: -1 means one for each core."""
    return n_jobs if n_jobs > 0 else cores()


def check_client(client) -> None:
    """ValueError unless a client computes, by this version, wherever it does: what is kept is kept as this version's."""
    try:
        if hasattr(client, "run"):  # on each worker of a dask cluster; one that is yet to start has none
            found = list(client.run(_where).values())
        else:
            found = _gathered(client, client.submit(_where))
    except Exception as error:
        raise ValueError(f"client must be open and compute, got {type(client).__name__}: {_words(error)}") from error
    for host, theirs in found:
        if theirs["attnflow"] != versions()["attnflow"]:
            raise ValueError(
                f"client must have workers with attnflow {versions()['attnflow']} as here, got {theirs['attnflow']} on {host}"
            )


def _where() -> tuple[str, dict[str, str]]:
    return platform.node(), versions()


def _here(study: Design, cells: list[Cell]) -> Generator[Outcome, None, None]:
    where = _where()
    for cell in cells:
        answer = answer_of(study, cell)
        if not (answer.error is None or isinstance(answer.error, Exception)):
            raise answer.error
        yield Outcome(cell, answer, *where)


def _beside(study: Design, cells: list[Cell], n_jobs: int, signals: Signals) -> Generator[Outcome, None, None]:
    where = _where()
    for cell, answer in in_processes(study, cells, n_jobs, signals):
        yield Outcome(cell, answer, *where)


def _by_client(study: Design, cells: list[Cell], client) -> Generator[Outcome, None, None]:
    known = known_by(study)
    pending = [(cell, client.submit(_there, study, known, cell)) for cell in cells]
    try:
        while pending:
            # whatever is finished first, where futures can tell; else in order
            ready = [p for p in pending if getattr(p[1], "done", lambda: False)()] or pending[:1]
            for cell, future in ready:
                try:
                    answer, where = client.gather([future])[0]
                    outcome = Outcome(cell, Answer(*answer), *where)
                except Exception as error:
                    outcome = Outcome(cell, Answer(None, error), "", {})
                pending.remove((cell, future))
                yield outcome
    finally:
        for _, future in pending:
            _drop(future)


def _there(study: Design, known: list[tuple[set[str], str]], cell: Cell) -> tuple[Answer, tuple[str, dict[str, str]]]:
    check_same(study, known)
    answer = answer_of(study, cell)
    if answer.error is not None:
        raise answer.error
    return answer, _where()


def _gathered(client, future) -> list:
    try:
        return client.gather([future])
    except BaseException:
        _drop(future)
        raise


def _drop(future) -> None:
    getattr(future, "cancel", lambda: None)()


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
