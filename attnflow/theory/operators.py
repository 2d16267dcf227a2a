"""Linear differential operators with symbolic coefficients: add, compose, transpose, apply, print.

Everything the layers converge to is such an operator, and every derivation here is algebra with them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from math import comb

import sympy

from .. import checks, display
from .algebra import combine, expand_above, inverse, vanishes
from .formulas import Formula, compact_latex, coordinates, expression, log_density, scalar, symbols

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Operator(display.Typeset):
    """sum over multi-indices a of  coefficients[a](x) d^a / dx^a.

    Operators add, scale by expressions (`2 * L`), compose (`L @ L`), and act on an expression:
    `L(H)` is a Formula.

    Attributes
    ----------
    coefficients : mapping from tuple of int to sympy.Expr
    variables : tuple of sympy.Symbol
    name : str
        In LaTeX.

    Examples
    --------
    >>> x0 = sympy.Symbol("x0", real=True)
    >>> D = Operator({(1,): sympy.Integer(1)}, (x0,))
    >>> (D @ (x0 * D))(x0**3).expression
    9*x0**2
    """

    coefficients: Mapping[Index, sympy.Expr]
    variables: tuple[sympy.Symbol, ...]
    name: str = "L"

    __repr__ = display.of_fields

    def __post_init__(self) -> None:
        checks.instance(self.coefficients, Mapping, "coefficients", "a mapping from multi-indices to sympy expressions")
        n = len(symbols(self.variables, "variables"))
        for index, coefficient in self.coefficients.items():
            if not isinstance(index, tuple) or len(index) != n:
                raise ValueError(f"coefficients must have multi-indices of {n} entries as keys, got {checks.short(index)}")
            checks.instance(coefficient, sympy.Expr, "coefficients", "a mapping to sympy expressions")

    def __call__(self, H: sympy.Expr | None = None) -> Formula:
        """The operator on an expression H; None leaves H undetermined."""
        x = self.variables
        H = sympy.Function("H")(*x) if H is None else expression(H, "H", x)
        return Formula(f"{self.name} H", sympy.Add(*self._terms(H)), self.variables)

    def __add__(self, other: Operator) -> Operator:
        if not isinstance(other, Operator):
            return NotImplemented
        self._check_variables(other)
        merged: defaultdict[Index, sympy.Expr] = defaultdict(lambda: sympy.S.Zero, self.coefficients)
        for index, coefficient in other.coefficients.items():
            merged[index] += coefficient
        return self._like(merged)

    def __sub__(self, other: Operator) -> Operator:
        return self + (-1) * other if isinstance(other, Operator) else NotImplemented

    def __rmul__(self, factor: sympy.Expr | int) -> Operator:
        factor = scalar(factor, "factor")
        return self._like({index: factor * c for index, c in self.coefficients.items()})

    def __matmul__(self, other: Operator) -> Operator:
        """Leibniz: a d^k (b d^l) = sum over j <= k of (k over j) a (d^j b) d^(k - j + l)."""
        if not isinstance(other, Operator):
            return NotImplemented
        self._check_variables(other)
        merged: defaultdict[Index, sympy.Expr] = defaultdict(lambda: sympy.S.Zero)
        for b_index, b in other.coefficients.items():
            derivatives = {}
            for a_index, a in self.coefficients.items():
                for j in _below(a_index):
                    if j not in derivatives:
                        derivatives[j] = differentiate(b, j, self.variables)
                    ways = reduce(lambda product, kj: product * comb(*kj), zip(a_index, j), 1)
                    target = tuple(k - l + m for k, l, m in zip(a_index, j, b_index))
                    merged[target] += ways * a * derivatives[j]
        return self._like(merged)

    def adjoint(self) -> Operator:
        """L', the formal transpose: integral u L v dx = integral v L' u dx, without boundary terms."""
        result = self._like({})
        for index, c in self.coefficients.items():
            derivative = self._like({index: sympy.S.NegativeOne ** sum(index)})
            result = result + derivative @ multiplication(c, self.variables)
        return result

    def conjugate(self, log_weight: sympy.Expr) -> Operator:
        """exp(-w) L exp(w) for w = log_weight: every d_i becomes d_i + (d_i w)."""
        log_weight = scalar(log_weight, "log_weight")
        zero = (0,) * len(self.variables)
        shifted = {zero: multiplication(1, self.variables)}

        def power(index: Index) -> Operator:
            if index not in shifted:
                i = next(k for k, times in enumerate(index) if times)
                unit = tuple(int(k == i) for k in range(len(index)))
                step = self._like({unit: sympy.S.One, zero: sympy.diff(log_weight, self.variables[i])})
                shifted[index] = step @ power(tuple(a - b for a, b in zip(index, unit)))
            return shifted[index]

        return sum((c * power(index) for index, c in self.coefficients.items()), self._like({}))

    def simplify(self) -> Operator:
        return self._like({index: combine(c) for index, c in self.coefficients.items()})

    def equals(self, other: Operator) -> bool:
        """Whether the two are the same operator: every coefficient of the difference vanishes identically."""
        checks.instance(other, Operator, "other", "an Operator")
        return all(map(vanishes, (self - other).coefficients.values()))

    def named(self, name: str) -> Operator:
        return Operator(self.coefficients, self.variables, name)

    @property
    def latex(self) -> str:
        terms = []
        for index in sorted(self.coefficients, key=lambda index: (-sum(index), tuple(-i for i in index))):
            c = self.coefficients[index]
            text = f"\\left({compact_latex(c)}\\right)" if c.is_Add else compact_latex(c)
            powers = [(f"\\partial_{{{sympy.latex(v)}}}", times) for v, times in zip(self.variables, index) if times]
            symbols = " ".join(d if times == 1 else f"{d}^{{{times}}}" for d, times in powers)
            terms.append(symbols if c == 1 and symbols else f"{text} {symbols}".strip())
        return f"{self.name} = {' + '.join(terms).replace('+ -', '-') or '0'}"

    def _check_variables(self, other: Operator) -> None:
        if tuple(other.variables) != tuple(self.variables):
            raise ValueError(f"other must be an Operator in {tuple(self.variables)}, got one in {tuple(other.variables)}")

    def _terms(self, H: sympy.Expr) -> Iterator[sympy.Expr]:
        for index, c in self.coefficients.items():
            yield c * differentiate(H, index, self.variables)

    def _like(self, coefficients: Mapping[Index, sympy.Expr]) -> Operator:
        tidy = {index: expand_above(c) for index, c in coefficients.items()}
        return Operator({index: c for index, c in tidy.items() if c != 0}, self.variables, self.name)


def multiplication(factor: sympy.Expr, variables: tuple[sympy.Symbol, ...]) -> Operator:
    """F -> factor F."""
    return Operator({(0,) * len(variables): sympy.S.One * factor}, variables, "M")


def drift_diffusion(metric: int | sympy.Matrix, density: sympy.Expr | None = None, drift: sympy.Expr | float = 2) -> Operator:
    """L H = Delta_g H + c <grad log p, grad H>_g = p^-c div_g(p^c grad_g H), c the drift.

    Parameters
    ----------
    metric : int or sympy Matrix
        A dimension (flat space), or g as an (n, n) Matrix in x0, x1, ...
    density : sympy expression or None
        p > 0 with respect to the volume of g, up to a factor; None: exp(ell), undetermined.
    drift : expression or number
        2 softmax, 2 (1 - alpha) density-corrected, 1 Sinkhorn, 0 column-then-row.

    References
    ----------
    Ruan & Zhang 2024 (arXiv 2412.18288), Theorem 3; Coifman & Lafon 2006.

    Examples
    --------
    >>> x0 = sympy.Symbol("x0")
    >>> L = drift_diffusion(1, sympy.exp(sympy.cos(x0)))
    >>> L(sympy.cos(x0))([[0.9]]).round(10)
    array([0.60559213])
    """
    g = tensor(metric)
    return divergence_form(g, expression(drift, "drift") * log_density(density, coordinates(g.shape[0]))).named("L")


def divergence_form(g: sympy.Matrix, log_weight: sympy.Expr, log_volume: sympy.Expr | None = None) -> Operator:
    """w^-1 div_g(w grad_g), w = exp(log_weight): g^ij d_i d_j + (d_i g^ij + g^ij d_i(log w + log sqrt det g)) d_j.

    `log_volume` is log sqrt det g, where g has more dimensions than there are coordinates to depend on.
    """
    x, raised = coordinates(g.shape[0]), inverse(g)
    volume = sympy.log(g.det()) / 2 if log_volume is None else log_volume
    coefficients: defaultdict[Index, sympy.Expr] = defaultdict(lambda: sympy.S.Zero)
    for i, j in itertools.product(range(len(x)), repeat=2):
        coefficients[_unit(len(x), i, j)] += raised[i, j]
        slope = sympy.diff(log_weight + volume, x[i])
        coefficients[_unit(len(x), j)] += sympy.diff(raised[i, j], x[i]) + raised[i, j] * slope
    return Operator({}, x)._like({index: combine(c) for index, c in coefficients.items()})


def tensor(metric: int | sympy.Matrix) -> sympy.Matrix:
    """The metric tensor of a dimension (flat) or of a user's Matrix, in our coordinates."""
    if not isinstance(metric, sympy.MatrixBase):
        if checks.lone(metric) is None:
            raise TypeError(f"metric must be a dimension or a sympy Matrix, got {checks.short(metric)}")
        return sympy.eye(checks.integer(metric, "metric", least=1))
    if not metric.shape[0] or metric.shape[0] != metric.shape[1] or not metric.is_symmetric():
        raise ValueError(f"metric must be a symmetric square Matrix, got {checks.short(metric)}")
    x = coordinates(metric.shape[0])
    g = sympy.Matrix(metric).applyfunc(lambda entry: expression(entry, "metric", x))
    if any(entry.is_nonpositive for entry in g.diagonal()) or (not g.free_symbols and not g.is_positive_definite):
        raise ValueError(f"metric must be positive definite, got {checks.short(metric)}")
    return g


def differentiate(F: sympy.Expr, index: Index, variables: tuple[sympy.Symbol, ...]) -> sympy.Expr:
    for v, times in zip(variables, index):
        for _ in range(times):
            F = sympy.diff(F, v)  # one at a time: sympy simplifies what it takes several of, for longer than it takes them
    return F


def _unit(dim: int, *axes: int) -> Index:
    return tuple(axes.count(k) for k in range(dim))


def _below(index: Index) -> Iterator[Index]:
    return itertools.product(*(range(k + 1) for k in index))
