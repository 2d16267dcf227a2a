"""Simplification that is quick and enough: rational functions of whatever functions an expression holds."""

from __future__ import annotations

import random
from itertools import islice

import sympy
from sympy.core.function import AppliedUndef

_LARGE = 7000  # parts; expanding more than that takes longer than all that follows, and nobody reads it


def combine(F: sympy.Expr) -> sympy.Expr:
    """F over one denominator, cancelled; functions and roots as if independent, but for cos^2 = 1 - sin^2."""
    waves = F.atoms(sympy.sin, sympy.cos)
    atoms = F.atoms(sympy.Symbol, sympy.Function, sympy.Derivative)
    atoms |= {other(w.args[0]) for w in waves for other in (sympy.sin, sympy.cos)}
    stand_in = {a: sympy.Dummy() for a in sorted(atoms, key=str)}
    roots = {}
    for power in F.atoms(sympy.Pow):  # base^(p/q) as a power of base^(1/q)
        if power.exp.is_Rational and not power.exp.is_Integer:
            root = power.base ** sympy.Rational(1, power.exp.q)
            roots[power] = stand_in.setdefault(root, sympy.Dummy()) ** power.exp.p
    plain = F.xreplace(stand_in | roots)
    if not plain.is_rational_function(*stand_in.values()):
        return F
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.together(plain)))
    for u in sorted({w.args[0] for w in waves}, key=str):
        s, c = stand_in[sympy.sin(u)], stand_in[sympy.cos(u)]
        numerator, denominator = (sympy.rem(part, c**2 + s**2 - 1, c) for part in (numerator, denominator))
    return sympy.cancel(numerator / denominator).xreplace({s: a for a, s in stand_in.items()})


def vanishes(F: sympy.Expr) -> bool:
    """Whether F is zero identically: certain either way, since a number can refute and only algebra can confirm."""
    F = combine(F)
    if F.is_number:
        return sympy.simplify(F) == 0
    undetermined = {a: sympy.Dummy() for a in sorted(F.atoms(AppliedUndef, sympy.Derivative), key=str)}
    plain, draw = F.xreplace(undetermined), random.Random(0)
    for _ in range(2):
        number = plain.subs({s: sympy.Rational(draw.randint(1, 99), 100) for s in sorted(plain.free_symbols, key=str)})
        if not abs(number.evalf(30)) < 1e-20:
            return False
    return sympy.simplify(F) == 0


def inverse(matrix: sympy.Matrix) -> sympy.Matrix:
    """By Cramer's rule: sympy's own elimination simplifies at every step."""
    return (matrix.adjugate() / matrix.det(method="berkowitz")).applyfunc(combine)


def expand_above(F: sympy.Expr) -> sympy.Expr:
    """F expanded, but for the sums it divides by, so that equal terms still meet; a huge F as it is."""
    if next(islice(sympy.preorder_traversal(F), _LARGE, None), None) is not None:
        return F
    below = {power for power in F.atoms(sympy.Pow) if power.base.is_Add and power.exp.is_negative}
    stand_in = {base: sympy.Dummy() for base in sorted({power.base for power in below}, key=str)}
    plain = sympy.expand(F.xreplace({power: stand_in[power.base] ** -power.exp for power in below}))
    return plain.xreplace({dummy: 1 / base for base, dummy in stand_in.items()})
