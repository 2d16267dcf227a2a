"""Families that iterate until they stay, and the clusters that this leaves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from .. import checks, display, norms
from .distances import doubled, negative_squares
from .matrices import exponential, inflate, less_largest, positive_sums, refuse_large, rows, square

_MOST = 10_000  # steps
_STILL = 1e-12  # the last step: at rates up to 0.999, all that so many steps can follow, 1e-9 is then left to move
_ROUNDING = 1e-14  # a step that is none, in units of the extent
_SETTLED = 1e-9  # change of a matrix, which settles faster than at any rate
_JOINED = 0.01  # distance of modes that are one, in units of sqrt(epsilon)


class FuzzyCMeans(NamedTuple):
    """Where the centres end, `centres` (C, n) = `weights` @ tokens, and `weights` (C, N), whose rows sum to one."""

    centres: np.ndarray
    weights: np.ndarray

    def __repr__(self) -> str:
        return display.of_fields(self)


class MarkovClustering(NamedTuple):
    """The matrix (N, N) that stays, rows summing to one, and the cluster (N,) of each token, 0, 1, ... by first token."""

    matrix: np.ndarray
    labels: np.ndarray

    def __repr__(self) -> str:
        return display.of_fields(self)


class MeanShift(NamedTuple):
    """Where each token ends, `modes` (N, n), and which of the different modes that is, (N,), 0, 1, ... by first token."""

    modes: np.ndarray
    labels: np.ndarray

    def __repr__(self) -> str:
        return display.of_fields(self)


def fuzzy_c_means(tokens: np.ndarray, centres: np.ndarray, m: float = 2.0) -> FuzzyCMeans:
    """Centres that are weighted means of tokens, weighted by how much nearer they are than other centres.

    Memberships u = columns of d^(-2/(m - 1)), weights rows of u^m, centres <- weights @ tokens, all in logarithms; until
    what is left to move is below 1e-9 of the tokens' extent. As m -> 1 it is k-means.

    Parameters
    ----------
    tokens : (N, n) array
    centres : (C, n) array
        Where the centres start.
    m : float
        Fuzziness, above 1.

    Returns
    -------
    FuzzyCMeans
        A token on a centre belongs to it, on several to them in equal parts.

    Raises
    ------
    ValueError
        If m is not above 1, shapes do not fit, or every token lies on other centres than one that is then without any.

    Warns
    -----
    ConvergenceWarning
        After 10 000 steps.

    References
    ----------
    Bezdek 1981.

    Examples
    --------
    >>> found = fuzzy_c_means([[0.0], [1.0], [9.0], [10.0]], centres=[[0.0], [1.0]], m=1.001)
    >>> found.centres
    array([[0.5], [9.5]])
    >>> found.weights.round(3)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    tokens = checks.points(tokens, "tokens").astype(float, copy=False)
    given = checks.points(centres, "centres", columns=tokens.shape[1]).astype(float, copy=False)
    m = checks.real(m, "m")
    if m <= 1:
        raise ValueError(f"m must be above 1, got {m!r}")
    refuse_large(len(tokens), len(given), "centres")
    x, c, origin, unit = _about_first(tokens, given)
    extent = np.linalg.norm(x, axis=1).max()
    for _ in range(_MOST):
        weights = rows(exponential(less_largest(m * _log_memberships(c, x, m)), 1.0))
        moved, c = c, weights @ x
        change = np.linalg.norm(c - moved, axis=1).max()
        if change <= _STILL * extent:
            break
    else:
        _warn(f"centres still move by {change / extent:.1g} of the tokens' extent")
    return FuzzyCMeans((c + origin) * unit, weights)


def _log_memberships(c: np.ndarray, x: np.ndarray, m: float) -> np.ndarray:
    """log(C u) with the memberships u = columns of d^(-2 / (m - 1)), (C, N): near 0, and exact there, where m is large."""
    with np.errstate(divide="ignore"):
        closeness = -2 * np.log(cdist(c, x))
    on = np.isposinf(closeness)
    closeness = np.where(on.any(axis=0), np.where(on, 0.0, -np.inf), closeness)
    logarithm = (closeness - closeness.max(axis=0)) / (m - 1)
    with np.errstate(under="ignore"):
        logarithm = logarithm - np.log1p(np.expm1(logarithm).mean(axis=0))
    if (lost := np.isneginf(logarithm).all(axis=1)).any():
        raise ValueError(
            f"centres must each have a part in some token, got none for centre {lost.argmax()}: every token lies on another"
        )
    return logarithm


