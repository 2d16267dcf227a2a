"""What every floor refuses, and how it says so.

One small function per kind of check, one message form: "<name> must be <what>, got <what came>", what came in a few
words however large it is. Each returns the checked value in the form the caller computes with. Numbers are read in two
places: a lone one by `real` and `integer`, an array, also one that a user's function returned, by `reals`. Neither
converts what is no real number: complex, text, objects, masked entries, and bools where a quantity is meant.
Numerical trouble, which is reported rather than refused, has warning classes of its own.
"""

from __future__ import annotations

import functools
import itertools
import os
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import FrameType
from typing import TypeGuard

import numpy as np

_LARGEST = 2**63 - 1  # of counts and sizes
_PACKAGE, _NAME = os.path.dirname(os.path.abspath(__file__)) + os.sep, __name__.partition(".")[0]
_FEW = 9  # entries of an array that a message prints


class AttnflowWarning(UserWarning):
    """Numerical trouble that a result survives but a reader must know of."""


class ConvergenceWarning(AttnflowWarning):
    """An iteration stopped before it reached its tolerance."""


class IsolatedTokensWarning(AttnflowWarning):
    """Some tokens attend only to themselves: the temperature is below their spacing."""


class FoldingWarning(AttnflowWarning):
    """A map sends distant tokens nearly to one point: a layer jumps where its limit diffuses."""


class AccuracyWarning(AttnflowWarning):
    """The asked accuracy was not reached; the message says what was."""


class PartialWarning(AttnflowWarning):
    """Some of what was to be computed failed; the result is of the rest."""


class GrowthWarning(AttnflowWarning):
    """Features grow without end: a wall lets in more of them the more there are."""


def warn(message: str, category: type[Warning]) -> None:
    """A warning that points at the line which led to it: the first outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
    else:
        seen = frame.f_globals.setdefault("__warningregistry__", {})
        name, line = frame.f_code.co_filename, frame.f_lineno
        warnings.warn_explicit(message, category, name, line, frame.f_globals.get("__name__"), seen)


def _is_ours(frame: FrameType) -> bool:
    """Of this package, or between two frames of it: cached properties, methods made for it, its import."""
    file, owner = frame.f_code.co_filename, frame.f_globals.get("__name__", "").partition(".")[0]
    return (
        file.startswith((_PACKAGE, "<frozen importlib"))
        or file == functools.__file__
        or (file == "<string>" and owner == _NAME)
    )


def positive(value: object, name: str) -> float:
    """A positive, finite number."""
    value = real(value, name)
    if value <= 0:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return value


def nonnegative(value: object, name: str) -> float:
    """A finite number, at least 0."""
    value = real(value, name)
    if value < 0:
        raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
    return value


def real(value: object, name: str, finite: bool = True) -> float:
    """A real number, out of the 0-d array it may come in; finite, unless that is for the caller to judge."""
    number = lone(value)
    if number is None:
        raise TypeError(f"{name} must be a real number, got {short(value)}")
    try:
        result = float(number)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got {short(value)}, beyond the range of floating point") from None
    if finite and not np.isfinite(result):
        raise ValueError(f"{name} must be finite, got {result!r}")
    return result


def fraction(value: object, name: str) -> float:
    """A number in (0, 1]."""
    value = real(value, name)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return value


def integer(value: object, name: str, least: int = 0, largest: int | None = _LARGEST) -> int:
    """An integer, at least `least` and at most `largest` (2^63 - 1)."""
    number = lone(value)
    if not isinstance(number, Integral):
        raise TypeError(f"{name} must be an integer, got {short(value)}")
    whole = int(number)
    if whole < least:
        raise ValueError(f"{name} must be at least {least}, got {_digits(whole)}")
    if largest is not None and whole > largest:
        raise ValueError(f"{name} must be at most {largest}, got {_digits(whole)}")
    return whole


def choice(value: str, name: str, accepted: Iterable[str]) -> str:
    """One of the accepted names."""
    accepted = sorted(accepted)
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {short(value)}")
    return value


def instance(value, kind: type, name: str, what: str):
    """An object of the given class; `what` says which, with its article."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {short(value)}")
    return value


def sequence(value: object, name: str, what: str) -> tuple:
    """The entries, at least one, of a list, tuple or array; `what` says of what, in the plural."""
    if not listed(value):
        raise TypeError(f"{name} must be a sequence of {what}, got {short(value)}")
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries, got {short(value)}")
    if len(value) == 0:
        raise ValueError(f"{name} must be a sequence of {what}, got none")
    return tuple(value)


def listed(value) -> TypeGuard[Sequence]:
    """Whether there are several entries to read, or one could be: a sequence or an array, no text."""
    if isinstance(value, Sequence):
        return not isinstance(value, (str, bytes, bytearray, memoryview))
    return hasattr(value, "__array__") and hasattr(value, "__iter__") and getattr(value, "ndim", 0) > 0


