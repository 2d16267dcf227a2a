"""The forward equation on a line for densities wider than the invariant one bounds: cells exchange masses.

rho / p^drift, which the backward equation is about, then grows beyond any number. The masses m_i = rho_i dvol of cells
obey dm/dt = L' m, L' the transpose of the backward equation's finite volumes: what leaves a cell enters its neighbour,
no mass turns negative, and the L1 norm of a difference never grows. The line is cut where neither the first density
nor any later one has mass. Grids halve the spacing and are extrapolated as everywhere else; errors are those of the L1
norm. L' is normal in no norm that is finite here, so time steps are halved until that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import checks
from ..progress import track
from ..resolution import interpolation_error
from ..solution import Solution
from .generator import Generator
from .grids import cell_grid, steepness, transfer
from .peaks import unseen
from .problem import Problem
from .propagator import compared_growth, grown
from .report import report_interrupted, warn_if_coarse
from .volumes.chain import Chain
from .volumes.march import growth_of
from .volumes.operator import STEEPEST, Cells
from .volumes.rational import DEGREE, LineExponential
from .volumes.solve import romberg_orders

_COARSEST, _FINEST = 128, 2**15  # cells
_ROWS = 4  # grids that enter an extrapolation
_HALVINGS = 6  # of time steps
_STEPPED = 1e-3  # of rtol may be theirs
_BLIND = 1e-2  # error of the first density's interpolant that no change from grid to grid tells of
_PARTS = 8  # of a cell
_FLAT = 1e-11  # a change that falls no further
_SMOOTH = 2.8  # factor at least by which changes fall from grid to grid where the spacing's square leads
_FLOOR = 3e-13  # of any estimate, and of each step: the rational exponential and rounding errors


@dataclass(frozen=True)
class _Level:
    """Densities (T, n, c) on one grid, the volume of its cells (n,), the steps to each output time, and what twice as
    many would change."""

    cells: Cells
    volume: np.ndarray
    initial: np.ndarray
    fields: np.ndarray
    steps: int
    change: float


@dataclass(frozen=True)
class Masses:
    """What is solved: cells by their number, on ranges found beforehand.

    Attributes
    ----------
    generator : Generator
        Of the backward equation.
    problem : Problem
        Its initial values are rho.
    assemble : callable
        Cells per axis -> those of the backward equation on the problem's ranges.
    rtol : float
        Of the L1 norm; 0 on a given grid.
    """

    generator: Generator
    problem: Problem
    assemble: Callable[[tuple[int, ...]], Cells]
    rtol: float

    def solve(self, shape: tuple[int, ...] | None) -> Solution:
        """On ever finer cells until the estimated error is below rtol, or on those given."""
        if shape is not None:
            level, half = self._level(shape, 1), max(4, shape[0] // 2)
            if level.fields.shape[0] < len(self.problem.times):
                return self._stopped(level)
            warn_if_coarse(self.generator, level.cells.grid, level.cells.log_weight)
            other = self._level((2 * shape[0] if self._too_steep(half) else half,), 1)
            if other.fields.shape[0] < len(self.problem.times):
                return self._stopped(level)
            coarse, fine = sorted((level, other), key=lambda found: found.cells.grid.size)
            error = self._change(coarse, fine) / 3 * (1 if fine is level else 4)
            return self._report([level], level.fields, error + level.change)
        levels: list[_Level] = []
        best, least, size = None, np.inf, _COARSEST
        while self._too_steep(size) and 8 * size <= _FINEST:
            size *= 2
        while size <= _FINEST:
            # no more steps than leave room to see what twice as many change
            level = self._level((size,), min(levels[-1].steps, 2 ** (_HALVINGS - 1)) if levels else 1)
            if level.fields.shape[0] < len(self.problem.times):
                return self._stopped(level)
            levels, size = [*levels[1 - _ROWS :], level], 2 * size
            if len(levels) < 3:
                continue
            fields, last, error = self._extrapolated(levels)
            if best is None or error < least:
                best, least = (levels, fields, last), error
            if error <= self.rtol:
                break
        assert best is not None  # there are more than three sizes
        return self._report(*best[:2], least, best[2])

    def _too_steep(self, size: int) -> bool:
        grid = cell_grid(self.generator.space, (size,), self.problem.ranges)
        return steepness(self.generator.log_weight(grid.points), grid) > STEEPEST

    def _level(self, shape: tuple[int, ...], steps: int) -> _Level:
        """Solved with so many steps between outputs that twice as many change nothing, or with the most there may be."""
        cells = self.assemble(shape)
        x = cells.grid.points
        space = self.generator.space
        volume = cells.grid.weights * (1.0 if space.flat else space.volume_element(x))
        initial = checks.evaluate(self.problem.initial, x, "initial").astype(float)
        start = initial * volume[:, None]
        total = np.abs(start).sum(axis=0)
        total = np.where(total > 0, total, 1.0)
        masses, change = self._masses(cells, start, steps), np.inf
        while len(masses) == len(self.problem.times) and steps < 2**_HALVINGS:
            finer = self._masses(cells, start, 2 * steps)
            if len(finer) < len(masses):
                masses = finer
                break
            change = float((np.abs(finer - masses).sum(axis=1) / total).max())
            if change <= max(_STEPPED * self.rtol, _FLOOR * steps):
                break
            masses, steps = finer, 2 * steps
        return _Level(cells, volume, initial, masses / volume[:, None], steps, change)

    def _masses(self, cells: Cells, masses: np.ndarray, steps: int) -> np.ndarray:
        """(T, n, c) at the output times; fewer when interrupted."""
        growth = cells.growth
        grown(growth, self.problem.times)
        less = cells.less(growth) if growth else cells
        exponential = LineExponential(Chain.of(less), None, growth, adjoint=True)
        result, total = [], masses.sum(axis=0)
        try:
            for length in track(np.diff(self.problem.times, prepend=0.0), self.problem.progress, unit="time"):
                for _ in range(steps if length > 0 else 0):
                    masses = exponential.step(masses, length / steps)
                    masses = balanced(masses, total) if cells.leak is None else masses
                result.append(masses)
        except KeyboardInterrupt:
            pass
        return np.array(result).reshape(-1, *masses.shape)

    def _extrapolated(self, levels: list[_Level]) -> tuple[np.ndarray, np.ndarray, float]:
        """Densities on the finest grid, the last correction to them, and their estimated error."""
        grids, rows = [level.cells.grid for level in levels], [level.fields for level in levels]
        finest = levels[-1]
        changes = [self._change(coarse, fine) for coarse, fine in zip(levels[-3:], levels[-2:])]
        fields = last = finest.fields
        totals = [level.volume @ level.initial for level in levels]
        total = totals[-1]
        if not self._is_smooth(levels[-3:], changes):
            last = transfer(rows[-2], grids[-2], grids[-1]) - fields
            error = 2 * changes[-1] + self._unresolved(finest)
        else:
            for j, order in enumerate(romberg_orders(finest.cells)[: len(levels) - 1], start=1):
                restricted = [transfer(row, grids[k + 1], grids[k]) for k, row in enumerate(rows[1:])]
                corrections = [(fine - coarse) / (2.0**order - 1) for fine, coarse in zip(restricted, rows)]
                rows = [fine + correction for fine, correction in zip(restricted, corrections)]
                last = transfer(corrections[-1], grids[-1 - j], grids[-1])
                fields = fields + last
                totals = [fine + (fine - coarse) / (2.0**order - 1) for coarse, fine in zip(totals, totals[1:])]
            total, error = totals[-1], self._size(finest, last)
        if finest.cells.leak is None:  # the first density's mass, which interpolation may have changed
            fields = balanced(fields * finest.volume[:, None], total) / finest.volume[:, None]
        # sixth-order interpolation errs 64 times less on half the spacing
        gap = transfer(transfer(fields, grids[-1], grids[-2]), grids[-2], grids[-1]) - fields
        missed = float(interpolation_error(self.problem.initial, grids[-1], finest.initial, "initial").max())
        error += self._size(finest, gap) / 64 + finest.change
        missed = max(missed, unseen(self.problem.peaks, grids[-1]))
        return fields, last, max(error, missed if missed > _BLIND else 0.0)

    def _is_smooth(self, levels: list[_Level], changes: list[float]) -> bool:
        """Whether errors fall by four from grid to grid, and so do those of interpolating the first density: one ratio of
        changes proves nothing, that of a jump depends on where in its cell it is."""
        pairs = zip(levels, levels[1:])
        gaps = [
            self._size(fine, transfer(coarse.initial[None], coarse.cells.grid, fine.cells.grid) - fine.initial)
            for coarse, fine in pairs
        ]
        falls = changes[0] / 8 < changes[1] < changes[0] / _SMOOTH or changes[1] < _FLAT
        return falls and gaps[1] < max(gaps[0] / 4, 1e-9)

    def _size(self, level: _Level, difference: np.ndarray) -> float:
        """Largest L1 norm over time of fields (T, n, c), each column's relative to that of the first density."""
        total = level.volume @ np.abs(level.initial)
        return float((np.einsum("i,tic->tc", level.volume, np.abs(difference)) / np.where(total > 0, total, 1.0)).max())

    def _unresolved(self, level: _Level) -> float:
        """L1 distance of the first density's masses from those on parts of the cells, relative to the mass."""
        grid = level.cells.grid
        ((low, high),) = ((axis.low, axis.high) for axis in grid.axes)
        parts = cell_grid(self.generator.space, (_PARTS * grid.size,), ((low, high),))
        rho = checks.evaluate(self.problem.initial, parts.points, "initial").reshape(grid.size, _PARTS, -1).mean(axis=1)
        return self._size(level, (rho - level.initial)[None])

    def _change(self, coarse: _Level, fine: _Level) -> float:
        return self._size(coarse, transfer(fine.fields, fine.cells.grid, coarse.cells.grid) - coarse.fields)

    def _report(self, levels: list[_Level], fields: np.ndarray, error: float, last: np.ndarray | None = None) -> Solution:
        finest, grid, given = levels[-1], levels[-1].cells.grid, last is None
        error = max(error, _FLOOR * finest.steps)
        message = f"finished on the given grid; estimated relative error {error:.1g} in the L1 norm" if given else "finished"
        if not given and error > 1:  # of the whole mass: no density at all
            raise ValueError(
                "initial must begin nearer to where p^drift has its mass: it is carried inwards so fast that time steps lose it, "
                f"with an estimated relative error of {error:.2g} in the L1 norm on {grid.size} cells; begin nearer, or give a "
                "later density"
            )
        if not given and error > self.rtol:
            message = (
                f"estimated relative error {error:.1g} in the L1 norm, on the grid [{grid.size}], above rtol = {self.rtol:g}: "
                "initial or the density is not smooth enough, or initial reaches too far beyond p^drift; pass a larger rtol, "
                "smoother data or a narrower initial"
            )
            checks.warn(message, checks.AccuracyWarning)
        local = error * np.abs(fields).max(axis=(0, 1)) + (0 * fields if last is None else np.abs(last)).max(axis=0)
        stats = {
            "method": "finite-volume", "grid": [grid.size], "estimated_error": error, "norm": "L1", "integrator": "rational",
            "poles": DEGREE, "steps": finest.steps, "quantity": "density",
            "mass": np.einsum("i,tic->tc", finest.volume, fields).tolist(),
            **growth_of(finest.cells),
        }  # fmt: skip
        if len(levels) > 1:
            stats = compared_growth(stats, growth_of(levels[-2].cells))
        shapes = [level.cells.grid.shape for level in levels]
        dense = partial(self._fields_at, shapes, finest.steps)
        return Solution(
            self.problem.times, fields, grid=grid, message=message, stats=stats, dense=dense, local_error=local
        )  # fmt: skip

    def _fields_at(self, shapes: list[tuple[int, ...]], steps: int, times: np.ndarray) -> np.ndarray:
        """Dense output: densities at the times, from the same grids."""
        again = replace(self, problem=self.problem.at_times(times, self.generator.outgrows_tokens))
        levels = [again._level(shape, steps) for shape in shapes]
        if any(len(level.fields) < len(times) for level in levels):
            raise KeyboardInterrupt
        return again._extrapolated(levels)[0] if len(levels) > 1 else levels[0].fields

    def _stopped(self, level: _Level) -> Solution:
        """Nothing but the times a single grid had finished, or the first density."""
        count, grid = len(level.fields), level.cells.grid
        times = self.problem.times[:count] if count else np.zeros(1)
        fields = level.fields if count else level.initial[None]
        stats = {"method": "finite-volume", "grid": [grid.size], "estimated_error": float("nan"), "quantity": "density"}
        return report_interrupted(times, fields, grid, stats)


def balanced(masses: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Masses (..., n, c) that sum to the total (c,): what rounding errors took is given back in proportion."""
    share = np.abs(masses)
    whole = share.sum(axis=-2, keepdims=True)
    return masses + share * ((total - masses.sum(axis=-2))[..., None, :] / np.where(whole > 0, whole, 1.0))
