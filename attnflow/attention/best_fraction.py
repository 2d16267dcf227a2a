"""Which share of the weights a sparse layer should keep: where bias and noise of one layer's generator balance.

Few keys are noisy, many reach where the features are no longer what they are at the query. On some rows, with temperatures
from the few nearest keys to nine tenths of all, and q the mean f of what a row sees (R^2 times a constant),

    g_i = (A h - h)_i / q_i,    its noise^2 = sum_j S_ij^2 (h_j - h_i)^2 / q_i^2 (leading order in 1 / N),

and g_i = a_i + b_i q + c_i q^2, fitted to the rows with the noise for errors, predicts the bias b_i q + c_i q^2; what noise adds
to its square is taken off. The features h are the tokens' own, as f sees them. The share is where the mean of bias^2 + noise^2 is least.
Under a mask it is of the pairs that see each other, on rows that see at least half as many keys as the one that sees most.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..kernels.masks import Mask
from ..similarity import PseudoMetric

_ROWS, _FEWEST, _PAIRS, _COLUMNS = 500, 32, 2**23, 8
_TEMPERATURES = 14
_LEAST, _MOST = 6.0, 0.9  # keys of a row, share of all


def best_fraction(f: PseudoMetric, tokens: np.ndarray, select: Callable, unit: float, mask: Mask | None = None) -> float:
    """The share; 1 where no row sees different values of f.

    Parameters
    ----------
    f : PseudoMetric
    tokens : (N, n) array
    select : callable
        epsilon, rows (R,) -> (R, N) weights as a sparse array.
    unit : float
        A typical value of f.
    mask : Ranges or Edges, optional

    Raises
    ------
    ValueError
        If so many tokens coincide that rows see only copies at every temperature.
    """
    size = len(tokens)
    sight = np.full(size, size) if mask is None else mask.seen()
    ahead = np.flatnonzero(2 * sight >= sight.max())
    rows = ahead[np.unique(np.linspace(0, len(ahead) - 1, min(_ROWS, len(ahead), max(_PAIRS // size, _FEWEST))).astype(int))]
    h, total = _features(f, tokens), int(sight[rows].sum())
    pairs = f.evaluate(f.query_features(tokens[rows]), f.key_features(tokens)) / unit  # squares stay in range
    if mask is not None:
        pairs[~mask.dense(rows)] = np.inf
    pairs -= pairs.min(axis=1, keepdims=True)
    if not ((pairs > 0) & (pairs < np.inf)).any():
        return 1.0
    shares, reach, rates, noise = [], [], [], []
    for epsilon in unit * np.geomspace(*_range(select, rows, total / len(rows), unit), _TEMPERATURES):
        S = select(epsilon, rows).toarray()
        q = (S * np.where(S > 0, pairs, 0.0)).sum(axis=1)
        if not (q > 0).all():
            continue
        moved = S @ h - h[rows]
        square = S**2
        spread = square @ h**2 - 2 * (square @ h) * h[rows] + square.sum(axis=1)[:, None] * h[rows] ** 2
        shares.append((S > 0).sum() / total)
        reach.append(q.mean())
        rates.append(moved / q[:, None])
        noise.append(np.maximum(spread, 0) / q[:, None] ** 2)
    if len(shares) < 2:
        raise ValueError("fraction must be a number for these tokens, got 'auto': so many coincide that rows see only copies")
    return _least(*map(np.array, (shares, reach, rates, noise)))


def _least(shares: np.ndarray, reach: np.ndarray, rates: np.ndarray, noise: np.ndarray) -> float:
    """The share, by its logarithm, at which the sum is least."""
    q = reach / reach.max()
    design = np.stack([np.ones_like(q), q, q**2], axis=1)  # (T, 3)
    weight = 1 / np.maximum(noise, 1e-300 + 1e-12 * noise.max())
    inverse = np.linalg.pinv(np.einsum("trc,ti,tj->rcij", weight, design, design), hermitian=True)
    fitted = np.einsum("rcij,trc,tj->rci", inverse, weight * rates, design)
    off = design * [0.0, 1.0, 1.0]  # what is not the limit's
    bias = (np.einsum("ti,rci->trc", off, fitted) ** 2 - np.einsum("ti,rcij,tj->trc", off, inverse, off)).mean(axis=(1, 2))
    x, y = np.log(shares), np.log(np.maximum(bias, 0) + noise.mean(axis=(1, 2)))
    fine = np.linspace(x[0], x[-1], 2000)
    order = np.argsort(x)
    return float(np.exp(fine[np.argmin(np.interp(fine, x[order], y[order]))]))


def _range(select: Callable, rows: np.ndarray, size: float, unit: float) -> tuple[float, float]:
    """Temperatures, in units of a typical f, at which rows keep the fewest and the most keys that are looked at."""
    few = rows[:: max(len(rows) // 50, 1)]

    def keys(factor: float) -> float:
        return float((select(unit * factor, few) > 0).sum() / len(few))

    low = high = 1.0
    while keys(low) > min(_LEAST, size / 2) and low > 1e-30:
        low /= 4
    while keys(high) < max(_MOST * size, _LEAST) and high < 1e30:
        high *= 4
    return low, high


def _features(f: PseudoMetric, tokens: np.ndarray) -> np.ndarray:
    """What f sees of the tokens, columns of mean 0 and unit spread; an angle by its cosine and sine."""
    v = f.key_features(tokens)[:, :_COLUMNS]
    if f.pair.period is not None:
        angles = 2 * np.pi * v / np.array(f.pair.period)[:_COLUMNS]
        v = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    spread = v.std(axis=0)
    v = v - v.mean(axis=0)
    return v[:, spread > 0] / spread[spread > 0] if (spread > 0).any() else np.ones((len(tokens), 1))
