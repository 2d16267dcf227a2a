"""What finitely many tokens get wrong: the predicted standard deviation at any eps and any depth.

Leading order in 1/N, by the delta method. With S(x, z) the infinite-token layer's weight density with
respect to p dz, A its average, h_k the features after k layers, and eta_z(y) the change of log key
weight at y that one more token at z makes,

    softmax: 0;   density-corrected: -alpha K(y, z) / q(y);   column: -K(z, y) / c(y);
    Sinkhorn: -(1 + A)^-1 S(., z),

    Phi_k(x, z) = S(x, z) (h_k(z) - A h_k(x)) + integral S(x, y) p(y) eta_z(y) (h_k(y) - A h_k(x)) dy
    E_0 = 0,    E_{k+1} = (1 - a) E_k + a (A E_k + Phi_k),    Var H_layers(x) = (1/N) integral p(z) E(x, z)^2 dz

(derived for this package; at one layer and small eps it is Singer 2006: slope -1/2 in N).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .. import checks
from ..attention import Attention, BoundLayer
from ..attention.circulant import Circulant
from ..attention.infinite import bind_density, check_same_space
from ..attention.masks import check_unmasked
from ..geometry import Density
from ..grid import Grid
from ..kernels.reference_engine import dense_logits
from ..norms import unit
from .limits import depth

_RESOLUTION = 1.3  # nodes per kernel width: quadrature error below 1e-14, and the matrices stay small
_LARGEST = 3000  # nodes: a dense product of matrices per layer
MOST_WORK = 2e12  # products of matrices * nodes^3: a minute or two


def predicted_noise(layer: Attention, density: Density, initial: Callable, t: float, n_tokens: int) -> Callable:
    """Standard deviation of the features of N random tokens after the layers that meet the time t.

    These are floor(t / time_step), and one more of a residual step that is left.

    Parameters
    ----------
    layer : Attention
    density : Density
        Tokens are independent samples of it.
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation.
    n_tokens : int
        N.

    Returns
    -------
    callable
        Points (M, n) -> standard deviation (M, c).

    Raises
    ------
    ValueError
        On a space with boundary, and when the quadrature would need more than 3000 nodes, or too many of them too often.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> noise = af.predicted_noise(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.5, 1000)
    >>> noise(np.array([[0.9]])).shape
    (1, 1)
    """
    t, n_tokens = checks.nonnegative(t, "t"), checks.integer(n_tokens, "n_tokens", least=1)
    check_predictable(layer, density, "a predicted noise")
    checks.evaluate(initial, density.space.probe_points(), "initial")
    layer.normalization.require("response", "predicted noise")
    whole, rest = depth(layer, t)
    bound, grid, mass = bind_nodes(layer, density, initial)
    steps = [layer.residual] * whole + [layer.residual * rest] * (rest > 0)
    if len(steps) * grid.size**3 > MOST_WORK:
        raise ValueError(
            "epsilon must be larger, or initial smoother, for a predicted noise: "
            f"{len(steps)} products of {grid.size} x {grid.size} matrices"
        )
    A, eta = weights_and_response(bound, mass)
    S, A_eta = A / mass, A @ eta
    start, variance = checks.evaluate(initial, grid.points, "initial"), []
    size = unit(start, axis=0)
    for h in (start / size).T:
        E = np.zeros_like(A)
        for a in steps:
            Ah = A @ h
            mixed = A @ (E + h[:, None] * eta) - Ah[:, None] * A_eta + S * (h - Ah[:, None])
            E += a * (mixed - E)
            h = h + a * (Ah - h)
        variance.append(E**2 @ mass / n_tokens)
    field = np.stack(variance, axis=-1).reshape(*grid.shape, -1)
    return partial(_deviation, grid, field, size, density)


def _deviation(grid: Grid, variance: np.ndarray, size: np.ndarray, density: Density, points: np.ndarray) -> np.ndarray:
    # a sum of squares that touches zero may interpolate to just below it
    return size * np.sqrt(np.maximum(grid.interpolate(variance, density.space.check(points, "points")), 0.0))


def check_predictable(layer: Attention, density: Density, what: str) -> None:
    """Layer and density live on one space, which has no boundary; `what` is predicted of them."""
    check_same_space(layer, density)
    check_unmasked(layer, what)
    if density.space.has_boundary:
        raise ValueError(f"density must live on a space without boundary for {what}, got {density.space}")


def bind_nodes(layer: Attention, density: Density, values: Callable | None = None) -> tuple[BoundLayer, Grid, np.ndarray]:
    """The infinite-token layer on nodes few enough for dense matrices, the nodes, and their masses p dvol (m,)."""
    bound, grid = bind_density(layer, density, None, values, _RESOLUTION, _LARGEST)
    mass = density.pdf(grid.points) * density.space.volume_element(grid.points) * grid.weights
    return bound, grid, np.maximum(mass, mass.max() * 1e-300)  # far tails of a line: nothing, but divisible by


def weights_and_response(bound: BoundLayer, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A (m, m) on the nodes and eta (m, m), eta[y, z]."""
    layer, nodes = bound.layer, bound.tokens
    if isinstance(bound.plan, Circulant):  # a cusp, which nodes do not sample: its Fourier coefficients are known
        A = bound.attend(np.eye(len(nodes))).mean
    else:
        A = _softmax(dense_logits(layer.f, layer.epsilon, nodes, nodes, bound.key_bias))

    def plain(transposed: bool) -> np.ndarray:
        f = layer.f.transposed() if transposed else layer.f
        return _softmax(dense_logits(f, layer.epsilon, nodes, nodes, np.log(mass)))

    return A, layer.normalization.response(A, plain, mass)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
