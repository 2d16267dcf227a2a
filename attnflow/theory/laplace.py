"""Gaussian expansion of an integral around the minimum of its exponent, to any order, as algebra.

With y = y* + sigma u, sigma^2 = eps, the exponent is a quadratic form plus higher terms of f's Taylor
series. Those are expanded with the test function exp(sigma h.u), whose coefficient of h^a is d^a / dy^a
acting at y*, and the Gaussian moments of u are taken monomial by monomial:

    integral exp(-(f(y) - f(y*)) / (2 eps)) F(y) dy  ~  (4 pi eps)^(n/2) det(C)^(-1/2) sum_k eps^k (G_k F)(y*),

C the Hessian of f at y*. Nothing is integrated by sympy: all happens in one ring of polynomials.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from math import factorial, prod

import sympy
from sympy.polys.rings import PolyElement, ring

Index = tuple[int, ...]


def indices(dim: int, order: int) -> list[Index]:
    """All multi-indices of the given order."""
    return [a for a in itertools.product(range(order + 1), repeat=dim) if sum(a) == order]


def gaussian_expansion(
    derivatives: Mapping[Index, sympy.Expr], covariance: sympy.Matrix, order: int
) -> list[dict[Index, sympy.Expr]]:
    """Coefficients [k][a] of eps^k d^a/dy^a in G.

    Parameters
    ----------
    derivatives : mapping
        Partial derivatives of f at its minimum, by multi-index, of the orders 3 to 2 * order + 2.
    covariance : (n, n) sympy Matrix
        Of u: twice the inverse Hessian of f, since exp(-u'Cu/4) is a Gaussian of covariance 2 C^-1.
    order : int
        Highest power of eps.
    """
    n = covariance.shape[0]
    known = {a: f for a, f in derivatives.items() if 3 <= sum(a) <= 2 * order + 2 and f != 0}
    pairs = list(itertools.combinations_with_replacement(range(n), 2))
    names = [*(f"h{i}" for i in range(n)), *(f"u{i}" for i in range(n)), *(f"s{i}{j}" for i, j in pairs)]
    _, *generators = ring(names + [f"f{k}" for k in range(len(known))], sympy.QQ)
    h, u = generators[:n], generators[n : 2 * n]
    s = dict(zip(pairs, generators[2 * n :]))
    f = dict(zip(known, generators[2 * n + len(pairs) :]))

    one = h[0] ** 0
    exponent = [0 * one for _ in range(2 * order + 1)]
    for a, f_a in f.items():
        exponent[sum(a) - 2] -= f_a * _monomial(u, a) * sympy.QQ(1, 2 * prod(map(factorial, a)))
    if order:
        exponent[1] += sum(h_i * u_i for h_i, u_i in zip(h, u))
    series = [one]  # exp of the exponent: k W_k = sum_j j E_j W_(k-j)
    for k in range(1, 2 * order + 1):
        series.append(sum(j * exponent[j] * series[k - j] for j in range(1, k + 1)) * sympy.QQ(1, k))

    moments: dict[Index, PolyElement] = {(0,) * n: one}

    def moment(a: Index) -> PolyElement:
        """E[u^a] by Stein's identity, E[u_i F(u)] = sum_j s_ij E[d_j F]."""
        if a not in moments:
            i = next(k for k, times in enumerate(a) if times)
            rest = _less(a, i)
            moments[a] = sum((rest[j] * s[min(i, j), max(i, j)] * moment(_less(rest, j)) for j in range(n) if rest[j]), 0 * one)
        return moments[a]

    absent = [sympy.S.Zero] * (2 * n)  # h and u: averaged, or counted by the index
    values = [*absent, *(covariance[i, j] for i, j in pairs), *known.values()]
    expansion = []
    for W in series[::2]:  # odd powers of sigma have odd moments only
        mean: defaultdict[Index, PolyElement] = defaultdict(lambda: 0 * one)
        for powers, number in W.terms():
            rest = _monomial(generators[2 * n :], powers[2 * n :])
            mean[powers[:n]] += moment(powers[n : 2 * n]) * rest * number
        expansion.append({a: m.as_expr(*values) for a, m in mean.items() if m})
    return expansion


def _monomial(generators, powers: Index) -> PolyElement:
    return prod((g**k for g, k in zip(generators, powers)), start=generators[0] ** 0)


def _less(a: Index, i: int) -> Index:
    return tuple(k - (j == i) for j, k in enumerate(a))
