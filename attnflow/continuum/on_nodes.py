"""Fields known on quadrature nodes, as functions of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from .. import display
from ..geometry import Density
from ..grid import Grid
from .hopf import HopfGrid

NO_TOKEN = 1e-12  # of the largest density or mass: where no token is
_HELD = 1e-7  # of the top of the weight r = p^(drift / 2) on a line: below, fields of r H over r are round-off


def least_held(density: Density, power: float) -> float:
    """Of the top of p, where r = p^power falls to 1e-7 of its own; 0 on spaces that end or wrap."""
    return (
        0.0 if density.space.columns != density.space.dim or np.isfinite(density.space.bounds).all() else _HELD ** (1 / power)
    )


@dataclass(frozen=True, eq=False)
class OnNodes:
    """A field that grows where tokens are few: what is interpolated is p^power times it, which is as smooth as p.

    Attributes
    ----------
    grid : Grid
        The nodes.
    values : (*grid.shape, c) array
        The field.
    density : Density
        p.
    power : float
    least : float
        Of the top of p: points where it is lower get the field at the nearest node where it is not.

    Examples
    --------
    >>> import attnflow as af
    >>> density = af.VonMises(8.0)
    >>> grid = density.grid(64)
    >>> field = OnNodes(grid, 1 / density.pdf(grid.points)[:, None], density, power=1.0)
    >>> x = np.array([[0.02]])
    >>> bool(abs(field(x) * density.pdf(x) - 1) < 1e-12)
    True
    """

    grid: Grid | HopfGrid
    values: np.ndarray
    density: Density
    power: float = 0.0
    least: float = NO_TOKEN

    __repr__ = display.of_fields

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(M, c) at points (M, n)."""
        points = self.density.space.check(points, "points")
        nodes = self.density.log_pdf(self.grid.points)
        top = nodes.max()
        few = np.exp(self.density.log_pdf(points) - top) < self.least
        if few.any():
            points = points.copy()
            points[few] = self._nearest(points[few], self.grid.points[np.exp(nodes - top) >= self.least])
        weight = np.exp(self.power * (nodes - top)).reshape(*self.grid.shape, 1)
        here = np.exp(self.power * (self.density.log_pdf(points) - top))[:, None]
        return self.grid.interpolate(weight * self.values, points) / here

    def _nearest(self, points: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """In coordinates, or by the chord on a sphere."""
        space = self.density.space
        if space.columns != space.dim:
            return nodes[KDTree(nodes).query(points)[1]]
        low, high = np.where(np.array(space.periodic)[:, None], space.bounds, 0.0).T
        period = high - low  # 0 where nothing wraps
        wrapped, wrapped_nodes = (
            x - low - period * np.floor((x - low) / np.where(period > 0, period, 1)) for x in (points, nodes)
        )
        return nodes[KDTree(wrapped_nodes, boxsize=period).query(wrapped)[1]]
