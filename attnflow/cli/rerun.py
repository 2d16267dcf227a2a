"""attnflow rerun: a result computed again, from the file that it was saved in."""

from __future__ import annotations

import argparse

from .. import files
from ..studies.rerun import compared, other_versions, recorded
from .converge import report
from .output import folder
from .tokens import rerun_solution

_STORE = b"SQLite format 3\x00"  # how a file of it begins
_FOLDER = "attnflow-rerun"


def add_to(commands) -> None:
    """The command's arguments."""
    rerun = commands.add_parser("rerun", help="compute a saved result again, and say whether its numbers are the same")
    rerun.add_argument("file", metavar="FILE", help="study.sqlite of attnflow converge, or propagate.npz of attnflow propagate")
    rerun.add_argument("--out", help=f"folder for what comes out again (a study's: {_FOLDER}; else it is only compared)")
    rerun.add_argument("--jobs", type=int, default=1, help="processes (default 1, which uses all cores as threads)")
    rerun.set_defaults(command=_rerun)


def _rerun(options: argparse.Namespace) -> int:
    with files.open_regular(options.file, "file") as file:
        begins = file.read(len(_STORE))
    if begins == _STORE:
        return _rerun_study(options)
    return rerun_solution(options.file, options.out)


def _rerun_study(options: argparse.Namespace) -> int:
    before = recorded(options.file)
    out = folder(options.out or _FOLDER)
    if (out / "study.sqlite").exists():
        raise ValueError(f"--out must be a folder without a study.sqlite, got {str(out)!r}, which has one")
    result = before.study.run(out / "study.sqlite", n_jobs=options.jobs)
    status = report(result, out, options)
    if status == 130:
        return status
    verdict, changed = compared(before, result), other_versions(before.versions)
    print(f"{verdict}{f' ({changed})' * bool(changed)}")
    return max(status, int(verdict.beyond > 0))
