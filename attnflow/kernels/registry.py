"""Which engines compute the pairwise primitive, found by name and loaded when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from types import ModuleType

from .. import checks


@dataclass(frozen=True)
class Engine:
    """A module with a function `plan`, and what it needs: packages, and what its function `check` finds missing.

    That of the engine NAME is called NAME_engine. plan(f, epsilon, queries or None, keys, dtype,
    rtol) returns run(values or None, key_bias or None) -> (mean, log_sum_exp), which depend on nothing else; see
    `attnflow.kernels.plan`. One with a function `predict`, which says what a `costs.Request` takes or refuses it by a
    ValueError, may be `chosen`.
    """

    module: str
    needs: tuple[str, ...] = ()
    note: str = ""
    check: str = ""
    chosen: bool = False  # by "auto", which asks its function `predict`

    def missing(self) -> str | None:
        """Why the engine can't run here, or None."""
        absent = [name for name in self.needs if util.find_spec(name) is None]
        if absent:
            return f"needs the package {absent[0]}"
        return getattr(import_module(self.module), self.check)() if self.check else None


ENGINES: dict[str, Engine] = {
    "reference": Engine("attnflow.kernels.reference_engine", note="dense NumPy, float64, for small N"),
    "numba": Engine("attnflow.kernels.numba_engine", ("numba",), note="cache-blocked tiles, all cores", chosen=True),
    "cells": Engine("attnflow.kernels.cells_engine", ("numba",), note="near keys of decaying kernels", chosen=True),
    "cupy": Engine("attnflow.kernels.cupy_engine", ("cupy",), note="a CUDA device", check="unavailable"),
    "nufft": Engine(
        "attnflow.kernels.nufft_engine", ("finufft",), note="Gaussians in up to 3 dimensions by non-uniform FFT", chosen=True
    ),
}


def backends() -> dict[str, str]:
    """Engine names, each with "available: what it is" or the reason why it is not.

    Examples
    --------
    >>> backends()["reference"]
    'available: dense NumPy, float64, for small N'
    """
    missing = {name: engine.missing() for name, engine in ENGINES.items()}
    return {
        name: f"available: {ENGINES[name].note}" if reason is None else f"not available: {reason}"
        for name, reason in missing.items()
    }


def module(name: str) -> ModuleType:
    """An engine's."""
    return import_module(ENGINES[name].module)


def load(name: str) -> Callable:
    """The `plan` function of an engine.

    Raises
    ------
    ValueError
        If there is no such engine; the message lists those there are.
    ImportError
        If a package or device it needs is missing.
    """
    engine = ENGINES[checks.choice(name, "backend", ENGINES)]
    reason = engine.missing()
    if reason is not None:
        raise ImportError(f"backend {name!r} {reason}")
    return module(name).plan
