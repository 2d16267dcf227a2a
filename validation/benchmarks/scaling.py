"""From a thousand tokens to ten million: seconds per layer of every engine, on one thread and on two."""

from __future__ import annotations

import statistics
import time

import numba
import numpy as np

import attnflow as af
from attnflow.kernels import plan
from validation import Report

from .dense import INSTRUCTIONS
from .machine import describe_machine
from .sums import multiply_adds_per_second

COLUMNS = ("engine", "tokens", "one thread (s)", "two threads (s)", "ratio", "preparation (s)")
LARGEST = {"numba": 40_000, "cells": 1_000_000, "nufft": 10_000_000}
WIDTH = {"numba": 0.02, "nufft": 0.02}  # cells: 50 keys within reach, whatever their number
RTOL = 1e-9


def run(rounds: int = 3) -> Report:
    """A layer of uniform tokens in the unit square."""
    rows, curves, installed = [], {}, af.backends()
    for engine, largest in LARGEST.items():
        if not installed[engine].startswith("available"):
            rows.append([engine, installed[engine], *[""] * 4])
            continue
        sizes = [n for n in (1_000, 4_000, 10_000, 40_000, 100_000, 1_000_000, 10_000_000) if n <= largest]
        for size in sizes:
            seconds, prepared = _time(engine, size, rounds)
            curves.setdefault(engine, []).append((size, seconds))
            cells = [f"{s:.4f}" for s in seconds]
            rows.append([engine, f"{size:.0e}", *cells, f"{seconds[0] / seconds[-1]:.2f}", f"{prepared:.3f}"])
    text = (
        f"Gaussian similarity, uniform tokens in the unit square, width 0.02 (cells: 50 keys within reach), rtol {RTOL:g},\n"
        f"one value column and a new bias; medians of {rounds}, time on the wall.\n{describe_machine()}"
    )
    pairs = multiply_adds_per_second() / INSTRUCTIONS["n=2"]
    title = "Seconds per layer against the number of tokens"
    return Report(title, text, COLUMNS, rows, [], lambda ax: draw(ax, curves, pairs))


def _time(engine: str, size: int, rounds: int) -> tuple[list[float], float]:
    rng = np.random.default_rng(0)
    tokens, values = rng.random((size, 2)), rng.standard_normal((size, 1))
    reach = np.sqrt(2 * np.log(2 * size / RTOL))
    width = WIDTH.get(engine, np.sqrt(50 / (np.pi * size)) / reach)
    result, before = [], numba.get_num_threads()
    try:
        for threads in (1, 2)[: numba.config.NUMBA_NUM_THREADS]:
            numba.set_num_threads(threads)
            began = time.perf_counter()
            ready = plan(af.SquaredDistance(af.Euclidean(2)), width**2, None, tokens, engine, rtol=RTOL)
            prepared = time.perf_counter() - began
            ready(values)
            seconds = []
            for k in range(rounds):
                began = time.perf_counter()
                ready(values, np.full(size, 1e-3 * (k + 1)))
                seconds.append(time.perf_counter() - began)
            result.append(statistics.median(seconds))
    finally:
        numba.set_num_threads(before)
    return result, prepared


def draw(ax, curves, pairs: float) -> None:
    """Seconds against tokens, log-log, with what the processor allows the dense sum at so many `pairs` a second."""
    for (engine, points), marker, colour in zip(curves.items(), "os^", ("0.55", "0.25", "#c2410c")):
        sizes = [size for size, _ in points]
        ax.plot(sizes, [seconds[0] for _, seconds in points], marker + "-", color=colour, label=f"{engine}, one thread")
        ax.plot(sizes, [seconds[-1] for _, seconds in points], marker + ":", color=colour, mfc="w", label=f"{engine}, two")
    sizes = np.array([1e3, max(LARGEST.values())])
    ax.plot(sizes, sizes**2 / pairs, color="0.6", linewidth=0.8, label="all pairs at the multiply-add limit, one thread")
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds per layer", title="Seconds per layer")
    ax.legend(fontsize=7, frameon=False)
