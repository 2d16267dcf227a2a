"""Real spherical harmonics on tensor grids: their values, gradients, sums and products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..grid import Grid


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

    @cached_property
    def orders(self) -> np.ndarray:
        """(modes,) the place of t_j among sin L x, ..., sin x, 1, cos x, ..., cos L x."""
        return self.degree + np.concatenate([np.arange(-n, n + 1) for n in range(self.degree + 1)])

    @cached_property
    def polar(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P_j, its derivative and |m| P_j / sin(colatitude): (n, modes) each."""
        m = np.abs(self.orders - self.degree)
        n = np.floor(np.sqrt(np.arange(len(m)))).astype(int)
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
            rows[..., order] = coefficients[..., modes] @ self.polar[0][:, modes].T
        return rows @ self.around[0].T

    def sums(self, fields: np.ndarray) -> np.ndarray:
        """Sums over the nodes of fields (..., n, k) times Y_j: (..., modes)."""
        rows, result = fields @ self.around[0], np.empty((*fields.shape[:-2], len(self.orders)))
        for order, modes in enumerate(self._modes):
            result[..., modes] = rows[..., order] @ self.polar[0][:, modes]
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
