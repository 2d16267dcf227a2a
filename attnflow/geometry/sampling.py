"""Independent samples of a density: by its quantiles in one dimension, by rejection in two and three.

Both work on the unit cube of the density's `Frame`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import capacity, checks
from .cells import graded, halved, lattice
from .modes import Modes

if TYPE_CHECKING:
    from .frame import Frame
    from .spaces import Space

_NEVER = -1e300  # stands for the logarithm of zero: -inf would make differences NaN
_FIRST = {2: 64, 3: 16}  # cells of the envelope per axis to begin with, and to end with in all
_MOST = {2: 20_000, 3: 40_000}
_RESTARTS = 100


def check_count(n: int, space: Space) -> int:
    """A number of samples, at least 1, whose coordinates fit into memory with room to compute them."""
    n = checks.integer(n, "n", least=1)
    capacity.fits(24 * n * space.columns, "n")
    return n


def sample(frame: Frame, n: int, rng: np.random.Generator) -> np.ndarray:
    """n independent points of the space, (n, columns).

    Raises
    ------
    ValueError
        If no envelope holds: p grows beyond all bounds somewhere in two or three dimensions.
    """
    if frame.dim == 1:
        return frame.points(frame.line.quantile(rng.random(n))[:, None])
    return frame.points(_reject(frame, n, rng))


def _reject(frame: Frame, n: int, rng: np.random.Generator) -> np.ndarray:
    """Propose from a piecewise constant envelope, keep with probability q / envelope.

    A proposal above its cell's bound starts afresh, under an envelope that knows the mode it has found: what is
    returned was drawn under one envelope, which no proposal exceeded.
    """
    modes, dim = frame.modes, frame.dim
    if modes.pole.any():
        raise ValueError(
            f"{frame.name} must be bounded to be sampled in {dim} dimensions, got a pole at "
            f"x = {frame.points(modes.points[modes.pole][:1])[0]}"
        )
    corner, width, log_bound = _envelope(frame, modes)
    for _ in range(_RESTARTS):
        share = width.prod(axis=1) * np.exp(log_bound - log_bound.max())
        cumulative = np.cumsum(share) / share.sum()
        kept, count, proposed = [], 0, 0
        while count < n:
            rate = max(count / proposed, 1e-3) if proposed else 0.75
            size = int(min(2**18, 1.1 * (n - count) / rate + 64))
            cell = np.minimum(np.searchsorted(cumulative, rng.random(size), side="right"), len(width) - 1)
            u = corner[cell] + width[cell] * rng.random((size, dim))
            gap = frame.log_density(u) - log_bound[cell]
            above = np.flatnonzero(gap > 0)
            if len(above):
                worst = above[np.argsort(-gap[above])[:16]]
                if gap[worst[0]] > 0.7:  # not a matter of rounding the peak: there is something nobody saw
                    modes = modes.joined(frame.climb(u[worst], width[cell[worst]] / 8))
                    corner, width, log_bound = _envelope(frame, modes)
                else:
                    np.maximum.at(log_bound, cell, log_bound[cell] + gap + 0.5 * (gap > 0))
                break
            accepted = u[np.log(rng.random(size)) < gap]
            kept.append(accepted)
            count, proposed = count + len(accepted), proposed + size
        else:
            return np.concatenate(kept)[:n]
    raise ValueError(f"{frame.name} must be bounded to be sampled in {dim} dimensions, got no envelope that holds")


def _envelope(frame: Frame, modes: Modes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells (corner, width) of the unit cube and a bound of log q on each, split where proposals would be wasted.

    The bound is the largest value at sub-points, corners included, plus 0.2 of their range (a quadratic peak between
    them exceeds them by 0.125 at most), plus a thousandth of the mean so that no cell is out of reach.
    """
    dim = frame.dim
    offsets = 1e-3 + 0.499 * lattice(3, dim)  # corners and midpoints, just off walls that may be singular

    def survey(corner: np.ndarray, width: np.ndarray) -> np.ndarray:
        """log of the bound and of the mean over each cell: (2, cells)."""
        u = (corner[:, None] + width[:, None] * offsets).reshape(-1, dim)
        values = np.maximum(frame.log_density(u).reshape(len(corner), -1), _NEVER)
        high = values.max(axis=1)
        relative = np.exp(values - high[:, None])
        return np.stack([high + np.log(1.2 - 0.2 * relative.min(axis=1)), high + np.log(relative.mean(axis=1))])

    corner, width = graded(modes, dim, _FIRST[dim])
    log_bound, log_mean = survey(corner, width)
    while True:
        top = log_bound.max()
        bound, mean = (width.prod(axis=1) * np.exp(part - top) for part in (log_bound, log_mean))
        waste = bound - mean
        if waste.sum() < 0.3 * bound.sum() or len(width) > _MOST[dim]:
            floor = 1e-3 * mean.sum()
            return corner, width, np.log(np.exp(log_bound - top) + floor) + top
        split = waste >= min(waste.mean(), waste.max())
        children, child_width = halved(corner[split], width[split])
        child_bound, child_mean = survey(children, child_width)
        corner, width = np.concatenate([corner[~split], children]), np.concatenate([width[~split], child_width])
        log_bound = np.concatenate([log_bound[~split], child_bound])
        log_mean = np.concatenate([log_mean[~split], child_mean])
