"""How many tokens a token attends to, and the temperature at which it attends to a given number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import entr

from .. import checks
from ..kernels.rules import nothing_to_see
from ..kernels.scaling import rescale
from ..similarity import PseudoMetric
from .bound import BoundLayer
from .selected import SelectedLayer

_SAMPLE, _FEWEST = 1000, 32  # rows that stand for all
_DENSE = 2**25  # weights at a time of layers that choose their keys
_PAIRS, _KEPT = 2**20, 2**23  # of which f is computed at once; that are kept while a temperature is sought


def perplexity(bound: BoundLayer) -> np.ndarray:
    """exp(entropy) of the attention weights of (at most 1000 of) the tokens' rows: (rows,).

    Rows are computed densely, some at a time, from f less its smallest value in the row: a constant changes nothing.

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
    rows = _some(len(bound.tokens), _SAMPLE)
    if isinstance(bound, SelectedLayer):
        step = max(1, _DENSE // len(bound.tokens))
        return np.exp(np.concatenate([_of_weights(bound, rows[k : k + step]) for k in range(0, len(rows), step)]))
    f, epsilon = rescale(bound.layer.f, bound.layer.epsilon, None, bound.tokens)
    entropies, first = [], 0
    for f_values in _rows(f, bound.tokens[rows], bound.tokens):
        if bound.mask is not None:
            f_values = np.where(bound.mask.dense(rows[first : first + len(f_values)]), f_values, np.inf)
        entropies.append(_entropy(f_values, epsilon, bound.key_bias))
        first += len(f_values)
    return np.exp(np.concatenate(entropies))


def epsilon_for_perplexity(f: PseudoMetric, tokens: np.ndarray, target: float = 30.0) -> float:
    """The temperature at which the median token attends to `target` others (softmax rows).

    Parameters
    ----------
    f : PseudoMetric
    tokens : (N, n) array
    target : float
        Perplexity, between 1 and N; 30 is the habit of t-SNE. The median is over at most 1000 tokens.

    Returns
    -------
    float
        epsilon, to a relative 1e-3.

    Raises
    ------
    ValueError
        If no temperature reaches the target: many tokens coincide or see few others, or target >= N.
    """
    if not isinstance(f, PseudoMetric):
        raise TypeError(f"f must be a pseudo-metric such as SquaredDistance(space), got {type(f).__name__}")
    tokens = f.check(tokens, "tokens")
    target = checks.real(target, "target")
    if not 1 < target < len(tokens):
        raise ValueError(f"target must be between 1 and the number of tokens {len(tokens)}, got {target}")
    queries = tokens[_some(len(tokens), min(_SAMPLE, max(_FEWEST, _KEPT // len(tokens))))]
    with np.errstate(over="ignore"):
        above = np.concatenate([rows - _least(rows)[:, None] for rows in _rows(f, queries, tokens)])
    some = above[(above > 0) & (above < np.inf)]
    if some.size == 0 and (tokens != tokens[0]).any():
        raise ValueError("tokens must lie where f neither overflows nor vanishes between different ones; rescale them")
    if some.size == 0:
        raise ValueError("tokens must differ for a perplexity to choose epsilon: no two values of f in a row do")

    def excess(log_epsilon: float) -> float:
        return float(np.median(_entropy(above, float(np.exp(log_epsilon)), 0.0))) - np.log(target)

    # from where all but the nearest weigh nothing to where all weigh the same, as far as numbers go
    low, high = max(np.log(some.min()) - 8, -744.0), min(np.log(some.max()) + 40, 709.0)
    least, most = excess(low), excess(high)
    if least > 0 or most < 0:
        raise ValueError(
            f"target must be a perplexity that some epsilon reaches, here {target * np.exp(least):.6g} to "
            f"{target * np.exp(most):.6g}, got {target:.6g}; do many tokens coincide, or see few others?"
        )
    return float(np.exp(brentq(excess, low, high, xtol=1e-4)))


def _of_weights(bound: SelectedLayer, rows: np.ndarray) -> np.ndarray:
    weights = bound.weights(bound.tokens[rows]) if bound.mask is None else bound.weights(None, rows)
    return entr(weights).sum(axis=1)


def _some(size: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, min(size, count)).astype(int))


def _rows(f: PseudoMetric, queries: np.ndarray, keys: np.ndarray) -> Iterator[np.ndarray]:
    """f of some queries at a time with all keys."""
    u, v, step = f.query_features(queries), f.key_features(keys), max(1, _PAIRS // len(keys))
    return (f.evaluate(u[first : first + step], v, (first, 0)) for first in range(0, len(u), step))


def _least(f_values: np.ndarray) -> np.ndarray:
    least = f_values.min(axis=1)
    if least.max() == np.inf:
        raise nothing_to_see(int(least.argmax()))
    return least


def _entropy(f_values: np.ndarray, epsilon: float, bias: np.ndarray | float) -> np.ndarray:
    """Of every row's weights: log Z + E[g] with g >= 0 the exponents less the smallest of the row."""
    with np.errstate(over="ignore"):
        g = (f_values - _least(f_values)[:, None]) / 2 / epsilon - bias
    g -= g.min(axis=1, keepdims=True)
    weights = np.exp(-g)
    total = weights.sum(axis=1)
    g[weights == 0] = 0
    return np.log(total) + (weights * g).sum(axis=1) / total
