"""How objects show themselves: numbers, arrays and functions in a few words, formulas in LaTeX, small tables in HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from html import escape

import numpy as np

LONGEST = 120  # characters of a repr
_ROWS = 16  # of a table
_FEW = 4  # entries of an array that are shown


class Typeset:
    """What has a formula: notebooks typeset it."""

    @property
    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        raise NotImplementedError

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex}$"


def shown(name: str, /, *parts: object, **named: object) -> str:
    """name(parts, named=...), for a repr: cut where it is long.

    Examples
    --------
    >>> shown("Torus", [1.0, 2 * np.pi], periodic=True)
    'Torus([1, 2*pi], periodic=True)'
    """
    words = [word(part) for part in parts] + [f"{key}={word(value)}" for key, value in named.items()]
    return cut(f"{name}({', '.join(words)})")


def counted(count: int, noun: str) -> str:
    """How many of what.

    Examples
    --------
    >>> counted(1, "column"), counted(3, "column")
    ('1 column', '3 columns')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def of_fields(self) -> str:
    """The repr of a dataclass or named tuple whose fields may be long."""
    names = getattr(self, "_fields", None) or [field.name for field in fields(self) if field.repr]
    return shown(type(self).__name__, **{name: getattr(self, name) for name in names})


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, cut where it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def word(value: object) -> str:
    """A value in a few characters: numbers to six digits, arrays by their entries or their shape, functions by their name."""
    if isinstance(value, np.ndarray):
        if value.size > _FEW or value.dtype.kind not in "fiuc":
            return f"<{' x '.join(map(str, value.shape))} array>"
        value = value.tolist()
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    if isinstance(value, (complex, np.complexfloating)):
        return number(float(value.real)) if value.imag == 0 else f"{value.real:.6g}{value.imag:+.6g}j"
    if isinstance(value, (list, tuple)):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return f"{opening}{', '.join(map(word, value))}{',' * (closing == ')' and len(value) == 1)}{closing}"
    return function_name(value) if callable(value) and "<" in repr(value) else repr(value)


def lasting(value: object) -> str:
    """`word`, the same in every process: without the place in memory that Python's own repr tells."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", word(value))


def number(value: float) -> str:
    """Six digits, or a multiple of pi / 2 as such.

    Examples
    --------
    >>> number(2 * np.pi), number(0.5), number(-np.pi / 2)
    ('2*pi', '0.5', '-pi/2')
    """
    halves = _half_turns(value)
    if not halves:
        return f"{value:.6g}"
    sign, size = "-" * (halves < 0), abs(halves)
    times, half = (size // 2, "") if size % 2 == 0 else (size, "/2")
    return f"{sign}{'' if times == 1 else f'{times}*'}pi{half}"


def function_name(function: Callable) -> str:
    """The user's name of a callable, or what kind of thing it is: never where it is in memory."""
    if isinstance(function, partial):
        return function_name(function.func)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, type(math)):
        return f"{word(owner)}.{getattr(function, '__name__', 'method')}"
    name = getattr(function, "__name__", type(function).__name__).strip("_")
    return "function" if name == "<lambda>" else name


def latex_number(value: float) -> str:
    """Six digits, powers of ten as such, multiples of pi / 2 as such.

    Examples
    --------
    >>> latex_number(1.5e-7), latex_number(2 * np.pi), latex_number(np.inf)
    ('1.5 \\\\cdot 10^{-7}', '2 \\\\pi', '\\\\infty')
    """
    if math.isinf(value):
        return "\\infty" if value > 0 else "-\\infty"
    halves = _half_turns(value)
    if halves:
        return number(value).replace("*", " ").replace("pi", "\\pi")
    mantissa, _, exponent = f"{value:.6g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else f"-{power}" if mantissa == "-1" else f"{mantissa} \\cdot {power}"


def latex_factor(value: float, what: str) -> str:
    """A number times something: 1 and -1 are not written.

    Examples
    --------
    >>> latex_factor(1.0, "x"), latex_factor(-1.0, "x"), latex_factor(0.5, "x")
    ('x', '-x', '0.5 \\\\, x')
    """
    return what if value == 1 else f"-{what}" if value == -1 else f"{latex_number(value)} \\, {what}"


def latex_array(value: np.ndarray, name: str) -> str:
    """A vector or matrix of up to three rows by its entries, a larger one by its name."""
    rows = np.atleast_2d(value)
    if max(rows.shape) > 3:
        return name
    if rows.size == 1:
        return latex_number(float(rows[0, 0]))
    if np.ndim(value) == 1:
        return f"({', '.join(latex_number(float(v)) for v in value)})"
    entries = " \\\\ ".join(" & ".join(latex_number(float(v)) for v in row) for row in rows)
    return f"\\begin{{pmatrix}} {entries} \\end{{pmatrix}}"


def latex_name(function: Callable, default: str) -> str:
    """A user's function as a symbol: by its name, or the default where it has none."""
    name = function_name(function)
    if not name.isidentifier() or name == "function":
        return default
    name = name.replace("_", "\\_")
    return f"\\mathrm{{{name}}}"


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """A small HTML table: what stands between dollar signs is typeset by notebooks, all else is text.

    Examples
    --------
    >>> table("Run", [("tokens", 60)])
    '<table><caption>Run</caption><tbody><tr><th>tokens</th><td>60</td></tr></tbody></table>'
    """
    rows = list(rows)
    if len(rows) > _ROWS:
        rows = [*rows[: _ROWS - 1], ("...", f"{len(rows)} in all")]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "".join(
        f"<tr><th>{escape(str(first))}</th>{''.join(f'<td>{escape(str(cell))}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table><caption>{escape(title)}</caption>{head}<tbody>{lines}</tbody></table>"


def _half_turns(value: float) -> int:
    """k where value is k pi / 2 for a small k, else 0."""
    halves = value / (np.pi / 2)
    nearest = round(halves) if math.isfinite(halves) else 0
    return nearest if 0 < abs(nearest) <= 16 and abs(halves - nearest) <= 1e-14 * abs(nearest) else 0
