"""How tokens that are not in memory are sorted into slabs along one feature, and what belongs to them there and back.

Two passes over the file: a histogram of the feature for every block, between quantiles of a sample, which is cut into slabs
of about a block of tokens each; then every block is split among the slabs, each run of it at a place of its own. Both ways are sequential and by
blocks, whoever computes these: values go to the slabs and results come back run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..similarity import PseudoMetric
from .rows import Npy, Piece, Rows, load, spans
from .tasks import each

Features = Callable[[np.ndarray], np.ndarray]
_BINS, _MOST = 64, 2**16  # of the histogram, for each slab and in all: slabs are cut where bins end


@dataclass(frozen=True)
class Axis:
    """The feature along which slabs are cut, its smallest and largest value, and its period or 0."""

    number: int
    low: float
    high: float
    period: float

    def of(self, features: np.ndarray) -> np.ndarray:
        """Its values (N,), on a torus between 0 and the period."""
        x = features[:, self.number]
        return x - self.period * np.floor(x / self.period) if self.period else x

    def reach(self, x: np.ndarray, low: float, high: float, distance: float) -> np.ndarray:
        """Which values may be within a distance of the interval from low to high, rounding included."""
        far = distance + 16 * np.finfo(float).eps * max(abs(self.low), abs(self.high), self.period)
        shifts = (-self.period, 0.0, self.period) if self.period else (0.0,)
        return np.any([(x + shift >= low - far) & (x + shift <= high + far) for shift in shifts], axis=0)


def axis_of(f: PseudoMetric, low: np.ndarray, high: np.ndarray) -> Axis:
    """The feature with the largest extent, given the corners of all features."""
    if f.pair.period is not None:
        number = int(np.argmax(f.pair.period))
        return Axis(number, 0.0, f.pair.period[number], f.pair.period[number])
    number = int(np.argmax(high - low))
    return Axis(number, float(low[number]), float(high[number]), 0.0)


@dataclass(frozen=True)
class Slabs:
    """Points in slabs, where each slab begins, and the interval of the feature that it covers: what tasks are told."""

    points: Npy
    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    block: int

    def parts(self, slab: int) -> list[tuple[int, int]]:
        """First and last points of a slab's even parts, of about a block: tokens of the same feature cannot be cut apart."""
        begin, end = self.starts[slab : slab + 2].tolist()
        count = max(round((end - begin) / self.block), 1)
        edges = [begin + (end - begin) * k // count for k in range(count + 1)]
        return list(zip(edges, edges[1:]))


@dataclass(frozen=True)
class Order:
    """The way of rows into slabs and back."""

    slabs: Slabs
    runs: np.ndarray  # (blocks + 1, slabs): where the run of a block begins in each slab
    place: Npy  # of the rows in a block's runs, one after the other: their places in the block
    client: Any

    def sort(self, rows: Rows, path: Path) -> Npy:
        """Other rows of the same tokens, in the order of the slabs."""
        out = Npy.create(path, (rows.size, rows.columns))
        calls = (
            (self.place.piece(*some), rows.piece(*some), self.runs[k : k + 2], out)
            for k, some in enumerate(spans(rows.size, self.slabs.block))
        )
        for _ in each(self.client, _sort, calls):
            pass
        return out

    def unsort(self, rows: Npy) -> Iterator[tuple[int, int, np.ndarray]]:
        """Blocks of rows in the order of the file, from those in the order of the slabs."""
        calls = (
            (self.place.piece(*some), rows, self.runs[k : k + 2]) for k, some in enumerate(spans(rows.size, self.slabs.block))
        )
        for (first, last), block in zip(spans(rows.size, self.slabs.block), each(self.client, _unsort, calls)):
            yield first, last, block


def cut(
    rows: Rows, sample: np.ndarray, features: Features, axis: Axis, block: int, folder: Path, name: str, client: Any
) -> Order:
    """Points, of which there is a sample, sorted into slabs of about `block` of them."""
    blocks = list(spans(rows.size, block))
    some_x = np.sort(axis.of(features(sample)))
    edges = np.unique(some_x[:: -(-len(some_x) // min(_BINS * len(blocks), _MOST))])[1:]
    held = np.array(list(each(client, _histogram, ((axis, features, edges, rows.piece(*some)) for some in blocks))))
    total = held.sum(axis=0)
    before, wanted = np.cumsum(total) - total, rows.size / len(blocks)
    slab = np.maximum.accumulate(np.where(total > 0, before // wanted, 0))  # of a bin: an empty one begins none
    begins = np.diff(slab, prepend=-1) > 0
    counts = np.add.reduceat(held, np.flatnonzero(begins), axis=1, dtype=np.int64)
    starts = np.append(0, np.cumsum(counts.sum(axis=0)))
    runs = starts[:-1] + np.append(np.zeros_like(counts[:1]), np.cumsum(counts, axis=0), axis=0)
    points = Npy.create(folder / f"{name}-points.npy", (rows.size, rows.columns))
    place = Npy.create(folder / f"{name}-place.npy", (rows.size, 1), np.uint32)
    edges = edges[begins[1:]]
    calls = (
        (axis, features, edges, rows.piece(*some), some[0], runs[k : k + 2], points, place) for k, some in enumerate(blocks)
    )
    low, high = np.full(len(starts) - 1, np.inf), np.full(len(starts) - 1, -np.inf)
    for least, most in each(client, _arrange, calls):
        low, high = np.minimum(low, least), np.maximum(high, most)
    return Order(Slabs(points, starts, low, high, block), runs, place, client)


def _histogram(axis: Axis, features: Features, edges: np.ndarray, points: Piece) -> np.ndarray:
    """How many of a block's points lie before, between and behind edges: a task."""
    bins = np.searchsorted(edges, axis.of(features(load(points))), side="right")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.uint32)


def _arrange(
    axis: Axis, features: Features, edges: np.ndarray, points: Piece, first: int, runs: np.ndarray, out: Npy, place: Npy
) -> tuple[np.ndarray, np.ndarray]:
    """Split a block's points among the slabs; the interval that they cover in each: a task."""
    some = load(points)
    x = axis.of(features(some))
    slab = np.searchsorted(edges, x, side="right")
    order = np.argsort(slab, kind="stable")
    place.write(first, order[:, None])
    _write(some[order], runs, out)
    held = np.diff(runs, axis=0)[0]
    begin, full = (np.cumsum(held) - held)[held > 0], held > 0
    low, high = np.full(len(held), np.inf), np.full(len(held), -np.inf)
    low[full], high[full] = np.minimum.reduceat(x[order], begin), np.maximum.reduceat(x[order], begin)
    return low, high


def _sort(place: Piece, rows: Piece, runs: np.ndarray, out: Npy) -> None:
    """Split a block's rows among the slabs: a task."""
    _write(load(rows)[load(place)[:, 0].astype(np.int64)], runs, out)


def _unsort(place: Piece, rows: Npy, runs: np.ndarray) -> np.ndarray:
    """A block's rows from the slabs: a task."""
    found = np.concatenate([rows.read(begin, end) for begin, end in runs.T.tolist() if end > begin])
    block = np.empty_like(found)
    block[load(place)[:, 0].astype(np.int64)] = found
    return block


def _write(block: np.ndarray, runs: np.ndarray, out: Npy) -> None:
    done = 0
    for begin, end in runs.T.tolist():
        if end > begin:
            out.write(begin, block[done : done + end - begin])
            done += end - begin
