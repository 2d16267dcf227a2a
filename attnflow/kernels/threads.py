"""How compiled loops run on all cores: Python's threads, which share a queue of pieces.

Those of numba (prange) have layers that abort the process when two callers meet (workqueue) or after a fork (omp), and
double the time to compile. The threads are kept: to start one takes as long as to sort 5000 tokens.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numba

_PATIENCE = 60.0  # seconds that a fork waits for threads to leave a gate


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

    others: list[Future] = []
    try:
        others += (_pool().submit(run) for _ in range(min(threads, len(starts)) - 1))
        run()
    finally:
        starts.clear()  # when interrupted, the others stop at the end of their piece
        for other in others:
            if not other.cancel():  # one that another caller kept from starting is not waited for
                other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """All its threads run already, and none was started here: Ctrl-C, which only the main thread hears, between the start
    of one and its entry into the list of those that are told to end, would keep Python from ever ending."""
    count = max(numba.config.NUMBA_NUM_THREADS - 1, 1)  # type: ignore[attr-defined]  # set while numba is imported
    pool = ThreadPoolExecutor(count, "attnflow")

    def start() -> None:
        all_here = threading.Barrier(count)  # so that no task is taken by a thread that is idle again
        try:
            for _ in range(count):
                pool.submit(all_here.wait)
        except RuntimeError:  # Python is ending: those that wait are not kept
            all_here.abort()

    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
    return pool


class ForkGate:
    """What a process must not be forked within: any number of threads are inside, a fork waits until none is.

    A library's own lock that some thread holds is held for ever in a child, where that thread does not exist.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._shut, after_in_parent=self._open, after_in_child=self._reset)

    def __enter__(self) -> None:
        with self._door, self._left:
            self._inside += 1

    def __exit__(self, *_) -> None:
        with self._left:
            self._inside -= 1
            self._left.notify_all()

    def _reset(self) -> None:
        self._door, self._left, self._inside = threading.Lock(), threading.Condition(threading.Lock()), 0

    def _shut(self) -> None:
        self._door.acquire()
        with self._left:  # not for ever: a signal's handler may fork in a thread that is inside
            self._left.wait_for(lambda: self._inside == 0, timeout=_PATIENCE)

    def _open(self) -> None:
        self._door.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
