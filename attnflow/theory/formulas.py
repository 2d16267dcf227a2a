"""A derived formula: prints as LaTeX, evaluates on points; and how a user's symbols are read.

A point has the real coordinates x0, x1, ... (a second point y0, y1, ...). Symbols are matched by name, so
a user's own `Symbol("x0")` is as good as `coordinates(1)[0]`. All other symbols are parameters, and
undetermined functions (ell = log p, H) stay until they are substituted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import numpy as np
import sympy
from sympy.core.function import AppliedUndef

from .. import checks, display

EPSILON = sympy.Symbol("epsilon", positive=True)
_COORDINATE = re.compile(r"[xyt]\d+")


def coordinates(dim: int, letter: str = "x") -> tuple[sympy.Symbol, ...]:
    """The real symbols x0, x1, ... (or y0, y1, ...) that every formula is written in.

    Examples
    --------
    >>> coordinates(2, "y")
    (y0, y1)
    """
    dim = checks.integer(dim, "dim", least=1)
    if not (isinstance(letter, str) and letter.isalpha()):
        raise ValueError(f"letter must be a letter, got {checks.short(letter)}")
    return sympy.symbols(f"{letter}0:{dim}", real=True)


@dataclass(frozen=True)
class Formula(display.Typeset):
    """An equation `name = expression` in the coordinates `variables`.

    Attributes
    ----------
    name : str
        The left-hand side, in LaTeX.
    expression : sympy.Expr
    variables : tuple of sympy.Symbol
        The coordinates that a column of points stands for.

    Examples
    --------
    >>> x0, k = sympy.Symbol("x0", real=True), sympy.Symbol("k")
    >>> wave = Formula("H", sympy.cos(k * x0), (x0,))
    >>> wave.latex
    'H = \\\\cos{\\\\left(k x_{0} \\\\right)}'
    >>> wave(np.array([[0.0], [1.0]]), k=np.pi)
    array([ 1., -1.])
    """

    name: str
    expression: sympy.Expr
    variables: tuple[sympy.Symbol, ...]

    __repr__ = display.of_fields

    def __post_init__(self) -> None:
        checks.instance(self.name, str, "name", "LaTeX in a str")
        checks.instance(self.expression, sympy.Expr, "expression", "a sympy expression")
        symbols(self.variables, "variables")

    @property
    def latex(self) -> str:
        return f"{self.name} = {compact_latex(self.expression)}"

    def substitute(self, **values: sympy.Expr | float) -> Formula:
        """Parameters and undetermined functions replaced, by name: `.substitute(H=cos(x0), alpha=1)`.

        Raises
        ------
        ValueError
            If a name is not in the formula.
        """
        found = {a.func.__name__: a for a in self.expression.atoms(AppliedUndef)}
        found |= {s.name: s for s in self.expression.free_symbols - set(self.variables)}
        for name in values:
            if name not in found:
                raise ValueError(f"values must be of parameters or functions of the formula, {sorted(found)}, got {name!r}")
        read = {found[name]: expression(value, name, self.variables) for name, value in values.items()}
        return Formula(self.name, self.expression.subs(read).doit(integrals=False), self.variables)

    def __call__(self, points: np.ndarray | None = None, **parameters: float) -> np.ndarray:
        """Values (...) at points (..., n), with a number for every remaining parameter; no points for a constant.

        Raises
        ------
        ValueError
            If a function or a parameter has no value yet, or a parameter is not in the formula.
        """
        points = np.empty(0) if points is None else points
        points = checks.coordinates(points, "points", len(self.variables))
        given = {name: _fitting(value, name, points.shape[:-1]) for name, value in parameters.items()}
        functions = sorted(str(a.func) for a in self.expression.atoms(AppliedUndef))
        if functions:
            hint = "give its value by .substitute first"
            raise ValueError(f"expression must hold no undetermined function, got {functions[0]}; {hint}")
        symbols = sorted(self.expression.free_symbols - set(self.variables), key=str)
        if {s.name for s in symbols} != set(given):
            raise ValueError(f"parameters must be {[s.name for s in symbols]}, got {sorted(given)}")
        integrals = self.expression.has(sympy.Integral)  # evaluated by quadrature, one point at a time
        shared = (
            False if integrals else partial(sympy.cse, list=False, order="none")
        )  # in canonical order it takes twice as long
        function = sympy.lambdify([*self.variables, *symbols], self.expression, "scipy", cse=shared)
        function = np.vectorize(function, otypes=[float]) if integrals else function
        values = function(*np.moveaxis(points, -1, 0), *(given[s.name] for s in symbols))
        return np.broadcast_to(checks.reals(values, "expression(points)"), points.shape[:-1]).copy()


def _fitting(value, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A number, or one for each point."""
    value = checks.array(value, name)
    if value.shape not in ((), shape):
        raise ValueError(f"{name} must be a number, or one for each point of shape {shape}, got {value.shape}")
    return value


