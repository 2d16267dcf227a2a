"""Densities made of others: mixtures, and kernel densities from data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import special

from .. import checks, display
from .densities import Density
from .sampling import check_count
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
    TypeError
        If densities is not a sequence of densities.
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

    def __repr__(self) -> str:
        return display.cut(f"Mixture({' + '.join(f'{w:g} {p!r}' for w, p in zip(self.weights, self.densities))})")

    def formula(self, name: str) -> str:
        more = ["\\dots"] * (len(self.densities) > 3)
        names = [f"{name}_{k + 1}" for k in range(min(len(self.densities), 3))]
        total = " + ".join([display.latex_factor(float(w), part) for w, part in zip(self.weights, names)] + more)
        return ", \\quad ".join([f"{name} = {total}", *(p.formula(part) for p, part in zip(self.densities, names)), *more])

    def _log_sum(self, x: np.ndarray) -> np.ndarray:
        return special.logsumexp(self._log_parts(x), axis=-1)

    @cached_property
    def _parts(self) -> list[tuple[float, Density]]:
        """The densities that have a weight, before it."""
        return [(weight, density) for weight, density in zip(self.weights, self.densities) if weight > 0]

    def _log_parts(self, x: np.ndarray) -> np.ndarray:
        return np.stack([np.log(weight) + density.log_pdf(x) for weight, density in self._parts], axis=-1)

    @property
    def _log_mass(self) -> float:
        return 0.0

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate, the range that holds the mass: p falls to e^-42 of its top."""
        extents = np.array([density.extent for _, density in self._parts])
        low, high = extents[..., 0].min(axis=0), extents[..., 1].max(axis=0)
        return tuple(zip(low.tolist(), high.tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        share = special.softmax(self._log_parts(x), axis=-1)[..., None, :]
        scores = np.stack([density.score(x) for _, density in self._parts], axis=-1)
        return np.sum(share * np.where(share > 0, scores, 0.0), axis=-1)  # 0 times inf, where a part vanishes

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
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
            spread = np.ptp(self.tokens, axis=0)  # exactly 0 where nothing varies, and a scale whose square is finite
            if (spread > 0).all():
                spread = spread * np.std((self.tokens - self.tokens[0]) / spread, axis=0, ddof=1)
            else:
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
        super().__init__(Euclidean(n), self._log_sum)

    def __repr__(self) -> str:
        return f"KernelDensity({self.tokens.shape[0]} tokens in {self.space!r}, bandwidth={display.word(self.bandwidth)})"

    @property
    def shape_latex(self) -> str:
        return f"\\sum_{{i=1}}^{{{len(self.tokens)}}} e^{{-|x - x_i|_h^2 / 2}}"

    def _log_sum(self, x: np.ndarray) -> np.ndarray:
        return self._reduce(x)[0]

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(len(self.tokens)) + np.sum(np.log(np.sqrt(2 * np.pi) * self.bandwidth)))

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate, the range that holds the mass: p falls to e^-42 of its top."""
        reach = np.sqrt(84) * self.bandwidth  # a kernel falls to e^-42
        low, high = self.tokens.min(axis=0) - reach, self.tokens.max(axis=0) + reach
        return tuple(zip(low.tolist(), high.tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", self.space.columns)
        return self._reduce(x)[1] / self.bandwidth

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
        chosen = self.tokens[rng.integers(len(self.tokens), size=n)]
        return chosen + self.bandwidth * rng.normal(size=chosen.shape)

    def _reduce(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log of the kernel sum at points (..., n), and the kernel-weighted mean of (token - x) / bandwidth there.

        By differences: |x - y|^2 expanded cancels where tokens are far apart beside the bandwidth.
        """
        rows = x.reshape(-1, x.shape[-1])
        log_sum, pull = np.empty(len(rows)), np.empty(rows.shape)
        block = max(1, 2**18 // len(self.tokens))
        for part in (slice(i, i + block) for i in range(0, len(rows), block)):
            steps = [
                np.clip((t - r[:, None]) / h, -1e150, 1e150)  # the square stays finite
                for t, r, h in zip(self.tokens.T, rows[part].T, self.bandwidth)
            ]
            depth = sum(np.square(step) for step in steps)
            least = depth.min(axis=1, keepdims=True)
            kernel = np.exp(-0.5 * (depth - least))
            total = kernel.sum(axis=1)
            log_sum[part] = np.log(total) - 0.5 * least[:, 0]
            pull[part] = np.stack([np.einsum("qt,qt->q", kernel, step) / total for step in steps], axis=-1)
        return log_sum.reshape(x.shape[:-1]), pull.reshape(x.shape)
