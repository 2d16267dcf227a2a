"""Stand-ins for infinitely many tokens whose queries choose their keys: Gaussian averages that agree to the second order.

Whatever the profile phi of weights phi(f), what a row adds up is an expansion in the moments of phi, its operators being
those of f and the density: with c_1, c_2 the Gaussian's own,

    Gaussian of variance s    A_s H = H + s C_1 H + s^2 (C_2 - v C_1) H + ...,      row sums ~ p (1 + s v + ...),
    weights of moments m2, m4    A H = H + m2 C_1 H + (m4 / 3 C_2 - m2^2 v C_1) H + ...,

C_1 = Delta / 2 + grad log p . grad, and v = Delta p / (2 p) on a flat space. A query sees as far as it does among
N p (1 + m v) keys per volume, m its `settling_moment`: with m2 ~ tokens^-k, m2 changes by -k m v of itself. So

    A H = H + alpha (A_s - 1) H + beta (A_2s - 1) H + O(s^3),
    (alpha + 4 beta) s^2 = m4 / 3,      (alpha + 2 beta) s = m2 (1 - k m v) + (m4 / 3 - m2^2) v,

for any f, curvature or map with a limit, with coefficients that depend on x. v is that of the row sums at s and 2 s. Weights
that are cut off are averages that nodes do not sample well; these are. (Derived for this package and checked numerically.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.special import betaln

from ..attention import Attention, BoundLayer
from ..attention.sparse import Selective, Sparse
from ..geometry import Density
from ..grid import Grid
from ..kernels import Attended
from ..similarity import LogDistance, PowerDistance, PseudoMetric, SquaredDistance
from .hopf import HopfGrid
from .sparse_limits import epsilon_for_fraction, expressed

_FEWEST = 1e-300  # tokens per volume
_WIDEST = 0.75  # of m2 / s: below 0.79 eigenvalues of stand-ins lie in [0, 1], as m4 / (3 m2^2) is at least 3/5, a segment's
_STEP = 1e-3  # of the logarithm of tokens, in a difference


@dataclass(frozen=True)
class ChosenKeys:
    """A head whose queries choose their keys, among `n_tokens` from a density.

    Attributes
    ----------
    head : Attention
        Its normalization is a `Selective`.
    density : Density
        With respect to the volume of f.metric.
    n_tokens : float
    epsilon : float
        The temperature: that of a target share, where there is one.
    """

    head: Attention
    density: Density
    n_tokens: float
    epsilon: float

    @classmethod
    def of(cls, head: Attention, density: Density, n_tokens: float) -> ChosenKeys:
        own, epsilon = expressed(head, density), head.epsilon
        if isinstance(head.normalization, Sparse) and head.normalization.fraction is not None:
            epsilon = epsilon_for_fraction(head, own, n_tokens)
        return cls(head, own, n_tokens, epsilon)

    @property
    def rule(self) -> Selective:
        return cast(Selective, self.head.normalization)

    def gaussian(self) -> Attention:
        """Softmax somewhat wider than the widest of what queries see."""
        m2 = self._moment(self._tokens(self.density.space.probe_points(256)), 2)
        s = float(m2.max()) / _WIDEST
        return Attention(_square(self.head.f), s, "softmax", self.head.residual, rtol=self.head.rtol)

    def averages(self, near: BoundLayer, far: BoundLayer, grid: Grid | HopfGrid, scale: float) -> Averages:
        """The stand-in on nodes for m2 times `scale`, from Gaussians of variance s and 2 s bound to them."""
        n, s, points = self.density.space.dim, near.layer.epsilon, near.tokens
        log_sums = [b.attend(None).log_sum_exp + b.layer.f.diagonal(points) / (2 * b.layer.epsilon) for b in (near, far)]
        v = (log_sums[1] - log_sums[0] - n / 2 * np.log(2)) / s
        tokens = self._tokens(points)
        m2, third = scale * self._moment(tokens, 2), scale**2 * self._moment(tokens, 4) / 3
        change = self._slope(tokens) * scale * self.rule.settling_moment(self.head.f, self.epsilon, n, tokens) * v
        if isinstance(self.rule, Sparse) and self.rule.fraction is not None:
            change = change + self._warmer(tokens, scale, v, grid)
        first, second = m2 * (1 + change) + (third - m2**2) * v, third
        beta = (second / s**2 - first / s) / 2
        return Averages(near, far, first / s - 2 * beta, beta)

    def _tokens(self, points: np.ndarray) -> np.ndarray:
        """Per volume, (M,)."""
        return np.maximum(np.exp(np.log(self.n_tokens) + self.density.log_pdf(points)), _FEWEST)

    def _moment(self, tokens: np.ndarray, order: int) -> np.ndarray:
        return self.rule.local_moment(self.head.f, self.epsilon, self.density.space.dim, tokens, order)

    def _slope(self, tokens: np.ndarray) -> np.ndarray:
        """-k = d log m2 / d log tokens."""
        more, less = (np.log(self._moment(tokens * np.exp(sign * _STEP), 2)) for sign in (1, -1))
        return (more - less) / (2 * _STEP)

    def _warmer(self, tokens: np.ndarray, scale: float, v: np.ndarray, grid: Grid | HopfGrid) -> np.ndarray:
        """How much larger m2 is by the temperature at which the share of keys seen, the mean of p V_n R^n, is what it was.

        R changes by -m2 v / (n + q m) of itself, and a ball has p (1 + R^2 v / (n + 2)) keys per volume.
        """
        f, rule = self.head.f, cast(Sparse, self.rule)
        n, q, m = self.density.space.dim, cast(float, f.exponent), rule.power
        m2 = scale * self._moment(tokens, 2)
        R2 = n * m2 * np.exp(betaln(n / q, m + 1) - betaln((n + 2) / q, m + 1))
        weight = tokens**2 * R2 ** (n / 2) * self.density.space.volume_element(grid.points) * grid.weights
        lost = n * m2 * v / (n + q * m) - R2 * v / (n + 2)
        return np.full(len(v), 2 / n * (weight @ lost) / weight.sum())


@dataclass(frozen=True)
class Averages:
    """H -> H + alpha (A_s - 1) H + beta (A_2s - 1) H; asked for what `BoundLayer` is."""

    near: BoundLayer
    far: BoundLayer
    alpha: np.ndarray
    beta: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        return self.near.tokens

    def attend(self, values: np.ndarray) -> Attended:
        a, b = self.alpha[:, None], self.beta[:, None]
        one, two = self.near.attend(values), self.far.attend(values)
        return Attended((1 - a - b) * values + a * one.mean + b * two.mean, one.log_sum_exp)

    def weights(self, queries: None, rows: np.ndarray) -> np.ndarray:
        """Dense weights of the nodes in some `rows`."""
        a, b = self.alpha[rows, None], self.beta[rows, None]
        weights = a * self.near.weights(queries, rows) + b * self.far.weights(queries, rows)
        weights[np.arange(len(rows)), rows] += 1 - a[:, 0] - b[:, 0]
        return weights


def _square(f: PseudoMetric) -> PseudoMetric:
    """f, or the squared distance of which it is a function: a Gaussian's."""
    return SquaredDistance(f.space) if isinstance(f, (PowerDistance, LogDistance)) and f.space is not None else f
