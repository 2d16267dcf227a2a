"""A pseudo-metric typed as a sympy expression: what it may be made of, and how NumPy evaluates it.

sympy, which takes a second, is imported when the first of its objects arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks

if TYPE_CHECKING:
    import sympy


class Expression:
    """f as a function of two points with coordinates `symbols`: x0, x1, ..., y0, y1, ...

    What is pickled of it is the expression.
    """

    def __init__(self, symbols: tuple[sympy.Symbol, ...], expression: sympy.Expr) -> None:
        import sympy

        self.symbols, self.expression = symbols, expression
        self._function = sympy.lambdify(symbols, expression, modules="numpy")
        self._of_one_shape = expression.has(sympy.And, sympy.Or)  # what sympy writes for these does not broadcast

    def __repr__(self) -> str:
        return str(self.expression)

    @property
    def latex(self) -> str:
        import sympy

        return sympy.latex(self.expression)

    def __reduce__(self):
        return Expression, (self.symbols, self.expression)

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        if self._of_one_shape:
            u, v = np.broadcast_arrays(u, v)
        result = self._function(*np.moveaxis(u, -1, 0), *np.moveaxis(v, -1, 0))
        return result + np.zeros_like(u[..., 0] + v[..., 0])  # of all pairs, and in the arrays' own library

    def sides(self) -> tuple[tuple[sympy.Symbol, ...], tuple[sympy.Symbol, ...]]:
        """The coordinates of x, and those of y."""
        dim = len(self.symbols) // 2
        return self.symbols[:dim], self.symbols[dim:]

    def transposed(self) -> Expression:
        """f(y, x)."""
        x, y = self.sides()
        return Expression(self.symbols, self.expression.xreplace(dict(zip((*x, *y), (*y, *x)))))


def read(f: object, dim: int) -> Expression:
    """The user's expression in real coordinates, or an error that says what in it can't be."""
    import sympy
    from sympy.core.function import AppliedUndef

    checks.instance(f, sympy.Expr, "f", "a sympy expression or a callable of two points")
    assert isinstance(f, sympy.Expr)
    symbols = (*sympy.symbols(f"x0:{dim}", real=True), *sympy.symbols(f"y0:{dim}", real=True))
    names = {s.name: s for s in symbols}  # assumptions (positive=True) make symbols of one name differ
    real = f.subs({s: names[s.name] for s in f.free_symbols if s.name in names})
    unknown = real.free_symbols - {*symbols}
    if unknown:
        raise ValueError(f"f must be an expression in {[*symbols]}, got also {sorted(map(str, unknown))}")
    undefined = sorted({str(part.func) for part in real.atoms(AppliedUndef)})
    if undefined:
        raise ValueError(f"f must be made of functions that sympy knows, got also {undefined}; put in what they stand for")
    if real.has(sympy.zoo):  # the infinity of complex numbers, what sympy makes of a division by zero
        raise ValueError(f"f must be a number or inf, got {checks.short(f)}, which has no value")
    if real.has(sympy.I) or real.is_extended_real is False:
        raise ValueError(f"f must be real for real points, got {checks.short(f)}, which is complex")
    expression = Expression(symbols, real)
    try:
        with np.errstate(all="ignore"):
            expression(np.ones((2, dim)), np.ones((2, dim)))
    except (NameError, TypeError, AttributeError) as error:  # as for functions of SciPy; others come with their tokens
        raise ValueError(
            f"f must be made of functions that NumPy knows, got {checks.short(f)} ({error}); use a callable"
        ) from None
    except Exception:
        pass
    return expression
