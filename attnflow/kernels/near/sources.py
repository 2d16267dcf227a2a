"""Where lists of near keys come from: cells, rows of f, or the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from ...similarity import PseudoMetric
from ...similarity.pairs import Pair, transformed
from ..cells_engine import lists, sweep
from ..cells_engine.search import CELLED, check
from ..graph_engine import on_edges
from ..masks import Edges, Mask, Ranges
from ..numba_engine.rows import FRows
from ..registry import load
from ..rules import TRANSFORMS, reach_of, transform_of
from ..threads import in_threads
from . import compiled

_ENTRIES = 2**22  # of lists, or of rows of f, at a time
_SAMPLE = 512  # keys that tell how far the nearest few reach, where no tree does
_THIN, _SPARE = 8, (1.25, 4)  # rank in a thinned set of keys; what is added to it, for most queries to be served at once
_AS_FAST = 2**17, 2**18, 2**22  # pairs up to which rows of f are as fast as cells, of one to three features: measured
_ROWS = 64  # rows that are worth handing to a thread


class Lists(NamedTuple):
    """Of R queries: keys places[starts[i]:starts[i + 1]] and their f."""

    starts: np.ndarray
    places: np.ndarray
    f: np.ndarray


@dataclass
class Source:
    """What finds near keys. `order` and `order_of_keys` are the numbers of queries and keys by place."""

    engine: str
    order: np.ndarray
    order_of_keys: np.ndarray

    def lengths(self, rows: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """How many keys have f <= bound (R,), for queries at R places, increasing; of rows of f an estimate, of edges all."""
        raise NotImplementedError

    def within(self, rows: np.ndarray, bound: np.ndarray, lengths: np.ndarray) -> Lists:
        """Those keys. Should rounding leave one out that was counted, inf takes its place."""
        raise NotImplementedError

    def guess(self, rank: float) -> np.ndarray:
        """Bounds (M,) of f within which most queries have so many keys."""
        raise NotImplementedError


def source(f: PseudoMetric, queries: np.ndarray | None, keys: np.ndarray, backend: str, mask: Mask | None = None) -> Source:
    """The source for checked tokens; queries None: the keys.

    Raises
    ------
    ValueError
        If the engine does not choose keys, or not for this f or mask.
    ImportError
        If there is no such engine here.
    """
    if backend == "auto":
        backend = choose_source(f, queries, keys, mask)
    else:
        load(backend)
    v = f.key_features(keys)
    u = f.query_features(keys if queries is None else queries)
    if backend == "graph":
        if not isinstance(mask, Edges):
            raise ValueError("backend 'graph' sums over the edges of a mask, got none; use 'numba'")
        return _OfEdges(f, keys, mask)
    if backend == "numba":
        if isinstance(mask, Edges):
            raise ValueError("backend 'numba' takes no edges; use 'graph'")
        return _OfRows(f, u, v, mask)
    if backend == "cells":
        if mask is not None:
            raise ValueError("backend 'cells' takes no mask; use 'numba', or 'graph' for edges")
        check(f)
        if v.shape[1] > CELLED:
            raise ValueError(
                f"f must have up to {CELLED} features for its near keys to be chosen in cells, got {v.shape[1]}; use 'numba'"
            )
        return _OfCells(f, u, v)
    raise ValueError(
        f"backend must be 'auto', 'reference', 'numba', 'cells' or 'graph' for weights that choose their keys, got {backend!r}"
    )


def choose_source(f: PseudoMetric, queries: np.ndarray | None, keys: np.ndarray, mask: Mask | None = None) -> str:
    """The engine that "auto" takes for weights that choose their keys."""
    if isinstance(mask, Edges):
        return "graph"
    return "cells" if mask is None and _celled(f, queries, keys) else "numba"


def _celled(f: PseudoMetric, queries: np.ndarray | None, keys: np.ndarray) -> bool:
    count = len(keys) if queries is None else len(queries)
    features = f.key_features(keys[:1]).shape[1]
    if features > CELLED or float(count) * len(keys) <= _AS_FAST[features - 1]:
        return False
    try:
        check(f)
    except ValueError:
        return False
    return True


class _OfRows(Source):
    """Rows of f, some at a time."""

    def __init__(self, f: PseudoMetric, u: np.ndarray, v: np.ndarray, mask: Ranges | None) -> None:
        size, count = len(v), len(u)
        order = np.arange(size) if mask is None else mask.order
        super().__init__("numba", np.arange(count) if mask is None else order, order)
        if mask is not None:
            u, v = u[order], v[order]
        some = _some(size, max(size // _SAMPLE, 1))
        self._rows, self._sampled, self._share = FRows(f, u, v), FRows(f, u, v[some]), len(some) / size
        self._seen = np.tile([0, size], (count, 1)) if mask is None else np.stack([mask.first, mask.last], axis=1)

    def lengths(self, rows: np.ndarray, bound: np.ndarray) -> np.ndarray:
        seen = self._seen[rows, 1] - self._seen[rows, 0]
        found = np.empty(len(rows))
        for some, f_values in self._samples(rows):
            found[some] = (f_values <= bound[some, None]).sum(axis=1)
        return np.minimum(np.ceil((found + 1) / self._share), seen).astype(np.int64)

    def within(self, rows: np.ndarray, bound: np.ndarray, lengths: np.ndarray) -> Lists:
        count, size = len(bound), len(self.order_of_keys)
        step, parts = max(_ENTRIES // size, 1), []
        buffer = np.empty((min(step, count), size))
        for k in range(0, count, step):
            some, most = rows[k : k + step], np.ascontiguousarray(bound[k : k + step])
            self._rows(some, buffer)
            seen, counts = self._seen[some], np.empty(len(most), np.int64)
            in_threads(partial(_call, compiled.count_in_rows, (buffer, most, seen, counts)), len(most), _ROWS)
            starts = np.append(0, np.cumsum(counts))
            places, found = np.empty(starts[-1], np.int32), np.empty(starts[-1])
            rest = buffer, most, seen, starts, places, found
            in_threads(partial(_call, compiled.take_from_rows, rest), len(most), _ROWS)
            parts.append((counts, places, found))
        counts, places, found = (np.concatenate(part) for part in zip(*parts))
        return Lists(np.append(0, np.cumsum(counts)), places, found)

    def guess(self, rank: float) -> np.ndarray:
        count, size = len(self.order), len(self.order_of_keys)
        place = int(rank * self._share * _SPARE[0]) + _SPARE[1]
        bound = np.full(count, np.inf)
        if place < round(self._share * size) and (self._seen == [0, size]).all():
            for some, f_values in self._samples(np.arange(count)):
                bound[some] = np.partition(f_values, place, axis=1)[:, place]
        return bound

    def _samples(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """f of the queries at these rows, some at a time, with a sample of the keys."""
        sample = round(self._share * len(self.order_of_keys))
        step = max(_ENTRIES // sample, 1)
        buffer = np.empty((min(step, len(rows)), sample))
        for k in range(0, len(rows), step):
            some = slice(k, min(k + step, len(rows)))
            self._sampled(rows[some], buffer)
            yield some, buffer[: some.stop - k]


class _OfCells(Source):
    """Cells of tokens, sides about the reach of the first bounds."""

    def __init__(self, f: PseudoMetric, u: np.ndarray, v: np.ndarray) -> None:
        self._pair, self._u, self._v = f.pair, self._flat(f, u), self._flat(f, v)
        self._grid: lists.Grid | None = None
        super().__init__("cells", np.arange(len(u)), np.arange(len(v)))

    @staticmethod
    def _flat(f: PseudoMetric, x: np.ndarray) -> np.ndarray:
        if f.pair.period is not None:
            period = np.array(f.pair.period)
            x = x - period * np.floor(x / period)
            x = np.where(x >= period, 0.0, x)  # a little below 0 is rounded to a whole period
        return np.ascontiguousarray(x, dtype=np.float64)

    def guess(self, rank: float) -> np.ndarray:
        """By the distance to a few of a thinned set of keys; puts tokens into cells of about that size."""
        size = len(self._v)
        thin = max(int(rank / _THIN), 1)
        some = self._v[_some(size, thin)]
        place = int(rank / thin * _SPARE[0]) + _SPARE[1]
        if place > len(some):
            radius = np.full(len(self._u), np.inf)
        else:
            tree = cKDTree(some, boxsize=self._pair.period)
            radius = tree.query(self._u, [place], workers=-1)[0][:, 0]
        finite = radius[np.isfinite(radius)]
        typical = float(np.median(finite)) if len(finite) else np.inf
        self._arrange(typical / 2 if size > 1 else np.inf)
        return _f_of(self._pair, radius[self.order])

    def _arrange(self, side: float) -> None:
        u, v = np.ascontiguousarray(self._u.T), np.ascontiguousarray(self._v.T)
        self._grid = lists.grid(u, v, self._pair.period, side)
        self._keys, self._queries = lists.sort(v, self._grid), lists.sort(u, self._grid)
        self.order, self.order_of_keys = self._queries.order, self._keys.order
        shift = max(self._grid.bits - len(self._v).bit_length(), 0)
        table = np.empty((1 << (self._grid.bits - shift)) + 2, np.int64)
        sweep.index(self._keys.code, shift, table)
        self._cells = self._keys.code, table, shift
        transform, parameter = transform_of(self._pair)
        self._rule = TRANSFORMS[transform], parameter

    def lengths(self, rows: np.ndarray, bound: np.ndarray) -> np.ndarray:
        counts = np.zeros(len(bound), np.int64)
        self._look(rows, bound, np.zeros(1, np.int64), counts, np.empty(0, np.int32), np.empty(0))
        return counts

    def within(self, rows: np.ndarray, bound: np.ndarray, lengths: np.ndarray) -> Lists:
        starts = np.append(0, np.cumsum(lengths))
        places, found = np.zeros(starts[-1], np.int32), np.full(starts[-1], np.inf)
        if starts[-1]:
            self._look(rows, bound, starts, np.zeros(len(bound), np.int64), places, found)
        return Lists(starts, places, found)

    def _look(self, rows: np.ndarray, bound: np.ndarray, *lists_of_rows: np.ndarray) -> None:
        assert self._grid is not None
        points, code, _ = self._queries.some(rows)
        begins = np.empty(len(bound) + 1, np.int64)
        begins = begins[: sweep.split(code, self._grid.cells[2][2], begins) + 1]
        with np.errstate(over="ignore"):
            reach = np.maximum.reduceat(reach_of(self._pair, 0.5, bound), begins[:-1])
        reach = np.minimum(reach * (1 + 1e-12), self._grid.diameter) + self._grid.rounding
        rest = (begins, reach), points, self._keys.points, self._cells, self._grid.cells, self._rule, bound, *lists_of_rows
        lists.in_pieces(lambda *some: compiled.within_cells(*some, *rest), len(reach), 16)


class _OfEdges(Source):
    """The edges of a graph, f on them computed once."""

    def __init__(self, f: PseudoMetric, keys: np.ndarray, mask: Edges) -> None:
        super().__init__("graph", np.arange(len(keys)), np.arange(len(keys)))
        self._starts, self._places = mask.starts.astype(np.int64), mask.keys.astype(np.int32)
        with np.errstate(over="ignore"):
            self._f = on_edges(f, keys, mask)

    def lengths(self, rows: np.ndarray, bound: np.ndarray) -> np.ndarray:
        return self._starts[rows + 1] - self._starts[rows]

    def within(self, rows: np.ndarray, bound: np.ndarray, lengths: np.ndarray) -> Lists:
        counts = self._starts[rows + 1] - self._starts[rows]
        starts = np.append(0, np.cumsum(counts))
        some = np.repeat(self._starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
        near = self._f[some] <= np.repeat(bound, counts)
        starts = np.append(0, np.cumsum(near))[starts]
        return Lists(starts, self._places[some][near], self._f[some][near])

    def guess(self, rank: float) -> np.ndarray:
        return np.full(len(self.order), np.inf)


def _some(size: int, step: int) -> np.ndarray:
    """One of every `step` places, at random: those at equal distances may be alike. The same ones every time."""
    first = np.arange(0, size, step)
    return np.minimum(first + np.random.default_rng(0).integers(0, step, len(first)), size - 1)


def _call(kernel: Callable, rest: tuple, first: int, last: int) -> None:
    kernel(first, last, *rest)


def _f_of(pair: Pair, radius: np.ndarray) -> np.ndarray:
    """h of a distance of features."""
    with np.errstate(over="ignore"):
        return transformed(pair, radius**2)
