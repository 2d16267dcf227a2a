"""How many tokens a token attends to, and the temperature at which it attends to a given number."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from .. import checks
from ..kernels import attend
from ..similarity import PseudoMetric
from .layer import BoundLayer

_SAMPLE = 1000  # rows that stand for all


def perplexity(bound: BoundLayer) -> np.ndarray:
    """exp(entropy) of the attention weights of (at most 1000 of) the tokens' rows: (rows,).

    The entropy of weights exp(-beta f + b) / Z is log Z + beta E[f] - E[b], and E[f] = -d log Z / d beta,
    so one row costs three log-sum-exp passes and no N x N array.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Uniform(af.Circle()).sample(500, rng=0)
    >>> bound = af.Attention(af.SquaredDistance(af.Circle()), 0.1).bind(tokens)
    >>> expected = 500 / (2 * np.pi) * np.sqrt(2 * np.pi * np.e * 0.1)     # N p sqrt(2 pi e eps)
    >>> bool(abs(np.median(perplexity(bound)) / expected - 1) < 0.05)
    True
    """
    checks.instance(bound, BoundLayer, "bound", "a layer bound to its tokens, as Attention.bind returns")
    layer, bias = bound.layer, bound.key_bias
    queries = _some(bound.tokens)
    mean_bias, log_z = attend(
        layer.f, layer.epsilon, queries, bound.tokens, bias[:, None], bias, layer.backend, layer.dtype
    )
    entropy = log_z - mean_bias[:, 0] + _energy(layer.f, layer.epsilon, queries, bound.tokens, bias, layer.backend)
    return np.exp(entropy)


def epsilon_for_perplexity(f: PseudoMetric, tokens: np.ndarray, target: float = 30.0) -> float:
    """The temperature at which the median token attends to `target` others (softmax rows).

    Parameters
    ----------
    f : PseudoMetric
    tokens : (N, n) array
    target : float
        Perplexity, between 1 and N; 30 is the habit of t-SNE.

    Returns
    -------
    float
        epsilon, to a relative 1e-3.

    Raises
    ------
    ValueError
        If no temperature reaches the target: many tokens coincide, or target >= N.
    """
    if not isinstance(f, PseudoMetric):
        raise TypeError(f"f must be a pseudo-metric such as SquaredDistance(space), got {type(f).__name__}")
    tokens = f.check(tokens, "tokens")
    target = checks.real(target, "target")
    if not 1 < target < len(tokens):
        raise ValueError(f"target must be between 1 and the number of tokens {len(tokens)}, got {target}")
    queries, zero = _some(tokens), np.zeros(len(tokens))

    def excess(log_epsilon: float) -> float:
        epsilon = float(np.exp(log_epsilon))
        _, log_z = attend(f, epsilon, queries, tokens, None, zero)
        return float(np.median(log_z + _energy(f, epsilon, queries, tokens, zero, "auto"))) - np.log(target)

    some = f.evaluate(f.query_features(queries[:100]), f.key_features(tokens[:1000]))
    spread = float(np.median(np.abs(some - some.min())))
    if spread == 0:
        raise ValueError("tokens must differ for a perplexity to choose epsilon: most of their f are equal")
    scale = float(np.log(spread))
    low, high = scale, scale
    for _ in range(60):
        if excess(low) > 0:
            low -= 1.0
        elif excess(high) < 0:
            high += 1.0
        else:
            return float(np.exp(brentq(excess, low, high, xtol=1e-3))) if high > low else float(np.exp(low))
    raise ValueError(f"target must be a perplexity that some epsilon reaches, got {target}; do many tokens coincide?")


def _some(tokens: np.ndarray) -> np.ndarray:
    return tokens[np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), _SAMPLE)).astype(int))]


def _energy(f, epsilon: float, queries, keys, bias, engine: str, step: float = 1e-4) -> np.ndarray:
    """beta E[f] per row, beta = 1 / (2 eps), from a central difference of log Z in log beta (error step^2)."""
    lower, upper = (
        attend(f, epsilon / (1 + s), queries, keys, None, bias, engine).log_sum_exp for s in (-step, step)
    )
    return -(upper - lower) / (2 * step)
