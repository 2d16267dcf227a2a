"""What of an expression f(x, y) is computed once per token, and what is left for every pair.

Parts that depend on one token alone become features u0, u1, ... of the query and v0, v1, ... of the key; f is a
function of those. Where that is accurate enough, sines and cosines are taken apart for it:

    cos(a(x) + b(y)) = cos a cos b - sin a sin b,    sin(a(x) + b(y)) = sin a cos b + cos a sin b.

A part of the right is good to a unit of rounding and to that of its angle, so T, the left, is wrong by at most
(3 + |a| + |b|) units of 1 and f by |df/dT| times that; where f jumps with T, as a condition does, T stays whole. Nothing
else is expanded: (x - y)^2 would cancel, exp overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sympy
from sympy.core.relational import Relational

_JUMPS = (Relational, sympy.floor, sympy.ceiling, sympy.frac, sympy.Mod, sympy.sign, sympy.Heaviside)
Symbols = tuple[sympy.Symbol, ...]
Sides = tuple[Symbols, Symbols]


@dataclass(frozen=True)
class Hoisted:
    """f(x, y) = result(u, v), with u = queries(x) and v = keys(y)."""

    queries: tuple[sympy.Expr, ...]
    keys: tuple[sympy.Expr, ...]
    u: Symbols
    v: Symbols
    result: sympy.Expr


@lru_cache(maxsize=256)
def hoist(expression: sympy.Expr, sides: Sides) -> Hoisted:
    """Take out what depends on x alone or on y alone, sums and products of such parts as one.

    Examples
    --------
    >>> x, y = sympy.symbols("x0 y0", real=True)
    >>> parts = hoist(3 * sympy.sqrt(x) * (x - sympy.exp(y)), ((x,), (y,)))
    >>> parts.queries, parts.keys, parts.result
    ((x0, 3*sqrt(x0)), (-exp(y0),), u1*(u0 + v0))
    """
    features: tuple[dict, dict] = {}, {}

    def named(side: int, part: sympy.Expr) -> sympy.Expr:
        return features[side].setdefault(part, sympy.Symbol(f"{'uv'[side]}{len(features[side])}", real=True))

    def rest(node: sympy.Basic) -> sympy.Basic:
        side = side_of(node, sides)
        if side is not None and isinstance(node, sympy.Expr):
            return named(side, node)
        if not (node.args and node.free_symbols):
            return node
        if not isinstance(node, (sympy.Add, sympy.Mul)):
            return node.func(*map(rest, node.args))
        numbers = [part for part in node.args if not part.free_symbols]
        alone: tuple[list, list] = [], []
        for part in node.args:
            if (side := side_of(part, sides)) is not None:
                alone[side].append(part)
        left = [rest(part) for part in node.args if part.free_symbols and side_of(part, sides) is None]
        if any(alone):
            alone[0 if alone[0] else 1].extend(numbers)
            numbers = []
        return node.func(*numbers, *(named(side, node.func(*alone[side])) for side in (0, 1) if alone[side]), *left)

    result = rest(expression)
    (queries, u), (keys, v) = ((tuple(parts), tuple(parts.values())) for parts in features)
    return Hoisted(queries, keys, u, v, result)


def side_of(node: sympy.Basic, sides: Sides) -> int | None:
    """0 for what depends on x alone, 1 for y alone; None for both and for neither."""
    symbols = node.free_symbols
    return next((k for k in (0, 1) if symbols and symbols.issubset(sides[k])), None)


def expand(expression: sympy.Expr, sides: Sides, points: tuple[np.ndarray, np.ndarray], allowed: float) -> sympy.Expr:
    """The expression with sines and cosines taken apart, as many as change f by at most `allowed` between these points."""
    waves = _waves(expression, sides)

    def largest(node: sympy.Expr) -> float:
        """A bound of |node|; inf where none is seen."""
        if node.is_number:
            return abs(float(node))
        side = side_of(node, sides)
        if side is not None:
            return float(np.abs(evaluate((node,), sides[side], points[side])).max())
        if isinstance(node, (sympy.sin, sympy.cos, sympy.Dummy)):  # a dummy stands for one of them
            return 1.0
        sizes = [largest(part) for part in node.args]
        if node.is_Add:
            return float(np.sum(sizes))
        if node.is_Mul:
            return float(np.prod(sizes))
        return sizes[0] ** int(node.exp) if node.is_Pow and node.exp.is_Integer and node.exp > 0 else np.inf

    apart = {}
    with np.errstate(all="ignore"):
        for wave, (a, b), slope in waves:
            error = np.finfo(float).eps * (3 + largest(a) + largest(b)) * largest(slope)
            if error * len(waves) <= allowed:  # not so for NaN
                apart[wave] = _apart(wave.func, a, b)
    return expression.xreplace(apart)


@lru_cache(maxsize=256)
def _waves(expression: sympy.Expr, sides: Sides) -> list[tuple]:
    """Sines and cosines of a(x) + b(y), as (wave, (a, b), df/dwave) with dummies in place of the waves; none that f jumps
    with."""
    kept = set().union(*(jump.atoms(sympy.sin, sympy.cos) for jump in expression.atoms(*_JUMPS)))
    found = [(wave, _sum(wave.args[0], sides)) for wave in expression.atoms(sympy.sin, sympy.cos) - kept]
    dummies = {wave: sympy.Dummy(real=True) for wave, parts in found if parts is not None}
    outside = expression.xreplace(dummies)
    return [(wave, parts, outside.diff(dummies[wave])) for wave, parts in sorted(found, key=str) if parts is not None]


def _sum(angle: sympy.Expr, sides: Sides) -> tuple[sympy.Expr, sympy.Expr] | None:
    """(a, b) with angle = a(x) + b(y), if it is such a sum."""
    if not angle.free_symbols or side_of(angle, sides) is not None:
        return None
    terms = sympy.Add.make_args(sympy.expand(angle))
    y_terms = [term for term in terms if side_of(term, sides) == 1]
    x_terms = [term for term in terms if term not in y_terms]
    if any(term.free_symbols and side_of(term, sides) is None for term in x_terms):
        return None
    return sympy.Add(*x_terms), sympy.Add(*y_terms)


def _apart(wave: Callable, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if wave is sympy.sin:
        return sympy.sin(a) * sympy.cos(b) + sympy.cos(a) * sympy.sin(b)
    return sympy.cos(a) * sympy.cos(b) - sympy.sin(a) * sympy.sin(b)


def evaluate(parts: Iterable[sympy.Expr], symbols: Symbols, points: np.ndarray) -> np.ndarray:
    """The parts (h,) at points (N, n), by NumPy: (N, h)."""
    values = _function(tuple(parts), symbols)(*points.T)
    return np.stack([np.broadcast_to(np.asarray(value, float), len(points)) for value in values], axis=1)


@lru_cache(maxsize=1024)
def _function(parts: tuple[sympy.Expr, ...], symbols: Symbols) -> Callable:
    return sympy.lambdify(symbols, list(parts), modules="numpy", cse=True)
