"""The pairwise sum: one primitive, several engines of the same contract.

With logits l_ij = -f(x_i, y_j) / (2 eps) + b_j,

    mean_i = sum_j exp(l_ij) v_j / sum_j exp(l_ij),    log_sum_exp_i = log sum_j exp(l_ij).

Softmax is one such sum; density correction two; Sinkhorn a few. Never an N x N array, except in `reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..similarity import PseudoMetric
from .registry import ENGINES, backends, load

__all__ = ["ENGINES", "Attended", "attend", "backends", "resolve"]


class Attended(NamedTuple):
    """Weighted means (M, c) and log-sum-exp (M,)."""

    mean: np.ndarray
    log_sum_exp: np.ndarray


def resolve(backend: str) -> str:
    """The engine that runs for a backend name: "auto" is numba, which serves every size and pseudo-metric."""
    name = "numba" if backend == "auto" else backend
    load(name)
    return name


def attend(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray | None = None,
    key_bias: np.ndarray | None = None,
    backend: str = "auto",
    dtype: str = "float64",
) -> Attended:
    """Run the primitive on checked arrays.

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
    queries, keys : (M, n), (N, n) array
    values : (N, c) array, optional
        None computes the log-sum-exp only.
    key_bias : (N,) array, optional
        b_j; -inf takes a key out.
    backend : str
        A name from `backends()`, or "auto".
    dtype : "float64" or "float32"
        Arithmetic of the engine; results are float64.

    Returns
    -------
    Attended
    """
    run = load(resolve(backend))
    return Attended(*run(f, epsilon, queries, keys, values, key_bias, np.dtype(dtype).type))
