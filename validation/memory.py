"""How much memory a layer of many tokens takes with every engine, and a solve on 512 x 512 cells (from Linux's /proc)."""

from __future__ import annotations

import subprocess
import sys

import attnflow as af

from . import Claim, Report

TOKENS, HEADS, CELLS = 100_000, 20_000, 512
_DTYPES = ("float64", "float32")
_MEASURE = """
import sys, time
import numpy as np, attnflow as af


def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def measure(small, large):
    small()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak that importing and compiling left behind
    before = kilobytes("VmRSS")
    began = time.perf_counter()
    large()
    print(kilobytes("VmHWM") - before, time.perf_counter() - began)


"""
_LAYER = """
torus = af.Torus([1.0, 1.0])
layer = af.Attention(af.SquaredDistance(torus), 0.001, sys.argv[2], backend=sys.argv[3], rtol=1e-9)
rng = np.random.default_rng(0)
few, many = rng.random((100, 2)), rng.random((int(sys.argv[1]), 2))
measure(lambda: layer(few, few), lambda: layer(many, np.cos(6.28 * many[:, :1])))
"""
_HEAD = """
rng = np.random.default_rng(0)
f = {"inner": af.DotProduct(), "squares": af.SquaredDistance(af.Euclidean(64))}[sys.argv[2]]
layer = af.Attention(f, 16.0, backend="numba", dtype=sys.argv[3])
few, many = rng.standard_normal((100, 64)), rng.standard_normal((int(sys.argv[1]), 64))
measure(lambda: layer(few, few), lambda: layer(many, many))
"""
_OWN = """
import sympy
x, y = sympy.symbols("x0:2"), sympy.symbols("y0:2")
f = {
    "expression": af.PseudoMetric(sum(2 - 2 * sympy.cos(a - b) for a, b in zip(x, y)), 2),
    "map": af.SquaredMap(lambda x: np.concatenate([x, np.sin(x), np.cos(x), np.sin(2 * x), np.tanh(x)], axis=-1)),
}[sys.argv[2]]
layer = af.Attention(f, 0.001, backend=sys.argv[3])
rng = np.random.default_rng(0)
few, many = rng.uniform(0, 6, (300, 2)), rng.uniform(0, 6, (int(sys.argv[1]), 2))
measure(lambda: layer(few, few), lambda: layer(many, many))
"""
_CHOSEN = """
rng = np.random.default_rng(0)
tokens = rng.random((int(sys.argv[1]), 2)) if sys.argv[3] == "torus" else rng.standard_normal((int(sys.argv[1]), 64))
f, epsilon = (af.SquaredDistance(af.Torus([1.0, 1.0])), 0.001) if sys.argv[3] == "torus" else (af.DotProduct(), 8.0)
laws = {"top-32": af.TopK(32), "sparse 0.01": af.Sparse(0.01), "perplexity 30": af.Perplexity(30)}


def run(size):
    labels, queries = np.arange(size) % 10, np.repeat(np.arange(size), 50)
    masks = {"causal": "causal", "labels": labels, "graph": np.stack([queries, rng.integers(0, size, len(queries))], axis=1)}
    layer = af.Attention(f, epsilon, laws.get(sys.argv[2], "softmax"), mask=masks.get(sys.argv[2]))
    layer(tokens[:size], tokens[:size])


measure(lambda: run(300), lambda: run(len(tokens)))
"""
_SPECTRUM = """
torus = af.Torus([1.0, 1.0])
layer = af.Attention(af.SquaredDistance(torus), 0.001)
rng = np.random.default_rng(0)
few, many = rng.random((2000, 2)), rng.random((int(sys.argv[1]), 2))
measure(lambda: layer.spectrum(few, 10), lambda: layer.spectrum(many, 10))
"""
_EQUATION = """
def metric(x):
    g = np.empty((*x.shape, 2))
    g[..., 0, 0], g[..., 1, 1] = 1.5, 1.2
    g[..., 0, 1] = g[..., 1, 0] = 0.5 * np.cos(x[..., 0])
    return g


space = af.Chart(metric, [(0, 2 * np.pi)] * 2, periodic=True)
pde = af.DriftDiffusion(af.Density(space, lambda x: np.cos(x[..., 0])))
solve = lambda n: pde.solve(lambda x: np.sin(x[:, 0] - x[:, 1]), 0.25, grid=n, method="finite-volume")
measure(lambda: solve(32), lambda: solve(int(sys.argv[1])))
"""


def run() -> Report:
    """Growth of the peak resident size over a warm small call, in a process of its own."""
    rows, claims = [], []
    layers = [("softmax", "numba"), ("column", "numba"), ("softmax", "cells"), ("softmax", "nufft")]
    runs = [  # what, script, its arguments, megabytes: an array of N x N numbers has 80 000, for 20 000 tokens 3200
        (f"{normalization} layer, {engine}", _LAYER, [TOKENS, normalization, engine], 50)
        for normalization, engine in layers
        if af.backends()[engine].startswith("available")
    ]
    runs += [(f"64 columns, {f}, {dtype}", _HEAD, [HEADS, f, dtype], 120) for f in ("inner", "squares") for dtype in _DTYPES]
    runs += [
        ("expression, numba", _OWN, [HEADS, "expression", "numba"], 50),
        ("map to 10 columns, cells", _OWN, [TOKENS, "map", "cells"], 150),
    ]
    for what in ("top-32", "sparse 0.01", "perplexity 30", "causal", "labels", "graph"):
        most = 300 if what in ("sparse 0.01", "perplexity 30") else 200
        runs += [(f"{where}, {what}", _CHOSEN, [HEADS, what, where], most) for where in ("torus", "64 columns")]
    runs += [("spectrum, k = 10", _SPECTRUM, [TOKENS], 250), ("oblique metric, n x n cells", _EQUATION, [CELLS], 300)]
    for name, script, arguments, most in runs:
        command = [sys.executable, "-c", _MEASURE + script, *map(str, arguments)]
        growth, seconds = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        megabytes = growth / 1024
        print(f"{name}: {seconds:.1f} s")  # reported, not gated: machines differ
        rows.append([name, str(arguments[0]), f"{megabytes:.0f}"])
        claims.append(
            Claim(f"{name}, {arguments[0]}: growth", f"{megabytes:.0f} MB", f"below {most} MB", bool(megabytes < most))
        )
    text = (
        "One layer on the flat torus in float64, of heads, of an expression and of a map; of sparse laws, masks and a graph of 50\n"
        "edges for each token; ten eigenvalues of one; and finite volumes in two dimensions, error estimate included.\n"
        "Growth of the peak resident size over a warm small call."
    )
    return Report("Memory of one layer and of one solve", text, ["what", "n", "growth (MB)"], rows, claims)
