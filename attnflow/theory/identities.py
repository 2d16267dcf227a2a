"""What is conserved and what decays along the flow, derived by the calculus of variations.

Along dH/dt = R the functional integral e(H) dx changes at the rate integral (delta e / delta H) R dx. Two
integrands have the same integral for every H, up to boundary terms, exactly if their difference is a
divergence: if its variational derivative is zero identically. Nothing here is assumed of either but that.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy
from sympy.core.function import AppliedUndef

from .. import checks, display
from .algebra import combine, inverse, vanishes
from .formulas import compact_latex, coordinates, expression, log_density
from .operators import drift_diffusion, tensor


@dataclass(frozen=True, eq=False)
class Identity(display.Typeset):
    """d/dt integral functional dx = integral rate dx, which is integral closed dx.

    Attributes
    ----------
    name : str
    functional, rate, closed : sympy.Expr
        Integrands: of the functional; of its rate, as derived; and in the form that shows its sign.
    field : sympy.Expr
        The undetermined function that flows: H(x), rho(x).
    """

    name: str
    functional: sympy.Expr
    rate: sympy.Expr
    closed: sympy.Expr
    field: sympy.Expr

    __repr__ = display.of_fields

    @property
    def gap(self) -> sympy.Expr:
        """The variational derivative of rate - closed: zero, or the identity is false."""
        return combine(variational_derivative(self.rate - self.closed, self.field))

    @property
    def holds(self) -> bool:
        return vanishes(self.gap)

    @property
    def latex(self) -> str:
        left, right = (compact_latex(side) for side in (self.functional, self.closed))
        return f"\\frac{{d}}{{dt}} \\int {left} \\, dx = \\int {right} \\, dx"


def identities(
    metric: int | sympy.Matrix = 1, density: sympy.Expr | None = None, drift: sympy.Expr | float = 2
) -> tuple[Identity, ...]:
    """The conservation law and the decays of dH/dt = L H = w^-1 div_g(w grad H), w = p^c; and of tokens that walk.

        mass         d/dt integral w H dvol = 0
        squares      d/dt (1/2) integral w H^2 dvol = -integral w |grad H|^2 dvol
        energy       d/dt (1/2) integral w |grad H|^2 dvol = -integral w (L H)^2 dvol
        free energy  d/dt integral rho log(rho / w) dvol = -integral rho |grad log(rho / w)|^2 dvol, the relative entropy
                     of rho to w along the forward equation d rho/dt = div_g(w grad(rho / w))
        entropy      d/dt (-integral rho log rho dvol) = -integral |grad rho|^2 / rho dvol, along d rho/dt = -Delta rho:
                     tokens that are their own values, in units of `token_flow`'s rate

    Source: Ruan & Zhang 2024, section 3; for the free energy Jordan, Kinderlehrer & Otto 1998; entropy derived here.

    Parameters
    ----------
    metric : int or sympy Matrix
        A dimension, or g in x0, x1, ...
    density, drift
        As of `drift_diffusion`.

    Examples
    --------
    >>> [identity.name for identity in identities() if identity.holds]
    ['mass', 'squares', 'energy', 'free energy', 'entropy']
    >>> identities()[0].latex
    '\\\\frac{d}{dt} \\\\int H e^{2 \\\\ell} \\\\, dx = \\\\int 0 \\\\, dx'
    """
    g = tensor(metric)
    x = coordinates(g.shape[0])
    H, rho = (sympy.Function(name, positive=name == "rho")(*x) for name in ("H", "rho"))
    log_w = sympy.expand(expression(drift, "drift") * log_density(density, x))
    w, raised = sympy.exp(log_w), inverse(g)
    volume = sympy.sqrt(combine(g.det())).replace(sympy.Abs, lambda part: part)  # of one sign within a chart
    L, laplacian = drift_diffusion(g, density, drift), drift_diffusion(g, drift=0)

    def inner(u: sympy.Expr, v: sympy.Expr) -> sympy.Expr:
        du, dv = (sympy.Matrix([sympy.diff(F, s) for s in x]) for F in (u, v))
        return (du.T * raised * dv)[0]

    LH = L(H).expression
    walk = w * L(rho / w).expression  # L is self-adjoint in L2(w dvol), so div_g(w grad(rho / w)) = w L(rho / w)
    log_ratio = sympy.log(rho) - log_w
    cases = [
        ("mass", w * H, LH, sympy.S.Zero, H),
        ("squares", w * H**2 / 2, LH, -w * inner(H, H), H),
        ("energy", w * inner(H, H) / 2, LH, -w * LH**2, H),
        ("free energy", rho * log_ratio, walk, -rho * inner(log_ratio, log_ratio), rho),
        ("entropy", -rho * sympy.log(rho), -laplacian(rho).expression, -inner(rho, rho) / rho, rho),
    ]
    return tuple(
        Identity(name, volume * e, variational_derivative(volume * e, field) * flow, volume * closed, field)
        for name, e, flow, closed, field in cases
    )


def variational_derivative(integrand: sympy.Expr, field: sympy.Expr) -> sympy.Expr:
    """delta e / delta F = sum over multi-indices a of (-1)^|a| d^a (de / dF_a), of e in F and its derivatives.

    Examples
    --------
    >>> x0 = coordinates(1)[0]
    >>> H = sympy.Function("H")(x0)
    >>> variational_derivative(sympy.diff(H, x0) ** 2 / 2, H)
    -Derivative(H(x0), (x0, 2))
    """
    checks.instance(field, AppliedUndef, "field", "an undetermined function of the coordinates, such as H(x0)")
    integrand = expression(integrand, "integrand", tuple(field.free_symbols))
    jet = sorted({field} | {a for a in integrand.atoms(sympy.Derivative) if a.expr == field}, key=str)
    stand_in = {a: sympy.Dummy() for a in jet}
    plain, back = integrand.xreplace(stand_in), {dummy: a for a, dummy in stand_in.items()}
    total = sympy.S.Zero
    for a in jet:
        by = a.variables if isinstance(a, sympy.Derivative) else ()
        slope = sympy.diff(plain, stand_in[a]).xreplace(back)
        total += sympy.S.NegativeOne ** len(by) * (sympy.diff(slope, *by) if by else slope)
    return total
