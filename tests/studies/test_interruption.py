"""Ctrl-C, SIGTERM and failures: what was finished is kept, what was not is nowhere, and nothing is left running."""

import csv
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

import attnflow as af
from attnflow.attention import BoundLayer
from attnflow.checks import PartialWarning
from attnflow.cli import main
from attnflow.studies import cells
from attnflow.studies.signals import Signals, Terminated
from attnflow.studies.workers import cores, shares

CIRCLE, P = af.Circle(), af.VonMises(1.0)


def cos(x):
    return np.cos(x[..., 0])


def study(initial=cos, sizes=(60,), **options):
    return af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, initial, 0.47, (0.1, 0.05), sizes, 2, **options)


def rows(result):
    return [{name: value for name, value in cell.items() if name != "seconds"} for cell in result.cells]


@pytest.fixture(autouse=True)
def nothing_kept():
    cells._kept.clear()
    yield
    cells._kept.clear()


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell that starts the tests in the background has them ignored, and by all of its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("after", [0, 3, 12, 20, 31, 39, 50, 61])
def test_an_interrupt_inside_a_run_of_layers_ends_the_study_and_leaves_no_number(tmp_path, monkeypatch, after):
    # propagate catches it and returns what it has, whose last row is a layer somewhere on the way
    right, count, real = rows(study().run(progress=False)), [], BoundLayer.step
    cells._kept.clear()

    def step(self, values):
        count.append(1)
        if len(count) == after + 1:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(BoundLayer, "step", step)
    first = study().run(tmp_path / "s.sqlite", progress=False)
    assert len(count) == after + 1, "it goes on computing"
    assert "interrupted after" in first.message and "run again with the same store to resume" in first.message
    assert rows(first) == [row for row in right if row in rows(first)] and len(first.cells) < len(right)
    second = study().run(tmp_path / "s.sqlite", progress=False)
    assert second.resumed == len(first.cells) and rows(second) == right


@pytest.mark.parametrize("status, error", [(1, KeyboardInterrupt), (-1, RuntimeError)])
def test_an_equation_that_was_not_solved_is_no_reference(tmp_path, monkeypatch, status, error):
    class Unfinished:
        def __init__(self, *_):
            pass

        def solve(self, initial, t):
            field = af.DriftDiffusion(P).solve(initial, 0.1)
            return af.Solution(field.t, field.y, grid=field.grid, status=status, message="half way", stats=field.stats)

    monkeypatch.setattr(cells, "limit", Unfinished)
    if error is KeyboardInterrupt:
        assert "interrupted after 0 of 6" in study().run(tmp_path / "s.sqlite", progress=False).message
    else:
        with pytest.raises(RuntimeError, match="half way"):
            study().run(tmp_path / "s.sqlite", progress=False)
    monkeypatch.undo()
    assert rows(study().run(tmp_path / "s.sqlite", progress=False)) == rows(study().run(progress=False))


def test_predictions_do_not_rest_on_half_a_solution(monkeypatch):
    result = study().run(progress=False)
    cells._kept.clear()
    broken = af.Solution(np.zeros(1), np.ones((1, 8, 1)), grid=CIRCLE.grid(8), status=1, message="half way")
    monkeypatch.setattr(cells, "limit", lambda *_: type("Half", (), {"solve": lambda *_: broken})())
    with pytest.raises(KeyboardInterrupt):
        result.predicted
    monkeypatch.undo()
    assert result.predicted.constant["epsilon"] > 0


class Fails:
    """Fails for many tokens until there is a file; at module level, so that processes can have it."""

    def __init__(self, mended):
        self.mended = mended

    def __call__(self, x):
        if len(x) == 61 and not self.mended.exists():
            raise ValueError("initial must be something else")
        return np.cos(x[..., 0])


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_fails_costs_itself_and_is_tried_again(tmp_path, jobs):
    path, right = tmp_path / "s.sqlite", rows(study(sizes=(60, 61)).run(progress=False))
    start = Fails(tmp_path / "mended")
    with pytest.warns(PartialWarning, match="4 of 10 cells failed, the first with ValueError: initial must be something else"):
        partial = study(start, (60, 61)).run(path, n_jobs=jobs, progress=False)
    assert partial.status == -1 and partial.message.startswith("partial: 4 of 10 cells failed")
    assert rows(partial) == [row for row in right if row["size"] != 61]
    with sqlite3.connect(path) as connection:
        kept = connection.execute("SELECT message, result, seed FROM cells WHERE status = 'failed'").fetchall()
    assert len(kept) == 4 and {row[:2] for row in kept} == {("ValueError: initial must be something else", None)}
    start.mended.touch()
    whole = study(start, (60, 61)).run(path, n_jobs=jobs, progress=False)
    assert whole.resumed == 6 and whole.status == 0 and rows(whole) == right


