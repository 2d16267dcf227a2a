"""Pseudo-metrics typed as sympy expressions beside SquaredDistance in as many dimensions, on one thread."""

from __future__ import annotations

import statistics
import time

import numba
import numpy as np
import sympy as sp

import attnflow as af
from attnflow.kernels import plan
from validation import Report

from .machine import describe_machine

COLUMNS = ("f", "n", "eps", "dtype", "Mpairs/s", "times SquaredDistance", "lowest", "highest", "goal", "met")
SIZE, MOST = 4000, 6.0
x, y = sp.symbols("x0:2"), sp.symbols("y0:2")
_d = [a - b for a, b in zip(x, y)]
EXPRESSIONS = {
    "1 - cos d": (1, 1 - sp.cos(_d[0])),
    "2 - cos d0 - cos d1": (2, 2 - sp.cos(_d[0]) - sp.cos(_d[1])),
    "log(1 + d^2)": (1, sp.log(1 + _d[0] ** 2)),
    "1 - exp(-d^2)": (2, 1 - sp.exp(-(_d[0] ** 2) - _d[1] ** 2)),
    "(1 + x^2) d^2 + d1^2": (2, (1 + x[0] ** 2) * _d[0] ** 2 + _d[1] ** 2),
    "sqrt(1 + d^2) - 1": (1, sp.sqrt(1 + _d[0] ** 2) - 1),
    "|d|": (1, sp.Abs(_d[0])),
}


def run(rounds: int = 5) -> Report:
    """Interleaved with SquaredDistance, in this process on one thread; medians of the ratios."""
    rows, before = [], numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for name, (dim, expression) in EXPRESSIONS.items():
            for epsilon, dtype in ((0.1, "float64"), (1e-6, "float64"), (0.1, "float32")):
                rows.append([name, str(dim), f"{epsilon:g}", dtype, *_time(expression, dim, epsilon, dtype, rounds)])
    finally:
        numba.set_num_threads(before)
    text = (
        f"{SIZE} uniform tokens, one value column, a new key bias each time; f in float64 always. At eps = 1e-6 sines and cosines\n"
        f"of differences are not taken apart: that would lose digits.\n{describe_machine()}"
    )
    return Report("Sympy expressions beside SquaredDistance", text, COLUMNS, rows, [])


def _time(expression, dim, epsilon, dtype, rounds) -> list[str]:
    rng = np.random.default_rng(0)
    tokens, values, bias = rng.uniform(0, 6, (SIZE, dim)), rng.standard_normal((SIZE, 1)), np.zeros(SIZE)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    f, squared = af.PseudoMetric(expression, dim), af.SquaredDistance(af.Euclidean(dim))
    plans = [plan(g, e, None, tokens, "numba", dtype, rtol, 1, 100) for g, e in ((f, epsilon), (squared, 1.0))]
    seconds: list[list[float]] = [[], []]
    for k in range(rounds + 1):
        bias[0] = -1e-300 * k
        for run, found in zip(plans, seconds):
            began = time.perf_counter()
            run(values, bias)
            found.append(time.perf_counter() - began)
    ratios = [own / other for own, other in zip(*seconds)][1:]  # the first compiles
    ratio = statistics.median(ratios)
    rate = SIZE**2 / 1e6 / statistics.median(seconds[0][1:])
    numbers = (f"{rate:.0f}", f"{ratio:.1f}", f"{min(ratios):.1f}", f"{max(ratios):.1f}")
    return [*numbers, f"<= {MOST:g}", "yes" if ratio <= MOST else "no"]
