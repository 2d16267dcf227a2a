"""Tokens that stay where they are while features move through layers: propagate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import capacity, checks
from ..attention import Attention, MultiHead, heads_of
from ..attention.heads import check_columns
from ..attention.infinite import bind_density, estimated_error
from ..geometry import Density
from ..solution import Solution
from .many_layers import many_layers


def propagate(
    layer: Attention | MultiHead,
    tokens: np.ndarray | Density,
    values: np.ndarray | Callable,
    layers: int,
    save_every: int = 1,
    grid: int | Sequence[int] | None = None,
    progress: bool = False,
    n_tokens: float | None = None,
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
    """
    heads = heads_of(layer)
    layers = checks.integer(layers, "layers")
    save_every = checks.integer(save_every, "save_every", least=1)
    clock = layer.clock
    if isinstance(tokens, Density):
        if not callable(values):
            raise TypeError(f"values must be callable on points when tokens is a Density, got {type(values).__name__}")
        probed = checks.evaluate(values, tokens.space.probe_points(), "values")
        check_columns(layer, probed.shape[1], "values", again=True)
        bound, nodes = bind_density(layer, tokens, grid, values, n_tokens=n_tokens)
        bound.stats["quadrature_error"] = estimated_error(bound, tokens, nodes, values)
        points, shape = None, nodes.shape
        features = checks.evaluate(values, nodes.points, "values")
    else:
        if grid is not None:
            raise ValueError("grid must be None when tokens are given: it is for a Density")
        if n_tokens is not None:
            raise ValueError("n_tokens must be None when tokens are given: it is for a Density")
        for head in heads:
            tokens = head.f.check(tokens, "tokens")
        points, nodes = tokens.copy(), None
        shape = (len(points),)
        features = checks.evaluate(values, points, "values") if callable(values) else values
        features = checks.features(features, "values", len(points))
        check_columns(layer, features.shape[1], "values", again=True)
        bound = layer.bind(points)

    capacity.fits(2 * (features.nbytes + 8) * (layers // save_every + 2), "layers")
    if layers > 2**53:
        capacity.ends(layers, "layers", what="layers")
    count = np.append(np.arange(0, layers, save_every), layers)
    y, stats = many_layers(bound, features, count, progress)
    status, message = 0, "finished"
    whole = np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    if not whole.all():
        y = y[: int(whole.argmin())]
        count = count[: len(y)]
        status = -1
        message = f"stopped after {count[-1]} of {layers} layers, which are here: values grew beyond the range of numbers; scale them down"
    elif len(y) < len(count):
        count = count[: len(y)]
        status, message = 1, f"interrupted after {count[-1]} of {layers} layers; they are here"
    y = y.reshape(len(count), *shape, -1)
    return Solution(count * clock, y, count, points, nodes, status, message, {**bound.stats, **stats})
