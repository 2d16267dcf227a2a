"""The machine that was measured on: its processor and libraries in words, and how a process stays on one core of it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

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
    return f"Machine: {model}, {os.cpu_count()} cores; {', '.join(versions)}."


def pin() -> None:
    """Stay on one core, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
