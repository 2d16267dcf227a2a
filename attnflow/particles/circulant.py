"""Infinitely many tokens on a torus where the similarity has a cusp: its Fourier coefficients in place of its samples.

A sum over nodes of exp(-d^q / e), e = 2 eps and q no even number, is off by O(h^(1 + q)) at the cusp, however smooth
the density. The layer on a uniform grid of a torus is a circulant, its eigenvalues known better than its entries:

    K(m) = integral of exp(-|z|^q / e) cos(k_m . z) dz over one period, z being the nearest image,

for q = 1 proportional to (1 + e^2 k^2)^(-(n+1)/2) but for what the images add. With them all that is missed is what the
density times the features have beyond the grid's modes.
"""

from __future__ import annotations

import numpy as np

from ..attention import Attention, BoundLayer
from ..grid import Grid
from ..kernels import Attended

ENGINE = "circulant"
_NODES, _PHASE = 32, 30.0  # of Gauss and Legendre on an interval, and the radians of a cosine it may hold
_REACH = 42.0  # exp(-42) is nothing beside 1
_FAINTEST = 1e-10  # of row sums beside the largest: a Fourier transform rounds off relative to that


def has_cusp(layer: Attention) -> bool:
    """Whether the similarity is exp(-d^q / (2 eps)) on a torus with q no even number."""
    pair = layer.f.pair
    return pair.reduction == "wrapped" and pair.transform == "power" and pair.parameter % 2 != 0


def bind_circulant(layer: Attention, nodes: Grid, log_mass: np.ndarray) -> BoundLayer | None:
    """The layer on nodes of a torus, as `layer.bind`; None where row sums differ too much for Fourier transforms."""
    own = Circulant(layer.f.pair.parameter, layer.epsilon, nodes)
    sums = own(None, log_mass).log_sum_exp
    if not sums.min() > sums.max() + np.log(_FAINTEST):
        return None
    # a similarity of distances is symmetric: columns sum as rows do
    bias, stats = layer.normalization.key_bias(
        lambda bias, transposed=False: own(None, bias + log_mass).log_sum_exp, nodes.size, layer.rtol
    )
    return BoundLayer(layer, nodes.points, bias + log_mass, own, {"engine": ENGINE, "dtype": layer.dtype, **stats})


class Circulant:
    """Sums over all nodes of a uniform grid on a torus, by Fourier transforms; a `Plan` that needs no engine."""

    engine = ENGINE

    def __init__(self, q: float, epsilon: float, nodes: Grid) -> None:
        self._shape = nodes.shape
        lengths = np.array([axis.high - axis.low for axis in nodes.axes])
        K = coefficients(q, 2 * epsilon, lengths, tuple(n // 2 for n in nodes.shape))
        modes = [np.abs(np.fft.fftfreq(n, 1 / n)).astype(int) for n in nodes.shape]
        modes[-1] = np.arange(nodes.shape[-1] // 2 + 1)
        self._spectrum = K[np.ix_(*modes)] * nodes.size / np.prod(lengths)

    @property
    def run(self) -> Circulant:
        return self

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray, _=None) -> Attended:
        top = key_bias.max()
        mass = np.exp(key_bias - top)
        sums = self._sum(mass[:, None])[:, 0]
        mean = None if values is None else self._sum(mass[:, None] * values) / sums[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return Attended(mean, np.log(sums) + top)

    def _sum(self, fields: np.ndarray) -> np.ndarray:
        axes = tuple(range(len(self._shape)))
        modes = np.fft.rfftn(fields.reshape(*self._shape, -1), axes=axes)
        summed = np.fft.irfftn(modes * self._spectrum[..., None], self._shape, axes)
        return summed.reshape(fields.shape)


def coefficients(q: float, e: float, lengths: np.ndarray, largest: tuple[int, ...]) -> np.ndarray:
    """K(m) for 0 <= m_a <= largest[a] on a torus of these side lengths.

    The cube of distances that count is cut into pyramids with their tops at the cusp, z = r (1, c t): there the integrand
    is smooth in t and smooth in r but at 0, towards which the intervals halve.

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
    phase = sum(k[-1] * side for k, side in zip(waves, sides))
    total = 0.0
    for a in range(n):
        others = [b for b in range(n) if b != a]
        halvings = sides[a] * 0.5 ** np.arange(np.ceil(53 / (n + q)), -1, -1)
        r, weight = _gauss(np.concatenate([[0.0], halvings]), phase / sides[a])
        square, integrand = np.ones((len(r), *[1] * (n - 1))), weight.reshape(-1, *[1] * (n - 1))
        bases = []
        for place, b in enumerate(others):
            c = sides[b] / sides[a]
            t, weight = _gauss(np.linspace(0, 1, 1 + int(np.ceil(c))), waves[b][-1] * sides[b])
            along = [1] * (n - 1)
            along[place] = len(t)
            square = square + (c * t.reshape(along)) ** 2
            integrand = integrand * c * r.reshape(-1, *[1] * (n - 1)) * weight.reshape(along)
            bases.append(np.cos(c * r[:, None, None] * t[:, None] * waves[b]))
        radius = r.reshape(-1, *[1] * (n - 1)) * np.sqrt(square)
        field = integrand * np.exp(-(radius**q) / e)
        for basis in bases:
            field = np.einsum("rt...,rtk->r...k", field, basis)
        total = total + np.moveaxis(np.tensordot(np.cos(np.outer(waves[a], r)), field, 1), 0, a)
    return 2**n * total


def _gauss(edges: np.ndarray, wave: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights between the edges, for functions times cos(wave x)."""
    counts = 1 + np.ceil(1e-9 + wave * np.diff(edges) / _PHASE).astype(int)
    edges = np.unique(np.concatenate([np.linspace(*ends) for ends in zip(edges, edges[1:], counts)]))
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
