"""The symmetric finite-volume form of L in one to three dimensions: cells that exchange features in pairs.

Cell i and its neighbour i + o exchange at a rate c >= 0 that is symmetric but for the weight w:

    dH_i/dt = sum_o  c_io  exp((log w_{i+o} - log w_i) / 2)  (H_{i+o} - H_i)

so constants stay, sum_i w_i H_i is conserved, L is self-adjoint in w, and with all c >= 0 no new extrema
appear. Along an axis c is the mean of D_kk = m g^kk / h_k^2 over the two cells (geometric, as is that of w). An off-diagonal
D_kl acts where four cells meet: c = s + D_kl / 2 across one diagonal, s - D_kl / 2 across the other, and s is taken
off each of the four sides. Since the squares of the diagonals make up those of the sides but for the mixed second
difference, any s is consistent; s = |D_kl| / 2 leaves seven points in two dimensions. All c are >= 0 there where
sum_l |D_kl| <= D_kk for every k (up to h^2); beyond, s falls to 0, which stays stable and of second order.

A no-flux wall makes the flux along its normal a vanish, so in the half cell next to it the other directions
diffuse by the Schur complement D_kl - D_ka D_al / D_aa. A Dirichlet wall is half a cell away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..grid import Axis, Grid
from .boundaries import Walls
from .coefficients import at_points, build_grid, coefficients, extent, log_weight

if TYPE_CHECKING:
    from .equations import DriftDiffusion

KINDS = ("periodic", "cells")
_STEEPEST = 100.0  # largest change of log w from a cell to the next for which exp is still harmless


@dataclass(frozen=True)
class Cells:
    """dH/dt = L H + source on a grid, L in the pair form of the module.

    Attributes
    ----------
    grid : Grid
    log_weight : (n,) array
        Logarithm of the conserved weight w per coordinate volume.
    offsets : tuple of tuple of int
        Each pair of neighbours once.
    exchange : (len(offsets), *grid) array
        c between a cell and its neighbour; zero across a wall.
    loss : (n,) array
        Rate at which a cell forgets its own value: minus the diagonal of L.
    source : (n, c) array or None
        What Dirichlet walls add; None without any.
    moving_source : callable or None
        t -> (n, c), where a wall's value changes in time.
    monotone : bool
        Whether every rate is >= 0: the discrete maximum principle then holds.
    coupled : (n c, n c) sparse array or None
        The operator on raveled (n, c) fields where it is not self-adjoint, or mixes columns; it stands for all pairs.
    """

    grid: Grid
    log_weight: np.ndarray
    offsets: tuple[tuple[int, ...], ...]
    exchange: np.ndarray
    loss: np.ndarray
    source: np.ndarray | None
    moving_source: Callable | None
    monotone: bool
    coupled: sparse.csr_array | None = None

    @cached_property
    def mass(self) -> np.ndarray:
        """(n,) conserved weight of each cell, relative to their sum."""
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.sum()

    @cached_property
    def bound(self) -> float:
        """Gershgorin's bound of the spectrum: every eigenvalue of L is >= -bound."""
        reach = self.loss.copy().reshape(self.grid.shape)
        for offset, rate in zip(self.offsets, np.abs(self.exchange)):
            reach += rate + np.roll(rate, offset, range(len(offset)))
        return float(reach.max())

    def bands(self) -> tuple[np.ndarray, np.ndarray]:
        """Rates from each cell of a line to the next and to the previous one, wrapping."""
        rate = self.exchange[0]
        rise = np.exp((np.roll(self.log_weight, -1) - self.log_weight) / 2, where=rate != 0, out=np.ones_like(rate))
        return rate * rise, np.roll(rate / rise, 1)

    def operator(self, symmetric: bool = False) -> sparse.csr_array:
        """L as a sparse matrix, or the symmetric sqrt(w) L / sqrt(w)."""
        index = np.arange(self.grid.size).reshape(self.grid.shape)
        rows, columns, rates = [index.ravel()], [index.ravel()], [-self.loss]
        for offset, exchange in zip(self.offsets, self.exchange):
            there = np.roll(index, np.negative(offset), range(len(offset)))
            inside = exchange != 0
            low, high, rate = index[inside], there[inside], exchange[inside]
            rise = 1.0 if symmetric else np.exp((self.log_weight[high] - self.log_weight[low]) / 2)
            rows += [low, high]
            columns += [high, low]
            rates += [rate * rise, rate / rise]
        entries = np.concatenate(rates), (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_array(sparse.coo_array(entries, shape=(self.grid.size,) * 2))


def assemble(
    pde: DriftDiffusion, shape: tuple[int, ...], walls: Walls, columns: int = 1, horizon: float = 0.0
) -> Cells:
    """The operator on shape[k] cells along axis k.

    Raises
    ------
    ValueError
        If p vanishes at a cell centre, p^drift changes by more than e^100 between neighbours, or the metric is
        not positive definite somewhere.
    """
    grid = build_grid(pde.space, KINDS, shape, extent(pde, horizon))
    log_w, tensor = coefficients(pde, grid)
    if steepness(log_w, grid) > _STEEPEST:
        raise ValueError(
            f"grid must resolve the density: p^drift changes by more than e^{_STEEPEST:g} between neighbouring cells "
            f"of {list(shape)}; use more cells or a smoother density"
        )
    offsets, exchange = _pairs(grid, tensor, walls)
    log_field, axes = log_w.reshape(grid.shape), range(len(shape))
    loss = np.zeros(grid.shape)
    for offset, rate in zip(offsets, exchange):
        rise = np.exp((np.roll(log_field, np.negative(offset), axes) - log_field) / 2, where=rate != 0, out=np.ones(shape))
        loss += rate * rise + np.roll(rate / rise, offset, axes)
    loss = loss.ravel()
    clamped = []
    for cells, rate, wall, side in _clamped(pde, grid, tensor, walls):
        rate = rate * np.exp((log_weight(pde, wall) - log_w[cells]) / 2)
        clamped.append((cells, rate[:, None], wall, side))
        loss[cells] += rate

    def source(t: float = 0.0) -> np.ndarray:
        total = np.zeros((grid.size, columns))
        for cells, rate, wall, side in clamped:
            total[cells] += rate * side.at(wall, columns, t)
        return total

    return Cells(
        grid,
        log_w,
        offsets,
        exchange,
        loss,
        source() if clamped else None,
        source if any(side.moves for *_, side in clamped) else None,
        monotone=bool((exchange >= 0).all()) and all((rate >= 0).all() for _, rate, _, _ in clamped),
    )


def steepness(log_w: np.ndarray, grid: Grid) -> float:
    """The largest change of log w between neighbouring cells."""
    field, worst = log_w.reshape(grid.shape), 0.0
    for k, axis in enumerate(grid.axes):
        closed = np.concatenate([field, field.take([0], axis=k)], axis=k) if axis.kind == "periodic" else field
        worst = max(worst, float(np.abs(np.diff(closed, axis=k)).max(initial=0.0)))
    return worst


def _pairs(grid: Grid, tensor: np.ndarray | None, walls: Walls) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Offsets and exchange rates (P, *grid)."""
    dim, unit = len(grid.shape), np.eye(len(grid.shape), dtype=int)
    D = _scaled(grid, tensor)
    planes = _skew_planes(D)
    mean = _mean if planes else _geometric_mean
    for a, axis in enumerate(grid.axes if planes else ()):
        if axis.kind == "cells":  # half of the cell's room lies between its centre and the wall
            for end, cell in enumerate((0, -1)):
                if not (walls[a] and walls[a][end]):
                    _drop_normal(D, a, (slice(None),) * a + (cell,))
    rates = {tuple(unit[k]): mean(D[k, k], unit[k]) for k in range(dim)}
    for k, l in planes:
        cross, skew = _corner(grid, D, k, l)
        rates[tuple(unit[k] + unit[l])] = skew + cross / 2
        rates[tuple(unit[k] - unit[l])] = np.roll(skew - cross / 2, 1, axis=l)
        for side, other in ((k, l), (l, k)):
            rates[tuple(unit[side])] -= skew + np.roll(skew, 1, axis=other)
            for end in _held(walls, other):
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

    def mean(field: np.ndarray) -> np.ndarray:
        field = (field + np.roll(field, -1, axis=k)) / 2
        return (field + np.roll(field, -1, axis=l)) / 2

    cross = np.where(inside, mean(D[k, l]), 0.0)
    return cross, np.abs(cross) / 2 * _taper(np.stack([[mean(entry) for entry in row] for row in D]))


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
    near = (near + np.roll(near, -1, axis=along + 2)) / 2
    near = near * np.where(np.arange(len(D)) == a, 2.0, 1.0).reshape(-1, 1, *[1] * (near.ndim - 2))
    near = near * np.where(np.arange(len(D)) == a, 2.0, 1.0).reshape(1, -1, *[1] * (near.ndim - 2))
    return np.where(inside, np.abs(near[a, l]) / 2 * _taper(near), 0.0)


def _held(walls: Walls, a: int) -> list[int]:
    """The ends (0, 1) of axis a that are Dirichlet walls."""
    return [end for end, side in enumerate(walls[a] or ()) if side is not None]


def _mean(rate: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return (rate + np.roll(rate, np.negative(offset), range(rate.ndim))) / 2


def _geometric_mean(rate: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return np.sqrt(rate * np.roll(rate, np.negative(offset), range(rate.ndim)))


def _open_face(grid: Grid, offset) -> np.ndarray:
    """1 where a cell has a neighbour at the offset, 0 where a wall or a pole is between; on a sphere, the ratio of
    the exact length sin(theta) of the face to the geometric mean over its cells."""
    result = np.ones(grid.shape)
    for k, (axis, step) in enumerate(zip(grid.axes, offset)):
        if step and axis.kind != "periodic":
            factor = np.ones(axis.size)
            factor[-1 if step > 0 else 0] = 0.0
            if axis.kind == "colatitude":
                factor[:-1] = np.sin(axis.nodes[:-1] + axis.spacing / 2) / np.sqrt(np.sin(axis.nodes[:-1]) * np.sin(axis.nodes[1:]))
            result = result * factor.reshape([-1 if j == k else 1 for j in range(len(grid.axes))])
    return result


def _clamped(pde: DriftDiffusion, grid: Grid, tensor: np.ndarray | None, walls: Walls):
    """Per Dirichlet wall and way a cell reaches it: cells, symmetric rates of exchange, the wall points, the side.

    Straight across the rate is 2 D_aa less the s on both sides; the wall points of the cells next to it along l are
    reached as across any corner, at half the spacing and with half the room.
    """
    index = np.arange(grid.size).reshape(grid.shape)
    spacing = np.array([axis.spacing for axis in grid.axes])
    D = _scaled(grid, tensor)
    skewed = {axis for plane in _skew_planes(D) for axis in plane}
    for a, axis in enumerate(grid.axes):
        for end in _held(walls, a):
            side, beside = walls[a][end], (slice(None),) * a + (-end,)
            cells = index[beside].ravel()
            wall = grid.points[cells].copy()
            wall[:, a] = axis.high if end else axis.low
            there = 1.0 if tensor is None else at_points(pde, wall)[1][:, a, a]
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
