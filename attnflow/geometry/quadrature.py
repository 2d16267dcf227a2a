"""Integrals of exp(log q) over the coordinates of a space, and the range that holds the mass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import checks

if TYPE_CHECKING:
    from .spaces import Space

_SMALLEST = {1: 256, 2: 64, 3: 32}  # nodes per axis of the first grid
_LARGEST = {1: 2**15, 2: 2**10, 3: 2**7}  # nodes per axis at which refinement gives up
_LARGEST_GAUSS = 2**11  # finding more Gauss nodes takes seconds
_NEGLIGIBLE = 42.0  # e^-42 = 6e-19: what lies below is lost in double precision


def log_integral(space: Space, log_q: Callable, extent: tuple[tuple[float, float], ...], name: str) -> float:
    """log of the integral of exp(log_q) dvol, on grids refined until they agree to 1e-13.

    Parameters
    ----------
    space : Space
        Of dimension at most 3.
    log_q : callable
        (N, columns) -> (N,).
    extent : tuple of (low, high)
        Where to integrate coordinates that have no end.
    name : str
        What to call log_q in messages.

    Raises
    ------
    ValueError
        If log_q is -inf at every node.
    """
    size, previous = _SMALLEST[space.dim], np.nan
    while True:
        grid = space.grid(size, extent)
        values = log_q(grid.points)
        top = values.max()
        if not np.isfinite(top):
            raise ValueError(f"{name} must be finite somewhere, got -inf at every node")
        total = np.sum(grid.weights * space.volume_element(grid.points) * np.exp(values - top))
        result = float(np.log(total) + top)
        change = abs(result - previous)
        if change < 1e-13 * max(1.0, abs(result)):
            return result
        smooth = all(axis.kind != "gauss" for axis in grid.axes)
        if 2 * size > (_LARGEST[space.dim] if smooth else min(_LARGEST[space.dim], _LARGEST_GAUSS)):
            if not change < 1e-8:
                warnings.warn(
                    f"the integral of {name} is known to {change:.1g} only: it is not smooth on the finest grid",
                    checks.AccuracyWarning,
                    stacklevel=3,
                )
            return result
        size, previous = 2 * size, result


def extent_of_mass(space: Space, log_q: Callable, name: str) -> tuple[tuple[float, float], ...]:
    """Per coordinate the bounds of the space, or where log_q sqrt(det g) has fallen by 42 for good.

    Grows a cube until its open faces are that low, then zooms in on what is not.
    """
    bounds = np.array(space.bounds, dtype=float)
    open_end = ~np.isfinite(bounds)
    if not open_end.any():
        return space.bounds
    anchor = np.where(open_end[:, 0], np.where(open_end[:, 1], 0.0, bounds[:, 1]), bounds[:, 0])
    for power in range(40):
        reach = 2.0**power
        box = np.where(open_end, anchor[:, None] + reach * np.array([-1.0, 1.0]), bounds)
        sides, kept = _above(space, log_q, box)
        if kept is not None and all(
            not (open_end[k, end] and kept.take(-end, axis=k).any()) for k in range(space.dim) for end in (0, 1)
        ):
            break
    else:
        raise ValueError(f"{name} must decay in every direction to be normalised on {space}")
    while True:
        smaller = _hull(sides, kept, box, open_end)
        done = (smaller[:, 1] - smaller[:, 0] > 0.8 * (box[:, 1] - box[:, 0])).all()
        box = smaller
        if done:
            return tuple(zip(box[:, 0].tolist(), box[:, 1].tolist()))
        sides, kept = _above(space, log_q, box)


def _above(space: Space, log_q: Callable, box: np.ndarray) -> tuple[list[np.ndarray], np.ndarray | None]:
    """A lattice of midpoints (walls may be singular), and where on it the mass is not negligible."""
    size = 64 if space.dim < 3 else 32
    sides = [low + (high - low) * (np.arange(size) + 0.5) / size for low, high in box]
    mesh = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    with np.errstate(divide="ignore"):
        values = log_q(mesh) + np.log(space.volume_element(mesh))
    top = values.max()
    return sides, values >= top - _NEGLIGIBLE if np.isfinite(top) else None


def _hull(sides: list[np.ndarray], kept: np.ndarray, box: np.ndarray, open_end: np.ndarray) -> np.ndarray:
    """The box around the kept nodes, one node wider; closed ends stay."""
    where = np.argwhere(kept)
    nodes = [np.concatenate([[low], side, [high]]) for side, (low, high) in zip(sides, box)]
    tight = [(s[a], s[b + 2]) for s, a, b in zip(nodes, where.min(axis=0), where.max(axis=0))]
    return np.where(open_end, tight, box)
