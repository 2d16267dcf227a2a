"""What infinitely many tokens still get wrong at temperature eps: the predicted bias, any depth.

================================================ ================================= ==========================
where                                            how                               leading order
================================================ ================================= ==========================
flat tori, Euclidean space: distances, their     closed form, `bias_flat`          time step
powers, Mahalanobis
any other space without walls, f or heads        layers at several temperatures,   time step
                                                 `bias_extrapolated`
Sinkhorn where its first order vanishes          the same                          time step squared
walls                                            their own mass, `bias_walls`      root of the time step
================================================ ================================= ==========================
"""

from __future__ import annotations

from collections.abc import Callable

from .. import checks
from ..attention import Attention, MultiHead
from ..attention.heads import heads_of
from ..attention.infinite import check_same_space
from ..attention.masks import check_unmasked
from ..attention.sparse import Screening
from ..geometry import Density, Euclidean
from .bias_extrapolated import extrapolated_bias, may_vanish
from .bias_flat import flat_bias, is_flat
from .bias_gaussian import gaussian_bias, has_gaussian_bias
from .bias_walls import wall_bias


def predicted_bias(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, n_tokens: float | None = None
) -> Callable:
    """Features of infinitely many tokens minus the solution of the limit equation, to their leading order in eps.

    With A = 1 + tau L + tau^2 E + ... one plain layer and a the residual, that is on a space without walls

        a tau integral_0^t e^((t-u) L) (E / a - L^2 / 2) e^(u L) H du,

    proportional to the layer's time step a tau; where this vanishes, as for plain Sinkhorn layers with a distance on a flat
    space, what is proportional to its square. At walls it is of order sqrt(tau), whatever a.

    Parameters
    ----------
    layer : Attention or MultiHead
        With a limit. At walls one head of a symmetric f.
    density : Density
    initial : callable
        Features at time 0, on points (N, n).
    t : float
        Time of the equation.

    Returns
    -------
    callable
        Points (M, n) -> signed bias (M, c). On a line, points where p^(drift / 2) is below 1e-7 of its top get the
        bias of the nearest node where it is not.

    Raises
    ------
    ValueError
        If there is no limit, on spaces that have no quadrature grid, and for layers without drift on a line, whose
        features never settle.
    NotImplementedError
        If queries choose their keys; at walls for Sinkhorn, whose bias there is of order 5/4 in eps with a constant that is not known, for
        heads, an asymmetric f and powers of a distance other than its square; and where a normalization does not know its
        `first_order` or `wall_mass`.

    Warns
    -----
    AccuracyWarning
        If the bias is not good to one per cent on as many nodes as are affordable.

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
    """
    heads = heads_of(layer)
    t = checks.nonnegative(t, "t")
    for head in heads:
        check_same_space(head, density)
        check_unmasked(head, "a predicted bias")
        _check_known(head, density)
    if density.space.has_boundary:
        return wall_bias(layer, density, initial, t)
    if density.space.dim > 3:
        if not has_gaussian_bias(layer, density):
            raise NotImplementedError(
                "density must be a Gaussian, and layer one head of its squared distance or Mahalanobis, for a predicted bias in "
                f"more than three dimensions, got {density} and {layer}"
            )
        return gaussian_bias(layer, density, initial, t)
    if isinstance(layer, Attention) and is_flat(layer, density.space) and not layer.normalization.selects and not may_vanish(layer):
        layer.normalization.require("first_order", "predicted bias")
        return flat_bias(layer, density, initial, t)
    return extrapolated_bias(layer, density, initial, t, n_tokens)


def _check_known(layer: Attention, density: Density) -> None:
    rule = layer.normalization
    if isinstance(rule, Screening):
        raise NotImplementedError(f"normalization must let all tokens be keys for a predicted bias, got {rule}")
    if isinstance(density.space, Euclidean) and rule.drift <= 0:
        raise ValueError(
            f"normalization must leave a drift on a line for a predicted bias, got {rule}: features then spread for ever"
        )
