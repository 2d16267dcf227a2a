"""Every engine against the reference on the same layer, tokens and values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import checks, display
from ..attention import Attention, MultiHead, heads_of
from ..attention.heads import replace_heads
from ..kernels import ENGINES
from ..kernels import backends as describe_backends

_HEADER = ("engine", "available", "ran", "difference", "seconds", "note")


@dataclass(frozen=True, repr=False)
class ParityRow:
    """One engine: did it run, how far from the reference, how long."""

    engine: str
    available: bool
    ran: bool
    difference: float
    seconds: float
    note: str

    __repr__ = display.of_fields

    def words(self) -> tuple[str, ...]:
        """As a table has it: engine, available, ran, difference, seconds, note."""
        yes = {True: "yes", False: "no"}
        numbers = (f"{self.difference:.1e}", f"{self.seconds:.3f}") if self.ran else ("-", "-")
        return (self.engine, yes[self.available], yes[self.ran], *numbers, self.note)


@dataclass(frozen=True, repr=False)
class ParityTable:
    """Rows of `parity`; prints as a table."""

    rows: tuple[ParityRow, ...]

    def __str__(self) -> str:
        lines = [_HEADER, *(row.words() for row in self.rows)]
        return "\n".join(f"{a:12}{b:>10}{c:>6}{d:>13}{e:>10}  {note}" for a, b, c, d, e, note in lines)

    def __repr__(self) -> str:
        ran = [row.difference for row in self.rows if row.ran]
        differ = f", differ by at most {max(ran):.1e}" if ran else ""
        return f"ParityTable({len(ran)} of {display.counted(len(self.rows), 'engine')} ran{differ})"

    def _repr_html_(self) -> str:
        return display.table("Engines beside the reference", [row.words() for row in self.rows], _HEADER)


def parity(
    layer: Attention | MultiHead, tokens: np.ndarray, values: np.ndarray, backends: Sequence[str] | None = None
) -> ParityTable:
    """One layer by every engine, compared with the dense reference in float64.

    Parameters
    ----------
    layer : Attention or MultiHead
        Its own backend is not used; its dtype is. All heads go through the same engine.
    tokens : (N, n) array
    values : (N, c) or (N,) array
    backends : sequence of str, optional
        Engines; all when None.

    Returns
    -------
    ParityTable
        Per engine: available?, ran (or refused these tokens, and why)?, largest difference relative to the largest value, seconds (of a
        second, warm call).

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> tokens = af.VonMises(1.0).sample(100, rng=0)
    >>> table = af.parity(af.Attention(af.SquaredDistance(af.Circle()), 0.1), tokens, np.cos(tokens), ["reference"])
    >>> table.rows[0].difference
    0.0
    """
    heads_of(layer)
    names = list(ENGINES) if backends is None else checks.sequence(backends, "backends", "engine names")
    names = [checks.choice(name, "backends", ENGINES) for name in names]
    available = describe_backends()
    expected, _ = _apply(layer, "reference", tokens, values, "float64")
    scale = float(np.abs(expected).max()) or 1.0
    rows = []
    for name in names:
        if not available[name].startswith("available"):
            rows.append(ParityRow(name, False, False, np.nan, np.nan, available[name].partition(": ")[2]))
            continue
        try:
            result, engine = _apply(layer, name, tokens, values)
        except ValueError as refusal:  # not every engine computes every pseudo-metric
            rows.append(ParityRow(name, True, False, np.nan, np.nan, str(refusal)))
            continue
        began = time.perf_counter()
        _apply(layer, name, tokens, values)
        seconds = time.perf_counter() - began
        rows.append(
            ParityRow(name, True, engine == name, float(np.abs(result - expected).max()) / scale, seconds, ENGINES[name].note)
        )
    return ParityTable(tuple(rows))


def _apply(layer: Attention | MultiHead, backend: str, tokens, values, dtype: str | None = None) -> tuple[np.ndarray, str]:
    """The layer's result by one engine (and another dtype than its own), and the engines that say they ran."""
    others = [
        Attention(
            head.f, head.epsilon, head.normalization, head.residual, head.mask, backend=backend, dtype=dtype or head.dtype
        )
        for head in heads_of(layer)
    ]
    bound = replace_heads(layer, others).bind(tokens)
    return bound.step(checks.features(values, "values", len(bound.tokens))), bound.stats["engine"]
