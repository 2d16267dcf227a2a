"""The automatic choice beside every engine it could have taken: dimensions, widths, heads, maps and expressions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import sympy

import attnflow as af
from attnflow.kernels import choose, plan
from validation import Report

from .machine import describe_machine

ENGINES = {"numba": "dense (s)", "cells": "cells (s)", "nufft": "nufft (s)", "graph": "graph (s)"}
COLUMNS = ("f", "tokens", "width", "chosen", *ENGINES.values(), "chosen / best")
GRID = {1: (3e-4, 3e-3, 0.03), 2: (2e-3, 0.01, 0.05), 3: (0.01, 0.03, 0.1)}
SIZES = (3_000, 20_000, 100_000)
HEADS, MANY = (8, 64, 384), (3_000, 20_000)  # columns, tokens
RTOL, DENSEST, PATIENCE = 1e-9, 20_000, 20.0


def run(rounds: int = 2) -> Report:
    """Preparation and one layer each; engines predicted to take over 20 s are left out."""
    rows, ratios = [], []
    for name, f, tokens, width in cases():
        values = np.random.default_rng(1).standard_normal((len(tokens), 1))
        chosen = choose(f, width**2, None, tokens, rtol=RTOL, applications=1)
        runs = {}
        for engine in ("numba", "cells", "nufft"):
            predicted = chosen.seconds.get(engine, 0.0)
            if predicted < PATIENCE and (engine in (chosen.engine, "cells", "nufft") or len(tokens) <= DENSEST):
                runs[engine] = _summed(engine, f, width, tokens, values)
        _enter(rows, ratios, (name, tokens, width), chosen.engine, runs, rounds)
    for name, tokens, width, layer in layers():
        values = np.random.default_rng(1).standard_normal((len(tokens), 1))
        runs = {engine: _layered(layer, engine, tokens, values) for engine in ENGINES}
        _enter(rows, ratios, (name, tokens, width), layer("auto").bind(tokens).stats["engine"], runs, rounds)
    worst = np.nanmax(ratios)
    text = (
        f"Uniform tokens, rtol {RTOL:g}, exp(-f / (2 width^2)): preparation and one layer, fastest of {rounds}. A map sends the\n"
        "plane to a surface in ten dimensions; an expression is compiled by sympy and numba before it is timed. Laws and masks are\n"
        "whole layers; a dense sum takes rows of f where keys are chosen.\n"
        f"Worst ratio {worst:.2f}; {np.mean(np.array(ratios) <= 1.5):.0%} within 1.5 (goal: all).\n{describe_machine()}"
    )
    return Report("The automatic choice beside the best engine", text, COLUMNS, rows, [])


def _enter(rows: list, ratios: list, case: tuple, chosen: str, runs: dict[str, Callable], rounds: int) -> None:
    """A line of the table; engines have their turn in every round."""
    known = {engine: np.inf for engine in runs}
    for _ in range(rounds):
        for engine in list(known):
            seconds = _time(runs[engine])
            if seconds is None:
                del known[engine]
            else:
                known[engine] = min(known[engine], seconds)
    ratios.append(known[chosen] / min(known.values()) if chosen in known else np.nan)
    name, tokens, width = case
    cells = [f"{known[e]:.4f}" if e in known else "" for e in ENGINES]
    rows.append([name, f"{len(tokens)} in {tokens.shape[1]}-D", f"{width:g}", chosen, *cells, f"{ratios[-1]:.2f}"])


def cases() -> Iterator[tuple[str, af.PseudoMetric, np.ndarray, float]]:
    """Names, pseudo-metrics, tokens and widths."""
    rng = np.random.default_rng(0)
    for dim, widths in GRID.items():
        for size in SIZES:
            tokens = rng.random((size, dim))
            for width in widths:
                yield "d^2, torus", af.SquaredDistance(af.Torus([1.0] * dim)), tokens, width
    for dim in HEADS:
        for size in MANY:
            tokens = rng.standard_normal((size, dim))
            yield "d^2", af.SquaredDistance(af.Euclidean(dim)), tokens, float(np.sqrt(dim) / 3)
            yield "d^2", af.SquaredDistance(af.Euclidean(dim)), tokens, 0.2
            yield "-x'y", af.DotProduct(), tokens / np.sqrt(dim), 0.3
    for size in SIZES:
        tokens = rng.uniform(-1, 1, (size, 2))
        for width in (0.01, 0.03, 0.1, 0.3):
            yield "map", af.SquaredMap(surface), tokens, width
    x, y = sympy.symbols("x0:2"), sympy.symbols("y0:2")
    expression = sum(2 - 2 * sympy.cos(a - b) for a, b in zip(x, y))
    for size in MANY:
        yield "2 - 2 cos", af.PseudoMetric(expression, 2), rng.uniform(0, 2 * np.pi, (size, 2)), 0.3


def surface(x: np.ndarray) -> np.ndarray:
    """Points (..., 2) on a surface in ten dimensions, (..., 10)."""
    a = np.linspace(0.5, 2.0, 4)
    return np.concatenate([x, np.tanh(x[..., :1] * a), np.sin(x[..., 1:] * a)], axis=-1)


def layers() -> Iterator[tuple[str, np.ndarray, float, Callable[[str], af.Attention]]]:
    """Names, tokens, widths, and layers by their engine: laws by which queries choose their keys, masks, a graph."""
    rng = np.random.default_rng(0)
    for dim, width in ((1, 3e-3), (2, 0.01), (3, 0.03)):
        f = af.SquaredDistance(af.Torus([1.0] * dim))
        for size in (300, 1_000, 3_000, 20_000):
            laws: dict = {"top-32": af.TopK(32), "perplexity 30": af.Perplexity(30), "sparse 0.01": af.Sparse(0.01)}
            if size <= 3_000:  # lists of a quarter of all keys
                laws["top N/4"] = af.TopK(size // 4)
            for name, law in laws.items():
                yield f"d^2, torus, {name}", rng.random((size, dim)), width, partial(_layer, f, width, law, None)
    for size in MANY:
        wide = rng.standard_normal((size, 64))
        for name, law in (("top-32", af.TopK(32)), ("perplexity 30", af.Perplexity(30))):
            yield f"-x'y, {name}", wide, 3.0, partial(_layer, af.DotProduct(), 3.0, law, None)
        tokens, f = rng.random((size, 2)), af.SquaredDistance(af.Torus([1.0, 1.0]))
        graph = np.stack([np.repeat(np.arange(size), 50), rng.integers(0, size, 50 * size)], axis=1)
        for name, mask in (("causal", "causal"), ("ten labels", np.arange(size) % 10), ("graph", graph)):
            for law, words in (("softmax", ""), (af.TopK(8), ", top-8")):
                yield f"d^2, torus, {name}{words}", tokens, 0.01, partial(_layer, f, 0.01, law, mask)


def _layer(f: af.PseudoMetric, width: float, law, mask, engine: str) -> af.Attention:
    return af.Attention(f, width**2, law, mask=mask, backend=engine, rtol=RTOL)


def _summed(engine: str, f: af.PseudoMetric, width: float, tokens: np.ndarray, values: np.ndarray) -> Callable:
    return lambda: plan(f, width**2, None, tokens, engine, rtol=RTOL)(values)


def _layered(layer: Callable, engine: str, tokens: np.ndarray, values: np.ndarray) -> Callable:
    return lambda: layer(engine).bind(tokens).step(values)


def _time(run: Callable) -> float | None:
    """Seconds; None where the engine refuses."""
    began = time.perf_counter()
    try:
        run()
    except (ValueError, ImportError):
        return None
    return time.perf_counter() - began
