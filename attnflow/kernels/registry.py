"""Which engines compute the pairwise primitive, found by name and loaded when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from types import ModuleType

from .. import checks
from .masks import Edges, Mask, Ranges


@dataclass(frozen=True)
class Engine:
    """A module with a function `plan`, and what it needs: packages, and what its function `check` finds missing.

    That of the engine NAME is called NAME_engine. plan(f, epsilon, queries or None, keys, dtype,
    rtol) returns run(values or None, key_bias or None) -> (mean, log_sum_exp), which depend on nothing else; see
    `attnflow.kernels.plan`; a mask, of one of the classes in `masks`, is one argument more. One with a function `predict`, which says what a `costs.Request` takes or refuses it by a
    ValueError, may be `chosen`.
    """

    module: str
    needs: tuple[str, ...] = ()
    note: str = ""
    check: str = ""
    chosen: bool = False  # by "auto", which asks its function `predict`
    masks: tuple[type, ...] = (type(None),)  # what it computes under
    extra: str = ""  # of this package, that brings what it needs

    def missing(self) -> str | None:
        """Why the engine can't run here, or None."""
        absent = [name for name in self.needs if util.find_spec(name) is None]
        if absent:
            return f"needs the package {absent[0]}" + (f": pip install 'attnflow[{self.extra}]'" if self.extra else "")
        return getattr(import_module(self.module), self.check)() if self.check else None


ENGINES: dict[str, Engine] = {
    "reference": Engine(
        "attnflow.kernels.reference_engine", note="dense NumPy, float64, for small N", masks=(type(None), Ranges, Edges)
    ),
    "numba": Engine(
        "attnflow.kernels.numba_engine",
        ("numba",),
        note="cache-blocked tiles, all cores",
        chosen=True,
        masks=(type(None), Ranges),
    ),
    "cells": Engine("attnflow.kernels.cells_engine", ("numba",), note="near keys of decaying kernels", chosen=True),
    "cupy": Engine("attnflow.kernels.cupy_engine", ("cupy",), note="a CUDA device", check="unavailable", extra="gpu"),
    "nufft": Engine(
        "attnflow.kernels.nufft_engine",
        ("finufft",),
        note="Gaussians in up to 3 dimensions by non-uniform FFT",
        chosen=True,
        extra="fast",
    ),
    "graph": Engine("attnflow.kernels.graph_engine", ("numba",), note="the edges of a mask", chosen=True, masks=(Edges,)),
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


def refusal(name: str, mask: type[Mask] | type[None]) -> str | None:
    """Why an engine doesn't compute under such a mask, or None."""
    if mask in ENGINES[name].masks:
        return None
    wanted = {Ranges: "none of ranges", Edges: "none of edges"}.get(mask, "nothing but the edges of a mask")
    instead = {Ranges: "numba", Edges: "graph"}.get(mask, "numba")
    return f"backend must take the layer's mask, got {name!r}, which computes {wanted}; use backend={instead!r}"
