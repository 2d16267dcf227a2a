"""The pairwise sum: one primitive, several engines of the same contract.

With logits l_ij = -f(x_i, y_j) / (2 eps) + b_j,

    mean_i = sum_j exp(l_ij) v_j / sum_j exp(l_ij),    log_sum_exp_i = log sum_j exp(l_ij).

Softmax is one such sum; density correction two; Sinkhorn a few. Under a mask the sums are over the keys that a query
sees. Never an N x N array, except in `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import display
from ..similarity import PseudoMetric
from .choice import Choice, choose
from .masks import Edges, Mask, Ranges
from .registry import ENGINES, backends, load, refusal
from .scaling import rescale, scale_columns

__all__ = [
    "ENGINES",
    "Attended",
    "Choice",
    "Edges",
    "Mask",
    "Plan",
    "Ranges",
    "attend",
    "backends",
    "check_backend",
    "choose",
    "plan",
    "refusal",
]


class Attended(NamedTuple):
    """Weighted means (M, c) and log-sum-exp (M,)."""

    mean: np.ndarray
    log_sum_exp: np.ndarray

    def __repr__(self) -> str:
        return display.of_fields(self)


@dataclass(frozen=True)
class Plan:
    """An engine ready for fixed queries and keys: what can be prepared once is.

    Calling it with values (N, c) or None (log-sum-exp only) and a key bias (N,) or None gives `Attended`: the same bits
    for the same arguments, whatever was called before, on however many threads (but for cuFINUFFT). What is pickled of
    it are its arguments.
    """

    engine: str
    run: Callable
    choice: Choice | None = None
    arguments: tuple = ()  # f, epsilon, queries, keys, dtype, rtol, mask

    def __call__(self, values: np.ndarray | None = None, key_bias: np.ndarray | None = None) -> Attended:
        scaled, exponents = (values, None) if values is None else scale_columns(values, self.arguments[4])
        mean, log_sum_exp = self.run(scaled, key_bias)
        if exponents is not None:
            assert values is not None
            with np.errstate(over="ignore"):  # a mean that is rounded above the largest value
                mean = np.clip(np.ldexp(mean, exponents), values.min(axis=0), values.max(axis=0))
        return Attended(mean, log_sum_exp)

    def __reduce__(self):
        return _prepared, (self.engine, self.choice, self.arguments)


def _prepared(engine: str, choice: Choice | None, arguments: tuple) -> Plan:
    f, epsilon, queries, keys, dtype, rtol, mask = arguments
    check_backend(engine, type(mask))
    prepare, masked = load(engine), () if mask is None else (mask,)
    scaled = rescale(f, epsilon, queries, keys, dtype)
    return Plan(engine, prepare(*scaled, queries, keys, np.dtype(dtype).type, rtol, *masked), choice, arguments)


def check_backend(backend: str, mask: type[Mask] | type[None] | None = None) -> str:
    """A name from `backends()` that can run here, under such a mask if one is given, or "auto"."""
    if not (isinstance(backend, str) and backend == "auto"):
        load(backend)
        reason = None if mask is None else refusal(backend, mask)
        if reason is not None:
            raise ValueError(reason)
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
    mask: Mask | None = None,
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
    mask : Ranges or Edges, optional
        Which keys a query sees, where it does not see all; queries are None then. A query that sees none has the mean 0
        and the log-sum-exp -inf.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the engine can't compute this pseudo-metric or mask, or the tokens are beyond the range of `dtype`.
    """
    if queries is not None and queries.shape[1] != keys.shape[1]:
        raise ValueError(f"queries must have {keys.shape[1]} columns as tokens have, got shape {queries.shape}")
    choice = choose(f, epsilon, queries, keys, dtype, rtol, columns, applications, mask) if backend == "auto" else None
    name = backend if choice is None else choice.engine
    return _prepared(name, choice, (f, epsilon, queries, keys, dtype, rtol, mask))


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
