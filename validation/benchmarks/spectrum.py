"""A layer's own spectrum beside scikit-learn's SpectralEmbedding and pyDiffMap, and on very many tokens."""

from __future__ import annotations

import statistics
import time

import numpy as np

import attnflow as af
from validation import Claim, Report

from .machine import describe_machine
from .processes import Worker
from .spectrum_worker import CASES, EPSILON, METHODS, MODES, NEIGHBOURS, SIZE

COLUMNS = ("modes", "method", "residual", "seconds", "times ours", "goal", "met")
GOAL, ALLOWED = 10.0, 1e-6
LARGE, LARGE_EPSILON = 1_000_000, 1e-3  # on the unit torus, with all threads


def run(rounds: int = 3) -> Report:
    """Interleaved, each library alone in a process with one thread; then a million tokens in this process."""
    rows, claims = [], []
    for case in CASES:
        workers = {method: Worker(case, method, "spectrum_worker") for method in METHODS}
        try:
            seconds: dict[str, list[float]] = {method: [] for method in METHODS}
            errors = dict.fromkeys(METHODS, 0.0)
            for _ in range(rounds):
                for method, worker in workers.items():
                    if worker.solves:
                        event = worker.run()
                        seconds[method].append(event["seconds"])
                        errors[method] = max(errors[method], event["error"])
        finally:
            for worker in workers.values():
                worker.close()
        own = statistics.median(seconds["attnflow"])
        error = errors["attnflow"]
        claims.append(Claim(f"{case}: worst residual of ours", f"{error:.1e}", f"at most {ALLOWED:g}", bool(error <= ALLOWED)))
        for method, worker in workers.items():
            if not seconds[method]:
                rows.append([case, method, "", worker.ready["why"][:60], *[""] * 3])
                continue
            ratio = statistics.median(seconds[method]) / own
            compared = [] if method == "attnflow" else [f"{ratio:.1f}", f">= {GOAL:g}", "yes" if ratio >= GOAL else "no"]
            cells = [f"{errors[method]:.0e}", f"{statistics.median(seconds[method]):.2f}", *compared, *[""] * 3][:5]
            rows.append([case, method, *cells])
    rows.append(_many())
    text = (
        f"The {MODES} largest eigenvalues and eigenvectors of {SIZE} uniform tokens in the unit square, eps = {EPSILON:g}:\n"
        f"medians of {rounds} rounds, processor time of one thread. Residuals |A v - lambda v| / |v| are in the layer itself: what\n"
        f"SpectralEmbedding (no weight of a token on itself) and pyDiffMap ({NEIGHBOURS} neighbours) leave is in them. Last, {LARGE}\n"
        f"tokens on the unit torus, eps = {LARGE_EPSILON:g}, with all threads of this machine: wall time.\n{describe_machine()}"
    )
    return Report("A layer's spectrum beside other libraries", text, COLUMNS, rows, claims)


def _many() -> list[str]:
    tokens = np.random.default_rng(0).random((LARGE, 2))
    layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), LARGE_EPSILON)
    layer.spectrum(tokens[:2000], MODES)
    began = time.perf_counter()
    spectrum = layer.spectrum(tokens, MODES)
    seconds = time.perf_counter() - began
    met = "yes" if seconds < 90 else "no"
    return [f"{LARGE} tokens", "attnflow", f"{spectrum.residuals.max():.0e}", f"{seconds:.1f}", "", "< 90 s", met]
