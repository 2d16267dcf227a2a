"""The definition of the primitive, dense in float64: what every other engine is checked against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..similarity import PseudoMetric

LARGEST = 2**26  # pairs; the N x N arrays then take about two gigabytes


def plan(
    f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float
) -> Callable:
    """See `attnflow.kernels.plan`; `dtype` and `rtol` are ignored: all is float64, nothing is truncated."""
    queries = keys if queries is None else queries

    def run(values, key_bias, log_sum_exp):
        logits = dense_logits(f, epsilon, queries, keys, key_bias)
        top = logits.max(axis=1, keepdims=True)
        weights = np.exp(logits - top)
        total = weights.sum(axis=1, keepdims=True)
        mean = np.empty((len(queries), 0)) if values is None else weights @ values / total
        return mean, (top + np.log(total))[:, 0]

    return run


def dense_logits(
    f: PseudoMetric, epsilon: float, queries: np.ndarray, keys: np.ndarray, key_bias: np.ndarray | None
) -> np.ndarray:
    """l_ij = -f(x_i, y_j) / (2 eps) + b_j as an (M, N) array, refused above `LARGEST` pairs."""
    if len(queries) * len(keys) > LARGEST:
        raise ValueError(
            f"tokens must make at most {LARGEST} pairs to be held densely, got {len(queries)} x {len(keys)}; use backend='numba'"
        )
    f_values = f.evaluate(f.query_features(queries), f.key_features(keys))
    return -f_values / (2 * epsilon) + (0.0 if key_bias is None else key_bias)
