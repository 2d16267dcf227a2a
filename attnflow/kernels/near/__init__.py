"""Weights that choose their keys, a reduction of its own: lists of near keys, never all pairs at a time.

    cells    tokens in cells, for a growing function of a flat distance of up to three features
    numba    rows of f, some at a time, for any pseudo-metric; of ranges of the tokens, where a mask asks for them
    graph    the edges of a mask

Queries and keys are numbered by their place in an order of the source's own, so that what is near is near in memory.
"""

from .laws import Calibrated, Entmax, Law, Nearest, Spread
from .reference import DenseSelection
from .select import Selection
from .sources import Source, choose_source, source

__all__ = [
    "Calibrated",
    "DenseSelection",
    "Entmax",
    "Law",
    "Nearest",
    "Selection",
    "Source",
    "Spread",
    "choose_source",
    "source",
]
