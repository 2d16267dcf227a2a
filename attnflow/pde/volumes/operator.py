"""The symmetric finite-volume form of L in one to three dimensions: cells that exchange features in pairs.

Cell i and its neighbour i + o exchange at a rate c >= 0 that is symmetric but for the weight w:

    dH_i/dt = sum_o  c_io  exp((log w_{i+o} - log w_i) / 2)  (H_{i+o} - H_i)

so constants stay, sum_i w_i H_i is conserved, L is self-adjoint in w, and with all c >= 0 no new extrema
appear. `rates` says what c is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from scipy import sparse

from ...grid import Grid
from ..boundaries import Side, Walls, sides
from ..generator import Generator
from ..grids import cell_grid, steepness
from ..propagator import largest_eigenvalue
from ..sources import Source
from ..timing import Timing
from .rates import at_offset, crossings, exchange_rates, wall_rates

STEEPEST = 100.0  # largest change of log w from a cell to the next for which exp is still harmless


@dataclass(frozen=True)
class Cells:
    """dH/dt = L H + source on a grid, L in the pair form of the module.

    Attributes
    ----------
    grid : Grid
    log_weight : (n,) array
        Logarithm of the conserved weight w per coordinate volume.
    tensor : (n, dim, dim) array or None
        m g^ij; None for the identity everywhere.
    offsets : tuple of tuple of int
        Each pair of neighbours once.
    exchange : (len(offsets), *grid) array
        c between a cell and its neighbour; zero across a wall.
    loss : (n,) array
        Rate at which a cell forgets its own value: minus the diagonal of L.
    leak : (n,) array or None
        Rate at which a cell loses features to walls or a reaction, part of `loss`, negative where it gains; None:
        constants stay.
    source : (n, c) array or None
        What is added; None where nothing is.
    moving_source : callable or None
        t -> (n, c) in its place, where a wall's value changes in time.
    reaction : callable or None
        (t, (n, c) features) -> (n, c), added to it: a source that is not affine.
    timing : Timing
        Of what moves in time.
    open_walls : bool
        Whether some wall is not no-flux.
    monotone : bool
        Whether every rate is >= 0: the discrete maximum principle then holds.
    ingredients : callable
        What the equation is made of at points, to see how smooth it is: see `Generator.ingredients`.
    coupled : (n c, n c) sparse array or None
        The operator on raveled (n, c) fields where it is not self-adjoint, or mixes columns; it stands for all pairs.
    """

    grid: Grid
    log_weight: np.ndarray
    tensor: np.ndarray | None
    offsets: tuple[tuple[int, ...], ...]
    exchange: np.ndarray
    loss: np.ndarray
    leak: np.ndarray | None
    source: np.ndarray | None
    moving_source: Callable | None
    monotone: bool
    ingredients: Callable
    open_walls: bool = False
    reaction: Callable | None = None
    timing: Timing = Timing()
    coupled: sparse.csr_array | None = None

    @property
    def gains(self) -> bool:
        """Whether features may grow: some cell gains from its wall or a reaction."""
        return self.leak is not None and bool((self.leak < 0).any())

    @property
    def symmetric(self) -> bool:
        """Whether L is self-adjoint in w and all that is added constant: exp(t L) then is all there is to know."""
        return self.coupled is None and self.moving_source is None and self.reaction is None

    @property
    def keeps_extrema(self) -> bool:
        """Whether the discrete maximum principle holds: no new extrema appear."""
        return self.monotone and self.symmetric and self.leak is None and self.source is None

    @cached_property
    def growth(self) -> float:
        """The largest eigenvalue of L where some cell gains, at least 0: features grow no faster."""
        return max(self.largest, 0.0)

    @cached_property
    def largest(self) -> float:
        """The largest eigenvalue of L where some cell gains; elsewhere it is at most 0, which is said."""
        if self.leak is None or not self.gains:
            return 0.0
        matrix = self.operator(symmetric=True)
        above = -self.leak if self.monotone else np.abs(matrix).sum(axis=1) - np.abs(matrix.diagonal()) + matrix.diagonal()
        return largest_eigenvalue(matrix, self.bound, 1.001 * float(above.max()) if len(self.grid.shape) < 3 else None)

    def plus(self, source: Source) -> Cells:
        """With what a source adds."""
        x = self.grid.points
        if not source.affine or self.coupled is not None:
            reaction = partial(_reaction, source, x)
            return replace(self, reaction=reaction, timing=self.timing.beside(source.timing))
        constant, rate = source.parts(x)
        less = self.less(-rate) if rate.any() else self
        moving = self.moving_source and partial(_sum, self.moving_source, constant)
        given = np.zeros_like(constant) if self.source is None else self.source
        made_of = partial(_with_source, self.ingredients, source)
        return replace(less, source=given + constant, moving_source=moving, ingredients=made_of)

    def less(self, rate: float | np.ndarray) -> Cells:
        """That of L - rate, a number or one per cell."""
        leak = np.zeros(self.grid.size) if self.leak is None else self.leak
        return replace(self, loss=self.loss + rate, leak=leak + rate)

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
            reach += rate + at_offset(rate, np.negative(offset))
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
    generator: Generator, shape: tuple[int, ...], walls: Walls, columns: int, ranges: tuple[tuple[float, float], ...] | None
) -> Cells:
    """The operator on shape[k] cells along axis k of the ranges.

    Raises
    ------
    ValueError
        If p vanishes at a cell centre, p^drift changes by more than e^100 between neighbours, or the metric is
        not positive definite somewhere.
    """
    grid = cell_grid(generator.space, shape, ranges)
    log_w, tensor = generator.coefficients(grid.points)
    if steepness(log_w, grid) > STEEPEST:
        raise ValueError(
            f"grid must resolve the density: p^drift changes by more than e^{STEEPEST:g} between neighbouring cells "
            f"of {list(shape)}; use more cells or a smoother density"
        )
    offsets, exchange = exchange_rates(grid, tensor, walls)
    log_field = log_w.reshape(grid.shape)
    loss = np.zeros(grid.shape)
    for offset, rate in zip(offsets, exchange):
        change = at_offset(log_field, offset) - log_field
        rise = np.exp(change / 2, where=rate != 0, out=np.ones(shape))
        loss += rate * rise + at_offset(rate / rise, np.negative(offset))
    loss, leak, added = loss.ravel(), np.zeros(grid.size), []
    for cells, rate, wall, side in wall_rates(generator, grid, tensor, walls):
        rate = rate * np.exp((generator.log_weight(wall) - log_w[cells]) / 2)
        added.append((cells, partial(_held, rate[:, None], side, wall, columns)))
        leak[cells] += rate
    positive = bool((leak >= 0).all())
    for crossing in crossings(generator, grid, tensor, log_w, walls):
        added.append((crossing.cells, partial(crossing.gain, columns)))
        leak[crossing.cells] += crossing.loss()

    def source(t: float = 0.0) -> np.ndarray:
        total = np.zeros((grid.size, columns))
        for cells, gain in added:
            total[cells] += gain(t)
        return total

    return Cells(
        grid,
        log_w,
        tensor,
        offsets,
        exchange,
        loss + leak,
        leak if leak.any() else None,
        source() if added else None,
        source if any(side.moves for side in sides(walls)) else None,
        monotone=bool((exchange >= 0).all()) and positive,
        ingredients=generator.ingredients,
        open_walls=bool(sides(walls)),
    )


def _reaction(source: Source, points: np.ndarray, t: float, features: np.ndarray) -> np.ndarray:
    return source.at(points, t, features)


def _sum(moving: Callable, constant: np.ndarray, t: float) -> np.ndarray:
    return moving(t) + constant


def _with_source(ingredients: Callable, source: Source, x: np.ndarray, known=None) -> tuple[np.ndarray, np.ndarray]:
    logarithms, others = ingredients(x, known)
    return logarithms, np.concatenate([others, source.fields(x)], axis=1)


def _held(rate: np.ndarray, side: Side, wall: np.ndarray, columns: int, t: float) -> np.ndarray:
    return rate * side.at(wall, columns, t)
