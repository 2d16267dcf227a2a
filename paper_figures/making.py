"""Figures computed, judged and written, one after the other or in processes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import numpy as np
from matplotlib import rc_context

from attnflow.studies.workers import shares

from . import Check, compute, plot


def made(names: list[str], quick: bool, folder: Path, jobs: int) -> Iterator[tuple[str, str, list[Check], float]]:
    """Name, claim, checks and seconds of each, as they finish; each in one process, which has its share of the cores."""
    jobs = min(jobs, len(names))
    if jobs <= 1:
        yield from (make(name, quick, folder, progress=sys.stderr.isatty()) for name in names)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"))  # a fork after compiled loops hangs
    with pool, _environment(shares(jobs)):
        tasks = [pool.submit(make, name, quick, folder, progress=False) for name in sorted(names, key=_dearest_first)]
        try:
            yield from (task.result() for task in as_completed(tasks))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the next ones do not begin


def _dearest_first(name: str) -> tuple[bool, str]:
    return not getattr(import_module(f"paper_figures.{name}"), "LONG", False), name  # or the last one would run alone


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """What processes that are started meanwhile see."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make(name: str, quick: bool, folder: Path, progress: bool) -> tuple[str, str, list[Check], float]:
    """Compute a figure and write it."""
    began, module = time.perf_counter(), import_module(f"paper_figures.{name}")
    data, checks = compute(module, quick, progress)
    write(module, data, checks, folder, name)
    return name, module.TITLE, checks, time.perf_counter() - began


def write(module: ModuleType, data: dict[str, np.ndarray], checks: list[Check], folder: Path, name: str) -> None:
    """NAME.png and NAME.svg, the arrays as NAME.npz, the checks as NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = plot(module, data)
    figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    with rc_context({"svg.hashsalt": name}):  # the same bytes for the same numbers
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    np.savez_compressed(folder / f"{name}.npz", **data)
    summary = {
        "title": module.TITLE,
        "checks": [
            {"claim": c.claim, "predicted": c.predicted, "measured": c.measured, "tolerance": c.tolerance, "holds": c.holds}
            for c in checks
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
