"""How an infinite-token layer answers to a change of the tokens' mass, p -> p (1 + t xi), to first order in t.

Weights with a key bias answer by rho = xi + eta, eta the change of the logarithm of the key weight,

    dA h = A(rho h) - (A h) (A rho).

Weights that choose their keys answer by how far a query sees. With D = dA / d log N, N the number of tokens,

    dA h = A(xi h) - (A h) (A xi) + (D h) (B xi),

B xi a mean, one where xi is: for entmax, whose threshold keeps the sum of the weights, that of A; for top-k, whose radius
keeps their number, that of the k nearest alike; at a fixed perplexity that of the weights A (1 + f / e - A f / e), e the
temperature that keeps the entropy (all derived for this package).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import sparse

from ..attention import Attention, BoundLayer, Perplexity, Sparse, TopK
from ..attention.selected import SelectedLayer

_APART = 0.02  # of log N, between the two layers whose difference is D
_HOT = 1e12  # times the temperature: weights of the k nearest are alike

Average = Callable[[np.ndarray], np.ndarray]  # (m, c) -> (m, c), or (m, c, k)


@dataclass(frozen=True)
class Derivative:
    """A head on m nodes, and its derivative in k directions.

    Attributes
    ----------
    average : callable
        A, of columns.
    rho, mean_rho : (m, k) array
        The directions xi with what key weights answer, and A rho.
    reach : (callable, (m, k) array), optional
        D and B xi.
    """

    average: Average
    rho: np.ndarray
    mean_rho: np.ndarray
    reach: tuple[Average, np.ndarray] | None = None

    def step(self, h: np.ndarray, E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A h (m, c), and A E + dA h (m, c, k), for features h (m, c) that vary by E (m, c, k)."""
        Ah = self.average(h)
        varied = E + h[:, :, None] * self.rho[:, None]
        moved = self.mean(varied) - Ah[:, :, None] * self.mean_rho[:, None]
        if self.reach is not None:
            D, B_xi = self.reach
            moved += D(h)[:, :, None] * B_xi[:, None]
        return Ah, moved

    def mean(self, E: np.ndarray) -> np.ndarray:
        """A E, (m, c, k)."""
        return self.average(E.reshape(len(E), -1)).reshape(E.shape)


def of_matrix(A: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> Derivative:
    """In all directions, delta_z / sqrt(mass_z), from the dense A (m, m) and eta (m, m) of one more token at z."""
    root = np.sqrt(mass)
    rho = eta * root + np.diag(1 / root)
    return Derivative(lambda v: A @ v, rho, A @ rho)


def of_sums(bound: BoundLayer, xi: np.ndarray) -> Derivative:
    """In directions xi (m, k), by the layer's own engine."""
    rho = xi + bound.layer.normalization.response_to(bound, xi)

    def average(values: np.ndarray) -> np.ndarray:
        return bound.attend(values).mean

    return Derivative(average, rho, average(rho))


def of_chosen(bound: SelectedLayer, xi: np.ndarray) -> Derivative:
    """Of a layer that chooses its keys, in directions xi (m, k)."""
    A = bound.selection.matrix()
    more, fewer = (_bound_again(bound.layer, bound, step).selection.matrix() for step in (_APART, -_APART))
    D, mean_xi = (more - fewer) / (2 * _APART), A @ xi
    return Derivative(lambda v: A @ v, xi, mean_xi, (lambda v: D @ v, _answer(bound, A) @ xi))


def _bound_again(layer: Attention, bound: SelectedLayer, step: float = 0.0) -> SelectedLayer:
    """On the same nodes, of exp(step) times as many tokens."""
    return cast(SelectedLayer, layer.bind(bound.tokens, cast(np.ndarray, bound.log_mass) + step))


def _answer(bound: SelectedLayer, A: sparse.csr_array) -> sparse.csr_array:
    """B."""
    layer, rule = bound.layer, bound.layer.normalization
    if isinstance(rule, TopK):
        hot = copy(layer)
        hot.epsilon, hot._last = _HOT * layer.epsilon, None
        return _bound_again(hot, bound).selection.matrix()
    if isinstance(rule, Sparse):
        return A
    assert isinstance(rule, Perplexity)
    B = A.copy()
    log_weights = A.copy()
    log_weights.data = np.log(A.data / cast(np.ndarray, bound.mass)[A.indices])
    row = np.repeat(np.arange(len(A.indptr) - 1), np.diff(A.indptr))
    mean = np.bincount(row, A.data * log_weights.data, minlength=A.shape[0])
    B.data = A.data * (1 - log_weights.data + mean[row])
    return B
