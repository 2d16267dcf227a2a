"""How fast neighbouring cells exchange features: from a metric with any entries, up to any wall.

Along an axis c is the mean of D_kk = m g^kk / h_k^2 over the two cells (geometric, as is that of the weight, where
the metric is diagonal). An off-diagonal D_kl acts where four cells meet: c = s + D_kl / 2 across one diagonal,
s - D_kl / 2 across the other, and s is taken off each of the four sides. Since the squares of the diagonals make up
those of the sides but for the mixed second difference, any s is consistent; s = |D_kl| / 2 leaves seven points in two
dimensions. All c are >= 0 there where sum_l |D_kl| <= D_kk for every k (up to h^2); beyond, s falls to 0, which stays
stable and of second order.

A no-flux wall makes the flux along its normal a vanish, so in the half cell next to it the other directions
diffuse by the Schur complement D_kl - D_ka D_al / D_aa. A Dirichlet wall is half a cell away. What crosses a wall
with a flux phi = speed (g - b H) drags as much along it there, D_ka / D_aa phi: the wall's flux is that of the foot of
the conormal from the cell's centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from ...grid import Grid
from ...norms import unit
from ..boundaries import Dirichlet, Robin, Walls
from ..generator import Generator


def exchange_rates(grid: Grid, tensor: np.ndarray | None, walls: Walls) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Offsets and exchange rates (P, *grid)."""
    dim, unit = len(grid.shape), np.eye(len(grid.shape), dtype=int)
    D = _scaled(grid, tensor)
    planes = _skew_planes(D)
    mean = _mean if planes else _geometric_mean
    for a, axis in enumerate(grid.axes if planes else ()):
        if axis.kind == "cells":  # half of the cell's room lies between its centre and the wall
            pair = walls[a]
            for end, cell in enumerate((0, -1)):
                if not isinstance(pair and pair[end], Dirichlet):
                    _drop_normal(D, a, (slice(None),) * a + (cell,))
    rates = {tuple(unit[k]): mean(D[k, k], k) for k in range(dim)}
    for k, l in planes:
        cross, skew = _corner(grid, D, k, l)
        rates[tuple(unit[k] + unit[l])] = skew + cross / 2
        rates[tuple(unit[k] - unit[l])] = _shifted(skew - cross / 2, -1, l)
        for side, other in ((k, l), (l, k)):
            rates[tuple(unit[side])] -= skew + _shifted(skew, -1, other)
            for end, _ in _dirichlet_ends(walls, other):
                beside = (slice(None),) * other + (-end,)
                rates[tuple(unit[side])][beside] -= _wall_skew(D, other, side, beside, grid) / 2
    if grid.axes[0].kind == "colatitude":
        # exact for linear functions on the sphere, whose error would else grow as 1 / radius at the poles
        down, around = (axis.spacing for axis in grid.axes)
        rates[1, 0] *= down**2 / (2 * np.sin(down / 2) * np.sin(down))
        rates[0, 1] *= (around / 2 / np.sin(around / 2)) ** 2
    largest = max(float(np.abs(rate).max()) for rate in rates.values())
    rates = {o: _open_face(grid, o) * np.where(np.abs(rate) < 1e-14 * largest, 0.0, rate) for o, rate in rates.items()}
    rates = {o: rate for o, rate in rates.items() if sum(map(abs, o)) == 1 or rate.any()}
    return tuple(rates), np.stack(list(rates.values()))


def wall_rates(
    generator: Generator, grid: Grid, tensor: np.ndarray | None, walls: Walls
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Dirichlet]]:
    """Per Dirichlet wall and way a cell reaches it: cells, symmetric rates of exchange, the wall points, the side.

    Straight across the rate is 2 D_aa less the s on both sides; the wall points of the cells next to it along l are
    reached as across any corner, at half the spacing and with half the room.
    """
    index = np.arange(grid.size).reshape(grid.shape)
    spacing = np.array([axis.spacing for axis in grid.axes])
    D = _scaled(grid, tensor)
    skewed = {axis for plane in _skew_planes(D) for axis in plane}
    for a, axis in enumerate(grid.axes):
        for end, side in _dirichlet_ends(walls, a):
            beside = (slice(None),) * a + (-end,)
            cells = index[beside].ravel()
            wall = grid.points[cells].copy()
            wall[:, a] = axis.high if end else axis.low
            at_wall = None if tensor is None else generator.coefficients(wall)[1]
            there = 1.0 if at_wall is None else at_wall[:, a, a]
            straight = 2 * np.sqrt(D[(a, a, *beside)].ravel() * there) / spacing[a]
            for l in sorted(skewed - {a}) if a in skewed else ():
                skew = _wall_skew(D, a, l, beside, grid)
                cross = D[(a, l, *beside)]
                along = l - (l > a)
                cross = (cross + np.roll(cross, -1, axis=along)) / 2 * (1 if end else -1)
                straight -= (skew + np.roll(skew, 1, axis=along)).ravel() / 2
                step = np.zeros(len(D), dtype=int)
                step[l] = 1
                inside = (_open_face(grid, step) > 0)[beside]
                for way, rate in ((1, (skew + cross) / 2), (-1, np.roll((skew - cross) / 2, 1, axis=along))):
                    reached = (inside if way > 0 else np.roll(inside, 1, axis=along)).ravel()
                    beyond = wall[reached].copy()
                    beyond[:, l] += way * spacing[l]
                    yield cells[reached], rate.ravel()[reached], beyond, side
            yield cells, straight, wall, side


