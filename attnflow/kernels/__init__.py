"""The pairwise sum: one primitive, several engines of the same contract.

With logits l_ij = -f(x_i, y_j) / (2 eps) + b_j,

    mean_i = sum_j exp(l_ij) v_j / sum_j exp(l_ij),    log_sum_exp_i = log sum_j exp(l_ij).

Softmax is one such sum; density correction two; Sinkhorn a few. Never an N x N array, except in `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..similarity import PseudoMetric
from .choice import Choice, choose
from .registry import ENGINES, backends, load

__all__ = ["ENGINES", "Attended", "Choice", "Plan", "attend", "backends", "check_backend", "choose", "plan"]


class Attended(NamedTuple):
    """Weighted means (M, c) and log-sum-exp (M,)."""

    mean: np.ndarray
    log_sum_exp: np.ndarray


@dataclass(frozen=True)
class Plan:
    """An engine ready for fixed queries and keys: what can be prepared once is.

    Calling it with values (N, c) or None (log-sum-exp only), a key bias (N,) or None, and the log-sum-exp (M,) that
    an earlier call with the same bias returned, if there was one, gives `Attended`.
    """

    engine: str
    run: Callable
    choice: Choice | None = None

    def __call__(
        self,
        values: np.ndarray | None = None,
        key_bias: np.ndarray | None = None,
        log_sum_exp: np.ndarray | None = None,
    ) -> Attended:
        return Attended(*self.run(values, key_bias, log_sum_exp))


def check_backend(backend: str) -> str:
    """A name from `backends()` that can run here, or "auto"."""
    if not (isinstance(backend, str) and backend == "auto"):
        load(backend)
    return backend


def plan(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray | None,
    keys: np.ndarray,
    backend: str = "auto",
    dtype: str = "float64",
    rtol: float = 1e-12,
    columns: int = 1,
    applications: int = 2,
) -> Plan:
    """Prepare the primitive for fixed, checked tokens.

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
    queries, keys : (M, n), (N, n) array
        Queries None: the keys are the queries.
    backend : str
        A name from `backends()`, or "auto": predicted to be fastest for that many value `columns` and `applications`.
    dtype : "float64" or "float32"
        Arithmetic of the engine; results are float64.
    rtol : float
        Largest error of a weighted mean, relative to the largest value, and of a log-sum-exp, absolute, that an
        engine may truncate to.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the engine can't compute this pseudo-metric.
    """
    choice = choose(f, epsilon, queries, keys, dtype, rtol, columns, applications) if backend == "auto" else None
    name = backend if choice is None else choice.engine
    return Plan(name, load(name)(f, epsilon, queries, keys, np.dtype(dtype).type, rtol), choice)


def attend(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray | None = None,
    key_bias: np.ndarray | None = None,
    backend: str = "auto",
    dtype: str = "float64",
    rtol: float = 1e-12,
) -> Attended:
    """Run the primitive once on checked arrays; see `plan`. A key bias of -inf takes a key out."""
    columns = 0 if values is None else values.shape[1]
    return plan(f, epsilon, queries, keys, backend, dtype, rtol, columns, 1)(values, key_bias)
