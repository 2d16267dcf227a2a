"""Where blocks are computed: in this process, one after the other, or by the workers of a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_AHEAD = 2  # tasks that a worker's thread has in hand or waiting: what is sent at once is bounded


def check_client(client: Any) -> Any:
    """An open dask.distributed Client, or None."""
    if client is None:
        return None
    if not all(callable(getattr(client, name, None)) for name in ("submit", "gather", "nthreads")) or isinstance(client, type):
        raise TypeError(f"client must be a dask.distributed Client or None, got {type(client).__name__}")
    status = getattr(client, "status", "running")
    if status != "running":
        raise ValueError(f"client must be open, got one that is {status}")
    return client


def each(client: Any, function: Callable, calls: Iterable[tuple]) -> Iterator[Any]:
    """function(*call) of all calls, in order."""
    if client is None:
        for call in calls:
            yield function(*call)
        return
    pending: deque = deque()
    most = _AHEAD * max(sum(client.nthreads().values()), 1)
    try:
        for call in calls:
            # not pure: files that are written again, layer by layer, keep their names
            pending.append(client.submit(function, *call, pure=False))
            if len(pending) >= most:
                yield client.gather(pending.popleft())
        while pending:
            yield client.gather(pending.popleft())
    finally:
        for future in pending:
            future.cancel()
