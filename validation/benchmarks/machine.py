"""The machine that was measured on: its processor and libraries in words, and how a process stays on one core of it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from attnflow.kernels.numba_engine.blocks import VECTOR_BYTES

_LIBRARIES = ("numpy", "scipy", "numba", "py-pde", "findiff", "scikit-fem")


def describe_machine() -> str:
    """Processor, cores and versions in one line."""
    model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = [f"Python {sys.version.split()[0]}"]
    for library in _LIBRARIES:
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{library} absent")
    return f"Machine: {model}, {os.cpu_count()} cores; {describe_vectors()}; {', '.join(versions)}."


def describe_vectors() -> str:
    """How wide vectors are that attnflow is compiled for, and which kernel NumPy's linear algebra runs."""
    bits = f"vectors of {8 * VECTOR_BYTES} bits"
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return bits
    kernels = {f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in threadpool_info()}
    return f"{bits}, {', '.join(sorted(kernels))}"


def pin() -> None:
    """Stay on one core, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
