"""What a pseudo-metric is: any real f(x, y), small where points are alike.

The similarity is exp(-f / (2 eps)). Near the diagonal f = g_x(x - y, x - y) + ..., so half its
Hessian in y is the metric tensor g the tokens feel (Ruan & Zhang 2024, Theorem 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import checks, display
from ..geometry import Space
from . import pairs
from .expressions import Expression, read
from .folding import folding
from .pairs import Pair

_DENSE = 2**26  # most pairs evaluated at once


class PseudoMetric(display.Typeset):
    """Your own pseudo-metric: a sympy expression, or a function of two points.

    Parameters
    ----------
    f : sympy expression in x0, x1, ..., y0, y1, ..., or callable
        A callable takes points (..., n) and (..., n) that broadcast, and returns (...). The numba engine compiles an
        expression, with what depends on one token alone computed once per token, if the rest is made of sums, products,
        powers by numbers, exp, log, trigonometric and hyperbolic functions, Abs, Min, Max, floor and Piecewise: a pair
        then costs up to five times one of a squared distance. Python evaluates a callable, and other expressions, at 15
        to 40 times that cost; `Attention.plan` says which.
    dim : int
        The dimension n of the points.

    Attributes
    ----------
    dim : int or None
        Dimension, where f fixes one.
    symmetric : bool or None
        Whether f(x, y) = f(y, x); None when only evaluation can tell.
    pair : Pair
        How engines compute it.
    positive_definite : bool
        Whether exp(-f / (2 eps)) is known to be positive (semi)definite for every eps and any points; False where
        that is false or nobody has proved it.

    Raises
    ------
    TypeError
        If f is a string: parsing it would execute it. Build the expression with sympy.
    ValueError
        If an expression has other variables, functions without a definition, or complex values.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> f = af.PseudoMetric(lambda x, y: 1 - np.cos(x[..., 0] - y[..., 0]), dim=1)
    >>> f.metric(np.array([[0.3]])).round(8)
    array([[[0.5]]])
    """

    dim: int | None
    space: Space | None = None
    positive_definite = False
    exponent: float | None = 2.0  # q of f = d^q near y = x, d the distance of `metric`; None: log(1 + d^2)

    @property
    def obstacle(self) -> str | None:
        """Why many layers of f have no limit equation, and what can be done about it; None if nothing is known of that."""
        return None

    def __init__(self, f: Callable, dim: int) -> None:
        self.dim = checks.integer(dim, "dim", least=1)
        self.symmetric: bool | None = None
        self._f: Any = _as_function(f, self.dim)
        self.pair = Pair("general", function=self._f)

    def __repr__(self) -> str:
        return display.shown(type(self).__name__, self.pair.function, **({} if self.dim is None else {"dim": self.dim}))

    @property
    def latex(self) -> str:
        """f(x, y) in LaTeX."""
        function = self.pair.function
        if isinstance(function, Expression):
            return f"f(x, y) = {function.latex}"
        name = "f" if function is None else display.latex_name(function, "f")
        return "f(x, y)" if name == "f" else f"f(x, y) = {name}(x, y)"

    @property
    def metric_latex(self) -> str:
        """The metric tensor that it induces."""
        return rf"\frac{{1}}{{2}} \nabla_y^2 f |_{{y = x}}, \quad {self.latex}"

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """f for all pairs of points (M, n), (N, n): (M, N)."""
        x, y = self.check(x, "x"), self.check(y, "y")
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"y must have {x.shape[1]} columns as x has, got shape {y.shape}")
        if len(x) * len(y) > _DENSE:
            raise ValueError(
                f"x and y must make at most {_DENSE} pairs, got {len(x)} x {len(y)}: {8.0 * len(x) * len(y):.3g} bytes"
            )
        return self.evaluate(self.query_features(x), self.key_features(y))

    def check(self, x: np.ndarray, name: str = "tokens") -> np.ndarray:
        """Points that f accepts, or a ValueError naming the argument."""
        return self.space.check(x, name) if self.space else checks.points(x, name, self.dim)

    def query_features(self, x: np.ndarray) -> np.ndarray:
        """phi(x): (M, m) rows the engines reduce, from points (M, n)."""
        return x

    def key_features(self, y: np.ndarray) -> np.ndarray:
        """psi(y): (N, m); the same map as for queries unless f is asymmetric."""
        return self.query_features(y)

    def evaluate(self, u: np.ndarray, v: np.ndarray, first: pairs.Numbers = (0, 0)) -> np.ndarray:
        """f for all pairs of feature rows (M, m), (N, m): (M, N). Messages number rows by `first`."""
        return self.paired(u[:, None, :], v[None, :, :], first)

    def paired(self, u: np.ndarray, v: np.ndarray, first: pairs.Numbers = (0, 0)) -> np.ndarray:
        """f for feature rows (..., m) and (..., m), broadcast against each other: (...)."""
        return pairs.evaluate(self.pair, u, v, first)

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """f(x_i, x_i): (N,)."""
        return self.paired(self.query_features(x), self.key_features(x))

    def slope(self, x: np.ndarray) -> np.ndarray:
        """Gradient of f(x, y) in y at y = x: (N, n), which way f falls from a token; for limits on graphs."""
        x = checks.points(x, "x", self.dim)
        u = self.query_features(x)
        return _derivatives_in_y(lambda y: self.paired(u, self.key_features(y)), x, 5e-3)[0]

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, Any]:
        """Gradients of a loss with respect to the points (N, n), and to parameters of f, from those of their features (N, m)."""
        raise NotImplementedError(f"{type(self).__name__} has no derivatives of its features")

    def transposed(self) -> PseudoMetric:
        """f with its arguments swapped."""
        return self if self.symmetric else _Transposed(self)

    def metric(self, x: np.ndarray) -> np.ndarray:
        """Induced metric tensor g = Hess_y f(x, y) / 2 at y = x: (..., n, n).

        Raises
        ------
        ValueError
            If y = x is not a minimum of f(x, .) at some x: the limit is then not local.
        """
        x = checks.coordinates(x, "x", self.dim)
        (gradient, hessian), (_, wider) = (
            _derivatives_in_y(lambda y: pairs.evaluate(self.pair, x, y), x, step) for step in (5e-3, 1e-2)
        )
        size = np.abs(hessian).max(axis=(-1, -2))
        slope = np.abs(gradient).max(axis=-1)
        if (slope > 1e-5 * size).any():
            where = x[np.unravel_index(np.argmax(slope), slope.shape)]
            raise ValueError(
                f"f must be smallest at y = x to have a local limit, got a slope of {slope.max():.3g} at x = {checks.entries(where)}"
            )
        if (np.abs(hessian - wider).max(axis=(-1, -2)) > 1e-3 * size).any():
            raise ValueError(
                "f must be quadratic near y = x to have a metric, but its second differences depend on their step; "
                "for powers of a distance use PowerDistance"
            )
        return checks.spd(hessian / 2, "f.metric", x)

    def lean(self, x: np.ndarray) -> np.ndarray:
        """g^kl d^3 f(x, y) / (dy_j dy_k dy_l) at y = x: (..., n), which way f is steeper; for asymmetric limits."""
        x = checks.coordinates(x, "x", self.dim)
        inverse, steps = np.linalg.inv(self.metric(x)), 2e-2 * np.eye(x.shape[-1])
        third = []
        for e in steps:  # fourth-order differences of the Hessian
            far, near = (
                _derivatives_in_y(lambda y: pairs.evaluate(self.pair, x, y), x + s * e, 5e-3)[1]
                - _derivatives_in_y(lambda y: pairs.evaluate(self.pair, x, y), x - s * e, 5e-3)[1]
                for s in (2, 1)
            )
            third.append((8 * near - far) / (12 * e.sum()))
        return np.einsum("...kl,j...kl->...j", inverse, np.stack(third))

    def second_moment(self, epsilon: float, dim: int | None = None) -> float:
        """m2: second moment per coordinate of the normalised similarity, in units of `metric`."""
        return self.moments(epsilon, dim)[0]

    def moments(self, epsilon: float, dim: int | None = None) -> tuple[float, float]:
        """(m2, m4); a pseudo-metric that is quadratic near its minimum has the Gaussian's."""
        epsilon = checks.positive(epsilon, "epsilon")
        if dim is not None:
            checks.integer(dim, "dim", least=1)
        return epsilon, 3 * epsilon * epsilon  # a power would raise on overflow

    def defects(self, tokens: np.ndarray) -> dict[str, float]:
        """How far f is from a squared distance on (at most 200 of) the tokens: all zero for one, and `folding` one.

        An infinite f counts as a very large one.

        Returns
        -------
        dict
            ``asymmetry``: largest abs(f(x, y) - f(y, x)). ``negativity``: how far f falls below zero.
            ``triangle``: largest violation of the triangle inequality by sqrt(f + c), c the constant
            that makes f nonnegative (a constant changes no attention weight).
            ``indefiniteness``: minus the lowest eigenvalue of the centred Gram matrix -J F J / 2 over its
            largest in magnitude; zero exactly for squared Euclidean distances (Schoenberg).
            ``folding``: shortest chord sqrt(f) over length under `metric`, along the line between two of (at most 100 of)
            the tokens: one if f is that of a linear map, zero where a map makes distant tokens one; nan without a metric.

        Examples
        --------
        >>> import attnflow as af
        >>> f = af.PowerDistance(af.Euclidean(1), 4.0)
        >>> f.defects([[0.0], [1.0], [2.0]])["triangle"]   # d^4 is the square of no distance
        2.0
        """
        tokens = self.check(tokens)
        tokens = tokens[np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), 200)).astype(int))]
        f = self(tokens, tokens)
        root = np.sqrt(f - min(f.min(), 0.0))
        detour = np.min([root[:, k, None] + root[k] for k in range(len(f))], axis=0)
        infinite = np.isinf(f)
        half = infinite / 2 + infinite.T / 2 if infinite.any() else f / 2 + f.T / 2
        centred = half - half.mean(axis=0) - half.mean(axis=1)[:, None] + half.mean()
        spectrum = np.linalg.eigvalsh(-centred / 2)
        return {
            "asymmetry": float(_asymmetry(f).max()),
            "negativity": float(max(0.0, -f.min())),
            "triangle": float(max(0.0, np.subtract(root, detour, out=np.zeros_like(root), where=root > detour).max())),
            "indefiniteness": float(max(0.0, -spectrum[0]) / max(np.abs(spectrum).max(), np.finfo(float).tiny)),
            "folding": folding(self, tokens),
        }

    def is_symmetric(self, tokens: np.ndarray) -> bool:
        """Whether f(x, y) = f(y, x), by its description or on (some of) the tokens: to 1e-9 of the spread of f, or to
        its rounding, and infinite both ways or neither."""
        tokens = self.check(tokens)
        if self.symmetric is not None:
            return self.symmetric
        chosen = np.random.default_rng(0).choice(len(tokens), min(len(tokens), 128), replace=False)
        some = tokens[chosen]
        f = self(some, some)
        finite = f[np.isfinite(f)]
        if finite.size == 0:
            return True
        high, low = finite.max() / 2, finite.min() / 2
        allowed = max(1e-9 * (high - low), 4 * np.finfo(float).eps * max(high, -low))
        return bool(_asymmetry(f / 2).max() <= allowed)


