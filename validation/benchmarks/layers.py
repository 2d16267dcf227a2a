"""Ten thousand layers of fixed tokens: one sequence of Chebyshev polynomials beside that many applications."""

from __future__ import annotations

import statistics
import time

import numpy as np

import attnflow as af
from validation import Claim, Report

from .machine import describe_machine

LAYERS, SIZE, SAMPLE = 10_000, 10_000, 20
COLUMNS = (
    "similarity",
    "normalisation",
    "applications",
    "seconds",
    "one application (s)",
    "times faster",
    "error bound",
    "goal",
)


def run(rounds: int = 3) -> Report:
    """The final state of 10 000 layers on 10 000 tokens; applications are extrapolated from a sample of them."""
    rng = np.random.default_rng(0)
    rows, claims = [], []
    cases = {
        "Gaussian, Euclidean": (af.SquaredDistance(af.Euclidean(2)), rng.random((SIZE, 2)), "softmax"),
        "Gaussian, torus": (af.SquaredDistance(af.Torus([1.0, 1.0])), rng.random((SIZE, 2)), "sinkhorn"),
    }
    for name, (f, tokens, normalization) in cases.items():
        layer = af.Attention(f, 2e-3, normalization, backend="numba")
        values = np.sin(6 * tokens[:, :1])
        bound = layer.bind(tokens)
        features = bound.step(values)
        steps = []
        for _ in range(SAMPLE):
            began = time.perf_counter()
            features = bound.step(features)
            steps.append(time.perf_counter() - began)
        one = statistics.median(steps)
        began = time.perf_counter()
        final = af.propagate(layer, tokens, values, LAYERS, save_every=LAYERS)
        seconds = time.perf_counter() - began
        short = af.propagate(layer, tokens, values, SAMPLE + 1, save_every=SAMPLE + 1)
        rows.append([
            name, normalization, str(final.stats["applications"]), f"{seconds:.1f}", f"{one:.3f}",
            f"{LAYERS * one / seconds:.1f}", f"{final.stats['error_bound']:.0e}", ">= 12",
        ])  # fmt: skip
        gap = float(np.abs(short.y[-1] - features).max())
        claims.append(Claim(f"{name}: {SAMPLE + 1} layers less as many steps", f"{gap:.0e}", "below 1e-09", gap < 1e-9))
    text = f"{LAYERS} layers, {SIZE} tokens, all cores; time on the wall.\n{describe_machine()}"
    return Report("Many layers at the cost of hundreds", text, COLUMNS, rows, claims)
