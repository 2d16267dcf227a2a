"""What every floor refuses, and how it says so.

One small function per kind of check, one message form: "<name> must be <what>, got <what came>".
Each returns the checked value in the form the caller computes with. Numerical trouble, which is
reported rather than refused, has warning classes of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path

import numpy as np


class AttnflowWarning(UserWarning):
    """Numerical trouble that a result survives but a reader must know of."""


class ConvergenceWarning(AttnflowWarning):
    """An iteration stopped before it reached its tolerance."""


class IsolatedTokensWarning(AttnflowWarning):
    """Some tokens attend only to themselves: the temperature is below their spacing."""


class AccuracyWarning(AttnflowWarning):
    """The asked accuracy was not reached; the message says what was."""


def positive(value: float, name: str) -> float:
    """A positive, finite number."""
    value = real(value, name)
    if value <= 0:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return value


def nonnegative(value: float, name: str) -> float:
    """A finite number, at least 0."""
    value = real(value, name)
    if value < 0:
        raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
    return value


def real(value: float, name: str) -> float:
    """A finite real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.ndarray)) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a real number, got {_short(value)}")
    value = float(value)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return value


def fraction(value: float, name: str) -> float:
    """A number in (0, 1]."""
    value = real(value, name)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return value


def integer(value: int, name: str, least: int = 0) -> int:
    """An integer, at least `least`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {_short(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def choice(value: str, name: str, accepted: Iterable[str]) -> str:
    """One of the accepted names."""
    accepted = sorted(accepted)
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {_short(value)}")
    return value


def array(value, name: str, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """A finite float array; `shape` has None where any length will do."""
    try:
        result = np.asarray(value)
        result = result if result.dtype in (np.float32, np.float64) else result.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of real numbers, got {_short(value)}") from None
    if shape is not None and (
        result.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, result.shape))
    ):
        wanted = "(" + ", ".join("any" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {result.shape}")
    bad = ~np.isfinite(result)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be finite, got {result[where]} at index {where}")
    return result


def points(value, name: str, columns: int | None = None) -> np.ndarray:
    """Points as an (N, n) array: one row a point."""
    result = array(value, name)
    if result.ndim != 2:
        hint = f"; add an axis: {name}[:, None]" if result.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (N, n), one row a point, got {result.shape}{hint}")
    if len(result) == 0:
        raise ValueError(f"{name} must hold at least one point, got shape {result.shape}")
    if columns is not None and result.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} column{'s' * (columns != 1)}, got shape {result.shape}")
    return result


def coordinates(value, name: str, columns: int) -> np.ndarray:
    """Points (..., columns) as a float64 array, not looked at further: one point, a batch or a mesh."""
    result = np.asarray(value, dtype=float)
    if result.ndim == 0 or result.shape[-1] != columns:
        hint = f"; add an axis: {name}[..., None]" if columns == 1 else ""
        raise ValueError(f"{name} must have shape (..., {columns}), got {result.shape}{hint}")
    return result


def features(value, name: str, rows: int) -> np.ndarray:
    """Values carried by `rows` tokens as (rows, c); a one-dimensional array is one column."""
    if callable(value):
        raise TypeError(f"{name} must be an array, got a function; call it on the points first")
    result = array(value, name)
    if result.ndim == 1:
        result = result[:, None]
    if result.ndim != 2 or len(result) != rows or result.shape[1] == 0:
        raise ValueError(f"{name} must have shape ({rows},) or ({rows}, c), got {np.shape(value)}")
    return result


def evaluate(function: Callable, x: np.ndarray, name: str) -> np.ndarray:
    """Features from a user's callable on points (N, n): (N, c), one column when it returns (N,)."""
    if not callable(function):
        raise TypeError(f"{name} must be callable on points (..., n), got {_short(function)}")
    return features(function(x), f"{name}(points)", len(x))


def scalar_field(function: Callable, x: np.ndarray, name: str) -> np.ndarray:
    """A user's scalar callable on points (..., n); it must return exactly x.shape[:-1].

    Minus infinity is let through (the logarithm of a zero density); NaN is not.
    """
    result = np.asarray(function(x), dtype=float)
    if result.shape != x.shape[:-1]:
        raise ValueError(
            f"{name} must return shape {x.shape[:-1]} for points of shape {x.shape}, got {result.shape}; "
            "index the coordinate, as in x[..., 0]"
        )
    if np.isnan(result).any() or (result == np.inf).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(result) | (result == np.inf))[0])
        raise ValueError(f"{name} must be finite or -inf, got {result[where]} at x = {x[where]}")
    return result


def spd(matrix, name: str, where: np.ndarray | None = None) -> np.ndarray:
    """Symmetric positive definite (..., n, n); the message says at which point it is not."""
    matrix = array(matrix, name)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    if matrix.shape[-1] == 2:  # by Sylvester's criterion, many times faster still
        a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
        scale = np.maximum(np.abs(a), np.abs(d))
        if ((a > 0) & (a * d - b * c > 1e-13 * scale**2) & (np.abs(b - c) <= 1e-9 * scale)).all():
            return matrix
    scale = np.abs(matrix).max(axis=(-2, -1))
    skew = np.abs(matrix - np.swapaxes(matrix, -1, -2)).max(axis=(-2, -1)) > 1e-9 * scale
    try:  # ten times faster than eigenvalues, which say where
        np.linalg.cholesky(matrix - 1e-14 * scale[..., None, None] * np.eye(matrix.shape[-1]))
        bad = skew
    except np.linalg.LinAlgError:
        bad = skew | (np.linalg.eigvalsh(matrix)[..., 0] <= 1e-14 * scale)
    if np.any(bad):
        index = tuple(np.argwhere(bad)[0]) if bad.ndim else ()
        place = "" if where is None else f" at x = {where[index]}"
        raise ValueError(f"{name} must be symmetric positive definite, got {matrix[index].tolist()}{place}")
    return matrix


def path(value: str | os.PathLike, name: str) -> Path:
    """The name of a file or folder."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or os.PathLike, got {_short(value)}")
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the name of a file, got {_short(value)}")
    return Path(text)


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A numpy Generator from a Generator, a seed or None."""
    if not isinstance(rng, (np.random.Generator, Integral, type(None))):
        raise TypeError(f"rng must be a numpy Generator, an integer or None, got {_short(rng)}")
    return np.random.default_rng(rng)


def output_times(t, name: str = "t") -> np.ndarray:
    """A scalar or increasing times >= 0 as a one-dimensional array."""
    times = np.atleast_1d(array(t, name))
    if times.ndim != 1 or len(times) == 0 or times[0] < 0 or (times[1:] <= times[:-1]).any():
        raise ValueError(f"{name} must be a time >= 0 or increasing times, got {_short(t)}")
    return times.astype(float)


def _short(value) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' * (len(text) > 60)}"
