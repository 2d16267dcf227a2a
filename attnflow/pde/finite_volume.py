"""The symmetric finite-volume form of L in one to three dimensions: cells that exchange features in pairs.

Cell i and its neighbour i + o exchange at a rate c >= 0 that is symmetric but for the weight w:

    dH_i/dt = sum_o  c_io  exp((log w_{i+o} - log w_i) / 2)  (H_{i+o} - H_i)

so constants stay, sum_i w_i H_i is conserved, L is self-adjoint in w, and with all c >= 0 no new extrema
appear. Along an axis c is the mean of D_kk = m g^kk / h_k^2 over the two cells (geometric, as is that of w).
An off-diagonal D_kl is carried by the diagonal neighbours, c = s + D_kl / 2 on one diagonal and s - D_kl / 2
on the other, and 2 s is taken off D_kk and D_ll: any s is consistent, s = |D_kl| / 2 leaves seven points in
two dimensions. All c are >= 0 there where sum_l |D_kl| <= D_kk for every k; beyond, s falls to 0, which stays
stable and of second order.

A no-flux wall makes the flux along the normal a zero, so in the half cell next to it the other directions
diffuse by the Schur complement D_kl - D_ka D_al / D_aa. A Dirichlet wall is half a cell away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..grid import Axis, Grid
from .boundaries import Walls
from .coefficients import build_grid, coefficients, diffusion_tensor, extent, log_weight

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
    """

    grid: Grid
    log_weight: np.ndarray
    offsets: tuple[tuple[int, ...], ...]
    exchange: np.ndarray
    loss: np.ndarray
    source: np.ndarray | None
    moving_source: Callable | None
    monotone: bool

    @property
    def mass(self) -> np.ndarray:
        """(n,) conserved weight of each cell, relative to their sum."""
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.sum()

    @property
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
    offsets, exchange, skew = _pairs(grid, tensor, walls)
    log_field, axes = log_w.reshape(grid.shape), range(len(shape))
    loss = np.zeros(grid.shape)
    for offset, rate in zip(offsets, exchange):
        rise = np.exp((np.roll(log_field, np.negative(offset), axes) - log_field) / 2, where=rate != 0, out=np.ones(shape))
        loss += rate * rise + np.roll(rate / rise, offset, axes)
    loss = loss.ravel()
    clamped = []
    for cells, rate, wall, side in _clamped(pde, grid, tensor, skew, walls):
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


def _pairs(grid: Grid, tensor: np.ndarray | None, walls: Walls):
    """Offsets, exchange rates (P, *grid), and the correction s (n, n, *grid) or None when nothing is off-diagonal."""
    shape, dim = grid.shape, len(grid.shape)
    spacing = np.array([axis.spacing for axis in grid.axes])
    if tensor is None:
        tensor = np.broadcast_to(np.eye(dim), (grid.size, dim, dim))
    D = np.moveaxis((tensor / np.outer(spacing, spacing)).reshape(*shape, dim, dim), (-2, -1), (0, 1))
    unit = np.eye(dim, dtype=int)
    diagonal = [D[k, k] for k in range(dim)]
    largest = np.max(diagonal, axis=0)
    if not any((np.abs(D[k, l]) > 1e-12 * largest).any() for k, l in combinations(range(dim), 2)):
        exchange = [_mean(d, unit[k], np.sqrt) * _open_face(grid, unit[k]) for k, d in enumerate(diagonal)]
        return tuple(map(tuple, unit.tolist())), np.stack(exchange), None
    D = D.copy()
    share = [_share(axis, walls[k], k, dim) for k, axis in enumerate(grid.axes)]
    skew = _skew(D)
    for a, axis in enumerate(grid.axes):
        if axis.kind == "cells":  # half of the cell's room lies between its centre and the wall
            for end, cells in enumerate((0, -1)):
                if not (walls[a] and walls[a][end]):
                    _drop_normal(D, a, (slice(None),) * a + (cells,))
    offsets, exchange = [], []
    for k in range(dim):
        along = D[k, k] - sum(2 * skew[k, l] * share[l] for l in range(dim) if l != k)
        offsets.append(unit[k])
        exchange.append(_mean(along, unit[k]))
    for k, l in combinations(range(dim), 2):
        for sign in (1, -1):
            rate = skew[k, l] + sign * D[k, l] / 2
            if np.abs(rate).max() > 1e-14 * largest.max():
                offsets.append(unit[k] + sign * unit[l])
                exchange.append(_mean(rate, offsets[-1]))
    exchange = [rate * _open_face(grid, offset) for rate, offset in zip(exchange, offsets)]
    return tuple(tuple(o.tolist()) for o in offsets), np.stack(exchange), skew


