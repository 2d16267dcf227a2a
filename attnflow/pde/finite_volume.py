"""The symmetric finite-volume form of L, in one and two dimensions, and its march in time.

L H = w^-1 d_i (w g^ii d_i H): cell i loses to its neighbour j the flux a_ij (H_i - H_j) / h^2 through
their common face, where a_ij is the geometric mean of w g^ii over the two cells. Then

    dH_i/dt = sum_j  sqrt(g^ii_i g^ii_j) / h^2  exp((log w_j - log w_i) / 2)  (H_j - H_i),

so rows sum to zero, off-diagonals are >= 0 (no new extrema), sum_i w_i H_i is conserved and L is
self-adjoint in w. A Dirichlet wall is half a cell away. Errors fall as h^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..grid import Grid
from ..progress import track
from .boundaries import Walls
from .coefficients import build_grid, diagonal_inverse_metric, extent, log_weight
from .exponential import Exponential

if TYPE_CHECKING:
    from .equations import DriftDiffusion

KINDS = ("periodic", "cells")
_STEEPEST = 100.0  # largest change of log w from a cell to the next for which exp is still harmless


@dataclass(frozen=True)
class Cells:
    """dH/dt = operator H + source on a grid, with the logarithm of the conserved weight w per coordinate volume."""

    grid: Grid
    operator: sparse.csr_array
    source: np.ndarray | None
    log_weight: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """(n,) conserved weight of each cell, relative to their sum."""
        weight = self.grid.weights * np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.sum()


def assemble(
    pde: DriftDiffusion, shape: tuple[int, ...], walls: Walls, columns: int = 1, horizon: float = 0.0
) -> Cells:
    """The operator on shape[k] cells along axis k.

    Raises
    ------
    ValueError
        If p vanishes at a cell centre, or p^drift changes by more than e^100 between neighbours.
    NotImplementedError
        If the metric has off-diagonal entries.
    """
    grid = build_grid(pde.space, KINDS, shape, extent(pde, horizon))
    x = grid.points
    log_w, inverse = log_weight(pde, x), diagonal_inverse_metric(pde.space, x)
    if steepness(log_w, grid) > _STEEPEST:
        raise ValueError(
            f"grid must resolve the density: p^drift changes by more than e^{_STEEPEST:g} between neighbouring cells "
            f"of {list(shape)}; use more cells or a smoother density"
        )
    rows, columns_, rates, source = [], [], [], None
    for k, axis in enumerate(grid.axes):
        lower, upper = _faces(grid.shape, k, axis.kind == "periodic")
        conductance = np.sqrt(inverse[lower, k] * inverse[upper, k]) / axis.spacing**2
        rise = np.exp((log_w[upper] - log_w[lower]) / 2)
        rows += [lower, upper]
        columns_ += [upper, lower]
        rates += [conductance * rise, conductance / rise]
    rows, columns_, rates = map(np.concatenate, (rows, columns_, rates))
    loss = np.bincount(rows, rates, grid.size)
    for cells, rate, wall, side in _clamped(pde, grid, walls, log_w, inverse):
        source = np.zeros((grid.size, columns)) if source is None else source
        np.add.at(source, cells, rate[:, None] * side.at(wall, columns))
        np.add.at(loss, cells, rate)
    diagonal = np.arange(grid.size)
    entries = np.concatenate([rates, -loss]), (np.append(rows, diagonal), np.append(columns_, diagonal))
    return Cells(grid, sparse.coo_array(entries, shape=(grid.size, grid.size)).tocsr(), source, log_w)


def march(cells: Cells, initial: np.ndarray, times: np.ndarray, progress: bool = False) -> np.ndarray:
    """The fields at `times`, (T, *grid, c), from initial values (*grid, c); exact in time to 1e-13.

    The rational exponential conserves sum w H to 1e-13 only: what is missing is given back evenly.
    """
    exponential = Exponential(cells.operator, cells.source)
    steps = np.diff(times, prepend=0.0)
    repeated = [k + 1 < len(steps) and abs(steps[k + 1] - steps[k]) <= 1e-13 * times[-1] for k in range(len(steps))]
    values = initial.reshape(cells.grid.size, -1)
    mass = cells.mass
    conserved, result = mass @ values, []
    for k in track(range(len(steps)), progress, unit="time"):
        if steps[k] > 0:
            values = exponential.step(values, steps[k], keep=repeated[k])
            if cells.source is None:
                values = values + (conserved - mass @ values)
        result.append(values)
    return np.stack(result).reshape(len(times), *initial.shape)


def steepness(log_w: np.ndarray, grid: Grid) -> float:
    """The largest change of log w between neighbouring cells."""
    pairs = (_faces(grid.shape, k, axis.kind == "periodic") for k, axis in enumerate(grid.axes))
    return max(float(np.abs(log_w[upper] - log_w[lower]).max(initial=0.0)) for lower, upper in pairs)


def _faces(shape: tuple[int, ...], k: int, wraps: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the cells below and above each face normal to axis k."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    upper = np.roll(index, -1, axis=k)
    count = shape[k] if wraps else shape[k] - 1
    return index.take(range(count), axis=k).ravel(), upper.take(range(count), axis=k).ravel()


def _clamped(pde: DriftDiffusion, grid: Grid, walls: Walls, log_w: np.ndarray, inverse: np.ndarray):
    """Per Dirichlet wall: its cells, their rates of exchange with it, the wall points opposite, the side."""
    index = np.arange(grid.size).reshape(grid.shape)
    for k, (axis, pair) in enumerate(zip(grid.axes, walls)):
        for end, side in enumerate(pair or ()):
            if side is None:
                continue
            cells = index.take(-end, axis=k).ravel()
            wall = grid.points[cells].copy()
            wall[:, k] = axis.high if end else axis.low
            conductance = 2 * np.sqrt(inverse[cells, k] * diagonal_inverse_metric(pde.space, wall)[:, k])
            rise = np.exp((log_weight(pde, wall) - log_w[cells]) / 2)
            yield cells, conductance * rise / axis.spacing**2, wall, side
