"""The command: python -m validation [NAME ...] [--out DIR]."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from attnflow.studies.signals import Signals

from . import Report

NAMES = (
    "digits",
    "parity",
    "memory",
    "noise",
    "coverage",
    "error_bars_digits",
    "study_intervals",
    "predicted_error",
    "equations",
    "steppers",
    "solvers",
    "boundaries",
    "budgets",
    "moons",
    "learned_digits",
    "meshes",
    "minilm",
)
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run validations; returns 0, 1 if a claim fails or a package is missing, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for NAME.md (default validation/results)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        print(f"validation: NAME must be one of {', '.join(NAMES)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    failed, missing = [], []
    for name in options.names or NAMES:
        began = time.perf_counter()
        try:
            with Signals() as signals:
                report = import_module(f"validation.{name}").run()
                signals.check()  # solvers return what they have when interrupted: half a run is no table
        except ImportError as error:  # of an optional package: the others do not need it
            print(f"validation: {name} cannot run: {error}\n", file=sys.stderr)
            missing.append(name)
            continue
        print(report.markdown())
        written = write(report, options.out, name)
        print(f"{time.perf_counter() - began:.0f} s; wrote {' and '.join(map(str, written))}\n")
        if not report.holds:
            failed.append(name)
    if failed:
        print(f"validation: a claim fails in {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or missing else 0


def write(report: Report, folder: Path, name: str) -> list[Path]:
    """NAME.md, and NAME.png where there is something to draw; the same bytes for the same numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.md"]
    written[0].write_text(report.markdown(), encoding="utf-8")
    if report.draw is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        report.draw(figure.subplots())
        written.append(folder / f"{name}.png")
        figure.savefig(written[1], dpi=150, metadata={"Software": None})
    return written


if __name__ == "__main__":
    sys.exit(main())
