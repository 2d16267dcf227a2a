"""Second and fourth moment of a similarity exp(-h(d) / (2 eps)), by integration, in any dimension."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from .. import checks, display
from .formulas import EPSILON, Formula, dimension, expression

DISTANCE = sympy.Symbol("d", positive=True)
DIMENSION = sympy.Symbol("n", positive=True)


@dataclass(frozen=True)
class Moments:
    """m2 = E[z_1^2] and m4 = E[z_1^4] of the density proportional to exp(-h(|z|) / (2 eps)) on R^n.

    Attributes
    ----------
    second, fourth : Formula
        In epsilon (and n, where no dimension was given).
    finite : tuple of two sympy conditions
        When each of them is.
    """

    second: Formula
    fourth: Formula
    finite: tuple[sympy.Basic, sympy.Basic]

    __repr__ = display.of_fields

    def _repr_latex_(self) -> str:
        conditions = [f" \\quad ({sympy.latex(c)})" if c != True else "" for c in self.finite]  # noqa: E712
        return f"$\\displaystyle {self.second.latex}{conditions[0]}, \\quad {self.fourth.latex}{conditions[1]}$"


def moments(h: sympy.Expr, dim: int | sympy.Symbol = DIMENSION) -> Moments:
    """m2 and m4 of the normalised similarity exp(-h(d) / (2 eps)); one plain layer is a time step m2 / 2.

    In the variable w = d^2, E[|z|^k] = J(n + k) / J(n) with J(m) = integral w^(m/2 - 1) exp(-h(sqrt w) / (2 eps)) dw;
    E[z_1^2] = E|z|^2 / n and E[z_1^4] = 3 E|z|^4 / (n (n + 2)), the averages of z_1^2, z_1^4 over the sphere |z| = r.

    Parameters
    ----------
    h : sympy expression in a symbol named d
        Such as d**2, d**q, c * d**2 or log(1 + d**2); other symbols are taken to be positive.
    dim : int
        Left out, the dimension stays symbolic, n.

    Raises
    ------
    ValueError
        If h is not an expression in d, or its integral is not known in closed form.

    References
    ----------
    Coifman & Lafon 2006, section 3; for log(1 + d^2), a Student density, derived here.

    Examples
    --------
    >>> d = sympy.Symbol("d")
    >>> moments(d).second.expression
    4*epsilon**2*(n + 1)
    >>> float(moments(sympy.log(1 + d**2), dim=2).second(epsilon=0.05))
    0.0625
    """
    h = profile(h)
    n = dimension(dim, "dim")
    whole, *J = [_integral(h, DIMENSION + k) for k in (0, 2, 4)]
    averages = (1 / DIMENSION, _sphere_average_of_fourth_power(DIMENSION))
    m2, m4 = (_tidy(average * value / whole[0]).subs(DIMENSION, n) for average, (value, _) in zip(averages, J))
    return Moments(Formula("m_2", m2, ()), Formula("m_4", m4, ()), tuple(c.subs(DIMENSION, n) for _, c in J))


def profile(h: sympy.Expr) -> sympy.Expr:
    """h in our own symbol d > 0, all other symbols positive."""
    h = expression(h, "h")
    if DISTANCE.name not in {s.name for s in h.free_symbols}:
        raise ValueError(f"h must be an expression in the symbol d, got {checks.short(h)}")
    return h.subs({s: sympy.Symbol(s.name, positive=True) for s in h.free_symbols})


def _sphere_average_of_fourth_power(n: sympy.Expr) -> sympy.Expr:
    """E[z_1^4] on the unit sphere: from E_gauss[z_1^4] = 3 and E_gauss[|z|^4], which the radius factors out of.

    E_gauss[|z|^4] = sum_ij E[z_i^2 z_j^2] = 3 n + n (n - 1).
    """
    return 3 / (3 * n + n * (n - 1))


def _integral(h: sympy.Expr, m: sympy.Expr) -> tuple[sympy.Expr, sympy.Basic]:
    """J(m) and the condition for it to be finite."""
    w, a, b = sympy.symbols("w a b", positive=True)  # sympy is quick with a and b, not with n / 2 and 1 / eps
    weight = sympy.exp(sympy.expand(-b * h.subs(DISTANCE, sympy.sqrt(w)))).simplify()
    value, condition = sympy.integrate(w ** (a - 1) * weight, (w, 0, sympy.oo)), sympy.true
    if isinstance(value, sympy.Piecewise):
        value, condition = value.args[0]
    if value.has(sympy.Integral, sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):  # not known, or not finite
        raise ValueError(f"h must have finite moments in closed form, got {checks.short(h)}")
    actual = {a: m / 2, b: 1 / (2 * EPSILON)}
    condition = condition.subs(actual)
    if condition.is_Relational:  # epsilon > 0 multiplied out
        numerator, denominator = sympy.fraction(sympy.together(condition.gts - condition.lts))
        condition = sympy.expand(numerator) > 0 if denominator.is_positive else condition
    return value.subs(actual), condition


def _tidy(value: sympy.Expr) -> sympy.Expr:
    return sympy.factor(sympy.powsimp(sympy.gammasimp(value)))
