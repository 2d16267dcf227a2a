"""One cell of a convergence study: one temperature, one number of tokens, one seed.

The infinite-token layer and the equation are the same for every seed and size at one temperature, so a
process computes them once (keyed by the study's fingerprint, never by identity).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import checks
from ..continuum import limit
from ..particles import propagate
from ..solution import Solution
from .comparison import grid_weights

if TYPE_CHECKING:
    from .convergence import ConvergenceStudy

_KEPT = 64


class Cell(NamedTuple):
    """epsilon, number of tokens (numpy.inf for the infinite-token layer), seed."""

    epsilon: float
    size: float
    seed: int


class Reference(NamedTuple):
    """At one temperature: the infinite-token layers and the equation, at the last layer."""

    infinite: Solution
    equation: Solution


_references: OrderedDict[tuple[str, float], Reference] = OrderedDict()


def run_cell(study: ConvergenceStudy, cell: Cell) -> dict:
    """Compute one cell.

    Returns
    -------
    dict
        epsilon, size ("inf" or int), seed, layers, t, error (relative, against the equation),
        deviation (relative, from the infinite-token layer; 0 at size inf), seconds, engine.
    """
    began = time.perf_counter()
    reference = _reference(study, cell.epsilon)
    layer, layers = study.layer(cell.epsilon), study.layers(cell.epsilon)
    if np.isinf(cell.size):
        grid = reference.infinite.grid
        weights = grid_weights(grid, study.density)
        infinite = features = reference.infinite.y[-1].reshape(grid.size, -1)
        equation = reference.equation.at(grid.points)
        engine = reference.infinite.stats["engine"]
    else:
        # seeds of different cells are independent streams: the seed alone would reuse tokens across sizes
        rng = np.random.default_rng([cell.seed, int(cell.size), int(np.float64(cell.epsilon).view(np.uint64))])
        tokens = study.density.sample(int(cell.size), rng)
        weights = np.full(len(tokens), 1 / len(tokens))
        run = propagate(layer, tokens, checks.evaluate(study.initial, tokens, "initial"), layers, save_every=max(layers, 1))
        features, engine = run.y[-1], run.stats["engine"]
        infinite, equation = reference.infinite.at(tokens), reference.equation.at(tokens)
    scale = np.sum(weights @ equation**2)
    error, deviation = (np.sqrt(np.sum(weights @ d**2) / scale) for d in (features - equation, features - infinite))
    return {
        "epsilon": cell.epsilon,
        "size": "inf" if np.isinf(cell.size) else int(cell.size),
        "seed": cell.seed,
        "layers": layers,
        "t": layers * layer.time_step,
        "error": float(error),
        "deviation": float(deviation),
        "seconds": round(time.perf_counter() - began, 4),
        "engine": engine,
    }


def _reference(study: ConvergenceStudy, epsilon: float) -> Reference:
    key = (study.fingerprint, epsilon)
    if key not in _references:
        layer, layers = study.layer(epsilon), study.layers(epsilon)
        infinite = propagate(layer, study.density, study.initial, layers, save_every=max(layers, 1))
        equation = limit(layer, study.density).solve(study.initial, layers * layer.time_step)
        _references[key] = Reference(infinite, equation)
        if len(_references) > _KEPT:
            _references.popitem(last=False)
    return _references[key]
