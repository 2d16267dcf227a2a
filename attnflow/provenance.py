"""Where a result comes from: the versions that made it, and what the call was given, as JSON."""

from __future__ import annotations

import hashlib
import inspect
import platform
import re
from importlib import import_module
from typing import Any

import numpy as np

from . import display

_ENTRIES = 16  # of an array that is written out; a larger one is known by its digest


def provenance(function: str = "", /, **parameters: Any) -> dict[str, Any]:
    """The versions at hand, and what `function` was called with.

    Examples
    --------
    >>> made = provenance("propagate", layers=20, tokens=np.zeros((100, 2)))
    >>> sorted(made), made["parameters"]["layers"], made["parameters"]["tokens"]["shape"]
    (['function', 'parameters', 'versions'], 20, [100, 2])
    """
    called = {"function": function, "parameters": {k: described(v) for k, v in parameters.items()}} if function else {}
    return {"versions": versions(), **called}


def versions() -> dict[str, str]:
    """Of attnflow, of what computes for it, and of Python."""
    packages = {name: import_module(name).__version__ for name in (__package__, "numpy", "numba")}
    return packages | {"python": platform.python_version()}


def seeded(seed: Any, rng: np.random.Generator) -> Any:
    """What makes the generator again: the seed that the caller gave, or its state."""
    return rng if seed is None or isinstance(seed, np.random.Generator) else seed


def described(value: Any) -> Any:
    """A value as JSON: an object by the kind that its class has in study files and by what it was made of.

    What has no such description is a text; an array of many entries is its shape, type and digest.

    Examples
    --------
    >>> import attnflow as af
    >>> described(af.PowerDistance(af.Torus([1.0, 2.0]), 1.5))
    {'kind': 'power-distance', 'space': {'kind': 'torus', 'lengths': [1.0, 2.0]}, 'q': 1.5}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= _ENTRIES else _digest(value)
    if isinstance(value, (list, tuple)):
        return [described(part) for part in value]
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "state": described(value.bit_generator.state)}
    if isinstance(value, dict):
        return {str(key): described(part) for key, part in value.items()}
    if hasattr(value, "_description_"):
        return {"kind": _kind(value), **described(value._description_())}
    if inspect.isroutine(value) or not type(value).__module__.startswith(f"{__package__}."):
        return {"kind": "function" if callable(value) else _kind(value), "text": _text(value)}
    names = list(inspect.signature(type(value)).parameters)
    if not all(hasattr(value, name) for name in names):
        return {"kind": _kind(value), "text": _text(value)}
    return {"kind": _kind(value), **{name: described(getattr(value, name)) for name in names}}


def _kind(value: Any) -> str:
    """squared-distance of a SquaredDistance; study files write a name of two words as one."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(value).__name__.replace("VonMises", "Vonmises")).lower()


def _text(value: Any) -> str:
    """In words that are the same in every process: without the place in memory that Python's own repr tells."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", display.word(value))


def _digest(array: np.ndarray) -> dict[str, Any]:
    content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": content}
