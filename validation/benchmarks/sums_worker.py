"""One library on one pairwise sum in a process of its own: python -m validation.benchmarks.sums_worker CASE METHOD.

It speaks the language of `protocol`; "ready" comes with setting and compile_seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import metadata

import attnflow

from . import protocol
from .machine import pin
from .protocol import own_output, read_arguments
from .sums_cases import CASES
from .sums_methods import METHODS, make


def main(arguments: list[str] | None = None) -> int:
    """Serve one method; returns 2 for unknown names."""
    read = read_arguments("sums_worker", arguments, {"CASE": CASES, "METHOD": METHODS})
    if read is None:
        return 2
    answer = own_output()
    pin()
    case, method, (package, chunks) = CASES[read[0]], read[1], METHODS[read[1]]

    def prepare() -> tuple[dict, Callable[[], dict]]:
        trials = [_try(method, case, chunk) for chunk in chunks]
        seconds, chunk, layer, first = min(trials, key=lambda trial: trial[0])
        setting = f"chunk {chunk}" if chunk else getattr(layer, "describe", lambda: "")()

        def run() -> dict:
            began = time.process_time()
            mean = layer()
            return {"seconds": time.process_time() - began, "error": case.error(mean)}

        return {"setting": setting, "compile_seconds": first - seconds}, run

    protocol.serve([package], prepare, sys.stdin, answer, _version)
    return 0


def _version(package: str) -> str:
    return attnflow.__version__ if package == "attnflow" else metadata.version(package)


def _try(method, case, chunk):
    began = time.process_time()
    layer = make(method, case, chunk)
    layer()
    first = time.process_time() - began
    began = time.process_time()
    layer()
    return time.process_time() - began, chunk, layer, first


if __name__ == "__main__":
    sys.exit(main())
