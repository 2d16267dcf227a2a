"""Curved spaces with a name, as charts, and the pseudo-metrics whose layers see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import checks, display
from ..geometry import Chart, Remetrised, Space, Sphere
from ..similarity import PseudoMetric, SquaredMap


def torus_of_revolution(R: float, r: float) -> Chart:
    """A ring in space; x0 is the angle around its axis, x1 the one around its tube.

    Parameters
    ----------
    R : float
        From the axis to the middle of the tube, above r.
    r : float
        Radius of the tube.

    Raises
    ------
    ValueError
        If they are not positive, or r is not below R.

    Examples
    --------
    >>> round(torus_of_revolution(2.0, 1.0).volume / np.pi**2, 9)   # 4 R r
    8.0
    """
    ring = _Ring(checks.positive(R, "R"), checks.positive(r, "r"))
    if not ring.r < ring.R:
        raise ValueError(f"R must be above r, got R = {R} and r = {r}")
    return Chart.pullback(ring, [(0, 2 * np.pi)] * 2, ring.jacobian, periodic=True)


def ellipsoid(axes: Sequence[float]) -> Remetrised:
    """An ellipsoid in space; its points are named by the unit vectors that the half axes stretch, so it has no poles.

    Parameters
    ----------
    axes : list of three float
        The half axes.

    Raises
    ------
    ValueError
        If they are not three positive numbers.

    Examples
    --------
    >>> round(ellipsoid([1.0, 1.0, 2.0]).volume, 4)
    21.4784
    """
    stretch = _Stretch(tuple(checks.positive(axis, "axes") for axis in checks.sequence(axes, "axes", "half axes")))
    if len(stretch.axes) != 3:
        raise ValueError(f"axes must be three half axes, got {len(stretch.axes)}")
    space = Remetrised(Sphere(2), stretch.metric)
    space.embedding = stretch
    return space


def hyperbolic_disc() -> Chart:
    """The hyperbolic plane, curved by -1: (x, sqrt(1 + |x|^2)) on the hyperboloid, x / (1 + sqrt(1 + |x|^2)) in Poincaré's disc.

    Examples
    --------
    >>> hyperbolic_disc().volume_element(np.array([[0.0, 0.0], [1.0, 0.0]])).round(6)   # 1 / sqrt(1 + |x|^2)
    array([1.      , 0.707107])
    """
    import sympy

    x = sympy.Matrix(sympy.symbols("x0:2"))
    return Chart(sympy.eye(2) - x * x.T / (1 + x.dot(x)), [(-np.inf, np.inf)] * 2)


def squared_map(space: Space) -> SquaredMap:
    """The squared chord between places of the [space], which must be one in space: "torus-of-revolution" or "ellipsoid".

    Raises
    ------
    ValueError
        If the space is no surface in space.
    """
    phi = getattr(space, "embedding", None)
    if phi is None:
        raise ValueError(f"space must be a surface in space, 'torus-of-revolution' or 'ellipsoid', got {space}")
    return SquaredMap(phi, phi.jacobian)


def hyperbolic() -> PseudoMetric:
    """2 (cosh d - 1), d being the distance of two points of the "hyperbolic-disc": their squared chord on the hyperboloid.

    Examples
    --------
    >>> bool(np.isclose(hyperbolic()([[0.0, 0.0]], [[np.sinh(1.0), 0.0]]), 2 * np.cosh(1.0) - 2))   # d = 1
    True
    """
    import sympy

    x, y = (sympy.Matrix(sympy.symbols(f"{name}0:2")) for name in "xy")
    heights = [sympy.sqrt(1 + point.dot(point)) for point in (x, y)]
    return PseudoMetric((x - y).dot(x - y) - (heights[0] - heights[1]) ** 2, 2)


@dataclass(frozen=True, repr=False)
class _Ring:
    """Angles (..., 2) -> places (..., 3) on a torus of revolution."""

    R: float
    r: float
    __name__ = "torus_of_revolution"  # as formulas call it

    def __repr__(self) -> str:
        return display.shown("torus of revolution", R=self.R, r=self.r)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        radius = self.R + self.r * np.cos(x[..., 1])
        return np.stack([radius * np.cos(x[..., 0]), radius * np.sin(x[..., 0]), self.r * np.sin(x[..., 1])], axis=-1)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(..., 3, 2)."""
        (c, d), (s, t) = np.moveaxis(np.cos(x), -1, 0), np.moveaxis(np.sin(x), -1, 0)
        radius, still = self.R + self.r * d, np.zeros_like(c)
        around = np.stack([-radius * s, radius * c, still], axis=-1)
        return np.stack([around, self.r * np.stack([-t * c, -t * s, d], axis=-1)], axis=-1)


@dataclass(frozen=True, repr=False)
class _Stretch:
    """Unit vectors (..., 3) -> places (..., 3) on an ellipsoid."""

    axes: tuple[float, ...]
    __name__ = "ellipsoid"  # as formulas call it

    def __repr__(self) -> str:
        return display.shown("ellipsoid", axes=list(self.axes))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x * np.array(self.axes)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(..., 3, 3)."""
        return np.broadcast_to(np.diag(self.axes), (*x.shape, 3))

    def metric(self, x: np.ndarray) -> np.ndarray:
        """(..., 3, 3), of the surrounding space."""
        return np.broadcast_to(np.diag(np.square(self.axes)), (*x.shape, 3))
