"""Power laws with their intervals: through errors that have no noise, and through squared deviations that have."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

_ROUND_OFF = 1e-10  # of deviations: no law is in them below
_SWEEPS, _SETTLED = 200, 1e-10  # of the scoring; its last step


class Estimate(NamedTuple):
    """A value and its 95% confidence interval."""

    value: float
    low: float
    high: float


def fit_values(columns: np.ndarray, target: np.ndarray, needs: str) -> Estimate:
    """First coefficient of a least-squares fit with its 95% Student interval.

    Parameters
    ----------
    columns : (n, k) array
    target : (n,) array
    needs : str
        What there must be more of where points do not outnumber columns.

    Raises
    ------
    ValueError
        If they don't.
    """
    freedom = _freedom(columns, needs)
    solution, *_ = np.linalg.lstsq(columns, target, rcond=None)
    residual = target - columns @ solution
    return _interval(solution[0], columns, residual @ residual / freedom, freedom)


def fit_squares(columns: np.ndarray, squares: np.ndarray, needs: str) -> Estimate:
    """First coefficient b_0 of E[squares] = exp(columns @ b), with its 95% Student interval.

    A squared deviation of random tokens is a sum of correlated chi-squares: whatever its mean mu, its variance is
    (2 / nu) mu^2, nu its effective degrees of freedom. So b solves the likelihood equations of a gamma law,
    columns' (squares / mu - 1) = 0, which are unbiased for any law of that variance; 2 / nu is estimated from what is left
    over, and the covariance of b is (2 / nu) (columns' columns)^-1 (quasi-likelihood: Wedderburn 1974). Below some thirty
    cells, whose spread says little of 2 / nu, some 92 of 100 intervals hold the value rather than 95.

    Parameters
    ----------
    columns : (n, k) array
    squares : (n,) array
    needs : str
        What there must be more of where cells do not outnumber columns.

    Raises
    ------
    ValueError
        If they don't, or the deviations are those of round-off, not finite or 0 at one size and not at another.

    Examples
    --------
    >>> rng, sizes = np.random.default_rng(0), np.repeat([100.0, 1000.0], 40)
    >>> columns = np.stack([np.log(sizes), np.ones(80)], axis=1)
    >>> value, low, high = fit_squares(columns, rng.chisquare(4, 80) / sizes, "sizes")
    >>> low < -1 < high
    True
    """
    freedom = _freedom(columns, needs)
    if not np.isfinite(squares).all():
        raise ValueError("no law: some deviations at finite N are not finite")
    if not squares.max() > _ROUND_OFF**2:
        raise ValueError("exact to round-off: the deviations at finite N are")
    inverse = np.linalg.inv(columns.T @ columns)
    b = inverse @ columns.T @ np.full(len(squares), np.log(squares.mean()))
    for _ in range(_SWEEPS):
        left = squares * np.exp(-columns @ b) - 1
        step = inverse @ columns.T @ left
        b += step / max(1.0, np.abs(columns @ step).max())
        if np.abs(step).max() < _SETTLED:
            break
    else:
        raise ValueError("no power law: the deviations of one size are 0, or next to it, beside another's")
    return _interval(b[0], columns, left @ left / freedom, freedom)


def _freedom(columns: np.ndarray, needs: str) -> int:
    points, unknowns = columns.shape
    if points <= unknowns:
        raise ValueError(f"{needs} must be more for this fit: {points} points, {unknowns} unknowns")
    if np.linalg.matrix_rank(columns) < unknowns:
        raise ValueError(f"{needs} must be more for this fit: cells of each temperature, at two sizes of one at least")
    return points - unknowns


def _interval(value: float, columns: np.ndarray, variance: float, freedom: int) -> Estimate:
    """Of the first coefficient, whose points have this variance each."""
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance * np.linalg.inv(columns.T @ columns)[0, 0])
    return Estimate(float(value), float(value - half), float(value + half))
