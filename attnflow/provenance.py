"""Where a result comes from: the versions that made it, and what the call was given, as JSON."""

from __future__ import annotations

import hashlib
import inspect
import platform
import re
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from . import display, functions

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

    What has no such description is a text, with a digest of its code and data if it is no part of this package; an array of
    many entries is its shape, type and digest.

    Examples
    --------
    >>> import attnflow as af
    >>> described(af.PowerDistance(af.Torus([1.0, 2.0]), 1.5))
    {'kind': 'power-distance', 'space': {'kind': 'torus', 'lengths': [1.0, 2.0]}, 'q': 1.5}
    """
    return _described(value, ())


def _described(value: Any, above: tuple[int, ...]) -> Any:
    """`above` are the objects that it is in."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= _ENTRIES else _digest(value)
    if id(value) in above:
        return "..."
    inside = partial(_described, above=(*above, id(value)))
    if isinstance(value, (list, tuple)):
        return [inside(part) for part in value]
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "state": inside(value.bit_generator.state)}
    if isinstance(value, dict):
        return {str(key): inside(part) for key, part in value.items()}
    if hasattr(value, "_description_"):
        return {"kind": _kind(value), **inside(value._description_())}
    if _ours(value) and (given := _given(value)) is not None:
        return {"kind": _kind(value), **{name: inside(part) for name, part in given.items()}}
    text = {"kind": "function" if callable(value) else _kind(value), "text": display.lasting(value)}
    return text | {"sha256": functions.digest(value, lambda part: inside(part) if part is not value and _ours(part) else None)}


def _ours(value: Any) -> bool:
    return type(value).__module__.startswith(f"{__package__}.") and not inspect.isroutine(value)


def _given(value: Any) -> dict[str, Any] | None:
    """What an object was made of, kept under `_name` where the name is that of something else; None if it was not kept."""
    derived = {part.name for part in fields(value) if not part.compare} if is_dataclass(value) else set()
    names = [name for name in inspect.signature(type(value)).parameters if name not in derived]
    kept = {name: name if hasattr(value, name) and not inspect.ismethod(getattr(value, name)) else f"_{name}" for name in names}
    return (
        {name: getattr(value, key) for name, key in kept.items()} if all(hasattr(value, key) for key in kept.values()) else None
    )


def _kind(value: Any) -> str:
    """squared-distance of a SquaredDistance; study files write a name of two words as one."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(value).__name__.replace("VonMises", "Vonmises")).lower()


def _digest(array: np.ndarray) -> dict[str, Any]:
    content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": content}
