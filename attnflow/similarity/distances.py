"""Pseudo-metrics made of distances: d^2, d^q, log(1 + d^2), Mahalanobis, and distances of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks, display
from ..geometry import Box, Euclidean, Space, Sphere, Torus
from ..geometry.differences import partial_derivatives
from ..geometry.tensors import compare
from .moments import log_moments, power_moments
from .pairs import Pair
from .products import product, square
from .pseudometrics import PseudoMetric

_PROBES = 64  # tokens at which a Jacobian that moves them is compared with differences


class _Distance(PseudoMetric):
    """h(d) of the geodesic distance d of a space; its metric is the space's own.

    Its similarity is positive definite in flat space for d^q with q <= 2 and, since it is completely monotone in d^2,
    for log(1 + d^2) (Schoenberg 1938); on spheres for q <= 1 (Gneiting 2013, theorem 1). Nearest images on a torus
    leave no guarantee.
    """

    dim: int
    space: Space

    def __init__(self, space: Space, transform: str = "identity", parameter: float = 0.0) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if isinstance(space, Torus):
            self.pair = Pair("wrapped", transform, parameter, period=space.lengths)
        elif isinstance(space, (Euclidean, Box, Sphere)):
            self.pair = Pair("squared", transform, parameter, geodesic=isinstance(space, Sphere))
        else:
            raise ValueError(
                f"space must have its distance in closed form, got {type(space).__name__}; "
                "use SquaredMap(phi) with the map phi behind Chart.pullback"
            )
        self.space, self.dim, self.symmetric = space, space.dim, True
        powers = {"identity": 2.0, "power": parameter, "log1p": 2.0}
        largest = {"squared": 1.0 if self.pair.geodesic else 2.0}.get(self.pair.reduction, 0.0)
        self.positive_definite = powers[transform] <= largest

    def __repr__(self) -> str:
        options = {"q": self.pair.parameter} if self.pair.transform == "power" else {}
        return display.shown(type(self).__name__, self.space, **options)

    @property
    def latex(self) -> str:
        powers = {"identity": "d(x, y)^2", "log1p": "\\log(1 + d(x, y)^2)"}
        value = powers.get(self.pair.transform, f"d(x, y)^{{{display.latex_number(self.pair.parameter)}}}")
        return f"f(x, y) = {value}, \\quad x, y \\in {self.space.latex}"

    def query_features(self, x: np.ndarray) -> np.ndarray:
        """On a torus less whole turns, which loses nothing: differences of far coordinates would."""
        if self.pair.period is None or not any((abs(x[..., k]) >= p).any() for k, p in enumerate(self.pair.period)):
            return x
        x = x.copy()
        for k, period in enumerate(self.pair.period):
            x[..., k] = np.fmod(x[..., k], period)
        return x

    def metric(self, x: np.ndarray) -> np.ndarray:
        return self.space.metric(x)


class SquaredDistance(_Distance):
    """f = d^2, d the geodesic distance of the space (nearest image on a torus).

    Gaussian similarity of variance eps: m2 = eps.

    Examples
    --------
    >>> import attnflow as af
    >>> af.SquaredDistance(af.Circle())([[0.1]], [[6.2]]).round(6)
    array([[0.033557]])
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, None]:
        return of_queries + of_keys, None


class PowerDistance(_Distance):
    """f = d^q, q > 0; m2 = e^(2/q) Gamma((n+2)/q) / (n Gamma(n/q)), e = 2 eps.

    Parameters
    ----------
    space : Space
    q : float
        Positive exponent.

    Examples
    --------
    >>> import attnflow as af
    >>> af.PowerDistance(af.Euclidean(2), 1.5).second_moment(0.05, 2).round(10)
    np.float64(0.0391029172)
    """

    def __init__(self, space: Space, q: float) -> None:
        self.q = self.exponent = checks.positive(q, "q")
        super().__init__(space, "power", self.q)

    def moments(self, epsilon: float, dim: int | None = None) -> tuple[float, float]:
        return power_moments(self.q, epsilon, self.dim if dim is None else dim)


class LogDistance(_Distance):
    """f = log(1 + d^2): similarity (1 + d^2)^(-1/(2 eps)), a Student kernel; m2 = e / (2 - (n+2) e).

    Examples
    --------
    >>> import attnflow as af
    >>> af.LogDistance(af.Euclidean(2)).second_moment(0.05, 2)
    0.0625
    """

    exponent = None

    def __init__(self, space: Space) -> None:
        super().__init__(space, "log1p")

    def moments(self, epsilon: float, dim: int | None = None) -> tuple[float, float]:
        return log_moments(epsilon, self.dim if dim is None else dim)


