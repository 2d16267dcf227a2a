"""Study files: TOML whose kinds are names from the tables below. No expressions; nothing is executed."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from inspect import signature

import numpy as np

from .. import checks, files
from ..attention import DensityCorrected, Normalization
from ..geometry import Box, Circle, Euclidean, Gaussian, Space, Sphere, Torus, Uniform, VonMises, VonMisesFisher
from ..similarity import Cosine, DotProduct, LogDistance, Mahalanobis, PowerDistance, SquaredDistance
from .convergence import ConvergenceStudy

SPACES = {"circle": Circle, "torus": Torus, "euclidean": Euclidean, "box": Box, "sphere": Sphere}
DENSITIES = {"uniform": Uniform, "vonmises": VonMises, "gaussian": Gaussian, "vonmises-fisher": VonMisesFisher}
PSEUDOMETRICS = {
    "squared-distance": SquaredDistance,
    "power-distance": PowerDistance,
    "log-distance": LogDistance,
    "mahalanobis": Mahalanobis,
    "dot-product": DotProduct,
    "cosine": Cosine,
}


def _cos(space: Space, mode: int = 1, axis: int = 0) -> _Wave:
    """cos(mode x) of one coordinate; on a torus, mode waves around it.

    Parameters
    ----------
    mode : int
        At least 1.
    axis : int
        Which coordinate, counted from 0.
    """
    return _Wave(np.cos, space, mode, axis)


def _sin(space: Space, mode: int = 1, axis: int = 0) -> _Wave:
    """sin(mode x) of one coordinate; on a torus, mode waves around it.

    Parameters
    ----------
    mode : int
        At least 1.
    axis : int
        Which coordinate, counted from 0.
    """
    return _Wave(np.sin, space, mode, axis)


def _coordinate(space: Space, axis: int = 0) -> _Wave:
    """One coordinate itself, where it does not wrap.

    Parameters
    ----------
    axis : int
        Which one, counted from 0.
    """
    return _Wave(None, space, 1, axis)


INITIALS: dict[str, Callable] = {"cos": _cos, "sin": _sin, "coordinate": _coordinate}
KINDS: dict[str, Mapping[str, Callable]] = {
    "space": SPACES,
    "density": DENSITIES,
    "pseudometric": PSEUDOMETRICS,
    "initial": INITIALS,
}
LAYER = ("normalization", "alpha", "residual", "backend", "dtype")
STUDY = ("t", "epsilons", "sizes", "seeds", "grid", "seed")

# a decade of eps and of N, and N = infinity; 1 / eps layers reach t = 1/2
BUILT_IN: dict[str, dict] = {
    "space": {"kind": "circle"},
    "density": {"kind": "vonmises", "kappa": 1.0},
    "pseudometric": {"kind": "squared-distance"},
    "layer": {"normalization": "softmax"},
    "initial": {"kind": "cos", "mode": 1},
    "study": {
        "t": 0.5,
        "epsilons": [0.2, 0.125, 0.0625, 0.04, 0.02],
        "sizes": [400, 1200, 4000, "inf"],
        "seeds": 10,
    },
}

_LARGEST = 2**15  # bytes of a study file


def read_study(path: str | os.PathLike | None = None) -> ConvergenceStudy:
    """A study from a TOML file; the built-in one on the circle for None.

    Raises
    ------
    ValueError
        Naming the table and key: an unknown kind or key, a missing one, a value that does not fit.
    """
    return study_from_tables(BUILT_IN if path is None else read_tables(path))


def read_tables(path: str | os.PathLike) -> dict:
    """The tables of a study file, whatever is in them."""
    content = files.read_bytes(path, _LARGEST, "study file")
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise ValueError(f"study file must be TOML, got {os.fspath(path)!r}: nested too deeply") from None
    except ValueError as error:  # not UTF-8, no TOML, a number of too many digits
        raise ValueError(f"study file must be TOML, got {os.fspath(path)!r}: {files.one_line(error)}") from None


def write_tables(tables: Mapping[str, Mapping], path: str | os.PathLike) -> None:
    """A study file of these tables, written whole or not at all; keys are names, as in what `read_tables` accepts."""
    with files.whole(path, "w") as file:
        file.write(as_toml(tables))


def as_toml(tables: Mapping[str, Mapping]) -> str:
    """These tables as the text of a study file.

    Examples
    --------
    >>> print(as_toml({"space": {"kind": "circle", "length": 1.0}}), end="")
    [space]
    kind = "circle"
    length = 1.0
    """
    lines: list[str] = []
    for name, table in tables.items():  # numbers, text and lists of them are written in TOML as in JSON
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def layer_table(normalization: Normalization) -> dict:
    """The table [layer] of a normalization that a study file has a name for.

    Examples
    --------
    >>> layer_table(DensityCorrected(0.5))
    {'normalization': 'density-corrected', 'alpha': 0.5}
    """
    if isinstance(normalization, DensityCorrected):
        return {"normalization": "density-corrected", "alpha": normalization.alpha}
    return {"normalization": type(normalization).__name__.lower()}


def study_from_tables(tables: Mapping) -> ConvergenceStudy:
    """A study from the tables of a study file."""
    _only(tables, BUILT_IN, "the study file")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"[{name}] must be a table of keys, got {_kind(table)}")
    space = _make(tables, "space")
    density = _make(tables, "density", space=space)
    if density.space != space:
        raise ValueError(f"[density] must live on the [space] {space}, got one on {density.space}")
    f = _make(tables, "pseudometric", space=space)
    initial = _make(tables, "initial", space=space)
    layer = dict(tables.get("layer", {}))
    _only(layer, LAYER, "[layer]")
    layer["normalization"] = _normalization(layer.get("normalization", "softmax"), layer)
    study = dict(tables.get("study", {}))
    _only(study, STUDY, "[study]")
    missing = {"t", "epsilons", "sizes"} - study.keys()
    if missing:
        raise ValueError(f"[study] must have {sorted(missing)}")
    if not isinstance(study["sizes"], list):
        raise ValueError(f"[study] sizes must be a list, got {_kind(study['sizes'])}")
    sizes = [np.inf if n == "inf" else n for n in study.pop("sizes")]
    return ConvergenceStudy(f, density, initial, sizes=sizes, **study, **layer)


def _normalization(names, layer: dict):
    """What a study takes, from a name or several; takes alpha out of the layer's keys."""
    several = isinstance(names, list)
    rules = list(names) if several else [names]
    if "density-corrected" in rules:
        corrected = DensityCorrected(layer.pop("alpha", 1.0))
        rules = [corrected if rule == "density-corrected" else rule for rule in rules]
    elif "alpha" in layer:
        raise ValueError("[layer] alpha must come with normalization = 'density-corrected'")
    return rules if several else rules[0]


