"""Near keys out of core: for each slab of tokens, see `slabs`, the keys within reach of it.

Two points are no nearer than their values of one feature, so that beyond the reach R of a slab no
key is nearer than R, and weighs at most exp(B - T), T = h(R^2) / (2 eps), B the largest bias. As in the engine `cells`,
which sums what is left with half of rtol, a row is accepted if T >= log(2 N / (rtol / 2)) - (log-sum-exp - B); any other
row is summed over the reach that its log-sum-exp, a lower bound, says is enough.
Keys come in groups of at most two blocks, and partial sums are merged: memory is that of blocks, however many are in reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import Attended
from ..kernels.cells_engine.search import MARGIN, SPARE
from ..kernels.rules import reach_of
from .merging import merge
from .pairs import Block, Kernel
from .rows import Npy, Piece, Rows, load, spans
from .slabs import Axis, Features, Order, Slabs
from .tasks import each


def near(
    kernel: Kernel,
    axis: Axis,
    slabs: Slabs,
    queries: Piece,
    values: Npy | None,
    bias: Npy | None,
    top: float,
    first: int,
    out: Npy,
) -> None:
    """What the queries of a slab see, (M, c + 1), log-sum-exps last, written from row `first` on: a task."""
    rows, f, half = load(queries), kernel.f, replace(kernel, rtol=min(kernel.rtol, 1.0) / 2)
    x = axis.of(f.query_features(rows))
    interval, size = (float(x.min()), float(x.max())), slabs.points.size
    enough = log(2 * size / half.rtol)
    depth = enough + (0.0 if bias is None else SPARE)

    def seen(by: Kernel, who: np.ndarray, depth: float) -> Attended:
        """What some queries see of keys within the reach of a depth; of those of a group, queries in reach of it."""
        nothing = Attended(np.zeros((len(who), 0 if values is None else values.columns)), np.full(len(who), -np.inf))
        reach = float(reach_of(f.pair, kernel.epsilon, depth + MARGIN))

        def partials() -> Iterator[Attended]:
            yield nothing
            for near_by, parts in _groups(axis, slabs, f.key_features, values, bias, interval, reach, x[who]):
                mean, log_sum_exp = np.zeros_like(nothing.mean), np.full(len(who), -np.inf)
                mean[near_by], log_sum_exp[near_by] = by.attend(rows[who[near_by]], *parts)
                yield Attended(mean, log_sum_exp)

        return merge(partials())

    mean, log_sum_exp = seen(half, np.arange(len(rows)), depth)
    left = np.flatnonzero(~(log_sum_exp - top >= enough - depth - MARGIN / 2))
    if len(left):
        needed = float(np.max(enough - (log_sum_exp[left] - top)))
        exact = replace(half, backend="numba", dtype="float64")  # logits of such rows are large
        mean[left], log_sum_exp[left] = seen(exact, left, needed)
    out.write(first, np.column_stack([mean, log_sum_exp]))


def _groups(
    axis: Axis,
    slabs: Slabs,
    features: Features,
    values: Npy | None,
    bias: Npy | None,
    interval: tuple[float, float],
    reach: float,
    x: np.ndarray,
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Keys within reach of an interval, with their values and bias, in groups of at most two blocks; before them the numbers
    of the queries, at `x`, that a group is within reach of."""
    held: list[tuple] = []
    near_by, count = np.zeros(len(x), bool), 0

    def group() -> tuple[np.ndarray, list[Any]]:
        return np.flatnonzero(near_by), [None if part[0] is None else np.concatenate(part) for part in zip(*held)]

    for slab in range(len(slabs.low)):
        if not _overlap(axis, slabs.low[slab], slabs.high[slab], interval, reach):
            continue
        for span in slabs.parts(slab):
            keys = slabs.points.read(*span)
            of_keys = axis.of(features(keys))
            some = axis.reach(of_keys, *interval, reach)
            here = axis.reach(x, of_keys[some].min(initial=np.inf), of_keys[some].max(initial=-np.inf), reach)
            if not here.any():
                continue
            if held and count + some.sum() > 2 * slabs.block:
                yield group()
                held, count = [], 0
                near_by[:] = False
            held.append((keys[some], *(None if part is None else part.read(*span)[some] for part in (values, bias))))
            count += int(some.sum())
            near_by |= here
    if held:
        yield group()


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

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]:
        """What every block of queries sees, in order."""
        of_keys = [
            None if rows is None else self.keys.sort(rows, self.folder / f"sorted-{name}.npy")
            for name, rows in (("values", values), ("bias", bias))
        ]
        top = 0.0 if bias is None else max(float(bias.read(*some).max()) for some in spans(bias.size, self.keys.slabs.block))
        slabs = self.queries.slabs
        found = Npy.create(self.folder / "sorted-found.npy", (slabs.points.size, 1 + (0 if values is None else values.columns)))
        context = self.kernel, self.axis, self.keys.slabs
        parts = (part for slab in range(len(slabs.low)) for part in slabs.parts(slab))
        calls = ((*context, slabs.points.piece(*part), *of_keys, top, part[0], found) for part in parts)
        for _ in each(self.client, near, calls):
            pass
        for first, last, block in self.queries.unsort(found):
            found_there = Attended(block[:, :-1], block[:, -1])
            yield first, last, self.kernel.check(found_there, np.arange(first, last))
