"""One cell of a convergence study: one temperature, one number of tokens, one seed.

The infinite-token layers of a temperature and the equation are the same for every seed and size, so a process
computes them once (keyed by the study's fingerprint, never by identity). Only what ran to its end is kept.
"""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cloudpickle  # of what was made here, see `workers`
import numpy as np

from .. import checks
from ..attention import circulant
from ..continuum import limit
from ..continuum.infinite import finished, infinite_layers, last_step
from ..kernels import ENGINES
from ..norms import norm
from ..particles import propagate
from ..solution import Solution
from .comparison import grid_weights
from .design import Cell, Design

COLUMNS = ("normalization", "epsilon", "size", "seed", "layers", "t", "error", "deviation", "accuracy", "seconds", "engine")
_ENGINES = (*ENGINES, circulant.ENGINE)
_LEAST = 1e-10  # the tolerance of the equation's integrator, which its estimate, of grids, does not see
_KEPT = 64


class Answer(NamedTuple):
    """A cell's row, or the exception it raised; and its warnings, as (message, category)."""

    row: dict | None
    error: BaseException | None = None
    warned: Sequence[tuple[str, type[Warning]]] = ()


_kept: OrderedDict[tuple, Solution] = OrderedDict()


def run_cell(study: Design, cell: Cell) -> dict:
    """Compute one cell.

    Returns
    -------
    dict
        normalization, epsilon, size ("inf" or int), seed, layers, t, error (relative, against the equation), deviation
        (relative, from the infinite-token layer; 0 at size inf), accuracy (relative: what quadrature, engine and equation
        leave unsure in the error), seconds, engine.

    Raises
    ------
    KeyboardInterrupt
        Also where a solver caught it and returned what it had: half a run is no cell.
    RuntimeError
        If a run did not reach its end for another reason.
    """
    began, study = time.perf_counter(), study.parts[cell.part]
    layer, layers = study.layer(cell.epsilon), study.layers(cell.epsilon)
    equation, reference = equation_of(study), _infinite(study, cell.epsilon)
    if np.isinf(cell.size):
        grid, stats = reference.grid, reference.stats
        assert grid is not None
        weights = grid_weights(grid, study.density)
        infinite = features = reference.y[-1].reshape(grid.size, -1)
        expected = equation.at(grid.points)
    else:
        tokens = study.density.sample(int(cell.size), study.token_stream(cell))
        weights = np.full(len(tokens), 1 / len(tokens))
        start = checks.evaluate(study.initial, tokens, "initial")
        run = finished(propagate(layer, tokens, start, layers, save_every=max(layers, 1)))
        features, stats = last_step(layer.bind(tokens), run.y[-1], study.rest(cell.epsilon)), run.stats
        infinite, expected = reference.at(tokens), equation.at(tokens)
    scale = norm(weights, expected)
    if not scale > 0:
        raise ValueError(f"t must leave something of initial to compare with, got {study.t:g}: the solution is 0 there")
    error, deviation = (norm(weights, d) / scale for d in (features - expected, features - infinite))
    unsure = max(equation.stats["estimated_error"], _LEAST) + reference.stats["quadrature_error"] + layer.rtol * np.sqrt(layers)
    return {
        "normalization": study.names[0],
        "epsilon": cell.epsilon,
        "size": "inf" if np.isinf(cell.size) else int(cell.size),
        "seed": cell.seed,
        "layers": layers + (study.rest(cell.epsilon) > 0),
        "t": study.t,
        "error": error,
        "deviation": deviation,
        "accuracy": float(unsure),
        "seconds": round(time.perf_counter() - began, 4),
        "engine": stats["engine"],
    }


def answer_of(study: Design, cell: Cell) -> Answer:
    """`run_cell`, with what it raises and warns of."""
    row = error = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", checks.AttnflowWarning)
        try:
            row = run_cell(study, cell)
        except BaseException as raised:
            error = raised
    return Answer(row, error, [(str(w.message), w.category) for w in warned])


def known_by(study: Design) -> list[tuple[set[str], str]]:
    """Of each of its parts: what it says here, and where it has been sent to, and its key, for `check_same`."""
    try:
        sent = cloudpickle.loads(cloudpickle.dumps(study)).parts  # what objects keep for themselves does not go along
    except Exception:  # a client may compute without sending; who sends says what cannot be sent
        sent = study.parts
    return [({part.words, there.words}, part.fingerprint) for there, part in zip(sent, study.parts)]


def check_same(study: Design, known: list[tuple[set[str], str]]) -> None:
    """RuntimeError unless a study is the one that was asked for, whose keys it then has.

    Its functions may come from a file that has changed.
    """
    for part, (words, fingerprint) in zip(study.parts, known):
        if part.words not in words:
            raise RuntimeError(
                "the study is another one where it is computed: a module that a function of it comes from was changed since "
                "it was imported here, or is another one there; import it again, in a new session"
            )
        vars(part)["fingerprint"] = fingerprint


def check_row(study: Design, cell: Cell, row: dict) -> None:
    """ValueError unless a row is that of the cell: every column, of its type, finite, of this cell and no other."""
    if not isinstance(row, dict) or set(row) != set(COLUMNS):
        raise ValueError(f"a cell must have the columns {COLUMNS}, got {str(row)[:60]}")
    study = study.parts[cell.part]
    due = {
        "normalization": study.names[0],
        "epsilon": cell.epsilon,
        "size": "inf" if np.isinf(cell.size) else int(cell.size),
        "seed": cell.seed,
        "layers": study.layers(cell.epsilon) + (study.rest(cell.epsilon) > 0),
        "t": study.t,
    }
    for name, value in due.items():
        if type(row[name]) is not type(value) or row[name] != value:
            raise ValueError(f"{name} must be {value!r} in this cell, got {str(row[name])[:60]!r}")
    for name in ("error", "deviation", "accuracy", "seconds"):
        if not (type(row[name]) is float and 0 <= row[name] < np.inf):
            raise ValueError(f"{name} must be a number from 0 on, got {str(row[name])[:60]!r} at eps {cell.epsilon:g}")
    checks.choice(row["engine"], "engine", _ENGINES)


def equation_of(study: Design) -> Solution:
    """The limit equation at the study's time."""
    return _once(
        (study.fingerprint,), lambda: limit(study.layer(study.epsilons[0]), study.density).solve(study.initial, study.t)
    )


def _infinite(study: Design, epsilon: float) -> Solution:
    """The infinite-token layers of one temperature, at the last."""

    layer = study.layer(epsilon)
    return _once(
        (study.fingerprint, epsilon), lambda: infinite_layers(layer, study.density, study.initial, study.t, study.grid)
    )


def _once(key: tuple, compute: Callable[[], Solution]) -> Solution:
    kept = _kept.get(key)
    if kept is None:
        kept = _kept[key] = finished(compute())
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return kept
