"""The equation that iterated attention converges to: limit(layer, density)."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import checks
from ..attention import Attention
from ..attention.infinite import check_same_space
from ..geometry import Density, Reexpressed, Remetrised, Space
from ..geometry.differences import gradient
from ..pde import DriftDiffusion, General
from ..similarity import PseudoMetric
from .sparse_limits import sparse_limit

_MOST_LAYERS = 10**9


def limit(layer: Attention, density: Density, n_tokens: float | None = None) -> DriftDiffusion | General:
    """The drift-diffusion equation dH/dt = Delta_g H + c <grad log p, grad H>_g of a layer.

    g is the metric the pseudo-metric induces (f.metric) and p the token density with respect to the
    volume of g; the factor c is 2 for softmax, 2 (1 - alpha) density-corrected, 1 for Sinkhorn, 0 for
    column-then-row (Ruan & Zhang 2024, Theorem 3; Coifman & Lafon 2006). Its time is
    layers * layer.time_step.

    Softmax of an asymmetric f that is smallest at y = x adds a velocity that is no gradient,

        c^i = -(1/2) g^ij g^kl D_jkl - d_j g^ij + (1/2) g^ij d_j log det g,     D_jkl = d^3 f / dy^3 at y = x,

    zero for a symmetric f (Theorem 5): the limit is then a `General`.

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
        If f has no local limit of this form: its metric is not positive definite, it is smallest elsewhere than
        at y = x, it is asymmetric under another normalisation than softmax or on a sphere, or it does not fit
        the density's space.

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
    symmetric = f.is_symmetric(probe)
    if not symmetric and (not layer.normalization.general or density.space.columns != density.space.dim):
        name = type(layer.normalization).__name__.lower()
        raise ValueError(
            f"f must be symmetric for the drift-diffusion limit of {name!r} on {density.space}, got {type(f).__name__}"
        )
    if f.space is None:
        f.metric(probe)  # says at once if there is no local limit
        density = Reexpressed(density, Remetrised(density.space, f.metric))
    if layer.normalization.selects:
        return sparse_limit(layer, density, n_tokens)
    width = np.sqrt(f.second_moment(layer.epsilon, density.space.dim))
    periods = [high - low for (low, high), wraps in zip(density.space.bounds, density.space.periodic) if wraps]
    if f.space is not None and periods and width > min(periods) / 6:
        checks.warn(
            f"epsilon = {layer.epsilon:g} makes the similarity {width:.3g} wide on a period of {min(periods):.3g}: "
            "it wraps around, and the layer's time step is no longer m2 / 2",
            checks.AccuracyWarning,
        )
    if not symmetric:
        return General(density, partial(_velocity, f, density.space), layer.normalization.drift)
    return DriftDiffusion(density, drift=layer.normalization.drift)


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


def _velocity(f: PseudoMetric, space: Space, x: np.ndarray) -> np.ndarray:
    """c of `limit` at points (N, n): (N, n)."""
    inverse = np.linalg.inv(f.metric(x))
    divergence = np.einsum("mijj->mi", gradient(lambda z: np.linalg.inv(f.metric(z)), x, "the inverse metric of f", space))
    stretch = gradient(lambda z: np.linalg.slogdet(f.metric(z))[1], x, "log det of the metric of f", space)
    return np.einsum("mij,mj->mi", inverse, stretch - f.lean(x)) / 2 - divergence
