"""Processes that compute cells, each by itself: what is sent to them, what they answer, and how they end.

A worker is a Python process that reads from its standard input, a pipe: the study, then cells; and writes an answer to
each. It ends with its input, so none outlives its parent, however that ends; workers of a process pool compute on after
a parent that was killed. One that dies takes its cell with it and nothing else: another takes its place and tries the cell
once more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator
from queue import Empty, SimpleQueue

import cloudpickle  # functions of a script or a notebook, lambdas; read only from a pipe to one's own child or parent

from ..kernels.costs import reckon_with, threads
from .cells import Answer, answer_of, check_same, known_by
from .design import Cell, Design
from .signals import Signals

_POLL = 0.1  # seconds between looks for a signal
_TRIES = 2  # of a cell whose process dies
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_START = "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); from {module} import serve; serve()"


def in_processes(study: Design, cells: list[Cell], n_jobs: int, signals: Signals) -> Generator[tuple[Cell, Answer], None, None]:
    """Each cell and its answer, as they come; closed, it leaves no process behind."""
    signals.deferred = True  # an exception in the middle of a start would lose the process
    crew = _Crew(study, cells, n_jobs)
    try:
        crew.start()
        for _ in cells:
            cell, answer = crew.next(signals)
            if cell is None or not (answer.error is None or isinstance(answer.error, Exception)):
                assert answer.error is not None
                raise answer.error
            yield cell, answer
    finally:
        crew.stop()
        signals.deferred = False
    signals.check()


class _Crew:
    """Processes at work on the same cells, each with a thread that feeds it."""

    def __init__(self, study: Design, cells: list[Cell], n_jobs: int) -> None:
        self._begin = json.dumps(sys.path).encode() + b"\n" + cloudpickle.dumps((study, known_by(study), threads()))
        self._tasks = deque(cells)
        self._answers: SimpleQueue[tuple[Cell | None, Answer]] = SimpleQueue()
        self._n_jobs = n_jobs
        self._processes: list[subprocess.Popen] = []
        self._lock, self._over = threading.Lock(), False

    def start(self) -> None:
        for _ in range(self._n_jobs):
            threading.Thread(target=self._keep_one, daemon=True).start()

    def next(self, signals: Signals) -> tuple[Cell | None, Answer]:
        """A cell and its answer; no cell where no process can be had."""
        while True:
            signals.check()
            try:
                return self._answers.get(timeout=_POLL)
            except Empty:
                pass

    def stop(self) -> None:
        with self._lock:
            self._over = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _keep_one(self) -> None:
        """Keep one process at work until no cell is left; another one where it dies."""
        lost: Cell | None = None
        tries = 0
        try:
            while (process := self._start()) is not None:
                before, (lost, end) = lost, self._ask(process, lost)
                if not end:
                    return
                tries = tries + 1 if lost == before else 1
                if lost is None:  # it had not begun
                    raise OSError(end)
                if tries == _TRIES:
                    self._answers.put((lost, _failed(f"a process could not compute {lost}: {end}, {tries} times")))
                    lost = None
        except OSError as error:
            self._answers.put((None, _failed(f"a process for cells could not begin: {error}")))

    def _start(self) -> subprocess.Popen | None:
        with self._lock:
            if self._over:
                return None
            process = subprocess.Popen(
                [sys.executable, "-c", _START.format(module=__name__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **shares(self._n_jobs)},
                start_new_session=True,  # Ctrl-C in a terminal goes to its foreground processes: this one's parent tells it
            )
            self._processes.append(process)
            return process

    def _ask(self, process: subprocess.Popen, cell: Cell | None) -> tuple[Cell | None, str]:
        """Give a process one cell after the other: the one it did not answer, and how it ended; "" when none is left."""
        assert process.stdin is not None and process.stdout is not None
        try:
            with process.stdin, process.stdout:
                process.stdin.write(self._begin)
                process.stdin.flush()
                if (ready := cloudpickle.load(process.stdout)).error is not None:
                    self._answers.put((None, ready))
                    return None, ""
                while True:
                    if cell is None and (cell := self._next_task()) is None:
                        return None, ""
                    process.stdin.write(cloudpickle.dumps(cell))
                    process.stdin.flush()
                    self._answers.put((cell, cloudpickle.load(process.stdout)))
                    cell = None
        except Exception as error:  # a pipe that broke, half an answer
            try:
                return cell, f"it ended with status {process.wait(timeout=1)}"
            except subprocess.TimeoutExpired:
                process.kill()
                return cell, f"{type(error).__name__}: {error}"

    def _next_task(self) -> Cell | None:
        try:
            return self._tasks.popleft()
        except IndexError:
            return None


def shares(n_jobs: int) -> dict[str, str]:
    """The environment that gives each of so many processes its share of the cores, or fewer threads where that is set.

    Examples
    --------
    >>> set(shares(10**6).values())
    {'1'}
    """
    share = max(1, cores() // n_jobs)
    given = {name: os.environ.get(name, "") for name in _THREADS}
    return {name: str(min(share, int(value)) if value.isdecimal() and int(value) else share) for name, value in given.items()}


def cores() -> int:
    """That this process may use: a cluster lends a job some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve() -> None:
    """The worker's side."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints must not come between the answers

    def say(answer: Answer) -> None:
        outbox.write(_packed(answer))
        outbox.flush()

    try:
        study, known, count = cloudpickle.load(inbox)
        check_same(study, known)
    except Exception as error:  # a module that is not there
        say(Answer(None, error, []))
        return
    reckon_with(count)
    say(Answer(None, None, []))
    tasks: SimpleQueue[Cell] = SimpleQueue()

    def read() -> None:
        try:
            while True:
                tasks.put(cloudpickle.load(inbox))
        finally:
            os._exit(0)  # in the middle of a cell too: nobody is left to hear of it

    threading.Thread(target=read, daemon=True).start()
    while True:
        say(answer_of(study, tasks.get()))


def _packed(answer: Answer) -> bytes:
    try:
        packed = cloudpickle.dumps(answer)
        cloudpickle.loads(packed)  # exceptions may refuse that
        return packed
    except Exception:
        return cloudpickle.dumps(_failed(f"{type(answer.error).__name__}: {answer.error}"))


def _failed(how: str) -> Answer:
    return Answer(None, RuntimeError(how), [])
