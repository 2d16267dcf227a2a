"""One library on one pairwise sum in a process of its own: python -m validation.benchmarks.sums_worker CASE METHOD.

It speaks the language of `worker`: "absent" or "ready", then "run" for every line read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata

import attnflow

from .sums_cases import CASES
from .sums_methods import METHODS, make
from .worker import _pin

_ANSWERS = sys.stdout


def main(arguments: list[str] | None = None) -> int:
    """Serve one method; returns 2 for unknown names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) != 2 or arguments[0] not in CASES or arguments[1] not in METHODS:
        print(f"usage: sums_worker CASE METHOD, of {', '.join(CASES)} and {', '.join(METHODS)}", file=sys.stderr)
        return 2
    global _ANSWERS
    _ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print do so on standard error
    _pin()
    case, (package, chunks) = CASES[arguments[0]], METHODS[arguments[1]]
    try:
        version = attnflow.__version__ if package == "attnflow" else metadata.version(package)
    except metadata.PackageNotFoundError:
        _answer({"event": "absent", "why": f"{package} is not installed"})
        return 0
    try:
        trials = [_try(arguments[1], case, chunk) for chunk in chunks]
    except Exception as error:  # a peer that does not run here: said in the table
        _answer({"event": "unsolved", "why": f"{type(error).__name__}: {error}"})
        return 0
    seconds, chunk, layer, first = min(trials, key=lambda trial: trial[0])
    setting = f"chunk {chunk}" if chunk else getattr(layer, "describe", lambda: "")()
    _answer({"event": "ready", "setting": setting, "compile_seconds": first - seconds, "versions": {package: version}})
    for line in sys.stdin:
        if line.strip() == "run":
            began = time.process_time()
            mean = layer()
            _answer({"event": "run", "seconds": time.process_time() - began, "error": case.error(mean)})
    return 0


def _try(method, case, chunk):
    began = time.process_time()
    layer = make(method, case, chunk)
    layer()
    first = time.process_time() - began
    began = time.process_time()
    layer()
    return time.process_time() - began, chunk, layer, first


def _answer(event: dict) -> None:
    print(json.dumps(event), file=_ANSWERS, flush=True)


if __name__ == "__main__":
    sys.exit(main())
