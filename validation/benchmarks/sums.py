"""How pairwise sums are timed beside other libraries: interleaved, each library alone in a process on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numba
import numpy as np

from validation import Claim, Report

from .machine import describe_machine
from .processes import Worker
from .sums_cases import CASES

COLUMNS = ("sum", "method", "setting", "error", "Mpairs/s", "slowest", "fastest", "times ours", "goal", "met")
ACCURATE = {"float64": 1e-8, "float32": 1e-3}  # errors beyond are wrong, not rounded


def run_table(title: str, text: str, ours: str, peers: Mapping[str, Mapping[str, float | None]], rounds: int) -> Report:
    """Time `ours`, a peer, ours, the next peer, ... on every case; peers maps case -> peer -> goal (None: no goal)."""
    rows, claims = [], []
    for name, goals in peers.items():
        found, worst = _run_case(name, ours, goals, rounds)
        rows += found
        limit = ACCURATE[CASES[name].dtype]
        claims.append(Claim(f"{name}: worst of the timed sums", f"{worst:.1e}", f"at most {limit:g}", bool(worst <= limit)))
    about = (
        f"Each library runs in a process of its own, pinned to one core, on one thread, with the best of a few chunk sizes;\n"
        f"{rounds} rounds, ours before every peer; medians of processor time. One value column, or c; f / (2 eps) is at most 25.\n"
        f"Ours is a layer with a new key bias each time, so that row sums are not kept from the layer before.\n{text}\n{describe_machine()}"
    )
    return Report(title, about, COLUMNS, rows, claims)


def _run_case(name, ours, goals, rounds):
    case, workers = CASES[name], {}
    try:
        for method in (ours, *goals):
            workers[method] = Worker(name, method, "sums_worker")
        seconds, errors = {method: [] for method in workers}, {method: [] for method in workers}

        def time_one(method):
            event = workers[method].run()
            seconds[method].append(event["seconds"])
            errors[method].append(event["error"])
            return event["seconds"]

        ratios = {method: [] for method in goals}
        for _ in range(rounds):
            for method in goals:
                own = time_one(ours)
                if workers[method].solves:
                    ratios[method].append(time_one(method) / own)
    finally:
        for worker in workers.values():
            worker.close()
    pairs = float(case.size) ** 2 / 1e6
    rows = []
    for method, worker in workers.items():
        goal = goals.get(method)
        if not seconds[method]:
            rows.append([name, method, worker.ready["why"][:60], *[""] * 7])
            continue
        rates = [f"{pairs / s:.0f}" for s in (statistics.median(seconds[method]), max(seconds[method]), min(seconds[method]))]
        ratio = statistics.median(ratios[method]) if method in ratios else None
        cells = ["" if ratio is None else f"{ratio:.2f}", "" if goal is None else f">= {goal:g}"]
        met = "" if ratio is None or goal is None else "yes" if ratio >= goal else "no"
        rows.append([name, method, worker.ready["setting"], f"{max(errors[method]):.0e}", *rates, *cells, met])
    return rows, max((e for each in errors.values() for e in each), default=0.0)


def multiply_adds_per_second(rounds: int = 7) -> float:
    """Fused multiply-adds (of one number each) that a core does in float64: chains that overlap, in registers."""

    @numba.njit(fastmath={"contract"})
    def chains(a, x, y, repeats):
        for _ in range(repeats):
            for j in range(a.size):
                v = a[j]
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                v = v * x + y
                a[j] = v

    a, repeats, best = np.ones(256), 20_000, np.inf
    chains(a, 0.5, 0.5, 2)
    for _ in range(rounds):
        began = time.process_time()
        chains(a, 0.5, 0.5, repeats)
        best = min(best, time.process_time() - began)
    return 16 * a.size * repeats / best
