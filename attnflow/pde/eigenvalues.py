"""What every method says of eigenvalues: their sizes, functions, and how far they are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..grid import Grid
from ..resolution import between, interpolation_error
from .boundaries import Walls, sides
from .generator import Generator
from .peaks import Peaks, scattered_in, unseen, wall_peaks
from .propagator import EPS

TOLERANCE = 1e-10  # of eigenvalues, relative

SMALLEST = 1e-300  # what lies below is not told from zero


class Found(NamedTuple):
    """Minus the eigenvalues (k,), increasing, the constant's exactly 0; functions (k, n), not normalised; relative errors."""

    sizes: np.ndarray
    functions: np.ndarray
    grid: Grid
    discretisation: float
    round_off: float

    @property
    def error(self) -> float:
        return max(self.discretisation, self.round_off)

    @property
    def uncertainty(self) -> float:
        """Of the largest eigenvalue, absolute: what an eigenvalue that may have either sign is compared by."""
        return float(self.error * max(abs(self.sizes[0]), SMALLEST))


def lost_digits(bound: float, sizes: np.ndarray, walls: Walls) -> float:
    """What rounding errors of a matrix of norm `bound` are, relative to the least eigenvalue but the constant's."""
    least = np.abs(sizes[int(not sides(walls)) :]).min(initial=bound)
    return float(EPS * bound / least) if least > 0 else np.inf


def peaks_of(generator: Generator, walls: Walls) -> tuple[Peaks, ...]:
    """Narrow peaks that grids have to see."""
    space, ranges = generator.space, generator.ranges()
    return generator.peaks(ranges) + wall_peaks(walls, space, ranges, scattered_in(space, ranges), 1, np.zeros(1))


def missed_weight(generator: Generator, grid: Grid, peaks: tuple[Peaks, ...]) -> float:
    """How far the weight between the nodes is from what they say of it: of its root, in one dimension of log w; or how far
    peaks are that they do not see."""
    return max(_missed_between(generator, grid), unseen(peaks, grid))


def _missed_between(generator: Generator, grid: Grid) -> float:
    log_w = generator.log_weight(grid.points)
    if len(grid.axes) > 1:
        root = np.exp((log_w - log_w.max()) / 2)
        return float(
            interpolation_error(lambda x: np.exp((generator.log_weight(x) - log_w.max()) / 2), grid, root, "density")[0]
        )
    middle, scale = log_w.mean(), max(1.0, np.ptp(log_w))
    points = between(grid)
    axis = grid.axes[0]
    if axis.kind == "cells":  # next to a wall p may end in a power, which no polynomial follows
        points = points[(points[:, 0] > axis.low + 4 * axis.spacing) & (points[:, 0] < axis.high - 4 * axis.spacing)]

    def relative(log_w: np.ndarray) -> np.ndarray:
        return 1 + (log_w - middle) / scale  # of size 1 where all nodes say the same

    error = interpolation_error(lambda x: relative(generator.log_weight(x)), grid, relative(log_w), "density", points)[0]
    return float(error * scale)


def relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of numbers, relative to the second; where both are 0 there is none."""
    return float(np.max(np.abs(a - b) / np.where(b != 0, np.abs(b), np.where(a != 0, np.abs(a), 1.0)), initial=0.0))
