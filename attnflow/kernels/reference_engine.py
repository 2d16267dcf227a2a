"""The definition of the primitive, dense in float64: what every other engine is checked against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import capacity
from ..similarity import PseudoMetric
from .masks import Mask
from .rules import nothing_to_see

LARGEST = 2**26  # pairs; the N x N arrays then take about two gigabytes


def plan(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray | None,
    keys: np.ndarray,
    dtype: type,
    rtol: float,
    mask: Mask | None = None,
) -> Callable:
    """See `attnflow.kernels.plan`; `dtype` and `rtol` are ignored: all is float64, nothing is truncated."""
    queries = keys if queries is None else queries

    def run(values, key_bias):
        level = 0.0 if key_bias is None else key_bias.max()
        if level == -np.inf:
            raise nothing_to_see(0)
        bias = None if key_bias is None else key_bias - level  # f is not rounded away beside it
        seen = None if mask is None else mask.dense()
        logits, shift = shifted_logits(f, epsilon, queries, keys, bias, seen)
        blind = np.zeros(len(queries), bool) if seen is None else ~seen.any(axis=1)
        logits[blind] = 0.0
        weights, log_sum_exp = softmax(logits)
        weights[blind], log_sum_exp[blind] = 0.0, -np.inf
        return np.empty((len(queries), 0)) if values is None else weights @ values, log_sum_exp + shift + level

    return run


def dense_logits(
    f: PseudoMetric, epsilon: float, queries: np.ndarray, keys: np.ndarray, key_bias: np.ndarray | None
) -> np.ndarray:
    """l_ij = -f(x_i, y_j) / (2 eps) + b_j as an (M, N) array, refused above `LARGEST` pairs."""
    logits, shift = shifted_logits(f, epsilon, queries, keys, key_bias)
    return logits + shift[:, None]


def shifted_logits(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray,
    keys: np.ndarray,
    key_bias: np.ndarray | None,
    seen: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The logits less those of each row's least f, and these (M,): a constant in f is not divided by eps.

    They are -inf where a key is not `seen` (M, N).
    """
    if len(queries) * len(keys) > LARGEST:
        raise ValueError(
            f"tokens must make at most {LARGEST} pairs to be held densely, got {len(queries)} x {len(keys)}: "
            f"{8.0 * len(queries) * len(keys):.3g} bytes; use backend='numba'"
        )
    capacity.fits(24 * len(queries) * len(keys), "tokens")
    with np.errstate(over="ignore"):  # what overflows weighs nothing
        f_values = f.evaluate(f.query_features(queries), f.key_features(keys))
        if seen is not None:
            f_values = np.where(seen, f_values, np.inf)
        least = f_values.min(axis=1)
        least = np.where(np.isfinite(least), least, 0.0)
        return (least[:, None] - f_values) / (2 * epsilon) + (0.0 if key_bias is None else key_bias), -least / (2 * epsilon)


def softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (M, N) whose rows sum to one, and the log-sum-exp (M,) of the logits' rows."""
    top = logits.max(axis=1)
    if top.min() == -np.inf:
        raise nothing_to_see(int(top.argmin()))
    weights = np.exp(logits - top[:, None])
    total = weights.sum(axis=1)
    weights /= total[:, None]
    return weights, top + np.log(total)
