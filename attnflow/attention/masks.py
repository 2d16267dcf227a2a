"""What a layer's mask may be, and what it says of tokens once their number is known."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy import sparse

from .. import checks
from ..kernels import Edges, Mask, Ranges

_MOST_TOKENS = 2**48  # far beyond memory, and below where numbers of tokens overflow


class TokenMask:
    """Which tokens see which. Reads nothing of the tokens but their number: `of(size)`.

    Attributes
    ----------
    kind : type
        Ranges or Edges, what `of` returns.
    symmetric : bool
        Whether whoever sees a token is seen by it.
    content : str
        Differs where masks do.
    """

    kind: type[Mask] = Ranges
    symmetric = True
    content = ""

    def _description_(self) -> dict[str, str]:
        return {"text": repr(self), "content": self.content}

    def of(self, size: int) -> Mask:
        """The mask of so many tokens; a ValueError if it is one of others."""
        raise NotImplementedError


class Causal(TokenMask):
    """Token i sees the tokens up to i, itself included."""

    symmetric = False
    content = "causal"

    def __repr__(self) -> str:
        return "'causal'"

    def of(self, size: int) -> Ranges:
        places = np.arange(size)
        return Ranges(places, np.zeros(size, np.int64), places + 1, False)


class Labels(TokenMask):
    """Tokens see those of their own label."""

    def __init__(self, labels: np.ndarray) -> None:
        try:
            names, codes = np.unique(labels, return_inverse=True)
        except TypeError:
            raise TypeError(f"mask must hold labels that can be sorted, got {checks.short(labels)}") from None
        if bool((names != names).any()):  # in an array of objects too
            raise ValueError("mask must hold labels, got nan")
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        first, last = np.searchsorted(ordered, ordered, "left"), np.searchsorted(ordered, ordered, "right")
        self._ranges, self._count = Ranges(order, first, last, True), len(names)
        self.content = _digest(codes)

    def __repr__(self) -> str:
        return f"<{self._count} labels of {len(self._ranges.order)} tokens>"

    def of(self, size: int) -> Ranges:
        if size != len(self._ranges.order):
            raise ValueError(f"mask must hold one label for each of {size} tokens, got {len(self._ranges.order)}")
        return self._ranges


class Graph(TokenMask):
    """Queries see keys along edges (E, 2); `size` is known of a matrix."""

    kind = Edges

    def __init__(self, queries: np.ndarray, keys: np.ndarray, size: int | None = None) -> None:
        present = np.unique(queries)
        self._size, least = size, 1 + max(int(queries.max(initial=0)), int(keys.max(initial=0)))
        nodes = least if size is None else size
        if len(present) < nodes:
            gaps = np.flatnonzero(present != np.arange(len(present)))
            raise _blind(int(gaps[0]) if len(gaps) else len(present))
        matrix = sparse.csr_array((np.ones(len(queries)), (queries, keys)), shape=(nodes, nodes))
        matrix.sum_duplicates()
        matrix.sort_indices()
        self._edges = Edges(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
        self.symmetric = self._edges.symmetric
        self.content = _digest(self._edges.starts, self._edges.keys)

    def __repr__(self) -> str:
        return f"<{self._edges.pairs} edges of {len(self._edges.starts) - 1} tokens>"

    def of(self, size: int) -> Edges:
        if self._size not in (None, size):
            raise ValueError(f"mask must have shape ({size}, {size}) for {size} tokens, got ({self._size}, {self._size})")
        nodes = len(self._edges.starts) - 1
        if nodes > size:
            raise ValueError(f"mask must have edges between tokens below {size}, the number of tokens, got {nodes - 1}")
        if nodes < size:
            raise _blind(nodes)
        return self._edges


def read_mask(value: Any) -> TokenMask | None:
    """What the user means: None, "causal", labels (N,), a sparse matrix (N, N) or edges (E, 2)."""
    if value is None or isinstance(value, TokenMask):
        return value
    if isinstance(value, str):
        checks.choice(value, "mask", ("causal",))
        return Causal()
    if sparse.issparse(value):
        return _of_matrix(value)
    if not checks.listed(value):
        raise TypeError(
            f'mask must be None, "causal", labels (N,), a sparse matrix (N, N) or edges (E, 2), got {checks.short(value)}'
        )
    if np.ma.is_masked(value):
        raise ValueError(f"mask must have no masked entries, got {checks.short(value)}")
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.size == 0:
        raise ValueError(f"mask must hold at least one label or edge, got shape {array.shape}")
    if array.ndim == 1:
        return Labels(array)
    if array.ndim != 2 or array.shape[1] != 2 or (array.dtype.kind == "b" and len(array) == 2):
        hint = ""
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            hint = f", a dense array of shape {array.shape}; use scipy.sparse.csr_array(mask)"
        raise ValueError(
            f"mask must have shape (N,), labels, or (E, 2), edges, got {hint.lstrip(', ') or f'shape {array.shape}'}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"mask must hold edges of integers, query first, got {checks.short(array)}")
    nowhere = ((array < 0) | (array > _MOST_TOKENS)).any(axis=1)
    if nowhere.any():
        edge = int(np.argmax(nowhere))
        raise ValueError(f"mask must have edges between tokens from 0 on, got {array[edge].tolist()} at index {edge}")
    return Graph(*array.T.astype(np.int64))


def check_unmasked(layer: Any, what: str) -> None:
    """ValueError if a layer has a mask, under which a `what` is not known."""
    if layer.mask is not None:
        raise ValueError(f"layer must have no mask for {what}, got one of {layer.mask!r}")


def _of_matrix(matrix: Any) -> Graph:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"mask must be a square sparse matrix (N, N), got shape {matrix.shape}")
    # as everywhere, entries given twice add up; not in small integers, whose sums wrap around to zero
    summed = sparse.csr_array(matrix.astype(np.result_type(matrix.dtype, np.float64)))
    summed.sum_duplicates()
    there = sparse.coo_array(summed)
    some = there.data != 0
    return Graph(there.row[some].astype(np.int64), there.col[some].astype(np.int64), matrix.shape[0])


def _blind(node: int) -> ValueError:
    return ValueError(f"mask must have an edge from every token, got none from token {node}, which then sees nothing")


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(str(array.shape).encode())
    return digest.hexdigest()
