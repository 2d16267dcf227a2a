"""Where cells are computed: here, in processes, or by a client."""

from __future__ import annotations

import os
from collections.abc import Generator

from .cells import run_cell
from .design import Cell, Design
from .signals import Signals
from .workers import in_processes


def compute(
    study: Design, cells: list[Cell], n_jobs: int, client, signals: Signals
) -> Generator[tuple[Cell, dict], None, None]:
    """Results as they finish. Close it: then nothing is left running, but what a client has begun."""
    if client is not None:
        return _by_client(study, cells, client)
    n_jobs = min(n_jobs if n_jobs > 0 else os.cpu_count() or 1, len(cells))
    return _here(study, cells) if n_jobs <= 1 else in_processes(study, cells, n_jobs, signals)


def _here(study: Design, cells: list[Cell]) -> Generator[tuple[Cell, dict], None, None]:
    for cell in cells:
        yield cell, run_cell(study, cell)


def _by_client(study: Design, cells: list[Cell], client) -> Generator[tuple[Cell, dict], None, None]:
    pending = [(cell, client.submit(run_cell, study, cell)) for cell in cells]
    try:
        while pending:
            # whatever is finished first, where futures can tell; else in order
            ready = [p for p in pending if getattr(p[1], "done", lambda: False)()] or pending[:1]
            for cell, future in ready:
                result = client.gather([future])[0]
                pending.remove((cell, future))
                yield cell, result
    finally:
        for _, future in pending:
            getattr(future, "cancel", lambda: None)()
