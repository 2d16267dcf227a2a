"""The automatic choice beside every engine it could have taken: dimensions, widths, heads, maps and expressions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import sympy

import attnflow as af
from attnflow.kernels import choose, plan
from validation import Report

from .machine import describe_machine

COLUMNS = ("f", "tokens", "width", "chosen", "dense (s)", "cells (s)", "nufft (s)", "chosen / best")
GRID = {1: (3e-4, 3e-3, 0.03), 2: (2e-3, 0.01, 0.05), 3: (0.01, 0.03, 0.1)}
SIZES = (3_000, 20_000, 100_000)
HEADS, MANY = (8, 64, 384), (3_000, 20_000)  # columns, tokens
RTOL, DENSEST, PATIENCE = 1e-9, 20_000, 20.0


def run(rounds: int = 2) -> Report:
    """Preparation and one layer each; engines predicted to take over 20 s are left out."""
    rows, ratios = [], []
    for name, f, tokens, width in cases():
        values = np.random.default_rng(1).standard_normal((len(tokens), 1))
        chosen = choose(f, width**2, None, tokens, rtol=RTOL, applications=1)
        seconds = {}
        for engine in ("numba", "cells", "nufft"):
            predicted = chosen.seconds.get(engine, 0.0)
            if predicted < PATIENCE and (engine in (chosen.engine, "cells", "nufft") or len(tokens) <= DENSEST):
                seconds[engine] = _time(engine, f, width, tokens, values, rounds)
        known = {engine: s for engine, s in seconds.items() if s is not None}
        ratio = known[chosen.engine] / min(known.values()) if chosen.engine in known else np.nan
        ratios.append(ratio)
        cells = [f"{known[e]:.4f}" if e in known else "" for e in ("numba", "cells", "nufft")]
        rows.append([name, f"{len(tokens)} in {tokens.shape[1]}-D", f"{width:g}", chosen.engine, *cells, f"{ratio:.2f}"])
    worst = np.nanmax(ratios)
    text = (
        f"Uniform tokens, rtol {RTOL:g}, exp(-f / (2 width^2)): preparation and one layer, fastest of {rounds}. A map sends the\n"
        "plane to a surface in ten dimensions; an expression is compiled by sympy and numba before it is timed.\n"
        f"Worst ratio {worst:.2f}; {np.mean(np.array(ratios) <= 1.5):.0%} within 1.5 (goal: all).\n{describe_machine()}"
    )
    return Report("The automatic choice beside the best engine", text, COLUMNS, rows, {})


def cases() -> Iterator[tuple[str, af.PseudoMetric, np.ndarray, float]]:
    """Names, pseudo-metrics, tokens and widths."""
    rng = np.random.default_rng(0)
    for dim, widths in GRID.items():
        for size in SIZES:
            tokens = rng.random((size, dim))
            for width in widths:
                yield "d^2, torus", af.SquaredDistance(af.Torus([1.0] * dim)), tokens, width
    for dim in HEADS:
        for size in MANY:
            tokens = rng.standard_normal((size, dim))
            yield "d^2", af.SquaredDistance(af.Euclidean(dim)), tokens, float(np.sqrt(dim) / 3)
            yield "d^2", af.SquaredDistance(af.Euclidean(dim)), tokens, 0.2
            yield "-x'y", af.DotProduct(), tokens / np.sqrt(dim), 0.3
    for size in SIZES:
        tokens = rng.uniform(-1, 1, (size, 2))
        for width in (0.01, 0.03, 0.1, 0.3):
            yield "map", af.SquaredMap(surface), tokens, width
    x, y = sympy.symbols("x0:2"), sympy.symbols("y0:2")
    expression = sum(2 - 2 * sympy.cos(a - b) for a, b in zip(x, y))
    for size in MANY:
        yield "2 - 2 cos", af.PseudoMetric(expression, 2), rng.uniform(0, 2 * np.pi, (size, 2)), 0.3


def surface(x: np.ndarray) -> np.ndarray:
    """Points (..., 2) on a surface in ten dimensions, (..., 10)."""
    a = np.linspace(0.5, 2.0, 4)
    return np.concatenate([x, np.tanh(x[..., :1] * a), np.sin(x[..., 1:] * a)], axis=-1)


def _time(engine, f, width, tokens, values, rounds) -> float | None:
    best = np.inf
    for _ in range(rounds):
        began = time.perf_counter()
        try:
            plan(f, width**2, None, tokens, engine, rtol=RTOL)(values)
        except (ValueError, ImportError):
            return None
        best = min(best, time.perf_counter() - began)
    return best
