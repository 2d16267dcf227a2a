"""A layer on fixed tokens as a linear operator, and its transpose, without a matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .. import checks
from .bound import BoundLayer


def linear_operator(bound: BoundLayer, weights: float, identity: float) -> LinearOperator:
    """weights * S + identity * 1 for a `BoundLayer`, whose weights S have rows that sum to one.

    With Z the row sums, S_ij = K_ij exp(b_j) / Z_i, the transpose is a sum of the same kind:

        (S' v)_j = exp(b_j) sum_i K_ij exp(-log Z_i) v_i.

    Many columns are one call of the engine.
    """
    size = len(bound.tokens)

    def apply(v: np.ndarray) -> np.ndarray:
        return weights * bound.attend(v).mean + identity * v

    def apply_transposed(v: np.ndarray) -> np.ndarray:
        return weights * bound.attend_transposed(v) + identity * v

    def of_columns(function):
        def columns(v: np.ndarray) -> np.ndarray:
            shape = v.shape
            if np.iscomplexobj(v):
                v = v.reshape(size, -1)
                both = function(checks.features(np.concatenate([v.real, v.imag], axis=1), "values", size))
                return (both[:, : v.shape[1]] + 1j * both[:, v.shape[1] :]).reshape(shape)
            return function(checks.features(v, "values", size)).reshape(shape)

        return columns

    forward, backward = of_columns(apply), of_columns(apply_transposed)
    return LinearOperator(
        (size, size), matvec=forward, matmat=forward, rmatvec=backward, rmatmat=backward, dtype=np.dtype(np.float64)
    )
