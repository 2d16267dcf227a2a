"""What screened layers converge to: the region that infinitely many tokens keep, or the whole density, thinned at random.

With f = d^2 the column sums of softmax weights are 1 - (eps / 2) Delta p / p + O(eps^2). Infinitely many tokens keep the
region where Delta p / p is smallest, of the mass `fraction`, and many layers are softmax's equation there with no-flux walls.
N tokens give the sums a noise of variance

    (N p)^-1 sum_j c_j (2 pi j eps)^(-n/2),   c = (1, -2, 1) for j = 2, 3, 4,

white noise of the tokens times e (1 - e), e the Fourier transform of the weights (derived for this package). Where that is
larger than what the density does to the sums, the keys that are kept are p's, thinned at random: the equation is softmax's.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np

from .. import checks
from ..attention import Attention
from ..attention.sparse import Screening
from ..geometry import Box, Density, Euclidean, Torus
from ..pde import DriftDiffusion

_NODES = 2**13
_STEP = 1e-3  # of differences, of the extent


def screened_limit(layer: Attention, density: Density, n_tokens: float | None) -> DriftDiffusion:
    """The equation of a Screening layer: on the region of infinitely many tokens (n_tokens None), or as N decide."""
    rule = cast(Screening, layer.normalization)
    whole = DriftDiffusion(density, rule.drift)
    if rule.fraction == 1:
        return whole
    if density.space.dim != 1 or not isinstance(density.space, (Torus, Euclidean, Box)):
        raise NotImplementedError(
            "density must live on a circle, a line or a segment for the limit of Screening, whose walls lie where Delta p / p has "
            f"one value, got {density.space}"
        )
    x, u, mass = _curvature(density)
    if n_tokens is not None and np.isfinite(checks.positive(n_tokens, "n_tokens")):
        centred = u - mass @ u
        signal = layer.epsilon**2 / 4 * (mass @ centred**2)
        noise = _noise(layer.epsilon, 1) / n_tokens * (mass @ (1 / density.pdf(x)))
        if noise > signal:
            return whole
        checks.warn(
            f"normalization keeps a region of {n_tokens:g} tokens whose edge is blurred: noise is {np.sqrt(noise / signal):.2g} of "
            "what the density does to the column sums",
            checks.AccuracyWarning,
        )
    low, high = _interval(density, x, u, mass, rule.fraction)
    return DriftDiffusion(Density(Box(((low, high),)), partial(_log_pdf, density)), rule.drift)


def _log_pdf(density: Density, x: np.ndarray) -> np.ndarray:
    return density.log_pdf(x)


def _noise(s: float, n: int) -> float:
    """The variance of the sums times N p."""
    return float(sum(c * (2 * np.pi * j * s) ** (-n / 2) for c, j in ((1, 2), (-2, 3), (1, 4))))


def _curvature(density: Density) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (m, 1), Delta p / p there, and their share of the mass."""
    grid = density.grid(_NODES)
    axis, x = grid.axes[0], grid.points
    h = _STEP * (axis.high - axis.low)
    inside = x if axis.kind == "fourier" else np.clip(x, axis.low + 2 * h, axis.high - 2 * h)
    far, near = (density.log_pdf(inside + s * h) + density.log_pdf(inside - s * h) for s in (2, 1))
    before, after = (density.log_pdf(inside - s * h) - density.log_pdf(inside + s * h) for s in (2, 1))
    slope = (before - 8 * after) / (12 * h)
    second = (16 * near - far - 30 * density.log_pdf(inside)) / (12 * h**2)
    mass = density.pdf(x) * grid.weights
    return x, second + slope**2, mass / mass.sum()


def _interval(density: Density, x: np.ndarray, u: np.ndarray, mass: np.ndarray, fraction: float) -> tuple[float, float]:
    """Ends of the region where u is smallest, of so much mass; around a circle they may lie beyond its period."""
    if np.ptp(u) < 1e-6 * (1 + np.abs(u).max()):
        raise ValueError("density must vary for Screening to have a limit: all column sums are alike, and ties decide")
    order = np.argsort(u, kind="stable")
    level = np.interp(fraction, np.cumsum(mass[order]) - mass[order] / 2, u[order])
    kept, wraps = u <= level, density.space.periodic[0]
    starts = np.flatnonzero(kept & ~np.roll(kept, 1)) if wraps else np.flatnonzero(np.diff(kept, prepend=False) & kept)
    if len(starts) != 1:
        raise NotImplementedError(
            f"fraction must leave one interval for the limit of Screening, got {len(starts)}, from about "
            f"{checks.entries(x[starts, 0])}: one equation each, with no-flux walls"
        )
    first, count = int(starts[0]), int(kept.sum())
    bounds = density.space.bounds[0]

    def place(k: int) -> float:  # of a node, counted on around a circle
        around, k = divmod(k, len(u))
        return float(x[k, 0]) + (around * (bounds[1] - bounds[0]) if wraps else 0.0)

    def end(inner: int, outer: int, wall: float) -> float:  # where u passes the level between two nodes
        if not wraps and not 0 <= outer < len(u):
            return wall if np.isfinite(wall) else place(inner)
        a, b = u[inner % len(u)], u[outer % len(u)]
        return place(inner) + (place(outer) - place(inner)) * float((level - a) / (b - a) if b > a else 0.0)

    return end(first, first - 1, bounds[0]), end(first + count - 1, first + count, bounds[1])
