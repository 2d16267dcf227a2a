"""The command: python -m paper_figures [NAME ...] [--out DIR] [--quick] [--jobs N]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from attnflow.studies.workers import cores

from . import FIGURES, Check
from .making import made

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run figures; returns 0, 1 if a check fails or what was asked for by name is left out, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m paper_figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as f01_bias or f01; all when none is given")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for pictures and data (default paper_figures/results)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller runs, minutes in all")
    parser.add_argument("--jobs", type=int, metavar="N", help="figures at a time, that many processes (default: cores)")
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        print(f"paper_figures: --jobs must be positive, got {options.jobs}", file=sys.stderr)
        return 2
    chosen, unknown = [], []
    for name in options.names:
        matches = [figure for figure in FIGURES if name in (figure, figure.partition("_")[0])]
        (chosen if matches else unknown).extend(matches or [name])
    if unknown:
        print(f"paper_figures: NAME must be one of {', '.join(FIGURES)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    failed, left_out, names = [], [], []
    for name in dict.fromkeys(chosen or FIGURES):
        needs = getattr(import_module(f"paper_figures.{name}"), "NEEDS", None)
        if needs and find_spec(needs) is None:
            print(f"{name}: left out: needs {needs}")
            left_out.append(name)
        else:
            names.append(name)
    print(f"{'claim':66} {'predicted':>11} {'measured':>11} {'tolerance':>9}  verdict")
    for name, title, checks, seconds in made(names, options.quick, options.out, options.jobs or cores()):
        print(f"{name}: {title} ({seconds:.0f} s)")
        print("\n".join(map(row, checks)), flush=True)
        if not all(check.holds for check in checks):
            failed.append(name)
    write_gallery(options.out)
    print(f"wrote pictures, data and {options.out / 'README.md'}")
    if failed:
        print(f"paper_figures: a check fails in {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or (options.names and left_out) else 0


def row(check: Check) -> str:
    """A line of the table."""
    verdict = "holds" if check.holds else "FAILS"
    return f"  {check.claim:64} {check.predicted:11.5g} {check.measured:11.5g} {check.tolerance:9.2g}  {verdict}"


def write_gallery(folder: Path) -> None:
    """README.md with every figure that lies in the folder: claim, source, picture, checks."""
    lines = [
        "# Every theorem a figure that can fail",
        "",
        "Written by `python -m paper_figures`: lines are predictions, points are measured; with one wrong constant a figure fails.",
        "",
    ]
    stored = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in FIGURES
        if (folder / f"{name}.json").exists()
    }
    sources = {name: " ".join(_source(import_module(f"paper_figures.{name}")).split()) for name in stored}
    lines += ["| claim | source | figure | verdict |", "|---|---|---|---|"]
    for name, summary in stored.items():
        verdict = "holds" if all(c["holds"] for c in summary["checks"]) else "FAILS"
        cells = summary["title"], sources[name].replace("|", r"\|"), f"[{name[1:3]}]({name}.png)"
        lines.append(f"| {' | '.join(cells)} | {verdict}, {len(summary['checks'])} checks |")
    lines.append("")
    for name, summary in stored.items():
        lines += [
            f"## {summary['title']}",
            "",
            f"Source: {sources[name]}",
            "",
            f"![{summary['title']}]({name}.png)",
            "",
        ]
        lines += ["| claim | predicted | measured | tolerance | verdict |", "|---|--:|--:|--:|---|"]
        for c in summary["checks"]:
            numbers = f"{c['predicted']:.5g} | {c['measured']:.5g} | {c['tolerance']:.2g}"
            lines.append(f"| {c['claim'].replace('|', chr(92) + '|')} | {numbers} | {'holds' if c['holds'] else 'FAILS'} |")
        lines.append("")
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _source(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("Source:")[2].strip().split("\n\n")[0]


if __name__ == "__main__":
    sys.exit(main())
