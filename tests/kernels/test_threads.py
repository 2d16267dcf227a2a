"""Threads that share pieces: they end with Python, whenever it is interrupted."""

import os
import subprocess
import sys

import pytest

INTERRUPTED = """
import threading
from attnflow.kernels import threads

real, seen = threading.Thread.start, []

def start(self):  # Ctrl-C between the start of a thread and whatever comes after it
    real(self)
    if threading.current_thread() is threading.main_thread() and len(seen) < {times}:
        seen.append(self)
        raise KeyboardInterrupt

threading.Thread.start = start
for _ in range({calls}):
    try:
        threads.in_threads(lambda first, last: None, 100, 1)
        print("done")
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("threads, times, calls", [(2, 1, 1), (4, 1, 1), (4, 3, 4)])
def test_python_ends_after_an_interrupt_while_threads_start(threads, times, calls):
    code, environment = INTERRUPTED.format(times=times, calls=calls), {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0 and run.stdout == "interrupted\n" * times + "done\n" * (calls - times), run.stderr
