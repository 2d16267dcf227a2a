"""Which engine is cheapest for given tokens: predicted seconds of each, in units of this machine's dense tile.

All costs are counted in pairs of the dense engine (squared distance in two dimensions, one value column, float64);
what a pair takes here is measured once, in a few hundredths of a second, and kept in the user's cache folder. The counts
below were fitted to timings of the engines on uniform tokens; `python -m validation.benchmarks auto` compares the
choice with the best engine.

dense    M N times what the reduction, the transform and the columns add
cells    a token's share of sorting and searching, and the keys met within reach (counted on a sample)
nufft    a token's share of spreading, w^n nodes for w digits, and two Fourier transforms of the fine grid

Threads share the sums; what comes before them, and a beginning that every application has, they don't.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numba
import numpy as np

from ..similarity import PseudoMetric
from ..similarity.pairs import Pair
from . import cells, gauss_sums, nufft, numba_engine
from .registry import ENGINES
from .scaling import rescale

SMALL = 2**22  # pairs that the dense engine sums in a moment: nothing else is considered
TRANSFORM = {"identity": 0.0, "affine": 0.1, "root": 0.6, "log1p": 1.1, "power": 2.4}
GEODESIC, COLUMN, WRAP, SINGLE = 1.8, 0.07, 0.14, 0.38  # float32 costs the last of float64
SEARCH, NEAR = (100, 175, 360), (0.95, 1.25, 1.55)  # cells, by dimension: pairs per token, and per key met
MET = (1.0, 1.1, 2.1)  # keys met, by dimension, over those within reach; at most all
PREPARED = {"cells": (4e5, 50), "nufft": (1.3e6, 55)}  # what comes before the sums: in all, and per token
BEGUN = {"cells": 3e5, "nufft": 3.5e5}  # per application


@dataclass(frozen=True)
class Choice:
    """The engine that is predicted to be fastest.

    Attributes
    ----------
    engine : str
    seconds : dict
        Engine -> predicted seconds of all applications, preparation included.
    reasons : dict
        Engine -> why it can't run here, or not for these tokens.
    facts : dict
        What the prediction rests on: tokens, keys within reach, modes.
    """

    engine: str
    seconds: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.engine}: " + ", ".join(f"{name} {value}" for name, value in self.facts.items())]
        for name, seconds in sorted(self.seconds.items(), key=lambda item: item[1]):
            lines.append(f"  {name:10} {seconds:9.3g} s predicted")
        return "\n".join(lines + [f"  {name:10} {reason}" for name, reason in self.reasons.items()])


def choose(
    f: PseudoMetric,
    epsilon: float,
    queries: np.ndarray | None,
    keys: np.ndarray,
    dtype: str = "float64",
    rtol: float = 1e-12,
    columns: int = 1,
    applications: int = 2,
) -> Choice:
    """Predict the cost of every engine on this processor, and take the cheapest.

    Parameters
    ----------
    f, epsilon, queries, keys, dtype, rtol
        As for `attnflow.kernels.plan`.
    columns : int
        Of the values.
    applications : int
        How often the plan will run.

    Returns
    -------
    Choice
        Of "numba", "cells" and "nufft". The reference is never chosen, nor a graphics card for arrays that are not
        on it.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Uniform(af.Circle()).sample(100, rng=0)
    >>> choose(af.SquaredDistance(af.Circle()), 0.1, None, tokens).engine
    'numba'
    """
    size = len(keys)
    count = size if queries is None else len(queries)
    facts: dict[str, object] = {"queries": count, "keys": size}
    tokens = size if queries is None else count + size
    share = (SINGLE if dtype == "float32" else 1.0) / numba.get_num_threads()  # nufft is always in double precision
    step = float(count) * size * _dense(f.pair, f.key_features(keys[:1]).shape[1], columns)
    pairs = {"numba": applications * step * share}
    if float(count) * size <= SMALL:
        return Choice("numba", _seconds(pairs), {}, facts)
    reasons: dict[str, str] = {}
    f, epsilon = rescale(f, epsilon, queries, keys, dtype)
    near = _near(f, epsilon, keys[:1] if queries is None else queries, keys, rtol, reasons)
    if near is not None:
        v = f.key_features(keys)
        within = facts["keys within reach"] = round(_within_reach(f.pair, near, v if queries is None else f.query_features(queries), v))
        n = v.shape[1] - 1
        met = min(MET[n] * within, size)
        step = count * (SEARCH[n] + (NEAR[n] + COLUMN * (columns - 1) + TRANSFORM[f.pair.transform]) * met)
        pairs["cells"] = _prepared("cells", tokens) + applications * (BEGUN["cells"] + step * share)
        spread = _nufft(f, epsilon, keys, rtol, count, reasons, facts)
        if spread is not None:
            uncertain, step = spread
            transforms = -(-(columns + 1) // 2) + (applications - 1) * -(-columns // 2)
            pairs["nufft"] = _prepared("nufft", tokens) + transforms * (BEGUN["nufft"] + step) + uncertain * pairs["cells"]
    best = min(pairs, key=pairs.get)
    return Choice(best, _seconds(pairs), reasons, facts)


def _seconds(pairs: dict[str, float]) -> dict[str, float]:
    return {name: count * dense_unit() for name, count in pairs.items()}


def _prepared(engine: str, tokens: int) -> float:
    in_all, per_token = PREPARED[engine]
    return in_all + per_token * tokens


def _dense(pair: Pair, features: int, columns: int) -> float:
    if pair.reduction == "general":
        return 20.0  # a Python function of arrays
    step = 0.93 + 0.07 * max(features - 2, 0) + (WRAP * features if pair.reduction == "wrapped" else 0.0)
    transform = {1.0: "root", 2.0: "identity"}.get(pair.parameter, "power") if pair.transform == "power" else pair.transform
    return step + TRANSFORM[transform] + GEODESIC * pair.geodesic + COLUMN * max(columns - 1, 0)


def _near(f, epsilon, queries, keys, rtol, reasons) -> float | None:
    """The distance of features within which cells look, or None with the reason."""
    try:
        cells.check(f, f.key_features(keys[:1]).shape[1])
    except ValueError as refusal:
        reasons["cells"] = reasons["nufft"] = str(refusal)
        return None
    return cells.radius(f, epsilon, len(keys), rtol)


def _within_reach(pair: Pair, distance: float, u: np.ndarray, v: np.ndarray, queries: int = 64, sample: int = 8192) -> float:
    """Mean number of keys within a distance of a query, from evenly spaced samples of both."""
    u, some = u[:: -(-len(u) // queries)], v[:: -(-len(v) // sample)]
    square = np.zeros((len(u), len(some)))
    for k in range(u.shape[1]):
        difference = u[:, k, None] - some[:, k]
        if pair.period is not None:
            difference -= pair.period[k] * np.round(difference / pair.period[k])
        square += difference**2
    return max(1.0, float((square <= distance**2).mean()) * len(v))


def _nufft(f, epsilon, keys, rtol, count, reasons, facts) -> tuple[float, float] | None:
    """Whether rows will lack a certificate (0 or 1), and the cost of two transforms in pairs; None with the reason."""
    missing = ENGINES["nufft"].missing()
    try:
        modes = None if missing else nufft.modes(f, epsilon, keys, rtol)
    except ValueError as refusal:
        missing = str(refusal)
    if missing:
        reasons["nufft"] = missing
        return None
    facts["modes"] = " x ".join(map(str, modes))
    sums = modes, (len(keys) + count) / 2, max(rtol / 64, gauss_sums.FINEST)
    step = gauss_sums.work(*sums) / min(numba.get_num_threads(), gauss_sums.parts_of(*sums))
    # what FINUFFT's rounding leaves of a certificate: see nufft's docstring; a period is about modes widths long
    left = 6 * (rtol / 64 + 1.1e-16 * max(modes) * 0.7) * 2.5 ** (len(modes) / 2)
    return float(left > rtol), step


@lru_cache(maxsize=1)
def dense_unit() -> float:
    """Seconds a pair of the dense engine takes on one thread of this machine, measured once and kept on disk."""
    path = _cache_file()
    key = f"{platform.processor() or platform.machine()} {os.cpu_count()} numba {numba.__version__}"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return float(known[key])
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    unit = _measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**known, key: unit}) + "\n", encoding="utf-8")
    except OSError:
        pass  # measured again next time
    return unit


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "attnflow" / "speed.json"


def _measure(size: int = 2048, rounds: int = 5) -> float:
    from ..geometry import Euclidean
    from ..similarity import SquaredDistance

    x = np.random.default_rng(0).random((size, 2))
    run = numba_engine.plan(SquaredDistance(Euclidean(2)), 0.1, None, x, np.float64, 1e-12)
    threads, seconds = numba.get_num_threads(), []
    run(x[:, :1], None)  # compiles
    numba.set_num_threads(1)
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            run(x[:, :1], None)
            seconds.append(time.perf_counter() - began)
    finally:
        numba.set_num_threads(threads)
    return min(seconds) / size**2
