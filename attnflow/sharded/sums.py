"""The three ways of summing block by block, and which one: all pairs, near keys, Fourier series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..attention import Attention
from ..kernels import Attended
from ..kernels.cells_engine.search import check
from ..kernels.choice import cheapest
from ..kernels.costs import Request
from ..similarity import PseudoMetric
from .fourier import Fourier
from .near import Near
from .pairs import Block, Kernel, Pairs
from .rows import Piece, Rows, Sliced, check_finite, load, spans
from .slabs import axis_of, cut
from .tasks import each

_SAMPLE = 2**16  # tokens that costs are predicted from


class Sums(Protocol):
    """What every block of queries sees of all keys: (first, last, means and log-sum-exps), in order."""

    kernel: Kernel

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]: ...


@dataclass(frozen=True)
class Surveyed:
    """Rows that were read once and are in order: the corners of their features as queries and as keys, and some of them,
    among these the ones that the corners are of."""

    rows: Rows
    of_queries: tuple[np.ndarray, np.ndarray]
    of_keys: tuple[np.ndarray, np.ndarray]
    sample: np.ndarray


def survey(f: PseudoMetric, rows: Rows, name: str, block: int, client: Any) -> Surveyed:
    """Read all points once.

    Raises
    ------
    ValueError
        Naming the row that is not finite, or the rows among which f refuses one.
    """
    stride = -(-rows.size // _SAMPLE)
    calls = ((f, rows.piece(*some), *some, stride, name, rows.size > block) for some in spans(rows.size, block))
    samples, ends, at = [], np.empty(0), np.empty(0)
    for found, there, sample in each(client, _look, calls):
        samples.append(sample)
        if len(samples) == 1:
            ends, at = found, there
        else:
            further = np.stack([found[:, 0] < ends[:, 0], found[:, 1] > ends[:, 1]], axis=1)
            ends, at = np.where(further, found, ends), np.where(further[..., None], there, at)
    low, high = ends[:, 0], ends[:, 1]
    sample = np.concatenate([*samples, np.unique(at.reshape(-1, rows.columns), axis=0)])
    return Surveyed(rows, (low[0], high[0]), (low[-1], high[-1]), sample)


def _look(
    f: PseudoMetric, piece: Piece, first: int, last: int, stride: int, name: str, several: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners (1 or 2, 2, m) of a block's features as queries and as keys, where these differ; the points (1 or 2, 2, m, n)
    that they are of; and some points: a task."""
    points = check_finite(load(piece), first, name)
    try:
        points = f.check(points, name)
    except ValueError as error:
        raise ValueError(str(error) + (f", of rows {first} to {last - 1}" if several else "")) from None
    features = [f.query_features(points)] + ([] if f.symmetric else [f.key_features(points)])
    ends = np.array([[[end(column) for column in which.T] for end in (np.argmin, np.argmax)] for which in features])
    corners = np.array([np.take_along_axis(which, rows, axis=0) for which, rows in zip(features, ends)])
    return corners, points[ends], points[-first % stride :: stride].copy()  # not a view, which would keep the block


def check_values(rows: Rows, block: int, client: Any) -> None:
    """ValueError naming the row that is not finite."""
    calls = ((rows.piece(*some), some[0]) for some in spans(rows.size, block))
    for _ in each(client, _look_at_values, calls):
        pass


def _look_at_values(piece: Piece, first: int) -> None:
    check_finite(load(piece), first, "values")


@dataclass
class Sampled(Request):
    """What is asked of an engine about tokens of which only a sample is here."""

    queried: int = 0
    held: int = 0

    @property
    def count(self) -> int:
        return self.queried

    @property
    def size(self) -> int:
        return self.held


def kernel_of(layer: Attention, queries: Surveyed, keys: Surveyed, f: PseudoMetric | None = None) -> Kernel:
    """The layer's similarity, or another one, and its engine, or the cheapest."""
    f, engine = layer.f if f is None else f, layer.backend
    if engine == "auto":
        sample = None if queries is keys else queries.sample
        asked = f, layer.epsilon, sample, keys.sample, layer.dtype, layer.rtol, 1, 2
        engine = cheapest(Sampled(*asked, queried=queries.rows.size, held=keys.rows.size)).engine
    return Kernel(f, layer.epsilon, engine, layer.dtype, layer.rtol)


def make(kernel: Kernel, queries: Surveyed, keys: Surveyed, folder: Path, block: int, client: Any) -> Sums:
    """Sums by a kernel's engine, with what that sorts in a folder."""
    f, engine = kernel.f, kernel.backend
    if engine == "nufft":
        return Fourier(kernel, queries.rows, keys.rows, (queries.of_queries, keys.of_keys), block, client)
    if engine != "cells":
        return Pairs(kernel, queries.rows, keys.rows, block, client)
    check(f)
    low, high = (end(parts, axis=0) for end, parts in zip((np.min, np.max), zip(queries.of_queries, keys.of_keys)))
    axis = axis_of(f, low, high)
    of_keys = cut(keys.rows, keys.sample, f.key_features, axis, block, folder, "keys", client)
    same = queries is keys and f.symmetric
    order = queries.rows, queries.sample, f.query_features, axis, block, folder, "queries", client
    of_queries = of_keys if same else cut(*order)
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
