"""Arrays of the GPU in, arrays of the GPU out, for what computes with those of the host."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def through_host(call: Callable) -> Callable:
    """A method whose result is a CuPy array where one of its arguments is: they pass through the host once, pairs don't."""

    @wraps(call)
    def wrapped(layer: Any, *arrays: Any, **named: Any) -> Any:
        if not any(type(array).__module__.partition(".")[0] == "cupy" for array in (*arrays, *named.values())):
            return call(layer, *arrays, **named)
        import cupy

        def host(array):
            return None if array is None else cupy.asnumpy(array)

        return cupy.asarray(call(layer, *map(host, arrays), **{name: host(array) for name, array in named.items()}))

    return wrapped
