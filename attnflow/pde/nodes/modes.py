"""Along one axis of spectral nodes: derivatives, symmetric in the quadrature weights, and modes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from ...grid import Axis
from ..propagator import EPS, doubt


@dataclass(frozen=True)
class Modes:
    """Eigenvalues (m,) of a symmetric matrix along one axis, how far they may be off, and the way there and back.

    Those of S are their sums over the axes: none of these is positive.
    """

    values: np.ndarray
    doubts: np.ndarray
    vectors: np.ndarray | None = None

    @classmethod
    def of(cls, matrix: np.ndarray, free: np.ndarray, root: np.ndarray | None) -> Modes:
        """Of a matrix (n, n), on the `free` (n,) of its nodes; `root` (n,) is its kernel, None if it has none."""
        values, moving = np.linalg.eigh(matrix[np.ix_(free, free)])
        doubts = np.full(len(values), doubt(values))
        if root is not None:
            kernel = np.argmax(np.abs(root @ moving))
            values[kernel] = doubts[kernel] = 0.0
        return cls(values, doubts, _among(moving, free))

    @classmethod
    def of_square(cls, factor: np.ndarray, free: np.ndarray) -> Modes:
        """Of -B' B for a factor B (n, n) that sends the constant to zero, on the `free` (n,) of its nodes: from the singular
        values of B, which know the small ones better than eigenvalues do."""
        singular, moving = np.linalg.svd(factor[:, free])[1:]
        if free.all():
            singular[-1] = 0.0
        return cls(-(singular**2), 2 * EPS * singular * singular[0], _among(moving.T, free))

    def into(self, fields: np.ndarray, axis: int) -> np.ndarray:
        """Amplitudes of fields along an axis."""
        return _hartley(fields, axis) if self.vectors is None else _turned(self.vectors.T, fields, axis)

    def back(self, amplitudes: np.ndarray, axis: int) -> np.ndarray:
        return _hartley(amplitudes, axis) if self.vectors is None else _turned(self.vectors, amplitudes, axis)


def _among(moving: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Vectors on the free nodes, as such on all: zero on the others."""
    vectors = np.zeros((len(free), moving.shape[1]))
    vectors[free] = moving
    return vectors


def _turned(matrix: np.ndarray, fields: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, fields, (1, axis)), 0, axis)


def _hartley(fields: np.ndarray, axis: int) -> np.ndarray:
    """Amplitudes of cos + sin of each wave number: orthogonal and its own inverse."""
    waves = fft.fft(fields, axis=axis, norm="ortho")
    return waves.real - waves.imag


@lru_cache(maxsize=64)
def free_modes(axis: Axis, free: tuple[bool, ...]) -> Modes:
    """Of -B' B on the free nodes, without a potential."""
    if axis.kind == "fourier":
        waves = 2 * np.pi / (axis.high - axis.low) * fft.fftfreq(axis.size, 1 / axis.size)
        return Modes(-(waves**2), np.zeros(axis.size))
    return Modes.of_square(scaled_derivative(axis), np.array(free))


@lru_cache(maxsize=64)
def derivative_norm(axis: Axis) -> float:
    return float(np.linalg.norm(scaled_derivative(axis), 2))


@lru_cache(maxsize=64)
def derivative_size(axis: Axis) -> float:
    """Root of the typical eigenvalue of B' B, the root mean square of all of them."""
    return float((np.linalg.norm(scaled_laplacian(axis)) / np.sqrt(axis.size)) ** 0.5)


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
