"""Where attention looks when f(x, .) is smallest elsewhere than at x: the image point, the first order, averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from .. import checks, display
from .algebra import combine, inverse, vanishes
from .formulas import EPSILON, Formula, coordinates, expression, log_density
from .kernels import derivatives_at, hessian_of
from .laplace import gaussian_expansion, indices
from .operators import Operator, multiplication


@dataclass(frozen=True, eq=False)
class DisplacedLimit:
    """A H(x) = H(y*) + eps (E H)(y*) + O(eps^2), y* = y*(x) the place where f(x, .) is smallest.

    Attributes
    ----------
    place : tuple of sympy.Expr
        y*, in x0, x1, ...
    first_order : Operator
        E, in y0, y1, ...; its coefficients may hold x.
    """

    place: tuple[sympy.Expr, ...]
    first_order: Operator

    __repr__ = display.of_fields

    def __call__(self, H: sympy.Expr | None = None) -> Formula:
        """H(y*) + eps (E H)(y*) as a Formula in x and epsilon, of H in x0, x1, ..."""
        y = self.first_order.variables
        x = coordinates(len(y))
        H = sympy.Function("H")(*x) if H is None else expression(H, "H", x)
        on_y = H.subs(dict(zip(x, y)), simultaneous=True)
        value = on_y + EPSILON * self.first_order(on_y).expression
        return Formula("A H", value.subs(dict(zip(y, self.place)), simultaneous=True), x)

    def _repr_latex_(self) -> str:
        place = sympy.latex(sympy.Tuple(*self.place))
        value = f"\\left. H + \\epsilon E H \\right|_{{y = {place}}}"
        return f"$\\displaystyle A H(x) = {value}, \\quad {self.first_order.latex}$"


def displaced_limit(
    f: sympy.Expr | int,
    dim: int,
    density: sympy.Expr | None = None,
    place: Sequence[sympy.Expr] | None = None,
) -> DisplacedLimit:
    """The first order of a softmax layer of any pseudo-metric, derived by expanding around argmin_y f(x, y).

    With C the Hessian and D the third derivatives of f in y at y*, q the density in these coordinates,

        A H = H + eps [C^-1 : Hess H + 2 (C^-1 grad log q) . grad H - C^-1_ij D_jkl C^-1_kl d_i H]  at y*;

    `symbolic_f` gives an f whose C and D are symbols, and with it this formula itself.

    Parameters
    ----------
    f : sympy expression in x0, x1, ..., y0, y1, ...
    dim : int
    density : sympy expression or None
        q > 0 in x0, x1, ..., with respect to dx0 dx1 ..., up to a factor; None: exp(ell).
    place : sequence of expressions in x0, x1, ..., or None
        y*; None: solved for.

    Raises
    ------
    ValueError
        If y* is not one isolated minimum that sympy finds, or is not a critical point of f.

    References
    ----------
    Ruan & Zhang 2024, Theorem 5.

    Examples
    --------
    >>> (x0,), (y0,) = coordinates(1), coordinates(1, "y")
    >>> shifted = displaced_limit((y0 - x0 / 2) ** 2 + (y0 - x0 / 2) ** 3 / 3, 1, density=sympy.exp(-(x0**2)))
    >>> shifted.place
    (x0/2,)
    >>> shifted(x0).expression
    epsilon*(-x0 - 1/2) + x0/2
    """
    x, y = coordinates(dim), coordinates(dim, "y")
    f, log_q = expression(f, "f", x + y), log_density(density, x)
    if place is None:
        place = _argmin(f, y)
    else:
        place = tuple(expression(entry, "place", x) for entry in checks.sequence(place, "place", "sympy expressions"))
    if len(place) != dim:
        raise ValueError(f"place must have {dim} entries, got {len(place)}")
    tensors = derivatives_at(f, y, dict(zip(y, place)), 4)
    slopes = [tensors[a] for a in indices(dim, 1)]
    if not all(map(vanishes, slopes)):
        raise ValueError(f"place must be where f(x, .) is smallest, got the gradient {checks.short(slopes)} there")
    covariance = 2 * inverse(hessian_of(tensors, dim))
    log_q = log_q.subs(dict(zip(x, y)), simultaneous=True)
    smoothing = Operator(gaussian_expansion(tensors, covariance, 1)[1], y, "E").conjugate(log_q)
    rows = smoothing.coefficients.get((0,) * dim, sympy.S.Zero)
    return DisplacedLimit(place, (smoothing - rows * multiplication(1, y)).named("E"))


def symbolic_f(dim: int) -> sympy.Expr:
    """A polynomial f(y) with minimum y = 0, Hessian C_ij, third and fourth derivatives D_ijk, E_ijkl: all symbols."""
    y = coordinates(dim, "y")
    f = sympy.S.Zero
    for order, letter in ((2, "C"), (3, "D"), (4, "E")):
        for a in indices(dim, order):
            axes = "".join(str(i) * times for i, times in enumerate(a))
            scale = sympy.prod(sympy.factorial(times) for times in a)
            f += sympy.Symbol(f"{letter}_{axes}", real=True) * sympy.prod(v**k for v, k in zip(y, a)) / scale
    return f


@dataclass(frozen=True, eq=False)
class ManifoldAverage:
    """A H(x) = average of H over the manifold where f(x, .) is smallest, with a weight, + O(eps).

    Attributes
    ----------
    weight : Formula
        Unnormalised, in the manifold's own coordinates t0, t1, ...
    points : tuple of sympy.Expr
        The manifold, in t (and x).
    bounds : sequence of (low, high)
        Of t.
    """

    weight: Formula
    points: tuple[sympy.Expr, ...]
    bounds: tuple[tuple[sympy.Expr, sympy.Expr], ...]

    __repr__ = display.of_fields

    def __call__(self, H: sympy.Expr) -> Formula:
        """The average of an expression H in x0, x1, ...: a ratio of integrals, which evaluates by quadrature."""
        x = coordinates(len(self.points))
        on_manifold = expression(H, "H", x).subs(dict(zip(x, self.points)), simultaneous=True)
        ranges = [(t, *bound) for t, bound in zip(self.weight.variables, self.bounds)]
        above, below = (sympy.Integral(self.weight.expression * F, *ranges) for F in (on_manifold, sympy.S.One))
        return Formula("A H", above / below, x)

    def _repr_latex_(self) -> str:
        return self.weight._repr_latex_()


def manifold_average(
    f: sympy.Expr,
    dim: int,
    manifold: Sequence[sympy.Expr],
    bounds: Sequence[tuple[sympy.Expr, sympy.Expr]],
    density: sympy.Expr | None = None,
) -> ManifoldAverage:
    """The zeroth order of a layer whose f(x, .) is smallest on a whole manifold y = psi(t).

    At each t the integral over the normal directions is Gaussian: with columns N normal to the manifold and
    J = d psi / dt, y = psi(t) + N u has volume |det(J, N)| dt du, and the weight is

        q(psi) |det(J, N)| det(N' Hess_y f N)^(-1/2):

    the density along the manifold times det(Hess f on the normal space)^(-1/2), whatever N is chosen.

    Parameters
    ----------
    f : sympy expression in x0, x1, ..., y0, y1, ...
    dim : int
    manifold : sequence of `dim` expressions
        psi, in t0, t1, ... (and x0, x1, ...).
    bounds : sequence of (low, high)
        One pair for each t.
    density : sympy expression or None
        q > 0 with respect to dx0 dx1 ..., up to a factor; None: uniform.

    Raises
    ------
    ValueError
        If the gradient of f does not vanish on the manifold, or its Hessian is degenerate across it.

    References
    ----------
    Ruan & Zhang 2024, Theorem 6.

    Examples
    --------
    >>> (y0, y1), t = coordinates(2, "y"), sympy.Symbol("t0", real=True)
    >>> f = (y0**2 + y1**2 - 1) ** 2 * (2 + y0)
    >>> circle = manifold_average(f, 2, [sympy.cos(t), sympy.sin(t)], [(-sympy.pi, sympy.pi)])
    >>> circle.weight.latex
    'w = \\\\frac{1}{\\\\sqrt{\\\\cos{\\\\left(t_{0} \\\\right)} + 2}}'
    """
    x, y = coordinates(dim), coordinates(dim, "y")
    bounds = [_range(pair, x) for pair in checks.sequence(bounds, "bounds", "(low, high) pairs")]
    t = coordinates(len(bounds), "t")
    f, log_q = expression(f, "f", x + y), sympy.S.Zero if density is None else log_density(density, x)
    manifold = checks.sequence(manifold, "manifold", "sympy expressions")
    psi = sympy.Matrix([expression(entry, "manifold", x + t) for entry in manifold])
    if len(psi) != dim or not 0 < len(t) < dim:
        expected = f"{dim} entries and bounds 1 to {dim - 1} pairs"
        raise ValueError(f"manifold must have {expected}, got {len(psi)} and {len(t)}")
    place = dict(zip(y, psi))
    slopes = [combine(sympy.diff(f, v).subs(place, simultaneous=True)) for v in y]
    if not all(map(vanishes, slopes)):
        raise ValueError(f"manifold must be where f(x, .) is smallest, got the gradient {checks.short(slopes)} on it")
    J = psi.jacobian(t)
    N = sympy.Matrix.hstack(*J.T.nullspace())
    across = combine((N.T * sympy.hessian(f, y).subs(place, simultaneous=True) * N).det())
    squared = combine(sympy.Matrix.hstack(J, N).det() ** 2 / across)
    if squared.is_infinite or squared.has(sympy.nan) or squared.is_nonpositive:
        raise ValueError(
            f"f must have a positive definite Hessian across the manifold, got the determinant {checks.short(across)}"
        )
    above, below = (sympy.factor(part).as_independent(*t, as_Add=False)[1] for part in sympy.fraction(squared))
    q = sympy.exp(log_q).subs(dict(zip(x, psi)), simultaneous=True)
    weight = Formula("w", q * sympy.sqrt(above) / sympy.sqrt(below), t)
    return ManifoldAverage(weight, tuple(psi), tuple(bounds))


def _range(pair, x: tuple[sympy.Symbol, ...]) -> tuple[sympy.Expr, sympy.Expr]:
    """(low, high) of one t, which may be infinite."""
    if not checks.listed(pair) or len(pair) != 2:
        raise ValueError(f"bounds must be (low, high) pairs, got {checks.short(pair)}")
    infinite = (sympy.oo, -sympy.oo)
    low, high = (end if end in infinite else expression(end, "bounds", x) for end in pair)
    if (high - low).is_nonpositive:
        raise ValueError(f"bounds must be (low, high) pairs with low < high, got {checks.short(pair)}")
    return low, high


def _argmin(f: sympy.Expr, y: tuple[sympy.Symbol, ...]) -> tuple[sympy.Expr, ...]:
    found = sympy.solve([sympy.diff(f, v) for v in y], y, dict=True)
    minima = []
    for solution in found:
        place = tuple(solution.get(v, v) for v in y)
        hessian = sympy.hessian(f, y).subs(solution, simultaneous=True)
        if not any(combine(hessian[:k, :k].det()).is_nonpositive for k in range(1, len(y) + 1)):
            minima.append(place)
    if len(minima) != 1 or any(set(y) & entry.free_symbols for entry in minima[0]):
        raise ValueError(
            f"f must have one isolated minimum in y that sympy finds, got {checks.short(minima or found)}; give place"
        )
    return minima[0]
