"""Near keys out of core: tokens in slabs along one feature, and for each slab the keys within reach of it.

**Sorting.** Two passes over the file: a histogram of the feature, which is cut into slabs of about a block of tokens
each, then every block of the file is split among the slabs. Slab files are filled from the front, so a run of each block
lies together in each slab, and both ways are sequential: values go to the slabs and results come back run by run.

**What is left out.** Two points are no nearer than their values of one feature, so that beyond the reach R of a slab no
key is nearer than R, and weighs at most exp(B - T), T = h(R^2) / (2 eps), B the largest bias. As in the engine `cells`,
which sums what is left with half of rtol, a row is accepted if T >= log(2 N / (rtol / 2)) - (log-sum-exp - B); any other
row is summed, slab by slab, over the reach that its log-sum-exp, a lower bound, says is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import Attended
from ..kernels.cells_engine.search import MARGIN, SPARE, check
from ..kernels.rules import reach_of
from ..similarity import PseudoMetric
from .merging import merge
from .pairs import Block, Kernel
from .rows import Npy, Piece, Rows, load, spans
from .tasks import each

_BINS = 2**16  # of the histogram: a slab is cut where a bin ends


@dataclass(frozen=True)
class Axis:
    """The feature along which slabs are cut, its smallest and largest value, its period or 0."""

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
    number = int(np.argmax(high - low))
    if f.pair.period is None:
        return Axis(number, float(low[number]), float(high[number]), 0.0)
    number = int(np.argmax(f.pair.period))
    return Axis(number, 0.0, f.pair.period[number], f.pair.period[number])


@dataclass(frozen=True)
class Slabs:
    """Points in slabs, where each slab begins, and the interval of the feature that it covers: what tasks are told."""

    points: Npy
    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Order:
    """The way of rows into slabs and back."""

    slabs: Slabs
    runs: np.ndarray  # (blocks + 1, slabs): where the run of a block begins in each slab
    place: Npy  # of the rows in a block's runs, one after the other: their places in the block
    block: int

    def sort(self, rows: Rows, path: Path) -> Npy:
        """Other rows of the same tokens, in the order of the slabs."""
        out = Npy.create(path, (rows.size, rows.columns))
        for k, (first, last) in enumerate(spans(rows.size, self.block)):
            self._split(k, rows.read(first, last)[self._order(first, last)], out)
        return out

    def unsort(self, rows: Npy) -> Iterator[tuple[int, int, np.ndarray]]:
        """Blocks of rows in the order of the file, from those in the order of the slabs."""
        for k, (first, last) in enumerate(spans(rows.size, self.block)):
            block = np.empty((last - first, rows.columns))
            parts = [rows.read(begin, end) for begin, end in zip(self.runs[k], self.runs[k + 1]) if end > begin]
            block[self._order(first, last)] = np.concatenate(parts)
            yield first, last, block

    def _order(self, first: int, last: int) -> np.ndarray:
        return self.place.read(first, last)[:, 0].astype(np.int64)

    def _split(self, k: int, block: np.ndarray, out: Npy) -> None:
        done = 0
        for begin, end in zip(self.runs[k], self.runs[k + 1]):
            if end > begin:
                out.write(int(begin), block[done : done + end - begin])
                done += end - begin


def cut(rows: Rows, features: Callable[[np.ndarray], np.ndarray], axis: Axis, block: int, folder: Path, name: str) -> Order:
    """Points sorted into slabs of about `block` of them, by two passes over their rows."""
    width = (axis.high - axis.low) / _BINS or 1.0

    def bins(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = axis.of(features(points))
        return x, np.clip((x - axis.low) / width, 0, _BINS - 1).astype(np.int64)

    held = np.zeros(_BINS, np.int64)
    for first, last in spans(rows.size, block):
        held += np.bincount(bins(rows.read(first, last))[1], minlength=_BINS)
    wanted = rows.size / ceil(rows.size / block)
    slab_of = np.unique(((np.cumsum(held) - held) // wanted)[held > 0], return_inverse=True)[1]
    slab_of_bin = np.zeros(_BINS, np.int64)
    slab_of_bin[held > 0] = slab_of
    count = int(slab_of.max()) + 1
    starts = np.append(0, np.cumsum(np.bincount(slab_of, held[held > 0], count).astype(np.int64)))
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    runs = np.empty((ceil(rows.size / block) + 1, count), np.int64)
    runs[0] = starts[:-1]
    points = Npy.create(folder / f"{name}-points.npy", (rows.size, rows.columns))
    place = Npy.create(folder / f"{name}-place.npy", (rows.size, 1), np.uint32)
    sorting = Order(Slabs(points, starts, low, high), runs, place, block)
    for k, (first, last) in enumerate(spans(rows.size, block)):
        some = rows.read(first, last)
        x, bin_of = bins(some)
        slab = slab_of_bin[bin_of]
        order = np.argsort(slab, kind="stable")
        place.write(first, order[:, None])
        np.minimum.at(low, slab, x)
        np.maximum.at(high, slab, x)
        runs[k + 1] = runs[k] + np.bincount(slab, minlength=count)
        sorting._split(k, some[order], points)
    return sorting


def near(
    kernel: Kernel, axis: Axis, slabs: Slabs, queries: Piece, values: Npy | None, bias: Npy | None, top: float
) -> np.ndarray:
    """What the queries of a slab see, (M, c + 1), log-sum-exps last: a task."""
    rows, f, half = load(queries), kernel.f, replace(kernel, rtol=min(kernel.rtol, 1.0) / 2)
    x = axis.of(f.query_features(rows))
    interval, size = (float(x.min()), float(x.max())), slabs.points.size
    enough = log(2 * size / half.rtol)
    depth = enough + (0.0 if bias is None else SPARE)

    def within(depth: float) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
        """Keys within the reach of a depth, with their values and bias, slab by slab."""
        reach = float(reach_of(f.pair, kernel.epsilon, depth + MARGIN))
        for k in range(len(slabs.low)):
            if not _overlap(axis, slabs.low[k], slabs.high[k], interval, reach):
                continue
            span = int(slabs.starts[k]), int(slabs.starts[k + 1])
            keys = slabs.points.read(*span)
            some = axis.reach(axis.of(f.key_features(keys)), *interval, reach)
            if some.any():
                yield keys[some], *(None if part is None else part.read(*span)[some] for part in (values, bias))

    found = list(zip(*within(depth)))
    log_sum_exp = np.full(len(rows), -np.inf)
    mean = np.zeros((len(rows), 0 if values is None else values.columns))
    if found:
        parts: Any = [None if part[0] is None else np.concatenate(part) for part in found]
        mean, log_sum_exp = half.attend(rows, *parts)
    left = np.flatnonzero(~(log_sum_exp - top >= enough - depth - MARGIN / 2))
    if len(left):
        needed = float(np.max(enough - (log_sum_exp[left] - top)))
        exact = replace(half, backend="numba", dtype="float64")  # logits of such rows are large
        mean[left], log_sum_exp[left] = merge(exact.attend(rows[left], *part) for part in within(needed))
    return np.column_stack([mean, log_sum_exp])


def _overlap(axis: Axis, low: float, high: float, interval: tuple[float, float], reach: float) -> bool:
    """Whether an interval of keys may hold one within reach of an interval of queries."""
    middle, half = (low + high) / 2, (high - low) / 2
    return bool(axis.reach(np.array([middle]), *interval, reach + half)[0])


@dataclass
class Near:
    """Sums over near keys for blocks of queries; see `Sums`."""

    kernel: Kernel
    axis: Axis
    queries: Order
    keys: Order
    folder: Path
    client: Any = None

    def __post_init__(self) -> None:
        check(self.kernel.f)

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]:
        """What every block of queries sees, in order."""
        of_keys = [
            None if rows is None else self.keys.sort(rows, self.folder / f"sorted-{name}.npy")
            for name, rows in (("values", values), ("bias", bias))
        ]
        top = 0.0 if bias is None else max(float(bias.read(*some).max()) for some in spans(bias.size, self.keys.block))
        points, starts = self.queries.slabs.points, self.queries.slabs.starts.tolist()
        slabs = list(zip(starts, starts[1:]))
        calls = ((self.kernel, self.axis, self.keys.slabs, points.piece(*slab), *of_keys, top) for slab in slabs)
        columns = 1 + (0 if values is None else values.columns)
        found = Npy.create(self.folder / "sorted-found.npy", (points.size, columns))
        for (first, _), result in zip(slabs, each(self.client, near, calls)):
            found.write(first, result)
        for first, last, block in self.queries.unsort(found):
            yield first, last, Attended(block[:, :-1], block[:, -1])
