"""Weights that choose their keys by definition: dense, row by row, in NumPy; what `Selection` is checked against."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import brentq

from ...similarity import PseudoMetric
from ..masks import Mask
from ..reference_engine import shifted_logits
from ..rules import nothing_to_see
from .laws import TIE, Entmax, Law, Nearest, Spread


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
        return _share_of_nearest(f, mass, law.k) * np.exp(-above / (2 * law.epsilon))
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
        depths = above / (2 * law.epsilon * law.power)
        high = depths.max() + 1.0
        while mass @ (high - depths) ** law.power < 1:
            high *= 2
        level = brentq(lambda t: mass @ np.maximum(t - depths, 0) ** law.power - 1, 0.0, high, xtol=1e-300, rtol=1e-15)
        return np.maximum(level - depths, 0) ** law.power
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


def _share_of_nearest(f: np.ndarray, mass: np.ndarray, k: float) -> np.ndarray:
    """1 for the keys of smallest f, of mass k together, the last of them in part; ties go by number."""
    order = np.argsort(f, kind="stable")
    last = min(int(np.searchsorted(np.cumsum(mass[order]), k * (1 - 1e-14))), len(f) - 1)
    edge, tie = f[order[last]], TIE * abs(f[order[last]])
    rank = np.where(f < edge - tie, 0, np.where(f <= edge + tie, 1, 2))
    order = np.argsort(rank, kind="stable")
    before = np.cumsum(mass[order]) - mass[order]
    share = np.empty(len(f))
    share[order] = np.clip((k - before) / np.maximum(mass[order], 1e-300), 0, 1)
    return np.where(share > 1e-14, share, 0.0)
