"""Exact independent samples of a density: inverse transform in one dimension, rejection in two and three.

Both work on the unit cube, which `Space.from_unit_cube` carries to the space keeping volumes of the coordinates
(of the round measure, on a sphere) in proportion: the target there is q(u) = p(x(u)) sqrt(det g).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import capacity, checks

if TYPE_CHECKING:
    from .densities import Density
    from .spaces import Space

_NEVER = -1e300  # stands for the logarithm of zero: -inf would make differences NaN


def check_count(n: int, space: Space) -> int:
    """A number of samples, at least 1, whose coordinates fit into memory with room to compute them."""
    n = checks.integer(n, "n", least=1)
    capacity.fits(24 * n * space.columns, "n")
    return n


def sample(density: Density, n: int, rng: np.random.Generator) -> np.ndarray:
    """n independent points of `density`, (n, columns)."""
    space, extent = density.space, density.extent
    if space.dim > 3:
        raise ValueError(
            f"density must have dimension at most 3 to be sampled, got {space.dim}; "
            "use Uniform, Gaussian, VonMisesFisher, KernelDensity or a Mixture of them"
        )

    def log_q(u: np.ndarray) -> np.ndarray:
        x = space.from_unit_cube(u, extent)
        return density._unnormalised(x) if space.flat else density._unnormalised(x) + np.log(space.volume_element(x))

    draw = _invert if space.dim == 1 else _reject
    return space.from_unit_cube(draw(log_q, space.dim, n, rng), extent)


def _invert(log_q: Callable, dim: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Solve F(u) = uniform: cumulative Gauss-Legendre sums over cells bracket u, safeguarded Newton steps refine it."""
    cells, chunk = 512, 2**16
    node, weight = np.polynomial.legendre.leggauss(12)
    node, weight = (node + 1) / 2, weight / 2
    start = np.arange(cells) / cells

    def q(u: np.ndarray) -> np.ndarray:
        return np.exp(log_q(u.reshape(-1, 1))).reshape(u.shape)

    def mass(left: np.ndarray, width: np.ndarray) -> np.ndarray:
        return width * (q(left[:, None] + width[:, None] * node) @ weight)

    cumulative = np.concatenate([[0.0], np.cumsum(mass(start, np.full(cells, 1 / cells)))])
    goal = rng.random(n) * cumulative[-1]
    parts = []
    for wanted in np.array_split(goal, max(1, -(-n // chunk))):
        cell = np.clip(np.searchsorted(cumulative, wanted, side="right") - 1, 0, cells - 1)
        left, right = start[cell], start[cell] + 1 / cells
        wanted, u = wanted - cumulative[cell], left + 0.5 / cells
        for _ in range(60):
            excess = mass(start[cell], u - start[cell]) - wanted
            left, right = np.where(excess > 0, left, u), np.where(excess > 0, u, right)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = u - excess / q(u)
            moved = np.where((newton >= left) & (newton <= right), newton, (left + right) / 2)
            done = np.abs(moved - u).max() < 1e-15
            u = moved
            if done:
                break
        parts.append(u)
    return np.concatenate(parts)[:, None]


def _reject(log_q: Callable, dim: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Propose from a piecewise constant envelope, keep with probability q / envelope.

    A proposal above its cell's bound raises the bound and starts afresh: what is returned was drawn
    under one envelope, which no proposal exceeded.
    """
    corner, width, log_bound = _envelope(log_q, dim)
    while True:
        share = width**dim * np.exp(log_bound - log_bound.max())
        cumulative = np.cumsum(share) / share.sum()
        kept, count, proposed = [], 0, 0
        while count < n:
            rate = max(count / proposed, 1e-3) if proposed else 0.75
            size = int(min(2**18, 1.1 * (n - count) / rate + 64))
            cell = np.minimum(np.searchsorted(cumulative, rng.random(size), side="right"), len(width) - 1)
            u = corner[cell] + width[cell, None] * rng.random((size, dim))
            gap = log_q(u) - log_bound[cell]
            if (gap > 0).any():
                np.maximum.at(log_bound, cell, log_bound[cell] + gap + 0.5 * (gap > 0))
                break
            accepted = u[np.log(rng.random(size)) < gap]
            kept.append(accepted)
            count, proposed = count + len(accepted), proposed + size
        else:
            return np.concatenate(kept)[:n]


def _envelope(log_q: Callable, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells (corner, width) of the unit cube and a bound of log q on each, split where proposals would be wasted.

    The bound is the largest value at sub-points, corners included, plus 0.2 of their range (a quadratic peak between
    them exceeds them by 0.125 at most), plus a thousandth of the mean so that no cell is out of reach. What can be
    missed is a peak much narrower than 1/128 of the cube (1/32 if n = 3), which all sub-points see as zero.
    """
    first, most = {2: (64, 20_000), 3: (16, 40_000)}[dim]
    offsets = 1e-3 + 0.499 * _lattice(3, dim)  # corners and midpoints, just off walls that may be singular
    halves = _lattice(2, dim) / 2

    def survey(corner: np.ndarray, width: np.ndarray) -> np.ndarray:
        """log of the bound and of the mean over each cell: (2, cells)."""
        u = (corner[:, None] + width[:, None, None] * offsets).reshape(-1, dim)
        values = np.maximum(log_q(u).reshape(len(corner), -1), _NEVER)
        high = values.max(axis=1)
        relative = np.exp(values - high[:, None])
        return np.stack([high + np.log(1.2 - 0.2 * relative.min(axis=1)), high + np.log(relative.mean(axis=1))])

    corner, width = _lattice(first, dim) / first, np.full(first**dim, 1 / first)
    log_bound, log_mean = survey(corner, width)
    while True:
        top = log_bound.max()
        if top <= _NEVER:
            raise ValueError("log_pdf must be finite somewhere, got -inf at every node")
        bound, mean = width**dim * np.exp(log_bound - top), width**dim * np.exp(log_mean - top)
        waste = bound - mean
        if waste.sum() < 0.3 * bound.sum() or len(width) > most:
            floor = 1e-3 * mean.sum()
            return corner, width, np.log(np.exp(log_bound - top) + floor) + top
        split = waste >= min(waste.mean(), waste.max())
        children = (corner[split, None] + width[split, None, None] * halves).reshape(-1, dim)
        child_width = np.repeat(width[split] / 2, 2**dim)
        child_bound, child_mean = survey(children, child_width)
        corner, width = np.concatenate([corner[~split], children]), np.concatenate([width[~split], child_width])
        log_bound = np.concatenate([log_bound[~split], child_bound])
        log_mean = np.concatenate([log_mean[~split], child_mean])


def _lattice(size: int, dim: int) -> np.ndarray:
    """The integer points of [0, size)^dim: (size^dim, dim)."""
    return np.indices((size,) * dim).reshape(dim, -1).T
