"""Processes that compute cells, each by itself: what is sent to them, what they answer, and how they end.

A worker is a Python process that reads from its standard input, a pipe: the study, then cells; and writes an answer to
each. It ends with its input, so none outlives its parent. No semaphores, no process that tracks them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import NamedTuple

import cloudpickle  # functions of a script or a notebook, lambdas; read only from a pipe to one's own child or parent

from .. import checks
from ..kernels.costs import reckon_with, threads
from .cells import run_cell
from .design import Cell, Design
from .signals import Signals

_POLL = 0.1  # seconds between looks for a signal
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_START = "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); from {module} import serve; serve()"


class _Answer(NamedTuple):
    """A cell's row, or the exception it raised; and its warnings."""

    row: dict | None
    error: BaseException | None
    warned: list[tuple[str, type[Warning]]]


def in_processes(study: Design, cells: list[Cell], n_jobs: int, signals: Signals) -> Generator[tuple[Cell, dict], None, None]:
    """Results as they finish; closed, it leaves no process behind."""
    begin = json.dumps(sys.path).encode() + b"\n" + cloudpickle.dumps((study, threads()))
    tasks, processes = deque(cells), []
    answers: SimpleQueue[tuple[Cell, _Answer]] = SimpleQueue()
    signals.deferred = True  # an exception in the middle of a start would lose the process
    try:
        for _ in range(n_jobs):
            processes.append(_start(n_jobs))
            threading.Thread(target=_ask, args=(processes[-1], begin, tasks, answers), daemon=True).start()
        for _ in cells:
            cell, answer = _next(answers, signals)
            for message, category in answer.warned:
                checks.warn(message, category)
            if answer.error is not None:
                raise answer.error
            assert answer.row is not None
            yield cell, answer.row
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        signals.deferred = False
    signals.check()


def serve() -> None:
    """The worker's side."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints must not come between the answers
    study, count = cloudpickle.load(inbox)
    reckon_with(count)
    tasks: SimpleQueue[Cell] = SimpleQueue()

    def read() -> None:
        try:
            while True:
                tasks.put(cloudpickle.load(inbox))
        finally:
            os._exit(0)  # in the middle of a cell too: nobody is left to hear of it

    threading.Thread(target=read, daemon=True).start()
    while True:
        outbox.write(_answer(study, tasks.get()))
        outbox.flush()


def _start(n_jobs: int) -> subprocess.Popen:
    share = str(max(1, (os.cpu_count() or 1) // n_jobs))
    return subprocess.Popen(
        [sys.executable, "-c", _START.format(module=__name__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**dict.fromkeys(_THREADS, share), **os.environ},
        start_new_session=True,  # Ctrl-C in a terminal goes to its foreground processes: this one's parent tells it
    )


def _ask(process: subprocess.Popen, begin: bytes, tasks: deque, answers: SimpleQueue) -> None:
    """Give a worker one cell after the other until none is left."""
    cell = None
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdin, process.stdout:
            process.stdin.write(begin)
            while True:
                try:
                    cell = tasks.popleft()
                except IndexError:  # none is left
                    return
                process.stdin.write(cloudpickle.dumps(cell))
                process.stdin.flush()
                answers.put((cell, cloudpickle.load(process.stdout)))
    except Exception as error:
        end = f"it ended with status {process.wait()}" if isinstance(error, (OSError, EOFError)) else str(error)
        answers.put((cell, _Answer(None, RuntimeError(f"a process could not compute {cell}: {end}"), [])))


def _next(answers: SimpleQueue, signals: Signals) -> tuple[Cell, _Answer]:
    while True:
        signals.check()
        try:
            return answers.get(timeout=_POLL)
        except Empty:
            pass


def _answer(study: Design, cell: Cell) -> bytes:
    row = error = None
    with warnings.catch_warnings(record=True) as warned:
        try:
            row = run_cell(study, cell)
        except BaseException as raised:  # the parent raises it
            error = raised
    said = [(str(w.message), w.category) for w in warned]
    try:
        answer = cloudpickle.dumps(_Answer(row, error, said))
        cloudpickle.loads(answer)  # exceptions may refuse that
        return answer
    except Exception:
        return cloudpickle.dumps(_Answer(None, RuntimeError(f"{type(error).__name__}: {error}"), []))
