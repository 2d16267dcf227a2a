"""Rows of weights that choose their keys: found once for fixed queries and keys, held where they are few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from ..rules import nothing_to_see
from ..threads import in_threads
from . import compiled
from .laws import Found, Law, Spread, weigh
from .sources import Lists, Source

HELD = 2**25  # weights that are kept, 12 bytes each; more, and lists are found anew at every application
_PIECE = 2**21  # entries of lists at a time
_WIDEN, _ROUNDS = 2.0, 8  # of a bound that held too few keys, counted from the smallest f; then all keys
_ROWS = 64  # worth handing to a thread


class Selection:
    """The weights of a law for the queries and keys of a source.

    Attributes
    ----------
    counts, masses : (M,) array
        How many keys each query gives a weight, and their mass together.
    numbers : (M, 4) array
        What the law found for each query, by place.
    """

    def __init__(self, source: Source, law: Law, mass: np.ndarray | None = None) -> None:
        self.source, self.law, size = source, law, len(source.order_of_keys)
        rank = law.rank if mass is None else _rank(law, mass)
        bound = source.guess(rank)  # which puts tokens in order
        mass = np.ones(size) if mass is None else mass
        self._mass, self._number = mass[source.order_of_keys], source.order_of_keys.astype(np.int64)
        count = len(source.order)
        self.numbers, self._bound = np.empty((count, 4)), np.empty(count)
        self.counts, self.masses = np.empty(count, np.int64), np.empty(count)
        self._lengths = np.empty(count, np.int64)
        self._find(bound)
        self._kept: Lists | None = None

    @property
    def held(self) -> bool:
        """Whether the weights are kept from one application to the next."""
        return self._lengths.sum() <= HELD

    def _find(self, bound: np.ndarray) -> None:
        rows = np.arange(len(bound))
        for attempt in range(_ROUNDS + 1):
            self._bound[rows] = bound
            self._lengths[rows] = self.source.lengths(rows, bound)
            wider = [self._try(piece) for piece in self._pieces(rows)]
            short, bound = (np.concatenate(part) for part in zip(*wider))
            rows, bound = rows[short], bound if attempt < _ROUNDS - 1 else np.full(len(bound), np.inf)
            if not len(rows):
                return

    def _try(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of rows whose lists up to their bounds suffice; which do not (R,), and wider bounds for these."""
        bound = self._bound[rows]
        lists = self.source.within(rows, bound, self._lengths[rows])
        lowest, found = _lowest(lists), self.law.find(lists, self._mass, self._number, bound, self._mass.sum())
        done = rows[~found.short]
        blind = ~found.short & (lowest == np.inf)
        if blind.any():
            raise nothing_to_see(int(self.source.order[rows[blind.argmax()]]))
        if len(done):
            self.numbers[done], self._bound[done] = found.numbers[~found.short], found.bound[~found.short]
            _, seen = weigh(self.law, lists, self._mass, self._number, found)
            self._lengths[done], counts, masses = seen[:, ~found.short]
            self.counts[self.source.order[done]], self.masses[self.source.order[done]] = counts, masses
        with np.errstate(invalid="ignore"):
            wider = np.maximum(lowest + _WIDEN * (bound - lowest), found.bound + 1e-9 * np.abs(found.bound))
        return found.short, np.where(wider > bound, wider, np.inf)[found.short]

    def _pieces(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows whose lists are held at a time, by what is known of their lengths."""
        ends = np.cumsum(self._lengths[rows]) // _PIECE
        return iter(np.split(rows, np.flatnonzero(np.diff(ends)) + 1))

    def _lists(self, rows: np.ndarray) -> Lists:
        """What the queries at some places weigh: lists with weights in the place of f."""
        lists = self.source.within(rows, self._bound[rows], self._lengths[rows])
        found = Found(self.numbers[rows], self._bound[rows], np.zeros(len(rows), bool))
        return lists._replace(f=weigh(self.law, lists, self._mass, self._number, found)[0])

    def _parts(self) -> Iterator[tuple[np.ndarray, Lists]]:
        every = np.arange(len(self._bound))
        if self._kept is not None:
            yield every, self._kept
            return
        most = int(self.counts.sum()) if self.held else 0
        starts, places, weights = np.zeros(len(every) + 1, np.int64), np.empty(most, np.int32), np.empty(most)
        for rows in self._pieces(every):
            lists = self._lists(rows)
            if self.held and len(rows):  # put in their place at once: parts beside the whole would take twice the memory
                chosen, begin = _chosen(lists), starts[rows[0]]
                starts[rows + 1] = begin + chosen.starts[1:]
                places[begin : starts[rows[-1] + 1]], weights[begin : starts[rows[-1] + 1]] = chosen.places, chosen.f
            yield rows, lists
        if self.held:
            self._kept = Lists(starts, places[: starts[-1]], weights[: starts[-1]])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted means of values (N, c) at the queries: (M, c)."""
        values = np.ascontiguousarray(values[self.source.order_of_keys])
        result = np.empty((len(self._bound), values.shape[1]))
        for rows, lists in self._parts():
            sums = np.empty((len(rows), values.shape[1]))
            _sum_lists(lists, values, sums)
            result[self.source.order[rows]] = sums
        return result

    def transposed(self, values: np.ndarray) -> np.ndarray:
        """sum_i w_ij v_i for values (M, c) at the queries: (N, c)."""
        values = values[self.source.order]
        total = np.zeros((len(self._mass), values.shape[1]))
        for rows, lists in self._parts():
            total += self._matrix(lists, len(rows)).T @ values[rows]
        result = np.empty_like(total)
        result[self.source.order_of_keys] = total
        return result

    def matrix(self) -> sparse.csr_array:
        """(M, N) in the order of the queries and keys as they were given."""
        parts = [self._matrix(lists, len(rows)) for rows, lists in self._parts()]
        entries = sparse.vstack(parts, format="coo") if len(parts) > 1 else parts[0].tocoo()
        places = self.source.order[entries.row], self.source.order_of_keys[entries.col]
        return sparse.csr_array((entries.data, places), shape=entries.shape)

    def _matrix(self, lists: Lists, rows: int) -> sparse.csr_array:
        return sparse.csr_array((lists.f, lists.places, lists.starts), shape=(rows, len(self._mass)))


def _sum_lists(lists: Lists, values: np.ndarray, sums: np.ndarray) -> None:
    rest = lists.starts, lists.places, lists.f, values, sums
    in_threads(lambda first, last: compiled.sum_lists(first, last, *rest), len(sums), _ROWS)


def _rank(law: Law, mass: np.ndarray) -> float:
    """About how many nodes a list must hold."""
    wanted = law.k if isinstance(law, Spread) else law.rank
    return float(np.clip(wanted / mass.sum() * len(mass), 1, len(mass)))


def _chosen(lists: Lists) -> Lists:
    """Without weights of 0."""
    some = lists.f > 0
    return Lists(np.append(0, np.cumsum(some))[lists.starts], lists.places[some], lists.f[some])


def _lowest(lists: Lists) -> np.ndarray:
    """The smallest f of each row, inf where there is none."""
    empty = lists.starts[1:] == lists.starts[:-1]
    lowest = np.full(len(empty), np.inf)
    if len(lists.f):
        lowest[~empty] = np.minimum.reduceat(lists.f, lists.starts[:-1][~empty])
    return lowest
