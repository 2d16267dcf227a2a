"""Tokens that stay where they are while features move through layers: propagate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from .. import capacity, checks
from ..attention import Attention, MultiHead, heads_of
from ..attention.heads import check_columns
from ..attention.infinite import bind_density, estimated_error
from ..geometry import Density
from ..provenance import provenance
from ..recording import Step, Watch
from ..solution import Solution
from .many_layers import many_layers, outputs, plan_layers


def propagate(
    layer: Attention | MultiHead,
    tokens: np.ndarray | Density,
    values: np.ndarray | Callable,
    layers: int,
    save_every: int = 1,
    grid: int | Sequence[int] | None = None,
    progress: bool = False,
    n_tokens: float | None = None,
    *,
    save: str | int = "all",
    callback: Callable[[Step], object] | None = None,
    store: str | os.PathLike | None = None,
) -> Solution:
    """Features after 0, ..., `layers` layers of attention on fixed tokens: H <- H + a (A H - H).

    For symmetric f many layers are polynomials of A: all saved ones are summed from one sequence of Chebyshev
    polynomials, about sqrt(layers log(1/tol)) applications of A, wherever that is cheaper than going layer by layer.
    Several heads, no one matrix A, go layer by layer.

    Parameters
    ----------
    layer : Attention or MultiHead
    tokens : (N, n) array or Density
        A Density is the limit of infinitely many tokens, by quadrature: spectrally accurate for
        smooth similarities.
    values : (N, c) or (N,) array, or callable on points (N, n)
        Features at the start; a callable for a Density.
    layers : int
    save_every : int
        Keep every so many layers; the first and the last are always kept.
    grid : int, sequence of int or None
        Quadrature nodes per axis for a Density; None chooses them.
    progress : bool
        Show a progress bar.
    n_tokens : float, optional
        How many tokens a Density stands for, where queries choose among them (TopK, Sparse, Perplexity).
    save : {"all", "final", "statistics"} or int
        What the Solution holds of the layers that `save_every` names: all, the last, or the last and of each layer and
        column mean, variance, min and max over the tokens (of a Density weighted by it), in stats["statistics"]. Memory does
        not grow with the layers then, but for those numbers; where more than 16 are looked at they are gone through one
        by one. A number is short for save_every.
    callback : callable, optional
        Called with each of these layers as it is done, the start first, as callback(step): step.layer, step.t and step.y.
        The run ends where it returns something true, with status 1.
    store : path, optional
        A new folder that these layers are written to as they are done, a Zarr group if it ends in .zarr: `attnflow.load`
        reads what is there at any time, also after a run that was killed.

    Returns
    -------
    Solution
        .t = layers * layer.clock; interrupted, it holds the saved layers that were done (status 1).
        .stats tells the "method", "iteration" or "chebyshev", and the "applications" of A. With "chebyshev" also the
        "interval" that holds the spectrum of A, the "growth" of the polynomials at single points (see `PowerSums`),
        and "error_bound": of any feature, relative to the largest deviation from the mean that its column starts with.
        It is growth times the sum of the truncation, proven in the root mean square over the conserved weight, and
        layers * residual times the error of one application, measured on up to 64 rows. With several heads "heads" holds
        what each of them tells.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.1)
    >>> run = af.propagate(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), layers=10)
    >>> run.t[-1], run.y.shape
    (np.float64(0.5), (11, 64, 1))

    A thousand layers for the price of about two hundred:

    >>> run = af.propagate(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), layers=1000, save_every=100)
    >>> run.stats["method"], run.stats["applications"] < 300
    ('chebyshev', True)

    As many as it takes for features to be nearly the same:

    >>> run = af.propagate(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 1000, save="final",
    ...                    callback=lambda step: np.ptp(step.y) < 0.01)
    >>> run.message
    'stopped by callback after 68 of 1000 layers; the last is here'
    """
    heads = heads_of(layer)
    layers = checks.integer(layers, "layers")
    watch = Watch.of_layers(save_every, save, callback, store)
    clock = layer.clock
    if isinstance(tokens, Density):
        if not callable(values):
            raise TypeError(f"values must be callable on points when tokens is a Density, got {type(values).__name__}")
        probed = checks.evaluate(values, tokens.space.probe_points(), "values")
        check_columns(layer, probed.shape[1], "values", again=True)
        bound, nodes = bind_density(layer, tokens, grid, values, n_tokens=n_tokens)
        bound.stats["quadrature_error"] = estimated_error(bound, tokens, nodes, values)
        points = None
        mass = tokens.pdf(nodes.points) * tokens.space.volume_element(nodes.points) * nodes.weights
        share = mass / mass.sum()
        features = checks.evaluate(values, nodes.points, "values")
    else:
        if grid is not None:
            raise ValueError("grid must be None when tokens are given: it is for a Density")
        if n_tokens is not None:
            raise ValueError("n_tokens must be None when tokens are given: it is for a Density")
        for head in heads:
            tokens = head.f.check(tokens, "tokens")
        points, nodes, share = tokens.copy(), None, None
        features = checks.evaluate(values, points, "values") if callable(values) else values
        features = checks.features(features, "values", len(points))
        check_columns(layer, features.shape[1], "values", again=True)
        bound = layer.bind(points)

    every = watch.every if watch.looks else max(layers, 1)
    capacity.fits(watch.nbytes(outputs(layers, every), features), "layers")
    steps = plan_layers(bound, features, layers, every, watch.sparing)
    asked = {"layers": layers, "save_every": watch.every, "grid": grid, "n_tokens": n_tokens}
    start = values if callable(values) else features
    call = provenance("propagate", layer=layer, tokens=tokens, values=start, **asked)
    record = watch.begin(outputs(layers, every), points, nodes, share, provenance=call)
    lost = False

    def keep(y: np.ndarray) -> None:
        nonlocal lost
        lost = not np.isfinite(y).all()
        if lost:
            raise KeyboardInterrupt
        k = min(record.count * every, layers)
        record.add(k * clock, y, k)

    stats, refused = many_layers(bound, features, layers, every, keep, steps, progress)
    if not record.count:  # a Solution has at least the start
        record.add(0.0, features, 0, watched=False)
    done, status, message = min((record.count - 1) * every, layers), 0, "finished"
    if lost or refused:
        status = -1
        why = refused or "values grew beyond the range of numbers; scale them down"
        message = f"stopped after {done} of {layers} layers; {record.here}: {why}"
    elif done < layers:
        status, message = 1, f"{record.how} after {done} of {layers} layers; {record.here}"
    space = None if points is None else heads[0].f.space
    where = {"coordinate": "angle"} if space is not None and space.angular else {}
    return record.solution(status, message, {**bound.stats, **stats, **where})
