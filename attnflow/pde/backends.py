"""Where fields are computed: the arrays' module."""

from __future__ import annotations

import numpy as np


def namespace(backend: str):
    """The arrays' module, numpy or cupy.

    Raises
    ------
    ImportError, RuntimeError
        If CuPy is not installed, or finds no device.
    """
    if backend == "numpy":
        return np
    try:
        import cupy
    except ImportError:
        raise ImportError("backend 'cupy' needs CuPy: pip install 'attnflow[gpu]'") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own error classes need a driver to be told apart
        raise RuntimeError(f"backend 'cupy' needs a CUDA device and its driver: {error}") from None
    if not count:
        raise RuntimeError("backend 'cupy' needs a CUDA device, found none")
    return cupy
