"""The equation on S^2 in spherical harmonics: their values, gradients and products, and the symmetric form of L.

With H = sum_j h_j Y_j over the real orthonormal harmonics of degree <= L and w the conserved weight, Galerkin's
method in the inner product of L2(w) reads M dh/dt = -K h,

    M_ij = integral w Y_i Y_j = (C C')_ij,     K_ij = integral w grad Y_i . T . grad Y_j,

so u = C' h obeys du/dt = S u with S = -C^-1 K C^-T symmetric and non-positive. Y_0 is constant: the first row of S
is zero and the first entry of u measures the integral of w H. Both constants and that integral stay, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from ... import checks
from ...grid import Axis, Grid
from ..generator import Generator


@dataclass(frozen=True)
class Harmonics:
    """Real orthonormal harmonics Y_j = P_j(colatitude) t_j(longitude) on a tensor grid, degree by degree.

    Attributes
    ----------
    degree : int
        L; there are (L + 1)^2 of them.
    colatitudes : (n,) array
        Without the poles.
    longitudes : (k,) array
    """

    degree: int
    colatitudes: np.ndarray
    longitudes: np.ndarray

    @classmethod
    def on(cls, grid: Grid, degree: int) -> Harmonics:
        return cls(degree, *(axis.nodes for axis in grid.axes))

    @property
    def points(self) -> np.ndarray:
        """Unit vectors (n k, 3)."""
        theta, phi = (a.ravel() for a in np.meshgrid(self.colatitudes, self.longitudes, indexing="ij"))
        return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)

    @cached_property
    def orders(self) -> np.ndarray:
        """(modes,) the place of t_j among sin L x, ..., sin x, 1, cos x, ..., cos L x."""
        return self.degree + np.concatenate([np.arange(-n, n + 1) for n in range(self.degree + 1)])

    @cached_property
    def heights(self) -> np.ndarray:
        """P_j, (n, modes)."""
        return _legendre(self.degree, self.colatitudes)[:, self.degrees, np.abs(self.orders - self.degree)]

    @property
    def degrees(self) -> np.ndarray:
        """(modes,) of Y_j."""
        return np.repeat(np.arange(self.degree + 1), 2 * np.arange(self.degree + 1) + 1)

    @cached_property
    def polar(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P_j, its derivative and |m| P_j / sin(colatitude): (n, modes) each."""
        m, n = np.abs(self.orders - self.degree), self.degrees
        table = _legendre(self.degree, self.colatitudes)
        left = np.sqrt((n + m) * (n - m + 1.0)) * table[:, n, np.abs(m - 1)] * np.where(m, 1, -1)
        slope = (left - np.sqrt((n - m) * (n + m + 1.0)) * table[:, n, m + 1]) / 2
        return table[:, n, m], slope, m * table[:, n, m] / np.sin(self.colatitudes)[:, None]

    @cached_property
    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """t and its derivative over |m|: (k, 2 L + 1) each."""
        m = np.arange(-self.degree, self.degree + 1)
        angle = self.longitudes[:, None] * np.abs(m)
        t = np.where(m < 0, np.sin(angle), np.cos(angle)) / np.sqrt(np.where(m, np.pi, 2 * np.pi))
        return t, -np.sign(m) * t[:, ::-1]

    def values(self, coefficients: np.ndarray) -> np.ndarray:
        """Fields (..., n, k) of coefficients (..., modes)."""
        rows = np.zeros((*coefficients.shape[:-1], len(self.colatitudes), 2 * self.degree + 1))
        for order, modes in enumerate(self._modes):
            rows[..., order] = coefficients[..., modes] @ self.heights[:, modes].T
        return rows @ self.around[0].T

    def sums(self, fields: np.ndarray) -> np.ndarray:
        """Sums over the nodes of fields (..., n, k) times Y_j: (..., modes)."""
        rows, result = fields @ self.around[0], np.empty((*fields.shape[:-2], len(self.orders)))
        for order, modes in enumerate(self._modes):
            result[..., modes] = rows[..., order] @ self.heights[:, modes]
        return result

    def products(self, weight: np.ndarray, left: tuple[int, int], right: tuple[int, int]) -> np.ndarray:
        """Sums over the nodes of weight (n, k) times two functions, given as (polar, around): (modes, modes)."""
        first, second = self.polar[left[0]], self.polar[right[0]]
        rings = (weight[:, None] * self.around[left[1]].T) @ self.around[right[1]]  # over the longitudes first
        result = np.empty((len(self.orders),) * 2)
        for order, modes in enumerate(self._modes):
            result[modes] = first[:, modes].T @ (second * rings[:, order][:, self.orders])
        return result

    @cached_property
    def _modes(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.orders == order) for order in range(2 * self.degree + 1)]