def markov_clustering(matrix: np.ndarray, inflation: float = 2.0) -> MarkovClustering:
    """Random walks that are squared and inflated until they stay inside clusters: M <- rows(inflate(M M, inflation)).

    Parameters
    ----------
    matrix : (N, N) array
        Similarities or edges, none negative; its rows are normalised first, no loops are added.
    inflation : float
        Positive; larger makes more clusters, up to 1 none are made but those that nothing connects.

    Returns
    -------
    MarkovClustering
        Each token is in the cluster of the one that it gives most weight in the end, the first of equals.

    Raises
    ------
    ValueError
        If the matrix is not square, has a negative entry or a row of zeros.

    Warns
    -----
    ConvergenceWarning
        After 10 000 steps, as where walks go round in circles of odd length.

    References
    ----------
    Van Dongen 2000.

    Examples
    --------
    Two triangles and an edge between them:

    >>> edges = np.zeros((6, 6))
    >>> edges[[0, 0, 1, 3, 3, 4, 2], [1, 2, 2, 4, 5, 5, 3]] = 1
    >>> markov_clustering(edges + edges.T + np.eye(6), inflation=2.0).labels
    array([0, 0, 0, 1, 1, 1])
    """
    M = square(matrix, "matrix")
    positive_sums(M, "matrix")
    inflation = checks.positive(inflation, "inflation")
    M = rows(M)
    for _ in range(_MOST):
        squared = M @ M
        before, M = M, rows(inflate(squared / squared.max(axis=1, keepdims=True), inflation))
        change = np.abs(M - before).max()
        if change <= _SETTLED:
            break
    else:
        _warn(f"weights still change by {change:.1g}")
    favourite = np.round(M, 9).argmax(axis=1)  # equals of an attractor system are equal but for rounding
    links = csr_array((np.ones(len(M)), (np.arange(len(M)), favourite)), shape=M.shape)
    return MarkovClustering(M, _in_order(connected_components(links, connection="weak")[1]))


def mean_shift(tokens: np.ndarray, epsilon: float) -> MeanShift:
    """Where tokens end that go to the mean of tokens about them, rows of the exponential, again and again.

    x <- sum_j w_j(x) x_j, w_j proportional to exp(-|x - x_j|^2 / (2 epsilon)): uphill to a mode of the Gaussian density
    estimate, until what is left to go is below 1e-9 sqrt(epsilon), or lost in rounding. A token from where
    there is no way up, a saddle by symmetry, stays.

    Parameters
    ----------
    tokens : (N, n) array
        They themselves do not move.
    epsilon : float
        Temperature, in squared units of the tokens, positive.

    Returns
    -------
    MeanShift
        Ends nearer than sqrt(epsilon)/100 are one mode.

    Raises
    ------
    ValueError
        If the tokens are too many for a dense matrix, or epsilon is not positive.

    Warns
    -----
    ConvergenceWarning
        After 10 000 steps.

    References
    ----------
    Fukunaga & Hostetler 1975; Cheng 1995.

    Examples
    --------
    >>> found = mean_shift([[0.0], [0.1], [5.0]], epsilon=0.5)
    >>> found.modes.round(6).ravel(), found.labels
    (array([0.05, 0.05, 5.  ]), array([0, 0, 1]))
    """
    tokens = checks.points(tokens, "tokens").astype(float, copy=False)
    refuse_large(len(tokens), len(tokens), "tokens")
    x, _, origin, unit = _about_first(tokens, tokens)
    sigma = doubled(epsilon, unit)
    width = np.sqrt(sigma / 2)
    still = max(_STILL * width, _ROUNDING * np.linalg.norm(x, axis=1).max())
    modes, going = x.copy(), np.arange(len(x))
    for _ in range(_MOST):
        ends = rows(exponential(less_largest(negative_squares(modes[going], x)), sigma)) @ x
        change = np.linalg.norm(ends - modes[going], axis=1)
        modes[going] = ends
        going = going[change > still]
        if len(going) == 0:
            break
    else:
        _warn(f"{len(going)} of {len(x)} tokens still move by {change.max() / width:.1g} sqrt(epsilon)")
    return MeanShift((modes + origin) * unit, _joined(modes, _JOINED * width))


def _about_first(tokens: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Tokens and points less the first token, that token, all in a unit, and this: means of equal tokens are exact."""
    unit = float(max(norms.unit(tokens), norms.unit(points)))
    origin = tokens[0] / unit
    return tokens / unit - origin, points / unit - origin, origin, unit


def _joined(points: np.ndarray, near: float) -> np.ndarray:
    """Labels of points: each that has none yet gives its own to all that are nearer."""
    labels = np.full(len(points), -1)
    for i, point in enumerate(points):
        if labels[i] < 0:
            labels[(labels < 0) & (np.linalg.norm(points - point, axis=1) <= near)] = labels.max() + 1
    return labels


def _in_order(labels: np.ndarray) -> np.ndarray:
    """Labels numbered by their first token."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _warn(what: str) -> None:
    checks.warn(f"{what} after {_MOST} steps", checks.ConvergenceWarning)
