"""The equation as a heat equation with a heat capacity: with which metric, and why not in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from .. import display
from .formulas import Formula, coordinates, dimension, expression, log_density
from .moments import DIMENSION
from .operators import Operator, divergence_form, drift_diffusion, tensor


@dataclass(frozen=True, eq=False)
class ConformalForm:
    """L = w Delta_gbar with gbar = w g, w = p^exponent; or the reason why there is none.

    Attributes
    ----------
    condition : Formula
        (n - 2) / 2 * a = c, an equation for the exponent a, with c the drift.
    exponents : sympy.Set
        Its solutions: one for n != 2; none for n = 2 and c != 0.
    """

    condition: Formula
    exponents: sympy.Set

    __repr__ = display.of_fields

    @property
    def exponent(self) -> sympy.Expr:
        """a in w = p^a.

        Raises
        ------
        ValueError
            If there is none: n = 2 and the density enters.
        """
        if not self.exponents:
            raise ValueError(
                f"no conformal metric exists in dimension 2 with a drift: {self.condition.latex} has no solution; "
                "p^-c div(p^c grad) holds in every dimension"
            )
        return next(iter(self.exponents))

    def _repr_latex_(self) -> str:
        if not self.exponents:
            return f"$\\displaystyle {self.condition.latex} \\text{{ has no solution}}$"
        power = f"p^{{{sympy.latex(self.exponent)}}}"
        return f"$\\displaystyle L = {power} \\Delta_{{\\bar g}}, \\quad \\bar g = {power} g$"


def conformal_form(dim: int | sympy.Expr = DIMENSION, drift: sympy.Expr | float = 2) -> ConformalForm:
    """Solve L = w Delta_gbar for w and gbar, L = Delta + c grad log p . grad.

    The second derivatives of the two sides agree only if gbar = w g: the metric must be conformal. What then
    remains, compared here coefficient by coefficient, is first order,

        (n - 2) / 2  grad log w  =  c grad log p,

    so that w = p^a up to a constant. For n = 2 the left side is zero whatever w is: unless p is constant
    (or c = 0) there is no such metric.

    Parameters
    ----------
    dim : int
        n; left out, it stays symbolic.
    drift : expression or number
        c: 2 softmax, 2 (1 - alpha) density-corrected, 1 Sinkhorn.

    References
    ----------
    Ruan & Zhang 2024, Theorem 4.

    Examples
    --------
    >>> conformal_form().exponent
    4/(n - 2)
    >>> conformal_form(3, drift=1).exponent
    2
    >>> conformal_form(2).exponents
    EmptySet
    """
    n, c = dimension(dim, "dim"), expression(drift, "drift")
    (x,) = coordinates(1)
    a, ell = sympy.Symbol("a", real=True), sympy.Function("ell")(x)
    # along one coordinate of an n-dimensional space: sqrt det(w g) = w^(n/2) sqrt det g, with w = exp(a ell)
    w = sympy.exp(a * ell)
    heat = w * divergence_form(sympy.Matrix([[w]]), sympy.S.Zero, log_volume=n / 2 * a * ell)
    gap = heat - divergence_form(sympy.eye(1), c * ell)
    if set(gap.coefficients) - {(1,)}:
        raise ArithmeticError(f"only first derivatives should remain, got {gap.latex}")
    equation = sympy.factor(sympy.expand(gap.coefficients.get((1,), sympy.S.Zero)).coeff(sympy.diff(ell, x)) + c)
    return ConformalForm(
        Formula(sympy.latex(equation), c, ()),
        sympy.FiniteSet(*sympy.solve(equation - c, a)) if equation.has(a) else _anything_if(c == 0),
    )


def conformal_operator(metric: int | sympy.Matrix, exponent: sympy.Expr, density: sympy.Expr | None = None) -> Operator:
    """w Delta_gbar with gbar = w g, w = p^exponent: by the definition of the Laplacian, in coordinates.

    Examples
    --------
    >>> heat = conformal_operator(3, conformal_form(3).exponent)
    >>> heat.equals(drift_diffusion(3))
    True
    """
    g = tensor(metric)
    w = sympy.exp(expression(exponent, "exponent") * log_density(density, coordinates(g.shape[0])))
    return (w * drift_diffusion(w * g, drift=0)).named("L")


def _anything_if(possible: bool) -> sympy.Set:
    return sympy.FiniteSet(0) if possible else sympy.S.EmptySet
