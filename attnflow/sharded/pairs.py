"""All pairs, shard by shard: any pseudo-metric, by the engines that sum everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..kernels import Attended, attend
from ..similarity import PseudoMetric
from .merging import merge
from .rows import Piece, Rows, load, spans
from .tasks import each

Block = tuple[int, int, Attended]  # first and last query, and what they see


@dataclass(frozen=True)
class Kernel:
    """What a task has to know of the layer."""

    f: PseudoMetric
    epsilon: float
    backend: str
    dtype: str
    rtol: float

    def attend(self, queries: np.ndarray, keys: np.ndarray, values: np.ndarray | None, bias: np.ndarray | None) -> Attended:
        """The primitive on arrays; `bias` is a column."""
        bias = None if bias is None else bias[:, 0]
        return attend(self.f, self.epsilon, queries, keys, values, bias, self.backend, self.dtype, self.rtol)


def partial(kernel: Kernel, queries: Piece, keys: Piece, values: Piece | None, bias: Piece | None) -> Attended:
    """What some queries see of a shard of the keys: a task."""
    of_values, of_bias = (None if part is None else load(part) for part in (values, bias))
    return kernel.attend(load(queries), load(keys), of_values, of_bias)


@dataclass
class Pairs:
    """Sums over all keys for blocks of queries; see `Sums`."""

    kernel: Kernel
    queries: Rows
    keys: Rows
    block: int
    client: Any = None

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]:
        """What every block of queries sees, in order."""
        shards = list(spans(self.keys.size, self.block))
        calls = (
            (self.kernel, self.queries.piece(*some), *pieces(shard, self.keys, values, bias))
            for some in spans(self.queries.size, self.block)
            for shard in shards
        )
        found = each(self.client, partial, calls)
        for first, last in spans(self.queries.size, self.block):
            yield first, last, merge(islice(found, len(shards)))


def pieces(shard: tuple[int, int], *rows: Rows | None) -> tuple[Any, ...]:
    """The same shard of each."""
    return tuple(None if some is None else some.piece(*shard) for some in rows)
