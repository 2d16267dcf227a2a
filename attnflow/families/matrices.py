"""Strengthen and normalise: the steps that every family is composed of.

What follows a normalisation may leave out what it takes out again: `less_largest` before an exponential and `rows`
changes nothing but the range of the numbers.
"""

from __future__ import annotations

import numpy as np

from .. import capacity, checks

_ENTRIES, _COPIES = 2**26, 3  # of a dense matrix; held at a time, at least, while one is computed


def rows(M: np.ndarray) -> np.ndarray:
    """N_r: every row over its sum.

    Parameters
    ----------
    M : (m, N) array
        Similarities, none negative.

    Returns
    -------
    (m, N) array
        M_ij / sum_k M_ik.

    Raises
    ------
    ValueError
        If an entry is negative, or a row's sum is 0 or overflows.

    Examples
    --------
    >>> rows([[1, 3], [0, 2]])
    array([[0.25, 0.75], [0.  , 1.  ]])
    """
    M = similarities(M, "M")
    return M / positive_sums(M, "M")[:, None]


def columns(M: np.ndarray) -> np.ndarray:
    """N_c: every column over its sum, M_ij / sum_k M_kj; as `rows` of the transpose.

    Examples
    --------
    >>> columns([[1, 3], [0, 1]])
    array([[1.  , 0.75], [0.  , 0.25]])
    """
    M = similarities(M, "M")
    return M / positive_sums(M, "M", "column")


def two_sided(M: np.ndarray) -> np.ndarray:
    """N_2: every entry over both of its tokens' sums.

    Parameters
    ----------
    M : (N, N) array
        Similarities, none negative.

    Returns
    -------
    (N, N) array
        M_ij / (sum_k M_ik sum_k M_jk), symmetric where M is; in the inverse unit of M.

    Raises
    ------
    ValueError
        If M is not square, an entry is negative, or a row's sum is 0 or overflows.

    Examples
    --------
    >>> two_sided([[1, 1], [1, 3]])
    array([[0.25  , 0.125 ], [0.125 , 0.1875]])
    """
    M = square(M, "M")
    total = positive_sums(M, "M")
    with np.errstate(over="ignore"):
        return _representable(M / total[:, None] / total, "M")


def overall(M: np.ndarray) -> np.ndarray:
    """N_g: every entry over the sum of all, M_ij / sum_kl M_kl.

    Examples
    --------
    >>> overall([[1, 3], [0, 4]])
    array([[0.125, 0.375], [0.   , 0.5  ]])
    """
    M = similarities(M, "M")
    return M / positive_sums(M.reshape(1, -1), "M", "matrix")


def inflate(M: np.ndarray, r: float) -> np.ndarray:
    """The r-th power of every entry: r > 1 strengthens what is strong.

    Parameters
    ----------
    M : (m, N) array
        Similarities, none negative.
    r : float
        Positive.

    Returns
    -------
    (m, N) array

    Raises
    ------
    ValueError
        If an entry is negative, r is not positive, or a power overflows.

    Examples
    --------
    >>> inflate([[1, 3], [0, 2]], 2)
    array([[1., 9.], [0., 4.]])
    """
    M, r = similarities(M, "M"), checks.positive(r, "r")
    with np.errstate(over="ignore", under="ignore"):
        return _representable(M**r, "M")


def exponential(M: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """exp(M_ij / sigma_i).

    Parameters
    ----------
    M : (m, N) array
        Any numbers; -inf has no similarity at all.
    sigma : float or (m,) array
        Temperatures, in units of M, positive: one, or one for each row.

    Returns
    -------
    (m, N) array

    Raises
    ------
    ValueError
        If M is not a matrix, sigma not positive or not one per row, or an exponential overflows.

    Examples
    --------
    >>> exponential([[0, -2], [-np.inf, -2]], [1, 2]).round(4)
    array([[1.    , 0.1353], [0.    , 0.3679]])
    """
    M = _matrix(M, "M")
    if not (M < np.inf).all():
        raise ValueError(f"M must be finite or -inf, got {checks.entries(M[~(M < np.inf)][:1])}")
    if checks.lone(sigma) is not None:
        sigma = np.array(checks.positive(sigma, "sigma"))
    else:
        sigma = checks.array(sigma, "sigma", (len(M),)).astype(float, copy=False)[:, None]
        if (sigma <= 0).any():
            raise ValueError(f"sigma must be positive, got {sigma.min()} in row {int(sigma.argmin())}")
    with np.errstate(over="ignore", under="ignore"):
        return _representable(np.exp(M / sigma), "M")


def less_largest(M: np.ndarray) -> np.ndarray:
    """M less the largest entry of each row, which `rows` of an exponential does not notice.

    Examples
    --------
    >>> less_largest(np.array([[1000.0, 999.0], [-np.inf, -5000.0]]))
    array([[  0.,  -1.], [-inf,   0.]])
    """
    return M - M.max(axis=1, keepdims=True)


def similarities(M: np.ndarray, name: str) -> np.ndarray:
    """A finite float64 matrix without negative entries."""
    M = checks.array(_matrix(M, name), name)
    if (M < 0).any():
        i, j = (int(k) for k in np.argwhere(M < 0)[0])
        raise ValueError(f"{name} must have no negative entries, got {M[i, j]} at index {(i, j)}")
    return M


def square(M: np.ndarray, name: str) -> np.ndarray:
    """The same with as many rows as columns."""
    M = similarities(M, name)
    if M.shape[0] != M.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {M.shape}")
    return M


def positive_sums(M: np.ndarray, name: str, what: str = "row") -> np.ndarray:
    """The sums of each row or column, which something is to be divided by."""
    with np.errstate(over="ignore"):
        total = M.sum(axis=0 if what == "column" else 1)
    bad = np.flatnonzero(~((total > 0) & (total < np.inf)))
    if len(bad):
        place = f" in {what} {bad[0]}" if what != "matrix" else ""
        raise ValueError(f"{name} must have a positive, finite sum{place}, got {total[bad[0]]}")
    return total


def refuse_large(count: int, others: int, name: str) -> None:
    """Refuse a dense matrix that is too large before it is made."""
    if count * others > _ENTRIES:
        raise ValueError(f"{name} must make at most {_ENTRIES} dense entries, got {count} x {others}")
    capacity.fits(8 * _COPIES * count * others, name)


def _matrix(M: np.ndarray, name: str) -> np.ndarray:
    M = checks.reals(M, name).astype(float, copy=False)
    if M.ndim != 2 or M.size == 0:
        raise ValueError(f"{name} must be a matrix that is not empty, got shape {M.shape}")
    refuse_large(M.shape[0], M.shape[1], name)
    return M


def _representable(result: np.ndarray, name: str) -> np.ndarray:
    if not (result < np.inf).all():
        i, j = (int(k) for k in np.argwhere(~(result < np.inf))[0])
        raise ValueError(f"{name} must have results within the range of floating point, got {result[i, j]} at index {(i, j)}")
    return result