class Mahalanobis(PseudoMetric):
    """f = (x - y)' G (x - y) on flat space; the metric is G.

    Parameters
    ----------
    G : (n, n) array
        Symmetric positive definite.

    Examples
    --------
    >>> import attnflow as af
    >>> af.Mahalanobis([[2.0, 0.0], [0.0, 1.0]])([[0.0, 0.0]], [[1.0, 1.0]]).round(12)
    array([[3.]])
    """

    dim: int

    def __init__(self, G: np.ndarray) -> None:
        self.G = checks.spd(square(G, "G"), "G")
        self.dim, self.symmetric, self.pair = len(self.G), True, Pair("squared")
        self.positive_definite = True
        self._factor = np.linalg.cholesky(self.G)

    def __repr__(self) -> str:
        return display.shown("Mahalanobis", self.G)

    @property
    def latex(self) -> str:
        return rf"f(x, y) = (x - y)^\top {self.metric_latex} (x - y)"

    @property
    def metric_latex(self) -> str:
        return display.latex_array(self.G, "G")

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return product(x, self._factor)

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """With G = L L' and features L'x, the gradient with respect to G is L'^-1 (sum of du x' + dw x') / 2, symmetric."""
        of_features = of_queries + of_keys
        # they add up to zero: an offset of the points does not matter
        of_G = np.linalg.solve(self._factor.T, of_features.T @ (x - x.mean(axis=0))) / 2
        return of_features @ self._factor.T, of_G / 2 + of_G.T / 2

    def metric(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.G, (*checks.coordinates(x, "x", self.dim).shape, self.dim))


class SquaredMap(PseudoMetric):
    """f = |phi(x) - phi(y)|^2; the metric is the pull-back J'J (metric-attention).

    Parameters
    ----------
    phi : callable
        Points (..., n) -> (..., m), injective, with a Jacobian of full rank.
    jacobian : callable, optional
        Points (..., n) -> (..., m, n); by checked differences when None.
    vjp : callable, optional
        Points (N, n) and the gradient of a loss with respect to phi of them (N, m) -> that with respect to the parameters of
        phi, as any object: what `Attention.vjp` returns as `.parameters`.

    Examples
    --------
    >>> import attnflow as af
    >>> circle = lambda x: np.concatenate([2 * np.cos(x), np.sin(x)], axis=-1)
    >>> af.SquaredMap(circle).metric(np.array([[0.0]])).round(8)   # ellipse with half axes 2, 1
    array([[[1.]]])
    """

    dim = None

    def __init__(self, phi: Callable, jacobian: Callable | None = None, vjp: Callable | None = None) -> None:
        for value, name in ((phi, "phi"), (jacobian, "jacobian"), (vjp, "vjp")):
            if not callable(value) and (name == "phi" or value is not None):
                raise TypeError(f"{name} must be callable on points (..., n), got {type(value).__name__}")
        self.phi, self.jacobian, self.vjp = phi, jacobian, vjp
        self.symmetric, self.pair, self.positive_definite = True, Pair("squared"), True

    def __repr__(self) -> str:
        return display.shown("SquaredMap", self.phi)

    @property
    def latex(self) -> str:
        phi = display.latex_name(self.phi, r"\varphi")
        return f"f(x, y) = |{phi}(x) - {phi}(y)|^2"

    @property
    def metric_latex(self) -> str:
        phi = display.latex_name(self.phi, r"\varphi")
        return rf"J^\top J, \quad J = \nabla {phi}"

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return self._image(x)

    def metric(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", None)
        J = self._derivative(x, x)
        return np.swapaxes(J, -1, -2) @ J

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, Any]:
        of_features = of_queries + of_keys
        of_points = np.einsum("imn,im->in", self._derivative(x, x[:_PROBES]), of_features)
        return of_points, None if self.vjp is None else self.vjp(x, of_features)

    def _derivative(self, x: np.ndarray, probes: np.ndarray) -> np.ndarray:
        """J at x; a given one is compared with differences at the probes."""

        def numerical(x: np.ndarray) -> np.ndarray:
            return partial_derivatives(self._image, x, "phi")

        if self.jacobian is None:
            return numerical(x)
        compare(self.jacobian, numerical, probes)
        return checks.array(self.jacobian(x), "jacobian(points)", (*x.shape[:-1], None, x.shape[-1]))

    def _image(self, x: np.ndarray) -> np.ndarray:
        image = checks.array(self.phi(x), "phi(points)")
        if image.shape[:-1] != x.shape[:-1] or image.ndim == 0:
            raise ValueError(f"phi must map points (..., n) to (..., m), got {image.shape} for {x.shape}")
        return image
