"""The flat spaces tokens live on: Torus, Circle, Euclidean and Box.

Every space answers the same questions: its dimension, its metric tensor, its volume element, the
distance of two points, whether points lie in it, and a grid to integrate on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .. import capacity, checks, display
from ..grid import Axis, Grid, is_angle

_WIDEST = 1e150  # of an axis: distances are squared


class Space:
    """What all spaces share. Points are (..., columns) arrays.

    Attributes
    ----------
    dim : int
        Intrinsic dimension n.
    columns : int
        Numbers per point: n, except n + 1 on a sphere.
    bounds : tuple of (low, high)
        The range of each coordinate, infinite where there is no end.
    periodic : tuple of bool
        Per coordinate, whether it wraps.
    """

    if TYPE_CHECKING:  # to be read only: some spaces keep them, others compute them

        @property
        def dim(self) -> int: ...

        @property
        def columns(self) -> int: ...

        @property
        def bounds(self) -> tuple[tuple[float, float], ...]: ...

        @property
        def periodic(self) -> tuple[bool, ...]: ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The coordinates in LaTeX: x_1, x_2, ..., and theta where one wraps after 2 pi, as an angle does."""
        names = ["\\theta" if is_angle(*pair, wraps) else "x" for pair, wraps in zip(self.bounds, self.periodic)]
        return tuple(names) if len(names) == 1 else tuple(f"{name}_{k + 1}" for k, name in enumerate(names))

    @property
    def angular(self) -> bool:
        """Whether all coordinates are angles."""
        return all(symbol.startswith("\\theta") for symbol in self.symbols)

    @property
    def latex(self) -> str:
        """Its name in formulas."""
        return _product(
            f"S^1_{{{display.latex_number(high - low)}}}"
            if wraps
            else f"[{display.latex_number(low)}, {display.latex_number(high)}]"
            for (low, high), wraps in zip(self.bounds, self.periodic)
        )

    @property
    def flat(self) -> bool:
        """Whether the metric is the identity in the coordinates."""
        return True

    @property
    def has_boundary(self) -> bool:
        """Whether some coordinate ends at a wall."""
        return any(not wraps and any(map(math.isfinite, pair)) for pair, wraps in zip(self.bounds, self.periodic))

    @property
    def volume(self) -> float:
        """Integral of dvol; infinite on an unbounded flat space."""
        return float(np.prod([high - low for low, high in self.bounds]))

    def metric(self, x: np.ndarray) -> np.ndarray:
        """Metric tensor g at points (..., n): (..., n, n)."""
        return np.broadcast_to(np.eye(self.dim), (*checks.coordinates(x, "x", self.columns).shape, self.dim))

    def volume_element(self, x: np.ndarray) -> np.ndarray:
        """sqrt(det g) at points (..., n): (...)."""
        return np.ones(checks.coordinates(x, "x", self.columns).shape[:-1])

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance of points (..., n), broadcast against each other; all pairs with x[:, None], y."""
        x, y = checks.pair(x, y, self.columns)
        return np.linalg.norm(x - y, axis=-1)

    def check(self, x, name: str = "x") -> np.ndarray:
        """Points (N, columns), or a ValueError naming the argument and the first point outside."""
        x = checks.points(x, name, self.columns)
        for k, ((low, high), wraps) in enumerate(zip(self.bounds, self.periodic)):
            slack = 4 * np.finfo(x.dtype).eps * np.abs([low, high])  # a wall rounded to float32 is still the wall
            outside = (x[:, k] < low - slack[0]) | (x[:, k] > high + slack[1])
            if outside.any() and not wraps:
                where = int(np.argmax(outside))
                place = f"{checks.entries(x[where])} at index {where}"
                raise ValueError(f"{name} must lie in {checks.brief(self)}, got {place}")
        return x

    def grid(self, shape: int | Sequence[int], extent: Sequence[tuple[float, float]] | None = None) -> Grid:
        """Quadrature grid: equispaced where periodic, Gauss-Legendre from a wall, midpoints on a whole line.

        `extent` bounds the coordinates that have no end; without it they are refused.
        """
        extent = self.bounds if extent is None else check_bounds(extent, "extent")
        if len(extent) != self.dim or not np.isfinite(extent).all():
            raise ValueError(f"extent must say where the {self.dim} coordinates of {self} end, got {checks.short(extent)}")
        axes, sizes = [], axis_sizes(shape, self.dim)
        for size, bound, wraps, cut in zip(sizes, self.bounds, self.periodic, extent, strict=True):
            kind = "fourier" if wraps else "gauss" if np.isfinite(bound).any() else "cells"
            low, high = bound if np.isfinite(bound).all() else cut
            axes.append(Axis(kind, size, float(low), float(high)))
        return Grid(tuple(axes))

    def probe_points(self, count: int = 16) -> np.ndarray:
        """(count, columns) fixed, evenly scattered points: a fingerprint is taken there."""
        capacity.fits(32 * count * self.dim, "dim")
        return self.from_unit_cube(scattered(count, self.dim))

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest points of the space; on flat spaces the points themselves."""
        return x

    def from_unit_cube(self, u: np.ndarray, extent: Sequence[tuple[float, float]] | None = None) -> np.ndarray:
        """Points of the unit cube (N, n) stretched over the coordinates; without `extent` a line is cut to length 6."""
        low, high = np.array(self.bounds if extent is None else extent, dtype=float).T
        if np.isfinite(low).all() and np.isfinite(high).all():
            return low + (high - low) * u
        low, high = (
            np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 6, -3)),
            np.where(np.isfinite(high), high, np.where(np.isfinite(low), low + 6, 3)),
        )
        return low + (high - low) * u


