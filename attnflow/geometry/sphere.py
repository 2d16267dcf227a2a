"""The unit sphere of any dimension, its points given as unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from .. import checks, display
from ..grid import Axis, Grid
from .spaces import Space, axis_sizes, scattered


@dataclass(frozen=True)
class Sphere(Space):
    """Unit sphere S^n in R^(n+1) with the round metric.

    Points are unit vectors (..., n + 1) and carry the round measure, so the volume element is 1; tensors are
    (n + 1, n + 1) and act on the tangent space: the metric at x is the projector I - x x'.

    Parameters
    ----------
    dim : int
        Intrinsic dimension n >= 1: Sphere(2) is the sphere in R^3.

    Raises
    ------
    TypeError, ValueError
        If dim is not a positive integer.

    Examples
    --------
    >>> import attnflow as af
    >>> sphere = af.Sphere(2)
    >>> sphere.distance([0.0, 0.0, 1.0], [1.0, 0.0, 0.0]).round(6)
    np.float64(1.570796)
    >>> sphere.grid((8, 16)).weights.sum().round(6)   # 4 pi
    np.float64(12.566371)
    """

    dim: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", checks.integer(self.dim, "dim", least=1))

    def __repr__(self) -> str:
        return display.shown("Sphere", self.dim)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(f"x_{k + 1}" for k in range(self.columns))

    @property
    def latex(self) -> str:
        return f"S^{{{self.dim}}}"

    @property
    def columns(self) -> int:
        """Numbers per point."""
        return self.dim + 1

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each coordinate, infinite where there is no end."""
        return ((-1.0, 1.0),) * self.columns

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each coordinate wraps."""
        return (False,) * self.columns

    @property
    def flat(self) -> bool:
        return False

    @property
    def has_boundary(self) -> bool:
        return False

    @property
    def volume(self) -> float:
        """2 pi^((n+1)/2) / Gamma((n+1)/2)."""
        half = self.columns / 2
        return float(np.exp(np.log(2.0) + half * np.log(np.pi) - special.gammaln(half)))

    def metric(self, x: np.ndarray) -> np.ndarray:
        """Projector on the tangent space at unit vectors (..., n + 1): (..., n + 1, n + 1)."""
        x = checks.coordinates(x, "x", self.columns)
        return np.eye(self.columns) - x[..., :, None] * x[..., None, :]

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Length of the great arc between unit vectors (..., n + 1), broadcast against each other."""
        x, y = checks.pair(x, y, self.columns)
        # arccos(x'y) loses half the digits of near and of antipodal points; this loses none
        return 2 * np.arctan2(np.linalg.norm(x - y, axis=-1), np.linalg.norm(x + y, axis=-1))

    def check(self, x, name: str = "x") -> np.ndarray:
        """Unit vectors (N, n + 1), to 1e-6 (1e-4 in float32), or a ValueError naming argument and index."""
        x = checks.points(x, name, self.columns)
        norm = np.linalg.norm(x, axis=1)
        off = np.abs(norm - 1) > (1e-4 if x.dtype == np.float32 else 1e-6)
        if off.any():
            where = int(np.argmax(off))
            raise ValueError(f"{name} must be unit vectors on {self}, got norm {norm[where]:.6g} at index {where}")
        return x

    def grid(self, shape: int | Sequence[int], extent: Sequence[tuple[float, float]] | None = None) -> Grid:
        """Grid on S^1 (longitude) or S^2 (colatitude, longitude; an int n stands for (n, 2n)).

        Raises
        ------
        ValueError
            On a higher sphere, or if the number of longitudes is odd: a grid continues over the poles.
        """
        if self.dim > 2:
            raise ValueError(f"grid must be on S^1 or S^2: there are no quadrature grids on {self}")
        if self.dim == 2 and not checks.listed(shape):
            size = checks.integer(shape, "grid", least=1)
            shape = (size, 2 * size)
        sizes = axis_sizes(shape, self.dim)
        longitude = Axis("fourier", sizes[-1], 0.0, 2 * np.pi)
        if self.dim == 1:
            return Grid((longitude,), sphere=True)
        if sizes[1] % 2:
            raise ValueError(f"grid must have an even number of longitudes, got {sizes[1]}")
        return Grid((Axis("colatitude", sizes[0], 0.0, np.pi), longitude), sphere=True)

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest unit vectors, x / |x|."""
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def from_unit_cube(self, u: np.ndarray, extent: Sequence[tuple[float, float]] | None = None) -> np.ndarray:
        """Unit vectors from points of the unit cube (N, n), keeping volumes in proportion."""
        angle, z = 2 * np.pi * u[:, :1], 2 * u[:, 1:] - 1
        m = np.arange(3, self.columns)  # the last coordinate of S^m has density (1 - z^2)^(m/2 - 1): uniform for m = 2
        z[:, 1:] = 2 * special.betaincinv(m / 2, m / 2, u[:, 2:]) - 1
        radius = np.cumprod(np.sqrt(1 - z[:, ::-1] ** 2), axis=1)[:, ::-1]  # what a coordinate and the later ones leave
        left = np.concatenate([radius, np.ones((len(u), 1))], axis=1)
        return np.concatenate([np.cos(angle) * left[:, :1], np.sin(angle) * left[:, :1], z * left[:, 1:]], axis=1)

    def probe_points(self, count: int = 16) -> np.ndarray:
        """(count, n + 1) fixed, scattered unit vectors, at a cost that allows any dimension."""
        return self.project(special.ndtri(scattered(count, self.columns)))

    def uniform(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n independent uniform points (n, dim + 1)."""
        return self.project(rng.normal(size=(n, self.columns)))
