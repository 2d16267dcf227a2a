"""Second and fourth moments of what a query sees where it chooses its keys: they depend on how many tokens there are around it.

In n dimensions, with t = N p(x) tokens per volume and f = h(d), each law below sees a radius or a temperature of its own. For
h = d^q, with V_n the volume of the unit ball, e = 2 eps, B the beta function and P the regularised incomplete gamma function,

    k nearest       t V_n r^n = k,                       m2 = e^(2/q) Gamma(a+) P(a+, u) / (n Gamma(a) P(a, u)),  u = r^q / e
    entmax          t n V_n R^(n + q m) B(a, m + 1) = q (e m)^m,    m2 = R^2 B(a+, m + 1) / (n B(a, m + 1))
    perplexity      t exp(n/q) n V_n e^(n/q) Gamma(a) / q = target,    m2 = e^(2/q) Gamma(a+) / (n Gamma(a))

with a = n/q, a+ = (n+2)/q. For q = 2 they are r^2 / (n + 2) at a high temperature, R^2 / (n + 2m + 2), and a Gaussian's:
one law p^(-2/(n + q m)), from m = 0, the k nearest, to softmax, m = infinity, with a temperature of its own in each place.
Fourth moments m4 are the same means of |z|^4, times 3 / (n (n + 2)) where m2 has 1 / n.

Sources: Ting, Huang & Jordan 2011 (k nearest); the rest derived for this package and checked numerically.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import betaln, digamma, gammainc, gammaln, poch, roots_jacobi, roots_legendre

_NODES, _TABLE, _HALVINGS = 96, 200, 60
_DEPTH = 60.0  # exp(-60) is nothing
_LEAST, _MOST = -60.0, 300.0  # logarithms of radii and temperatures


def ball(dim: int) -> float:
    """log V_n."""
    return dim / 2 * np.log(np.pi) - gammaln(dim / 2 + 1)


def nearest_moment(q: float | None, epsilon: float, dim: int, k: float, tokens: np.ndarray, order: int = 2) -> np.ndarray:
    """m2 of the k nearest keys with weights exp(-h / (2 eps)); q None: h = log(1 + d^2). tokens: N p at points (M,).

    With order = 4 it is m4, here and below.

    Examples
    --------
    >>> nearest_moment(2.0, 1e9, 1, 10, np.array([5.0])).round(8)     # r = 1, r^2 / 3
    array([0.33333333])
    """
    log_r = (np.log(k) - ball(dim) - np.log(tokens)) / dim
    if q is not None:
        a, b, log_e = dim / q, (dim + order) / q, np.log(2 * epsilon)
        mean = np.exp(order * log_r) * dim / (dim + order)
        u = np.exp(np.minimum(q * log_r - log_e, _MOST))
        some = (u > 1e-8) & (gammainc(b, u) > 0)  # for small u both functions vanish
        log_ratio = np.log(gammainc(b, u[some])) - np.log(gammainc(a, u[some]))
        mean[some] = np.exp(order / q * log_e + gammaln(b) - gammaln(a) + log_ratio)
        return mean * _each(dim, order)
    with np.errstate(over="ignore"):
        r = np.minimum(np.exp(log_r), np.sqrt(np.expm1(min(2 * epsilon * _DEPTH, 600.0))))
    t, w = roots_legendre(_NODES)
    rho = r[:, None] * ((1 + t) / 2) ** 2  # denser at 0
    weight = w * ((1 + t) / 2) * rho ** (dim - 1) * (1 + rho**2) ** (-0.5 / epsilon)
    return np.asarray((weight * rho**order).sum(axis=1) / weight.sum(axis=1) * _each(dim, order))


def entmax_moment(q: float | None, epsilon: float, dim: int, power: float, tokens: np.ndarray, order: int = 2) -> np.ndarray:
    """m2 of weights (T - h / (2 eps))_+^m that sum to one over `tokens` keys per volume (M,).

    Examples
    --------
    Sparsemax, f = d^2: R^(n+2) = (n + 2) eps / (N V_n p), m2 = R^2 / (n + 4).

    >>> R = (3 * 0.5 / (2 * 40.0)) ** (1 / 3)
    >>> bool(np.isclose(entmax_moment(2.0, 0.5, 1, 1.0, np.array([40.0])), R**2 / 5)[0])
    True
    """
    m = power
    if q is not None:
        R = np.exp(entmax_log_radius(q, epsilon, dim, m, np.log(tokens)))
        return R**order * np.exp(betaln((dim + order) / q, m + 1) - betaln(dim / q, m + 1)) * _each(dim, order)
    t, w = roots_jacobi(_NODES, m, dim - 1)
    rho = (1 + t) / 2

    def parts(log_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        R = np.exp(log_R)[:, None]
        depth = np.log1p(R**2 * (1 - rho**2) / (1 + R**2 * rho**2)) / (1 - t) * 2  # (h(R) - h) / (1 - rho)
        weight = w * depth**m
        return weight.sum(axis=1), (weight * rho**order).sum(axis=1)

    def logarithm(log_R: np.ndarray) -> np.ndarray:  # of the sum over one token per volume
        scale = np.log(dim) + ball(dim) - (m + dim) * np.log(2)
        return scale + dim * log_R - m * np.log(2 * epsilon * m) + np.log(parts(log_R)[0])

    log_R = _solve(logarithm, -np.log(tokens))
    total, above = parts(log_R)
    return np.exp(order * log_R) * above / total * _each(dim, order)


def entmax_log_radius(q: float, epsilon: float, dim: int, power: float, log_tokens: np.ndarray) -> np.ndarray:
    """log R for h = d^q."""
    known = np.log(q) + power * np.log(2 * epsilon * power) - np.log(dim) - ball(dim) - betaln(dim / q, power + 1)
    return (known - log_tokens) / (dim + q * power)


def entmax_log_epsilon(q: float, dim: int, power: float, log_radius: float, log_tokens: float) -> float:
    """log eps at which that is log R."""
    volume = np.log(dim) + ball(dim) + betaln(dim / q, power + 1) - np.log(q)
    return float(((dim + q * power) * log_radius + log_tokens + volume) / power - np.log(2 * power))


def perplexity_moment(q: float | None, dim: int, target: float, tokens: np.ndarray, order: int = 2) -> np.ndarray:
    """m2 at temperatures at which rows among `tokens` keys per volume (M,) have the target perplexity.

    Examples
    --------
    >>> s = (20 / 300.0) ** 2 / (2 * np.pi * np.e)     # a line: N p sqrt(2 pi e s)
    >>> bool(np.isclose(perplexity_moment(2.0, 1, 20.0, np.array([300.0])), s)[0])
    True
    """
    wanted = np.log(target) - np.log(tokens)
    if q is not None:
        a, b = dim / q, (dim + order) / q
        log_e = (wanted - a - np.log(dim) - ball(dim) - gammaln(a) + np.log(q)) / a
        return np.exp(order / q * log_e + gammaln(b) - gammaln(a)) * _each(dim, order)
    largest = 2 / (dim + 2)

    def entropy(log_e: np.ndarray) -> np.ndarray:
        b = np.exp(-log_e)
        mean = np.where(b < 1e6, b * (digamma(b) - digamma(b - dim / 2)), dim / 2)  # of h / e
        return dim / 2 * np.log(np.pi) - np.log(poch(b - dim / 2, dim / 2)) + mean

    if not (wanted < entropy(np.log(largest * (1 - 1e-9)))).all():
        raise ValueError(
            f"target must be smaller for log(1 + d^2) to have a second moment in dimension {dim}, got {target:g} among "
            f"{tokens.min():.3g} tokens per volume"
        )
    e = np.exp(_solve(entropy, wanted, np.log(largest * (1 - 1e-9))))
    m2 = e / (2 - (dim + 2) * e)
    if order == 2:
        return m2
    return np.where((dim + 4) * e < 2, 3 * e * m2 / np.where((dim + 4) * e < 2, 2 - (dim + 4) * e, 1.0), np.inf)


def _each(dim: int, order: int) -> float:
    """Of the mean of |z|^order, what it is per coordinate: the mean of z_1^order."""
    return 1 / dim if order == 2 else 3 / (dim * (dim + 2))


def _solve(function: Callable, wanted: np.ndarray, most: float = _MOST) -> np.ndarray:
    """x with function(x) = wanted for a growing function: halved on a table, and a spline between."""
    low, high = float(wanted.min()), float(wanted.max())
    goals = np.linspace(low, high, _TABLE) if high - low > 1e-12 else np.array([low])
    below, above = np.full(len(goals), _LEAST), np.full(len(goals), most)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        with np.errstate(all="ignore"):
            short = ~(function(middle) >= goals)
        below, above = np.where(short, middle, below), np.where(short, above, middle)
    x = (below + above) / 2
    return CubicSpline(goals, x)(wanted) if len(goals) > 1 else np.full(wanted.shape, x[0])
