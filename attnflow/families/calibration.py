"""Each row's own temperature: the one at which it attends to a given number of tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import checks

_CLOSE, _SAME, _FAR, _MOST = 1e-13, 1e-12, 1e-9, 400  # log count: aimed at; log sigma: told apart; log count: told of; steps
_ONLY_NEAREST, _ALL_EQUAL, _LEAST = -8.0, 40.0, -700.0  # log sigma less that of the smallest gap, of the largest; at all
_WEIGHTLESS = 700.0  # a gap: larger ones make subnormal numbers, which are slow, or 0
Count = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def calibrated(gaps: np.ndarray, target: float, log_count: Count) -> np.ndarray:
    """sigma_i such that the weights exp(-gaps_ij / sigma_i) count for `target` tokens.

    Newton's method for log sigma; the bracket is halved where a step leaves it or the last one did not halve the error.

    Parameters
    ----------
    gaps : (N, m) array
        Not negative, 0 somewhere in each row; inf has no weight.
    target : float
    log_count : callable
        From gaps / sigma to the logarithm (N,) of the count, increasing in sigma, and its derivative by log sigma:
        `log_perplexity` or `log_sum`.

    Returns
    -------
    (N,) array
        In units of the gaps. A row with more than `target` gaps of 0 has one so small that nothing else weighs anything.

    Warns
    -----
    AccuracyWarning
        If a row cannot count for so little, or so much.

    Examples
    --------
    >>> gaps = np.array([[0.0, 1.0, 4.0]])
    >>> sigma = calibrated(gaps, 2.0, log_perplexity)
    >>> np.exp(log_perplexity(gaps / sigma[:, None])[0]).round(12)
    array([2.])
    """
    some = np.where((gaps > 0) & (gaps < np.inf), gaps, np.nan)
    some[np.isnan(some).all(axis=1)] = 1.0  # no other gaps: any sigma
    low = np.maximum(np.log(np.nanmin(some, axis=1)) + _ONLY_NEAREST, _LEAST)
    high = np.maximum(np.log(np.nanmax(some, axis=1)) + _ALL_EQUAL, _LEAST)
    log_sigma = np.log(np.nanmean(some, axis=1)).clip(low, high)
    excess = np.full(len(gaps), np.inf)
    for _ in range(_MOST):
        with np.errstate(over="ignore"):
            count, slope = log_count(gaps / np.exp(log_sigma)[:, None])
        before, excess = excess, count - np.log(target)
        done = (np.abs(excess) <= _CLOSE) | (high - low <= _SAME)
        if done.all():
            break
        low, high = np.where(excess < 0, log_sigma, low), np.where(excess > 0, log_sigma, high)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            newton = log_sigma - excess / slope
        quick = (low < newton) & (newton < high) & (2 * np.abs(excess) < np.abs(before))
        log_sigma = np.where(done, log_sigma, np.where(quick, newton, (low + high) / 2))
    if (missed := np.abs(excess) > _FAR).any():
        worst = np.exp(count[np.abs(excess).argmax()])
        checks.warn(
            f"{missed.sum()} of {len(gaps)} tokens cannot attend to {target:.6g} neighbours, but to {worst:.6g} or so: "
            "too many are equally near",
            checks.AccuracyWarning,
        )
    return np.exp(log_sigma)


def log_perplexity(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy (N,) of the weights exp(-gaps) over their sum, and its derivative by log sigma, the variance of the gaps.

    Examples
    --------
    >>> log_perplexity(np.array([[0.0, 0.0]]))
    (array([0.69314718]), array([0.]))
    """
    gaps = np.minimum(gaps, _WEIGHTLESS)
    weights = np.exp(-gaps)
    total = weights.sum(axis=1)
    weights *= gaps
    mean = weights.sum(axis=1) / total
    return np.log(total) + mean, np.einsum("ij,ij->i", weights, gaps) / total - mean**2


def log_sum(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm (N,) of the sum of the weights exp(-gaps), and its derivative by log sigma, the mean of the gaps.

    Examples
    --------
    >>> log_sum(np.array([[0.0, 0.0]]))
    (array([0.69314718]), array([0.]))
    """
    gaps = np.minimum(gaps, _WEIGHTLESS)
    weights = np.exp(-gaps)
    total = weights.sum(axis=1)
    return np.log(total), np.einsum("ij,ij->i", weights, gaps) / total
