"""What commands read and write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import checks, files


def load(path: str, name: str) -> np.ndarray:
    """A numeric array from an .npy file."""
    try:
        return checks.array(files.read_array(path, name), name)
    except FileNotFoundError:
        raise ValueError(f"{name} must be an .npy file, but there is none at {path!r}") from None


def folder(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_figure(width: float, height: float):
    """A figure without pyplot: no window can open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path: Path) -> None:
    with files.whole(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)
