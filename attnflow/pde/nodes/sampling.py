"""Nodes on which it is judged how smooth fields are, and the points between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ...grid import Axis, Grid
from ...resolution import between

_KEPT = 2**12  # nodes up to which samples' points are kept for the next solve


def sample_on(grid: Grid) -> Sample:
    return (_kept_sample if grid.size <= _KEPT else Sample)(grid)


@dataclass(frozen=True)
class Sample:
    """Equispaced nodes where an axis wraps and Chebyshev's between walls: equispaced in an angle in which fields are even.

    In these angles all axes wrap. As many nodes, or for walls one more, as the given grid has along its axes.
    """

    grid: Grid

    @cached_property
    def wraps(self) -> tuple[bool, ...]:
        return tuple(axis.kind == "fourier" for axis in self.grid.axes)

    @cached_property
    def angles(self) -> Grid:
        """All of them, even where fields are the same again."""
        if all(self.wraps):
            return self.grid
        axes = zip(self.grid.axes, self.wraps)
        return Grid(tuple(axis if wraps else Axis("fourier", 2 * axis.size, 0.0, 2 * np.pi) for axis, wraps in axes))

    @cached_property
    def nodes(self) -> int:
        """Those where fields are not the same again."""
        return math.prod(axis.size + (not wraps) for axis, wraps in zip(self.grid.axes, self.wraps))

    @cached_property
    def points(self) -> np.ndarray:
        """The nodes, and after them points between the angles, (N, columns)."""
        if all(self.wraps):
            points = np.concatenate([self.grid.points, between(self.grid)])
        else:
            axes = zip(self.angles.axes, self.grid.axes, self.wraps)
            along = (angle.nodes if wraps else angle.nodes[: axis.size + 1] for angle, axis, wraps in axes)
            nodes = np.stack([x.ravel() for x in np.meshgrid(*along, indexing="ij")], axis=-1)
            points = self.places(np.concatenate([nodes, between(self.angles)]))
        points.flags.writeable = False
        return points

    def places(self, angles: np.ndarray) -> np.ndarray:
        """Points (N, n) at angles."""
        axes = zip(angles.T, self.grid.axes, self.wraps)
        places = (x if wraps else axis.low + (axis.high - axis.low) * (1 - np.cos(x)) / 2 for x, axis, wraps in axes)
        return np.stack(list(places), axis=1)

    def turned(self, places: np.ndarray) -> np.ndarray:
        """Angles of points (N, n)."""
        axes = zip(places.T, self.grid.axes, self.wraps)
        angles = (x if wraps else np.arccos(1 - 2 * (x - axis.low) / (axis.high - axis.low)) for x, axis, wraps in axes)
        return np.stack(list(angles), axis=1)

    def unfolded(self, values: np.ndarray) -> np.ndarray:
        """Fields at the nodes (N, c) on all angles, (*grid, c)."""
        values = values.reshape(*(axis.size + (not wraps) for axis, wraps in zip(self.grid.axes, self.wraps)), -1)
        for k in np.flatnonzero(np.logical_not(self.wraps)):
            values = np.concatenate([values, values.take(range(self.grid.axes[k].size - 1, 0, -1), axis=k)], axis=k)
        return values


_kept_sample = lru_cache(maxsize=16)(Sample)
