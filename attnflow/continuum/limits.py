"""The equation that iterated attention converges to: limit(layer, density)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .. import checks
from ..attention import Attention, MultiHead
from ..attention.heads import check_square
from ..attention.infinite import check_same_space
from ..attention.masks import Graph
from ..attention.sparse import Screening
from ..geometry import Density, Reexpressed, Remetrised
from ..pde import DriftDiffusion, General, Heads
from .folds import warn_of_folds
from .masked import masked_limit_exists, on_edges
from .screening import screened_limit
from .sparse_limits import read_tokens, sparse_limit
from .velocity import invariant_part, velocity

_MOST_LAYERS = 10**9
_ONE = 1e-12  # how near to one mixing matrices must add up


def limit(
    layer: Attention | MultiHead, density: Density, n_tokens: float | None = None, radius: float | None = None
) -> DriftDiffusion | General | Heads:
    """The drift-diffusion equation dH/dt = Delta_g H + c <grad log p, grad H>_g of a layer.

    g is the metric the pseudo-metric induces (f.metric) and p the token density with respect to the
    volume of g; the factor c is 2 for softmax, 2 (1 - alpha) density-corrected, 1 for Sinkhorn, 0 for
    column-then-row (Ruan & Zhang 2024, Theorem 3; Coifman & Lafon 2006). Its time is
    layers * layer.time_step.

    An asymmetric f that is smallest at y = x adds c . grad H with a velocity c that is no gradient,

        c^i = -(1/2) g^ij g^kl D_jkl - d_j g^ij + (1/2) g^ij d_j log det g,     D_jkl = d^3 f / dy^3 at y = x,

    zero for a symmetric f (Theorem 5): the limit is then a `General`. It is the same for softmax, density-corrected and
    column layers. Two-potential Sinkhorn keeps the tokens' density, so of c only the part c - grad psi whose flux of p has
    no divergence (see `continuum.velocity`); on lines and in one dimension between walls there is none.

    Heads with mixing matrices of sum one have dH/dt = sum_i (tau_i / tau) (L_i H) W_i, tau_i the time step of the i-th
    layer and tau the first one's: `Heads`, from

        sum_i A_i H W_i = H sum_i W_i + sum_i tau_i (L_i H) W_i + O(tau^2).

    Parameters
    ----------
    layer : Attention or MultiHead
    density : Density
        Of the tokens, on the space they live on.
    n_tokens : float, optional
        How many there are: needed where queries choose among them (TopK, Sparse, Perplexity), whose equation has a
        mobility that depends on it, see `sparse_limits`; Screening's then tells a region from thinning at random, and a
        causal layer's warning has numbers.
    radius : float, optional
        For a layer on edges, which join tokens nearer than this in the distance of the space; see `on_edges`.

    Returns
    -------
    DriftDiffusion, General or Heads

    Warns
    -----
    FoldingWarning
        If f puts tokens close together that are far apart by its own metric, see `folds`: a layer jumps there.
    AccuracyWarning
        If the layer is causal: its first tokens spread to all, see `warn_of_first_tokens`. If the similarity is as wide
        as the space, or varies across an edge; if p and f are not smooth enough for what two potentials keep.

    Raises
    ------
    ValueError
        If a head has no limit, or mixing matrices do not add up to one: a layer is then no small step.
        If f has no local limit of this form: its metric is not positive definite, it is smallest elsewhere than
        at y = x, or it does not fit the density's space. If it is asymmetric on a sphere, or under a normalisation that
        needs symmetry; under one with sums in its key weights, if f(x, x) is not constant; under two potentials, on lines of
        two or more dimensions, and beyond three. If the mask is of labels, or a normalisation's limit under the mask is not
        known.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> equation = af.limit(layer, af.VonMises(1.0))
    >>> solution = equation.solve(lambda x: np.cos(x[..., 0]), t=20.0)
    >>> solution.at(np.array([[0.9]])).round(8)   # the p^2-weighted mean of cos
    array([[0.69777466]])
    """
    if isinstance(layer, MultiHead):
        return _of_heads(layer, lambda head: limit(head, density, n_tokens, radius))
    if not isinstance(layer, Attention):
        raise TypeError(f"layer must be an attnflow.Attention or MultiHead, got {type(layer).__name__}")
    if not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
    check_same_space(layer, density)
    n_tokens = None if n_tokens is None else read_tokens(n_tokens)
    if isinstance(layer.mask, Graph):
        return on_edges(layer, density, radius)
    if radius is not None:
        raise ValueError("radius must be None for a layer without edges: its epsilon says how far a token sees")
    if layer.mask is not None:
        masked_limit_exists(layer, n_tokens)
    f, probe = layer.f, density.space.probe_points()
    symmetric = f.is_symmetric(probe)
    if not symmetric:
        _check_asymmetric(layer, density)
    if f.space is None:
        f.metric(probe)  # says at once if there is no local limit
        if not layer.normalization.selects:
            warn_of_folds(layer, density)
        density = Reexpressed(density, Remetrised(density.space, f.metric))
    if layer.normalization.selects:
        return sparse_limit(layer, density, n_tokens)
    if isinstance(layer.normalization, Screening):
        return screened_limit(layer, density, n_tokens)
    width = np.sqrt(f.second_moment(layer.epsilon, density.space.dim))
    periods = [high - low for (low, high), wraps in zip(density.space.bounds, density.space.periodic) if wraps]
    if f.space is not None and periods and width > min(periods) / 6:
        checks.warn(
            f"epsilon = {layer.epsilon:g} makes the similarity {width:.3g} wide on a period of {min(periods):.3g}: "
            "it wraps around, and the layer's time step is no longer m2 / 2",
            checks.AccuracyWarning,
        )
    drift = layer.normalization.drift
    if symmetric:
        return DriftDiffusion(density, drift)
    whole = partial(velocity, f, density.space)
    kept = invariant_part(whole, density) if layer.normalization.doubly_stochastic else whole
    return DriftDiffusion(density, drift) if kept is None else General(density, kept, drift)


def _check_asymmetric(layer: Attention, density: Density) -> None:
    f, rule, space = layer.f, layer.normalization, density.space
    name = type(rule).__name__.lower()
    if not rule.general or space.columns != space.dim:
        hint = "; use Sinkhorn(potentials=2)" if rule.doubly_stochastic and not rule.general else ""
        raise ValueError(
            f"f must be symmetric for the drift-diffusion limit of {name!r} on {space}, got {type(f).__name__}{hint}"
        )
    if rule.doubly_stochastic or rule.drift == 2:
        return  # what f has of x alone, or of y alone, is scaled away; or rows alone are
    probe = space.probe_points()
    own = f.diagonal(probe)
    if np.ptp(own) > 1e-9 * np.ptp(f(probe, probe)):
        raise ValueError(
            f"f(x, x) must be constant for an asymmetric f to have a limit under {name!r}, whose key weights then grow as "
            f"exp(1 / epsilon), got values from {own.min():.4g} to {own.max():.4g}; use softmax or Sinkhorn(potentials=2)"
        )


def depth(layer: Attention, t: float) -> tuple[int, float]:
    """Layers that meet the time t: floor(t / time_step) of them, and the share of a step that one more has left.

    The share is 0 where t is a whole number of steps to round-off, else one more layer has that times the residual.

    Raises
    ------
    ValueError
        If there are more layers than anybody can wait for.

    Examples
    --------
    >>> import attnflow as af
    >>> depth(af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.2), t=0.25)
    (2, 0.5)
    """
    step = layer.time_step
    steps = t / step if step > 0 else np.inf
    if not steps <= _MOST_LAYERS:
        raise ValueError(
            f"t must be at most {_MOST_LAYERS} layers long, got {t:g} with a time step of {step:g} at epsilon {layer.epsilon:g}"
        )
    whole = round(steps)
    if abs(steps - whole) <= 1e-12 * max(whole, 1):
        return whole, 0.0
    return int(steps), float(steps - int(steps))


def _of_heads(layer: MultiHead, of_one: Callable) -> Heads:
    """The sum of the heads' own limits, if mixing leaves features as they are to leading order."""
    if layer.token_mixing is not None:
        raise ValueError(
            f"layer must not mix tokens to have a limit, got W_A of shape {layer.token_mixing.shape}: it moves features at "
            "once, whatever epsilon is, and is tied to these tokens; use efficient_attention"
        )
    check_square(layer, "for heads to have a limit")
    one = np.eye(1 if layer.columns is None else layer.columns[0])
    total = np.sum([W * one if W.ndim == 0 else W for W in layer.mixing], axis=0)
    apart = float(np.abs(total - one).max())
    if not apart <= _ONE:
        raise ValueError(
            f"mixing must add up to one for heads to have a limit, got sum_i W_i = {checks.entries(total)}, "
            f"{apart:.2g} from it: H sum_i W_i moves features at once in each layer, however small epsilon is"
        )
    equations = []
    for k, head in enumerate(layer.layers):
        try:
            equations.append(of_one(head))
        except (ValueError, NotImplementedError) as error:
            raise type(error)(f"layers[{k}] must have a limit of its own, got none: {error}") from None
    tau = layer.layers[0].time_step
    return Heads(equations, [W * (head.time_step / tau) for head, W in zip(layer.layers, layer.mixing)])
