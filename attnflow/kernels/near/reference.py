"""Weights that choose their keys by definition: dense, row by row, in NumPy; what `Selection` is checked against."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import brentq

from ...similarity import PseudoMetric
from ..masks import Mask
from ..reference_engine import shifted_logits
from ..rules import nothing_to_see
from .laws import Entmax, Law, Nearest, Spread
from .thresholds import TIE


class DenseSelection:
    """As `Selection`, for few tokens; refused above 2^26 pairs."""

    held = True

    def __init__(
        self,
        f: PseudoMetric,
        queries: np.ndarray | None,
        keys: np.ndarray,
        law: Law,
        mass: np.ndarray | None = None,
        mask: Mask | None = None,
    ) -> None:
        queries = keys if queries is None else queries
        logits, lowest = shifted_logits(f, 0.5, queries, keys, None)  # the least f less f, and minus that least
        seen = np.isfinite(logits) if mask is None else np.isfinite(logits) & mask.dense()
        mass = np.ones(len(keys)) if mass is None else mass
        self.weights = np.zeros(logits.shape)
        for i, (row, some) in enumerate(zip(-logits - lowest[:, None], seen)):
            if not some.any():
                raise nothing_to_see(i)
            row = row[some]
            weights = mass[some] * _row(law, row, row - row.min(), mass[some])
            self.weights[i, some] = weights / weights.sum()
        self.counts, self.masses = (self.weights > 0).sum(axis=1), (self.weights > 0) @ mass

    def mean(self, values: np.ndarray) -> np.ndarray:
        return self.weights @ values

    def transposed(self, values: np.ndarray) -> np.ndarray:
        return self.weights.T @ values

    def matrix(self) -> sparse.csr_array:
        return sparse.csr_array(self.weights)


def _row(law: Law, f: np.ndarray, above: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """A row's weights over the masses, up to a factor; `above` is f less its smallest."""
    if isinstance(law, Nearest):
        return _among_nearest(f, law.k) * np.exp(-above / (2 * law.epsilon))
    if isinstance(law, Spread):
        distance = above ** (1 / law.exponent)
        width = distance[distance > 0].min(initial=np.inf)
        width = width if width < np.inf else 1.0

        def share(radius: float) -> np.ndarray:
            return np.clip((radius - distance) / width + 0.5, 0, 1)

        radius = distance.max() + width
        if mass @ share(radius) > law.k:
            radius = brentq(lambda r: mass @ share(r) - law.k, -width, radius, xtol=1e-300, rtol=1e-15)
        return share(radius) * np.exp(-above / (2 * law.epsilon))
    if isinstance(law, Entmax):
        m, order = law.power, max(law.power, 1.0)
        depths = above / (2 * law.epsilon) / m
        high = min(mass[above == 0].sum() ** (-1 / m), depths.max() + mass.sum() ** (-1 / m))

        def excess(level: float) -> float:
            return float((mass @ np.maximum(level - depths, 0) ** m) ** (1 / order)) - 1

        level = brentq(excess, 0.0, high, xtol=1e-300, rtol=1e-15, maxiter=10_000) if excess(high) > 0 else high
        edge = np.abs(level - depths) <= TIE * level
        weights = np.where(edge, 0.0, np.maximum(level - depths, 0) ** m)
        if m < 1 and edge.any():  # what is there grows too fast for numbers: it has what the others leave
            weights[edge] = max(1 - mass @ weights, 0) / mass[edge].sum()
        return weights
    goal = np.log(law.target)
    if np.log(mass.sum()) <= goal * (1 + 1e-12) or not above.any():
        return np.ones(len(f))
    if np.log(mass[above == 0].sum()) >= goal:
        return (above == 0).astype(float)

    def entropy(log_beta: float) -> float:
        g = np.exp(log_beta) * above
        weights = mass * np.exp(-g)
        return float(np.log(weights.sum()) + weights @ g / weights.sum())

    low, high = np.log(1e-3 / above.max()), np.log(750 / above[above > 0].min())
    while entropy(low) < goal:
        low -= 3
    return np.exp(-np.exp(brentq(lambda b: entropy(b) - goal, low, high, xtol=1e-300, rtol=1e-15)) * above)


def _among_nearest(f: np.ndarray, k: int) -> np.ndarray:
    """1 for the k keys of smallest f, ties by number."""
    k = min(k, len(f))
    edge = np.partition(f, k - 1)[k - 1]
    tie = TIE * max(abs(edge), abs(f.min()))
    order = np.argsort(np.where(f < edge - tie, 0, np.where(f <= edge + tie, 1, 2)), kind="stable")
    chosen = np.zeros(len(f))
    chosen[order[:k]] = 1
    return chosen