@dataclass(frozen=True)
class Crossing:
    """What a Robin wall does to the cells (m,) next to it.

    Attributes
    ----------
    cells : (m,) array of int
    conductance : (m,) array
        Rate at which a cell would take on the features of its wall point, half a cell away.
    feet : list of ((m,) array, (m, n) array)
        Weights and wall points: what crosses, per weight of the cell, is the sum of weight times (g - b H).
    side : Robin
    """

    cells: np.ndarray
    conductance: np.ndarray
    feet: list[tuple[np.ndarray, np.ndarray]]
    side: Robin

    def loss(self) -> np.ndarray:
        """(m,) rates at which the cells lose their own features; negative where b is."""
        rates = [weight * self.side.coefficient_at(points) for weight, points in self.feet]
        return sum(rates) / self._resistance

    def gain(self, columns: int, t: float = 0.0) -> np.ndarray:
        """(m, columns): what g adds to the cells."""
        fluxes = [weight[:, None] * self.side.at(points, columns, t) for weight, points in self.feet]
        return sum(fluxes) / self._resistance[:, None]

    @cached_property
    def _resistance(self) -> np.ndarray:
        """Of the half cell before the wall, over the wall's own, plus one: H falls on the way."""
        weight, points = self.feet[0]
        result = 1 + weight * self.side.coefficient_at(points) / self.conductance
        if (result <= 0.5).any():
            where = int(np.argmin(result))
            raise ValueError(
                "grid must resolve the walls: half a cell must be shorter than 1 / (2 |b|) where boundary's coefficient b "
                f"is negative, at x = {points[where].tolist()} too; use more cells"
            )
        return result


def crossings(
    generator: Generator, grid: Grid, tensor: np.ndarray | None, log_w: np.ndarray, walls: Walls
) -> Iterator[Crossing]:
    """One per Robin wall; `log_w` (n,) and `tensor` are those of the cells."""
    index = np.arange(grid.size).reshape(grid.shape)
    D = _scaled(grid, tensor)
    skewed = {axis for plane in _skew_planes(D) for axis in plane}
    for a, axis in enumerate(grid.axes):
        for end, side in enumerate(walls[a] or ()):
            if not isinstance(side, Robin):
                continue
            beside = (slice(None),) * a + (-end,)
            cells = index[beside].ravel()
            wall = grid.points[cells].copy()
            wall[:, a] = axis.high if end else axis.low
            log_wall, at_wall = generator.coefficients(wall)
            there = 1.0 if at_wall is None else at_wall[:, a, a]
            conductance = 2 * np.sqrt(D[(a, a, *beside)].ravel() * there) / axis.spacing
            conductance = conductance * np.exp((log_wall - log_w[cells]) / 2)
            feet = [(np.exp(log_wall - log_w[cells]) * generator.crossing(wall, a) / axis.spacing, wall)]
            for l in sorted(skewed - {a}) if a in skewed else ():
                step = np.eye(len(D), dtype=int)[l]
                for way in (1, -1):
                    face = wall.copy()
                    face[:, l] += way * grid.axes[l].spacing / 2
                    log_face, at_face = generator.coefficients(face)
                    assert at_face is not None  # some entry is off-diagonal
                    drag = at_face[:, a, l] / at_face[:, a, a] * generator.crossing(face, a)
                    inside = (_open_face(grid, way * step) > 0)[beside].ravel()
                    sign = way if end else -way
                    weight = sign * inside * np.exp(log_face - log_w[cells]) * drag / (2 * grid.axes[l].spacing)
                    feet.append((weight, face))
            yield Crossing(cells, conductance, feet, side)


def _scaled(grid: Grid, tensor: np.ndarray | None) -> np.ndarray:
    """D_kl = T^kl / (h_k h_l), (n, n, *grid)."""
    dim = len(grid.shape)
    spacing = np.array([axis.spacing for axis in grid.axes])
    tensor = np.broadcast_to(np.eye(dim), (grid.size, dim, dim)) if tensor is None else tensor
    return np.moveaxis((tensor / np.outer(spacing, spacing)).reshape(*grid.shape, dim, dim), (-2, -1), (0, 1)).copy()


