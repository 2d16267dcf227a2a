"""Features after many layers: polynomials of the layer where these are cheaper, else layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import capacity
from ..attention import Attention, BoundHeads, BoundLayer
from ..progress import track
from .polynomials import degree_bound, sum_powers
from .spectrum import lanczos_steps, lower_end

_GAIN = 1.5  # layers per application from which on a polynomial is preferred
_TOLERANCE = 1e-12  # of a polynomial, times sqrt(layers): what round-off of so many layers adds up to
_COEFFICIENTS = 2**23  # more only if the results are more
_FEW = 16  # saved layers that take no memory worth saving
_ROWS, _PAIRS = 64, 2**22  # of the weights that are computed anew to see how accurate the engine is


def plan_layers(
    bound: BoundLayer | BoundHeads, features: np.ndarray, layers: int, every: int, sparing: bool = False
) -> int | None:
    """How to go through `layers` layers, of which each `every`-th is given away, before any of it is done.

    Parameters
    ----------
    bound : BoundLayer or BoundHeads
        Heads go layer by layer: they are no polynomials of one self-adjoint matrix.
    features : (N, c) array
    layers : int
    every : int
    sparing : bool
        Hold no more than a few of them: polynomials, which hold all, only where there are no more.

    Returns
    -------
    int or None
        Lanczos steps that polynomials begin with, if these are likely to be cheaper; None: layer by layer.

    Raises
    ------
    ValueError
        Naming layers, if layer by layer would take longer than a month.
    """
    steps = None
    if isinstance(bound, BoundLayer) and not (sparing and outputs(layers, every) > _FEW):
        steps = _worthwhile(bound, features, layers, outputs(layers, every))
    if steps is None:
        _ends(features, layers)
    return steps


def many_layers(
    bound: BoundLayer | BoundHeads,
    features: np.ndarray,
    layers: int,
    every: int,
    keep: Callable[[np.ndarray], None],
    steps: int | None,
    progress: bool = False,
) -> tuple[dict[str, Any], str]:
    """Give features (N, c) after 0, every, 2 every, ... and all `layers` layers to `keep`, in order as they are done.

    Interrupted, those that were done.

    Parameters
    ----------
    bound : BoundLayer or BoundHeads
    features : (N, c) array
    layers, every : int
    keep : callable
        A KeyboardInterrupt that it raises ends the run.
    steps : int or None
        As `plan_layers` says.
    progress : bool

    Returns
    -------
    stats : dict
        See `propagate`.
    refused : str
        Why it could not go on where polynomials could not: layer by layer would take too long. Else empty.
    """
    stats: dict[str, Any] = {"method": "iteration", "applications": 0}
    try:
        keep(features)
        done = 0
        if isinstance(bound, BoundLayer) and steps is not None:
            done, features = _by_polynomials(bound, features, layers, every, keep, steps, progress, stats)
            if done < layers:
                stats["method"] = "iteration"
                try:
                    _ends(features, layers)
                except ValueError as error:
                    return stats, str(error)
        for k in track(range(done + 1, layers + 1), progress and done < layers):
            features = bound.step(features)
            stats["applications"] += 1
            if k % every == 0 or k == layers:
                keep(features)
    except KeyboardInterrupt:
        pass
    return stats, ""


def outputs(layers: int, every: int) -> int:
    """How many of 0, every, 2 every, ... and `layers` there are."""
    return -(-layers // every) + 1


def _ends(features: np.ndarray, layers: int) -> None:
    capacity.ends(layers, "layers", 2e-5 + 1e-9 * features.size, "layers")


def _worthwhile(bound: BoundLayer, features: np.ndarray, layers: int, outputs: int) -> int | None:
    """Lanczos steps to begin with, if polynomials are likely to be cheaper than the layers; None if not."""
    if layers > 2**53:  # no float
        return None
    layer = bound.layer

    def degree(lower: float) -> int:
        return int(degree_bound(layers, _move(layer, lower), _tolerance(layer, layers)))

    definite = bound.definite
    steps = 0 if definite else lanczos_steps(len(features), degree)
    terms = degree(0.0 if definite else -1.0)
    adding = outputs / (2 * min(len(features), 1000))  # a term to all outputs, in applications
    cheaper = _GAIN * (steps + 1 + terms * (1 + adding)) < layers
    fits = terms * outputs < max(_COEFFICIENTS, outputs * features.size)
    return steps if cheaper and fits and bound.self_adjoint else None


def _by_polynomials(
    bound: BoundLayer,
    features: np.ndarray,
    layers: int,
    every: int,
    keep: Callable[[np.ndarray], None],
    steps: int,
    progress: bool,
    stats: dict[str, Any],
) -> tuple[int, np.ndarray]:
    """How many layers are done by polynomials, and features after the last that was given to `keep`.

    Fewer than all where the polynomials grow too large at single points for rounding to stay small. That happens where
    the conserved weights of tokens differ by many orders of magnitude, as in the far tails of a Density: T_k(P) is bounded
    in their inner product only, entry by entry by sqrt(w_j / w_i) (Carne 1985).
    """
    layer = bound.layer
    count = np.append(np.arange(0, layers, every), layers)
    sums: list[np.ndarray] = []
    stats |= {"method": "chebyshev", "applications": steps + 1}

    def attended(v: np.ndarray) -> np.ndarray:
        return bound.attend(v).mean

    def shifted(v: np.ndarray) -> np.ndarray:  # P = (2 A - 1 - lower) / (1 - lower)
        result = attended(v)
        result *= 2 / (1 - lower)
        result -= (1 + lower) / (1 - lower) * v
        return result

    def finish(deviation: np.ndarray) -> None:
        sums.append(deviation)
        if len(sums) > 1:  # the first is the start itself
            deviation += mean
            keep(deviation)

    centre = features.mean(axis=0)  # round-off is relative to what is left
    rounding = _rounding(bound, features - centre)
    weight = bound.conserved_weight()
    assert bound.log_sum_exp is not None  # the weight is made of them
    bound.note_isolated(bound.log_sum_exp)
    mean = centre + weight @ (features - centre)
    lower = 0.0 if bound.definite else lower_end(attended, weight, steps)
    # an engine that truncates may push an eigenvalue out by as much
    lower = float(max(lower - 10 * layer.rtol, -1.0))
    run = sum_powers(
        shifted,
        features - mean,  # constants pass unchanged
        count,
        _move(layer, lower),
        _tolerance(layer, count),
        np.sqrt(count[-1]) * max(layer.rtol, _TOLERANCE) / rounding,
        progress,
        finish,
    )
    stats["applications"] += run.applications
    if run.finished == len(count) or run.interrupted:
        stats["interval"] = [lower, 1.0]
        stats["growth"] = run.growth
        stats["error_bound"] = float(run.growth * (run.tail + count[-1] * layer.residual * rounding))
    if run.interrupted:
        raise KeyboardInterrupt
    return (int(count[run.finished - 1]), sums[-1]) if run.finished > 1 else (0, features)


def _move(layer: Attention, lower: float) -> float:
    """m of 1 + a (A - 1) = 1 - m + m P."""
    return layer.residual * (1 - lower) / 2


def _tolerance(layer: Attention, layers):
    return min(layer.rtol, _TOLERANCE) * np.sqrt(np.maximum(layers, 1))


def _rounding(bound: BoundLayer, values: np.ndarray) -> float:
    """Largest error of one application, relative to the largest value: on some rows, against the dense definition."""
    size = len(bound.tokens)
    rows = np.unique(np.linspace(0, size - 1, max(1, min(_ROWS, _PAIRS // size))).astype(int))
    exact = bound.weights(rows=rows) @ values
    error = np.abs(bound.attend(values).mean[rows] - exact).max(axis=0)
    return max(float((error / (np.abs(values).max(axis=0) + np.finfo(float).tiny)).max()), np.finfo(float).eps)
