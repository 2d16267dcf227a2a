"""Maps of tokens that a network learns, in NumPy: affine, residual, and one after the other, with exact Jacobians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks, display


class _Map:
    """Called in words where a pseudo-metric of it is shown; formulas take a letter."""

    @property
    def __name__(self) -> str:
        return repr(self)


@dataclass(frozen=True, eq=False, repr=False)
class AffineMap(_Map):
    """phi(x) = W x + b, W (m, n), b (m,), of points (..., n).

    Examples
    --------
    >>> phi = AffineMap(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0.0, 0.0, 5.0]))
    >>> phi(np.array([1.0, 3.0]))
    array([2., 3., 9.])
    """

    weight: np.ndarray
    bias: np.ndarray

    def __repr__(self) -> str:
        return f"affine map of {display.counted(self.weight.shape[1], 'column')} to {len(self.weight)}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return checks.coordinates(x, "x", self.weight.shape[1]) @ self.weight.T + self.bias

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(..., m, n) at points (..., n)."""
        return np.broadcast_to(self.weight, (*checks.coordinates(x, "x", self.weight.shape[1]).shape[:-1], *self.weight.shape))


@dataclass(frozen=True, eq=False, repr=False)
class ResidualMap(_Map):
    """phi(x) = x + W_2 tanh(W_1 x + b_1) + b_2 of points (..., m): the map of metric-attention (Ruan & Zhang 2024, algorithm 1).

    Injective, and a bijection, if the spectral norms of W_1 and W_2 have a product below one.

    Examples
    --------
    >>> phi = ResidualMap(np.eye(1), np.zeros(1), -0.5 * np.eye(1), np.zeros(1))    # x - tanh(x) / 2
    >>> phi.jacobian(np.zeros((1, 1)))
    array([[[0.5]]])
    """

    weight_1: np.ndarray
    bias_1: np.ndarray
    weight_2: np.ndarray
    bias_2: np.ndarray

    def __repr__(self) -> str:
        return f"residual map of {display.counted(len(self.bias_2), 'column')}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", len(self.bias_2))
        return x + np.tanh(x @ self.weight_1.T + self.bias_1) @ self.weight_2.T + self.bias_2

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """I + W_2 diag(1 - tanh^2) W_1: (..., m, m) at points (..., m)."""
        x = checks.coordinates(x, "x", len(self.bias_2))
        slope = 1 - np.tanh(x @ self.weight_1.T + self.bias_1) ** 2
        return np.eye(len(self.bias_2)) + (self.weight_2 * slope[..., None, :]) @ self.weight_1


@dataclass(frozen=True, eq=False, repr=False)
class Composition(_Map):
    """outer(inner(x)), with the Jacobian by the chain rule."""

    outer: AffineMap | ResidualMap
    inner: AffineMap

    def __repr__(self) -> str:
        return f"{self.outer!r} after {self.inner!r}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.outer(self.inner(x))

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(..., m, n) at points (..., n)."""
        return self.outer.jacobian(self.inner(x)) @ self.inner.weight
