"""Grids: tensor-product nodes that know how to integrate, differentiate and interpolate.

An axis is one of six kinds, each with its own accuracy:

========== ======================================== ============================= ==================
kind       nodes                                    integrates                    interpolates
========== ======================================== ============================= ==================
fourier    n equispaced on a period                 spectrally (trapezoid)        trigonometrically
gauss      Gauss-Legendre on [low, high]            spectrally                    by the polynomial
lobatto    the same with both ends among the nodes  spectrally                    by the polynomial
cells      n cell centres on [low, high]            to second order (midpoint)    by local quintics
periodic   n equispaced on a period                 spectrally (trapezoid)        by local quintics
colatitude n midpoints of [0, pi] with weight sin   spectrally (Fejer)            trigonometrically
========== ======================================== ============================= ==================

A grid is flat (its points are the coordinates) or lies on a sphere (its points are unit vectors;
its axes are the longitude for S^1, colatitude and longitude for S^2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce

import numpy as np
from scipy import fft, sparse, special

from . import capacity, checks, display

KINDS = ("fourier", "gauss", "lobatto", "cells", "periodic", "colatitude")
_WIDTH = 6  # nodes of a local interpolation


@dataclass(frozen=True)
class Axis:
    """`size` nodes of one kind on [low, high]; build grids with it, see the module's table."""

    kind: str
    size: int
    low: float
    high: float

    def __post_init__(self) -> None:
        checks.choice(self.kind, "kind", KINDS)
        object.__setattr__(self, "size", checks.integer(self.size, "size", least=1))
        for name in ("low", "high"):
            object.__setattr__(self, name, checks.real(getattr(self, name), name))
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")

    @cached_property
    def nodes(self) -> np.ndarray:
        """(size,) coordinates of the nodes, increasing."""
        length = self.high - self.low
        if self.kind in ("fourier", "periodic"):
            return self.low + length * np.arange(self.size) / self.size
        if self.kind in ("gauss", "lobatto"):
            return self.low + length * (self._legendre[0] + 1) / 2
        return self.low + length * (np.arange(self.size) + 0.5) / self.size

    @cached_property
    def weights(self) -> np.ndarray:
        """(size,) quadrature weights; they sum to high - low (to 2 on a colatitude)."""
        if self.kind in ("gauss", "lobatto"):
            return (self.high - self.low) / 2 * self._legendre[1]
        if self.kind == "colatitude":
            k = np.arange(1, (self.size + 1) // 2 + (self.size % 2 == 0))
            series = np.cos(2 * np.outer(self.nodes, k)) / (4 * k**2 - 1.0)
            return 2 / self.size * (1 - 2 * series.sum(axis=1))
        return np.full(self.size, (self.high - self.low) / self.size)

    @cached_property
    def _legendre(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes in [-1, 1] and their weights."""
        return special.roots_legendre(self.size) if self.kind == "gauss" else _lobatto(self.size)

    @cached_property
    def _barycentric(self) -> np.ndarray:
        """Weights of the barycentric formula, up to a factor (Wang, Huybrechs & Vandewalle 2014)."""
        node, weight = self._legendre
        signs = np.where(np.arange(self.size) % 2, -1.0, 1.0)
        return signs * np.sqrt(weight if self.kind == "lobatto" else (1 - node**2) * weight)

    @property
    def angle(self) -> bool:
        """Whether the coordinate is an angle: it wraps after 2 pi, or it is a colatitude."""
        return self.kind == "colatitude" or is_angle(self.low, self.high, self.kind in ("fourier", "periodic"))

    @property
    def spacing(self) -> float:
        """The widest gap between neighbouring nodes."""
        if self.kind in ("gauss", "lobatto"):
            return float(np.diff(self.nodes).max()) if self.size > 1 else self.high - self.low
        return (self.high - self.low) / self.size

    def derivative(self) -> np.ndarray:
        """(size, size) spectral differentiation matrix; rows sum to zero, antisymmetric on a fourier axis."""
        capacity.fits(32 * self.size**2, "grid")
        if self.kind == "fourier":
            index = np.arange(self.size)
            offset = index[:, None] - index
            angle = np.pi * offset / self.size
            np.fill_diagonal(angle, np.pi / 2)  # any regular value: the diagonal is set to zero below
            scale = np.pi / (self.high - self.low) * np.where(offset % 2, -1.0, 1.0)
            matrix = scale / (np.sin(angle) if self.size % 2 else np.tan(angle))
            np.fill_diagonal(matrix, 0.0)
            return matrix
        if self.kind != "lobatto":
            raise ValueError(f"axis must be of kind 'fourier' or 'lobatto' to differentiate spectrally, got {self.kind!r}")
        gap = self.nodes[:, None] - self.nodes
        np.fill_diagonal(gap, 1.0)
        matrix = self._barycentric / self._barycentric[:, None] / gap
        np.fill_diagonal(matrix, 0.0)
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        return matrix

    def interpolation(self, x: np.ndarray) -> np.ndarray | sparse.csr_array:
        """(M, size) matrix from nodal values to values at the coordinates x (M,)."""
        if self.kind == "fourier":
            return _trigonometric(x, self.nodes, self.high - self.low)
        if self.kind in ("gauss", "lobatto"):
            gap = x[:, None] - self.nodes
            hit = gap == 0
            ratio = self._barycentric / np.where(hit, 1.0, gap)
            return np.where(hit.any(axis=1, keepdims=True), hit, ratio / ratio.sum(axis=1, keepdims=True))
        return _local(x, self)


def is_angle(low: float, high: float, wraps: bool) -> bool:
    """Whether a coordinate is an angle: it wraps after 2 pi."""
    return bool(wraps) and abs(high - low - 2 * math.pi) < 1e-12


@dataclass(frozen=True)
class Grid:
    """Tensor product of axes, flat or on a sphere.

    Attributes
    ----------
    axes : tuple of Axis
    sphere : bool
    endless : tuple of (bool, bool), or ()
        Per axis, whether its low and high end are only a line cut for computing: beyond, the values at the cut hold.

    Examples
    --------
    >>> grid = Grid((Axis("fourier", 8, 0.0, 2 * np.pi),))
    >>> values = np.cos(grid.points)
    >>> grid.interpolate(values, np.array([[0.3]])) - np.cos(0.3) < 1e-14
    array([[ True]])
    """

    axes: tuple[Axis, ...]
    sphere: bool = False
    endless: tuple[tuple[bool, bool], ...] = ()

    def __post_init__(self) -> None:
        if len(self.endless) not in (0, len(self.axes)):
            raise ValueError(f"endless must have a pair per axis, {len(self.axes)}, or none, got {len(self.endless)}")
        globe = ["colatitude"] if self.sphere and len(self.axes) == 2 else []
        if [axis.kind for axis in self.axes if axis.kind == "colatitude"] != globe or (globe and self.axes[0].kind != globe[0]):
            raise ValueError("axes must begin with a colatitude on S^2, and have none elsewhere")
        columns = len(self.axes) + self.sphere
        capacity.fits(8 * (2 * columns + 1) * self.size, "grid")  # points while they are made, and weights

    def __repr__(self) -> str:
        axes = (f"{a.size} {a.kind} on [{display.number(a.low)}, {display.number(a.high)}]" for a in self.axes)
        return display.cut(f"Grid({' x '.join(axes)}{', sphere' * self.sphere})")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the coordinates: colatitude and longitude on spheres, theta for angles, x for lengths; with numbers in the plane
        and in space."""
        if self.sphere:
            return ("colatitude", "longitude")[-len(self.axes) :]
        letters = ["theta" if axis.angle else "x" for axis in self.axes]
        return tuple(letters) if len(letters) == 1 else tuple(f"{letter}{k + 1}" for k, letter in enumerate(letters))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def points(self) -> np.ndarray:
        """(size, n) points, the last axis fastest; unit vectors (size, n + 1) on a sphere. Read-only: grids are shared."""
        coordinates = np.meshgrid(*(axis.nodes for axis in self.axes), indexing="ij")
        flat = np.stack([c.ravel() for c in coordinates], axis=-1)
        return _frozen(to_sphere(flat) if self.sphere else flat)

    @cached_property
    def weights(self) -> np.ndarray:
        """(size,) quadrature weights for the coordinate measure (the round measure on a sphere)."""
        result = np.ones(1)
        for axis in self.axes:
            result = np.multiply.outer(result, axis.weights).reshape(-1)
        return _frozen(result)

    def check(self, points: np.ndarray, name: str = "points") -> np.ndarray:
        """Points (M, columns) the grid can interpolate at: between its ends, unit vectors on a sphere."""
        points = checks.points(points, name, self.points.shape[1])
        if self.sphere:
            outside = np.abs(np.linalg.norm(points, axis=1) - 1) > 1e-6
        else:
            low, high = np.array([(axis.low, axis.high) for axis in self.axes]).T
            slack = 1e-9 * (high - low)
            wraps = np.array([axis.kind in ("fourier", "periodic") for axis in self.axes])
            cut = np.array(self.endless) if self.endless else np.zeros((len(wraps), 2), dtype=bool)
            low, high = np.where(wraps | cut[:, 0], -np.inf, low), np.where(wraps | cut[:, 1], np.inf, high)
            outside = ((points < low - slack) | (points > high + slack)).any(axis=1)
        if outside.any():
            where = int(np.argmax(outside))
            raise ValueError(f"{name} must lie on the grid's domain, got {points[where].tolist()} at index {where}")
        return points

    def derivative(self, k: int) -> sparse.csr_array:
        """Spectral differentiation along axis k as a (size, size) matrix on the raveled grid."""
        factors = [sparse.eye_array(axis.size) for axis in self.axes]
        factors[k] = sparse.csr_array(self.axes[k].derivative())
        return sparse.csr_array(reduce(sparse.kron, factors))

    def interpolate(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values (*shape, c) carried over to points (M, columns): (M, c), at the axes' order."""
        axes, values = self.unrolled(values)
        x = to_angles(points) if self.sphere else points
        chunk = max(1, 2**22 // max(axes[0].size, int(np.prod(values.shape[1:])), _WIDTH ** len(axes)))
        return np.concatenate([_contract(axes, values, x[i : i + chunk]) for i in range(0, len(x), chunk)])

    def unrolled(self, values: np.ndarray) -> tuple[tuple[Axis, ...], np.ndarray]:
        """Axes that interpolate on their own, and the values (*shape, c) on them: colatitudes go on over the poles."""
        if self.axes[0].kind != "colatitude":
            return self.axes, values
        mirror = np.roll(values[::-1], self.axes[1].size // 2, axis=1)
        return (_Doubled("fourier", 2 * self.axes[0].size, 0.0, 2 * np.pi), self.axes[1]), np.concatenate([values, mirror])


def bandwidth(values: np.ndarray, rtol: float) -> tuple[int, ...] | None:
    """Per axis, the wave number beyond which the modes of (*grid, c) add up to less than rtol of the field.

    None where the last fifth of the modes does not: the field is not smooth on this grid.
    """
    axes = tuple(range(values.ndim - 1))
    size = np.abs(values).max(axis=axes)
    spectrum = np.abs(fft.rfftn(values / np.where(size > 0, size, 1.0), axes=axes, norm="forward"))
    widths = []
    for k, n in enumerate(values.shape[:-1]):
        amplitude = spectrum.max(axis=axes[:k] + axes[k + 1 :] + (-1,))
        if k < len(axes) - 1:  # the last axis has the modes >= 0 only
            folded = amplitude[: n // 2 + 1]
            folded[1:] = np.maximum(folded[1:], amplitude[: -(n // 2) - 1 : -1])
            amplitude = folded
        tail = np.cumsum(amplitude[::-1])
        width = max(n // 2 - int(np.searchsorted(tail, max(rtol, 1e-13), "right")), 0)
        if width > 0.8 * (n // 2):
            return None
        widths.append(width)
    return tuple(widths)


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


class _Doubled(Axis):
    @cached_property
    def nodes(self) -> np.ndarray:
        return 2 * np.pi * (np.arange(self.size) + 0.5) / self.size


def _contract(axes: Sequence[Axis], values: np.ndarray, x: np.ndarray) -> np.ndarray:
    columns = values.shape[-1]
    if all(axis.kind in ("cells", "periodic") for axis in axes):
        return _gathered(axes, values, x)
    first = axes[0].interpolation(x[:, 0]) @ values.reshape(axes[0].size, -1)
    result = np.asarray(first).reshape(len(x), -1)
    for k, axis in enumerate(axes[1:], start=1):
        matrix = axis.interpolation(x[:, k])
        matrix = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        result = np.einsum("mi,mic->mc", matrix, result.reshape(len(x), axis.size, -1))
    return result.reshape(len(x), columns)


def _gathered(axes: Sequence[Axis], values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Local interpolation along all axes: a few nodes around each point."""
    index, weights = np.zeros((len(x), 1), dtype=int), np.ones((len(x), 1))
    for k, axis in enumerate(axes):
        nodes, share = _stencil(x[:, k], axis)
        index = (index[:, :, None] * axis.size + nodes[:, None]).reshape(len(x), -1)
        weights = (weights[:, :, None] * share[:, None]).reshape(len(x), -1)
    return _rows(index, weights, math.prod(axis.size for axis in axes)) @ values.reshape(-1, values.shape[-1])


def _rows(columns: np.ndarray, entries: np.ndarray, size: int) -> sparse.csr_array:
    """A matrix of as many entries in each row, `entries` (M, k) in `columns` (M, k)."""
    starts = np.arange(0, columns.size + 1, columns.shape[1])
    return sparse.csr_array((entries.ravel(), columns.ravel(), starts), shape=(len(columns), size))


def _trigonometric(x: np.ndarray, nodes: np.ndarray, period: float) -> np.ndarray:
    """Dirichlet kernel: sin(n u) / (n sin u), with tan in place of sin when n is even; u = pi (x - node) / period."""
    n = len(nodes)
    u = np.pi * (x[:, None] - nodes) / period
    u -= np.pi * np.round(u / np.pi)  # changes nothing for odd n; for even n both factors flip together
    denominator = n * (np.sin(u) if n % 2 else np.tan(u))
    hit = np.abs(u) < 1e-15
    return np.where(hit, 1.0, np.sin(n * u) / np.where(hit, 1.0, denominator))


def _local(x: np.ndarray, axis: Axis) -> sparse.csr_array:
    """`_stencil` as a matrix."""
    return _rows(*_stencil(x, axis), axis.size)


def _stencil(x: np.ndarray, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """The nearest nodes (M, width) and their Lagrange weights; beyond the outermost they reach one spacing, no further."""
    width = min(_WIDTH, axis.size)
    u = (x - axis.nodes[0]) / axis.spacing
    if axis.kind == "cells":
        u = np.clip(u, -1.0, axis.size)
    first = np.floor(u).astype(int) - (width - 1) // 2
    if axis.kind == "cells":
        first = np.clip(first, 0, axis.size - width)
    columns = first[:, None] + np.arange(width)
    gap = u[:, None] - columns
    one = np.ones((len(x), 1))
    before = np.concatenate([one, np.cumprod(gap[:, :-1], axis=1)], axis=1)
    after = np.concatenate([np.cumprod(gap[:, :0:-1], axis=1)[:, ::-1], one], axis=1)
    weights = before * after / _differences(width)
    return columns % axis.size, weights


@lru_cache
def _differences(width: int) -> np.ndarray:
    """Products of j - k over the other k, (width,)."""
    return np.array([math.prod(float(j - k) for k in range(width) if k != j) for j in range(width)])


@lru_cache(maxsize=64)
def _lobatto(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Legendre-Gauss-Lobatto nodes in [-1, 1], both ends among them, and their weights."""
    if size < 3:
        return (np.array([-1.0, 1.0]), np.ones(2)) if size == 2 else (np.zeros(1), np.full(1, 2.0))
    interior = special.roots_jacobi(size - 2, 1.0, 1.0)[0]
    nodes = np.concatenate([[-1.0], (interior - interior[::-1]) / 2, [1.0]])
    return nodes, 2 / (size * (size - 1) * special.eval_legendre(size - 1, nodes) ** 2)


def to_sphere(angles: np.ndarray) -> np.ndarray:
    """Unit vectors at a longitude (N, 1), or at colatitude and longitude (N, 2)."""
    longitude = angles[:, -1]
    circle = np.stack([np.cos(longitude), np.sin(longitude)], axis=-1)
    if angles.shape[1] == 1:
        return circle
    colatitude = angles[:, :1]
    return np.concatenate([np.sin(colatitude) * circle, np.cos(colatitude)], axis=1)


def to_angles(points: np.ndarray) -> np.ndarray:
    """Longitudes (N, 1), or colatitudes and longitudes (N, 2), of unit vectors."""
    longitude = np.arctan2(points[:, 1], points[:, 0])[:, None]
    if points.shape[1] == 2:
        return longitude
    colatitude = np.arctan2(np.hypot(points[:, 0], points[:, 1]), points[:, 2])[:, None]
    return np.concatenate([colatitude, longitude], axis=1)
