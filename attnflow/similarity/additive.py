"""The additive pseudo-metric of graph attention: a neuron that looks at both tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import checks, display
from .pairs import Pair
from .products import product
from .pseudometrics import PseudoMetric

# names -> transform and parameter, as `pairs` has them
_NAMED = {
    "identity": ("leaky", 1.0),
    "relu": ("leaky", 0.0),
    "leaky_relu": ("leaky", 0.2),
    "elu": ("elu", 0.0),
    "tanh": ("tanh", 0.0),
}
_DERIVATIVES: dict[str, Callable] = {
    "leaky": lambda r, slope: np.where(r > 0, 1.0, slope),
    "elu": lambda r, _: np.exp(np.minimum(r, 0.0)),
    "tanh": lambda r, _: 1 - np.tanh(r) ** 2,
}


class Additive(PseudoMetric):
    """f = -activation(a1'Px + a2'Py): graph attention's (Velickovic et al. 2018, with "leaky_relu"; epsilon = 1/2).

    It is not smallest at y = x: among all tokens many layers have no limit equation, on the edges of a radius graph they
    have, see `limit`.

    Parameters
    ----------
    a1, a2 : (m,) array
        What is made of the query, and of the key.
    P : (m, n) array
    activation : {"identity", "relu", "leaky_relu", "elu", "tanh"} or callable
        leaky_relu has the slope 0.2 below 0. A callable takes an array of any shape and returns one; Python evaluates it
        pair by pair, the others are compiled.
    derivative : callable, optional
        Of a callable activation, for `limit`; by differences when None.

    Examples
    --------
    >>> import attnflow as af
    >>> f = af.Additive([1.0], [2.0], [[1.0, 0.0]], "tanh")
    >>> f([[0.1, 5.0]], [[0.2, 7.0]]).round(6)        # -tanh(0.1 + 2 0.2)
    array([[-0.462117]])
    """

    dim: int

    def __init__(
        self,
        a1: np.ndarray,
        a2: np.ndarray,
        P: np.ndarray,
        activation: str | Callable = "leaky_relu",
        derivative: Callable | None = None,
    ) -> None:
        self.P = checks.array(P, "P", (None, None)).astype(np.float64)
        self.a1, self.a2 = (checks.array(a, name, (len(self.P),)).astype(np.float64) for a, name in ((a1, "a1"), (a2, "a2")))
        self.dim = self.P.shape[1]
        self._of_query, self._of_key = product(np.stack([self.a1, self.a2]), self.P)
        self.symmetric = bool((self._of_query == self._of_key).all())
        self.activation, self.derivative = activation, derivative
        if callable(activation):
            self.pair = Pair("general", function=_Activated(activation))
            if derivative is not None:
                checks.function(derivative, "derivative", "callable on arrays, or None")
        else:
            self.pair = Pair("additive", *_NAMED[checks.choice(activation, "activation", _NAMED)])
            if derivative is not None:
                raise ValueError(f"derivative must be None for the activation {activation!r}, which has its own")

    def __repr__(self) -> str:
        return display.shown("Additive", self.a1, self.a2, self.P, self.activation)

    @property
    def latex(self) -> str:
        sigma = "\\sigma" if callable(self.activation) else f"\\mathrm{{{self.activation}}}".replace("_", "\\_")
        return f"f(x, y) = -{sigma}(a_1^\\top P x + a_2^\\top P y)"

    @property
    def obstacle(self) -> str | None:
        return (
            "f = -activation(a1'Px + a2'Py) must be smallest at y = x to have a local limit, but tokens far away may be more "
            "alike than near ones; on a graph of near tokens there is one: give the layer its edges as mask"
        )

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return product(x, self._of_query[:, None])

    def key_features(self, y: np.ndarray) -> np.ndarray:
        return product(y, self._of_key[:, None])

    def metric(self, x: np.ndarray) -> np.ndarray:
        """Refused: y = x is no minimum."""
        raise ValueError(self.obstacle)

    def slope(self, x: np.ndarray) -> np.ndarray:
        """-activation'(u) P'a2, u = (a1 + a2)'Px: (N, n)."""
        x = checks.points(x, "x", self.dim)
        u = x @ (self._of_query + self._of_key)
        if self.pair.reduction == "additive":
            rate = _DERIVATIVES[self.pair.transform](u, self.pair.parameter)
        elif self.derivative is None:
            return super().slope(x)
        else:
            rate = checks.array(self.derivative(u), "derivative(u)", u.shape)
        return -rate[:, None] * self._of_key


@dataclass(frozen=True)
class _Activated:
    """f from the features of both tokens."""

    activation: Callable

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        r = u[..., 0] + v[..., 0]
        result = checks.reals(self.activation(r), "activation(r)")
        if result.shape != r.shape:
            raise ValueError(f"activation must return shape {r.shape} for an array of that shape, got {result.shape}")
        return -result
