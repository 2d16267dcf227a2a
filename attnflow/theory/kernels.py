"""What a similarity does to a function before normalisation, as operators order by order in eps.

The integral of exp(-f(x, y) / (2 eps)) F(y) over y, divided by a constant, is s(x) (1 + G_1 + G_2 + ...) F
with G_k of order eps^k. Two ways to it: any f by a Gaussian expansion at its minimum, and functions of
the distance on spaces of constant curvature by spherical means. They share no step, and agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from .. import checks, display
from .algebra import combine, inverse, vanishes
from .curvature import LAPLACIAN, constant_curvature, radial_expansion
from .formulas import EPSILON, coordinates, expression
from .laplace import gaussian_expansion, indices
from .operators import Operator, drift_diffusion, multiplication, tensor


@dataclass(frozen=True, eq=False)
class Kernel:
    """s (1 + G_1 + G_2 + ...), the action of a similarity.

    Attributes
    ----------
    terms : tuple of Operator
        1, G_1, G_2, ...
    log_scale : sympy.Expr
        log s; no constant matters.
    metric : sympy Matrix
        g, in whose units `time_step` is; with it G_1 = time_step * (Delta_g + lower orders).
    time_step : sympy.Expr
        m2 / 2 to leading order in eps.
    symmetric : bool
    """

    terms: tuple[Operator, ...]
    log_scale: sympy.Expr
    metric: sympy.Matrix
    time_step: sympy.Expr
    symmetric: bool = True

    __repr__ = display.of_fields

    @property
    def dim(self) -> int:
        return self.metric.shape[0]

    def _repr_latex_(self) -> str:
        terms = (G.named(f"G_{k}").latex for k, G in enumerate(self.terms) if k)
        return "$\\displaystyle " + ", \\quad ".join(terms) + "$"


def isotropic_kernel(metric: int | sympy.Matrix = 1, h: sympy.Expr | None = None) -> Kernel:
    """The similarity exp(-h(d) / (2 eps)) of the geodesic distance d, in curved or flat space.

    F is integrated over the Riemannian volume, so densities are with respect to it.

    Parameters
    ----------
    metric : int or sympy Matrix
        A dimension (flat space), or a metric of constant curvature in x0, x1, ..., which is checked.
    h : sympy expression in a symbol named d, or None
        c d^2 + O(d^4). None: any isotropic similarity, by its moments m2, m4 (see `moments`), kept as symbols.
        The chord of the unit sphere is h = 4 sin(d/2)^2.

    References
    ----------
    Derived here; for h = d^2 in flat space Singer 2006.

    Examples
    --------
    >>> isotropic_kernel(1, sympy.Symbol("d") ** 2).terms[2].latex
    'G = \\\\frac{\\\\epsilon^{2}}{8} \\\\partial_{x_{0}}^{4}'
    """
    g = tensor(metric)
    n = g.shape[0]
    laplacian = drift_diffusion(g, drift=0)
    powers = [multiplication(1, laplacian.variables), laplacian, laplacian @ laplacian]
    terms = [powers[0]]
    for polynomial in radial_expansion(h, sympy.Integer(n), constant_curvature(g)):
        coefficients = sympy.Poly(polynomial, LAPLACIAN).all_coeffs()[::-1]
        terms.append(sum((c * power for c, power in zip(coefficients, powers)), 0 * laplacian).named("G"))
    step = sympy.Poly(radial_expansion(h, sympy.Integer(n), 0)[0], LAPLACIAN).coeff_monomial(LAPLACIAN)
    return Kernel(tuple(terms), sympy.S.Zero, g, step)


def local_kernel(f: sympy.Expr, dim: int, order: int = 2) -> Kernel:
    """The similarity exp(-f / (2 eps)) of any smooth f(x, y) that is smallest at y = x.

    F is integrated over the coordinates dx0 dx1 ..., so densities are with respect to them: p sqrt(det g)
    where p is one with respect to the volume of g = (1/2) Hess_y f at y = x.

    Parameters
    ----------
    f : sympy expression in x0, x1, ..., y0, y1, ...
    dim : int
    order : int
        1 gives the limit only, 2 the bias too.

    Raises
    ------
    ValueError
        If y = x is not a minimum of f; see `displaced_limit`.

    References
    ----------
    Ruan & Zhang 2024, Theorems 3 and 5, carried to any order.

    Examples
    --------
    >>> (x0,), (y0,) = coordinates(1), coordinates(1, "y")
    >>> local_kernel((sympy.exp(x0) - sympy.exp(y0)) ** 2, 1).metric
    Matrix([[exp(2*x0)]])
    """
    x, y = coordinates(dim), coordinates(dim, "y")
    f, order = expression(f, "f", x + y), checks.integer(order, "order", least=1)
    diagonal = dict(zip(y, x))
    tensors = derivatives_at(f, y, diagonal, 2 * order + 2)
    slopes = [tensors[a] for a in indices(dim, 1)]
    if not all(map(vanishes, slopes)):
        raise ValueError(f"f must be smallest at y = x, got the gradient {checks.short(slopes)}; use displaced_limit")
    hessian = hessian_of(tensors, dim)
    expansion = gaussian_expansion(tensors, 2 * inverse(hessian), order)
    terms = [Operator({a: EPSILON**k * c for a, c in part.items()}, x, "G") for k, part in enumerate(expansion)]
    swapped = f.subs({**diagonal, **dict(zip(x, y))}, simultaneous=True)
    log_scale = -sympy.log(combine(hessian.det())) / 2
    return Kernel(tuple(terms), log_scale, hessian / 2, EPSILON / 2, vanishes(f - swapped))


def squared_map(phi: list[sympy.Expr], dim: int) -> sympy.Expr:
    """f = |phi(x) - phi(y)|^2 of a map phi, a list of expressions in x0, x1, ...; its metric is J'J.

    Examples
    --------
    >>> x0 = sympy.Symbol("x0")
    >>> chord = squared_map([sympy.cos(x0), sympy.sin(x0)], 1)
    >>> local_kernel(chord, 1, order=1).metric
    Matrix([[1]])
    """
    x = coordinates(dim)
    to_y = dict(zip(x, coordinates(dim, "y")))
    entries = [expression(entry, "phi", x) for entry in checks.sequence(phi, "phi", "sympy expressions")]
    return sympy.Add(*((entry - entry.subs(to_y, simultaneous=True)) ** 2 for entry in entries))


def derivatives_at(f: sympy.Expr, y: tuple, place: dict, order: int) -> dict[tuple[int, ...], sympy.Expr]:
    """All partial derivatives in y of the orders 1 to `order`, at a place, by multi-index."""
    dim = len(y)
    raw = {(0,) * dim: f}
    for total in range(1, order + 1):
        for a in indices(dim, total):
            i = next(k for k, times in enumerate(a) if times)
            raw[a] = sympy.diff(raw[tuple(times - (k == i) for k, times in enumerate(a))], y[i])
    del raw[(0,) * dim]
    return {a: combine(value.subs(place, simultaneous=True)) for a, value in raw.items()}


def hessian_of(tensors: dict[tuple[int, ...], sympy.Expr], dim: int) -> sympy.Matrix:
    """The matrix of second derivatives, refused where sympy can tell that it is not positive definite."""
    hessian = sympy.Matrix(dim, dim, lambda i, j: tensors[tuple((k == i) + (k == j) for k in range(dim))])
    for size in range(1, dim + 1):
        minor = combine(hessian[:size, :size].det())
        if minor.is_nonpositive:
            raise ValueError(f"f must have a positive definite Hessian at its minimum, got {checks.short(hessian)}")
    return hessian
