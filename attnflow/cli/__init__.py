"""The commands: attnflow converge | budget | propagate | spectrum | learn | anatomy | rerun | parity | info."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from ..provenance import versions
from ..studies.signals import Signals, Terminated
from . import budget, converge, learned, machine, rerun, tokens


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 when all is done, 2 for bad input, 1 for what failed while running, 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = _parser().parse_args(arguments)
    options.running = False  # until a command has read and checked its input
    try:
        with Signals(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            return options.command(options)
    except KeyboardInterrupt:
        print("attnflow: interrupted; run the same command again", file=sys.stderr)
        return 130
    except Terminated as error:
        _say(error)
        return error.code
    except Exception as error:
        _say(error)
        # cells of a study that fail say how far it came
        return 1 if options.running or hasattr(error, "__notes__") else 2


def _say(error: BaseException) -> None:
    """What happened, in one line."""
    known = (ValueError, TypeError, OSError, ImportError, NotImplementedError, RuntimeError, Terminated)
    text = str(error) if isinstance(error, known) and str(error) else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.filename and error.strerror:  # without Python's number for it
        text = f"{error.filename}: {error.strerror}"
    print("attnflow: " + " ".join("; ".join([text, *getattr(error, "__notes__", ())]).split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attnflow", description="The drift-diffusion limit of attention.")
    parser.add_argument("--version", action="version", version=f"attnflow {versions()['attnflow']}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for part in (converge, budget, tokens, learned, rerun, machine):
        part.add_to(commands)
    return parser
