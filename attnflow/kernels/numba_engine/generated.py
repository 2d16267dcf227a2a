"""The loop that is written for an expression: f between a query and a tile of keys, from their features.

For 1 - cos(x0 - y0), with u = -cos x0, -sin x0 and v = cos y0, sin y0, it is

    def fill(query, keys, row):
        u0 = query[0]
        u1 = query[1]
        for j in range(row.size):
            v0 = keys[j]
            v1 = keys[j + 256]
            row[j] = u0*v0 + u1*v1 + 1.0

The text is made of a checked sympy tree and of nothing a user has written. It lies in a file of its own, since numba keeps
compiled code for files only; that file is written, and what is in it is never run.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType

import sympy
from numba import types
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.printing.pycode import PythonCodePrinter

from ...compilation import cached_cfunc, keep_source, source_stamp
from . import arithmetic
from .hoisting import Hoisted
from .tiles import TILE

# what a node costs, in pairs of the dense tile; the last is a call of the C library, which runs on no vectors
_SIMPLE, _ROOT, _WAVE, _CALL = 0.04, 0.4, 1.2, 13.0
_COSTS: dict[type, float] = {
    sympy.Add: _SIMPLE,
    sympy.Mul: _SIMPLE,
    sympy.Pow: _SIMPLE,
    sympy.Abs: _SIMPLE,
    sympy.Min: _SIMPLE,
    sympy.Max: _SIMPLE,
    sympy.floor: _SIMPLE,
    sympy.Piecewise: _SIMPLE,
    sympy.sin: _WAVE,
    sympy.cos: _WAVE,
    sympy.exp: _WAVE,
    sympy.log: 1.5,
    **dict.fromkeys((sympy.tan, sympy.sinh, sympy.cosh, sympy.tanh), 2 * _WAVE),
    **dict.fromkeys((sympy.asin, sympy.acos, sympy.atan), _CALL),
}
_OF_NUMPY = {"floor": "np.floor", "asin": "np.arcsin", "acos": "np.arccos", "atan": "np.arctan"}
_LARGEST_POWER = 512  # by multiplications

_VECTOR = types.Array(types.float64, 1, "C")
_FILL = types.void(_VECTOR, _VECTOR, _VECTOR)
# the file's name is that of its text: with other arithmetic it is another one, and compiled anew
_HEADER = '''"""{title}

Written by attnflow.kernels.numba_engine.generated, with arithmetic {arithmetic};
what else is put here is not run.
"""

import numpy as np

from attnflow.kernels.numba_engine.arithmetic import cos, cosh, exp, log_of_any, power_of_any, sin, sinh, tan, tanh


def fill(query, keys, row):
'''


def unknown(hoisted: Hoisted) -> list[str]:
    """Names of what stands in the result and can't be compiled."""
    return sorted({type(node).__name__ for node in sympy.preorder_traversal(hoisted.result) if not _is_known(node)})


def _is_known(node: sympy.Basic) -> bool:
    if isinstance(node, sympy.Pow):
        return node.exp.is_Number and node.exp.is_finite or node.base is sympy.E
    if node.is_Symbol or node.is_Number or node.is_NumberSymbol:
        return node is not sympy.nan
    logical = sympy.logic.boolalg.BooleanAtom, Relational, sympy.And, sympy.Or, sympy.Not, ExprCondPair
    return node.func in _COSTS or isinstance(node, logical)


