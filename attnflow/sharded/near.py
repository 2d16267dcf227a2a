"""Near keys out of core: for each slab of tokens, see `slabs`, the keys within reach of it.

Two points are no nearer than their values of one feature, so that beyond the reach R of a slab no
key is nearer than R, and weighs at most exp(B - T), T = h(R^2) / (2 eps), B the largest bias. As in the engine `cells`,
which sums what is left with half of rtol, a row is accepted if T >= log(2 N / (rtol / 2)) - (log-sum-exp - B); any other
row is summed, slab by slab, over the reach that its log-sum-exp, a lower bound, says is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import Attended
from ..kernels.cells_engine.search import MARGIN, SPARE, check
from ..kernels.rules import reach_of
from .merging import merge
from .pairs import Block, Kernel
from .rows import Npy, Piece, Rows, load, spans
from .slabs import Axis, Order, Slabs
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
    out.write(first, np.column_stack([mean, log_sum_exp]))


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
        found = Npy.create(self.folder / "sorted-found.npy", (points.size, 1 + (0 if values is None else values.columns)))
        context = self.kernel, self.axis, self.keys.slabs
        calls = ((*context, points.piece(*slab), *of_keys, top, slab[0], found) for slab in zip(starts, starts[1:]))
        for _ in each(self.client, near, calls):
            pass
        for first, last, block in self.queries.unsort(found):
            found_there = Attended(block[:, :-1], block[:, -1])
            yield first, last, self.kernel.check(found_there, np.arange(first, last))
