"""What finitely many tokens get wrong: the predicted standard deviation at any eps and any depth.

Leading order in 1/N, by the delta method. The tokens' measure is p (1 + xi / sqrt(N)) dz, xi white noise of unit covariance
with respect to p dz. With A the infinite-token layer, dA its derivative in the direction xi (see `derivative`) and h_k the
features after k layers,

    E_0 = 0,    E_{k+1} = (1 - a) E_k + a (A E_k + dA h_k),    Var H_layers(x) = (1/N) mean of E(x)^2 over xi.

In the directions delta_z / sqrt(p dz) of all nodes that is a sum, E(x, z) the influence of a token at z: for weights of a key
bias, S(x, z) their density with respect to p dz and eta_z(y) the change of log key weight at y,

    dA_z h = S(x, z) (h(z) - A h(x)) + integral S(x, y) p(y) eta_z(y) (h(y) - A h(x)) dy,
    eta: softmax 0;  density-corrected -alpha K(y, z) / q(y);  column -K(z, y) / c(y);  Sinkhorn -(1 + A)^-1 S(., z).

Where nodes are many it is the mean over random signs +-1 / sqrt(p dz): no matrices, only sums over the nodes by the layer's
engine. k of them know the standard deviation at a point to 1 / sqrt(2 k) of itself, and of means over points to less.

Several heads are sums, H <- (1 - a) H + a sum_i A_i H W_i. Behind a causal mask token s N averages over positions before s,
C g(s) = (1/s) integral_0^s g, and noise is white in position too: with E = sum_j C^(j+1) E^(j),

    E^(0) <- (1 - a) E^(0) + a dA h,    E^(j) <- (1 - a) E^(j) + a A E^(j-1),
    Var H(x, s) = (1 / (s N)) sum_ij binomial(i + j, i) mean of E^(i)(x) E^(j)(x).

(derived for this package; at one layer and small eps it is Singer 2006: slope -1/2 in N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.special import comb, gammaincc

from .. import checks, display
from ..attention import Attention, MultiHead, Softmax, Sparse
from ..attention.heads import check_columns, heads_of
from ..attention.infinite import check_same_space
from ..attention.masks import Causal, check_unmasked
from ..geometry import Density
from ..grid import Grid
from ..progress import track
from .derivative import Derivative
from .hopf import HopfGrid
from .limits import depth
from .nodes import MOST_NODES, bind_nodes, centred, derivatives_of
from .on_nodes import OnNodes

_ALONE = 1 / 3  # of a causal layer's variance, that tokens with nothing before them may carry without a warning


def predicted_noise(
    layer: Attention | MultiHead,
    density: Density,
    initial: Callable,
    t: float,
    n_tokens: int,
    max_nodes: int | None = None,
    progress: bool = False,
) -> PredictedNoise:
    """Standard deviation of the features of N random tokens after the layers that meet the time t.

    These are floor(t / time_step), and one more of a residual step that is left.

    Parameters
    ----------
    layer : Attention or MultiHead
        Of any f and any space with quadrature nodes, walls included, and of S^3. Where queries choose their keys (TopK, Sparse of a
        given temperature, Perplexity) a layer is one unit of t. The mask may be "causal", under softmax.
    density : Density
        Tokens are independent samples of it.
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation.
    n_tokens : int
        N.
    max_nodes : int, optional
        Nodes up to which the variance is summed over all of them, by a product of dense matrices (nodes, nodes) for each layer
        and column: 8 nodes^2 bytes for a handful of them, 2 nodes^3 operations. Beyond, it is a mean over random signs, good
        to `.relative_error`. None: 3000, and fewer where layers are many; 0 takes random signs always.
    progress : bool
        Show a progress bar.

    Returns
    -------
    PredictedNoise
        Callable: points (M, n) -> standard deviation (M, c); `.relative_error` of a value.

    Raises
    ------
    ValueError
        Under a mask of labels or edges, where a token's noise is that of the few that it sees; if the layer is causal, but not
        softmax; if a temperature is found from the tokens, Sparse(fraction); when the quadrature would need more than 131072
        nodes, or too many of them too often.
    NotImplementedError
        If the normalization does not know its `response` (`response_to`, on many nodes).

    Warns
    -----
    AccuracyWarning
        If the layer is causal and so deep that its noise rests on the first tokens, of which 1/N tells nothing: the leading order
        holds for two or three layers, and for more of small residuals. If nodes do not resolve p or the features.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> noise = af.predicted_noise(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.5, 1000)
    >>> noise(np.array([[0.9]])).shape, noise.relative_error
    ((1, 1), 0.0)

    The first half of the tokens of a causal layer:

    >>> causal = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05, mask="causal")
    >>> noise = af.predicted_noise(causal, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.05, 1000)
    >>> (noise(np.array([[0.9]]), position=0.5) / noise(np.array([[0.9]]))).round(6)
    array([[1.414214]])
    """
    t, n_tokens = checks.nonnegative(t, "t"), checks.integer(n_tokens, "n_tokens", least=1)
    max_nodes = None if max_nodes is None else checks.integer(max_nodes, "max_nodes")
    causal = _check_layer(layer, density)
    features = checks.evaluate(initial, density.space.probe_points(), "initial").shape[1]
    check_columns(layer, features, "initial", again=True)
    whole, rest = depth(cast(Attention, layer), t)
    steps = [layer.residual] * whole + [layer.residual * rest] * (rest > 0)

    bound, grid, mass = bind_nodes(layer, density, initial, MOST_NODES, n_tokens)
    derivatives, summed = derivatives_of(getattr(bound, "heads", (bound,)), mass, len(steps), max_nodes)

    start, size = centred(layer, checks.evaluate(initial, grid.points, "initial"), mass)
    variance, random = np.empty_like(start), np.empty_like(start)
    mixing: Sequence[np.ndarray | None] = [None]
    groups = [slice(c, c + 1) for c in range(start.shape[1])]
    if isinstance(layer, MultiHead):
        mixing = layer.mixing
        if layer.columns is not None:  # what mixing couples is done at once
            groups = [slice(None)]
    bar = track(range(len(groups) * len(steps)), progress)
    for group in groups:
        E = _influence(derivatives, mixing, start[:, group] / size[group], steps, causal, bar)
        variance[:, group] = _sum_of_squares(E)
        random[:, group] = _sum_of_squares([part[..., summed:] for part in E])
        if causal:
            alone = max(float(mass @ (head.mean_rho**2).sum(axis=1)) for head in derivatives) / n_tokens
            _warn_of_first_tokens(E, alone, len(steps))
    share = np.divide(random, variance, out=np.zeros_like(random), where=variance > 0)
    error = np.sqrt((mass @ share**2).max() / (2 * max(derivatives[0].rho.shape[1] - summed, 1)))
    return PredictedNoise(grid, variance.reshape(*grid.shape, -1) / n_tokens, size, density, causal, float(error))


@dataclass(frozen=True, eq=False)
class PredictedNoise:
    """The standard deviation as a function of points.

    Attributes
    ----------
    grid : Grid
        The nodes.
    variance : (*grid.shape, c) array
        In units of size^2.
    size : (c,) array
    density : Density
    causal : bool
    relative_error : float
        Of a value at a point, one standard error: 0 where all influences are summed, 1 / sqrt(2 k) by k random signs.
        The same signs serve all points, each time the same, so means over many points are better.
    """

    grid: Grid | HopfGrid
    variance: np.ndarray
    size: np.ndarray
    density: Density
    causal: bool
    relative_error: float

    def __repr__(self) -> str:
        return display.cut(f"PredictedNoise(points -> {len(self.size)} columns, {self.density!r})")

    def __call__(self, points: np.ndarray, position: float = 1.0) -> np.ndarray:
        """Standard deviation (M, c) at points (M, n); of token position * N of a causal layer, 0 < position <= 1.

        Points where p is below 1e-12 of its top get the noise of the nearest node where it is not.
        """
        position = checks.fraction(position, "position")
        if position != 1 and not self.causal:
            raise ValueError(f"position must be 1 where all tokens see all, got {position:g}: it is of a causal layer")
        # a sum of squares that touches zero may interpolate to just below it
        variance = np.maximum(OnNodes(self.grid, self.variance, self.density, power=1.0)(points), 0.0)
        return self.size * np.sqrt(variance / position)


def _influence(
    derivatives: Sequence[Derivative],
    mixing: Sequence[np.ndarray | None],
    h: np.ndarray,
    steps: Sequence[float],
    causal: bool,
    bar,
) -> list[np.ndarray]:
    """E^(0), E^(1), ..., each (m, c, k) for k directions, of features h (m, c): one of them without a mask."""
    nothing = np.zeros((*h.shape, derivatives[0].rho.shape[1]))
    orders = [nothing]
    for a, _ in zip(steps, bar):
        past = nothing if causal else orders[0]
        Ah, moved = np.zeros_like(h), np.zeros_like(past)
        for head, W in zip(derivatives, mixing):
            mean, change = head.step(h, past)
            Ah, moved = Ah + _mixed(mean, W), moved + _mixed(change, W)
        if causal:
            means = [sum(_mixed(head.mean(E), W) for head, W in zip(derivatives, mixing)) for E in orders]
            orders.append(nothing)
        else:
            means = []
        orders = [E + a * (new - E) for E, new in zip(orders, [moved, *means])]
        h = h + a * (Ah - h)
    return orders


def _mixed(field: np.ndarray, W: np.ndarray | None) -> np.ndarray:
    """Fields (m, c, ...) with their columns mixed."""
    if W is None or W.ndim == 0:
        return field if W is None else field * W
    return np.moveaxis(np.tensordot(field, W, (1, 0)), -1, 1)


def _sum_of_squares(orders: Sequence[np.ndarray]) -> np.ndarray:
    """sum_ij binomial(i + j, i) E^(i) E^(j), summed over the directions: (m, c)."""
    total = np.zeros(orders[0].shape[:2])
    for i, E in enumerate(orders):
        for j, other in enumerate(orders):
            total += comb(i + j, i) * np.einsum("mck,mck->mc", E, other)
    return total


def _check_layer(layer: Attention | MultiHead, density: Density) -> bool:
    """Whether the layer is causal; refused if its noise is not known."""
    heads = heads_of(layer)
    for head in heads:
        check_same_space(head, density)
        rule = head.normalization
        if not isinstance(head.mask, Causal):
            check_unmasked(head, "a predicted noise, unless it is causal")
        elif not isinstance(rule, Softmax):
            raise ValueError(
                f"normalization must be 'softmax' for the predicted noise of a causal layer, got {rule}: its key bias weighs positions"
            )
        if isinstance(rule, Sparse) and rule.fraction is not None:
            raise ValueError(
                f"fraction must be None for a predicted noise, got {rule.fraction!r}: the temperature would vary with the tokens"
            )
        if not rule.selects:
            rule.require("response", "predicted noise")
    causal = {head.mask is not None for head in heads}
    if len(causal) > 1:
        raise ValueError("layer must have heads that are all causal, or none, for a predicted noise")
    return causal.pop()


def _warn_of_first_tokens(orders: Sequence[np.ndarray], alone: float, layers: int) -> None:
    """Where most of the variance is of positions before `alone`, at which a token expects nothing around it.

    Of binomial(i + j, i) E^(i) E^(j) positions before u have the share Q(i + j + 1, -log u), Q the regularised upper gamma.
    """
    before, whole = (
        sum(
            comb(i + j, i) * share(i + j + 1) * np.vdot(E, other)
            for i, E in enumerate(orders)
            for j, other in enumerate(orders)
        )
        for share in (lambda order: gammaincc(order, max(-np.log(alone), 0.0)), lambda order: 1.0)
    )
    if before > _ALONE * whole:
        checks.warn(
            f"after {layers} causal layers {before / whole:.0%} of the predicted variance is of the first tokens, which have nothing "
            "around them: the leading order in 1/N tells little of it; take fewer layers, a smaller residual or more tokens",
            checks.AccuracyWarning,
        )
