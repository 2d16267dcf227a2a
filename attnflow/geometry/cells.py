"""Integrals over the unit cube by cells, each small enough for Gauss-Legendre nodes to see all there is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .modes import Modes

_ORDER = {1: 16, 2: 12, 3: 8}  # nodes per axis and cell
_TOLERANCE = {1: 1e-16, 2: 1e-15, 3: 1e-12}  # of a cell, relative to the whole
_MOST = {1: 2**21, 2: 2**23, 3: 2**22}  # evaluations
_CAUTION = 4  # halving at a pole leaves a few times what it gained
_TORN = 10.0  # times the change between two nodes: a jump
_CHUNK = 2**15
_ABOVE = 600.0  # log_q over the top it is measured from that exp can still take


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells that tile the unit cube, and what lies in each.

    Attributes
    ----------
    corner, width : (M, n) array
    mass : (M,) array
        Of exp(log_q - top).
    top : float
    error : float
        What cells that were not halved to the end may be off by, together and relative to the whole; an estimate.
    """

    corner: np.ndarray
    width: np.ndarray
    mass: np.ndarray
    top: float
    error: float

    @property
    def log_integral(self) -> float:
        return float(np.log(self.mass.sum()) + self.top)


def resolve(log_q: Callable, corner: np.ndarray, width: np.ndarray, top: float) -> Cells:
    """Halve cells (M, n) of the unit cube until halves say the same as the whole, to round-off.

    A cell's own nodes and those of its halves have no point in common, so that no wave looks alike to both.
    Round-off is that of the sum, and what rounding of coordinates and of log_q makes of the values in a cell.
    """
    dim, whole = corner.shape[1], (corner, width)
    done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    settled, error, spent = 0.0, 0.0, 0
    mass, _, highest = _sums(log_q, corner, width, top, _ORDER[dim])
    while len(width):
        children, half = halved(corner, width)
        if highest > _ABOVE:
            return resolve(log_q, *whole, top + highest)  # a peak that nobody had seen
        parts, noise, highest = _sums(log_q, children, half, top, _ORDER[dim])
        spent += len(parts) * _ORDER[dim] ** dim
        gap = np.abs(parts.reshape(len(width), -1).sum(axis=1) - mass)
        if dim == 1:
            gap += _beyond_nodes(log_q, children, half, top).reshape(len(width), -1).sum(axis=1)
        noise = noise.reshape(len(width), -1).sum(axis=1)
        going = (gap > np.maximum(_TOLERANCE[dim] * (settled + parts.sum()), noise)) & (width.max(axis=1) > 2.0**-52)
        affordable = max(_MOST[dim] - spent, 0) // (4 * _ORDER[dim]) ** dim
        if going.sum() > affordable:  # the worst go on
            going[np.argsort(-gap * going, kind="stable")[affordable:]] = False
        error += gap[~going].sum()
        last = np.repeat(~going, 2**dim)
        done.append((children[last], half[last], parts[last]))
        settled += parts[last].sum()
        corner, width, mass = children[~last], half[~last], parts[~last]
    if highest > _ABOVE:
        return resolve(log_q, *whole, top + highest)
    corner, width, mass = (np.concatenate(part) for part in zip(*done))
    return Cells(corner, width, mass, top, float(_CAUTION * error / settled) if settled > 0 else 0.0)


def masses(log_q: Callable, corner: np.ndarray, width: np.ndarray, top: float, order: int = 16) -> np.ndarray:
    """Integral of exp(log_q - top) over each cell, (M,)."""
    return _sums(log_q, corner, width, top, order)[0]


