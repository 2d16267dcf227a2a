"""Studies that are killed, and clusters that lose a worker, end with the numbers of an undisturbed run; and what that costs."""

import inspect
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import attnflow as af
from attnflow.studies import cells as cells_of
from attnflow.studies import sweep
from attnflow.studies.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")]
P = af.VonMises(1.0)


def study(initial=lambda x: np.cos(x[..., 0]), seeds=198):
    return af.ConvergenceStudy(af.SquaredDistance(af.Circle()), P, initial, 0.2, (0.2, 0.1), (30,), seeds)


def rows(result):
    return [{name: value for name, value in cell.items() if name != "seconds"} for cell in result.cells]


def finished(path):
    try:
        with sqlite3.connect(f"file:{path}?mode=rw", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM cells WHERE status = 'finished'").fetchone()[0]
    except sqlite3.Error:  # it is not there yet; read-only, a journal that a kill left could not be played back
        return 0


def pausing(x):
    time.sleep(0.02 * (len(x) == 30))
    return np.cos(x[..., 0])


SCRIPT = f"""
import sys, time, numpy as np, attnflow as af

{inspect.getsource(pausing)}
study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), pausing, 0.2, (0.2, 0.1), (30,), 199)
most = int(sys.argv[3])  # then it waits to be killed, however late that is
study.run(sys.argv[1], n_jobs=int(sys.argv[2]), progress=False, callback=lambda seen: time.sleep(100 * (len(seen.cells) >= most)))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_four_hundred_cells_killed_five_times_equal_an_uninterrupted_run(tmp_path, jobs):
    path, seen = tmp_path / "s.sqlite", []
    for kill in range(5):
        least = 60 * (kill + 1)
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(jobs), str(least + 15)])
        deadline = time.monotonic() + 120
        while finished(path) < least and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        seen.append(finished(path))
    made = study(pausing, seeds=199)
    assert 60 <= seen[0] < seen[1] < seen[2] < seen[3] < seen[4] < len(made.cells()) == 400
    resumed = made.run(path, progress=False)
    assert resumed.resumed == seen[-1] and rows(resumed) == rows(study(seeds=199).run(progress=False))


def test_two_processes_share_a_store(tmp_path):
    path = tmp_path / "s.sqlite"
    both = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), "1", "1000"]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    shared = study(pausing, seeds=199).run(path, progress=False)
    assert shared.resumed == 400 and rows(shared) == rows(study(seeds=199).run(progress=False))


@pytest.mark.optional
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_that_loses_a_worker_gives_the_numbers_of_a_serial_run(tmp_path):
    distributed = pytest.importorskip("distributed")
    made, path, killed = study(slowly, 20), tmp_path / "s.sqlite", []

    def lose_one(worker):
        while finished(path) < 5:
            time.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        killed.append(finished(path))

    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = list(client.run(os.getpid).values())
        thread = threading.Thread(target=lose_one, args=workers[:1])
        thread.start()
        result = made.run(path, client=client, progress=False)
        thread.join()
    assert len(set(workers)) == 3 and 5 <= killed[0] < len(made.cells()) and result.status == 0
    assert rows(result) == rows(study(seeds=20).run(progress=False))
    with pytest.raises(ValueError, match="client must be open and compute, got Client"):
        made.run(client=client, progress=False)


def slowly(x):
    time.sleep(0.05 * (len(x) == 30))
    return np.cos(x[..., 0])


def test_keeping_and_handing_out_cells_takes_less_than_a_twentieth_of_a_second_each(tmp_path, monkeypatch):
    made = study(seeds=6)
    known = {cells_of.Cell(c["epsilon"], float(c["size"]), c["seed"]): c for c in made.run(progress=False).cells}

    def sleep(study, cell):
        time.sleep(1)
        return known[cell]

    monkeypatch.setattr(cells_of, "run_cell", sleep)
    began = time.monotonic()
    made.run(tmp_path / "s.sqlite", progress=False)
    assert time.monotonic() - began < 1.05 * len(known)


def test_processes_that_wait_for_cells_lose_less_than_a_twentieth(tmp_path, monkeypatch):
    times, real = [], Store.add

    def add(self, entry):
        real(self, entry)
        if entry.kind == "cell" and entry.parameters["size"] == 30:
            times.append(time.monotonic())

    monkeypatch.setattr(sweep.Store, "add", add)
    af.ConvergenceStudy(af.SquaredDistance(af.Circle()), P, sleeps, 0.2, (0.2, 0.1), (30,), 11).run(
        tmp_path / "s.sqlite", n_jobs=2, progress=False
    )
    # twenty-two cells of a second by two: after the first is there, the others take ten and a half
    assert times[-1] - times[0] < 1.05 * 10.5


def sleeps(x):
    time.sleep(1.0 * (len(x) == 30))
    return np.cos(x[..., 0])
