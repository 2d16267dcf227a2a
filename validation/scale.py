"""One layer on 10^6 to 10^8 tokens that are read from disk: seconds, bytes and peak memory; and what 10^9 to 10^12 take."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import log, log10
from typing import NamedTuple

import numpy as np

import attnflow as af
from attnflow.kernels.cells_engine.search import radius

from . import Claim, Report

SIZES, BLOCK = (10**6, 10**7, 10**8), 2**20
BEYOND, CORES = (10**9, 10**10, 10**11, 10**12), 1000
SORTED = 10**10  # tokens up to which cells are predicted: counts of blocks times slabs, in one process, grow as their square
PAIRS = 10**5  # tokens of which all pairs are summed
RTOL, SEEN, WIDTH = 1e-9, 8.0, 1e-4  # cells: a token sees N 2 pi epsilon others; nufft: epsilon
MOST, FACTOR = 24 * 2**30, 2.0
_DISK = 100  # bytes that a token has on disk while a layer runs
_LAYER = """
import sys, time
import numba, numpy as np, attnflow as af
from attnflow.sharded import fourier, near, pairs, slabs, sums


def number(file, name):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def moved():
    return number("io", "rchar") + number("io", "wchar")


folder, size, block, engine, epsilon, rtol = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4], *map(float, sys.argv[5:7])
layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), epsilon, backend=engine, rtol=rtol)
shared = [0.0]  # seconds in what workers would do


def timed(client, function, calls):
    for call in calls:
        began = time.perf_counter()
        result = function(*call)
        shared[0] += time.perf_counter() - began
        yield result


few = np.random.default_rng(0).random((2000, 2))
af.Sharded(af.Attention(layer.f, 1e-3, backend=engine, rtol=rtol), block=1000)(few)  # compiles
x, v = (np.lib.format.open_memmap(f"{folder}/{name}.npy", "w+", float, (size, c)) for name, c in (("x", 2), ("v", 1)))
rng = np.random.default_rng(1)
for first in range(0, size, block):
    some = rng.random((min(block, size - first), 2))
    x[first : first + block], v[first : first + block] = some, np.cos(2 * np.pi * some[:, :1])
del x, v
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak of what was written
for module in (fourier, near, pairs, slabs, sums):
    module.each = timed
before, began = moved(), time.perf_counter()
out = af.Sharded(layer, block=block, scratch=folder)(f"{folder}/x.npy", f"{folder}/v.npy", out=f"{folder}/out.npy")
print(time.perf_counter() - began, shared[0], moved() - before, 1024 * number("status", "VmHWM"), numba.get_num_threads())
rows = np.sort(np.random.default_rng(2).integers(0, size, 4))
x, v = (np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("x", "v"))
exact = af.Attention(layer.f, epsilon, backend="numba")
if engine != "numba":  # which is compared with the layer itself
    exact = af.Sharded(exact, block=block)
exact = exact(x, v, queries=np.array(x[rows]))
print(abs(exact - out[rows]).max())
"""


class Measured(NamedTuple):
    """One layer of `size` tokens: what it took, on how many threads, and its largest error at some tokens."""

    engine: str
    size: int
    block: int
    seconds: float
    shared: float  # of these, what workers share
    moved: float  # bytes read and written
    peak: float  # bytes
    threads: float
    error: float


class Predicted(NamedTuple):
    """One layer of `size` tokens that nobody ran."""

    engine: str
    size: int
    moved: float
    core_seconds: float
    alone: float  # seconds in the process that hands out the work


def measure(engine: str, size: int, block: int = BLOCK) -> Measured:
    """One layer of uniform tokens on a flat torus, files to file, in a process of its own (from Linux's /proc)."""
    epsilon = SEEN / (2 * np.pi * size) if engine == "cells" else WIDTH
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _LAYER, folder, *map(str, (size, block, engine, epsilon, RTOL))]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(engine, size, block, *map(float, ran.stdout.split()))


def predict(known: Measured, size: int, block: int = BLOCK) -> Predicted:
    """The same layer of more tokens, from what was measured.

    All pairs: as their number, keys read anew for every block of queries. Near keys: as the tokens, times the square of the
    reach that `size` tokens ask for, at the same number of tokens seen. Fourier: as the tokens.
    """
    grows, reach = size / known.size, 1.0
    moved, shared = known.moved * grows, known.shared * known.threads * grows
    if known.engine == "numba":
        moved, shared = moved * grows * known.block / block, shared * grows
    if known.engine == "cells":
        f = af.SquaredDistance(af.Euclidean(2))
        reach = (radius(f, 1.0, size, RTOL) / radius(f, 1.0, known.size, RTOL)) ** 2
    return Predicted(known.engine, size, moved, shared * reach, (known.seconds - known.shared) * grows)