def _sums(
    log_q: Callable, corner: np.ndarray, width: np.ndarray, top: float, order: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The masses, and how well they can be known: log_q is rounded, and so is the point where it is taken; and the
    largest of log_q - top, which counts as no more than _ABOVE."""
    dim, eps = corner.shape[1], np.finfo(float).eps
    node, weight = np.polynomial.legendre.leggauss(order)
    offsets = np.stack(np.meshgrid(*[(node + 1) / 2] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    weights = np.ones(1)
    for _ in range(dim):
        weights = np.multiply.outer(weights, weight / 2).ravel()
    result, noise, highest = np.empty(len(width)), np.empty(len(width)), -np.inf
    block = max(1, _CHUNK // len(weights))
    for part in (slice(i, i + block) for i in range(0, len(width), block)):
        u = corner[part, None] + width[part, None] * offsets
        values = log_q(u.reshape(-1, dim)).reshape(u.shape[:2]) - top
        highest = max(highest, float(values.max()))
        values = np.minimum(values, _ABOVE)
        result[part] = np.exp(values) @ weights
        high = np.maximum(values.max(axis=1), -1e300)
        spread = high - np.maximum(values.min(axis=1), high - 40)
        noise[part] = spread * (1e-3 + 1 / width[part].min(axis=1)) + np.abs(high) + abs(top)
    volume = width.prod(axis=1)
    return result * volume, 8 * eps * noise * result * volume, highest


def _beyond_nodes(log_q: Callable, corner: np.ndarray, width: np.ndarray, top: float) -> np.ndarray:
    """What a jump between a cell's end and its first node takes from its mass or adds to it, unseen by all nodes: (M,).

    A function without one changes less from the end to the first node than from there to the second, four times as far.
    """
    node = (1 + np.polynomial.legendre.leggauss(_ORDER[1])[0][:2]) / 2
    places = np.concatenate([[1e-9], node, 1 - node[::-1], [1 - 1e-9]])
    values = log_q((corner + width * places).reshape(-1, 1)).reshape(len(width), -1) - top
    ends = values[:, [0, 5]]
    with np.errstate(invalid="ignore", over="ignore"):
        p = np.exp(np.minimum(values, _ABOVE))
    change = np.abs(p[:, [0, 5]] - p[:, [1, 4]])
    jumps = (change > _TORN * np.abs(p[:, [1, 4]] - p[:, [2, 3]])) & ~(ends > 1)  # above the top there are poles only
    return node[0] * width[:, 0] * np.where(jumps, change, 0.0).sum(axis=1)


def halved(corner: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2^n halves of each cell, together."""
    dim = corner.shape[1]
    corners = corner[:, None] + width[:, None] / 2 * lattice(2, dim)
    return corners.reshape(-1, dim), np.repeat(width / 2, 2**dim, axis=0)


def graded(modes: Modes, dim: int, first: int, least: float = 2.0**-50) -> tuple[np.ndarray, np.ndarray]:
    """Equal cells, halved near each peak along the axes on which they are wider than it: (M, n) corners and widths."""
    corner, width = lattice(first, dim) / first, np.full((first**dim, dim), 1 / first)
    modes = modes[modes.peaked & ~modes.pole]
    scale = np.maximum(modes.scale, least)
    active = np.ones(len(corner), dtype=bool)
    while active.any():
        middle = corner[active, None] + width[active, None] / 2
        size = width[active, None]
        near = (np.abs(middle - modes.points) < np.maximum(1.5 * size, 4 * scale)).all(axis=2)
        coarse = (near[..., None] & (size > 4 * scale)).any(axis=1)
        where = np.flatnonzero(active)
        active[where[~coarse.any(axis=1)]] = False
        for k in range(dim):
            chosen = where[coarse[:, k]]
            width[chosen, k] /= 2
            beside = corner[chosen].copy()
            beside[:, k] += width[chosen, k]
            where = np.concatenate([where, len(corner) + np.arange(len(chosen))])
            coarse = np.concatenate([coarse, coarse[coarse[:, k]]])
            corner, width = np.concatenate([corner, beside]), np.concatenate([width, width[chosen]])
            active = np.concatenate([active, np.ones(len(chosen), dtype=bool)])
    return corner, width


def lattice(size: int, dim: int) -> np.ndarray:
    """The integer points of [0, size)^dim: (size^dim, dim)."""
    return np.indices((size,) * dim).reshape(dim, -1).T
