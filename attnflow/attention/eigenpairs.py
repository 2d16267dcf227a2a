"""Largest eigenvalues of a layer's weights from few applications to a few columns at a time.

Engines apply the weights to two columns for little more than the price of one, so the Krylov space grows by a block of
them; when its basis is full the upper half of what it knows is kept (thick restart, Wu & Simon 2000). About 80 applications
find ten eigenvalues at N p (4 pi eps)^(n/2) = 250, one column at a time takes 160.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eig, eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from ..progress import track

_BLOCK = 2  # columns at a time
_MOST = 1000  # applications
_SAME = 1e-8, 10.0  # eigenvalues that differ by less, or by so many tolerances, may be copies of one
_NOTHING = 1e-14  # of a column of unit length: what is left of it is rounding
_PIECE = 2**16  # columns of the basis that are combined at once

Apply = Callable[[np.ndarray], np.ndarray]


def largest_symmetric(apply: Apply, first: np.ndarray, k: int, tol: float, progress: bool = False):
    """The k largest eigenvalues of a symmetric operator whose largest, 1, belongs to a known vector.

    Parameters
    ----------
    apply : callable
        (N, c) -> (N, c).
    first : (N,) array
        Eigenvector of eigenvalue 1, of unit length.
    k : int
    tol : float
        Of the residuals |A v - lambda v|.
    progress : bool

    Returns
    -------
    (k,) array
        Largest first. After 1000 applications whatever there is.
    (k, N) array
        Orthonormal rows.
    """
    size, b, full = len(first), _BLOCK, 2 * k + 50
    rng, same = np.random.default_rng(0), max(_SAME[0], _SAME[1] * tol)
    basis, projected = np.empty((full + b, size)), np.zeros((full, full))
    basis[0], projected[0, 0] = first, 1.0
    basis[1 : 1 + b] = _orthonormal(rng.normal(size=(size, b)), basis[:1])[0].T
    j, wanted, found = 1, k, None
    for _ in track(iter(range(_MOST)), progress, unit="application"):
        after, coupling, beyond = _orthonormal(apply(basis[j : j + b].T), basis[: j + b])
        projected[: j + b, j : j + b], projected[j : j + b, : j + b] = coupling, coupling.T
        basis[j + b : j + 2 * b] = after.T
        j += b
        values, vectors = (part[..., ::-1] for part in eigh(projected[:j, :j]))
        if j >= wanted and np.linalg.norm(beyond @ vectors[-b:, :wanted], axis=0).max() < tol:
            if not _may_miss_copies(values[:k], same) or (found is not None and np.abs(found - values[:k]).max() < same):
                break
            # a block sees no more than its own number of copies: look for others orthogonal to what was found, until
            # the largest of the rest is known too
            found, wanted = values[:k].copy(), k + 1
            _combine(basis, vectors[:, :k])
            basis[k : k + b] = _orthonormal(rng.normal(size=(size, b)), basis[:k])[0].T
            j = _restart(projected, values[:k])
        elif j + b > full:
            kept = wanted + (j - wanted) // 2
            _combine(basis, vectors[:, :kept])
            basis[kept : kept + b] = basis[j : j + b]
            j = _restart(projected, values[:kept])
    _combine(basis, vectors[:, :k])
    return values[:k], basis[:k]


def _orthonormal(columns: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q (N, b) orthonormal and orthogonal to the rows of the basis, h and R: columns = basis' h + Q R.

    What is left of a column may be nothing but rounding, which lies along the basis as well as anywhere: another direction
    takes its place. Later passes work on unit vectors.
    """
    coupling = basis @ columns
    q, r = np.linalg.qr(columns - (coupling.T @ basis).T)
    lost = np.abs(np.diag(r)) <= _NOTHING * max(1.0, np.linalg.norm(columns, axis=0).max())
    q[:, lost], r[lost] = np.random.default_rng(len(basis)).normal(size=(len(q), int(lost.sum()))), 0.0
    for _ in range(1 + bool(lost.any())):
        again = basis @ q
        q, r_again = np.linalg.qr(q - (again.T @ basis).T)
        coupling, r = coupling + again @ r, r_again @ r
    return q, coupling, r


def _combine(basis: np.ndarray, vectors: np.ndarray) -> None:
    """The first rows of the basis become combinations of its rows, in place."""
    used, made = vectors.shape
    for start in range(0, basis.shape[1], _PIECE):
        piece = slice(start, start + _PIECE)
        basis[:made, piece] = vectors.T @ basis[:used, piece]


def _restart(projected: np.ndarray, values: np.ndarray) -> int:
    projected[:] = 0
    np.fill_diagonal(projected[: len(values), : len(values)], values)
    return len(values)


def _may_miss_copies(values: np.ndarray, same: float) -> bool:
    return bool((values[: len(values) - _BLOCK + 1] - values[_BLOCK - 1 :] < same).any())


def largest_real(apply: Apply, size: int, k: int, tol: float, progress: bool = False):
    """The k eigenvalues of largest real part of any real operator, by Arnoldi iteration from a fixed start.

    Returns
    -------
    (k,) complex array
    (k, N) complex array

    Raises
    ------
    RuntimeError
        If they are not known after about a thousand applications.
    """
    steps = track(iter(range(10 * _MOST)), progress, unit="application")

    def one(v: np.ndarray) -> np.ndarray:
        next(steps)
        return apply(v.reshape(size, 1))[:, 0]

    one_more = k + 1  # a pair of conjugates comes whole
    room = 2 * one_more + 40
    start = np.random.default_rng(0).normal(size=size)
    operator = LinearOperator((size, size), matvec=one, dtype=np.float64)
    try:
        values, vectors = eigs(operator, one_more, which="LR", v0=start, ncv=room, tol=tol, maxiter=1 + _MOST // room)
    except ArpackNoConvergence as failure:  # what it has need not be the largest
        raise RuntimeError(
            f"{len(failure.eigenvalues)} of {one_more} eigenvalues converged in about {_MOST} applications; ask for fewer, "
            "or raise epsilon"
        ) from None
    return _by_real_part(values, vectors, k)


def dense_symmetric(matrix: np.ndarray, k: int):
    """As `largest_symmetric`, of a matrix."""
    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1])
    return values[::-1], vectors.T[::-1]


def dense_real(matrix: np.ndarray, k: int):
    """As `largest_real`, of a matrix."""
    values, vectors = eig(matrix)
    return _by_real_part(values, vectors, k)


def _by_real_part(values: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a conjugate pair, whose real parts are the same, the one above the axis comes first."""
    order = np.lexsort((-values.imag, -values.real))[:k]
    return values[order], vectors.T[order]
