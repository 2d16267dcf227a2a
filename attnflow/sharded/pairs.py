"""All pairs, shard by shard: any pseudo-metric, by the engines that sum everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..kernels import Attended, attend
from ..kernels.rules import beyond_range, nothing_to_see
from ..similarity import PseudoMetric
from .merging import merge
from .rows import Piece, Rows, load, spans
from .tasks import each

Block = tuple[int, int, Attended]  # first and last query, and what they see
_TOGETHER = 2**22  # pairs of which f is held


@dataclass(frozen=True)
class Kernel:
    """What a task has to know of the layer."""

    f: PseudoMetric
    epsilon: float
    backend: str
    dtype: str
    rtol: float

    def attend(self, queries: np.ndarray, keys: np.ndarray, values: np.ndarray | None, bias: np.ndarray | None) -> Attended:
        """The primitive on arrays; `bias` is a column. A query that sees none of these keys has the log-sum-exp -inf."""
        try:
            return self._attend(queries, keys, values, bias)
        except ValueError:  # engines refuse all for one such query, which other keys may see
            seeing = self._seeing(queries, keys, bias)
            if seeing.all():
                raise
        mean = np.zeros((len(queries), 0 if values is None else values.shape[1]))
        log_sum_exp = np.full(len(queries), -np.inf)
        if seeing.any():
            mean[seeing], log_sum_exp[seeing] = self._attend(queries[seeing], keys, values, bias)
        return Attended(mean, log_sum_exp)

    def check(self, found: Attended, numbers: np.ndarray) -> Attended:
        """What queries of these numbers see of all keys; ValueError naming one that sees nothing."""
        blind = found.log_sum_exp == -np.inf
        if blind.any():
            query = int(numbers[blind.argmax()])
            raise nothing_to_see(query) if self.f.pair.reduction == "general" else beyond_range(query, np.dtype(self.dtype))
        return found

    def _attend(self, queries: np.ndarray, keys: np.ndarray, values: np.ndarray | None, bias: np.ndarray | None) -> Attended:
        bias = None if bias is None else bias[:, 0]
        return attend(self.f, self.epsilon, queries, keys, values, bias, self.backend, self.dtype, self.rtol)

    def _seeing(self, queries: np.ndarray, keys: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Which queries have a weight in the range of the arithmetic; each is followed up to the first key that it sees."""
        u, v = self.f.query_features(queries), self.f.key_features(keys)
        v = v if bias is None else v[bias[:, 0] > -np.inf]
        most, left, first = float(np.finfo(self.dtype).max) / 4, np.arange(len(u)), 0
        while len(left) and first < len(v):
            last = first + max(_TOGETHER // len(left), 1)
            for some in np.array_split(left, -(-len(left) // _TOGETHER)):
                with np.errstate(all="ignore"):
                    far = self.f.evaluate(u[some], v[first:last], (some, np.arange(first, len(v)))) / (2 * self.epsilon) >= most
                left = np.setdiff1d(left, some[~far.all(axis=1)], assume_unique=True)
            first = last
        seeing = np.ones(len(u), bool)
        seeing[left] = False
        return seeing


def partial(kernel: Kernel, where: str, queries: Piece, keys: Piece, values: Piece | None, bias: Piece | None) -> Attended:
    """What some queries see of a shard of the keys, errors with what is said of `where` these are: a task."""
    of_values, of_bias = (None if part is None else load(part) for part in (values, bias))
    try:
        return kernel.attend(load(queries), load(keys), of_values, of_bias)
    except ValueError as error:
        raise ValueError(f"{error}{where}") from None


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
        several = max(self.queries.size, self.keys.size) > self.block

        def where(queries: tuple[int, int], keys: tuple[int, int]) -> str:
            named = f", of queries {queries[0]} to {queries[1] - 1} and keys {keys[0]} to {keys[1] - 1}"
            return named if several else ""

        calls = (
            (self.kernel, where(some, shard), self.queries.piece(*some), *pieces(shard, self.keys, values, bias))
            for some in spans(self.queries.size, self.block)
            for shard in shards
        )
        found = each(self.client, partial, calls)
        for first, last in spans(self.queries.size, self.block):
            yield first, last, self.kernel.check(merge(islice(found, len(shards))), np.arange(first, last))


def pieces(shard: tuple[int, int], *rows: Rows | None) -> tuple[Any, ...]:
    """The same shard of each."""
    return tuple(None if some is None else some.piece(*shard) for some in rows)
