"""What commands read and write."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import checks, files


def load(path: str, name: str) -> np.ndarray:
    """A numeric array from an .npy file."""
    try:
        return checks.array(files.read_array(path, name), name)
    except FileNotFoundError:
        raise ValueError(f"{name} must be an .npy file, but there is none at {path!r}") from None


@contextmanager
def running(options: argparse.Namespace) -> Iterator[None]:
    """Around the call that does the work, which refuses bad input before it begins; what else fails, then or later, is no input's."""
    options.running = True
    try:
        yield
    except (ValueError, TypeError, NotImplementedError):
        options.running = False
        raise


def folder(path: str | Path) -> Path:
    """A folder that --out names, made where there is none."""
    out = writable(path)
    out.mkdir(parents=True, exist_ok=True)
    return out


def writable(path: str | Path) -> Path:
    """A folder that --out names, or that can be made there, if files can be written to it; nothing is made."""
    out = checks.path(path, "--out")
    try:
        there = next(place for place in (out, *out.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):  # permissions alone do not tell
            return out
    except OSError as error:
        raise ValueError(f"--out must be in a folder that can be written to, got {str(out)!r} ({error.strerror})") from None


def writable_file(path: str) -> Path:
    """A file that --out names, if it can be written; nothing is made."""
    out = checks.path(path, "--out")
    if out.exists() and not out.is_file():
        raise ValueError(f"--out must be a file to write, got {path!r}, which is something else")
    return writable(out.parent) / out.name


def new_figure(width: float, height: float):
    """A figure without pyplot: no window can open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path: Path) -> None:
    with files.whole(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)
