"""Study files: TOML whose kinds are names from the tables below. No expressions; nothing is executed."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from inspect import signature

import numpy as np

from .. import checks, files
from ..attention import DensityCorrected, Normalization, Sinkhorn
from ..attention.names import name_of
from ..attention.names import normalization as as_normalization
from ..geometry import (
    Box,
    Circle,
    Euclidean,
    Gaussian,
    KernelDensity,
    Mixture,
    Space,
    Sphere,
    Torus,
    Uniform,
    VonMises,
    VonMisesFisher,
)
from ..similarity import Cosine, DotProduct, LogDistance, Mahalanobis, PowerDistance, SquaredDistance
from .convergence import ConvergenceStudy
from .design import READ

SPACES = {"circle": Circle, "torus": Torus, "euclidean": Euclidean, "box": Box, "sphere": Sphere}
DENSITIES: dict[str, Callable] = {
    "uniform": Uniform,
    "vonmises": VonMises,
    "gaussian": Gaussian,
    "vonmises-fisher": VonMisesFisher,
    "mixture": lambda space, parts, weights=None: _mixture(space, parts, weights),
    "kernel": lambda tokens, bandwidth=None: _kernel(tokens, bandwidth),
}
PSEUDOMETRICS = {
    "squared-distance": SquaredDistance,
    "power-distance": PowerDistance,
    "log-distance": LogDistance,
    "mahalanobis": Mahalanobis,
    "dot-product": DotProduct,
    "cosine": Cosine,
}
INITIALS: dict[str, Callable] = {
    "cos": lambda space, mode=1, axis=0: _Wave(np.cos, space, mode, axis),
    "sin": lambda space, mode=1, axis=0: _Wave(np.sin, space, mode, axis),
    "coordinate": lambda space, axis=0: _Wave(None, space, 1, axis),
    "sum": lambda space, parts: _sum(space, parts),
}
LAYER = ("normalization", "alpha", "tol", "max_iter", "potentials", "residual", "backend", "dtype")
STUDY = ("t", "epsilons", "sizes", "seeds", "grid", "seed")

# a decade of eps and of N, and N = infinity; 1 / eps layers reach t = 1/2
BUILT_IN = {
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
_LONGEST = 300  # characters of a fault: our own lists of accepted names are longer than what others say


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
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items()), ""]
    with files.whole(path, "w") as file:
        file.write("\n".join(lines))


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
    faults = _Faults()
    faults.catch(_only, tables, BUILT_IN, "the study file")
    for name in BUILT_IN:
        if not isinstance(tables.get(name, {}), dict):
            faults.add(f"[{name}] must be a table of keys, got {_kind(tables[name])}")
    tables = {name: tables[name] for name in BUILT_IN if isinstance(tables.get(name), dict)}
    space = faults.catch(_make, tables, "space", SPACES)
    density = faults.catch(_make, tables, "density", DENSITIES, space=space)
    if density is not None and space is not None and density.space != space:
        faults.add(f"[density] must live on the [space] {space}, got one on {density.space}")
    f = faults.catch(_make, tables, "pseudometric", PSEUDOMETRICS, space=space)
    initial = faults.catch(_make, tables, "initial", INITIALS, space=space)
    layer, study = dict(tables.get("layer", {})), dict(tables.get("study", {}))
    faults.catch(_only, layer, LAYER, "[layer]")
    layer["normalization"] = faults.catch(_normalization, layer.get("normalization", "softmax"), layer)
    faults.catch(_only, study, STUDY, "[study]")
    missing = {"t", "epsilons", "sizes"} - study.keys()
    if missing:
        faults.add(f"[study] must have {sorted(missing)}")
    if isinstance(study.get("sizes"), list):
        study["sizes"] = [np.inf if n == "inf" else n for n in study["sizes"]]
    elif "sizes" in study:
        faults.add(f"[study] sizes must be a list, got {_kind(study.pop('sizes'))}")
    for name, value in {**study, **layer}.items():
        if name in READ:
            faults.catch(READ[name], value)
    faults.end()
    return ConvergenceStudy(f, density, initial, **study, **layer)


class _Faults:
    """What is wrong with a file, all of it."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        if fault not in self.found:  # once where a table that is wrong takes another with it
            self.found.append(fault)

    def catch(self, make: Callable, *data, **context):
        """What `make` returns, or None and a fault; nothing where something that it needs is missing already."""
        try:
            return make(*data, **context)
        except _Missing:
            return None
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            return self.add(files.one_line(error, _LONGEST))

    def end(self) -> None:
        """Raise them, if there are any."""
        if self.found:
            raise ValueError("; ".join(self.found))


class _Missing(Exception):
    """A table cannot be looked at before another one is right."""


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


def _mixture(space: Space, parts, weights) -> Mixture:
    densities = [density for density, _ in _parts("density", DENSITIES, parts, space)]
    return Mixture(densities, np.full(len(densities), 1 / len(densities)) if weights is None else weights)


def _kernel(tokens: str, bandwidth) -> KernelDensity:
    if not isinstance(tokens, str):
        raise TypeError(f"tokens must be the name of an .npy file, got {_kind(tokens)}")
    try:
        return KernelDensity(files.read_array(tokens, "tokens"), bandwidth)
    except OSError as error:
        raise ValueError(f"tokens could not be read: {error}") from None


def _sum(space: Space, parts) -> _Sum:
    return _Sum(tuple((checks.real(factor, "factor"), wave) for wave, factor in _parts("initial", INITIALS, parts, space)))


def _parts(name: str, kinds: Mapping[str, Callable], parts, space: Space) -> list[tuple]:
    """What each table of a list makes, and its factor."""
    if not (isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts)):
        raise TypeError(f"parts must be a list of tables, [[{name}.parts]], got {_kind(parts)}")
    factors = [part.get("factor", 1.0) if name == "initial" else 1.0 for part in parts]
    plain = [{key: value for key, value in part.items() if not (key == "factor" and name == "initial")} for part in parts]
    return [(_make({name: part}, name, kinds, space=space), factor) for part, factor in zip(plain, factors)]


class _Sum:
    """Features times their factors, added up."""

    def __init__(self, parts: tuple[tuple[float, Callable], ...]) -> None:
        self.parts = parts

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return sum((factor * part(x) for factor, part in self.parts), np.zeros(x.shape[:-1]))


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


def _make(tables: Mapping, name: str, kinds: Mapping[str, Callable], **context):
    """Call the constructor a table names with its other keys, and with the context it asks for, if that is there."""
    table = dict(tables.get(name, BUILT_IN[name]))
    if "kind" not in table:
        raise ValueError(f"[{name}] must have a kind, one of {sorted(kinds)}")
    kind = checks.choice(table.pop("kind"), f"[{name}] kind", kinds)
    wanted = signature(kinds[kind]).parameters
    _only(table, set(wanted) - set(context), f"[{name}] of kind {kind!r}")
    if any(k in wanted and context[k] is None for k in context):
        raise _Missing
    try:
        return kinds[kind](**{k: v for k, v in context.items() if k in wanted}, **table)
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        where = "" if str(error).startswith("[") else f"[{name}] of kind {kind!r}: "
        raise ValueError(f"{where}{files.one_line(error, _LONGEST)}") from None


def _only(table: Mapping, accepted, where: str) -> None:
    unknown = sorted(set(table) - set(accepted))
    if unknown:
        some = [key[:40] for key in unknown[:5]]
        raise ValueError(f"{where} must only have the keys {sorted(accepted)}, got also {some}")


def _kind(value) -> str:
    return f"a {type(value).__name__}"
