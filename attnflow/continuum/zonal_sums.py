"""Sums over nodes of S^3 of a similarity of the angle alone: its eigenvalues on harmonics in place of its samples.

With f = h(angle) and K = exp(-h / (2 eps)), harmonics of degree k are eigenfunctions (Funk and Hecke),

    lambda_k = 4 pi integral_0^pi K sin(th) sin((k + 1) th) / (k + 1) dth,

and in the angles u, v, w of a `HopfGrid` they are cos^a(u) sin^b(u) P_n^(b, a)(cos 2u) e^(+-i a v +- i b w), k = 2 n + a + b.
So nodes need hold p and p H only, however narrow K is.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.special import eval_jacobi

from ..attention import Attention, BoundLayer
from ..attention.linear_sums import LinearSums, bind_linear
from .hopf import HopfGrid

ENGINE = "zonal"
_ANGLES = 4096  # of the trapezoidal rule for lambda_k
_SAME = 1e-9  # of f, between pairs at one angle


def bind_zonal(layer: Attention, nodes: HopfGrid, log_mass: np.ndarray) -> BoundLayer:
    """The layer on nodes, as `layer.bind`; f is `is_zonal`."""
    return bind_linear(layer, nodes.points, log_mass, ZonalSums(layer, nodes))


def is_zonal(layer: Attention, points: np.ndarray) -> bool:
    """Whether f between unit vectors (M, 4) depends on their angle alone."""
    f = layer.f(points, points)
    angle = np.arccos(np.clip(points @ points.T, -1, 1))
    return bool(np.abs(f - _profile(layer, angle.ravel()).reshape(f.shape)).max() < _SAME * (1 + np.abs(f).max()))


class ZonalSums(LinearSums):
    """Over all nodes of a `HopfGrid`, by Fourier transforms of two angles and matrices of the third."""

    engine = ENGINE

    def __init__(self, layer: Attention, nodes: HopfGrid) -> None:
        self._layer, self._nodes = layer, nodes
        self.log_peak = -float(_profile(layer, np.zeros(1))[0]) / (2 * layer.epsilon)

    def _sum(self, fields: np.ndarray) -> np.ndarray:
        _, v, w = self._nodes.shape
        modes = np.fft.rfft2(fields.reshape(*self._nodes.shape, -1), axes=(1, 2))
        summed = np.fft.irfft2(np.einsum("abij,jabc->iabc", self._radial, modes), (v, w), axes=(1, 2))
        return summed.reshape(fields.shape)

    @cached_property
    def _radial(self) -> np.ndarray:
        """What sums do to e^(i a v + i b w): matrices between the nodes of u, (v modes, w modes, u, u)."""
        size, v, w = self._nodes.shape
        u, weight = self._nodes.colatitude
        eigenvalues = self._eigenvalues(size) * v * w / (2 * np.pi) ** 2
        radial = np.zeros((v, w // 2 + 1, size, size))
        orders = np.abs(np.fft.fftfreq(v, 1 / v)).astype(int)
        for a in range(size):
            for b in range(size - a):
                n = np.arange((size - 1 - a - b) // 2 + 1)[:, None]
                phi = np.cos(u) ** a * np.sin(u) ** b * eval_jacobi(n, b, a, np.cos(2 * u))
                phi /= np.sqrt(phi**2 @ weight)[:, None]
                radial[orders == a, b] = phi.T @ (eigenvalues[a + b :: 2][: len(n), None] * phi)
        return radial

    def _eigenvalues(self, count: int) -> np.ndarray:
        """lambda_k for k < count, over K at the angle 0."""
        angle = np.pi * np.arange(1, _ANGLES) / _ANGLES
        profile = _profile(self._layer, np.append(0.0, angle))
        K = np.exp((profile[0] - profile[1:]) / (2 * self._layer.epsilon))
        k = np.arange(count)[:, None]
        return 4 * np.pi * np.pi / _ANGLES * (np.sin((k + 1) * angle) @ (K * np.sin(angle))) / (k[:, 0] + 1)


def _profile(layer: Attention, angle: np.ndarray) -> np.ndarray:
    """f at angles (M,)."""
    there = np.stack([np.cos(angle), np.sin(angle), 0 * angle, 0 * angle], axis=1)
    return layer.f(there[:1] * 0 + [1.0, 0, 0, 0], there)[0]
