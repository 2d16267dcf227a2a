"""What becomes of the layers that a run saves: kept or summed up, written to a store, shown to a callback."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import checks, display, stores
from .grid import Grid
from .solution import Solution

SAVE = ("all", "final", "statistics")
_STATISTICS: dict[str, Callable] = {
    "mean": np.ndarray.mean,
    "variance": np.ndarray.var,
    "min": np.ndarray.min,
    "max": np.ndarray.max,
}


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """What a callback sees.

    Attributes
    ----------
    layer : int, float or None
        Layers done so far; None for an equation and for random paths.
    t : float
        As in `Solution.t`.
    y : array
        As one entry of `Solution.y`, read-only: features (N, c), positions (N, n) of tokens that move, a field (*grid, c).
    """

    layer: float | None
    t: float
    y: np.ndarray

    __repr__ = display.of_fields


class Stopped(KeyboardInterrupt):
    """The callback wants what Ctrl-C wants: the run ends, and what was saved is returned."""


@dataclass(frozen=True)
class Watch:
    """How a run is asked to save: checked, before any work.

    Attributes
    ----------
    save : {"all", "final", "statistics"}
    every : int
        Layers from one that is saved to the next.
    callback : callable or None
    store : Path or None
    """

    save: str
    every: int = 1
    callback: Callable[[Step], Any] | None = None
    store: Path | None = None

    @classmethod
    def of_times(cls, save: str, callback: Callable[[Step], Any] | None, store: str | os.PathLike | None) -> Watch:
        """From the arguments of a run that is asked for output times.

        Raises
        ------
        ValueError, TypeError
            Naming the argument.
        ImportError
            For a Zarr store without zarr.
        """
        save = checks.choice(save, "save", SAVE)
        if callback is not None:
            checks.function(callback, "callback", "callable on a step, with .layer, .t and .y, or None")
        return cls(save, 1, callback, None if store is None else stores.check_new(store))

    @classmethod
    def of_layers(cls, save_every: int, save: str | int, callback, store) -> Watch:
        """From the arguments of a run through layers, where `save` may be a number in place of save_every; as `of_times`."""
        every = checks.integer(save_every, "save_every", least=1)
        if checks.lone(save) is not None:
            if every != 1:
                raise ValueError(f"save must be a word beside save_every, which is {every}, got {checks.short(save)}")
            every, save = checks.integer(save, "save", least=1), "all"
        return replace(cls.of_times(save, callback, store), every=every)  # type: ignore[arg-type]

    @property
    def sparing(self) -> bool:
        """Whether memory must not grow with what is saved."""
        return self.save != "all"

    @property
    def idle(self) -> bool:
        """Whether all is kept, and nothing else is done with it."""
        return self == Watch("all", self.every)

    @property
    def looks(self) -> bool:
        """Whether anything is done with what is saved before the last."""
        return self.save != "final" or self.callback is not None or self.store is not None

    def nbytes(self, count: int, y: np.ndarray) -> int:
        """Held at the end of a run that saved `count` layers or times like y: each, and once more as the Solution's."""
        told = 8 * len(_STATISTICS) * y.shape[-1] * count if self.save == "statistics" else 0
        return 2 * ((y.nbytes + 8) * (1 if self.sparing else count) + told)

    def begin(
        self,
        length: int,
        points: np.ndarray | None = None,
        grid: Grid | None = None,
        share: np.ndarray | None = None,
        *,
        embedding: np.ndarray | None = None,
        provenance: dict[str, Any],
    ) -> Recorder:
        """The run begins.

        Parameters
        ----------
        length : int
            How many layers or times will be saved, at most.
        points, grid, embedding
            As of the Solution.
        share : (nodes,) array or None
            Of the tokens at each node of a grid, for the statistics; None: equal ones.
        provenance : dict
        """
        return Recorder(self, length, points, grid, share, embedding, provenance)


class Recorder:
    """What was saved so far."""

    def __init__(self, watch: Watch, length: int, points, grid, share, embedding, provenance) -> None:
        self.watch, self.grid, self.share, self.provenance = watch, grid, share, provenance
        self.still = {"points": points, "embedding": embedding}
        self.kept: list[tuple[float, np.ndarray, float | None]] = []
        self.seen: list[tuple[float, float | None, list[np.ndarray]]] = []
        self.count, self.stopped = 0, False
        self.writer = None
        if watch.store is not None:
            meta = stores.encode(grid, 1, stores.CUT_OFF, {}, provenance)
            self.writer = stores.create(watch.store, meta, length, **self.still)

    @property
    def how(self) -> str:
        """What ended a run that did not finish, in a word or two."""
        return "stopped by callback" if self.stopped else "interrupted"

    @property
    def here(self) -> str:
        """What the Solution of a run that did not finish has of those that were, in words."""
        if not self.watch.sparing:
            return "they are here"
        return "the last is here" if self.writer is None else "they are in the store, the last here too"

    @property
    def last(self) -> float:
        """The last time that was saved; -inf before the first."""
        return self.kept[-1][0] if self.kept else -np.inf

    def add(self, t: float, y: np.ndarray, layer: float | None = None, watched: bool = True) -> None:
        """One saved layer or time; y is the recorder's from now on. Not `watched`: the end of a run that was cut short.

        Raises
        ------
        Stopped
            If the callback says so.
        """
        if self.grid is not None:
            y = y.reshape(*self.grid.shape, -1)
        seen = [(t, layer, self._statistics(y))] if self.watch.save == "statistics" else []
        if self.writer is not None:
            self.writer.write(self.count, t, y, layer)
        self.seen[self.count :] = seen
        self.kept[0 if self.watch.sparing else self.count :] = [(t, y, layer)]
        self.count += 1  # the last: what Ctrl-C cut short is written over
        if watched and self.watch.callback is not None:
            if self.watch.callback(Step(layer, t, _read_only(y))):
                self.stopped = True
                raise Stopped

    def solution(self, status: int, message: str, stats: dict[str, Any]) -> Solution:
        """The run has ended."""
        t, y, layers = zip(*self.kept)
        if self.watch.save == "statistics":
            stats = {**stats, "statistics": self._told()}
        if self.writer is not None:
            self.writer.end(stores.encode(self.grid, status, message, stats, self.provenance, self.count))
        counted = None if layers[0] is None else np.array(layers)
        what = {"layers": counted, "grid": self.grid, "status": status, "message": message, "stats": stats}
        return Solution(np.array(t), np.stack(y), **what, **self.still, provenance=self.provenance)

    def _statistics(self, y: np.ndarray) -> list[np.ndarray]:
        flat = y.reshape(-1, y.shape[-1])
        if self.share is None:
            return [one(flat, axis=0) for one in _STATISTICS.values()]
        mean = self.share @ flat
        return [mean, self.share @ (flat - mean) ** 2, flat.min(axis=0), flat.max(axis=0)]

    def _told(self) -> dict[str, np.ndarray]:
        times, layers, values = zip(*self.seen)
        told = {name: np.stack(column) for name, column in zip(_STATISTICS, zip(*values))}
        return {"t": np.array(times), **({} if layers[0] is None else {"layers": np.array(layers)}), **told}


def _read_only(y: np.ndarray) -> np.ndarray:
    shown = y.view()
    shown.flags.writeable = False
    return shown
