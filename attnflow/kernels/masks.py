"""Which keys each query sees, where it does not see all: ranges of an order of the tokens, or edges of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, eq=False)
class Ranges:
    """Tokens put in an `order` (N,): the one at place i sees those at places first[i] <= j < last[i], itself among them.

    Both ends grow with the place.
    """

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray
    symmetric: bool

    @property
    def pairs(self) -> int:
        """Of a query and a key that it sees."""
        return int((self.last - self.first).sum())

    @cached_property
    def disjoint(self) -> bool:
        """Whether tokens fall into sets within which all see each other: a positive definite similarity stays so."""
        return self.symmetric and bool((self.first[self.first] == self.first).all())

    @cached_property
    def parts(self) -> int:
        """Sets of tokens between which nobody sees anybody."""
        return 1 + int((self.first[1:] >= np.maximum.accumulate(self.last)[:-1]).sum())

    @cached_property
    def sociable(self) -> np.ndarray:
        """(N,) of bool: which tokens see others beside themselves; of a causal mask the later half: early ones have few."""
        seen = self.last - self.first
        result = np.empty(len(self.order), bool)
        result[self.order] = seen > (1 if self.symmetric else max(1, seen.max() // 2))
        return result

    def transposed(self) -> Ranges:
        """Who is seen by each: ranges again."""
        places = np.arange(len(self.order))
        if self.symmetric:
            return self
        first = np.searchsorted(self.last, places, side="right")
        return Ranges(self.order, first, np.searchsorted(self.first, places, side="right"), False)

    def seen(self, some: np.ndarray | None = None) -> np.ndarray:
        """How many tokens each of them sees, (N,); or how many of `some`, (N,) of bool."""
        before = np.append(0, np.cumsum(np.ones(len(self.order), bool) if some is None else some[self.order]))
        counts = np.empty(len(self.order), np.int64)
        counts[self.order] = before[self.last] - before[self.first]
        return counts

    def dense(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(N, N) of bool, in the tokens' own order: query, key. Or some of its rows."""
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        queries = place[rows]
        return (place >= self.first[queries, None]) & (place < self.last[queries, None])


@dataclass(frozen=True, eq=False)
class Edges:
    """Query i sees the keys keys[starts[i]:starts[i + 1]], increasing, none twice."""

    starts: np.ndarray
    keys: np.ndarray
    disjoint = False

    @property
    def pairs(self) -> int:
        """Of a query and a key that it sees."""
        return len(self.keys)

    @property
    def queries(self) -> np.ndarray:
        """(E,) the query of each edge."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """(N, N) with ones at the edges."""
        size = len(self.starts) - 1
        return sparse.csr_array((np.ones(len(self.keys)), self.keys, self.starts), shape=(size, size))

    @cached_property
    def symmetric(self) -> bool:
        """Whether each edge goes both ways."""
        return (self.matrix != self.matrix.T).nnz == 0

    @cached_property
    def parts(self) -> int:
        """Sets of tokens between which nobody sees anybody."""
        return int(connected_components(self.matrix, directed=False, return_labels=False))

    @cached_property
    def sociable(self) -> np.ndarray:
        """(N,) of bool: which tokens see others beside themselves, and themselves."""
        itself = np.zeros(len(self.starts) - 1, bool)
        itself[self.keys[self.keys == self.queries]] = True
        return itself & (np.diff(self.starts) > 1)

    def transposed(self) -> Edges:
        """Who is seen by each, which may be nobody."""
        if self.symmetric:
            return self
        matrix = self.matrix.T.tocsr()
        matrix.sort_indices()
        return Edges(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))

    def seen(self, some: np.ndarray | None = None) -> np.ndarray:
        """How many tokens each of them sees, (N,); or how many of `some`, (N,) of bool."""
        return np.diff(self.starts) if some is None else (self.matrix @ some.astype(float)).astype(np.int64)

    def dense(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(N, N) of bool: query, key. Or some of its rows."""
        return self.matrix[rows].toarray() > 0


Mask = Ranges | Edges
