"""What engines predict of themselves: costs in pairs of the dense tile, which every machine computes at its own speed.

A pair here is one squared distance in two dimensions, by squares, with one value column in float64. The counts were fitted to timings
of the engines on uniform tokens; `python -m validation.benchmarks auto` compares the choice with the best engine.
Threads share the sums; what comes before them, and a beginning that every application has, they don't.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numba
import numpy as np

from ..similarity import PseudoMetric
from .masks import Mask
from .scaling import rescale

COLUMN, SINGLE = 0.07, 0.38  # what a column adds; float32 costs the last of float64
BEGUN = 5e4  # what an application of the dense engine begins with, however few its pairs
TRANSFORM = {"identity": 0.0, "affine": 0.05, "root": 0.6, "log1p": 1.0, "power": 2.7, "leaky": 0.6, "elu": 2.7, "tanh": 3.5}


@dataclass
class Request:
    """What is asked of an engine; it adds to `facts` what its prediction rests on.

    The parameters are those of `choose`.
    """

    f: PseudoMetric
    epsilon: float
    queries: np.ndarray | None
    keys: np.ndarray
    dtype: str
    rtol: float
    columns: int
    applications: int
    mask: Mask | None = None
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Of the queries."""
        return self.size if self.queries is None else len(self.queries)

    @property
    def size(self) -> int:
        """Of the keys."""
        return len(self.keys)

    @property
    def pairs(self) -> int:
        """That are summed over."""
        return self.count * self.size if self.mask is None else self.mask.pairs

    @property
    def tokens(self) -> int:
        """Of both, or of the one that is both."""
        return self.size if self.queries is None else self.count + self.size

    @property
    def share(self) -> float:
        """Of a pair's time that one takes on all threads."""
        return (SINGLE if self.dtype == "float32" else 1.0) / threads()

    @cached_property
    def scaled(self) -> tuple[PseudoMetric, float]:
        """f and epsilon in the units that engines get them in."""
        return rescale(self.f, self.epsilon, self.queries, self.keys, self.dtype)


_reckoned: int | None = None


def threads() -> int:
    """Threads that a choice reckons with: this process's, or those of the one that it computes cells for."""
    return _reckoned or numba.get_num_threads()


def reckon_with(count: int) -> None:
    """Choose as a process with so many threads does: all that compute a study then take the same engines."""
    global _reckoned
    _reckoned = count
