"""The three ways of summing block by block, and which one: all pairs, near keys, Fourier series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..attention import Attention
from ..kernels import Attended
from ..kernels.choice import cheapest
from ..kernels.costs import Request
from ..similarity import PseudoMetric
from .fourier import Fourier
from .pairs import Block, Kernel, Pairs
from .rows import Rows, Sliced, check_finite, spans
from .slabs import Near, axis_of, cut

_SAMPLE = 2**16  # tokens that costs are predicted from


class Sums(Protocol):
    """What every block of queries sees of all keys: (first, last, means and log-sum-exps), in order."""

    kernel: Kernel

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]: ...


@dataclass(frozen=True)
class Surveyed:
    """Rows that were read once and are in order: the corners of their features as queries and as keys, and some of them."""

    rows: Rows
    of_queries: tuple[np.ndarray, np.ndarray]
    of_keys: tuple[np.ndarray, np.ndarray]
    sample: np.ndarray


def survey(f: PseudoMetric, rows: Rows, name: str, block: int) -> Surveyed:
    """Read all points once.

    Raises
    ------
    ValueError
        Naming the row that is not finite, or the rows among which f refuses one.
    """
    ends: list[list[np.ndarray]] = [[], [], [], []]
    sample, stride = [], -(-rows.size // _SAMPLE)
    for first, last in spans(rows.size, block):
        points = check_finite(rows.read(first, last), first, name)
        try:
            points = f.check(points, name)
        except ValueError as error:
            raise ValueError(str(error) + (f", of rows {first} to {last - 1}" if rows.size > block else "")) from None
        sample.append(points[-first % stride :: stride])
        features = f.query_features(points), f.key_features(points)
        for k, (which, end) in enumerate((which, end) for which in features for end in (np.min, np.max)):
            ends[k].append(end(which, axis=0))
    low, high, of_keys_low, of_keys_high = (end(np.array(part), axis=0) for end, part in zip((np.min, np.max) * 2, ends))
    return Surveyed(rows, (low, high), (of_keys_low, of_keys_high), np.concatenate(sample))


@dataclass
class _Sampled(Request):
    """What is asked of an engine about tokens of which only a sample is here."""

    queried: int = 0
    held: int = 0

    @property
    def count(self) -> int:
        return self.queried

    @property
    def size(self) -> int:
        return self.held


def make(
    layer: Attention, queries: Surveyed, keys: Surveyed, folder: Path, block: int, client: Any, f: PseudoMetric | None = None
) -> Sums:
    """Sums of the layer's similarity, or of another one, by the layer's engine or the cheapest."""
    f = layer.f if f is None else f
    engine = layer.backend
    if engine == "auto":
        sample = None if queries is keys else queries.sample
        asked = f, layer.epsilon, sample, keys.sample, layer.dtype, layer.rtol, 1, 2
        engine = cheapest(_Sampled(*asked, queried=queries.rows.size, held=keys.rows.size)).engine
    kernel = Kernel(f, layer.epsilon, engine, layer.dtype, layer.rtol)
    if engine == "nufft":
        return Fourier(kernel, queries.rows, keys.rows, (queries.of_queries, keys.of_keys), block, client)
    if engine != "cells":
        return Pairs(kernel, queries.rows, keys.rows, block, client)
    low, high = (end(parts, axis=0) for end, parts in zip((np.min, np.max), zip(queries.of_queries, keys.of_keys)))
    axis = axis_of(f, low, high)
    of_keys = cut(keys.rows, f.key_features, axis, block, folder, "keys")
    same = queries is keys and f.symmetric
    of_queries = of_keys if same else cut(queries.rows, f.query_features, axis, block, folder, "queries")
    return Near(kernel, axis, of_queries, of_keys, folder, client)


@dataclass
class InMemory:
    """Sums of values and a bias that are in memory: what a `BoundLayer` asks of its plan."""

    sums: Sums

    @property
    def engine(self) -> str:
        """Its name."""
        return self.sums.kernel.backend

    @property
    def run(self) -> Any:
        """What may tell `stats` of itself."""
        return self.sums

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray | None) -> Attended:
        """What all queries see."""
        rows, bias = (None if array is None else Sliced(array) for array in (values, key_bias))
        means, log_sum_exps = zip(*(found for _, _, found in self.sums.blocks(rows, bias)))
        return Attended(np.concatenate(means), np.concatenate(log_sum_exps))