class _Transposed(PseudoMetric):
    """f(y, x): queries and keys change places."""

    def __init__(self, f: PseudoMetric) -> None:
        self._f, self.dim, self.space, self.symmetric = f, f.dim, f.space, f.symmetric
        function = f.pair.function
        swapped = None if function is None else _swapped(function)
        self.pair = Pair(f.pair.reduction, f.pair.transform, f.pair.parameter, f.pair.period, f.pair.geodesic, swapped)

    def __repr__(self) -> str:
        return f"{display.cut(repr(self._f), 100)}.transposed()"

    @property
    def latex(self) -> str:
        return rf"h(x, y) = f(y, x), \quad {self._f.latex}"

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return self._f.key_features(x)

    def key_features(self, y: np.ndarray) -> np.ndarray:
        return self._f.query_features(y)


def _as_function(f, dim: int) -> Callable:
    if type(f).__module__.partition(".")[0] == "sympy":
        return read(f, dim)
    if not callable(f):
        hint = "; a string would have to be executed: build the expression with sympy" if isinstance(f, str) else ""
        raise TypeError(f"f must be a sympy expression or a callable of two points, got {type(f).__name__}{hint}")
    return f


def _swapped(function: Callable) -> Callable:
    """The user's function of (y, x); an expression stays one, which engines can compile."""
    return function.transposed() if isinstance(function, Expression) else partial(_call_swapped, function)


