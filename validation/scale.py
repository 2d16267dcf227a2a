"""One layer on 10^6 to 10^8 tokens that are read from disk: seconds and peak memory; and what 10^9 to 10^12 would take."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attnflow as af
from attnflow.capacity import available

from . import Report

SIZES, BLOCK = (10**6, 10**7, 10**8), 2**20
RTOL, SEEN = 1e-9, 8.0  # tokens that a token sees: N 2 pi epsilon, for cells
WIDTH = 1e-4  # epsilon of the Fourier series
MOST, FACTOR = 24 * 2**30, 2.0
_DISK = 100  # bytes that a token has on disk while a layer runs
_LAYER = """
import sys, time
import numpy as np, attnflow as af


def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


folder, size, block, engine, epsilon, rtol = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4], *map(float, sys.argv[5:7])
layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), epsilon, backend=engine, rtol=rtol)
few = np.random.default_rng(0).random((2000, 2))
af.Sharded(af.Attention(layer.f, 1e-3, backend=engine, rtol=rtol), block=1000)(few)  # compiles
tokens, values = (np.lib.format.open_memmap(f"{folder}/{name}.npy", "w+", float, (size, columns)) for name, columns in (("x", 2), ("v", 1)))
rng = np.random.default_rng(1)
for first in range(0, size, block):
    some = rng.random((min(block, size - first), 2))
    tokens[first : first + block], values[first : first + block] = some, np.cos(2 * np.pi * some[:, :1])
del tokens, values
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak of what was written
began = time.perf_counter()
out = af.Sharded(layer, block=block, scratch=folder)(f"{folder}/x.npy", f"{folder}/v.npy", out=f"{folder}/out.npy")
seconds = time.perf_counter() - began
peak = kilobytes("VmHWM")
rows = np.random.default_rng(2).integers(0, size, 4)
x, v = (np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("x", "v"))
seen = af.Sharded(af.Attention(layer.f, epsilon, backend="numba"), block=block)(x, v, queries=np.array(x[rows]))
print(seconds, peak, abs(seen - out[rows]).max())
"""


class Measured(NamedTuple):
    """One layer: its engine, tokens, seconds, peak bytes, and how far it is from all pairs summed at some tokens."""

    engine: str
    size: int
    seconds: float
    peak: float
    error: float


def measure(engine: str, size: int, block: int = BLOCK) -> Measured:
    """One layer of uniform tokens on a flat torus, files to file, in a process of its own."""
    epsilon = SEEN / (2 * np.pi * size) if engine == "cells" else WIDTH
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _LAYER, folder, *map(str, (size, block, engine, epsilon, RTOL))]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, error = map(float, ran.stdout.split())
    return Measured(engine, size, seconds, 1024 * peak, error)


if __name__ == "__main__":
    print(measure(sys.argv[1], int(float(sys.argv[2]))))
