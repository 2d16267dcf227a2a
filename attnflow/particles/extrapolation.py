"""What layers at two temperatures say of the limit: the bias of one, and an extrapolation that is rid of its first order.

Let H_eps be the features after l layers and H_half those after 2 l layers of half the time step, at the same time. Where
the bias is C tau^q,

    H_eps - H = w / (w - 1) (H_eps - H_half) + ...,     H = (w H_half - H_eps) / (w - 1) + ...,     w = 2^q.

q is 1, but 2 for plain Sinkhorn layers of a flat Gaussian, and 1/2 at walls unless columns sum to one.

Sources: Richardson 1911; the orders are derived for this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from .. import checks
from ..attention import Attention, MultiHead, heads_of
from ..attention.heads import replace_heads
from ..geometry import Density
from ..norms import norm
from ..provenance import described, provenance, seeded
from ..similarity import Mahalanobis, PseudoMetric
from ..solution import Solution
from .propagation import propagate
from .responses import adds_up, check_jackknife, standard_errors

_SOME = 64  # points that tell a square
_SQUARE = 1e-6  # how far f may be from it, of its largest value


def extrapolate(
    layer: Attention | MultiHead,
    tokens: np.ndarray | Density,
    values: np.ndarray | Callable,
    layers: int,
    progress: bool = False,
    *,
    rng: np.random.Generator | int | None = None,
) -> Solution:
    """Features of the limit equation from layers at two temperatures: off by eps^2, where either is by eps.

    Plain Sinkhorn layers of a flat Gaussian, which are off by eps^2, leave eps^4. Features of tokens are noisier for it,
    and closer only where bias decides. Whether it does is told by the tokens themselves, whose standard errors are those of
    `error_bars`.

    Parameters
    ----------
    layer : Attention or MultiHead
        Beside it runs one of half its time step.
    tokens : (N, n) array or Density
        A Density stands for infinitely many tokens, which have no noise.
    values : (N, c) or (N,) array, or callable on points (N, n)
        Features at the start; a callable for a Density.
    layers : int
    progress : bool
        Show progress bars.
    rng : Generator, int or None
        For the signs that tell the standard errors of many tokens.

    Returns
    -------
    Solution
        At the times of the layer. .stats has the "order" of the bias that was removed, and relative root mean squares
        over the features of the last layer: the "bias" removed, and of tokens the "noise" that is left, which is
        "noise_factor" times the layer's own; "error_before" and "error_half" are those of the layer and of half its time
        step, bias and noise together. Interrupted or failed, the run that was.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work: of a layer without a limit equation, or with walls, whose bias is of several
        orders. After it, where noise decides, with the numbers.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer, density = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.16), af.VonMises(1.0)
    >>> def start(x): return np.cos(x[..., 0])
    >>> exact = af.limit(layer, density).solve(start, t=0.4)
    >>> for run in af.propagate(layer, density, start, layers=5), af.extrapolate(layer, density, start, layers=5):
    ...     print(f"{af.compare(run, exact, density).error[-1]:.4f}")
    0.0186
    0.0008

    Sources: Richardson 1911; theory of the noise as of `error_bars`.
    """
    half = halved(layer)
    if half is None:
        raise ValueError(f"layer must have a limit equation to be extrapolated to, got {layer}")
    if any(has_walls(head) for head in heads_of(layer)):
        raise ValueError(f"layer must be on a space without walls, where the bias is of several orders, got {layer}")
    layers, seed, rng = checks.integer(layers, "layers", least=1), rng, checks.generator(rng)
    if not isinstance(tokens, Density):
        check_jackknife(layer)
    again = described(seeded(seed, rng))
    fine = propagate(half, tokens, values, 2 * layers, 2, progress=progress)
    if fine.status:
        return fine
    coarse = propagate(layer, tokens, values, layers, grid=None if fine.grid is None else fine.grid.shape, progress=progress)
    if coarse.status:
        return coarse
    points = tokens.space.probe_points() if isinstance(tokens, Density) else coarse.points
    assert points is not None  # propagate's own
    q = order(layer, points)
    w = 2**q
    y = (w * fine.y - coarse.y) / (w - 1)
    bias = norm(np.ones(1), (w / (w - 1) * (coarse.y[-1] - fine.y[-1])).reshape(1, -1))
    size = norm(np.ones(1), y[-1].reshape(1, -1))
    stats: dict[str, Any] = {"order": q, "bias": bias / size if size else 0.0}
    if coarse.points is not None:
        runs = [(layer.bind(coarse.points), layers), (half.bind(coarse.points), 2 * layers)]
        combinations = np.array([[1, 0], [0, 1], [w / (w - 1), -w / (w - 1)], [-1 / (w - 1), w / (w - 1)]])
        errors, _ = standard_errors(runs, coarse.y[0], combinations, None, rng, progress)
        stats |= _gain(stats["bias"], errors.reshape(4, -1), size, w, len(coarse.points))
    told = coarse.provenance["parameters"]
    call = provenance("extrapolate", **{name: told[name] for name in ("layer", "tokens", "values", "layers")}, rng=again)
    return Solution(coarse.t, y, coarse.layers, coarse.points, coarse.grid, stats={**coarse.stats, **stats}, provenance=call)


def _gain(bias: float, errors: np.ndarray, size: float, w: float, tokens: int) -> dict[str, float]:
    """What `extrapolate` tells of tokens; refused where either temperature alone has the smaller error."""
    own, fine, of_bias, left = (norm(np.ones(1), error[None]) / size if size else 0.0 for error in errors)
    bias = np.sqrt(max(bias**2 - of_bias**2, 0.0))  # the estimate's square has its own noise in it
    before, half = np.hypot(bias, own), np.hypot(bias / w, fine)
    if left >= min(before, half) > 0:
        better = "this layer" if before <= half else "twice as many layers of half the time step"
        raise ValueError(
            f"tokens must be more, or epsilon larger, for an extrapolation: with {tokens} tokens the relative bias is "
            f"{bias:.2g} beside a noise of {own:.2g}, the extrapolated features' noise is {left:.2g}, and {better} alone "
            f"has an error of {min(before, half):.2g}"
        )
    return {
        "bias": bias,
        "noise": left,
        "noise_factor": left / own if own else np.nan,
        "error_before": before,
        "error_half": half,
    }


def halved(layer: Attention | MultiHead) -> Attention | MultiHead | None:
    """The layer at the temperatures of half its time step; None where it has no limit equation that it knows of."""
    heads = heads_of(layer)
    if not adds_up(layer) or not all(head.has_time_step and not head.normalization.selects for head in heads):
        return None
    return replace_heads(layer, [_halved(head) for head in heads])


def _halved(head: Attention) -> Attention:
    f, goal = head.f, head.f.second_moment(head.epsilon, head.f.dim) / 2

    def beyond(share: float) -> float:
        return f.second_moment(share * head.epsilon, f.dim) / goal - 1

    share = 0.5 if abs(beyond(0.5)) < 1e-14 else brentq(beyond, 1e-6, 1.0, xtol=1e-15)
    options: dict[str, Any] = {"backend": head.backend, "rtol": head.rtol, "dtype": head.dtype}
    return Attention(f, share * head.epsilon, head.normalization, head.residual, head.mask, **options)


def order(layer: Attention | MultiHead, points: np.ndarray) -> float:
    """q of a bias C tau^q as tau -> 0, on points (M, n) or such as these.

    Plain Sinkhorn layers of a similarity that is, or becomes, a flat Gaussian have no first-order error:
    A = e^(tau L) + O(tau^3), and m4 / m2^2 -> 3. Tokens of unbounded space are taken to fill it, not to lie on a curved
    surface in it.
    """
    heads = heads_of(layer)
    if any(has_walls(head) for head in heads):
        return 1.0 if all(head.normalization.doubly_stochastic for head in heads) else 0.5
    rule = heads[0].normalization
    plain = isinstance(layer, Attention) and layer.residual == 1 and rule.order > 1
    return float(rule.order) if plain and _is_flat_gaussian(heads[0].f, points) else 1.0


def _is_flat_gaussian(f: PseudoMetric, points: np.ndarray) -> bool:
    """Whether exp(-f / (2 eps)) is one as eps -> 0: a function of a flat distance whose square leads, or a square itself."""
    if f.space is not None:
        curve = f.space.dim == 1  # which is flat
        return (f.space.flat or curve) and (f.pair.transform != "power" or f.pair.parameter == 2)
    some = points[:: 1 + len(points) // _SOME]
    square = Mahalanobis(f.metric(some[:1])[0])(some, some)
    return bool(np.abs(f(some, some) - square).max() <= _SQUARE * square.max())


def has_walls(head: Attention) -> bool:
    """Whether f says so; of tokens in unbounded space it cannot."""
    return head.f.space is not None and head.f.space.has_boundary