def path(value: str | os.PathLike, name: str) -> Path:
    """The name of a file or folder."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or os.PathLike, got {short(value)}")
    if not text or "\0" in text or len(text) > 4096:
        raise ValueError(f"{name} must be the name of a file, got {short(value)}")
    return Path(text)


def reals(value, name: str, bools: bool = False) -> np.ndarray:
    """An array of real numbers, finite or not, as float64 (float32 if it was): what all arrays are read by.

    A masked array without masked entries is its data. `bools` lets arrays (not lone bools) of them through as 0 and 1:
    features may be indicators, coordinates and parameters may not.
    """
    if type(value) is np.ndarray and value.dtype == np.float64:  # the usual case, many times in a solve
        return value
    types = _leaf_types(value)
    if any(issubclass(kind, np.ma.MaskedArray) for kind in types) and _has_masked(value):  # before NumPy makes them nan
        hint = "fill them or leave their rows out"
        raise ValueError(f"{name} must have no masked entries, got {short(value)}; {hint}")
    try:
        result = np.asarray(value)
    except Exception:  # ragged; or another library's refusal, which may be of any class
        result = np.array(None)
    kinds = "fiub" if bools and result.ndim else "fiu"
    if result.dtype.kind not in kinds or isinstance(value, (bytearray, memoryview)):
        raise TypeError(f"{name} must be an array of real numbers, got {short(value)}")
    if not bools and not types.isdisjoint((bool, np.bool_)):  # of lists that hold some, NumPy has made numbers
        raise TypeError(f"{name} must be an array of real numbers, got {short(value)}")
    if result.dtype in (np.float32, np.float64):
        return result
    with np.errstate(over="ignore"):  # of longer formats: infinite, which is for the caller to judge
        return result.astype(np.float64)


def array(value, name: str, shape: tuple[int | None, ...] | None = None, bools: bool = False) -> np.ndarray:
    """A finite float array that is not empty; `shape` has None where any length will do."""
    result = reals(value, name, bools)
    if shape is not None and (
        result.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, result.shape))
    ):
        wanted = "(" + ", ".join("any" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {result.shape}")
    if result.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {result.shape}")
    return _finite(result, name)


def points(value, name: str, columns: int | None = None) -> np.ndarray:
    """Points as an (N, n) array: one row a point."""
    result = reals(value, name)
    if result.ndim != 2:
        hint = f"; add an axis: {name}[:, None]" if result.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (N, n), one row a point, got {result.shape}{hint}")
    if len(result) == 0:
        raise ValueError(f"{name} must hold at least one point, got shape {result.shape}")
    if result.shape[1] != columns and (columns is not None or result.shape[1] == 0):
        wanted = "at least 1 column" if columns is None else f"{columns} column{'s' * (columns != 1)}"
        raise ValueError(f"{name} must have {wanted}, got shape {result.shape}")
    return _finite(result, name)


def coordinates(value, name: str, columns: int | None) -> np.ndarray:
    """Finite points (..., columns) as a float64 array, inside the space or not: one point, a batch or a mesh."""
    result = reals(value, name).astype(float, copy=False)
    if result.ndim == 0 or columns not in (None, result.shape[-1]):
        hint = f"; add an axis: {name}[..., None]" if columns == 1 else ""
        raise ValueError(f"{name} must have shape (..., {columns or 'n'}), got {result.shape}{hint}")
    if result.size == 0 and columns != 0:
        raise ValueError(f"{name} must hold at least one point, got shape {result.shape}")
    return _finite(result, name)


def pair(x, y, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Points x and y (..., columns) that broadcast against each other."""
    x, y = coordinates(x, "x", columns), coordinates(y, "y", columns)
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"x and y must broadcast against each other, got shapes {x.shape} and {y.shape}") from None
    return x, y


def features(value, name: str, rows: int) -> np.ndarray:
    """Values carried by `rows` tokens as (rows, c); a one-dimensional array is one column, bools are 0 and 1."""
    if callable(value):
        raise TypeError(f"{name} must be an array, got a function; call it on the points first")
    result = reals(value, name, bools=True)
    given = result.shape
    if result.ndim == 1:
        result = result[:, None]
    if result.ndim != 2 or len(result) != rows or result.shape[1] == 0:
        raise ValueError(f"{name} must have shape ({rows},) or ({rows}, c), got {given}")
    return _finite(result, name)


def function(value: object, name: str, what: str = "callable on points (..., n)") -> Callable:
    """A callable; `what` says on what."""
    if not callable(value):
        raise TypeError(f"{name} must be {what}, got {short(value)}")
    return value


def evaluate(value: object, x: np.ndarray, name: str) -> np.ndarray:
    """Features from a user's callable on points (N, n): (N, c), one column when it returns (N,)."""
    return features(function(value, name)(x), f"{name}(points)", len(x))


