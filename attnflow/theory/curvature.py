"""What an isotropic similarity does on a space of constant curvature: a polynomial in the Laplacian.

The mean of F over the geodesic sphere of radius r around x is a function of the Laplacian alone; Darboux's
equation gives its Taylor series. Averaged over r it is the similarity's action G before normalising.
"""

from __future__ import annotations

import itertools
from math import factorial

import sympy

from .. import checks
from .algebra import combine, inverse, vanishes
from .formulas import EPSILON, dimension, expression
from .moments import DIMENSION, DISTANCE, profile
from .operators import tensor

LAPLACIAN = sympy.Symbol("Delta")
CURVATURE = sympy.Symbol("K", real=True)
M2, M4 = sympy.symbols("m2 m4", positive=True)


def spherical_mean(n: sympy.Expr = DIMENSION, K: sympy.Expr = CURVATURE) -> list[sympy.Expr]:
    """Coefficients of 1, r^2, r^4 of the mean over a sphere of radius r, as polynomials in Delta.

    Solves Darboux's equation M'' + (n - 1) (log s)' M' = Delta M, M(0) = 1, order by order in r^2; s(r)^(n-1)
    is the area of the sphere, s(r) = sin(r sqrt K) / sqrt K.

    Examples
    --------
    >>> spherical_mean(K=0)[1:]
    [Delta/(2*n), Delta**2/(8*n*(n + 2))]
    """
    n, K = dimension(n, "n"), expression(K, "K")
    r, unknown = DISTANCE, sympy.Symbol("unknown")
    slope = 1 / r + 2 * _bend(K) * r  # (log s)'
    coefficients = [sympy.S.One]
    for k in (1, 2):
        M = sum(c * r ** (2 * j) for j, c in enumerate([*coefficients, unknown]))
        equation = sympy.expand(sympy.diff(M, r, 2) + (n - 1) * slope * sympy.diff(M, r) - LAPLACIAN * M)
        coefficients.append(sympy.factor(sympy.solve(equation.coeff(r, 2 * k - 2), unknown)[0]))
    return coefficients


def radial_expansion(
    h: sympy.Expr | None = None, n: sympy.Expr = DIMENSION, K: sympy.Expr = CURVATURE
) -> tuple[sympy.Expr, sympy.Expr]:
    """G = 1 + G_1 + G_2 + ... of the similarity exp(-h(d) / (2 eps)): polynomials in Delta, G_k of order eps^k.

    d is the geodesic distance of a space of dimension n and constant curvature K.

    Parameters
    ----------
    h : sympy expression in a symbol named d, or None
        c d^2 + O(d^4): expanded around its minimum. None: any isotropic similarity whose moments in R^n are
        m2 and m4 (and whose shape does not change with eps), kept as symbols; `moments` has them.
    n, K : sympy expression or number

    Returns
    -------
    G_1, G_2 : sympy.Expr
        In Delta.

    Raises
    ------
    ValueError
        If h does not begin with c d^2, c > 0, and go on with d^4.

    References
    ----------
    Derived here. Coifman & Lafon 2006, appendix B, has G_1.

    Examples
    --------
    >>> radial_expansion(sympy.Symbol("d") ** 2, K=0)
    (Delta*epsilon/2, Delta**2*epsilon**2/8)
    >>> radial_expansion(sympy.Symbol("d") ** 2, n=2, K=1)[1]     # geodesic Gaussian on the unit sphere
    Delta*epsilon**2*(3*Delta - 2)/24
    """
    n, K = dimension(n, "n"), expression(K, "K")
    if h is None:
        c4, means = 0, [1, n * M2, n * (n + 2) * M4 / 3, sympy.nan]
    else:
        c2, c4 = _taylor(profile(h))
        means = [sympy.prod(n + 2 * j for j in range(k)) * (EPSILON / c2) ** k for k in range(4)]
    _, first, second = spherical_mean(n, K)
    # the weight exp(-h / (2 eps)) s^(n-1) is the flat kernel's times 1 + bent r^2 + quartic r^4 + smaller
    bent, quartic = (n - 1) * _bend(K), -c4 / (2 * EPSILON)
    shift = sum(w * (means[k + 1] - means[1] * means[k]) for k, w in ((1, bent), (2, quartic)) if w != 0)
    return sympy.factor(first * means[1]), sympy.factor(second * means[2] + first * shift)


def constant_curvature(metric: int | sympy.Matrix) -> sympy.Expr:
    """The sectional curvature K of a metric for which it is constant: R_abcd = K (g_ac g_bd - g_ad g_bc).

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> x0 = sympy.Symbol("x0")
    >>> constant_curvature(sympy.diag(1, sympy.sin(x0) ** 2))
    1
    """
    g = tensor(metric)
    n, raised = g.shape[0], inverse(g)
    x = sympy.symbols(f"x0:{n}", real=True)
    axes = range(n)

    def lowered(a: int, b: int, c: int) -> sympy.Expr:
        return (sympy.diff(g[a, b], x[c]) + sympy.diff(g[a, c], x[b]) - sympy.diff(g[b, c], x[a])) / 2

    # G[a][b][c]: the Christoffel symbols
    G = [[[sum(raised[a, d] * lowered(d, b, c) for d in axes) for c in axes] for b in axes] for a in axes]

    def riemann(a: int, b: int, c: int, d: int) -> sympy.Expr:
        up = [
            sympy.diff(G[e][b][d], x[c])
            - sympy.diff(G[e][b][c], x[d])
            + sum(G[e][c][f] * G[f][b][d] - G[e][d][f] * G[f][b][c] for f in axes)
            for e in axes
        ]
        return sum(g[a, e] * up[e] for e in axes)

    if n == 1:
        return sympy.S.Zero
    K = sympy.simplify(combine(riemann(0, 1, 0, 1) / (g[0, 0] * g[1, 1] - g[0, 1] ** 2)))
    planes = list(itertools.combinations(axes, 2))
    for (a, b), (c, d) in itertools.combinations_with_replacement(planes, 2):
        area = g[a, c] * g[b, d] - g[a, d] * g[b, c]
        if K.free_symbols & set(x) or not vanishes(riemann(a, b, c, d) - K * area):
            raise ValueError(
                f"metric must have constant curvature, got {checks.short(metric)}; use local_kernel with an embedding"
            )
    return K


def _bend(K: sympy.Expr) -> sympy.Expr:
    """The coefficient b of s(r) / r = 1 + b r^2 + ..., from s'' = -K s."""
    return -K / sympy.Integer(6)


def _taylor(h: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    """c2, c4 of h = h(0) + c2 d^2 + c4 d^4 + O(d^5); a constant changes no weight."""
    h0, c1, c2, c3, c4 = (sympy.limit(sympy.diff(h, DISTANCE, k), DISTANCE, 0) / factorial(k) for k in range(5))
    if not h0.is_finite or c1 != 0 or c3 != 0 or not c2.is_positive or not c4.is_finite:
        raise ValueError(
            f"h must begin as c d^2 + O(d^4) with c > 0, got {checks.short(h)}; leave h out and substitute its moments"
        )
    return c2, c4