@dataclass(frozen=True)
class HarmonicForm:
    """S in the basis Y; what `propagate` and `eigenpairs` ask of it is what they ask of `SymmetricForm`.

    Attributes
    ----------
    basis : Harmonics
        On the nodes of the quadrature.
    weight : (n, k) array
        w times the weights of the nodes, up to a factor.
    factor : (modes, modes) array
        C, lower triangular.
    matrix : (modes, modes) array
        S.
    """

    basis: Harmonics
    weight: np.ndarray
    factor: np.ndarray
    matrix: np.ndarray
    moves: Any = None
    modes: Any = None
    conserves, gains = True, False
    xp = np  # no field: harmonics are not for a graphics card

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def root(self) -> np.ndarray:
        """The constant's u, of norm 1."""
        return np.eye(1, self.size)[0]

    @property
    def apply_seconds(self) -> float:
        """Roughly what `apply` takes for one field."""
        return 5e-6 + 7e-10 * self.size**2

    @cached_property
    def bound(self) -> float:
        """|S|, from above."""
        return float(np.abs(self.matrix).sum(axis=1).max())

    @property
    def typical(self) -> float:
        """Root mean square of the eigenvalues."""
        return float(np.linalg.norm(self.matrix) / np.sqrt(self.size))

    def doubled(self, scale: float) -> Callable:
        """v -> 2 (v + scale S v) for v (c, modes), a new array."""
        matrix = 2 * np.eye(self.size) + (2 * scale) * self.matrix
        return lambda v: v @ matrix

    def plane(self, scale: float) -> None:
        """Coefficients lie on no plane."""
        return None

    def dense(self) -> np.ndarray:
        return self.matrix

    def coefficients(self, u: np.ndarray) -> np.ndarray:
        """h of u, (..., modes)."""
        flat = solve_triangular(self.factor, u.reshape(-1, self.size).T, trans="T", lower=True)
        return flat.T.reshape(u.shape)

    def start(self, fields: np.ndarray) -> np.ndarray:
        """u (c, modes) of fields (c, n, k) on the nodes."""
        return solve_triangular(self.factor, self.basis.sums(self.weight * fields).T, lower=True).T

    def norms(self, h: np.ndarray) -> np.ndarray:
        """Of coefficients (..., modes), in L2(w)."""
        return np.linalg.norm(h @ self.factor, axis=-1)


@dataclass(frozen=True)
class RoundForm:
    """S of the Laplacian of the round sphere, whose modes the harmonics are: u = h.

    Attributes
    ----------
    basis, weight
        As of `HarmonicForm`, w = 1.
    """

    basis: Harmonics
    weight: np.ndarray
    xp = np  # no field: harmonics are not for a graphics card

    @property
    def size(self) -> int:
        return len(self.basis.orders)

    moves = None
    conserves, gains = True, False

    @property
    def root(self) -> np.ndarray:
        return np.eye(1, self.size)[0]

    @property
    def bound(self) -> float:
        """No eigenvalue is below -bound."""
        return self.basis.degree * (self.basis.degree + 1.0)

    def dense(self) -> np.ndarray:
        return np.diag(self.modes[0].values)

    @cached_property
    def modes(self) -> list[Degrees]:
        return [Degrees(-self.basis.degrees * (self.basis.degrees + 1.0))]

    def coefficients(self, u: np.ndarray) -> np.ndarray:
        return u

    def start(self, fields: np.ndarray) -> np.ndarray:
        return self.basis.sums(self.weight * fields)

    def norms(self, h: np.ndarray) -> np.ndarray:
        return np.linalg.norm(h, axis=-1)


