"""Why keys may be summed shard by shard: weighted means with their log-sum-exps are a monoid."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .. import checks
from ..kernels import Attended


def merge(partials: Iterable[Attended]) -> Attended:
    """What the same queries see of all keys, from what they see of each shard of them.

    With M the largest of the log-sum-exps L_k, and means m_k, the sums are S = sum_k exp(L_k - M) and
    sum_k exp(L_k - M) m_k: exact whatever the split, but for rounding. Partials are taken one at a time.

    Parameters
    ----------
    partials : iterable of Attended
        At least one: means (M, c) and log-sum-exps (M,), -inf for a query that sees nothing of a shard.

    Returns
    -------
    Attended

    Raises
    ------
    ValueError
        If there is none, or a log-sum-exp is NaN or inf, or the mean beside one that is not -inf is not finite.

    Examples
    --------
    >>> from attnflow.kernels import Attended
    >>> one = Attended(np.array([[0.0]]), np.log([1.0]))          # a key of weight 1
    >>> three = Attended(np.array([[4.0]]), np.log([3.0]))        # keys of weight 3, their mean 4
    >>> merge([one, three]).mean, np.exp(merge([one, three]).log_sum_exp)
    (array([[3.]]), array([4.]))
    """
    checked = (_checked(part, number) for number, part in enumerate(partials))
    one = next(checked, None)
    if one is None:
        raise ValueError("partials must be at least one, got none")
    weighted, top = one
    total = np.where(top > -np.inf, 1.0, 0.0)
    for mean, log_sum_exp in checked:
        highest = np.maximum(top, log_sum_exp)
        before, now = _weight(top, highest), _weight(log_sum_exp, highest)
        weighted = before[:, None] * weighted + now[:, None] * mean
        top, total = highest, before * total + now
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(total[:, None] > 0, weighted / total[:, None], 0.0)
        return Attended(mean, top + np.log(total))


def _checked(part: Attended, number: int) -> Attended:
    """Means, 0 where nothing is seen, and log-sum-exps: both numbers."""
    mean, log_sum_exp = (np.asarray(array, dtype=float) for array in part)
    seen = log_sum_exp > -np.inf
    if not (log_sum_exp < np.inf).all():  # NaN too
        row = int((log_sum_exp < np.inf).argmin())
        raise ValueError(
            f"partials must have log-sum-exps that are finite or -inf, got {log_sum_exp[row]} in row {row} of partial {number}"
        )
    good = np.isfinite(mean).all(axis=1) | ~seen
    if not good.all():
        row = int(good.argmin())
        raise ValueError(f"partials must have finite means, got {checks.entries(mean[row])} in row {row} of partial {number}")
    return Attended(np.where(seen[:, None], mean, 0.0), log_sum_exp)


def _weight(log_sum_exp: np.ndarray, top: np.ndarray) -> np.ndarray:
    """exp(log_sum_exp - top), 0 for -inf."""
    seen = log_sum_exp > -np.inf
    return np.where(seen, np.exp(np.where(seen, log_sum_exp - np.where(seen, top, 0.0), -np.inf)), 0.0)
