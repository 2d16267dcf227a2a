"""A layer that divides by the number of keys, not by row sums, with its tokens: unnormalised self-attention (USA)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..kernels import Attended
from .bound import BoundLayer, bind


class SumsLayer(BoundLayer):
    """As `BoundLayer`, with weights K_ij / N, N the keys that i sees, or K_ij times the shares of the keys' masses.

    Rows do not add up to one: nothing is conserved, and eigenvalues are not between 0 and 1.
    """

    @property
    def self_adjoint(self) -> bool:
        """Never in a weight that layers conserve."""
        return False

    @property
    def definite(self) -> bool:
        return False

    @cached_property
    def _log_keys(self) -> np.ndarray | float:
        """Logarithm of what sums are divided by, for each token or all."""
        if self.log_mass is not None:
            return float(np.logaddexp.reduce(self.log_mass))
        return np.log(len(self.tokens)) if self.mask is None else np.log(self.mask.seen())

    def attend(self, values: np.ndarray | None, queries: np.ndarray | None = None) -> Attended:
        """Sums of the values divided by the number of keys, and the log-sum-exp."""
        mean, log_sum_exp = super().attend(values, queries)
        with np.errstate(over="ignore", invalid="ignore"):
            return Attended(mean * np.exp(log_sum_exp - self._log_keys)[:, None], log_sum_exp)

    def attend_transposed(self, values: np.ndarray) -> np.ndarray:
        """sum_i K_ij v_i / N for values (N, c)."""
        mean, log_sum_exp = self.transposed(values, np.zeros(len(self.tokens)) - self._log_keys)
        return np.exp(self.key_bias + log_sum_exp)[:, None] * mean

    def weights(self, queries: np.ndarray | None = None, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        log_row = super().attend(None, queries).log_sum_exp - self._log_keys
        return super().weights(queries, rows) * np.exp(log_row if queries is not None else log_row[rows])[:, None]

    def own_weights(self) -> np.ndarray:
        """S_ii (N,)."""
        return np.exp(self._own_logits() - self._log_keys)

    def conserved_weight(self) -> np.ndarray:
        """Refused."""
        raise ValueError("normalization must divide by row sums to conserve a weight, got 'none'")


def bind_sums(layer: Any, tokens: np.ndarray, log_mass: np.ndarray | None) -> SumsLayer:
    """The layer on fixed tokens; `layer` is the Attention, whose file needs this one."""
    bound = bind(layer, tokens, log_mass)
    return SumsLayer(bound.layer, bound.tokens, bound.key_bias, bound.plan, bound.stats, None, log_mass, bound.mask)
