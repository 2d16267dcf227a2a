"""Densities made of others: mixtures, and kernel densities from data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import special

from .. import checks
from .densities import Density
from .spaces import Euclidean


class Mixture(Density):
    """p = sum_k weights_k p_k of densities on one space.

    Parameters
    ----------
    densities : sequence of Density
        At least one, all on equal spaces.
    weights : (K,) array
        Non-negative, summing to one.

    Raises
    ------
    ValueError
        If the spaces differ, or the weights are negative, do not sum to one or do not match in number.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> two = af.Mixture([af.Gaussian(-2.0, 1.0), af.Gaussian(2.0, 1.0)], [0.5, 0.5])
    >>> two.pdf(np.array([[0.0]])).round(6)   # e^-2 / sqrt(2 pi)
    array([0.053991])
    """

    def __init__(self, densities: Sequence[Density], weights: np.ndarray) -> None:
        if not checks.listed(densities):
            raise TypeError(f"densities must be a sequence of attnflow densities, got {checks.short(densities)}")
        self.densities = tuple(densities)
        strange = [type(d).__name__ for d in self.densities if not isinstance(d, Density)]
        if strange or not self.densities:
            raise TypeError(f"densities must be a sequence of attnflow densities, got {strange[:3] or 'none'}")
        space = self.densities[0].space
        for k, density in enumerate(self.densities):
            if density.space != space:
                raise ValueError(f"densities must be on one space, got {space} and {density.space} at index {k}")
        self.weights = checks.array(weights, "weights", (len(self.densities),)).astype(float)
        if (self.weights < 0).any() or abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights must be non-negative and sum to one, got {checks.entries(self.weights)}")
        super().__init__(space, self._log_sum)

    def _log_sum(self, x: np.ndarray) -> np.ndarray:
        return special.logsumexp(self._log_parts(x), axis=-1, b=self.weights)

    def _log_parts(self, x: np.ndarray) -> np.ndarray:
        return np.stack([density.log_pdf(x) for density in self.densities], axis=-1)

    @property
    def _log_mass(self) -> float:
        return 0.0

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        extents = np.array([density.extent for density in self.densities])
        low, high = extents[..., 0].min(axis=0), extents[..., 1].max(axis=0)
        return tuple(zip(low.tolist(), high.tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        log_parts = self._log_parts(x)
        share = self.weights * np.exp(log_parts - log_parts.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        return sum(share[..., k, None] * density.score(x) for k, density in enumerate(self.densities))

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = checks.integer(n, "n", least=1), checks.generator(rng)
        counts = rng.multinomial(n, self.weights / self.weights.sum())
        parts = [density.sample(m, rng) for density, m in zip(self.densities, counts) if m]
        return rng.permutation(np.concatenate(parts))


class KernelDensity(Density):
    """p(x) = mean_i N(x; token_i, diag(bandwidth^2)) on Euclidean(n), from data.

    Every evaluation is a sum over all tokens.

    Parameters
    ----------
    tokens : (N, n) array
    bandwidth : float, (n,) array or None
        Standard deviation of the kernel, in units of length. None is Scott's rule, per coordinate
        std_k N^(-1/(n+4)).

    Raises
    ------
    ValueError
        If there are no tokens, the bandwidth is not positive, or Scott's rule gives zero because a
        coordinate does not vary.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> p = af.KernelDensity(np.array([[-1.0], [1.0]]), bandwidth=1.0)
    >>> p.pdf(np.array([[0.0]])).round(6)   # e^-(1/2) / sqrt(2 pi)
    array([0.241971])
    """

    def __init__(self, tokens: np.ndarray, bandwidth: float | np.ndarray | None = None) -> None:
        self.tokens = checks.points(tokens, "tokens").astype(float)
        count, n = self.tokens.shape
        if bandwidth is None:
            spread = self.tokens.std(axis=0, ddof=1) if count > 1 else np.zeros(n)
            if not (spread > 0).all():
                raise ValueError(
                    f"bandwidth must be given where a coordinate does not vary, got spread {checks.entries(spread)}"
                )
            width = spread * count ** (-1 / (n + 4))
        else:
            width = checks.array(bandwidth, "bandwidth")
            if width.shape not in ((), (n,)) or not (width > 0).all():
                raise ValueError(f"bandwidth must be positive, one number or {n}, got {checks.short(bandwidth)}")
            if not (width.astype(float) ** 2 > np.finfo(float).tiny).all():
                raise ValueError(f"bandwidth must have a square in floating point, got {checks.short(bandwidth)}")
        self.bandwidth = np.broadcast_to(width, (n,)).astype(float)
        super().__init__(Euclidean(n), lambda x: self._reduce(x)[0])

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(len(self.tokens)) + np.sum(np.log(np.sqrt(2 * np.pi) * self.bandwidth)))

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        reach = np.sqrt(84) * self.bandwidth  # a kernel falls to e^-42
        low, high = self.tokens.min(axis=0) - reach, self.tokens.max(axis=0) + reach
        return tuple(zip(low.tolist(), high.tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", self.space.columns)
        return (self._reduce(x)[1] - x) / self.bandwidth**2

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = checks.integer(n, "n", least=1), checks.generator(rng)
        chosen = self.tokens[rng.integers(len(self.tokens), size=n)]
        return chosen + self.bandwidth * rng.normal(size=chosen.shape)

    def _reduce(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log of the kernel sum at points (..., n), and the kernel-weighted mean token there."""
        centre = self.tokens.mean(axis=0)  # |x - y|^2 is expanded below: far from the origin it would cancel
        keys = (self.tokens - centre) / self.bandwidth
        rows = (x.reshape(-1, keys.shape[1]) - centre) / self.bandwidth
        block = max(1, 2**21 // len(keys))
        parts = []
        for query in (rows[i : i + block] for i in range(0, len(rows), block)):
            logits = query @ keys.T - 0.5 * np.sum(keys**2, axis=1)  # without the query's -|x|^2 / 2
            top = logits.max(axis=1, keepdims=True)
            kernel = np.exp(logits - top)
            total = kernel.sum(axis=1, keepdims=True)
            parts.append(np.hstack([np.log(total) + top, kernel @ self.tokens / total]))
        both = np.concatenate(parts)
        log_sum = both[:, 0] - 0.5 * np.sum(rows**2, axis=1)
        return log_sum.reshape(x.shape[:-1]), both[:, 1:].reshape(x.shape)
