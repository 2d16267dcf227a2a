"""Infinitely many tokens on a torus where the similarity has a cusp: its Fourier coefficients in place of its samples.

A sum over nodes of exp(-d^q / e), e = 2 eps and q no even number, is off by O(h^(1 + q)) at the cusp, however smooth
the density. The layer on a uniform grid of a torus is a circulant, its eigenvalues known better than its entries:

    K(m) = integral of exp(-|z|^q / e) cos(k_m . z) dz over one period, z being the nearest image,

for q = 1 proportional to (1 + e^2 k^2)^(-(n+1)/2) but for what the images add. With them all that is missed is what the
density times the features have beyond the grid's modes.
"""

from __future__ import annotations

import itertools
from functools import reduce
from typing import Any, cast

import numpy as np

from ..grid import Grid
from .bound import BoundLayer
from .layer import Attention
from .linear_sums import LinearSums, bind_linear

ENGINE = "circulant"
_NODES, _PHASE = 32, 30.0  # of Gauss and Legendre on an interval, and the radians of a cosine it may hold
_ENTRIES = 2**22  # of a matrix of cosines at a time
_REACH = 42.0  # exp(-42) is nothing beside 1
_FAINTEST = 1e-10  # of row sums beside the largest: a Fourier transform rounds off relative to that


def has_cusp(layer: Attention) -> bool:
    """Whether the similarity is exp(-d^q / (2 eps)) on a torus with q no even number, in a softmax of all keys."""
    pair = layer.f.pair
    return (
        not layer.normalization.selects
        and pair.reduction == "wrapped"
        and pair.transform == "power"
        and pair.parameter % 2 != 0
    )


def bind_circulant(layer: Attention, nodes: Grid, log_mass: np.ndarray) -> BoundLayer | None:
    """The layer on nodes of a torus, as `layer.bind`; None where row sums differ too much for Fourier transforms."""
    own = Circulant(layer.f.pair.parameter, layer.epsilon, nodes)
    sums = own(None, log_mass).log_sum_exp
    if not sums.min() > sums.max() + np.log(_FAINTEST):
        return None
    return bind_linear(layer, nodes.points, log_mass, own)


class Circulant(LinearSums):
    """Over all nodes of a uniform grid on a torus, by Fourier transforms."""

    engine = ENGINE

    def __init__(self, q: float, epsilon: float, nodes: Grid) -> None:
        self._shape = nodes.shape
        lengths = np.array([axis.high - axis.low for axis in nodes.axes])
        K = coefficients(q, 2 * epsilon, lengths, tuple(n // 2 for n in nodes.shape))
        modes = [np.abs(np.fft.fftfreq(n, 1 / n)).astype(int) for n in nodes.shape]
        modes[-1] = np.arange(nodes.shape[-1] // 2 + 1)
        self._spectrum = K[np.ix_(*modes)] * nodes.size / np.prod(lengths)

    def _sum(self, fields: np.ndarray) -> np.ndarray:
        axes = tuple(range(len(self._shape)))
        modes = np.fft.rfftn(fields.reshape(*self._shape, -1), axes=axes)
        summed = np.fft.irfftn(modes * self._spectrum[..., None], self._shape, axes)
        return summed.reshape(fields.shape)


def coefficients(q: float, e: float, lengths: np.ndarray, largest: tuple[int, ...]) -> np.ndarray:
    """K(m) for 0 <= m_a <= largest[a] on a torus of these side lengths.

    The box of distances that count is halved towards the cusp; in what each halving leaves, away from the cusp, the
    integrand is smooth, and the cosines are products.

    Examples
    --------
    >>> e, m = 0.3, np.arange(4)        # on a circle: 2 e (1 - (-1)^m exp(-pi / e)) / (1 + e^2 m^2)
    >>> exact = 2 * e * (1 - (-1.0) ** m * np.exp(-np.pi / e)) / (1 + e**2 * m**2)
    >>> np.abs(coefficients(1.0, e, np.array([2 * np.pi]), (3,)) - exact).max() < 1e-15
    np.True_
    """
    n = len(lengths)
    sides = np.minimum(lengths / 2, (_REACH * e) ** (1 / q))
    waves = [2 * np.pi / length * np.arange(most + 1) for length, most in zip(lengths, largest)]
    # of a long side, or a steep function: no box is much longer than far from the cusp, or than the function takes to fall
    pieces = np.ceil(max(1, q / 8) * sides / sides.min()).astype(int)
    halvings = int(np.ceil(53 / (n + q)))
    total: Any = 0.0
    for level in range(halvings + 1):
        edges = [side * 0.5**level * np.linspace(0, 1, 2 * count + 1) for side, count in zip(sides, pieces)]
        halves = [[_gauss(x[: len(x) // 2 + 1], k[-1]), _gauss(x[len(x) // 2 :], k[-1])] for x, k in zip(edges, waves)]
        for box in itertools.product((0, 1), repeat=n):
            if any(box) or level == halvings:
                nodes = [pair[half] for pair, half in zip(halves, box)]
                square = reduce(np.add.outer, [x**2 for x, _ in nodes])
                field = np.exp(-(square ** (q / 2)) / e)
                for (x, weight), k in zip(nodes, waves):
                    field = _cosines(field, x, weight, k)
                total = total + field
    return 2**n * total


def _cosines(field: np.ndarray, x: np.ndarray, weight: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Sums over the first axis, of weights and cos(k x), which becomes the last."""
    rows = max(1, _ENTRIES // len(k))
    blocks = (slice(i, i + rows) for i in range(0, len(x), rows))
    parts = (np.tensordot(field[i], weight[i, None] * np.cos(np.outer(x[i], k)), (0, 0)) for i in blocks)
    return cast(np.ndarray, sum(parts))


def _gauss(edges: np.ndarray, wave: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights between the edges, for functions times cos(wave x)."""
    counts = 1 + np.ceil(1e-9 + wave * np.diff(edges) / _PHASE).astype(int)
    edges = np.unique(np.concatenate([np.linspace(*ends) for ends in zip(edges, edges[1:], counts)]))
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
