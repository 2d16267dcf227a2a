"""attnflow rerun: what a file's own record says, done again."""

from __future__ import annotations

import argparse

from .tokens import rerun_solution


def add_to(commands) -> None:
    """The command's arguments."""
    again = commands.add_parser("rerun", help="do again what made a file, from the file alone, and compare")
    again.add_argument("file", metavar="FILE", help="propagate.npz of attnflow propagate")
    again.add_argument("--out", help="folder for the new file (default: it is only compared)")
    again.set_defaults(command=_rerun)


def _rerun(options: argparse.Namespace) -> int:
    return rerun_solution(options.file, options.out)