def test_a_row_that_is_none_fails_like_a_cell(tmp_path, monkeypatch):
    real, path = cells.run_cell, tmp_path / "s.sqlite"
    with monkeypatch.context() as today:
        today.setattr(cells, "run_cell", lambda made, cell: real(made, cell) | ({"error": np.nan} if cell.seed else {}))
        with pytest.warns(PartialWarning, match="4 of 10 cells failed, the first with ValueError: error must be a number"):
            partial = study(sizes=(60, 61)).run(path, progress=False)
    assert partial.status == -1 and len(partial.cells) == 6
    with sqlite3.connect(path) as connection:
        kept = connection.execute("SELECT message, result FROM cells WHERE status = 'failed'").fetchall()
    assert len(kept) == 4 and all("error must be a number from 0 on, got 'nan'" in said and row is None for said, row in kept)
    whole = study(sizes=(60, 61)).run(path, progress=False)
    assert whole.status == 0 and whole.resumed == 6


def test_a_callback_that_has_seen_enough_in_the_store_ends_the_study_there(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    study(sizes=(60,)).run(path, progress=False)
    monkeypatch.setattr(cells, "run_cell", lambda *_: pytest.fail("a cell was begun"))
    result = study(sizes=(60, 61)).run(path, progress=False, callback=lambda seen: len(seen.cells) == 6)
    assert result.status == 1 and result.message.startswith("stopped by callback after 6 of 10 cells")


@pytest.mark.parametrize("jobs", [1, 2])
def test_where_no_cell_can_be_finished_the_first_error_is_raised(tmp_path, jobs):
    made = study(lambda x: np.cos(x[..., 0]) + (0 if len(x) <= 64 else np.nan))  # a study itself looks at a few points only
    with pytest.raises(ValueError, match=r"initial\(points\) must be finite") as caught:
        made.run(tmp_path / "s.sqlite", n_jobs=jobs, progress=False)
    (note,) = caught.value.__notes__
    assert note == "after 0 of 6 cells; run again with the same store to resume"


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_no_exception_is_raised_where_it_would_free_memory_twice(number, error):
    # between two lines of llvmlite, while a compiled loop is read from disk: then Python itself crashed
    inside = {"__name__": "llvmlite.binding", "raise_signal": signal.raise_signal, "sleep": time.sleep}
    exec("def load(number, seconds, done):\n raise_signal(number)\n sleep(seconds)\n done.append(True)", inside)
    done = []
    with pytest.raises(error), Signals() as signals:
        inside["load"](number, 0.05, done)
        time.sleep(5)
        done.append("it never came")
    assert done == [True] and signals.arrived == number
    with pytest.raises(error), Signals():
        inside["load"](number, 0.0, done)  # it ends before the signal is raised again
    assert done == [True, True]


class Kills:
    """Kills its process for 61 tokens: always, or once for each file of a folder that it takes away."""

    def __init__(self, folder=None):
        self.folder = folder

    def __call__(self, x):
        if len(x) == 61 and (self.folder is None or self.may()):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.cos(x[..., 0])

    def may(self):
        for path in self.folder.iterdir():
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            return True
        return False


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    (tmp_path / "once").touch()
    result = study(Kills(tmp_path), (60, 61)).run(n_jobs=2, progress=False)
    assert not list(tmp_path.iterdir()) and result.status == 0
    assert rows(result) == rows(study(sizes=(60, 61)).run(progress=False))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_cell_that_kills_its_workers_is_named_and_the_others_go_on():
    what = r"4 of 10 cells failed, .*a process could not compute Cell\(.*it ended with status -9, 2 times"
    with pytest.warns(PartialWarning, match=what):
        result = study(Kills(), (60, 61)).run(n_jobs=2, progress=False)
    assert rows(result) == rows(study().run(progress=False))


def test_processes_that_cannot_begin_end_the_study(monkeypatch):
    monkeypatch.setattr("attnflow.studies.workers._START", "raise SystemExit(7)")
    with pytest.raises(RuntimeError, match="a process for cells could not begin: it ended with status 7"):
        study().run(n_jobs=2, progress=False)


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr("attnflow.studies.workers.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    assert shares(2)["OMP_NUM_THREADS"] == "2" and shares(2)["NUMBA_NUM_THREADS"] == "4"
    assert set(shares(16).values()) == {"1"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_cores_are_those_that_were_lent():
    lent = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(lent)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, lent)
    assert cores() == len(lent)


def test_warnings_come_out_of_processes():
    with pytest.warns(af.checks.IsolatedTokensWarning, match="attend only to themselves"):
        af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, cos, 0.01, (0.01, 0.005), (20,), 2).run(n_jobs=2, progress=False)


def test_a_client_is_told_to_drop_what_it_has_not_begun():
    class Future:
        cancelled = False

        def cancel(self):
            self.cancelled = True

    class Client:
        futures = []

        def submit(self, function, *args):
            self.futures.append(Future())
            return self.futures[-1]

        def gather(self, futures):
            raise KeyboardInterrupt

    result = study().run(client=Client(), progress=False)
    assert "interrupted after 0 of 6" in result.message and all(f.cancelled for f in Client.futures)


FILE = """
[density]
kind = "vonmises"
kappa = 1.0
[study]
t = 0.47
epsilons = [0.1, 0.05]
sizes = [200, 3000]
seeds = 6
"""


def command(tmp_path, jobs, out):
    (tmp_path / "study.toml").write_text(FILE)
    return ["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path / out), "--jobs", str(jobs)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main(command(folder, 1, "whole")) == 0
    return table(folder / "whole")


def table(folder):
    with open(folder / "converge.csv") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def running(pid):
    """The process's children and theirs that are no zombies: a container's first process may not reap."""
    processes = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                processes[int(entry)] = int(parent)
    family, size = {pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in processes.items() if parent in family}
    return family & set(processes)


def interrupt(arguments, number, store, cells_done, delay):
    """Start a command, wait for so many cells and a while, send the signal; status, seconds to the end, messages, left."""
    process = subprocess.Popen([sys.executable, "-m", "attnflow.cli", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120

    def stored():
        try:
            with sqlite3.connect(f"file:{store}?mode=rw", uri=True) as connection:
                return connection.execute("SELECT count(*) FROM cells WHERE key != ''").fetchone()[0]
        except sqlite3.Error:
            return -1

    while stored() < cells_done and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    family = running(process.pid)
    process.send_signal(number)
    sent = time.monotonic()
    _, said = process.communicate()
    seconds = time.monotonic() - sent
    time.sleep(max(0.0, 2 - seconds))
    said = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("attnflow:")]
    return process.returncode, seconds, said, {pid for pid in family if pid in running(pid)}


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("jobs, number, status", [(1, signal.SIGTERM, 143), (2, signal.SIGINT, 130)])
def test_a_signal_ends_the_command_at_once_and_the_next_run_resumes(tmp_path, whole, jobs, number, status):
    arguments = command(tmp_path, jobs, "out")
    code, _, said, left = interrupt(arguments, number, tmp_path / "out/study.sqlite", 1, 0.0)
    assert code == status and not left and len(said) == 1
    # after the last cell there is only the table left to interrupt
    assert re.search("of 26 cells; run again with the same store to resume|run the same command again", said[0])
    assert main(command(tmp_path, 1, "out")) == 0
    assert table(tmp_path / "out") == whole


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_thirty_random_moments_leave_the_same_table(tmp_path, whole, jobs):
    choose = random.Random(jobs)
    for moment in range(15):
        out, number = f"out{moment}", choose.choice([signal.SIGINT, signal.SIGTERM])
        arguments = command(tmp_path, jobs, out)
        code, _, said, left = interrupt(
            arguments, number, tmp_path / out / "study.sqlite", choose.randrange(0, 24), choose.uniform(0, 0.2)
        )
        assert code in (0, 128 + number) and not left and len(said) == (code != 0), (moment, code, said)
        assert main(command(tmp_path, 1, out)) == 0
        assert table(tmp_path / out) == whole, moment


IN_PYTHON = """
import os, random, signal, sys, threading, time
import numpy as np, attnflow as af
from attnflow.studies import cells
study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.47,
                            [0.1, 0.05], [200, 800], 8)
rows = lambda result: [{k: v for k, v in c.items() if k != "seconds"} for c in result.cells]
study.run(progress=False)
cells._kept.clear()
began = time.perf_counter()
right = rows(study.run(progress=False))
took, choose, interrupted = time.perf_counter() - began, random.Random(0), 0
for moment in range(20):
    cells._kept.clear()
    store, message = f"{sys.argv[1]}/{moment}.sqlite", "outside"
    timer = threading.Timer(choose.uniform(0, took), os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        message = study.run(store, n_jobs=1 + (moment % 5 == 4), progress=False).message
        timer.join()
    except KeyboardInterrupt:
        pass  # before or after the run
    timer.join()
    interrupted += "interrupted" in message
    assert rows(study.run(store, progress=False)) == right, moment
print(interrupted)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_twenty_random_moments_in_python_leave_the_same_table(tmp_path):
    run = subprocess.run([sys.executable, "-c", IN_PYTHON, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 10
