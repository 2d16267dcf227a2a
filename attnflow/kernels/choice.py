"""Which engine is cheapest for given tokens: predicted seconds of each, in units of this machine's dense tile.

Every engine that has a `predict` says what it costs, see `costs`; what a pair of the dense tile takes here is measured
once, in a few hundredths of a second, and kept in the user's cache folder.
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

from ..compilation import user_cache
from ..similarity import PseudoMetric
from .costs import Request
from .masks import Mask
from .registry import ENGINES, module, refusal

SMALL = 2**22  # pairs that the dense engine sums in a moment: nothing else is considered
_DENSE = "numba"  # whose tile costs are counted in


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

    def __repr__(self) -> str:
        return f"Choice({self.engine!r} of {len(self.seconds)} engines)"

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
    mask: Mask | None = None,
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
    mask : Ranges or Edges, optional

    Returns
    -------
    Choice
        Of the engines that may be chosen. The reference is not, nor a graphics card for arrays that are not
        on it.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Uniform(af.Circle()).sample(100, rng=0)
    >>> choose(af.SquaredDistance(af.Circle()), 0.1, None, tokens).engine
    'numba'
    """
    return cheapest(Request(f, epsilon, queries, keys, dtype, rtol, columns, applications, mask))


def cheapest(request: Request) -> Choice:
    """As `choose`."""
    mask = request.mask
    request.facts |= {"queries": request.count, "keys": request.size}
    pairs, reasons, why = {}, {}, ValueError()
    for name, engine in ENGINES.items():
        if not engine.chosen or (name != _DENSE and mask is None and request.pairs <= SMALL):
            continue
        missing = engine.missing() or refusal(name, type(mask))
        try:
            if missing is None:
                pairs[name] = module(name).predict(request)
        except ValueError as refused:
            missing, why = str(refused), refused
        if missing is not None:
            reasons[name] = missing
    if not pairs:
        raise why
    seconds = {name: count * dense_unit() for name, count in pairs.items()}
    return Choice(min(pairs, key=pairs.__getitem__), seconds, reasons, request.facts)


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
    return user_cache() / "speed.json"


def _measure(size: int = 2048, rounds: int = 5) -> float:
    from ..geometry import Euclidean
    from ..similarity import SquaredDistance

    x = np.random.default_rng(0).random((size, 2))
    run = module(_DENSE).plan(SquaredDistance(Euclidean(2)), 0.1, None, x, np.float64, 0.0)  # by squares
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
