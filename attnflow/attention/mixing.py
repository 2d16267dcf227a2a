"""How one head mixes columns: a number, a matrix or two factors, applied where the fewest columns are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import checks


@dataclass(frozen=True, eq=False)
class Mix:
    """A H W as write(A read(H)), W = before after: (A H) W = A (H W), so the sum may be over the narrowest of them.

    Attributes
    ----------
    before : (c, r) array, slice or None
        None reads all columns.
    after : (r, c') array, number or None
        None writes what was summed.
    shape : (int, int) or None
        (c, c'); None for a number.
    """

    before: np.ndarray | slice | None
    after: np.ndarray | float | None
    shape: tuple[int, int] | None

    def read(self, values: np.ndarray) -> np.ndarray:
        """What the head sums, (N, r), of values (N, c)."""
        if isinstance(self.before, slice):
            return values[..., self.before]
        return values if self.before is None else values @ self.before

    def write(self, mean: np.ndarray) -> np.ndarray:
        """What it adds, (M, c'), of weighted means (M, r)."""
        if isinstance(self.after, np.ndarray):
            return mean @ self.after
        return mean if self.after is None else mean * self.after

    @property
    def matrix(self) -> np.ndarray:
        """W multiplied out: (c, c'), or a number's own ()."""
        return np.array(self.after) if self.shape is None else self.write(self.read(np.eye(self.shape[0])))


def read_mixing(mixing: Sequence | None, heads: int) -> tuple[Mix, ...]:
    """One `Mix` for each head, all of one shape; numbers fit any square one.

    Examples
    --------
    >>> wide, narrow = read_mixing([np.ones((4, 1)) @ np.ones((1, 4)), (np.ones((4, 1)), np.ones((1, 4)))], 2)
    >>> wide.read(np.ones((9, 4))).shape, narrow.read(np.ones((9, 4))).shape
    ((9, 4), (9, 1))
    """
    if mixing is None:
        return (Mix(None, 1 / heads, None),) * heads
    entries = checks.sequence(mixing, "mixing", "numbers, matrices or pairs of factors")
    if len(entries) != heads:
        raise ValueError(f"mixing must have one entry for each of {heads} layers, got {len(entries)}")
    mixes = tuple(map(_read, entries))
    shapes = sorted({mix.shape for mix in mixes if mix.shape is not None})
    if len(shapes) > 1:
        raise ValueError(f"mixing must be of one shape (c, c'), got {' and '.join(map(str, shapes))}")
    if shapes and shapes[0][0] != shapes[0][1] and any(mix.shape is None for mix in mixes):
        raise ValueError(f"mixing must be square matrices beside numbers, got shape {shapes[0]}")
    return mixes


def _read(entry) -> Mix:
    if isinstance(entry, (tuple, list)) and len(entry) == 2 and (isinstance(entry[0], slice) or _is_matrix(entry[0])):
        return _factors(*entry)
    W = checks.array(entry, "mixing").astype(float)
    if W.ndim == 0:
        return Mix(None, float(W), None)
    return _multiplied(_matrix(W))


def _factors(V, O) -> Mix:
    O = _matrix(checks.array(O, "mixing").astype(float))
    if isinstance(V, slice):
        width = O.shape[1]  # a slice does not say of how many columns: of as many as are written
        if len(range(width)[V]) != len(O):
            raise ValueError(f"mixing must have a slice of {width} columns as wide as the {len(O)} rows beside it, got {V}")
        return Mix(V, O, (width, width))
    V = _matrix(checks.array(V, "mixing").astype(float))
    if V.shape[1] != len(O):
        raise ValueError(f"mixing must have factors of shapes (c, r) and (r, c'), got {V.shape} and {O.shape}")
    if len(O) > min(len(V), O.shape[1]):
        return _multiplied(checks.array(V @ O, "mixing"))
    return Mix(V, O, (len(V), O.shape[1]))


def _multiplied(W: np.ndarray) -> Mix:
    return Mix(W, None, W.shape) if W.shape[1] < W.shape[0] else Mix(None, W, W.shape)


def _matrix(W: np.ndarray) -> np.ndarray:
    if W.ndim != 2:
        raise ValueError(f"mixing must be numbers, matrices (c, c') or pairs of them, got shape {W.shape}")
    return W


def _is_matrix(value) -> bool:
    try:
        return np.ndim(value) == 2
    except ValueError:  # ragged
        return False
