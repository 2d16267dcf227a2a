"""What a function of somebody's own computes, as far as it can be read: by which two of one name are told apart."""

from __future__ import annotations

import dis
import functools
import hashlib
import json
import os
import sys
import sysconfig
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import display

_DEEPEST = 12  # objects within objects that are looked into
_MOST = 20_000  # objects in all
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


def digest(value: Any, known: Callable[[Any], Any]) -> str:
    """Of a function or object: its code, the defaults, closures and globals that it uses, and its data.

    It depends on the version of Python, as its code does. What is computed by installed libraries is a name and a version.

    Parameters
    ----------
    value : object
    known : callable
        Object -> its description as JSON, or None where it has none of its own.

    Examples
    --------
    >>> of = lambda c: digest(lambda x: np.clip(x, -c, c), lambda value: None)
    >>> of(3) == of(3) != of(6)
    True
    """
    text = json.dumps(_Reader(known).read(value, ()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Reader:
    def __init__(self, known: Callable[[Any], Any]) -> None:
        self._known, self._left = known, _MOST
        self._modules: set[str] = set()  # of functions that were read: classes of theirs are read, too

    def read(self, value: Any, above: tuple[int, ...]) -> Any:
        """Plain data; `above` are the objects that this one is in."""
        if isinstance(value, _PLAIN):
            return repr(value)
        self._left -= 1
        if id(value) in above or len(above) > _DEEPEST or self._left < 0:
            return "..."
        above = (*above, id(value))

        def read(part: Any) -> Any:
            return self.read(part, above)

        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind != "O":
            return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
        if isinstance(value, np.ndarray):
            return [list(value.shape), *map(read, value.ravel().tolist())]
        if isinstance(value, (list, tuple)):
            return [read(part) for part in value]
        if isinstance(value, (set, frozenset)):
            return sorted(json.dumps(read(part)) for part in value)
        if isinstance(value, dict):
            return {str(key): read(part) for key, part in value.items()}
        if isinstance(value, types.CodeType):  # names of variables, and what it says of itself, make no difference
            local = {*dis.haslocal, *dis.hasfree}
            steps = dis.get_instructions(value)
            return [[step.opname, step.arg if step.opcode in local else read(step.argval)] for step in steps]
        if isinstance(value, types.FunctionType) and value.__code__.co_filename.startswith(_LIBRARIES):
            return [value.__module__, value.__qualname__, _version(value.__module__)]
        if isinstance(value, types.FunctionType):
            self._modules.add(value.__module__)
            cells = [_content(cell) for cell in value.__closure__ or ()]
            used = {name: read(value.__globals__[name]) for name in _globals(value.__code__) if name in value.__globals__}
            return [read(value.__code__), read(value.__defaults__), read(value.__kwdefaults__), read(cells), used]
        if isinstance(value, types.MethodType):
            return [read(value.__func__), read(value.__self__)]
        if isinstance(value, functools.partial):
            return [read(value.func), read(value.args), read(value.keywords)]
        if isinstance(getattr(value, "py_func", None), types.FunctionType):  # compiled by numba
            return read(value.py_func)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, type):
            return [value.__module__, value.__qualname__, _members(value, read) if value.__module__ in self._modules else {}]
        if (described := self._known(value)) is not None:
            return described
        kind = type(value)
        if kind.__module__.startswith("sympy."):  # expressions, which say all they are
            return [kind.__qualname__, str(value)]
        members = _members(kind, read)
        slots = {name: getattr(value, name, None) for parent in kind.__mro__ for name in _slots(parent)}
        text = "" if members else display.lasting(value)  # what has no code that can be read is known by its name
        data = {**slots, **getattr(value, "__dict__", {})}
        return [kind.__module__, kind.__qualname__, _version(kind.__module__), text, members, read(data)]


def _members(kind: type, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Functions and data of a class and of those it comes from, but for this package's and installed libraries'."""
    own = [parent for parent in reversed(kind.__mro__) if not _installed(parent.__module__)]
    parts = {name: part for parent in own for name, part in vars(parent).items()}
    functions = {name: function for name, part in parts.items() if (function := _function(part)) is not None}
    data = {name: part for name, part in parts.items() if isinstance(part, (*_PLAIN, np.ndarray, list, tuple, dict))}
    told = functions | {name: part for name, part in data.items() if not (name.startswith("__") and name.endswith("__"))}
    return {name: read(part) for name, part in told.items()}


def _installed(module: str) -> bool:
    """Whether it is a library's, or this package's: what does not change without its version."""
    file = getattr(sys.modules.get(module), "__file__", None)
    known = module == "__main__" or file is not None  # what is built in has no file
    return module.startswith(f"{__package__}.") or not known or bool(file and file.startswith(_LIBRARIES))


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", "")) if _installed(module) else ""


def _function(part: Any) -> types.FunctionType | None:
    """Of a method, or of what is read like a variable."""
    inner = part.fget if isinstance(part, property) else getattr(part, "__func__", getattr(part, "func", part))
    return inner if isinstance(inner, types.FunctionType) else None


def _slots(kind: type) -> list[str]:
    """Names of what its objects hold besides a dictionary."""
    names = vars(kind).get("__slots__", ())
    return [names] if isinstance(names, str) else list(names)


def _globals(code: types.CodeType) -> set[str]:
    """Names that it and the functions within it read from their module."""
    read = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return read.union(*(_globals(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not set yet
        return None
