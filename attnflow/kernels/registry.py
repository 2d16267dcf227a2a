"""Which engines compute the pairwise primitive, found by name and loaded when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util

from .. import checks


@dataclass(frozen=True)
class Engine:
    """A module with a `plan` function, and the packages it needs.

    plan(f, epsilon, queries or None, keys, dtype, rtol) returns run(values or None, key_bias or None, log_sum_exp or
    None) -> (mean, log_sum_exp); see `attnflow.kernels.plan`.
    """

    module: str
    needs: tuple[str, ...] = ()
    note: str = ""

    def missing(self) -> str | None:
        """Why the engine can't run here, or None."""
        absent = [name for name in self.needs if util.find_spec(name) is None]
        return f"needs the package {absent[0]}" if absent else None


ENGINES: dict[str, Engine] = {
    "reference": Engine("attnflow.kernels.reference", note="dense NumPy, float64, for small N"),
    "numba": Engine("attnflow.kernels.numba_engine", ("numba",), note="cache-blocked tiles, all cores"),
}


def backends() -> dict[str, str]:
    """Engine names, each with "available: what it is" or the reason why it is not.

    Examples
    --------
    >>> backends()["reference"]
    'available: dense NumPy, float64, for small N'
    """
    return {
        name: f"available: {engine.note}" if engine.missing() is None else f"not available: {engine.missing()}"
        for name, engine in ENGINES.items()
    }


def load(name: str) -> Callable:
    """The `plan` function of an engine.

    Raises
    ------
    ValueError
        If there is no such engine; the message lists those there are.
    ImportError
        If a package it needs is not installed.
    """
    engine = ENGINES[checks.choice(name, "backend", ENGINES)]
    if engine.missing() is not None:
        raise ImportError(f"backend {name!r} {engine.missing()}")
    return import_module(engine.module).plan