def _skew(D: np.ndarray) -> np.ndarray:
    """s_kl = |D_kl| / 2, falling continuously to 0 where the off-diagonals outweigh the diagonal: (n, n, *grid)."""
    skew = np.abs(D) / 2
    for k in range(len(D)):
        skew[k, k] = 0
    dominance = np.max([2 * skew[k].sum(axis=0) / D[k, k] for k in range(len(D))], axis=0)
    return skew * np.clip(2 / np.maximum(dominance, 1e-300) - 1, 0, 1)


def _drop_normal(D: np.ndarray, a: int, cells: tuple) -> None:
    """In place, half of the Schur complement of axis a and half of D itself, in the cells given."""
    dim = len(D)
    across = [D[(a, k, *cells)].copy() for k in range(dim)]
    for k in range(dim):
        for l in range(dim):
            if k != a and l != a:
                D[(k, l, *cells)] -= across[k] * across[l] / (2 * across[a])


def _mean(rate: np.ndarray, offset: np.ndarray, geometric=None) -> np.ndarray:
    there = np.roll(rate, np.negative(offset), range(rate.ndim))
    return (rate + there) / 2 if geometric is None else geometric(rate * there)


def _open_face(grid: Grid, offset: np.ndarray) -> np.ndarray:
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


def _share(axis: Axis, pair, k: int, dim: int) -> np.ndarray:
    """How much of 2 s_kl the diagonal neighbours across axis k carry: all; half beside a no-flux wall or a pole, where
    those on one side are missing; one and a half beside a Dirichlet wall, which is twice as near."""
    share = np.ones(axis.size)
    if axis.kind != "periodic":
        share[[0, -1]] = [1.5 if side else 0.5 for side in pair or (None, None)]
    return share.reshape([-1 if j == k else 1 for j in range(dim)])


def _clamped(pde: DriftDiffusion, grid: Grid, tensor: np.ndarray | None, skew: np.ndarray | None, walls: Walls):
    """Per Dirichlet wall and wall point a cell touches: the cells, their symmetric rates of exchange with it, the
    points, the side. Straight across, 2 D_aa - 2 sum s_al; and s +- D_al / 2 one cell to the side."""
    index = np.arange(grid.size).reshape(grid.shape)
    spacing = np.array([axis.spacing for axis in grid.axes])
    for a, (axis, pair) in enumerate(zip(grid.axes, walls)):
        for end, side in enumerate(pair or ()):
            if side is None:
                continue
            cells = index.take(-end, axis=a).ravel()
            across = grid.points[cells].copy()
            across[:, a] = axis.high if end else axis.low
            if tensor is None:
                yield cells, np.full(len(cells), 2 / spacing[a] ** 2), across, side
                continue
            here, there = tensor[cells], diffusion_tensor(pde, across)
            straight = 2 * np.sqrt(here[:, a, a] * there[:, a, a]) / spacing[a] ** 2
            if skew is None:
                yield cells, straight, across, side
                continue
            s = skew.reshape(*skew.shape[:2], -1)[:, :, cells]
            yield cells, straight - 2 * s[a].sum(axis=0), across, side
            for l, other in enumerate(grid.axes):
                if l == a:
                    continue
                cross = (here + there)[:, a, l] / (4 * spacing[a] * spacing[l]) * (1 if end else -1)
                for step in (1, -1):
                    wall = across.copy()
                    wall[:, l] += step * other.spacing
                    inside = np.full(len(cells), other.kind == "periodic") | ((wall[:, l] > other.low) & (wall[:, l] < other.high))
                    yield cells[inside], (s[a, l] + step * cross)[inside], wall[inside], side
