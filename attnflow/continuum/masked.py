"""The limits of layers whose tokens do not see all others: on the edges of a radius graph, and behind a causal mask.

On a graph whose edges join tokens nearer than r, a small r and any smooth f, one layer is

    A H = H + (m2/2) (Delta H + 2 grad log p . grad H) - (m2 / (2 eps)) grad_y f(x, y)|_{y = x} . grad H + ...,

m2 = r^2 / (n + 2): f tilts the ball, whose width the graph decides. With a key bias -alpha log of row sums, which are
proportional to p exp(-f(x, x) / (2 eps)), 2 becomes 2 (1 - alpha) = drift and f's part

    c = (m2/2) (alpha grad(f(x, x)) - grad_y f(x, y)|_{y = x}) / eps,

with alpha = 1 for columns and 1/2 for Sinkhorn, whose f is symmetric: c is 0 there.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import digamma, gammainc

from .. import checks
from ..attention import Attention, Column, DensityCorrected, Sinkhorn, Softmax
from ..attention.masks import Causal
from ..geometry import Density, Space
from ..geometry.differences import gradient
from ..pde import DriftDiffusion, General
from ..similarity import PseudoMetric, SquaredDistance

_BENT = 0.1  # of a logit across an edge, from which on the expansion is not good to a few percent
_STEEP = 1e-9  # of f's own size, below which f(x, x) counts as constant


def on_edges(layer: Attention, density: Density, radius: float | None) -> DriftDiffusion | General:
    """The limit of a layer whose edges join tokens nearer than the radius; one layer is one unit of time.

    `DriftDiffusion` with the mobility m2 / 2 where f is symmetric and f(x, x) constant, or alpha = 1/2, a `General` with
    the velocity c otherwise. For SquaredDistance m2 is that of the Gaussian within the ball, whatever the
    radius.

    Parameters
    ----------
    layer : Attention
    density : Density
    radius : float or None

    Raises
    ------
    ValueError
        If there is no radius: edges alone don't say which tokens they join. Or if the normalisation's limit is not known,
        or f is asymmetric under Sinkhorn or on a sphere, or f(x, x) varies there.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]
    >>> near = np.argwhere(af.Circle().distance(tokens[:, None], tokens) < 0.1)
    >>> equation = af.limit(af.Attention(af.SquaredDistance(af.Circle()), 9.0, mask=near), af.Uniform(af.Circle()), radius=0.1)
    >>> equation.mobility(tokens[:1]).round(6)        # r^2 / 6
    array([0.001666])
    """
    if radius is None:
        raise ValueError(
            "radius must be given for a layer on edges: a limit exists where they join tokens nearer than it, got None"
        )
    radius, f, space = checks.positive(radius, "radius"), layer.f, density.space
    if not isinstance(layer.normalization, (Softmax, Column, DensityCorrected, Sinkhorn)):
        raise ValueError(f"normalization must be known for a limit on edges, got {layer.normalization}")
    drift = layer.normalization.drift
    if isinstance(f, SquaredDistance):
        half = radius**2 / (2 * layer.epsilon)
        m2 = layer.epsilon * float(gammainc(space.dim / 2 + 1, half) / gammainc(space.dim / 2, half))
    else:
        m2 = radius**2 / (space.dim + 2)
        _warn_of_tilt(layer, space, radius)
    mobility = partial(_constant, m2 / 2)
    probe = space.probe_points()
    diagonal = f.diagonal(probe)
    level = np.ptp(diagonal) <= _STEEP * max(1.0, float(np.abs(diagonal).max()))
    if f.is_symmetric(probe) and (level or drift == 1):  # grad f(x, x) is then twice the slope
        return DriftDiffusion(density, drift, mobility)
    if layer.normalization.doubly_stochastic:  # key weights then undo all gradients in f, as in `velocity`
        raise ValueError(
            f"f must be symmetric for the limit of {layer.normalization} on edges, got {type(f).__name__}; use 'column'"
        )
    if space.columns != space.dim:
        raise ValueError(f"f must be symmetric and f(x, x) constant for a limit on the edges of {space}, got {f!r}")
    velocity = partial(_velocity, f, space, m2 / (2 * layer.epsilon), 1 - drift / 2)
    return General(density, velocity, drift, mobility)


def masked_limit_exists(layer: Attention, n_tokens: float | None) -> None:
    """Whether a causal layer has its limit: with a warning. ValueError for labels, and where the key bias is in the way."""
    if not isinstance(layer.mask, Causal):
        raise ValueError(
            f'mask must be None, "causal" or edges for a limit, got {layer.mask!r}: tokens of each label have an equation of '
            "their own, limit(layer without mask, density of those tokens)"
        )
    rule = layer.normalization
    if not (isinstance(rule, Softmax) or (isinstance(rule, DensityCorrected) and 0 <= rule.alpha < 0.5)):
        raise ValueError(
            f"normalization must be 'softmax' or DensityCorrected(alpha) with 0 <= alpha < 1/2 for the limit of a causal layer, "
            f"got {rule}: its key bias lets few tokens outweigh all others"
        )
    warn_of_first_tokens(layer, n_tokens)


def warn_of_first_tokens(layer: Attention, n_tokens: float | None) -> None:
    """What a causal limit needs: many more tokens than e^layers.

    Features that do not depend on the position u = i / N follow the equation; u^mu decays by 1 / (1 + mu) per layer on
    top. But token 1 sees only itself, and with equal weights its feature arrives at token i after about 1 + H_(i-1)
    layers, H_i = 1 + 1/2 + ... + 1/i. A residual step counts as a of a layer.
    """
    numbers = ""
    if n_tokens is not None:
        arrival = (1 + float(digamma(n_tokens)) + np.euler_gamma) / layer.residual
        numbers = f"; here log N is {np.log(n_tokens):.1f}, and token {n_tokens:g} has it after about {arrival:.1f} layers"
    checks.warn(
        "a causal layer follows its limit only while the logarithm of the number of tokens is much larger than the number of "
        "layers, a residual step counted as so much of one: token 1, which sees only itself, ends as everybody's feature, at "
        f"token i after about 1 + 1/1 + ... + 1/(i - 1) layers{numbers}",
        checks.AccuracyWarning,
    )


def _constant(value: float, x: np.ndarray) -> np.ndarray:
    return np.full(len(x), value)


def _velocity(f: PseudoMetric, space: Space, scale: float, alpha: float, x: np.ndarray) -> np.ndarray:
    """c at points (N, n): (N, n)."""
    covector = -f.slope(x)
    if alpha:
        covector = covector + alpha * gradient(f.diagonal, x, "f(x, x)", space)
    return scale * (covector if space.flat else np.linalg.solve(space.metric(x), covector[..., None])[..., 0])


def _warn_of_tilt(layer: Attention, space: Space, radius: float) -> None:
    """Where logits vary across an edge by more than the expansion in the radius bears."""
    f, x, worst = layer.f, space.probe_points(), 0.0
    u, level = f.query_features(x), f.diagonal(x)
    stretch = np.ones_like(x)
    if not space.flat and space.columns == space.dim:
        stretch = np.sqrt(np.diagonal(space.metric(x), axis1=1, axis2=2))
    for k in range(x.shape[1]):
        step = np.zeros_like(x)
        step[:, k] = radius / stretch[:, k]
        ahead, behind = (f.paired(u, f.key_features(space.project(x + sign * step))) for sign in (1, -1))
        bent, tilt = (ahead + behind - 2 * level) / (4 * layer.epsilon), (ahead - behind) / (4 * layer.epsilon)
        worst = max(worst, float(np.abs(bent).max()), float((tilt**2).max()))
    if worst > _BENT:
        checks.warn(
            f"the similarity varies across edges of length {radius:g}, to first order squared or to second by {worst:.2g} of itself: "
            "the limit is good to about as much; raise epsilon, or take a smaller radius",
            checks.AccuracyWarning,
        )
