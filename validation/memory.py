"""How much memory one layer of many tokens takes: no N x N array, and not much else (read from Linux's /proc)."""

from __future__ import annotations

import subprocess
import sys

from . import Report

TOKENS, ALLOWED = 100_000, 300  # megabytes
_SCRIPT = """
import sys, time
import numpy as np, attnflow as af
torus = af.Torus([1.0, 1.0])
layer = af.Attention(af.SquaredDistance(torus), 0.001, sys.argv[2])
rng = np.random.default_rng(0)
few, many = rng.random((100, 2)), rng.random((int(sys.argv[1]), 2))
layer(few, few)


def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak that importing and compiling left behind
before = kilobytes("VmRSS")
began = time.perf_counter()
layer(many, np.cos(6.28 * many[:, :1]))
print(kilobytes("VmHWM") - before, time.perf_counter() - began)
"""


def run() -> Report:
    """Growth of the peak resident size over a warm small call, in a process of its own."""
    rows, claims = [], {}
    for normalization in ("softmax", "column"):
        command = [sys.executable, "-c", _SCRIPT, str(TOKENS), normalization]
        growth, seconds = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        megabytes = growth / 1024
        print(f"{normalization}: {seconds:.1f} s")  # reported, not gated: machines differ
        rows.append([normalization, str(TOKENS), f"{megabytes:.0f}"])
        claims[f"{normalization}: one layer of {TOKENS} tokens in two dimensions grows by less than {ALLOWED} MB"] = (
            megabytes < ALLOWED
        )
    text = "Flat torus, one layer in float64. Growth of the peak resident size over a warm call on 100 tokens."
    return Report("Memory of one layer", text, ["normalisation", "tokens", "growth (MB)"], rows, claims)