@dataclass(frozen=True)
class Degrees:
    """Eigenvalues (modes,), exact, and the way from coefficients to amplitudes and back: they are the same."""

    values: np.ndarray
    vectors: None = None

    @property
    def doubts(self) -> np.ndarray:
        return np.zeros(len(self.values))

    def into(self, fields: np.ndarray, axis: int) -> np.ndarray:
        return fields

    back = into


def harmonic_form(generator: Generator, degree: int, width: int) -> HarmonicForm | RoundForm | None:
    """S up to the degree, with quadrature exact for w T of degree `width`.

    None if w spans so much that M is singular to rounding errors.
    """
    axis = Axis("gauss", degree + 2 + width // 2, -1.0, 1.0)
    around = 2 * np.pi * np.arange(2 * degree + 3 + width) / (2 * degree + 3 + width)
    z = axis.nodes
    basis = Harmonics(degree, np.arctan2(np.sqrt((1 - z) * (1 + z)), z), around)
    if generator.is_laplacian:
        return RoundForm(basis, np.outer(axis.weights, np.full(len(around), 2 * np.pi / len(around))))
    x = basis.points
    shape = (axis.size, len(around))
    log_w = generator.log_weight(x).reshape(shape)
    weight = np.exp(log_w - log_w.max()) * axis.weights[:, None] * (2 * np.pi / len(around))
    tensor = weight * tangent_tensor(generator, x).transpose(1, 2, 0).reshape(2, 2, *shape)
    try:
        factor = np.linalg.cholesky(basis.products(weight, (0, 0), (0, 0)))
    except np.linalg.LinAlgError:
        return None
    down, along = (1, 0), (2, 1)
    mixed = basis.products(tensor[0, 1], down, along)
    stiffness = basis.products(tensor[0, 0], down, down) + basis.products(tensor[1, 1], along, along) + mixed + mixed.T
    half = solve_triangular(factor, stiffness, lower=True)
    matrix = -solve_triangular(factor, half.T, lower=True)
    return HarmonicForm(basis, weight, factor, (matrix + matrix.T) / 2)


def tangent_frame(x: np.ndarray) -> np.ndarray:
    """Unit vectors along colatitude and longitude at x (N, 3) off the poles: (N, 3, 2), as columns."""
    radius = np.hypot(x[:, 0], x[:, 1])
    cos, sin = x[:, 0] / radius, x[:, 1] / radius
    return np.stack([np.stack([x[:, 2] * cos, x[:, 2] * sin, -radius], 1), np.stack([-sin, cos, 0 * cos], 1)], axis=2)


def tangent_tensor(generator: Generator, x: np.ndarray) -> np.ndarray:
    """m g^-1 in the frame at points (N, 3): (N, 2, 2)."""
    frame = tangent_frame(x)
    tensor = np.linalg.inv(checks.spd(frame.swapaxes(1, 2) @ generator.space.metric(x) @ frame, "metric", x))
    return tensor if generator.mobility is None else generator.mobility_at(x)[:, None, None] * tensor


def _legendre(degree: int, colatitudes: np.ndarray) -> np.ndarray:
    """P_nm with integral P_nm^2 sin = 1, without the sign (-1)^m, zero for m > n: (k, degree + 1, degree + 2)."""
    x, s = np.cos(colatitudes)[:, None], np.sin(colatitudes)
    table = np.zeros((len(colatitudes), degree + 1, degree + 2))
    table[:, 0, 0] = np.sqrt(0.5)
    for n in range(1, degree + 1):
        m = np.arange(n)
        fall = np.sqrt(((n - 1) ** 2 - m**2) / abs(4 * (n - 1) ** 2 - 1))
        table[:, n, :n] = x * table[:, n - 1, :n] - fall * table[:, n - 2, :n]
        table[:, n, :n] *= np.sqrt((4 * n**2 - 1) / (n**2 - m**2))
        table[:, n, n] = np.sqrt(1 + 0.5 / n) * s * table[:, n - 1, n - 1]
    return table