class _Wave:
    """cos or sin of mode * x along one coordinate (of `mode` waves around a torus), or x itself."""

    def __init__(self, function: Callable | None, space: Space, mode: int, axis: int) -> None:
        self.function, self.mode = function, checks.integer(mode, "[initial] mode", least=1)
        self.axis = checks.integer(axis, "[initial] axis")
        if self.axis >= space.columns:
            raise ValueError(f"[initial] axis must be below {space.columns}, got {axis}")
        wraps = self.axis < len(space.periodic) and space.periodic[self.axis]
        if wraps and function is None:
            raise ValueError("[initial] kind must be 'cos' or 'sin' on a torus, where a coordinate jumps")
        self.unit = 2 * np.pi / (space.bounds[self.axis][1] - space.bounds[self.axis][0]) if wraps else 1.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = x[..., self.axis]
        return x if self.function is None else self.function(self.mode * self.unit * x)


def _make(tables: Mapping, name: str, **context):
    """Call the constructor a table names with its other keys, and with the context it asks for."""
    kinds, table = KINDS[name], dict(tables.get(name, BUILT_IN[name]))
    if "kind" not in table:
        raise ValueError(f"[{name}] must have a kind, one of {sorted(kinds)}")
    kind = checks.choice(table.pop("kind"), f"[{name}] kind", kinds)
    wanted = signature(kinds[kind]).parameters
    _only(table, set(wanted) - set(context), f"[{name}] of kind {kind!r}")
    try:
        return kinds[kind](**{k: v for k, v in context.items() if k in wanted}, **table)
    except (TypeError, ValueError, OverflowError) as error:
        where = "" if str(error).startswith("[") else f"[{name}] of kind {kind!r}: "
        raise ValueError(f"{where}{files.one_line(error)}") from None


def _only(table: Mapping, accepted, where: str) -> None:
    unknown = sorted(set(table) - set(accepted))
    if unknown:
        some = [key[:40] for key in unknown[:5]]
        raise ValueError(f"{where} must only have the keys {sorted(accepted)}, got also {some}")


def _kind(value) -> str:
    return f"a {type(value).__name__}"
