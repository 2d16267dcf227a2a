"""The CUDA engine on the device at hand: its sums beside the reference, KeOps, and the processor's engine."""

from __future__ import annotations

import statistics
import time

import numpy as np

import attnflow as af
from attnflow.kernels import plan
from validation import Claim, Report

COLUMNS = ("sum", "kernel", "error", "seconds", "Gpairs/s", "KeOps (s)", "times KeOps")
CASES = [
    (dim, size, dtype) for dim in (2, 3, 8, 64) for size in (10_000, 100_000, 1_000_000) for dtype in ("float32", "float64")
]
PATIENCE = 2e13  # pair coordinates per case


def run(rounds: int = 5) -> Report:
    """Warm sums of one value column, tokens already on the device.

    Raises
    ------
    RuntimeError
        Without a device, saying what is missing.
    """
    state = af.backends()["cupy"]
    if not state.startswith("available"):
        raise RuntimeError(state)
    import cupy

    rows, claims = [], []
    for dim, size, dtype in CASES:
        if float(size) ** 2 * dim > PATIENCE:
            continue
        rng = np.random.default_rng(0)
        x, v = rng.random((size, dim)), rng.standard_normal((size, 1))
        f, epsilon = af.SquaredDistance(af.Euclidean(dim)), dim / 50
        ready = plan(f, epsilon, None, cupy.asarray(x), "cupy", dtype, 1e-5 if dtype == "float32" else 1e-12)
        values = cupy.asarray(v)
        seconds, mean = [], ready(values).mean
        for k in range(rounds):
            bias = cupy.full(size, 1e-3 * (k + 1))
            cupy.cuda.Device().synchronize()
            began = time.perf_counter()
            ready(values, bias)
            cupy.cuda.Device().synchronize()
            seconds.append(time.perf_counter() - began)
        rows_checked = np.linspace(0, size - 1, 32).astype(int)
        exact = plan(f, epsilon, x[rows_checked], x, "numba")(v).mean
        error = float(np.abs(cupy.asnumpy(mean)[rows_checked] - exact).max() / np.abs(v).max())
        ours, keops = statistics.median(seconds), _keops(x, v, epsilon, dtype, rounds)
        name, limit = f"n={dim} N={size:.0e} {dtype}", 1e-4 if dtype == "float32" else 1e-10
        claims.append(Claim(f"{name}: less the processor's engine", f"{error:.0e}", f"at most {limit:g}", bool(error <= limit)))
        beside = ["absent", ""] if keops is None else [f"{keops:.4f}", f"{keops / ours:.2f}"]
        rows.append(
            [
                name,
                str(ready.run.stats.get("kernel", "")),
                f"{error:.0e}",
                f"{ours:.5f}",
                f"{size**2 / ours / 1e9:.1f}",
                *beside,
            ]
        )
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    text = (
        f"Device: {properties['name'].decode()}, {properties['multiProcessorCount']} multiprocessors; cupy {cupy.__version__}."
    )
    return Report("Sums on a CUDA device", text, COLUMNS, rows, claims)


def _keops(x, v, epsilon, dtype, rounds) -> float | None:
    """Median seconds of KeOps on the same device; None where it is not installed."""
    try:
        import torch
        from pykeops.torch import LazyTensor
    except ImportError:
        return None
    points, values = (torch.tensor(a, dtype=getattr(torch, dtype), device="cuda") for a in (x, v))
    logits = -((LazyTensor(points[:, None]) - LazyTensor(points[None])) ** 2).sum(-1) / (2 * epsilon)
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        logits.sumsoftmaxweight(LazyTensor(values[None]), axis=1)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
