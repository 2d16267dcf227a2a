"""The automatic choice beside every engine it could have taken, on a grid of dimensions, sizes and widths."""

from __future__ import annotations

import time

import numpy as np

import attnflow as af
from attnflow.kernels import choose, plan
from validation import Report

from .machine import describe_machine

COLUMNS = ("tokens", "width", "chosen", "dense (s)", "cells (s)", "nufft (s)", "chosen / best")
GRID = {1: (3e-4, 3e-3, 0.03), 2: (2e-3, 0.01, 0.05), 3: (0.01, 0.03, 0.1)}
SIZES = (3_000, 20_000, 100_000)
RTOL, DENSEST, PATIENCE = 1e-9, 20_000, 20.0


def run(rounds: int = 2) -> Report:
    """Preparation and one layer each; engines predicted to take over 20 s are left out."""
    rows, ratios = [], []
    for dim, widths in GRID.items():
        f = af.SquaredDistance(af.Torus([1.0] * dim))
        for size in SIZES:
            rng = np.random.default_rng(0)
            tokens, values = rng.random((size, dim)), rng.standard_normal((size, 1))
            for width in widths:
                chosen = choose(f, width**2, None, tokens, rtol=RTOL, applications=1)
                seconds = {}
                for engine in ("numba", "cells", "nufft"):
                    predicted = chosen.seconds.get(engine, 0.0)
                    if predicted < PATIENCE and (engine in (chosen.engine, "cells", "nufft") or size <= DENSEST):
                        seconds[engine] = _time(engine, f, width, tokens, values, rounds)
                known = {engine: s for engine, s in seconds.items() if s is not None}
                ratio = known[chosen.engine] / min(known.values()) if chosen.engine in known else np.nan
                ratios.append(ratio)
                cells = [f"{known[e]:.4f}" if e in known else "" for e in ("numba", "cells", "nufft")]
                rows.append([f"{size} in {dim}-D", f"{width:g}", chosen.engine, *cells, f"{ratio:.2f}"])
    worst = np.nanmax(ratios)
    text = (
        f"Gaussian similarity, uniform tokens on the unit torus, rtol {RTOL:g}: preparation and one layer, fastest of {rounds}.\n"
        f"Worst ratio {worst:.2f}; {np.mean(np.array(ratios) <= 1.5):.0%} within 1.5 (goal: all).\n{describe_machine()}"
    )
    return Report("The automatic choice beside the best engine", text, COLUMNS, rows, {})


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
