"""The equation that iterated attention converges to: limit(layer, density)."""

from __future__ import annotations

import warnings

import numpy as np

from .. import checks
from ..attention import Attention, Column
from ..geometry import Density, Reexpressed, Remetrised
from ..particles.quadrature import check_same_space
from ..pde import DriftDiffusion


def limit(layer: Attention, density: Density) -> DriftDiffusion:
    """The drift-diffusion equation dH/dt = Delta_g H + c <grad log p, grad H>_g of a layer.

    g is the metric the pseudo-metric induces (f.metric) and p the token density with respect to the
    volume of g; the factor c is 2 for softmax, 2 (1 - alpha) density-corrected, 1 for Sinkhorn, 0 for
    column-then-row (Ruan & Zhang 2024, Theorem 3; Coifman & Lafon 2006). Its time is
    layers * layer.time_step.

    Parameters
    ----------
    layer : Attention
    density : Density
        Of the tokens, on the space they live on.

    Returns
    -------
    DriftDiffusion

    Raises
    ------
    ValueError
        If f has no local limit of this form: it is asymmetric, its metric is not positive definite,
        it is smallest elsewhere than at y = x, or it does not fit the density's space.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> equation = af.limit(layer, af.VonMises(1.0))
    >>> solution = equation.solve(lambda x: np.cos(x[..., 0]), t=20.0)
    >>> solution.at(np.array([[0.9]])).round(8)   # the p^2-weighted mean of cos
    array([[0.69777466]])
    """
    if not isinstance(layer, Attention):
        raise TypeError(f"layer must be an attnflow.Attention, got {type(layer).__name__}")
    if not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
    check_same_space(layer, density)
    f, probe = layer.f, density.space.probe_points()
    if not f.is_symmetric(probe):
        name = "column" if isinstance(layer.normalization, Column) else type(layer.normalization).__name__.lower()
        raise ValueError(f"f must be symmetric for the drift-diffusion limit of {name!r}, got {type(f).__name__}")
    if f.space is None:
        f.metric(probe)  # says at once if there is no local limit
        density = Reexpressed(density, Remetrised(density.space, f.metric))
    width = np.sqrt(f.second_moment(layer.epsilon, density.space.dim))
    periods = [high - low for (low, high), wraps in zip(density.space.bounds, density.space.periodic) if wraps]
    if f.space is not None and periods and width > min(periods) / 6:
        warnings.warn(
            f"epsilon = {layer.epsilon:g} makes the similarity {width:.3g} wide on a period of {min(periods):.3g}: "
            "it wraps around, and the layer's time step is no longer m2 / 2",
            checks.AccuracyWarning,
            stacklevel=2,
        )
    return DriftDiffusion(density, drift=layer.normalization.drift)