@dataclass(frozen=True, eq=False)
class Torus(Space):
    """Flat torus with the given side lengths, n = 1, 2 or 3; coordinates wrap.

    Distances are to the nearest image. `space.period` is the (n,) array of lengths.

    Parameters
    ----------
    lengths : sequence of float
        Positive side lengths, in units of length.

    Raises
    ------
    ValueError
        If a length is not positive and finite, or there are not one to three of them.

    Examples
    --------
    >>> Torus([1.0, 2.0]).distance([0.1, 0.0], [0.9, 1.9]).round(6)
    np.float64(0.223607)
    """

    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        given = self.lengths if checks.listed(self.lengths) else (self.lengths,)
        if not 1 <= len(given) <= 3:
            raise ValueError(f"lengths must hold one to three side lengths, got {len(given)}")
        lengths = tuple(_extent(checks.positive(v, "lengths"), "lengths") for v in given)
        object.__setattr__(self, "lengths", lengths)

    def __repr__(self) -> str:
        return display.shown("Torus", list(self.lengths))

    @property
    def latex(self) -> str:
        return _product("S^1" if is_angle(0.0, v, True) else f"S^1_{{{display.latex_number(v)}}}" for v in self.lengths)

    def __eq__(self, other) -> bool:
        return isinstance(other, Torus) and self.lengths == other.lengths  # a Circle is a Torus of one length

    def __hash__(self) -> int:
        return hash(self.lengths)

    @property
    def dim(self) -> int:
        """Intrinsic dimension n."""
        return len(self.lengths)

    columns = dim

    @property
    def period(self) -> np.ndarray:
        """The side lengths, (n,)."""
        return np.array(self.lengths)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each coordinate, infinite where there is no end."""
        return tuple((0.0, length) for length in self.lengths)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each coordinate wraps."""
        return (True,) * self.dim

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance to the nearest image of points (..., n), broadcast against each other."""
        x, y = checks.pair(x, y, self.columns)
        difference = x - y
        return np.linalg.norm(difference - self.period * np.round(difference / self.period), axis=-1)


class Circle(Torus):
    """Circle of the given circumference: Torus([length]).

    Parameters
    ----------
    length : float
        Positive circumference; 2 pi unless said otherwise.

    Examples
    --------
    >>> Circle().dim
    1
    """

    def __init__(self, length: float = 2 * np.pi) -> None:
        super().__init__((_extent(checks.positive(length, "length"), "length"),))

    def __repr__(self) -> str:
        return "Circle()" if is_angle(0.0, self.lengths[0], True) else display.shown("Circle", *self.lengths)

    def _description_(self) -> dict[str, float]:
        return {"length": self.lengths[0]}


@dataclass(frozen=True)
class Euclidean(Space):
    """Flat space of any dimension.

    Parameters
    ----------
    dim : int
        Dimension n >= 1.

    Raises
    ------
    TypeError, ValueError
        If dim is not a positive integer.

    Examples
    --------
    >>> Euclidean(2).distance([0.0, 0.0], [3.0, 4.0])
    np.float64(5.0)
    """

    dim: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", checks.integer(self.dim, "dim", least=1))

    def __repr__(self) -> str:
        return display.shown("Euclidean", self.dim)

    @property
    def latex(self) -> str:
        return "\\mathbb{R}" + (f"^{{{self.dim}}}" if self.dim > 1 else "")

    @property
    def columns(self) -> int:
        """Numbers per point."""
        return self.dim

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each coordinate, infinite where there is no end."""
        return ((-np.inf, np.inf),) * self.dim

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each coordinate wraps."""
        return (False,) * self.dim


@dataclass(frozen=True)
class Box(Space):
    """Flat box with walls; the limit equation has no-flux walls there.

    Parameters
    ----------
    bounds : sequence of (low, high)
        One finite pair with low < high per axis.

    Raises
    ------
    ValueError
        If a pair is reversed or not finite.

    Examples
    --------
    >>> Box([(0, 1), (0, 2)]).dim
    2
    """

    bounds: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", check_bounds(self.bounds))
        if not np.isfinite(self.bounds).all():
            raise ValueError(f"bounds must be finite, got {checks.short(self.bounds)}")

    def __repr__(self) -> str:
        return display.shown("Box", list(self.bounds))

    @property
    def dim(self) -> int:
        """Intrinsic dimension n."""
        return len(self.bounds)

    columns = dim

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each coordinate wraps."""
        return (False,) * self.dim


