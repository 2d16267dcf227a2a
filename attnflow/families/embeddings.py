"""Who is near whom: the similarities behind diffusion maps, neighbour embeddings and nearest neighbours."""

from __future__ import annotations

import numpy as np

from .. import checks
from .calibration import calibrated, log_perplexity, log_sum
from .distances import by_distance, doubled, nearest_ties, negative_squares, others, scaled
from .matrices import exponential, less_largest, overall, rows, two_sided

_OWN = 1 - 1e-6  # weight of a token that attends only to itself


def diffusion_map(tokens: np.ndarray, epsilon: float) -> np.ndarray:
    """Exponential, two-sided, rows: the operator of a diffusion map with alpha = 1.

    Parameters
    ----------
    tokens : (N, n) array
    epsilon : float
        Temperature, in squared units of the tokens, positive: similarity exp(-|x_i - x_j|^2 / (2 epsilon)).

    Returns
    -------
    (N, N) array
        Rows sum to one. `Attention` with `DensityCorrected(1)` is the same, streamed.

    Raises
    ------
    ValueError
        If the tokens are too many for a dense matrix, or epsilon is not positive.

    Warns
    -----
    IsolatedTokensWarning
        If a token attends only to itself.

    References
    ----------
    Coifman & Lafon 2006.

    Examples
    --------
    >>> diffusion_map([[0.0], [1.0], [2.0]], epsilon=0.5).round(3)
    array([[0.762, 0.224, 0.014],
           [0.24 , 0.52 , 0.24 ],
           [0.014, 0.224, 0.762]])
    """
    x, unit = scaled(tokens)
    weights = rows(two_sided(exponential(negative_squares(x, x), doubled(epsilon, unit))))
    if len(x) > 1 and (alone := np.diagonal(weights) > _OWN).any():
        checks.warn(
            f"{alone.sum()} of {len(x)} tokens attend only to themselves: epsilon = {epsilon:g} is below their spacing",
            checks.IsolatedTokensWarning,
        )
    return weights


def laplacian_eigenmap(tokens: np.ndarray, epsilon: float) -> np.ndarray:
    """Exponential of others, rows: the walk whose eigenvectors are Laplacian eigenmaps.

    Parameters
    ----------
    tokens : (N, n) array
        At least two.
    epsilon : float
        Temperature, in squared units of the tokens, positive: similarity exp(-|x_i - x_j|^2 / (2 epsilon)), 0 with itself.

    Returns
    -------
    (N, N) array
        W: rows sum to one, the diagonal is 0; 1 - W is the random-walk Laplacian. A token far from all others attends to
        the nearest of them.

    Raises
    ------
    ValueError
        If the tokens are fewer than two, or too many for a dense matrix, or epsilon is not positive.

    References
    ----------
    Belkin & Niyogi 2003.

    Examples
    --------
    >>> laplacian_eigenmap([[0.0], [1.0], [2.0]], epsilon=0.5).round(3)
    array([[0.   , 0.953, 0.047],
           [0.5  , 0.   , 0.5  ],
           [0.047, 0.953, 0.   ]])
    """
    x, unit = scaled(tokens, least=2)
    return rows(exponential(less_largest(others(negative_squares(x, x))), doubled(epsilon, unit)))


def sne(tokens: np.ndarray, perplexity: float) -> np.ndarray:
    """Exponential of others with sigma_i calibrated to a perplexity, rows: the weights of stochastic neighbour embedding.

    Parameters
    ----------
    tokens : (N, n) array
        At least three.
    perplexity : float
        exp(entropy) of every row's weights exp(-|x_i - x_j|^2 / sigma_i), j other than i; between 1 and N - 1.

    Returns
    -------
    (N, N) array
        Rows sum to one, the diagonal is 0.

    Raises
    ------
    ValueError
        If no sigma_i reaches the perplexity: a token with k nearest others at one distance attends to k at least.

    References
    ----------
    Hinton & Roweis 2002.

    Examples
    --------
    >>> weights = sne([[0.0], [1.0], [3.0], [6.0]], perplexity=2.0)
    >>> weights.round(3)
    array([[0.   , 0.684, 0.298, 0.018],
           [0.632, 0.   , 0.361, 0.007],
           [0.114, 0.773, 0.   , 0.114],
           [0.065, 0.177, 0.759, 0.   ]])
    """
    x, _ = scaled(tokens, least=3)
    perplexity = checks.real(perplexity, "perplexity")
    if not 1 < perplexity < len(x) - 1:
        raise ValueError(f"perplexity must be between 1 and the number of other tokens {len(x) - 1}, got {perplexity!r}")
    M = others(negative_squares(x, x))
    M = np.where(nearest_ties(np.sqrt(-M), x), 0.0, less_largest(M))
    ties = (M == 0).sum(axis=1)
    if ties.max() > perplexity:
        raise ValueError(
            f"perplexity must be at least {ties.max()}, the number of others nearest to token {ties.argmax()}, which are "
            f"equally far or coincide, got {perplexity!r}"
        )
    return rows(exponential(M, calibrated(-M, perplexity, log_perplexity)))


