"""Along one axis of spectral nodes: derivatives, symmetric in the quadrature weights, and modes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from ...grid import Axis


@dataclass(frozen=True)
class Modes:
    """Eigenvalues (m,) of a symmetric matrix along one axis, and the way there and back.

    Those of S are their sums over the axes: none of these is positive.
    """

    values: np.ndarray
    vectors: np.ndarray | None = None

    @classmethod
    def of(cls, matrix: np.ndarray, free: np.ndarray | None = None) -> Modes:
        """Of a matrix (n, n), on the `free` (n,) of its nodes."""
        values, moving = np.linalg.eigh(matrix if free is None else matrix[np.ix_(free, free)])
        vectors = np.zeros((len(matrix), len(values)))
        vectors[slice(None) if free is None else free] = moving
        return cls(values, vectors)

    def into(self, fields: np.ndarray, axis: int) -> np.ndarray:
        """Amplitudes of fields along an axis."""
        return _hartley(fields, axis) if self.vectors is None else _turned(self.vectors.T, fields, axis)

    def back(self, amplitudes: np.ndarray, axis: int) -> np.ndarray:
        return _hartley(amplitudes, axis) if self.vectors is None else _turned(self.vectors, amplitudes, axis)


def _turned(matrix: np.ndarray, fields: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, fields, (1, axis)), 0, axis)


def _hartley(fields: np.ndarray, axis: int) -> np.ndarray:
    """Amplitudes of cos + sin of each wave number: orthogonal and its own inverse."""
    waves = fft.fft(fields, axis=axis, norm="ortho")
    return waves.real - waves.imag


@lru_cache(maxsize=64)
def free_modes(axis: Axis, free: tuple[bool, ...] | None) -> Modes:
    """Of -B' B on the free nodes, without a potential."""
    if axis.kind == "fourier":
        return Modes(-((2 * np.pi / (axis.high - axis.low) * fft.fftfreq(axis.size, 1 / axis.size)) ** 2))
    return Modes.of(scaled_laplacian(axis), None if free is None else np.array(free))


@lru_cache(maxsize=64)
def derivative_norm(axis: Axis) -> float:
    return float(np.linalg.norm(scaled_derivative(axis), 2))


@lru_cache(maxsize=64)
def scaled_derivative(axis: Axis) -> np.ndarray:
    """B of an axis."""
    root = np.sqrt(axis.weights)
    return root[:, None] * axis.derivative() / root


@lru_cache(maxsize=64)
def scaled_laplacian(axis: Axis) -> np.ndarray:
    """-B' B of an axis."""
    B = scaled_derivative(axis)
    return -B.T @ B
