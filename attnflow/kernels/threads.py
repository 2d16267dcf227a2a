"""How compiled loops run on all cores: Python's threads, which share a queue of pieces.

Those of numba (prange) have layers that abort the process when two callers meet (workqueue) or after a fork (omp), and
double the time to compile. The threads are kept: to start one takes as long as to sort 5000 tokens.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba


def in_threads(work: Callable[[int, int], None], count: int, piece: int) -> None:
    """work(first, last) for pieces of range(count); it must let go of the interpreter's lock."""
    threads = numba.get_num_threads()
    if count <= piece:
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

    others = [_pool().submit(run) for _ in range(min(threads, len(starts)) - 1)]
    try:
        run()
    finally:
        starts.clear()  # when interrupted, the others stop at the end of their piece
        for other in others:
            if not other.cancel():  # one that another caller kept from starting is not waited for
                other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(numba.config.NUMBA_NUM_THREADS - 1, 1), "attnflow")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