def table(measured: Sequence[Measured]) -> list[list[str]]:
    """The rows for what nobody ran: each engine from its largest layer that was measured."""
    last = {one.engine: one for one in measured}
    rows = []
    sizes = {name: [size for size in BEYOND if name != "cells" or size <= SORTED] for name in last}
    for row in (predict(known, size) for known in last.values() for size in sizes[known.engine]):
        seconds = row.core_seconds / CORES + row.alone
        cells = (
            f"{(row.core_seconds + row.alone) / row.size:.2g}",
            _bytes(row.moved),
            "",
            _time(seconds),
            f"{_bytes(row.moved / seconds)}/s",
        )
        rows.append([row.engine, f"{row.size:.0e}", "predicted", *cells, ""])
    return rows


def on_workers(size: int = 10**6, shards: int = 8, workers: int = 2) -> float:
    """The largest difference of a layer whose shards are on the workers of a cluster from the layer itself."""
    from distributed import Client, LocalCluster

    layer = af.Attention(
        af.SquaredDistance(af.Torus([1.0, 1.0])), SEEN / (2 * np.pi * size), af.DensityCorrected(0.5), backend="cells"
    )
    tokens = np.random.default_rng(3).random((size, 2))
    values = np.cos(2 * np.pi * tokens[:, :1])
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        found = af.Sharded(layer, block=-(-size // shards), client=client)(tokens, values)
    return float(abs(found - layer(tokens, values)).max())


def run() -> Report:
    """Layers from file to file, one after the other; then the larger ones, computed from these."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    sizes = [size for size in SIZES if _DISK * size < free]
    engines = [name for name in ("cells", "nufft") if af.backends()[name].startswith("available")]
    measured, rows, claims = [], [], list[Claim]()
    for engine, some, block in [("numba", [PAIRS], PAIRS // 8), *((engine, sizes, BLOCK) for engine in engines)]:
        for size in some:
            one = measure(engine, size, block)
            print(f"{engine}, {size:.0e} tokens: {one.seconds:.1f} s")
            measured.append(one)
            cells = f"{one.seconds * one.threads / size:.2g}", _bytes(one.moved), f"{one.peak / 2**30:.2f}", _time(one.seconds)
            rows.append([engine, f"{size:.0e}", "measured", *cells, f"{_bytes(one.moved / one.seconds)}/s", f"{one.error:.0e}"])
            named = f"{engine}, {size:.0e} tokens"
            claims += [
                Claim(f"{named}: off all pairs at some tokens", f"{one.error:.1e}", f"< {RTOL:.0e}", one.error < RTOL),
                Claim(f"{named}: peak resident memory", f"{one.peak / 2**30:.2f} GiB", "< 24 GiB", one.peak < MOST),
            ]
        first, last = measured[-len(some)], measured[-1]
        if len(some) > 1:
            ratio = last.seconds / last.size / (first.seconds / first.size)
            what = f"{engine}: time of a token of {last.size:.0e} over one of {first.size:.0e}"
            claims.append(Claim(what, f"{ratio:.2f}", f"< {FACTOR:.0f}", ratio < FACTOR))
            what = f"{engine}: memory of {last.size:.0e} tokens over that of {first.size:.0e}"
            claims.append(Claim(what, f"{last.peak / first.peak:.2f}", f"< {FACTOR:.0f}", last.peak < FACTOR * first.peak))
    difference = on_workers()
    what = "1e6 tokens in 8 shards on 2 worker processes, density-corrected: off the layer itself"
    claims.append(Claim(what, f"{difference:.1e}", "< 1e-12", difference < 1e-12))
    threads = measured[-1].threads
    left = [f"{size:.0e}" for size in SIZES if size not in sizes]
    text = (
        f"One layer of uniform tokens on a flat torus, read from files and written to one in blocks of 2^{log(BLOCK, 2):.0f} tokens; rtol = {RTOL:.0e}. Cells: a token\n"
        f"sees {SEEN:.0f} others, 2 pi eps N; nufft: eps = {WIDTH:.0e}; numba: all pairs, of {PAIRS} tokens in eight blocks. Bytes are all that is read and\n"
        f"written, memory is the peak of the process. Core seconds are seconds times threads, here {threads:.0f}. What is predicted is the time on\n"
        f"{CORES} such cores behind a disk that is fast enough, as the column says, from the largest layer measured of each engine:\n"
        f"pairs as N^2, near keys as N log(2 N / rtol) up to {SORTED:.0e} tokens, Fourier series as N; what one process does alone is not\n"
        f"shared. Errors are off all pairs in shards; those of numba, off the layer itself."
        + (f"\nNot enough disk here for {', '.join(left)}." if left else "")
    )
    columns = ["engine", "tokens", "", "core s per token", "bytes moved", "peak (GiB)", "time", "disk", "error"]
    return Report("Layers larger than memory", text, columns, rows + table(measured), claims)


def _bytes(count: float) -> str:
    power = min(int(log10(max(count, 1.0)) / 3), 8)
    return f"{count / 1000**power:.3g} {' kMGTPEZY'[power].strip()}B"


def _time(seconds: float) -> str:
    units = ((3.156e7, "years"), (86400, "days"), (3600, "h"), (60, "min"))
    return next((f"{seconds / unit:.3g} {name}" for unit, name in units if seconds >= unit), f"{seconds:.3g} s")