def tsne(tokens: np.ndarray, perplexity: float) -> np.ndarray:
    """P of t-SNE: the weights of `sne`, made symmetric and over all.

    Parameters and errors are those of `sne`.

    Returns
    -------
    (N, N) array
        P_ij = (S_ij + S_ji) / (2 N), symmetric, with sum one.

    References
    ----------
    Van der Maaten & Hinton 2008.

    Examples
    --------
    >>> P = tsne([[0.0], [1.0], [3.0], [6.0]], perplexity=2.0)
    >>> bool((P == P.T).all()), round(float(P.sum()), 12)
    (True, 1.0)
    """
    weights = sne(tokens, perplexity)
    return (weights + weights.T) / (2 * len(weights))


def student(embedding: np.ndarray) -> np.ndarray:
    """Q of t-SNE: 1 / (1 + |y_i - y_j|^2) of others, over all.

    Parameters
    ----------
    embedding : (N, n) array
        At least two points y, in the unit of length that the 1 gives them.

    Returns
    -------
    (N, N) array
        Symmetric, with sum one, the diagonal 0.

    Raises
    ------
    ValueError
        If the points are fewer than two, or too many for a dense matrix.

    References
    ----------
    Van der Maaten & Hinton 2008.

    Examples
    --------
    >>> student([[0.0], [1.0], [2.0]]).round(4)
    array([[0.    , 0.2083, 0.0833],
           [0.2083, 0.    , 0.2083],
           [0.0833, 0.2083, 0.    ]])
    """
    y, unit = scaled(embedding, "embedding", least=2)
    with np.errstate(divide="ignore"):
        log_square = np.log(-negative_squares(y, y)) + 2 * np.log(unit)
    M = others(-np.logaddexp(0, log_square))
    return overall(exponential(M - M.max(), 1.0))


def umap(tokens: np.ndarray, neighbors: int) -> np.ndarray:
    """Exponential of the nearest others with sigma_i calibrated to their number, then the fuzzy union: UMAP's graph.

    Parameters
    ----------
    tokens : (N, n) array
        At least two.
    neighbors : int
        k, from 2 to N. A token is its own first neighbour; of others at the very same distance, the first are taken.

    Returns
    -------
    (N, N) array
        a_ij + a_ji - a_ij a_ji, symmetric, at most 1, the diagonal 0. a_ij = exp(-(d_ij - rho_i) / sigma_i) for the
        k - 1 nearest others, rho_i the distance to the nearest (0 where tokens coincide), with row sums log2(k).

    Raises
    ------
    ValueError
        If neighbors is not from 2 to N, or the tokens are too many for a dense matrix.

    Warns
    -----
    AccuracyWarning
        If a token has more than log2(k) nearest others at one distance: these weigh 1, more than that in sum, and the
        others nothing.

    References
    ----------
    McInnes, Healy & Melville 2018.

    Examples
    --------
    >>> umap([[0.0], [1.0], [3.0], [6.0]], neighbors=3).round(3)
    array([[0.   , 1.   , 0.828, 0.   ],
           [1.   , 0.   , 1.   , 0.585],
           [0.828, 1.   , 0.   , 1.   ],
           [0.   , 0.585, 1.   , 0.   ]])
    """
    x, _ = scaled(tokens, least=2)
    k = _neighbours(neighbors, "neighbors", 2, len(x))
    M = negative_squares(x, x)
    near = by_distance(M)[:, 1:k]
    d = np.sqrt(-np.take_along_axis(M, near, axis=1))
    towards = np.where(nearest_ties(d, x), 0.0, less_largest(-d))
    a = np.zeros_like(M)
    np.put_along_axis(a, near, exponential(towards, calibrated(-towards, np.log2(k), log_sum)), axis=1)
    return a + a.T - a * a.T


def nearest(tokens: np.ndarray, k: int) -> np.ndarray:
    """Indicator of the k nearest, rows: the average over nearest neighbours.

    Parameters
    ----------
    tokens : (N, n) array
    k : int
        From 1 to N. A token is its own first neighbour; of others at the very same distance, the first are taken.

    Returns
    -------
    (N, N) array
        1/k where j is among the k nearest of i, 0 elsewhere.

    Raises
    ------
    ValueError
        If k is not from 1 to N, or the tokens are too many for a dense matrix.

    References
    ----------
    Stone 1977.

    Examples
    --------
    >>> nearest([[0.0], [1.0], [3.0]], k=2)
    array([[0.5, 0.5, 0. ],
           [0.5, 0.5, 0. ],
           [0. , 0.5, 0.5]])
    """
    x, _ = scaled(tokens)
    M = np.zeros((len(x), len(x)))
    near = by_distance(negative_squares(x, x))[:, : _neighbours(k, "k", 1, len(x))]
    np.put_along_axis(M, near, 1.0, axis=1)
    return rows(M)


def _neighbours(value: int, name: str, least: int, most: int) -> int:
    value = checks.integer(value, name, least)
    if value > most:
        raise ValueError(f"{name} must be at most the number of tokens {most}, got {value}")
    return value
