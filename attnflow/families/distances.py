"""Distances of tokens in whatever units they come: a power of two, which rounds nothing, is taken out before."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .. import checks, norms
from .matrices import refuse_large

_RANGE, _ROUNDING = np.finfo(float), 1e-15


def scaled(tokens: np.ndarray, name: str = "tokens", least: int = 1) -> tuple[np.ndarray, float]:
    """Tokens (N, n), at least so many, as multiples within [-2, 2] of a power of two, and that power.

    Examples
    --------
    >>> scaled([[3.0], [-5.0]])
    (array([[ 0.375], [-0.625]]), 8.0)
    """
    x = checks.points(tokens, name).astype(float, copy=False)
    if len(x) < least:
        raise ValueError(f"{name} must be at least {least}, got {len(x)}")
    refuse_large(len(x), len(x), name)
    unit = float(norms.unit(x))
    return x / unit, unit


def negative_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-|x_i - y_j|^2 as an (M, N) array.

    Examples
    --------
    >>> negative_squares(np.array([[0.0]]), np.array([[1.0], [3.0]]))
    array([[-1., -9.]])
    """
    return -cdist(x, y, "sqeuclidean")


def doubled(epsilon: float, unit: float) -> float:
    """2 epsilon in units of unit^2, at the end of the range of floating point where it lies beyond.

    There it is far above all squared distances of scaled tokens, or far below all but 0: the weights are the same.

    Examples
    --------
    >>> doubled(0.5, 4.0), doubled(1e-300, 1e100)
    (0.0625, 2.2250738585072014e-308)
    """
    epsilon = checks.positive(epsilon, "epsilon")
    with np.errstate(over="ignore", under="ignore"):
        return float(np.clip(2 * (np.float64(epsilon) / unit / unit), _RANGE.tiny, _RANGE.max))


def others(M: np.ndarray) -> np.ndarray:
    """M with -inf, which weighs nothing, on the diagonal.

    Examples
    --------
    >>> others(np.zeros((2, 2)))
    array([[-inf,   0.], [  0., -inf]])
    """
    return np.where(np.eye(len(M), dtype=bool), -np.inf, M)


def nearest_ties(d: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which others (N, m) are nearest: those at distances d that exceed the least by no more than coordinates x are rounded.

    A temperature that told them apart would weigh rounding errors: on a lattice of spacing 0.1, say.

    Examples
    --------
    >>> nearest_ties(np.array([[0.3 - 0.2, 0.4 - 0.3, 0.2]]), np.array([[0.3]]))
    array([[ True,  True, False]])
    """
    least = d.min(axis=1)
    return d <= (least + _ROUNDING * (np.abs(x).max(axis=1) + least))[:, None]


def by_distance(M: np.ndarray) -> np.ndarray:
    """Indices (N, N) of all tokens by their distance to each, nearest first: the token itself, then ties by index.

    Examples
    --------
    >>> by_distance(np.array([[0.0, 0.0, -2.0], [0.0, 0.0, -2.0], [-2.0, -2.0, 0.0]])).tolist()
    [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    """
    return np.argsort(np.where(np.eye(len(M), dtype=bool), -1.0, -M), axis=1, kind="stable")
