"""Exact independent samples of a density: inverse transform on a line, rejection otherwise."""

from __future__ import annotations

import numpy as np


def sample(density, n: int, rng: np.random.Generator) -> np.ndarray:
    """n independent points of `density`, (n, columns)."""
    return _invert(density, n, rng)


def _invert(density, n: int, rng: np.random.Generator) -> np.ndarray:
    """Solve F(x) = u for uniform u: the cumulative Gauss-Legendre sums bracket x, bisection refines it."""
    (low, high), cells = density.extent[0], 512
    node, weight = np.polynomial.legendre.leggauss(12)
    edge = np.linspace(low, high, cells + 1)

    def mass(a, b):
        x = a[:, None] + (b - a)[:, None] * (node + 1) / 2
        q = density.pdf(x[..., None]) * density.space.volume_element(x[..., None])
        return (b - a) / 2 * (q @ weight)

    cumulative = np.concatenate([[0.0], np.cumsum(mass(edge[:-1], edge[1:]))])
    u = rng.random(n) * cumulative[-1]
    cell = np.clip(np.searchsorted(cumulative, u, side="right") - 1, 0, cells - 1)
    start, left, right = edge[cell], edge[cell], edge[cell + 1]
    for _ in range(48):
        middle = (left + right) / 2
        above = cumulative[cell] + mass(start, middle) > u
        left, right = np.where(above, left, middle), np.where(above, middle, right)
    return ((left + right) / 2)[:, None]