def _product(factors: Iterable[str]) -> str:
    """Sets in LaTeX, equal ones as a power."""
    factors = list(factors)
    if len(set(factors)) == 1 and len(factors) > 1:
        power = f"({factors[0]})" if factors[0].startswith("S") else factors[0]
        return f"{power}^{len(factors)}"
    return " \\times ".join(factors)


def axis_sizes(shape: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """Nodes per axis, from one number or one per axis."""
    sizes = tuple(shape) if checks.listed(shape) else (shape,) * dim
    if len(sizes) != dim:
        raise ValueError(f"grid must have one size, or one for each of {dim} axes, got {checks.short(shape)}")
    return tuple(checks.integer(size, "grid", least=1) for size in sizes)


def check_bounds(bounds, name: str = "bounds") -> tuple[tuple[float, float], ...]:
    """(low, high) pairs with low < high, one per axis; infinite where there is no end."""
    pairs = bounds if checks.listed(bounds) else ()
    if not len(pairs) or not all(checks.listed(pair) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{name} must be (low, high) pairs, one per axis, got {checks.short(bounds)}")
    pairs = tuple(tuple(checks.real(end, name, finite=False) for end in pair) for pair in pairs)
    for low, high in pairs:
        if not low < high or low == np.inf or high == -np.inf:
            raise ValueError(f"{name} must be (low, high) pairs with low < high, got {(low, high)}")
        for end in (low, high):
            if np.isfinite(end) and abs(end) > _WIDEST:
                raise ValueError(f"{name} must be at most {_WIDEST:g} in size, got {end:g}: squares of distances overflow")
        _extent(high - low, name)
    return pairs


def _extent(length: float, name: str) -> float:
    """A length whose square, and the square of its inverse, are numbers."""
    if not 1 / _WIDEST <= length <= _WIDEST and np.isfinite(length):
        raise ValueError(f"{name} must span between {1 / _WIDEST:g} and {_WIDEST:g}, got {length:g}")
    return length


@lru_cache(maxsize=16)
def scattered(count: int, dim: int) -> np.ndarray:
    """The first points of the additive recurrence of the generalised golden ratio (Roberts), (count, dim) read-only."""
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (dim + 1))
    points = (0.5 + np.outer(np.arange(1, count + 1), ratio ** -np.arange(1.0, dim + 1))) % 1.0
    points.flags.writeable = False
    return points