class _Printer(PythonCodePrinter):
    """Python that numba turns into vector instructions: float64 throughout, functions those of `arithmetic`."""

    def _print_number(self, number: sympy.Expr) -> str:
        value = float(number)
        return repr(value) if abs(value) < float("inf") else f"{'-' if value < 0 else ''}np.inf"

    _print_Integer = _print_Rational = _print_Float = _print_NumberSymbol = _print_number
    _print_Zero = _print_One = _print_NegativeOne = _print_Half = _print_number
    _print_Pi = _print_Exp1 = _print_Infinity = _print_NegativeInfinity = _print_number

    def _print_Pow(self, node: sympy.Pow, rational: bool = False) -> str:
        if node.base is sympy.E:
            return f"exp({self._print(node.exp)})"
        base, exponent = self._print(node.base), float(node.exp)
        power = self._power(f"({base})", abs(exponent))
        return power if exponent > 0 else f"(1.0/{power})"

    def _power(self, base: str, exponent: float) -> str:
        """By multiplications and a root, where these do."""
        if exponent > _LARGEST_POWER or not (2 * exponent).is_integer():
            return f"power_of_any({base}, {exponent!r})"
        whole, root = int(exponent), f"np.sqrt({base})"
        power = base if whole == 1 else f"{base}**{whole}"
        if exponent == whole:
            return power
        return f"({power}*{root})" if whole else root

    def _print_Function(self, node: sympy.Function) -> str:
        name = type(node).__name__
        return f"{_OF_NUMPY.get(name, name)}({self._print(node.args[0])})"

    _print_sin = _print_cos = _print_tan = _print_sinh = _print_cosh = _print_tanh = _print_Function
    _print_asin = _print_acos = _print_atan = _print_floor = _print_exp = _print_Function

    def _print_log(self, node: sympy.log) -> str:
        return f"log_of_any({self._print(node.args[0])})"

    def _print_Abs(self, node: sympy.Abs) -> str:
        return f"np.abs({self._print(node.args[0])})"

    def _nested(self, function: str, node: sympy.Expr) -> str:
        first, *others = map(self._print, node.args)
        for other in others:
            first = f"{function}({first}, {other})"
        return first

    def _print_Min(self, node: sympy.Min) -> str:
        return self._nested("np.minimum", node)

    def _print_Max(self, node: sympy.Max) -> str:
        return self._nested("np.maximum", node)

    def _print_Piecewise(self, node: sympy.Piecewise) -> str:
        text = "np.nan"  # where no condition holds
        for value, condition in reversed(node.args):
            value = self._print(value)
            text = value if condition == sympy.true else f"({value} if {self._print(condition)} else {text})"
        return text


def write(hoisted: Hoisted, title: str) -> tuple[str, float]:
    """The source of `fill`, and what a pair of it costs in pairs of the dense tile."""
    steps, (result,) = sympy.cse([hoisted.result], symbols=sympy.numbered_symbols("t", real=True))
    printed = _Printer({"fully_qualified_modules": False})
    used = hoisted.result.free_symbols
    lines = [f"    {u} = query[{k}]" for k, u in enumerate(hoisted.u) if u in used]
    lines += ["    for j in range(row.size):"]
    lines += [f"        {v} = keys[j{f' + {k * TILE}' if k else ''}]" for k, v in enumerate(hoisted.v) if v in used]
    lines += [f"        {name} = {printed.doprint(value)}" for name, value in steps]
    lines += [f"        row[j] = {printed.doprint(result)}", ""]
    cost = sum(map(_cost, (result, *(value for _, value in steps))))
    return _HEADER.format(title=title, arithmetic=source_stamp(arithmetic.__file__)) + "\n".join(lines), cost


def _cost(expression: sympy.Expr) -> float:
    total = 0.0
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Pow):
            doubled = float(2 * node.exp) if node.exp.is_Number else 0.0
            roots = 8 if not doubled.is_integer() else 1 if doubled % 2 else 0
            total += _SIMPLE * 2 + _ROOT * (roots + (doubled < 0))
        else:
            total += _COSTS.get(node.func, 0) * max(len(node.args) - 1, 1)
    return total


_LOCK = threading.Lock()
_LOOPS: dict[str, Callable] = {}


def load(source: str) -> Callable:
    """The compiled `fill` of a source, as a function that compiled loops take as an argument."""
    digest = hashlib.sha256(source.encode()).hexdigest()
    with _LOCK:
        if digest not in _LOOPS:
            # numba looks for a module of that name when it takes up what it has kept
            module = sys.modules[f"attnflow_expression_{digest}"] = ModuleType(f"attnflow_expression_{digest}")
            # our own text, printed from a tree of known nodes: whatever the file holds
            exec(compile(source, keep_source(f"{digest}.py", source), "exec"), module.__dict__)
            _LOOPS[digest] = cached_cfunc(_FILL, fastmath=arithmetic.CONTRACT, error_model="numpy")(module.fill)
        return _LOOPS[digest]