def _call_swapped(function: Callable, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return function(v, u)


def _asymmetry(f: np.ndarray) -> np.ndarray:
    """|f - f'|, 0 where both are infinite."""
    return np.abs(np.subtract(f, f.T, out=np.zeros_like(f), where=f != f.T))


def _derivatives_in_y(f: Callable, x: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (..., n) and Hessian (..., n, n) of f at x, by fourth-order central differences.

    At a step of 5e-3 the truncation h^4 and the round-off 1e-16 / h^2 are both near 1e-10.
    """
    n = x.shape[-1]
    e = step * np.eye(n)
    first = np.array([[1, -2], [-8, -1], [8, 1], [-1, 2]]).T  # weights / 12 at -2, -1, 1, 2 steps
    gradient = np.stack([sum(w * f(x + s * e[k]) for w, s in zip(*first)) / (12 * step) for k in range(n)], axis=-1)
    hessian = np.empty((*x.shape, n))
    for j in range(n):
        for k in range(j + 1):
            along, across = e[j] + e[k], e[j] - e[k]
            # polarisation: 4 f_jk = f''(along) - f''(across), in units of step^2
            value = _second(f, x, along) - (_second(f, x, across) if j != k else 0.0)
            hessian[..., j, k] = hessian[..., k, j] = value / (4 * step**2)
    return gradient, hessian


def _second(f: Callable, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Second derivative along `direction` (its length squared included)."""
    outer, inner = (f(x + s * direction) + f(x - s * direction) for s in (2, 1))
    return (16 * inner - outer - 30 * f(x)) / 12