def compact_latex(value: sympy.Basic) -> str:
    """LaTeX with undetermined functions as H and their derivatives as H_{x_0 x_0}."""

    def short(a: sympy.Expr) -> sympy.Symbol:
        function, by = (a.expr, a.variables) if isinstance(a, sympy.Derivative) else (a, ())
        name = sympy.latex(sympy.Symbol(function.func.__name__))
        return sympy.Symbol(f"{name}_{{{' '.join(map(sympy.latex, sorted(by, key=str)))}}}" if by else name)

    derivatives = {a for a in value.atoms(sympy.Derivative) if isinstance(a.expr, AppliedUndef)}
    return sympy.latex(value.xreplace({a: short(a) for a in derivatives | value.atoms(AppliedUndef)}))


def expression(value: sympy.Expr | float, name: str, variables: tuple[sympy.Symbol, ...] = ()) -> sympy.Expr:
    """A user's sympy expression (or number) in our own `variables`; symbols of other names are kept as parameters."""
    value, ours = scalar(value, name), {s.name: s for s in variables}
    strange = sorted(s.name for s in value.free_symbols if _COORDINATE.fullmatch(s.name) and s.name not in ours)
    if strange:
        raise ValueError(f"{name} must be an expression in {', '.join(ours) or 'parameters only'}, got {strange[0]}")
    return value.subs({s: ours[s.name] for s in value.free_symbols if s.name in ours})


def scalar(value: sympy.Expr | float, name: str) -> sympy.Expr:
    """A real sympy expression or number, in whatever symbols."""
    number = None if isinstance(value, sympy.Expr) else checks.lone(value)
    if number is not None:
        real = checks.real(number, name)
        whole = isinstance(number, Integral) or real.is_integer()
        value = sympy.Integer(int(number)) if whole else sympy.Float(real)  # type: ignore[call-overload]  # a Real has __trunc__
    if not isinstance(value, sympy.Expr) or getattr(value, "is_Matrix", False):
        hint = "; a string would have to be executed: build the expression with sympy" if isinstance(value, str) else ""
        raise TypeError(f"{name} must be a sympy expression or a number, got {checks.short(value)}{hint}")
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or (value.is_number and value.is_real is False):
        raise ValueError(f"{name} must be real and finite, got {checks.short(value)}")
    return value


def symbols(value: Sequence[sympy.Symbol], name: str) -> tuple[sympy.Symbol, ...]:
    """A sequence of symbols, or none."""
    if not checks.listed(value) or not all(isinstance(s, sympy.Symbol) for s in value):
        raise TypeError(f"{name} must be a tuple of sympy symbols, got {checks.short(value)}")
    return tuple(value)


def dimension(value: int | sympy.Expr, name: str) -> sympy.Expr:
    """An integer >= 1, or an expression that may be one."""
    if isinstance(value, sympy.Expr) and not value.is_number:
        return expression(value, name)
    return sympy.Integer(checks.integer(value, name, least=1))


def log_density(density: sympy.Expr | None, x: tuple[sympy.Symbol, ...]) -> sympy.Expr:
    """log p of a positive expression p, which need not be normalised; None: the undetermined function ell."""
    if density is None:
        return sympy.Function("ell")(*x)
    p = expression(density, "density", x)
    if p.is_nonpositive:
        raise ValueError(f"density must be positive, got {checks.short(p)}")
    return sympy.expand_log(sympy.log(p), force=True)
