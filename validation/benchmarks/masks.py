"""Layers whose tokens see or weigh but some of the others, beside the layer in which all do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

import attnflow as af
from validation import Claim, Report

from .machine import describe_machine

TOKENS, CHECKED, DEGREE = 20_000, 2_000, 50  # tokens that are timed, and compared; edges of each
COLUMNS = ("layer", "engine", "preparation (s)", "one layer (s)", "of the full layer", "goal", "met")
_SHARE, _SECONDS, _LABELS = 0.6, 0.5, 10
_CLOSE = 1e-11


def run(rounds: int = 5) -> Report:
    """Medians of rounds in which each layer has its turn: what disturbs one disturbs all."""
    table, claims = [], []
    for where, tokens, layers in families(TOKENS):
        values = np.random.default_rng(1).standard_normal((TOKENS, 1))
        preparation, bounds = {}, {}
        for words, layer in layers.items():
            layer.bind(tokens).step(values)  # compiles
            layer._last = None  # forget the tokens
            preparation[words], bounds[words] = _seconds(layer.bind, tokens)
            bounds[words].step(values)  # what is kept from one layer to the next
        times: dict[str, list[float]] = {words: [] for words in layers}
        for _ in range(rounds):
            for words, bound in bounds.items():
                times[words].append(_seconds(bound.step, values)[0])
        medians = {words: statistics.median(some) for words, some in times.items()}
        full = next(iter(medians.values()))
        for words, one in medians.items():
            goal, met = _goal(words, one, one / full)
            numbers = f"{preparation[words]:.3f}", f"{one:.4f}", f"{one / full:.3f}"
            table.append([f"{where}, {words}", bounds[words].stats["engine"], *numbers, goal, met])
    for where, tokens, layers in families(CHECKED):
        for words, layer in layers.items():
            worst = max(row.difference for row in af.parity(layer, tokens, tokens).rows if row.ran)
            what = f"{where}, {words}: less the reference on {CHECKED} tokens"
            claims.append(Claim(what, f"{worst:.0e}", f"at most {_CLOSE:.0e}", bool(worst <= _CLOSE)))
    text = (
        f"One layer of {TOKENS} tokens and one column of values on all cores: medians of {rounds} rounds in which each layer has its\n"
        "turn, time on the wall. Preparation is done once for fixed tokens. The first layer of each kind of tokens is the full one,\n"
        f"all pairs by tiles. Labels: {_LABELS} of equal size. Graph: {DEGREE * TOKENS} edges.\n{describe_machine()}"
    )
    return Report("Masked and sparse layers beside the full one", text, COLUMNS, table, claims)


def families(size: int) -> Iterator[tuple[str, np.ndarray, dict[str, af.Attention]]]:
    """What tokens are, they, and layers on them by what they are; the full one first."""
    rng = np.random.default_rng(0)
    labels = np.arange(size) % _LABELS
    graph = np.stack([np.repeat(np.arange(size), DEGREE), rng.integers(0, size, size * DEGREE)], axis=1)
    kinds = {
        "torus": (rng.random((size, 2)), af.SquaredDistance(af.Torus([1.0, 1.0])), 1e-3),
        "64 columns": (rng.standard_normal((size, 64)), af.DotProduct(), 8.0),
    }
    for where, (tokens, f, epsilon) in kinds.items():
        masks = {"causal": "causal", "labels": labels, "graph": graph}
        laws = {"top-32": af.TopK(32), "sparse 0.01": af.Sparse(0.01), "perplexity 30": af.Perplexity(30)}
        yield (
            where,
            tokens,
            {"full": af.Attention(f, epsilon, backend="numba")}
            | {words: af.Attention(f, epsilon, mask=mask) for words, mask in masks.items()}
            | {words: af.Attention(f, epsilon, law) for words, law in laws.items()},
        )


def _goal(words: str, seconds: float, share: float) -> tuple[str, str]:
    """What is aimed at, and whether it was met."""
    if words == "causal":
        return f"<= {_SHARE:g}", "yes" if share <= _SHARE else "no"
    if words == "graph":
        return f"<= {_SECONDS:g} s", "yes" if seconds <= _SECONDS else "no"
    return "", ""


def _seconds(call, *arguments):
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result
