"""How compiled loops run on all cores: Python's threads, which share a queue of pieces and live as long as the call.

Those of numba (prange) have layers that abort the process when two callers meet (workqueue) or after a fork (omp), and
double the time to compile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Thread

import numba


def in_threads(work: Callable[[int, int], None], count: int, piece: int) -> None:
    """work(first, last) for pieces of range(count); it must let go of the interpreter's lock."""
    threads = numba.get_num_threads()
    if threads == 1 or count <= piece:
        work(0, count)
        return
    starts = deque(range(0, count, piece))

    def run() -> None:
        while True:
            try:
                first = starts.popleft()
            except IndexError:
                return
            work(first, min(first + piece, count))

    others = [Thread(target=run, daemon=True) for _ in range(min(threads, len(starts)) - 1)]
    for other in others:
        other.start()
    try:
        run()
    finally:
        starts.clear()  # when interrupted, the others stop at the end of their piece
        for other in others:
            other.join()
