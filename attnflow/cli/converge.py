"""attnflow converge: layers against their limit equation."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from ..plotting.live import LivePage
from ..studies.files import read_study
from ..studies.reference import study_reference
from ..studies.result import StudyResult
from .output import folder, new_figure, save


def add_to(commands) -> None:
    """The command's arguments."""
    converge = commands.add_parser("converge", help="layers against their limit equation, with predicted error bars")
    converge.add_argument("study", nargs="?", metavar="STUDY.toml", help="study file; the built-in study when absent")
    converge.add_argument("--out", default="attnflow-output", help="folder for converge.png, converge.csv, study.sqlite")
    converge.add_argument("--jobs", type=int, default=1, help="processes (default 1, which uses all cores as threads)")
    converge.add_argument(
        "--width", type=float, help="add seeds until the 95%% interval of the slope in N is as narrow as this"
    )
    converge.add_argument(
        "--live", type=int, nargs="?", const=0, metavar="PORT", help="serve a page on 127.0.0.1 that fills in (a free port)"
    )
    converge.add_argument("--help-study", action=_HelpStudy, nargs=0, help="what a study file may say, and exit")
    converge.set_defaults(command=_converge)


class _HelpStudy(argparse.Action):
    """Prints what a study file may say and ends, as --help does."""

    def __call__(self, parser, *_) -> None:
        print(study_reference(), end="")
        parser.exit()


def _converge(options: argparse.Namespace) -> int:
    study = read_study(options.study)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {options.jobs}")
    out = folder(options.out)
    with contextlib.ExitStack() as until_the_end:
        means: dict[str, Any] = {"store": out / "study.sqlite", "n_jobs": options.jobs}
        if options.live is not None:
            means["callback"] = until_the_end.enter_context(LivePage(options.live))
            print(f"watch it at {means['callback'].address}", flush=True)
        result = study.run(**means) if options.width is None else study.refine("size", options.width, **means)
    status = report(result, out, options)
    if options.width is not None and status == 0:
        print(result.message)
    return status


def report(result: StudyResult, out: Path, options: argparse.Namespace) -> int:
    """Print and write what came out; the exit status."""
    if result.resumed:
        print(f"{result.resumed} finished cells taken from {out / 'study.sqlite'}")
    if result.status == 1:
        print(f"attnflow: {result.message}", file=sys.stderr)
        return 130
    options.running = True
    print(result.summary())
    result.to_csv(out / "converge.csv")
    figure = new_figure(9.6, 3.9)
    result.plot(figure.subplots(1, 2))
    save(figure, out / "converge.png")
    print(f"wrote {out / 'converge.png'} and {out / 'converge.csv'}")
    return int(result.status != 0)  # a warning has said which cells failed
