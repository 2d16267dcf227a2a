"""What a study file may say: every table, kind, key and default, read off the tables and docstrings of the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from ..attention import Attention, DensityCorrected, Sinkhorn
from ..attention.names import KEY_BIASES
from .convergence import ConvergenceStudy
from .files import BUILT_IN, LAYER, STUDY, as_toml
from .kinds import KINDS

_ABOUT = {
    "space": "where tokens live",
    "density": "what tokens are drawn from",
    "pseudometric": "what is near",
    "initial": "features at the start",
    "layer": "how weights add up",
    "study": "what is compared, and how often",
}
_OPENING = """\
A study file is TOML with the tables below, each with the keys below; nothing in it is executed. A table that is left
out is the built-in study's, except [study]; without a file all are. `attnflow converge STUDY.toml` runs it, `attnflow budget
STUDY.toml --error E` plans it."""


def study_reference() -> str:
    """Every table, kind, key and default of a study file, as Markdown that also reads well in a terminal.

    Examples
    --------
    >>> print(study_reference().partition("## ")[2].partition("`")[0])
    [space]: where tokens live
    <BLANKLINE>
    -
    """
    parts = [_OPENING, *(_kinds(name) for name in KINDS), _layer(), _study()]
    parts.append(f"## The built-in study\n\n```toml\n{as_toml(BUILT_IN)}```")
    return "\n\n".join(parts) + "\n"


def _kinds(name: str) -> str:
    lines = [_heading(name)]
    for kind, make in KINDS[name].items():
        lines.append(f'- `kind = "{kind}"`: {_summary(make)}')
        described = _described(make)
        for key, parameter in inspect.signature(make).parameters.items():
            if key != "space":  # the file's own
                lines.append(_key(key, parameter, described.get(key, ""), indent="  "))
    return "\n".join(lines)


def _layer() -> str:
    attention, of_sinkhorn = _described(Attention), _described(Sinkhorn)
    described = {
        **{key: f'Of "sinkhorn". {of_sinkhorn[key]}' for key in ("tol", "max_iter", "potentials")},
        **{key: attention[key] for key in LAYER if key in attention},
        "normalization": f"One of {KEY_BIASES}, or a list, which see the same tokens and are drawn together.",
        "alpha": f'Of "density-corrected" without a number, and 1 where it is left out. {_described(DensityCorrected)["alpha"]}',
    }
    alpha = inspect.Parameter("alpha", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = {"alpha": alpha, **inspect.signature(Sinkhorn).parameters, **inspect.signature(ConvergenceStudy).parameters}
    return "\n".join([_heading("layer"), *(_key(key, parameters[key], described[key]) for key in LAYER)])


def _study() -> str:
    described = _described(ConvergenceStudy)
    described["sizes"] = described["sizes"].replace("numpy.inf", '"inf"')
    parameters = inspect.signature(ConvergenceStudy).parameters
    return "\n".join([_heading("study"), *(_key(key, parameters[key], described[key]) for key in STUDY)])


def _heading(name: str) -> str:
    return f"## [{name}]: {_ABOUT[name]}\n"


def _key(key: str, parameter: inspect.Parameter, described: str, indent: str = "") -> str:
    """A line of the list: the key, its default, what it is."""
    if parameter.default is parameter.empty:
        default = ", required"
    elif parameter.default is None:
        default = ", optional"
    else:
        default = f", default {_value(parameter.default)}"
    return f"{indent}- `{key}`{default}{': ' if described else ''}{described}"


def _value(value) -> str:
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:.12g}`"


def _summary(make: Callable) -> str:
    return " ".join((inspect.getdoc(make) or "").partition("\n\n")[0].split())


def _described(make: Callable) -> dict[str, str]:
    """What the docstring's section Parameters says of each: its own words, or else its type."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", inspect.getdoc(make) or "", re.M | re.S)
    entries = re.findall(r"^(\w[\w, ]*?)(?: : (.*))?\n((?:(?: +.*)?(?:\n|\Z))*)", section[1] + "\n" if section else "", re.M)
    return {name.strip(): " ".join(text.split()) or kind for names, kind, text in entries for name in names.split(",")}
