"""What infinitely many tokens still get wrong at temperature eps: the predicted bias, any depth.

For an isotropic similarity with moments m2, m4 on a flat space, tau = m2 / 2 and the normalisation's
own r and L = r^-2 div(r^2 grad), one plain layer is A H = H + tau (L H + E H) + ..., with

    E H = m4 / (12 m2) (Delta^2(r H) - H Delta^2 r) / r - (m2 / 2) (Delta r / r) L H - k m2 grad V . grad H

    softmax: r = p, k = 0;   alpha: r = p^(1 - alpha), k = alpha, V = Delta p / p;   Sinkhorn: r = sqrt p,
    k = 1/2, V = Delta r / r.

Layers with residual step a then deviate from the equation by

    integral_0^t e^((t-u) L) (E - (a tau / 2) L^2) e^(u L) H du.

(Singer 2006 for softmax at one layer; the rest derived for this package and checked numerically.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from .. import checks
from ..attention import Attention, Sinkhorn
from ..geometry import Density, Torus
from ..grid import Grid
from ..pde.fourier import bandwidth, modes
from ..similarity import LogDistance, PowerDistance, SquaredDistance
from .limits import limit

_SIZES = {1: (65, 129, 257, 513), 2: (21, 31, 45), 3: (13,)}  # odd nodes per axis: no Nyquist mode


def predicted_bias(layer: Attention, density: Density, initial: Callable, t: float) -> Callable:
    """Features of infinitely many tokens minus the solution of the limit equation, to first order in eps.

    Parameters
    ----------
    layer : Attention
        With a pseudo-metric made of the distance on a flat torus: SquaredDistance, PowerDistance
        or LogDistance.
    density : Density
    initial : callable
        Features at time 0, on points (N, n).
    t : float
        Time of the equation.

    Returns
    -------
    callable
        Points (M, n) -> signed bias (M, c).

    Raises
    ------
    ValueError
        On a space with boundary (the bias there is of order sqrt(eps)), and where no prediction is known.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.01)
    >>> bias = af.predicted_bias(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5)
    >>> (bias(np.array([[0.9]])) / layer.time_step).round(5)
    array([[-0.2032]])
    """
    t = float(checks.output_times(t)[-1])
    equation = limit(layer, density)
    _check_known(layer, density)
    grid, features = _resolving_grid(density, initial)
    spectrum = modes(equation, grid)
    to_basis, from_basis = spectrum.vectors.T * spectrum.root, spectrum.vectors / spectrum.root[:, None]
    L = from_basis @ (spectrum.eigenvalues[:, None] * to_basis)

    first = [grid.derivative(k).toarray() for k in range(len(grid.axes))]
    laplacian = sum(D @ D for D in first)
    bilaplacian = laplacian @ laplacian
    m2, m4 = layer.f.moments(layer.epsilon, density.space.dim)
    p = density.pdf(grid.points)
    r = p ** (layer.normalization.drift / 2)
    if isinstance(layer.normalization, Sinkhorn):
        k, V = 0.5, laplacian @ r / r
    else:
        k, V = 1 - layer.normalization.drift / 2, laplacian @ p / p
    E = m4 / (12 * m2) * (bilaplacian * r - np.diag(bilaplacian @ r)) / r[:, None]
    E -= m2 / 2 * (laplacian @ r / r)[:, None] * L
    E -= k * m2 * sum((D @ V)[:, None] * D for D in first)
    M = to_basis @ (E - layer.time_step / 2 * L @ L) @ from_basis

    # in the eigenbasis the integral is a divided difference of exp(t .) at each pair of eigenvalues
    gap = np.abs(spectrum.eigenvalues[:, None] - spectrum.eigenvalues)
    slower = np.maximum(spectrum.eigenvalues[:, None], spectrum.eigenvalues)
    apart = np.where(gap > 1e-9, gap, 1.0)
    divided = np.exp(t * slower) * np.where(gap > 1e-9, -np.expm1(-t * apart) / apart, t)
    bias = (from_basis @ ((M * divided) @ (to_basis @ features))).reshape(*grid.shape, -1)
    return lambda points: grid.interpolate(bias, density.space.check(points, "points"))


def _check_known(layer: Attention, density: Density) -> None:
    if density.space.has_boundary:
        raise ValueError(f"density must live on a space without boundary for a predicted bias, got {density.space}")
    known = isinstance(layer.f, (SquaredDistance, PowerDistance, LogDistance)) and isinstance(density.space, Torus)
    if not known:
        raise ValueError(
            "layer must use a distance on a flat torus for a predicted bias, got "
            f"{type(layer.f).__name__} on {density.space}"
        )
    if not np.isfinite(layer.f.moments(layer.epsilon, density.space.dim)[1]):
        raise ValueError(f"epsilon must be smaller for a predicted bias: the fourth moment is infinite at {layer.epsilon}")


def _resolving_grid(density: Density, initial: Callable) -> tuple[Grid, np.ndarray]:
    """The smallest grid that holds log p and the initial features to 1e-9, and those features on it."""
    for size in _SIZES[density.space.dim]:
        grid = density.space.grid(size)
        features = checks.evaluate(initial, grid.points, "initial")
        fields = np.concatenate([density.log_pdf(grid.points)[:, None], features], axis=1)
        if bandwidth(fields.reshape(*grid.shape, -1), 1e-9) is not None:
            return grid, features
    warnings.warn(
        f"the predicted bias needs smooth log_pdf and initial: {grid.shape} nodes do not hold them to 1e-9",
        checks.AccuracyWarning,
        stacklevel=3,
    )
    return grid, features
