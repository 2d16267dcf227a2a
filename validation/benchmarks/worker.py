"""One method on one case in a process of its own: python -m validation.benchmarks.worker CASE METHOD.

It speaks the language of `protocol`; "ready" comes with setting, error, setup_seconds and compile_seconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from . import Case, Family, protocol
from .machine import pin
from .pde_cases import CASES
from .protocol import Answer, own_output, read_arguments
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
    read = read_arguments("worker", arguments, {"CASE": CASES, "METHOD": METHODS})
    if read is None:
        return 2
    answer = own_output()
    pin()
    serve(CASES[read[0]], read[1], sys.stdin, answer)
    return 0


def serve(case: Case, method: str, requests: Iterable[str], answer: Answer) -> None:
    """Tune, say so, then time one sample per line read."""

    def prepare() -> tuple[dict, Callable[[], dict]]:
        best = tune(case, load_families(case, method), lambda line: print(f"{method}, {line}", file=sys.stderr, flush=True))
        if best is None:
            raise NotImplementedError(f"no setting reaches {case.error:g}")
        exact = case.reference()
        times = {"setup_seconds": best.setup_seconds, "compile_seconds": best.compile_seconds}
        return {"setting": best.setting, "error": best.error, **times}, lambda: _sample(best, exact)

    protocol.serve(METHODS[method][1], prepare, requests, answer)


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


if __name__ == "__main__":
    sys.exit(main())
