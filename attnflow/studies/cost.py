"""What runs and cells take, predicted: seconds of the engine that computes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from .. import checks
from ..attention import Attention
from ..attention.infinite import first_grid
from ..kernels.choice import choose, dense_unit
from .design import Cell, Design

_SAMPLED = 2**19  # tokens that an engine's time is predicted on; beyond, by the law that two sizes show
_RUN, _TOKEN = 7e5, 40.0  # pairs of the dense tile that a run takes around its sums, and for each token
_SWEPT = 500  # tokens that Sinkhorn's sweeps are counted on: there are hardly more for more tokens


def cost_of_run(
    layer: Attention, tokens: Callable[[int], np.ndarray], n_tokens: int, layers: int, columns: int
) -> tuple[str, float]:
    """The engine of a run, and its seconds.

    Parameters
    ----------
    layer : Attention
    tokens : callable
        So many of them, to predict from.
    n_tokens, layers : int
    columns : int
        Of the features.
    """
    few = layer.bind(tokens(min(n_tokens, _SWEPT)))
    sums = few.stats.get("sinkhorn_sweeps", 0) * getattr(layer.normalization, "potentials", 1) + bool(few.key_bias.any())

    def plan(size: int):
        return choose(layer.f, layer.epsilon, None, tokens(size), layer.dtype, layer.rtol, columns, layers + sums)

    if n_tokens <= _SAMPLED:
        seconds = plan(n_tokens).seconds
    else:
        half, full = plan(_SAMPLED // 2).seconds, plan(_SAMPLED).seconds
        further = np.log2(n_tokens / _SAMPLED)
        seconds = {name: full[name] * (full[name] / half[name]) ** further for name in full if name in half}
    engine = layer.backend if layer.backend in seconds else min(seconds, key=seconds.__getitem__)
    return engine, float(seconds[engine]) + (_RUN + _TOKEN * n_tokens) * dense_unit()


def cost_of_cells(study: Design, cells: list[Cell]) -> dict[Cell, float]:
    """Seconds of each cell; those of infinitely many tokens as of a run on the grid's nodes.

    Examples
    --------
    >>> import attnflow as af
    >>> study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5,
    ...                             epsilons=[0.1, 0.05], sizes=[1000], seeds=2)
    >>> costs = cost_of_cells(study, study.cells())
    >>> max(costs, key=costs.get)[:2]
    (0.05, 1000)
    """
    known: dict[Cell, float] = {}
    for cell in cells:
        alike = cell._replace(seed=0)
        if alike not in known:
            known[alike] = _cost(study.parts[cell.part], cell)
    return {cell: known[cell._replace(seed=0)] for cell in cells}


def _cost(study: Design, cell: Cell) -> float:
    layer, layers, density = study.layer(cell.epsilon), study.layers(cell.epsilon), study.density
    n_tokens = int(cell.size) if np.isfinite(cell.size) else _SWEPT
    with warnings.catch_warnings():  # the run itself says what is to be said of it
        warnings.simplefilter("ignore")
        try:
            nodes = None if np.isfinite(cell.size) else first_grid(layer, density, study.grid).points
            n_tokens = n_tokens if nodes is None else len(nodes)

            def tokens(size: int) -> np.ndarray:
                return density.sample(size, rng=0) if nodes is None else nodes[:size]

            return cost_of_run(layer, tokens, n_tokens, layers, columns_of(study.initial, density.space))[1]
        except Exception:  # the run says that too: a user's function may raise anything, and it costs its cell alone
            return float(layers * n_tokens**2) * dense_unit()


def columns_of(initial: Callable, space) -> int:
    """Of the features that a start has."""
    return checks.evaluate(initial, space.probe_points(), "initial").shape[1]
