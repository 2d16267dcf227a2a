"""Quadrature nodes on the three-sphere, which integrate and interpolate spectrally: the torus that covers it.

With x = (cos(u) e^(i v), sin(u) e^(i w)) in C^2, 0 <= u <= pi/2, the round measure is sin(u) cos(u) du dv dw. Over all of
[0, 2 pi] in u the map from the torus is as smooth as in v and w, each point met four times:

    x(pi - u, v, w) = x(u, v + pi, w),     x(-u, v, w) = x(u, v, w + pi),

so fields interpolate trigonometrically, and integrate by Fejer's rule in 2 u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import checks
from ..attention import Attention, MultiHead
from ..attention.heads import heads_of
from ..attention.infinite import TooManyNodes
from ..geometry import Density, Space, Sphere
from ..grid import Axis, Grid

_PROBES = 64  # points at which p and p H are judged
_MISSING, _UNSEEN = 1e-8, 1e-6  # of the mass of p; of p H between the nodes


@dataclass(frozen=True)
class HopfGrid:
    """`size` nodes (`shape[0]` of u, an even number of v and of w each); what is asked of a `Grid`, on S^3.

    Examples
    --------
    >>> grid = HopfGrid((6, 16, 16))
    >>> bool(abs(grid.weights.sum() - 2 * np.pi**2) < 1e-12)
    True
    >>> x = np.array([[0.5, -0.1, 0.7, 0.5]])
    >>> bool(abs(grid.interpolate(grid.points[:, :1].reshape(6, 16, 16, 1) ** 3, x) - 0.125).max() < 1e-14)
    True
    """

    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @cached_property
    def _axes(self) -> tuple[Axis, Axis, Axis]:
        """Of 2 u, v and w."""
        doubled, v, w = self.shape
        return Axis("colatitude", doubled, 0.0, np.pi), Axis("fourier", v, 0.0, 2 * np.pi), Axis("fourier", w, 0.0, 2 * np.pi)

    @property
    def colatitude(self) -> tuple[np.ndarray, np.ndarray]:
        """The nodes u, and their weights of sin(u) cos(u) du."""
        return self._axes[0].nodes / 2, self._axes[0].weights / 4

    @cached_property
    def points(self) -> np.ndarray:
        """(size, 4) unit vectors."""
        u, v, w = np.meshgrid(self._axes[0].nodes / 2, self._axes[1].nodes, self._axes[2].nodes, indexing="ij")
        x = np.stack([np.cos(u) * np.cos(v), np.cos(u) * np.sin(v), np.sin(u) * np.cos(w), np.sin(u) * np.sin(w)], axis=-1)
        return x.reshape(-1, 4)

    @cached_property
    def weights(self) -> np.ndarray:
        """(size,) of the round measure."""
        u, v, w = (axis.weights for axis in self._axes)
        return np.einsum("i,j,k->ijk", u / 4, v, w).ravel()

    def interpolate(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values (*shape, c) carried over to unit vectors (M, 4): (M, c)."""
        _, v, w = self._axes
        mirrored = values[::-1]
        by_v, by_w, by_both = (
            np.roll(mirrored, v.size // 2, axis=1),
            np.roll(mirrored, w.size // 2, axis=2),
            np.roll(values, (v.size // 2, w.size // 2), axis=(1, 2)),
        )
        low = np.pi / 4 / self.shape[0]
        torus = Grid((Axis("fourier", 4 * self.shape[0], low, low + 2 * np.pi), v, w))
        a, b, c, d = points.T
        angles = np.stack([np.arctan2(np.hypot(c, d), np.hypot(a, b)), np.arctan2(b, a), np.arctan2(d, c)], axis=1)
        return torus.interpolate(np.concatenate([values, by_v, by_both, by_w]), angles)


def is_three_sphere(space: Space) -> bool:
    """Whether nodes are here, and not on a grid of the space."""
    return isinstance(space, Sphere) and space.dim == 3


def bind_three_sphere(
    layer: Attention | MultiHead, density: Density, values: Callable | None, resolution: float, largest: int
) -> tuple[Any, HopfGrid]:
    """The infinite-token layer on S^3 and its nodes, as `bind_density`: `resolution` nodes per kernel width, and as many as p
    and p H need."""
    grid, log_mass = three_sphere_nodes(layer, density, values, resolution, largest)
    return layer.bind(grid.points, log_mass), grid


def three_sphere_nodes(
    layer: Attention | MultiHead, density: Density, values: Callable | None, resolution: float, largest: int, finer: int = 1
) -> tuple[HopfGrid, np.ndarray]:
    """Those nodes, `finer` times as many along each axis, and the logarithms of their masses p dvol."""
    for head in heads_of(layer):
        if head.normalization.selects:
            raise NotImplementedError(f"normalization must be a key bias on S^3, got {head.normalization}")
    count = max(4, *(int(np.ceil(np.pi / 2 * resolution / _width(head, density))) for head in heads_of(layer)))
    probe = density.space.probe_points(_PROBES)

    def carried(x: np.ndarray) -> np.ndarray:
        p = density.pdf(x)[:, None]
        return p if values is None else p * np.column_stack([np.ones(len(x)), checks.evaluate(values, x, "values")])

    there = carried(probe)
    while True:
        grid = HopfGrid((count, 4 * count, 4 * count))
        if grid.size > largest:
            raise TooManyNodes(
                f"epsilon must be larger, or p and values smoother, to choose nodes on S^3: {grid.size} would be needed at "
                f"{heads_of(layer)[0].epsilon:g}, more than {largest}"
            )
        nodal = carried(grid.points)
        off = np.abs(grid.interpolate(nodal.reshape(*grid.shape, -1), probe) - there).max(axis=0) / np.abs(nodal).max(axis=0)
        mass = nodal[:, 0] * grid.weights
        if abs(mass.sum() - 1) < _MISSING and (off < _UNSEEN).all():
            grid = HopfGrid((finer * count, 4 * finer * count, 4 * finer * count))
            return grid, density.log_pdf(grid.points) + np.log(grid.weights)
        count = int(np.ceil(1.4 * count))


def _width(head: Attention, density: Density) -> float:
    """sqrt(m2), in round units."""
    largest = np.linalg.eigvalsh(head.f.metric(density.space.probe_points())).max()
    return float(np.sqrt(head.f.second_moment(head.epsilon, 3) / largest))
