"""The command: python -m validation.benchmarks [NAME ...] [--out DIR] [--rounds N].

Speed beside peers, each at the same error. Fails if an error is wrong, never because of a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from validation.__main__ import RESULTS, write

NAMES = ("pde", "dense", "heads", "sparse", "masks", "layers", "spectrum", "expressions", "scaling", "auto", "gpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks; returns 0, 1 if an error is too large, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m validation.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for benchmarks-NAME.md (default validation/results)")
    parser.add_argument("--rounds", type=int, default=5, help="timings per method (default 5)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        print(f"benchmarks: NAME must be one of {', '.join(NAMES)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.rounds < 1:
        print(f"benchmarks: --rounds must be at least 1, got {options.rounds}", file=sys.stderr)
        return 2
    failed = []
    for name in options.names or NAMES:
        try:
            report = import_module(f"validation.benchmarks.{name}").run(rounds=options.rounds)
        except RuntimeError as missing:  # the table of a machine that has a device stays
            print(f"benchmarks: {name} left out: {missing}", file=sys.stderr)
            continue
        print(report.markdown())
        print(f"wrote {' and '.join(map(str, write(report, options.out, f'benchmarks-{name}')))}\n")
        if not report.holds:
            failed.append(name)
    if failed:
        print(f"benchmarks: an error is too large in {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
