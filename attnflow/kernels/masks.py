"""Which keys each query sees, where it does not see all: ranges of an order of the tokens, or edges of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Ranges:
    """Tokens put in an `order` (N,): the one at place i sees those at places first[i] <= j < last[i], itself among them."""

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray
    symmetric: bool

    def transposed(self) -> Ranges:
        """Who is seen by each: for ranges whose ends grow with the place, ranges again."""
        places = np.arange(len(self.order))
        if self.symmetric:
            return self
        first = np.searchsorted(self.last, places, side="right")
        return Ranges(self.order, first, np.searchsorted(self.first, places, side="right"), False)

    def seen(self) -> np.ndarray:
        """How many tokens each of them sees, (N,)."""
        counts = np.empty(len(self.order), np.int64)
        counts[self.order] = self.last - self.first
        return counts

    def dense(self) -> np.ndarray:
        """(N, N) of bool, in the tokens' own order: query, key."""
        places = np.arange(len(self.order))
        seen = np.empty((len(places), len(places)), bool)
        seen[np.ix_(self.order, self.order)] = (places >= self.first[:, None]) & (places < self.last[:, None])
        return seen


@dataclass(frozen=True, eq=False)
class Edges:
    """Query i sees the keys keys[starts[i]:starts[i + 1]], increasing, none twice."""

    starts: np.ndarray
    keys: np.ndarray

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """(N, N) with ones at the edges."""
        size = len(self.starts) - 1
        return sparse.csr_array((np.ones(len(self.keys)), self.keys, self.starts), shape=(size, size))

    @cached_property
    def symmetric(self) -> bool:
        """Whether each edge goes both ways."""
        return (self.matrix != self.matrix.T).nnz == 0

    def transposed(self) -> Edges:
        """Who is seen by each."""
        if self.symmetric:
            return self
        matrix = self.matrix.T.tocsr()
        matrix.sort_indices()
        return Edges(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))

    def seen(self) -> np.ndarray:
        """How many tokens each of them sees, (N,)."""
        return np.diff(self.starts)

    def dense(self) -> np.ndarray:
        """(N, N) of bool: query, key."""
        return self.matrix.toarray() > 0


Mask = Ranges | Edges
