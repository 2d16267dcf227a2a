"""What infinitely many tokens still get wrong at temperature eps: the predicted bias, any depth.

================================================ ======================================= ==========================
where                                            how                                     leading order
================================================ ======================================= ==========================
flat tori, Euclidean space: distances, their     closed form, `bias_flat`                time step
powers, Mahalanobis
any other space without walls, f or heads        layers at several temperatures,         time step
                                                 `bias_extrapolated`
queries that choose their keys                   Gaussians that stand in for them there, what queries see, squared
                                                 `chosen_keys`
S^3                                              the same layers, a similarity of the    time step
                                                 angle by harmonics, `zonal_sums`
Gaussian tokens beyond three dimensions          closed form, `bias_gaussian`            time step
Sinkhorn where its first order vanishes          as the others                           time step squared
walls, one head, similar as a Gaussian           their own mass, `bias_walls`            root of the time step
other walls: Sinkhorn, density-corrected near    the layers less the equation,           none: it is the bias at
alpha = 1/2, powers, heads, an asymmetric f,     `bias_walls`                            this eps
chosen keys
================================================ ======================================= ==========================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from .. import checks
from ..attention import Attention, MultiHead
from ..attention.heads import heads_of
from ..attention.infinite import check_same_space
from ..attention.masks import check_unmasked
from ..attention.sparse import Screening
from ..geometry import Density, Euclidean, Gaussian
from .bias_extrapolated import extrapolated_bias, may_vanish
from .bias_flat import flat_bias, is_flat
from .bias_gaussian import gaussian_bias, has_gaussian_bias
from .bias_walls import has_wall_order, own_bias, wall_bias
from .sparse_limits import read_tokens


def predicted_bias(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, n_tokens: float | None = None
) -> Callable:
    """Features of infinitely many tokens minus the solution of the limit equation, to their leading order in eps.

    With A = 1 + tau L + tau^2 E + ... one plain layer and a the residual, that is on a space without walls

        a tau integral_0^t e^((t-u) L) (E / a - L^2 / 2) e^(u L) H du,

    proportional to the layer's time step a tau; where this vanishes, as for plain Sinkhorn layers with a distance on a flat
    space, what is proportional to its square. At walls it is of order sqrt(tau), whatever a. Where its order there, or the
    constant, is not known (Sinkhorn's is about 5/4 in eps), or the constant nearly vanishes (density-corrected, alpha from 0.4
    to 0.62), it is not the leading order but the bias itself at this eps.

    Where queries choose their keys (TopK, Sparse, Perplexity), what N tokens let a query see takes the place of eps: one
    layer is one unit of time, A = 1 + L + E + ..., L of the order of m2 and E of m2^2, and the bias is

        a integral_0^t e^((t-u) L) (E / a - L^2 / 2) e^(u L) H du.

    Parameters
    ----------
    layer : Attention or MultiHead
        With a limit.
    density : Density
        In more than three dimensions a `Gaussian`.
    initial : callable
        Features at time 0, on points (N, n).
    t : float
        Time of the equation.
    n_tokens : float, optional
        How many tokens there are: needed where queries choose among them.

    Returns
    -------
    callable
        Points (M, n) -> signed bias (M, c). On a line, points where p^(drift / 2) is below 1e-7 of its top get the
        bias of the nearest node where it is not.

    Raises
    ------
    ValueError
        If there is no limit, on spaces that have no quadrature grid, and for layers without drift on a line, whose
        features never settle; if queries choose their keys and n_tokens is missing; if the bias is not good to ten per cent
        on as many nodes as are affordable: tight bends of a map, or wide views.
    NotImplementedError
        If queries choose their keys on a line, where they see ever farther; for Screening; in more than three dimensions
        unless tokens are Gaussian and the layer is one head of their squared distance or Mahalanobis; and where a
        normalization does not know its `first_order`.

    Warns
    -----
    AccuracyWarning
        If the bias is not good to one per cent on as many nodes as are affordable; at walls, if layers of infinitely many
        tokens are not resolved.

    Notes
    -----
    In closed form a bias takes a moment; from layers a second in one dimension, in two some ten seconds to a minute on one
    core, the longer the more p and the metric vary.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.01)
    >>> bias = af.predicted_bias(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5)
    >>> (bias(np.array([[0.9]])) / layer.time_step).round(5)
    array([[-0.2032]])

    On an ellipse, with the length of the chord:

    >>> ellipse = af.SquaredMap(lambda x: np.concatenate([2 * np.cos(x), np.sin(x)], axis=-1))
    >>> layer = af.Attention(ellipse, epsilon=0.01)
    >>> bias = af.predicted_bias(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5)
    >>> (bias(np.array([[2.0]])) / layer.time_step).round(3)
    array([[-0.013]])

    In ten dimensions, of Gaussian tokens:

    >>> layer = af.Attention(af.SquaredDistance(af.Euclidean(10)), epsilon=0.02)
    >>> bias = af.predicted_bias(layer, af.Gaussian(np.zeros(10), np.eye(10)), lambda x: x[..., 0] * x[..., 1], t=0.25)
    >>> (bias(np.ones((1, 10))) / layer.time_step).round(5)      # 2 b t e^(-4 c t), b = 2, c = 1
    array([[0.36788]])
    """
    heads = heads_of(layer)
    t = checks.nonnegative(t, "t")
    n_tokens = None if n_tokens is None else read_tokens(n_tokens)
    for head in heads:
        check_same_space(head, density)
        check_unmasked(head, "a predicted bias")
        _check_known(head, density, n_tokens)
    chosen = n_tokens if any(head.normalization.selects for head in heads) else None
    if density.space.has_boundary:
        if has_wall_order(layer, density):
            return wall_bias(cast(Attention, layer), density, initial, t)
        return own_bias(layer, density, initial, t, chosen)
    if density.space.dim > 3 and has_gaussian_bias(layer, density):
        return gaussian_bias(cast(Attention, layer), cast(Gaussian, density), initial, t)
    if density.space.dim > 3:
        raise NotImplementedError(
            "density must be a Gaussian, and layer one head of its squared distance or Mahalanobis, for a predicted bias in "
            f"more than three dimensions, got {density} and {layer}"
        )
    if isinstance(layer, Attention) and is_flat(layer, density.space) and not may_vanish(layer) and chosen is None:
        layer.normalization.require("first_order", "predicted bias")
        return flat_bias(layer, density, initial, t)
    return extrapolated_bias(layer, density, initial, t, chosen)


def _check_known(layer: Attention, density: Density, n_tokens: float | None) -> None:
    rule, line = layer.normalization, isinstance(density.space, Euclidean)
    if isinstance(rule, Screening):
        raise NotImplementedError(f"normalization must let all tokens be keys for a predicted bias, got {rule}")
    if rule.selects:
        read_tokens(n_tokens, f"the predicted bias of {rule}")
        if line:
            raise NotImplementedError(
                f"density must live on a bounded space for the predicted bias of {rule}, got {density.space}: where tokens end "
                "queries see ever farther"
            )
    if line and rule.drift <= 0:
        raise ValueError(
            f"normalization must leave a drift on a line for a predicted bias, got {rule}: features then spread for ever"
        )
