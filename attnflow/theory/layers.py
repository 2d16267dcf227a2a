"""One attention layer as a differential operator: its limit L and its O(eps) bias B, for each normalisation.

A normalisation multiplies the token density by key weights exp(b) and divides by the row sums. Both are
expanded in eps; Sinkhorn's weights are solved for order by order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import sympy
from sympy.core.function import AppliedUndef

from .. import checks, display
from .algebra import expand_above
from .formulas import EPSILON, coordinates, expression, log_density
from .kernels import Kernel
from .operators import Index, Operator, multiplication

ALPHA = sympy.Symbol("alpha", real=True)
_NAMES = ("softmax", "density-corrected", "column", "sinkhorn")


@dataclass(frozen=True, eq=False)
class Layer:
    """A H = H + A_1 H + A_2 H + ..., A_k of order eps^k.

    Attributes
    ----------
    terms : tuple of Operator
        1, A_1, A_2, ...
    time_step : sympy.Expr
        tau, to leading order in eps.
    normalization : str
    """

    terms: tuple[Operator, ...]
    time_step: sympy.Expr
    normalization: str

    __repr__ = display.of_fields

    @cached_property
    def limit(self) -> Operator:
        """L = A_1 / tau: layers follow dH/dt = L H."""
        return _over(self.time_step, self.terms[1]).named("L")

    @cached_property
    def bias(self) -> Operator:
        """B = A_2 / (2 tau^2): one layer is A H = H + tau (L H + 2 tau B H) + O(tau^3).

        For a Gaussian 2 tau = eps, so (A H - H) / tau = L H + eps B H + O(eps^2).
        """
        if len(self.terms) < 3:
            raise ValueError("bias needs a kernel expanded to order 2, got one of order 1")
        return _over(2 * self.time_step**2, self.terms[2]).named("B")

    def defect(self, residual: sympy.Expr | float = 1) -> Operator:
        """R = (2 / a) B - L^2 / 2 with a the residual step: 1 + a (A - 1) = exp(a tau L) + (a tau)^2 R + O(tau^3).

        At fixed time t, layers then deviate from the equation by a tau integral_0^t e^((t-u) L) R e^(u L) H du.
        """
        a, L = expression(residual, "residual"), self.limit
        if a.is_number and not 0 < a <= 1:
            raise ValueError(f"residual must be in (0, 1], got {checks.short(residual)}")
        return (2 / a * self.bias - (sympy.Rational(1, 2) * L) @ L).named("R")

    def _repr_latex_(self) -> str:
        tau = sympy.latex(self.time_step)
        return f"$\\displaystyle A H = H + \\tau L H + O(\\tau^2), \\quad \\tau = {tau}, \\quad {self.limit.latex}$"


def layer(
    kernel: Kernel,
    normalization: str = "softmax",
    density: sympy.Expr | None = None,
    alpha: sympy.Expr | float | None = None,
) -> Layer:
    """Expand one plain layer of infinitely many tokens of density p.

    Parameters
    ----------
    kernel : Kernel
        From `isotropic_kernel` or `local_kernel`.
    normalization : str
        "softmax", "density-corrected", "column" or "sinkhorn". Key weights exp(b): 1; q^-alpha with q the row
        sums; the same with alpha = 1; v with v_i sum_j K_ij v_j = 1.
    density : sympy expression or None
        p > 0 up to a factor, with respect to what the kernel integrates over; None: exp(ell), ell undetermined.
    alpha : expression or number, or None
        Of "density-corrected"; None: the symbol alpha.

    Raises
    ------
    ValueError
        If the normalisation needs a symmetric f and f is not.

    References
    ----------
    Ruan & Zhang 2024, Theorem 3 (softmax); Coifman & Lafon 2006 (alpha); Sander et al. 2022
    (arXiv 2110.11773, Sinkhorn); the biases B derived here, for softmax also Singer 2006.

    Examples
    --------
    >>> from attnflow.theory import isotropic_kernel
    >>> x0, d = sympy.Symbol("x0"), sympy.Symbol("d")
    >>> softmax = layer(isotropic_kernel(1, d**2), density=sympy.exp(sympy.cos(x0)))
    >>> softmax.bias(sympy.cos(x0))([[0.9]]).round(10)
    array([-1.82966223])
    """
    checks.instance(kernel, Kernel, "kernel", "a Kernel, as isotropic_kernel and local_kernel return")
    checks.choice(normalization, "normalization", _NAMES)
    if alpha is not None and normalization != "density-corrected":
        raise ValueError(f"alpha must be None for {normalization!r}, got {checks.short(alpha)}")
    if normalization != "softmax" and not kernel.symmetric:
        raise ValueError(f"kernel must be of a symmetric f for {normalization!r}, got an asymmetric one")
    power = {"softmax": sympy.S.Zero, "column": sympy.S.One}.get(
        normalization, ALPHA if alpha is None else expression(alpha, "alpha")
    )
    names = _Names(coordinates(kernel.dim))
    kernel, log_p = names.of_kernel(kernel), names.of(log_density(density, names.variables))
    if normalization == "sinkhorn":
        log_r = names.of((log_p - kernel.log_scale) / 2)
        corrections = _sinkhorn_corrections(kernel, log_r)
    else:
        log_r = names.of(log_p - power * (log_p + kernel.log_scale))
        corrections = _power_corrections(kernel, log_p, power)
    smoothing = [G.conjugate(log_r) for G in kernel.terms]
    factors = [multiplication(names.of(c), names.variables) for c in corrections]
    weighted = [_order(k, smoothing, factors) for k in range(len(smoothing))]
    rows = [_on_one(term) for term in weighted]
    terms: list[Operator] = []
    for k, term in enumerate(weighted):  # (rows) A = (weighted), order by order; rows[0] = 1
        for j in range(1, k + 1):
            term = term - rows[j] * terms[k - j]
        terms.append(term.named(f"A_{k}"))
    return Layer(tuple(names.resolved(term) for term in terms), kernel.time_step, normalization)


class _Names:
    """Stand-ins c0(x), c1(x), ... for coefficients: the algebra of layers is done once for all, then filled in."""

    def __init__(self, variables: tuple[sympy.Symbol, ...]) -> None:
        self.variables = variables
        self._meaning: dict[sympy.Expr, sympy.Expr] = {}
        self._slopes: dict[tuple[sympy.Expr, Index], sympy.Expr] = {}

    def of(self, value: sympy.Expr) -> sympy.Expr:
        if isinstance(value, AppliedUndef) or not value.free_symbols & set(self.variables):
            return value
        name = sympy.Function(f"c{len(self._meaning)}")(*self.variables)
        self._meaning[name] = self._resolve(value)
        return name

    def of_kernel(self, kernel: Kernel) -> Kernel:
        terms = tuple(Operator({a: self.of(c) for a, c in G.coefficients.items()}, G.variables, G.name) for G in kernel.terms)
        return replace(kernel, terms=terms, log_scale=self.of(kernel.log_scale))

    def resolved(self, term: Operator) -> Operator:
        coefficients = {index: self._resolve(c) for index, c in term.coefficients.items()}
        return 1 * Operator(coefficients, term.variables, term.name)

    def _resolve(self, value: sympy.Expr) -> sympy.Expr:
        values = dict(self._meaning)
        for a in value.atoms(sympy.Derivative):
            if a.expr in self._meaning:
                values[a] = self._slope(a.expr, tuple(a.variables.count(v) for v in self.variables))
        return value.xreplace(values)

    def _slope(self, name: sympy.Expr, index: Index) -> sympy.Expr:
        """A derivative of what a name means: taken once, from the one before it."""
        if not any(index):
            return self._meaning[name]
        if (name, index) not in self._slopes:
            i = next(k for k, times in enumerate(index) if times)
            before = self._slope(name, tuple(times - (k == i) for k, times in enumerate(index)))
            self._slopes[name, index] = sympy.diff(before, self.variables[i])
        return self._slopes[name, index]


def _power_corrections(kernel: Kernel, log_p: sympy.Expr, power: sympy.Expr) -> list[sympy.Expr]:
    """r_k of p q^-power = exp(log_r) (1 + r_1 + ...), q = s (1 + G_1 + ...) p the row sums.

    The last r_k would enter numerator and denominator of a layer alike: it is left 0.
    """
    rows = [_on_one(G.conjugate(log_p)) for G in kernel.terms]
    corrections = [sympy.S.One]
    for k in range(1, len(rows) - 1):  # y = z^-power: k y_k = sum_j (-power j - (k - j)) z_j y_(k-j)
        value = sum((-power * j - (k - j)) * rows[j] * corrections[k - j] for j in range(1, k + 1)) / k
        corrections.append(expand_above(value))
    return [*corrections, sympy.S.Zero]


def _sinkhorn_corrections(kernel: Kernel, log_r: sympy.Expr) -> list[sympy.Expr]:
    """r_k of r = p v = exp(log_r) (1 + r_1 + ...), order by order from r s (1 + G_1 + ...) r = p."""
    smoothing = [G.conjugate(log_r) for G in kernel.terms]
    corrections = [sympy.S.One]
    for k in range(1, len(smoothing) - 1):
        corrections.append(sympy.S.Zero)
        known = sum(
            corrections[k - j] * smoothing[i](corrections[j - i]).expression for j in range(k + 1) for i in range(j + 1)
        )
        corrections[k] = expand_above(-known / 2)  # r_k enters the order k twice: r_k * 1 + 1 * r_k
    return [*corrections, sympy.S.Zero]


def _over(scale: sympy.Expr, term: Operator) -> Operator:
    """term / scale, which are of one order in epsilon: at epsilon = 1."""
    at = {EPSILON: sympy.S.One}
    return 1 / scale.xreplace(at) * Operator({a: c.xreplace(at) for a, c in term.coefficients.items()}, term.variables)


def _order(k: int, operators: list[Operator], factors: list[Operator]) -> Operator:
    """The order k of a product of two series."""
    return sum((operators[j] @ factors[k - j] for j in range(1, k + 1)), factors[k])


def _on_one(term: Operator) -> sympy.Expr:
    return term.coefficients.get((0,) * len(term.variables), sympy.S.Zero)
