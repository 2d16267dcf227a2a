"""The language of a worker: one method on one case in a process of its own, so that libraries do not disturb each other.

It writes JSON, a line per event, on standard output:

    {"event": "absent", "why"}                   the library is not installed
    {"event": "unsolved", "why"}                 it does not run here, or reaches no asked accuracy
    {"event": "ready", "versions", ...}          what was tuned, at which cost
    {"event": "run", "seconds", "error"}         in answer to each line "run" on standard input

What else is printed goes to standard error. The end of standard input ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib import metadata

Answer = Callable[[dict], None]


def serve(
    packages: Iterable[str],
    prepare: Callable[[], tuple[dict, Callable[[], dict]]],
    requests: Iterable[str],
    answer: Answer,
    version: Callable[[str], str] = metadata.version,
) -> None:
    """Say what is ready, then run once for each line that asks for it.

    `prepare` returns what to say and a function that runs once, or raises why it can't.
    """
    try:
        versions = {package: version(package) for package in packages}
    except metadata.PackageNotFoundError as missing:
        answer({"event": "absent", "why": f"{missing.name} is not installed"})
        return
    try:
        ready, run = prepare()
    except NotImplementedError as refusal:
        answer({"event": "unsolved", "why": str(refusal)})
        return
    except Exception as error:  # a peer that does not run here: said in the table
        traceback.print_exc()
        answer({"event": "unsolved", "why": f"{type(error).__name__}: {error}"})
        return
    answer({"event": "ready", **ready, "versions": versions})
    for line in requests:
        if line.strip() == "run":
            answer({"event": "run", **run()})


def own_output() -> Answer:
    """Answers on what was standard output; what libraries print there goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda event: print(json.dumps(event), file=out, flush=True)


def read_arguments(program: str, arguments: list[str] | None, accepted: dict[str, Iterable[str]]) -> list[str] | None:
    """The command line's words, one of each accepted kind; None, and the usage printed, if they are not."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) != len(accepted):
        print(f"usage: python -m validation.benchmarks.{program} {' '.join(accepted)}", file=sys.stderr)
        return None
    for (kind, names), got in zip(accepted.items(), arguments):
        if got not in names:
            print(f"{program}: {kind} must be one of {', '.join(names)}, got {got}", file=sys.stderr)
            return None
    return arguments
