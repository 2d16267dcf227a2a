"""The one result type: what tokens, layers and equations all return, and how it is saved."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import checks
from .grid import KINDS, Axis, Grid

MONITORS = ("mean", "deviation", "mass")  # stats with an entry per time


@dataclass(repr=False)
class Solution:
    """Features or tokens over time.

    Attributes
    ----------
    t : (T,) array
        Times of the limit equation, in the units of the metric squared: layers * time_step for
        layers. For `evolve_continuous` the layer count, as in `layers`.
    y : (T, N, c) array for tokens, (T, *grid.shape, c) for fields
        c is kept when it is 1. For moving tokens y holds their positions.
    layers : (T,) array or None
        Number of layers at each saved time; None for a solution of the equation.
    points : (N, n) array or None
        Where fixed tokens sit.
    grid : Grid or None
        Where a field is sampled.
    status : int
        0 when finished, 1 when interrupted (what was computed is here), -1 when the method failed.
    message : str
        The status in words, with the remedy where there is one.
    stats : dict
        What ran: engine, sweeps, sizes, estimated errors.
    embedding : (grid.size, 2 or 3) array or None
        Where the grid's nodes sit in the plane or in space; None for the coordinates themselves.
    dense : callable or None
        Increasing times (M,) -> fields (M, *grid.shape, c) at any times >= 0, solved anew on the same grid
        from the initial values: as accurate as the saved ones. Not saved to files.
    """

    t: np.ndarray
    y: np.ndarray
    layers: np.ndarray | None = None
    points: np.ndarray | None = None
    grid: Grid | None = None
    status: int = 0
    message: str = "finished"
    stats: dict[str, Any] = field(default_factory=dict)
    embedding: np.ndarray | None = None
    dense: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        where = f"on {self.grid.shape} nodes" if self.grid else f"of {self.y.shape[1]} tokens"
        stats = {name: value for name, value in self.stats.items() if name not in MONITORS}
        return f"Solution({where}, {len(self.t)} times to t = {self.t[-1]:.4g}, {self.message!r}, {stats})"

    def at(self, points: np.ndarray, t: float | Sequence[float] | None = None) -> np.ndarray:
        """The field at points (M, n), interpolated at the grid's own order.

        On a line, beyond where the equation's weight ends, the values at that end hold.

        Parameters
        ----------
        points : (M, n) array
        t : float, sequence of float or None
            Saved times, or any times >= 0 where there is dense output; None means the last.

        Returns
        -------
        (M, c) array, or (len(t), M, c) for a sequence of times

        Raises
        ------
        ValueError
            If a time was neither saved nor is covered by dense output, or the solution lives on tokens: those have
            no values in between.
        """
        if self.grid is None:
            raise ValueError(
                "points must be grid points of a field, but this solution lives on tokens; "
                "extend it to other points with layer(tokens, values, queries=points)"
            )
        points = self.grid.check(points)
        if t is None:
            return self.grid.interpolate(self.y[-1], points)
        times = checks.sequence(t, "t", "times") if checks.listed(t) else (t,)
        fields = [self.grid.interpolate(field, points) for field in self._fields(times)]
        return np.stack(fields) if checks.listed(t) else fields[0]

    def _fields(self, times: Sequence[float]) -> list[np.ndarray]:
        """The fields at the times: saved ones as they are, all others from one run of the dense output."""
        times = [checks.real(time, "t") for time in times]
        found = [int(np.argmin(np.abs(self.t - time))) for time in times]
        missing = [
            time for time, k in zip(times, found) if abs(self.t[k] - time) > 1e-9 * max(abs(self.t[-1]), abs(time))
        ]
        if missing and (self.dense is None or min(missing) < 0):
            raise ValueError(
                f"t must be a saved time, got {missing[0]}; the nearest saved one is "
                f"{self.t[np.argmin(np.abs(self.t - missing[0]))]}; ask for it when solving"
            )
        between = np.unique(missing)
        dense = dict(zip(between.tolist(), self.dense(between))) if missing else {}
        return [dense.get(time, self.y[k]) for time, k in zip(times, found)]

    def save(self, path: str | os.PathLike) -> None:
        """Write to an .npz file, whole or not at all; read it back with `attnflow.load`."""
        path = checks.path(path, "path")
        axes = [] if self.grid is None else [[a.kind, a.size, a.low, a.high] for a in self.grid.axes]
        meta = {
            "axes": axes,
            "sphere": bool(self.grid and self.grid.sphere),
            "endless": list(self.grid.endless) if self.grid else [],
            "status": self.status,
            "message": self.message,
            "stats": self.stats,
        }
        arrays = {"t": self.t, "y": self.y, "layers": self.layers, "points": self.points, "embedding": self.embedding}
        partial = path.with_name(path.name + ".partial")
        try:
            with open(partial, "wb") as file:
                present = {name: a for name, a in arrays.items() if a is not None}
                np.savez_compressed(file, meta=np.array(json.dumps(meta, default=_plain)), **present)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def plot(self, ax=None):
        """Draw it; returns the Axes."""
        from .plotting.solutions import plot_solution

        return plot_solution(self, ax)

    def animate(self):
        """A matplotlib animation over the saved times."""
        from .plotting.solutions import animate_solution

        return animate_solution(self)


def load(path: str | os.PathLike) -> Solution:
    """Read a Solution written by `Solution.save`; nothing in the file is executed.

    Raises
    ------
    ValueError
        If the file is not such a file.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Solution(t=np.array([0.0]), y=np.ones((1, 2, 1))).save(f"{folder}/run.npz")
    ...     load(f"{folder}/run.npz").y.shape
    (1, 2, 1)
    """
    path = checks.path(path, "path")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta")))
        axes = tuple(
            Axis(checks.choice(kind, "kind", KINDS), int(size), float(low), float(high))
            for kind, size, low, high in meta["axes"]
        )
        endless = tuple((bool(low), bool(high)) for low, high in meta["endless"])
        grid = Grid(axes, bool(meta["sphere"]), endless) if axes else None
        status, message, stats = int(meta["status"]), str(meta["message"]), dict(meta["stats"])
        t, y = arrays["t"], arrays["y"]
        if t.ndim != 1 or y.ndim < 3 or len(y) != len(t) or (grid and y.shape[1:-1] != grid.shape):
            raise ValueError(f"y of shape {y.shape} does not fit {len(t)} times")
        if "embedding" in arrays and (grid is None or arrays["embedding"].shape not in ((grid.size, 2), (grid.size, 3))):
            raise ValueError(f"embedding of shape {arrays['embedding'].shape} does not fit the grid")
        return Solution(grid=grid, status=status, message=message, stats=stats, **arrays)
    except (KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"path must be a file written by Solution.save, got {str(path)!r} ({error})") from None


def _plain(value):
    """numpy numbers and arrays as JSON."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
