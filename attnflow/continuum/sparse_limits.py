"""The limits of layers whose queries choose their keys, and how many they choose: what depends on the number of tokens.

One law for all (`similarity.local_moments`): with m2(x) the second moment of what a query at x sees,

    dH/dt = (m2(x) / 2) (Delta_g H + 2 <grad log p, grad H>_g),   one layer is one unit of t,

conserved weight p^2 / m2. For f = d^2 and infinite temperature (top-k), sparsemax, entmax m2 is proportional to
p^(-2/(n + 2m)), m = 0, 1, 1 / (alpha - 1); at a fixed perplexity to p^(-2/n).
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np

from .. import checks
from ..attention import Attention
from ..attention.infinite import check_same_space
from ..attention.sparse import Selective, Sparse
from ..geometry import Density, Reexpressed, Remetrised
from ..pde import DriftDiffusion
from ..similarity.local_moments import ball, entmax_log_radius

_NODES = {1: 4096, 2: 256, 3: 48}  # of integrals over a density


def sparse_limit(layer: Attention, density: Density, n_tokens: float | None) -> DriftDiffusion:
    """The equation of a `Selective` layer; the density is with respect to the volume of f.metric."""
    tokens = read_tokens(n_tokens, f"the limit of {layer.normalization}")
    rule = layer.normalization
    assert isinstance(rule, Selective)
    rule.check_size(tokens)
    epsilon = layer.epsilon
    if isinstance(rule, Sparse) and rule.fraction is not None:
        epsilon = epsilon_for_fraction(layer, density, tokens)
    return DriftDiffusion(density, 2.0, partial(_mobility, layer, density, epsilon, tokens))


def _mobility(layer: Attention, density: Density, epsilon: float, tokens: float, x: np.ndarray) -> np.ndarray:
    """m2 / 2 at points (M, n)."""
    around = np.exp(np.log(tokens) + density.log_pdf(x))
    rule = cast(Selective, layer.normalization)
    return rule.local_moment(layer.f, epsilon, density.space.dim, np.maximum(around, 1e-300)) / 2


def read_tokens(n_tokens: object, what: str = "") -> float:
    """How many tokens a density stands for; `what` cannot do without."""
    if n_tokens is None:
        raise ValueError(f"n_tokens must be given for {what}: how far a query sees depends on how many tokens there are")
    value = checks.real(n_tokens, "n_tokens")
    if value < 1:
        raise ValueError(f"n_tokens must be at least 1, got {value!r}")
    return value


def predicted_fraction(layer: Attention, density: Density, n_tokens: float) -> float:
    """The share of weights that a sparse layer's queries do not leave zero.

    For f = d^2 and sparsemax

        fraction = N^-1 (N V_n)^(2/(n+2)) ((n+2) eps)^(n/(n+2)) integral p^(1 + 2/(n+2)) dvol,

    for entmax with m = 1 / (alpha - 1) and f = d^q the integral of p^2 V_n R^n, R the radius of what a query sees. It grows
    with epsilon to the power n / (n + q m): one per cent of epsilon is that share of a per cent of the weights.

    Parameters
    ----------
    layer : Attention
        With Sparse(), whose epsilon counts, and a power of a distance.
    density : Density
    n_tokens : float
        N.

    Examples
    --------
    >>> import attnflow as af
    >>> p = af.Density(af.Circle(), lambda x: np.cos(x[..., 0]) / 2)
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), 1.0, af.Sparse())
    >>> round(af.predicted_fraction(layer, p, 2000) / af.predicted_fraction(layer, p, 16000), 6)     # N^(-1/3)
    2.0
    """
    check_same_space(layer, density)
    rule, tokens = layer.normalization, read_tokens(n_tokens, "a predicted fraction")
    if not isinstance(rule, Sparse):
        raise ValueError(f"layer must have normalization Sparse() for a predicted fraction, got {rule}")
    return float(np.exp(_log_fraction(layer, expressed(layer, density), layer.epsilon, tokens)))


def expressed(layer: Attention, density: Density) -> Density:
    """With respect to the volume of f.metric."""
    f = layer.f
    return density if f.space is not None else Reexpressed(density, Remetrised(density.space, f.metric))


def epsilon_for_fraction(layer: Attention, density: Density, tokens: float) -> float:
    """The temperature of a target fraction."""
    rule = layer.normalization
    assert isinstance(rule, Sparse)
    if not isinstance(rule.fraction, float):
        raise ValueError(f"fraction must be a number for a limit, got {rule.fraction!r}: a bound layer's stats have it")
    if layer.f.exponent is None:
        raise ValueError(
            f"f must be a power of a distance for the limit at a fraction, got {layer.f}; give epsilon in its place"
        )
    n, slope = density.space.dim, layer.f.exponent * rule.power
    at_one = _log_fraction(layer, density, 1.0, tokens)
    return float(np.exp((np.log(rule.fraction) - at_one) * (n + slope) / (n * rule.power)))


def _log_fraction(layer: Attention, density: Density, epsilon: float, tokens: float) -> float:
    if layer.f.exponent is None:
        raise ValueError(f"f must be a power of a distance for a predicted fraction, got {layer.f}")
    n, rule = density.space.dim, cast(Sparse, layer.normalization)
    grid = density.grid(_NODES[min(n, 3)])
    log_p = density.log_pdf(grid.points)
    log_R = entmax_log_radius(layer.f.exponent, epsilon, n, rule.power, np.log(tokens) + log_p)
    volume = density.space.volume_element(grid.points) * grid.weights
    return float(np.log(volume @ np.exp(2 * log_p + n * log_R)) + ball(n))
