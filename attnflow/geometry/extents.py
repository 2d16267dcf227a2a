"""Where on a space without end the mass is: modes at all distances, and a box around each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from .modes import Modes, candidates, climb

if TYPE_CHECKING:
    from .spaces import Space

NEGLIGIBLE = 42.0  # e^-42 = 6e-19: what lies below is lost in double precision
# distances from the origin (or the wall), and the lattice looked at on each
_DISTANCES = {1: 2.0 ** np.arange(-6, 41), 2: 4.0 ** np.arange(-3, 21), 3: 4.0 ** np.arange(-3, 21)}
_LATTICE = {1: (2**12,), 2: (96,) * 2, 3: (20,) * 3}


def tolerant(log_q: Callable, x: np.ndarray) -> np.ndarray:
    """log_q where it is only looked at: NaN, such as inf - inf far out, counts as nothing there."""
    with np.errstate(all="ignore"):
        values = np.asarray(log_q(x), dtype=float)
    return np.where(np.isnan(values), -np.inf, values)


def far_modes(space: Space, log_q: Callable, name: str) -> Modes:
    """Modes of log_q on a space with ends at infinity, climbed to from points at all distances."""
    ends = np.array(space.bounds, dtype=float)
    open_end = ~np.isfinite(ends)
    anchor = _anchor(ends)

    def look(x: np.ndarray) -> np.ndarray:
        return tolerant(log_q, x)

    boxes = [np.where(open_end, anchor[:, None] + r * np.array([-1.0, 1.0]), ends) for r in _DISTANCES[space.dim]]
    found = [candidates(look, _LATTICE[space.dim], box[:, 0], box[:, 1], most=4) for box in boxes]
    start, step = (np.concatenate(part) for part in zip(*found))
    modes = climb(look, start, step, ends[:, 0], ends[:, 1])
    if not len(modes.values):
        raise ValueError(
            f"{name} must be finite somewhere, got -inf at all points looked at on {space}: a support that is narrow "
            "beside its distance from the origin is found on a Box or Chart around it, or when it is shifted there"
        )
    return modes


def extent_of_mass(space: Space, log_q: Callable, modes: Modes, name: str) -> tuple[tuple[float, float], ...]:
    """Per coordinate the bounds of the space, or where log_q sqrt(det g) has fallen by 42 below its modes for good."""
    hull = None
    for point, value, scale in zip(modes.points, modes.values, modes.scale):
        if value < modes.top - NEGLIGIBLE or (hull is not None and ((hull[:, 0] <= point) & (point <= hull[:, 1])).all()):
            continue
        box = _box_around(space, log_q, point, scale, name)
        hull = box if hull is None else np.stack([np.minimum(hull, box)[:, 0], np.maximum(hull, box)[:, 1]], axis=1)
    assert hull is not None  # the highest mode is no lower than the top
    return tuple(zip(hull[:, 0].tolist(), hull[:, 1].tolist()))


def _box_around(space: Space, log_q: Callable, point: np.ndarray, scale: np.ndarray, name: str) -> np.ndarray:
    """A box around a mode, grown until its open faces are low, then narrowed to what is not: (n, 2)."""
    ends = np.array(space.bounds, dtype=float)
    open_end = ~np.isfinite(ends)
    for power in range(200):
        box = np.where(open_end, point[:, None] + 2.0**power * scale[:, None] * np.array([-1.0, 1.0]), ends)
        sides, kept = _above(space, log_q, box, point, name)
        if all(not (open_end[k, end] and kept.take(-end, axis=k).any()) for k in range(space.dim) for end in (0, 1)):
            break
    else:
        raise ValueError(f"{name} must decay in every direction to be normalised on {space}")
    while True:
        smaller = _hull(sides, kept, box, open_end)
        done = (smaller[:, 1] - smaller[:, 0] > 0.8 * (box[:, 1] - box[:, 0])).all()
        box = smaller
        if done:
            return box
        sides, kept = _above(space, log_q, box, point, name)


def _anchor(ends: np.ndarray) -> np.ndarray:
    """The one finite end of each axis, or the origin."""
    return np.where(np.isfinite(ends).sum(axis=1) == 1, np.where(np.isfinite(ends), ends, 0.0).sum(axis=1), 0.0)


def _above(space: Space, log_q: Callable, box: np.ndarray, mode: np.ndarray, name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """A lattice of midpoints (walls may be singular), and where on it the mass is not negligible beside the mode's."""
    size = 64 if space.dim < 3 else 32
    sides = [low + (high - low) * (np.arange(size) + 0.5) / size for low, high in box]
    mesh = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, space.dim)
    x = np.concatenate([mesh, mode[None]])
    values = checks.scalar_field(log_q, x[:-1], name)
    values = np.append(values, tolerant(log_q, x[-1:]))
    if not space.flat:
        with np.errstate(divide="ignore"):
            values = values + np.log(space.volume_element(x))
    top = values[np.isfinite(values)].max()
    return sides, (values[:-1] >= top - NEGLIGIBLE).reshape((size,) * space.dim)


def _hull(sides: list[np.ndarray], kept: np.ndarray, box: np.ndarray, open_end: np.ndarray) -> np.ndarray:
    """The box around the kept nodes, one node wider; closed ends stay."""
    where = np.argwhere(kept)
    if not len(where):
        return box
    nodes = [np.concatenate([[low], side, [high]]) for side, (low, high) in zip(sides, box)]
    tight = [(s[a], s[b + 2]) for s, a, b in zip(nodes, where.min(axis=0), where.max(axis=0))]
    return np.where(open_end, tight, box)
