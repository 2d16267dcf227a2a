"""Solutions that are shown, summed up or stored time by time, so that not all their fields have to be held.

A few of the output times are solved for at once, which finds the grid; the others are dense output on it, some at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .. import capacity
from ..grid import Grid
from ..progress import track
from ..recording import Watch
from ..solution import Solution

TOGETHER = 16  # output times that are solved for at once
_HELD = 2**26  # bytes of fields at a time, where these are more times than that

Weighted = Callable[[Grid], tuple[np.ndarray, Callable[[np.ndarray], dict[str, np.ndarray]]]]


def watched(
    watch: Watch,
    times: np.ndarray,
    together: int,
    solve: Callable[[np.ndarray], Solution],
    weighted: Weighted,
    provenance: Callable[[], dict[str, Any]],
    progress: bool,
) -> Solution:
    """The solution at `times`, as the watch says.

    Parameters
    ----------
    watch : Watch
    times : (T,) array
    together : int
        How many of them are solved for at once: first and last, and evenly between them.
    solve : callable
        Output times -> the Solution there.
    weighted : callable
        Grid -> (what means over its nodes are weighted by, what stats say of fields (T, nodes, c)).
    provenance : callable
        What the call was given, once all of it was found to be good.
    progress : bool
    """
    times = times if watch.looks else times[-1:]
    few = np.unique(np.linspace(0, len(times) - 1, min(len(times), together)).round().astype(int))
    found = solve(times[few])
    times, grid = found.t if found.status else times, found.grid
    assert grid is not None
    capacity.fits(watch.nbytes(len(times), found.y[0]), "t")
    share, monitors = weighted(grid)
    record = watch.begin(len(times), grid=grid, share=share, embedding=found.embedding, provenance=provenance())
    status, message = found.status, found.message
    try:
        for t, y in _fields(found, times, progress):
            record.add(t, y)
    except KeyboardInterrupt:
        if record.count < len(times):
            status, message = status or 1, f"{record.how} at t = {max(record.last, 0.0):.4g}; {message}"
    if not record.count:  # a Solution has at least one time
        record.add(float(found.t[0]), found.y[0], watched=False)
    told = monitors(np.stack([y for _, y, _ in record.kept]).reshape(len(record.kept), grid.size, -1))
    stats = {**found.stats, **{name: values.tolist() for name, values in told.items() if name in found.stats}}
    return replace(record.solution(status, message, stats), dense=found.dense, local_error=found.local_error)


def _fields(found: Solution, times: np.ndarray, progress: bool) -> Iterator[tuple[float, np.ndarray]]:
    """Each time and the field (*grid, c) there."""
    known = dict(zip(found.t.tolist(), found.y))
    block = max(TOGETHER, _HELD // found.y[0].nbytes)
    starts = range(0, len(times), block)
    for start in track(starts, progress and len(starts) > 1, unit="block"):
        asked = times[start : start + block].tolist()
        missing = [t for t in asked if t not in known]
        new = {}
        if missing:
            assert found.dense is not None
            new = dict(zip(missing, found.dense(np.array(missing))))
        for t in asked:
            yield t, (known if t in known else new)[t]
