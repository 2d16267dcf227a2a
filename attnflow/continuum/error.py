"""How wrong a layer's tokens will be, before any run: the number that `compare` prints, and what it is made of.

At a token, features of N random tokens miss the equation's h by bias + mean + noise: the infinite-token layers' own error at
this temperature, what few tokens do on average, of order 1/N, and what scatters. Over token sets,

    relative^2 = E sum_i |H_i - h(x_i)|^2 / E sum_i |h(x_i)|^2
               = integral p (|bias + mean|^2 + noise^2) dvol / integral p |h|^2 dvol,

the variance to the next order in 1/N after the leading one, as `next_order` derives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from .. import checks, display
from ..attention import Attention, MultiHead, heads_of
from ..attention.infinite import TooManyNodes
from ..attention.masks import check_unmasked
from ..attention.names import name_of
from ..attention.sparse import Screening
from ..geometry import Density
from ..grid import Grid
from ..norms import norm
from ..solution import Solution
from .bias import predicted_bias
from .hopf import HopfGrid
from .infinite import Difference, finished, infinite_layers
from .limits import limit
from .next_order import FEWEST, NextOrder, effective_tokens, next_order, seen_mass, share_below, smallest
from .nodes import exact
from .noise import PredictedNoise, predicted_noise
from .on_nodes import OnNodes

_LEADING = 0.02  # of the error, that the next order changes where it is left out of the regime's name
_SHARE = 0.01  # of the tokens, that may average over fewer
_MOST = 0.5  # of the leading variance, that the next order may be before the series tells little
_LEAST = 0.5  # of the leading variance, that is left of it in any case
_MANY = 500.0  # tokens a query averages over, from which a mean that is not known does not matter


@dataclass(frozen=True, repr=False)
class PredictedError:
    """An error that is predicted, and its parts.

    Attributes
    ----------
    relative : float
        Root mean square over token sets of the p-weighted relative L2 error at the tokens, as `compare` measures it.
    bias, noise, mean : callable
        Points (M, n) -> (M, c), at a token there: signed bias, standard deviation, signed mean of order 1/N beside the bias.
        The noise is the leading order's, times a factor that brings its mean square over p to the next order. The mean is
        nan where it is not predicted: without dense matrices, and for normalisations that do not know their
        `response_series`; the noise is then the leading order's.
    bias_share, noise_share, mean_share : float
        Their relative L2 norms: relative^2 = |bias + mean|^2 + noise^2. Bias and mean may cancel.
    n_eff : float
        N p (4 pi m2)^(n/2), how many tokens a query averages over, in the metric of f: the value below which one token of N
        is expected.
    regime : str
        "leading order" where the next one changes `relative` by less than 2 %; "next order" where it does not; "outside"
        where more than a hundredth of the tokens average over fewer than 10, the next order of the variance is more than
        half the leading one, or a mean that is not predicted may matter (more than a hundredth average over fewer than 500): tokens are then too few for the temperature to predict their error.
    """

    relative: float
    bias: Callable[[np.ndarray], np.ndarray]
    noise: Callable[[np.ndarray], np.ndarray]
    mean: Callable[[np.ndarray], np.ndarray]
    bias_share: float
    noise_share: float
    mean_share: float
    n_eff: float
    regime: str

    def __repr__(self) -> str:
        parts = f"bias {self.bias_share:.3g}, noise {self.noise_share:.3g}, mean {self.mean_share:.3g}"
        return f"PredictedError({self.relative:.3g}: {parts}; N_eff >= {self.n_eff:.3g}, {self.regime})"

    def _repr_html_(self) -> str:
        parts = {"relative error": self.relative, "bias": self.bias_share, "noise": self.noise_share, "mean": self.mean_share}
        rows = [(name, f"{value:.3g}") for name, value in parts.items()]
        return display.table("PredictedError", [*rows, ("N_eff at least", f"{self.n_eff:.3g}"), ("regime", self.regime)])


def predicted_error(
    layer: Attention | MultiHead,
    density: Density,
    initial: Callable,
    t: float,
    n_tokens: float = np.inf,
    progress: bool = False,
) -> PredictedError:
    """The error of N random tokens against the limit equation at time t, before any run.

    Of floor(t / time_step) layers, and one more of a residual step that is left.

    Parameters
    ----------
    layer : Attention or MultiHead
        The mean, and the next order of the noise, are predicted for one head with a key bias; a mask is refused.
    density : Density
        Tokens are independent samples of it.
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation.
    n_tokens : int or inf
        N; infinitely many tokens have the bias alone.
    progress : bool
        Show a progress bar: in the plane it takes some seconds.

    Returns
    -------
    PredictedError

    Raises
    ------
    ValueError
        If n_tokens is less than 2, the density lives on another space, nothing of initial is left at t to compare with, or
        the layer has a mask; where `limit` or `predicted_noise` refuses.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> error = af.predicted_error(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5, n_tokens=2000)
    >>> error
    PredictedError(0.0406: bias 0.00672, noise 0.0384, mean 0.00946; N_eff >= 73.3, next order)
    """
    t, n_tokens = checks.positive(t, "t"), read_tokens(n_tokens)
    for head in heads_of(layer):
        check_unmasked(head, "a predicted error")
        if isinstance(head.normalization, Screening):
            raise NotImplementedError(
                f"normalization must let all tokens be keys for a predicted error, got {name_of(head.normalization)!r}, whose "
                "equation lives where those that are kept are"
            )
    chosen = n_tokens if any(head.normalization.selects for head in heads_of(layer)) else None
    equation = finished(limit(layer, density, chosen).solve(initial, t))
    bias, grid = _bias(layer, density, initial, t, equation, chosen)
    if np.isinf(n_tokens):
        share = _Nodes.of(grid, density, equation).share(bias(grid.points))
        none = OnNodes(grid, np.zeros((*grid.shape, equation.y.shape[-1])), density)
        return PredictedError(share, bias, none, none, share, 0.0, 0.0, np.inf, "leading order")
    found = next_order(layer, density, initial, t, n_tokens, progress)
    grid = grid if found is None else found.grid
    effective = effective_tokens(layer, density, grid.points, n_tokens)
    nodes = _Nodes.of(grid, density, equation, effective, n_tokens)
    if found is None:
        return _leading_order(nodes, bias, predicted_noise(layer, density, initial, t, int(n_tokens)))
    return _next_order(nodes, bias, found, density, n_tokens)


def read_tokens(n_tokens: float) -> float:
    """A number of tokens: an integer from 2 on, or inf."""
    if isinstance(n_tokens, float) and np.isposinf(n_tokens):
        return np.inf
    return checks.integer(n_tokens, "n_tokens", least=2)


def _bias(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, equation: Solution, chosen: float | None
) -> tuple[Callable[[np.ndarray], np.ndarray], Grid | HopfGrid]:
    """The bias of the infinite-token layers themselves, or where they would need too many nodes its first order in eps;
    and nodes that resolve it."""
    assert equation.grid is not None
    try:
        infinite = finished(infinite_layers(exact(layer), density, initial, t, n_tokens=chosen))
    except TooManyNodes:
        return predicted_bias(cast(Attention, layer), density, initial, t, chosen), equation.grid
    assert infinite.grid is not None
    return Difference(infinite, equation), infinite.grid


class _Nodes(NamedTuple):
    """Where errors are averaged: nodes, their share of the tokens (m,), and the size of the solution there.

    Of N_eff the least, and the shares of tokens at which it is below `FEWEST` and below `_MANY`.
    """

    points: np.ndarray
    weights: np.ndarray
    scale: float
    least: float = np.inf
    few: float = 0.0
    some: float = 0.0

    @classmethod
    def of(
        cls,
        grid: Grid | HopfGrid,
        density: Density,
        equation: Solution,
        effective: np.ndarray | None = None,
        n_tokens: float = np.inf,
    ) -> _Nodes:
        """All nodes, or where N tokens are, see `seen_mass`, by their N_eff (m,)."""
        mass = density.pdf(grid.points) * density.space.volume_element(grid.points) * grid.weights
        of_tokens: tuple[float, ...] = ()
        weights = mass / mass.sum()
        if effective is not None:
            weights = seen_mass(effective, mass, n_tokens)
            of_tokens = smallest(effective, mass, n_tokens), *(share_below(n, effective, mass) for n in (FEWEST, _MANY))
        scale = norm(weights, equation.at(grid.points))
        if not scale > 0:
            raise ValueError("t must leave something of initial to compare with: the solution is 0 there")
        return cls(grid.points, weights, scale, *of_tokens)

    def share(self, field: np.ndarray) -> float:
        """The relative L2 norm of a field (m, c)."""
        return norm(self.weights, field) / self.scale


def _leading_order(nodes: _Nodes, bias: Callable, noise: Callable) -> PredictedError:
    """Without a mean, which is then small for certain only where tokens are many."""
    of_bias, of_noise = nodes.share(bias(nodes.points)), nodes.share(noise(nodes.points))
    regime = "leading order" if nodes.some <= _SHARE else "outside"
    return PredictedError(
        float(np.hypot(of_bias, of_noise)), bias, noise, _Unknown(noise), of_bias, of_noise, np.nan, nodes.least, regime
    )


def _next_order(nodes: _Nodes, bias: Callable, found: NextOrder, density: Density, n_tokens: float) -> PredictedError:
    mean, variance = (found.mean + found.own) * (found.size / n_tokens), found.variance / n_tokens
    share = (found.size / nodes.scale) ** 2  # of a column in units of its size
    leading, second = share * (nodes.weights @ variance), share * found.second / n_tokens**2
    factor = np.maximum(1 + np.divide(second, leading, out=np.zeros_like(second), where=leading > 0), _LEAST)
    of_bias, of_mean = nodes.share(field := bias(nodes.points)), nodes.share(mean)
    of_noise = float(np.sqrt(np.sum(factor * leading)))
    relative = float(np.hypot(nodes.share(field + mean), of_noise))
    first = float(np.hypot(of_bias, np.sqrt(leading.sum())))
    if nodes.few > _SHARE or abs(second.sum()) > _MOST * leading.sum():
        regime = "outside"
    else:
        regime = "leading order" if abs(relative - first) < _LEADING * first else "next order"
    return PredictedError(
        relative,
        bias,
        PredictedNoise(found.grid, (variance * factor).reshape(*found.grid.shape, -1), found.size, density, False, 0.0),
        OnNodes(found.grid, mean.reshape(*found.grid.shape, -1), density, power=1.0),
        of_bias,
        of_noise,
        of_mean,
        nodes.least,
        regime,
    )


@dataclass(frozen=True, eq=False)
class _Unknown:
    """Nan for every column that another prediction has."""

    other: Callable[[np.ndarray], np.ndarray]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return np.full_like(self.other(points), np.nan)