def _skew_planes(D: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of axes between which something is off-diagonal."""
    largest = np.max([D[k, k] for k in range(len(D))], axis=0)
    return [(k, l) for k, l in combinations(range(len(D)), 2) if (np.abs(D[k, l]) > 1e-12 * largest).any()]


def _corner(grid: Grid, D: np.ndarray, k: int, l: int) -> tuple[np.ndarray, np.ndarray]:
    """D_kl and s where the cells i, i + e_k, i + e_l and i + e_k + e_l meet, (*grid); zero beyond a wall."""
    step = np.zeros(len(D), dtype=int)
    step[k] = step[l] = 1
    inside = _open_face(grid, step) > 0

    mean = (D + _shifted(D, 1, k + 2)) / 2
    mean = (mean + _shifted(mean, 1, l + 2)) / 2
    cross = np.where(inside, mean[k, l], 0.0)
    return cross, np.abs(cross) / 2 * _taper(mean)


def _taper(D: np.ndarray) -> np.ndarray:
    """1 where sum_l |D_kl| <= D_kk for every k, falling to 0 where it is twice as much: continuously, so that the
    error keeps falling as h^2."""
    excess = [sum(np.abs(D[k, l]) for l in range(len(D)) if l != k) / D[k, k] for k in range(len(D))]
    return np.clip(2 / np.maximum(np.max(excess, axis=0), 1e-300) - 1, 0, 1)


def _drop_normal(D: np.ndarray, a: int, cells: tuple) -> None:
    """In place, in the cells given, half of what the vanishing flux along axis a takes off the other directions."""
    across = [D[(a, k, *cells)].copy() for k in range(len(D))]
    for k in range(len(D)):
        for l in range(len(D)):
            if k != a and l != a:
                D[(k, l, *cells)] -= across[k] * across[l] / (2 * across[a])


def _wall_skew(D: np.ndarray, a: int, l: int, beside: tuple, grid: Grid) -> np.ndarray:
    """s of the half cells next to a Dirichlet wall of axis a, where two of them and their wall points meet, along l."""
    along = l - (l > a)  # the wall has one axis less
    step = np.zeros(len(D), dtype=int)
    step[l] = 1
    inside = (_open_face(grid, step) > 0)[beside]
    near = D[(slice(None), slice(None), *beside)]
    near = (near + _shifted(near, 1, along + 2)) / 2
    near = near * np.where(np.arange(len(D)) == a, 2.0, 1.0).reshape(-1, 1, *[1] * (near.ndim - 2))
    near = near * np.where(np.arange(len(D)) == a, 2.0, 1.0).reshape(1, -1, *[1] * (near.ndim - 2))
    return np.where(inside, np.abs(near[a, l]) / 2 * _taper(near), 0.0)


def _dirichlet_ends(walls: Walls, a: int) -> list[tuple[int, Dirichlet]]:
    """The ends (0, 1) of axis a that are Dirichlet walls, and their sides."""
    return [(end, side) for end, side in enumerate(walls[a] or ()) if isinstance(side, Dirichlet)]


def _mean(rate: np.ndarray, axis: int) -> np.ndarray:
    return (rate + _shifted(rate, 1, axis)) / 2


def _geometric_mean(rate: np.ndarray, axis: int) -> np.ndarray:
    size = unit(rate)  # products of two rates may overflow or vanish
    rate = rate / size
    return size * np.sqrt(rate * _shifted(rate, 1, axis))


def at_offset(field: np.ndarray, offset) -> np.ndarray:
    """At each cell the value at an offset from it, around the ends."""
    for axis, step in enumerate(offset):
        field = _shifted(field, step, axis) if step else field
    return field


def _shifted(field: np.ndarray, step: int, axis: int) -> np.ndarray:
    """The entry `step` further along an axis, around its end: what np.roll takes ten times as long for."""
    before = (slice(None),) * axis
    return np.concatenate((field[(*before, slice(step, None))], field[(*before, slice(None, step))]), axis=axis)


def _open_face(grid: Grid, offset) -> np.ndarray:
    """1 where a cell has a neighbour at the offset, 0 where a wall or a pole is between; on a sphere, the ratio of
    the exact length sin(theta) of the face to the geometric mean over its cells."""
    result = np.ones(grid.shape)
    for k, (axis, step) in enumerate(zip(grid.axes, offset)):
        if step and axis.kind != "periodic":
            factor = np.ones(axis.size)
            factor[-1 if step > 0 else 0] = 0.0
            if axis.kind == "colatitude":
                width = np.sin(axis.nodes)
                factor[:-1] = np.sin(axis.nodes[:-1] + axis.spacing / 2) / np.sqrt(width[:-1] * width[1:])
            result = result * factor.reshape([-1 if j == k else 1 for j in range(len(grid.axes))])
    return result
