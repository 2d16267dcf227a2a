"""How a decaying similarity of many features is summed over near keys: patches of tokens that lie together.

A learned map sends tokens of two dimensions to a surface in ten: cells of ten dimensions would be empty, but the tokens
still have few neighbours. Keys and queries are put in an order in which those that follow each other are close, by
halving them again and again across the longest side of what holds them, in the space of their features: no bound on
the map is assumed, the features themselves are looked at. Each patch, a tile of keys or a block of queries, lies in a
ball. A block meets the tiles whose balls come within the reach R of its own, and the dense tiles of `numba_engine` sum
these; a tile that is left out holds keys beyond R only.

What is left out is bounded, row by row, as in `search`: with w_j = exp(l_ij - B), B the largest bias, the keys beyond R
weigh at most exp(-T) each, T = h(R^2) / (2 eps), so that N exp(-T) <= (rtol / 2) S is enough, S the sum of the others.
A query that is a key itself has S >= exp(b_i - B), which gives T; any other row in which S turns out smaller is summed
over all keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, log

import numpy as np

from ...similarity import PseudoMetric
from ..numba_engine import TILE, Dense, queries_together
from ..rules import reach_of

MARGIN = 1e-3  # added to every depth, so that rounding decides nothing
SPARE = 2.0  # added to the depth where no key of the queries' own tells S
_STEP = 4.0  # depths are rounded up to multiples: few lists serve many biases
_DISTANCES = 2**22  # between patches, at a time
_TOGETHER = 64  # points that lie together in a tile: about a block of queries


class Patches:
    """The engine for fixed queries and keys; `stats` counts the rows of the last run that all keys were summed for."""

    def __init__(
        self,
        f: PseudoMetric,
        epsilon: float,
        queries: np.ndarray | None,
        keys: np.ndarray,
        dtype: np.dtype,
        rtol: float,
        dense: Callable,
    ) -> None:
        self.pair, self.epsilon, self.rtol, self.dense = f.pair, epsilon, rtol, dense
        v, size = f.key_features(keys), len(keys)
        self.order = arrange(v)
        self.own = queries is None and f.symmetric is True
        queries = keys if queries is None else queries
        u = f.query_features(queries)
        self.order_of_queries = self.order if self.own else arrange(u)
        sorted_queries = None if self.own else queries[self.order_of_queries]
        self.run = Dense(f, epsilon, sorted_queries, keys[self.order], dtype, rtol)
        self.balls = balls(u[self.order_of_queries], queries_together(dtype)), balls(v[self.order], TILE)
        self.deepest = -log(float(np.finfo(dtype).tiny) * 64 * size) - 10
        self.near = lru_cache(4)(self._near)
        self.stats: dict[str, int] = {}

    def __call__(self, values, key_bias):
        size, count = len(self.order), len(self.order_of_queries)
        bias = np.zeros(size) if key_bias is None else key_bias
        top, least = float(bias.max()), bias[bias > -np.inf].min(initial=np.inf)
        enough = log(2 * size / self.rtol)
        depth = _STEP * ceil((enough + (top - least if self.own else SPARE)) / _STEP)
        mean, lse = np.zeros((count, 0 if values is None else values.shape[1])), np.zeros(count)
        accepted = np.zeros(count, bool)
        if depth <= self.deepest:
            found = self.run.sum(None if values is None else values[self.order], bias[self.order], self.near(depth))
            mean[self.order_of_queries], lse[self.order_of_queries], lost = found
            accepted[self.order_of_queries] = ~lost
            accepted &= lse - top >= enough - depth
        left = np.flatnonzero(~accepted)
        if len(left):
            mean[left], lse[left] = self.dense(left, values, key_bias)
        self.stats = {"dense": len(left)}
        return mean, lse

    def _near(self, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """For each block of queries the tiles within reach, as `absorb` takes them."""
        (centres, radii), (of_tiles, radii_of_tiles) = self.balls
        reach = float(reach_of(self.pair, self.epsilon, depth + MARGIN))
        counts, found, rows = [0], [], max(_DISTANCES // len(of_tiles), 1)
        for first in range(0, len(centres), rows):
            some = slice(first, first + rows)
            apart = distances(centres[some], of_tiles)
            near = apart <= (reach + radii[some, None] + radii_of_tiles) * (1 + 1e-12)
            counts.extend(near.sum(axis=1))
            found.append(np.nonzero(near)[1])
        return np.cumsum(counts), np.concatenate(found)


def arrange(x: np.ndarray) -> np.ndarray:
    """An order (N,) in which any `TILE` points from a multiple of it lie together, and parts of these."""
    order = np.arange(len(x))
    pieces = [(0, len(x))]
    while pieces:
        first, last = pieces.pop()
        part = TILE if last - first > TILE else _TOGETHER
        if last - first <= part:
            continue
        middle = -(-(last - first) // part) // 2 * part
        some = x[order[first:last]]
        along = some[:, np.argmax(some.max(axis=0) - some.min(axis=0))]
        order[first:last] = order[first:last][np.argpartition(along, middle)]
        pieces += [(first, first + middle), (first + middle, last)]
    return order


def balls(x: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (P, m) and radii (P,) of balls that hold so many points (N, m) each, one after the other."""
    starts = np.arange(0, len(x), size)
    low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    centres = low / 2 + high / 2
    far = np.sqrt(np.square(x - centres.repeat(size, axis=0)[: len(x)]).sum(axis=1))
    return centres, np.maximum.reduceat(far, starts)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Between all points (M, m) and (N, m), by differences: (M, N)."""
    square = np.zeros((len(x), len(y)))
    for k in range(x.shape[1]):
        square += np.subtract.outer(x[:, k], y[:, k]) ** 2
    return np.sqrt(square)
