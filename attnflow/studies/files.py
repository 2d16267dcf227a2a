"""Study files: TOML whose kinds are names from tables. No expressions; nothing is executed."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping

import numpy as np

from .. import files
from ..attention import Attention, DensityCorrected, Normalization, Sinkhorn
from ..attention.names import name_of
from ..attention.names import normalization as as_normalization
from ..geometry import Circle
from ..geometry.spaces import axis_sizes
from ..similarity import SquaredDistance
from .convergence import ConvergenceStudy
from .design import READ
from .kinds import KINDS, Faults, kind_of, make, only

LAYER = ("normalization", "alpha", "tol", "max_iter", "potentials", "residual", "backend", "dtype")
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
    """The tables of a study file, whatever is in them; the files it names are looked for beside it."""
    content = files.read_bytes(path, _LARGEST, "study file")
    try:
        return _placed(tomllib.loads(content.decode()), os.path.dirname(os.path.abspath(path)))
    except RecursionError:
        raise ValueError(f"study file must be TOML, got {os.fspath(path)!r}: nested too deeply") from None
    except ValueError as error:  # not UTF-8, no TOML, a number of too many digits
        raise ValueError(f"study file must be TOML, got {os.fspath(path)!r}: {files.one_line(error)}") from None


def _placed(value, folder: str):
    """Names of files under the key "tokens" as paths from `folder`."""
    if isinstance(value, dict):
        paths = {"tokens": os.path.join(folder, value["tokens"])} if isinstance(value.get("tokens"), str) else {}
        return {key: _placed(inner, folder) for key, inner in value.items()} | paths
    return [_placed(inner, folder) for inner in value] if isinstance(value, list) else value


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
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _toml(value) -> str:
    """A value on one line; numbers and text are written in TOML as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def layer_table(normalization: Normalization) -> dict:
    """The table [layer] of a normalization that a study file has a name for.

    Examples
    --------
    >>> layer_table(DensityCorrected(0.5))
    {'normalization': 'density-corrected:0.5'}
    """
    if isinstance(normalization, Sinkhorn):
        options = {name: value for name, value in vars(normalization).items() if value != getattr(Sinkhorn(), name)}
        return {"normalization": "sinkhorn", **options}
    return {"normalization": name_of(normalization)}


def study_from_tables(tables: Mapping) -> ConvergenceStudy:
    """A study from the tables of a study file.

    Raises
    ------
    ValueError
        With all faults of the tables, one after the other, by table and key.
    """
    faults, given = Faults(), dict(tables)
    faults.catch(only, tables, BUILT_IN, "the study file")
    for name in BUILT_IN:
        if not isinstance(tables.get(name, {}), dict):
            faults.add(f"[{name}] must be a table of keys, got {kind_of(tables[name])}")
    tables = {name: tables[name] for name in BUILT_IN if isinstance(tables.get(name), dict)}
    named = {name: tables.get(name, BUILT_IN[name]) for name in KINDS}
    space = faults.catch(make, "space", named["space"])
    density = faults.catch(make, "density", named["density"], space=space)
    if density is not None and space is not None and density.space != space:
        faults.add(f"[density] must live on the [space] {space}, got one on {density.space}")
    f = faults.catch(make, "pseudometric", named["pseudometric"], space=space)
    initial = faults.catch(make, "initial", named["initial"], space=space)
    layer, study = dict(tables.get("layer", {})), dict(tables.get("study", {}))
    faults.catch(only, layer, LAYER, "[layer]")
    layer["normalization"] = faults.catch(_normalization, layer.get("normalization", "softmax"), layer)
    faults.catch(only, study, STUDY, "[study]")
    missing = {"t", "epsilons", "sizes"} - study.keys()
    if missing:
        faults.add(f"[study] must have {sorted(missing)}")
    if isinstance(study.get("sizes"), list):
        study["sizes"] = [np.inf if n == "inf" else n for n in study["sizes"]]
    elif "sizes" in study:
        faults.add(f"[study] sizes must be a list, got {kind_of(study.pop('sizes'))}")
    for name, value in study.items():
        if name in READ:
            for part in [[entry] for entry in value] if isinstance(value, list) and value else [value]:
                faults.catch(READ[name], part)
    if "grid" in study and space is not None:
        faults.catch(axis_sizes, study["grid"], space.dim)
    for name in ("residual", "backend", "dtype"):
        if name in layer:
            faults.catch(Attention, SquaredDistance(Circle()), 1.0, **{name: layer[name]})
    faults.end()
    made = ConvergenceStudy(f, density, initial, **study, **layer)
    made.made_of(given)
    return made


def _normalization(names, layer: dict):
    """What a study takes, from a name or several; takes the options of normalisations out of the layer's keys."""
    several = isinstance(names, list)
    rules = list(names) if several else [names]
    if "alpha" in layer and "density-corrected" not in rules:
        raise ValueError("[layer] alpha must come with normalization = 'density-corrected'")
    options = {key: layer.pop(key) for key in ("tol", "max_iter", "potentials") if key in layer}
    if options and "sinkhorn" not in rules:
        raise ValueError(f"[layer] {', '.join(options)} must come with normalization = 'sinkhorn'")
    makers = {"density-corrected": lambda: DensityCorrected(layer.pop("alpha", 1.0)), "sinkhorn": lambda: Sinkhorn(**options)}
    made = [makers[rule]() if isinstance(rule, str) and rule in makers else as_normalization(rule) for rule in rules]
    return made if several else made[0]
