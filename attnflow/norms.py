"""Norms whose squares neither overflow nor vanish: a power of two, which rounds nothing, is taken out before."""

from __future__ import annotations

import numpy as np


def unit(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """The power of two above the largest absolute value along the axes; 1 where all vanish.

    Examples
    --------
    >>> unit(np.array([[3.0, 0.0], [-5.0, 0.0]]), axis=0)
    array([8., 1.])
    """
    return np.ldexp(1.0, np.frexp(np.max(np.abs(values), axis=axis))[1].clip(-1021, 1023))


def norm(weights: np.ndarray, fields: np.ndarray) -> float:
    """The weighted L2 norm of all columns: weights (m,), fields (m, c).

    Examples
    --------
    >>> round(norm(np.ones(2), np.array([[3e200], [4e200]])) / 1e200, 12)
    5.0
    """
    size = unit(fields)
    return float(size * np.sqrt(np.sum(weights @ (fields / size) ** 2)))


def column_norms(weights: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """The weighted L2 norm of each column, (c,).

    Examples
    --------
    >>> column_norms(np.ones(2), np.array([[3e-200, 0.0], [4e-200, 1.0]])).round(3)
    array([0., 1.])
    """
    size = unit(fields, axis=0)
    return size * np.sqrt(weights @ (fields / size) ** 2)
