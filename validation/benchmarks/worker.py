"""One method on one case in a process of its own: python -m validation.benchmarks.worker CASE METHOD.

It writes JSON, a line per event, on standard output:

    {"event": "absent", "why"}                   the library is not installed
    {"event": "unsolved", "why"}                 no grid and tolerance reach the error
    {"event": "ready", "setting", "error", "setup_seconds", "first_seconds", "versions"}
    {"event": "run", "seconds", "error"}         in answer to each line "run" on standard input

What was tried goes to standard error. The end of standard input ends the process.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module, metadata

from . import Case, Family
from .pde_cases import CASES
from .tuning import Trial, measure_error, tune

METHODS = {  # name: module with families(case, name), and the packages it needs
    "attnflow": ("ours", ()),
    "attnflow, finite volumes": ("ours", ()),
    "BDF": ("scipy_steppers", ("scipy",)),
    "Radau": ("scipy_steppers", ("scipy",)),
    "expm_multiply": ("scipy_steppers", ("scipy",)),
    "Fourier by FFT": ("fourier_by_hand", ("scipy",)),
    "Fourier by matrices": ("fourier_by_hand", ("scipy",)),
    "py-pde": ("py_pde", ("py-pde",)),
    "py-pde, scipy stepper": ("py_pde", ("py-pde",)),
    "findiff": ("find_diff", ("findiff",)),
    "scikit-fem": ("scikit_fem", ("scikit-fem",)),
}
_SAMPLE = 0.3  # processor seconds of repeated solves behind one answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one method; returns 2 for unknown names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    accepted = {"CASE": CASES, "METHOD": METHODS}
    if len(arguments) != 2:
        print("usage: python -m validation.benchmarks.worker CASE METHOD", file=sys.stderr)
        return 2
    for (kind, names), got in zip(accepted.items(), arguments):
        if got not in names:
            print(f"worker: {kind} must be one of {', '.join(names)}, got {got}", file=sys.stderr)
            return 2
    _pin()
    serve(CASES[arguments[0]], arguments[1])
    return 0


def serve(case: Case, method: str, requests=sys.stdin, answer: Callable[[dict], None] | None = None) -> None:
    """Tune, say so, then time one sample per line read."""
    answer = answer or (lambda event: print(json.dumps(event), flush=True))
    try:
        versions = {package: metadata.version(package) for package in METHODS[method][1]}
    except metadata.PackageNotFoundError as missing:
        answer({"event": "absent", "why": f"{missing.name} is not installed"})
        return
    try:
        best = tune(case, load_families(case, method), lambda line: print(f"{method}, {line}", file=sys.stderr, flush=True))
    except NotImplementedError as missing:
        answer({"event": "unsolved", "why": str(missing)})
        return
    if best is None:
        answer({"event": "unsolved", "why": f"no setting reaches {case.error:g}"})
        return
    times = {"setup_seconds": best.setup_seconds, "first_seconds": best.first_seconds}
    answer({"event": "ready", "setting": best.setting, "error": best.error, **times, "versions": versions})
    exact = case.reference()
    for line in requests:
        if line.strip() == "run":
            answer({"event": "run", **_sample(best, exact)})


def load_families(case: Case, method: str) -> list[Family]:
    """What the module of a method offers for a case."""
    return import_module(f"validation.benchmarks.{METHODS[method][0]}").families(case, method)


def _sample(best: Trial, exact) -> dict[str, float]:
    """Median processor seconds of solves repeated for _SAMPLE seconds, and the last one's error."""
    seconds: list[float] = []
    while sum(seconds) < _SAMPLE:
        start = best.solver.fresh()
        began = time.process_time()
        result = best.solver.step(start)
        seconds.append(time.process_time() - began)
    return {"seconds": statistics.median(seconds), "error": measure_error(best.solver, result, exact)}


def _pin() -> None:
    """Stay on one core, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    sys.exit(main())
