"""What the tables of a study file may name: spaces, densities, pseudo-metrics and starts, each with its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from .. import checks, files
from ..geometry import (
    Box,
    Circle,
    Density,
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
from ..provenance import described
from ..similarity import Cosine, DotProduct, LogDistance, Mahalanobis, PowerDistance, SquaredDistance
from .surfaces import ellipsoid, hyperbolic, hyperbolic_disc, squared_map, torus_of_revolution

LONGEST = 300  # characters of a fault: our own lists of accepted names are longer than what others say
REFUSALS = (TypeError, ValueError, NotImplementedError, OverflowError, ImportError)
_NAMED = 30  # faults that a message holds


def _mixture(space: Space, parts: list, weights: list | None = None) -> Mixture:
    """Several densities, each with its share of the tokens.

    Parameters
    ----------
    parts : list of tables
        Each a density with its kind and keys, as [[density.parts]] or in one line.
    weights : list of float
        Their shares, which add up to one; equal ones where they are left out.
    """
    faults = Faults()
    densities = [faults.catch(make, "density", part, "density.parts", space=space) for part in _tables(parts, "density")]
    faults.end()
    return Mixture(densities, np.full(len(densities), 1 / len(densities)) if weights is None else np.asarray(weights))


def _kernel(tokens: str, bandwidth: float | None = None) -> KernelDensity:
    """A sum of Gaussians around tokens of your own.

    Parameters
    ----------
    tokens : str
        An .npy file (N, n), its name as seen from the study file.
    bandwidth : float
        The Gaussians' standard deviation; Scott's rule where it is left out.
    """
    if not isinstance(tokens, str):
        raise TypeError(f"tokens must be the name of an .npy file, got {kind_of(tokens)}")
    try:
        return KernelDensity(files.read_array(tokens, "tokens"), bandwidth)
    except OSError as error:
        raise ValueError(f"tokens could not be read: {error}") from None


def _exp(space: Space, parts: list) -> Density:
    """Proportional to the exponential of a sum of starts, on any space; squares of coordinates make a Gaussian.

    Parameters
    ----------
    parts : list of tables
        Of log p, each an [initial] with its kind and keys, and a factor (1 where it is left out).
    """
    return Density(space, _added(space, parts, "density"))


def _wave(function: Callable) -> Callable:
    """The start that is cos or sin of a coordinate."""

    def make(space: Space, mode: int = 1, axis: int = 0) -> _Wave:
        return _Wave(function, space, mode, axis)

    make.__doc__ = f"""{function.__name__}(mode x) of one coordinate; on a torus, mode waves around it.

    Parameters
    ----------
    mode : int
        At least 1.
    axis : int
        Which coordinate, counted from 0.
    """
    return make


def _coordinate(space: Space, axis: int = 0, power: int = 1) -> _Wave:
    """A power of one coordinate, where it does not wrap.

    Parameters
    ----------
    axis : int
        Which one, counted from 0.
    power : int
        At least 1.
    """
    return _Wave(None, space, power, axis)


def _sum(space: Space, parts: list) -> _Sum:
    """Several starts, added up.

    Parameters
    ----------
    parts : list of tables
        Each a start with its kind and keys, and a factor (1 where it is left out).
    """
    return _added(space, parts, "initial")


def _added(space: Space, parts: list, name: str) -> _Sum:
    """The sum of the starts that a table of that name has as its parts."""
    faults, made, at = Faults(), [], f"{name}.parts"
    for part in _tables(parts, name):
        factor = faults.catch(checks.real, part.get("factor", 1.0), f"[{at}] factor")
        plain = {key: value for key, value in part.items() if key != "factor"}
        made.append((factor, faults.catch(make, "initial", plain, at, space=space)))
    faults.end()
    return _Sum(tuple(made))


SPACES: dict[str, Callable] = {
    "circle": Circle,
    "torus": Torus,
    "euclidean": Euclidean,
    "box": Box,
    "sphere": Sphere,
    "torus-of-revolution": torus_of_revolution,
    "ellipsoid": ellipsoid,
    "hyperbolic-disc": hyperbolic_disc,
}
DENSITIES: dict[str, Callable] = {
    "uniform": Uniform,
    "vonmises": VonMises,
    "gaussian": Gaussian,
    "vonmises-fisher": VonMisesFisher,
    "mixture": _mixture,
    "kernel": _kernel,
    "exp": _exp,
}
PSEUDOMETRICS: dict[str, Callable] = {
    "squared-distance": SquaredDistance,
    "power-distance": PowerDistance,
    "log-distance": LogDistance,
    "mahalanobis": Mahalanobis,
    "dot-product": DotProduct,
    "cosine": Cosine,
    "squared-map": squared_map,
    "hyperbolic": hyperbolic,
}
INITIALS: dict[str, Callable] = {"cos": _wave(np.cos), "sin": _wave(np.sin), "coordinate": _coordinate, "sum": _sum}
KINDS: dict[str, Mapping[str, Callable]] = {
    "space": SPACES,
    "density": DENSITIES,
    "pseudometric": PSEUDOMETRICS,
    "initial": INITIALS,
}


class Missing(Exception):
    """A table cannot be looked at before another one is right."""


class FaultyTables(ValueError):
    """All that is wrong with a file or table, one line each in `faults`."""

    def __init__(self, faults: list[str]) -> None:
        rest = len(faults) - _NAMED
        super().__init__("; ".join([*faults[:_NAMED], *[f"and {rest} more"] * (rest > 0)]))
        self.faults = faults


class Faults:
    """Gathers what is wrong, where one fault does not hide the next."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        """One more; once where a table that is wrong takes another with it."""
        if fault not in self.found:
            self.found.append(fault)

    def catch(self, make: Callable, *data, **context):
        """What `make` returns, or None and its faults; nothing where something that it needs is missing already."""
        try:
            return make(*data, **context)
        except Missing:
            return None
        except FaultyTables as error:
            for fault in error.faults:
                self.add(fault)
        except REFUSALS as error:
            self.add(files.one_line(error, LONGEST))

    def end(self) -> None:
        """Raise them, if there are any."""
        if self.found:
            raise FaultyTables(self.found)


def make(name: str, table: Mapping, at: str | None = None, **context):
    """Call the constructor that a table names with its other keys, and with the context it asks for, if that is there.

    Raises
    ------
    ValueError
        Naming the table (by where it stands in the file, `at`, if that is not its name) and the key.
    Missing
        If something of the context is None that it asks for.
    """
    kinds, table, at = KINDS[name], dict(table), f"[{at or name}]"
    if "kind" not in table:
        raise ValueError(f"{at} must have a kind, one of {sorted(kinds)}")
    kind = checks.choice(table.pop("kind"), f"{at} kind", kinds)
    wanted = signature(kinds[kind]).parameters
    only(table, set(wanted) - set(context), f"{at} of kind {kind!r}")
    if any(key in wanted and context[key] is None for key in context):
        raise Missing
    try:
        return kinds[kind](**{key: value for key, value in context.items() if key in wanted}, **table)
    except FaultyTables:
        raise
    except REFUSALS as error:
        where = "" if str(error).startswith("[") else f"{at} of kind {kind!r}: "
        raise ValueError(f"{where}{files.one_line(error, LONGEST)}") from None


def only(table: Mapping, accepted, where: str) -> None:
    """ValueError for keys that are none of the accepted ones."""
    unknown = sorted(set(table) - set(accepted))
    if unknown:
        some = [key[:40] for key in unknown[:5]]
        raise ValueError(f"{where} must only have the keys {sorted(accepted)}, got also {some}")


def kind_of(value) -> str:
    """What it is, for a message."""
    name = type(value).__name__
    return f"a{'n' * name.startswith(tuple('aeiou'))} {name}"


def _tables(parts, name: str) -> list[dict]:
    wanted = f"parts must be a list of tables, [[{name}.parts]], got"
    if not isinstance(parts, list):
        raise TypeError(f"{wanted} {kind_of(parts)}")
    if not parts:
        raise ValueError(f"{wanted} an empty one")
    if others := [part for part in parts if not isinstance(part, dict)]:
        raise TypeError(f"{wanted} one with {kind_of(others[0])}")
    return parts


class _Sum:
    """Features times their factors, added up."""

    def __init__(self, parts: tuple[tuple[float, Callable], ...]) -> None:
        self.parts = parts

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return sum((factor * part(x) for factor, part in self.parts), np.zeros(x.shape[:-1]))

    def _description_(self) -> dict[str, Any]:
        return {"kind": "sum", "parts": [described(part) | {"factor": factor} for factor, part in self.parts]}


class _Wave:
    """cos or sin of mode * x along one coordinate (of `mode` waves around a torus), or x to the power of `mode`."""

    def __init__(self, function: Callable | None, space: Space, mode: int, axis: int) -> None:
        self.function, self.mode = function, checks.integer(mode, "mode" if function else "power", least=1)
        self.axis = checks.integer(axis, "axis")
        if self.axis >= space.columns:
            raise ValueError(f"axis must be below {space.columns}, got {axis}")
        wraps = self.axis < len(space.periodic) and space.periodic[self.axis]
        if wraps and function is None:
            raise ValueError("kind must be 'cos' or 'sin' on a torus, where a coordinate jumps")
        self.unit = 2 * np.pi / (space.bounds[self.axis][1] - space.bounds[self.axis][0]) if wraps else 1.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = x[..., self.axis]
        return x**self.mode if self.function is None else self.function(self.mode * self.unit * x)

    def _description_(self) -> dict[str, Any]:
        if self.function is None:
            return {"kind": "coordinate", "axis": self.axis, "power": self.mode}
        return {"kind": self.function.__name__, "mode": self.mode, "axis": self.axis}