def scalar_field(value: Callable, x: np.ndarray, name: str) -> np.ndarray:
    """A user's scalar callable on points (..., n); it must return exactly x.shape[:-1].

    Minus infinity is let through (the logarithm of a zero density); NaN is not.
    """
    result = reals(value(x), f"{name}(points)").astype(float, copy=False)
    if result.shape != x.shape[:-1]:
        raise ValueError(
            f"{name} must return shape {x.shape[:-1]} for points of shape {x.shape}, got {result.shape}; "
            "index the coordinate, as in x[..., 0]"
        )
    good = result < np.inf
    if not good.all():
        where = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{name} must be finite or -inf, got {result[where]} at x = {entries(x[where])}")
    return result


def spd(matrix, name: str, where: np.ndarray | None = None) -> np.ndarray:
    """Symmetric positive definite (..., n, n); the message says at which point it is not."""
    matrix = array(matrix, name)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    if matrix.shape[-1] == 2:  # by Sylvester's criterion, many times faster still
        a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
        scale = np.maximum(np.abs(a), np.abs(d))
        with np.errstate(over="ignore", invalid="ignore"):  # then the general way decides
            certain = (a > 0) & (a * d - b * c > 1e-13 * scale**2) & (np.abs(b - c) <= 1e-9 * scale)
        if certain.all():
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
        place = "" if where is None else f" at x = {entries(where[index])}"
        raise ValueError(f"{name} must be symmetric positive definite, got {entries(matrix[index])}{place}")
    return matrix


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A numpy Generator from a Generator, a seed >= 0 or None."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None and not isinstance(lone(rng), Integral):
        raise TypeError(f"rng must be a numpy Generator, an integer or None, got {short(rng)}")
    return np.random.default_rng(None if rng is None else integer(rng, "rng", largest=None))


def output_times(t, name: str = "t") -> np.ndarray:
    """A scalar or increasing times >= 0 as a one-dimensional array."""
    if lone(t) is not None:
        t = [t]
    times = np.array([real(time, name) for time in t]) if isinstance(t, (list, tuple)) else reals(t, name).astype(float)
    if times.ndim != 1 or len(times) == 0 or times[0] < 0 or (times[1:] <= times[:-1]).any():
        raise ValueError(f"{name} must be a time >= 0 or increasing times, got {short(t)}")
    return _finite(times, name)


def short(value) -> str:
    """What came, for a message: its type and value, cut where it is long."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"int {_digits(value)}"
    if isinstance(value, np.ndarray) and value.ndim:
        text = f"of shape {value.shape}: {entries(value)}"
    else:
        try:
            text = " ".join(_REPR.repr(value).split())
        except Exception:  # an int of more digits than Python prints, inside something; or a broken __repr__
            text = ""
    kind = type(value).__name__
    return f"{kind} {text[:72]}{'...' * (len(text) > 72)}".rstrip()


def brief(value) -> str:
    """An object's own repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def entries(values: np.ndarray) -> str:
    """An array's entries on one line, the first and last ones of a large array."""
    values = np.ma.getdata(values)
    if values.size <= _FEW and values.ndim != 1:
        return str(values.tolist())
    text = np.array2string(values, threshold=_FEW, edgeitems=2 if values.ndim == 1 else 1, max_line_width=200)
    return " ".join(text.split())


def _digits(number: int) -> str:
    """An integer in full, or how long it is."""
    if number.bit_length() < 128:
        return str(number)
    return f"{'-' * (number < 0)}1e{int(number.bit_length() * 0.30103)}, about"


def lone(value) -> Real | None:
    """A lone real number, out of the 0-d array it may come in; None if it is none, as bools, text and masked are."""
    if hasattr(value, "__array__"):
        try:
            value = None if np.ma.is_masked(value) else np.asarray(value)[()]
        except Exception:  # another library's refusal
            return None
    return value if isinstance(value, Real) and not isinstance(value, (bool, np.timedelta64)) else None


def _leaf_types(value) -> set[type]:
    """Of what nested lists and tuples hold; of anything else by itself."""
    types, level = set(), [value]
    while level:  # one depth after the other: a million rows are looked at in C
        here = set(map(type, level))
        deeper = {kind for kind in here if issubclass(kind, (list, tuple))}
        types |= here - deeper
        level = list(itertools.chain.from_iterable(part for part in level if type(part) in deeper)) if deeper else []
    return types


def _has_masked(value) -> bool:
    return any(map(_has_masked, value)) if isinstance(value, (list, tuple)) else bool(np.ma.is_masked(value))


def _finite(result: np.ndarray, name: str) -> np.ndarray:
    good = np.isfinite(result)
    if not good.all():
        where = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{name} must be finite, got {result[where]} at index {where}")
    return result


_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = _REPR.maxlong = 80
