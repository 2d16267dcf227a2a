"""Rows and columns that sum to one: the potentials that scale a similarity, and how two of them respond to one more token.

Two scale any positive K: S = u K v. With a = log v and u_i = 1 / sum_j K_ij exp(a_j), which makes rows sum to one, columns
do where a is a fixed point of Sinkhorn's alternation

    a <- -log sum_i K_ij u_i.

Near it a sweep leaves S'S of the error, whose largest eigenvalue below one is about
1 - 2 tau lambda, lambda the gap of the limit equation: thousands of sweeps at small eps. Anderson acceleration takes the
combination of the last iterates whose residuals cancel best, and with it about the root of that number.

Sources: Sinkhorn & Knopp 1967; Walker & Ni 2011 (acceleration); the responses are derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import pinvh
from scipy.sparse.linalg import LinearOperator, cg

from .. import checks

# log_sum(bias, transposed=False): log sum_j K_ij exp(bias_j) per token, columns when transposed
LogSum = Callable[..., np.ndarray]

_DEPTH, _FEWEST = 30, 5  # iterates that are combined, at most and where memory is scarce
_KEPT = 2**24  # numbers of the past that are kept, if those are not fewer than `_FEWEST` iterates'
_FAR = 1e9  # logarithms of potentials, beside those of the start: beyond, their round-off is no smaller than a gap
_SWEEPS = 200  # of (1 + A)^-1, of which 26 do where A is positive definite
_SINGULAR = 1e-13  # of 1 - A* A: islands that see each other less are apart
_GROWTH = 2.0  # of the residual beside the best so far, from which on the past misleads and is forgotten


def one_potential(log_sum: LogSum, size: int, tol: float, max_iter: int) -> tuple[np.ndarray, dict[str, Any]]:
    """log v (size,) with v_i sum_j K_ij v_j = 1 for symmetric K, and how many sweeps of one sum it took to which gap.

    Parameters
    ----------
    log_sum : callable
        bias (size,), transposed=False -> log sum_j K_ij exp(bias_j), over columns if transposed.
    size : int
    tol : float
        Of the gap, the largest |log| of a row sum.
    max_iter : int
        Sweeps before it gives up with a ConvergenceWarning.
    """
    log_v = -log_sum(np.zeros(size)) / 2
    for sweep in range(1, max_iter + 1):
        log_kv = log_sum(log_v)
        gap = float(np.abs(log_v + log_kv).max())
        if _met(gap, tol, log_kv):
            break
        log_v = (log_v - log_kv) / 2
    else:
        _warn(max_iter, "row", gap, tol)
    return log_v, {"sinkhorn_sweeps": sweep, "sinkhorn_gap": gap}


def two_potentials(log_sum: LogSum, size: int, tol: float, max_iter: int) -> tuple[np.ndarray, dict[str, Any]]:
    """log v (size,), its mean that of log u, for any positive K, as `one_potential`; a sweep takes two sums.

    The gap is the largest |log| of a column sum, rows summing to one.
    """
    depth = min(_DEPTH, max(_FEWEST, _KEPT // (2 * size)))
    log_v = -log_sum(np.zeros(size)) / 2
    far = max(
        _FAR, 10 * float(np.abs(log_v).max())
    )  # combinations run away where no such potentials exist, as under some masks
    images: list[np.ndarray] = []
    residuals: list[np.ndarray] = []
    least, best = np.inf, log_v
    for sweep in range(1, max_iter + 1):
        log_u = -log_sum(log_v)
        residual = -log_sum(log_u, transposed=True) - log_v
        gap, length = float(np.abs(residual).max()), float(np.linalg.norm(residual))
        near = bool((np.abs(log_u) <= far).all())
        if near and _met(gap, tol, log_u):
            break
        if images and not (near and length <= _GROWTH * least):  # or not a number
            log_v, least, images, residuals = best, np.inf, [], []
            continue
        images, residuals = [*images[-depth:], log_v + residual], [*residuals[-depth:], residual]
        if length < least:
            least, best = length, images[-1]
        log_v = _combined(images, residuals)
    else:
        log_v = best
        _warn(max_iter, "column", gap, tol)
    return log_v + (log_u.mean() - log_v.mean()) / 2, {"sinkhorn_sweeps": sweep, "sinkhorn_gap": gap}


def solve(apply: Callable[[np.ndarray], np.ndarray], known: np.ndarray, tol: float) -> np.ndarray:
    """x with apply(x) = known, (N,) or (N, k), of a symmetric positive semidefinite map, by conjugate gradients to `tol`."""

    def flat(v: np.ndarray) -> np.ndarray:
        return apply(v.reshape(known.shape)).ravel()

    operator = LinearOperator((known.size, known.size), matvec=flat, dtype=np.float64)
    solved, failed = cg(operator, known.ravel(), rtol=tol, maxiter=1000)
    x = solved.reshape(known.shape)
    if failed:
        off = float(np.linalg.norm(apply(x) - known) / np.linalg.norm(known))
        checks.warn(
            f"conjugate gradients stopped after 1000 steps with the potentials' derivatives off by {off:.1g}, tol {tol:.1g}: "
            "raise epsilon",
            checks.ConvergenceWarning,
        )
    return x


def averaged_inverse(
    average: Callable[[np.ndarray], np.ndarray], known: np.ndarray, mass: np.ndarray, tol: float
) -> np.ndarray:
    """(1 + A)^-1 of columns (m, k), to `tol` in the mean square: A has its spectrum in [0, 1], a sum leaves a third of the error."""
    x, size = known / 2, np.sqrt(mass @ known**2)
    for _ in range(_SWEEPS):
        rest = known - x - average(x)
        x = x + 2 / 3 * rest
        off = np.sqrt(mass @ rest**2)
        if (off <= tol * size).all():
            return x
    checks.warn(
        f"(1 + A)^-1 is off by {float((off / size).max()):.1g} after {_SWEEPS} sums, tol {tol:.1g}: the similarity is not positive "
        "definite",
        checks.ConvergenceWarning,
    )
    return x


def _met(gap: float, tol: float, sums: np.ndarray) -> bool:
    """Whether the gap is small enough; sums carry round-off of their own size, below which no tolerance can be met."""
    return gap <= max(tol, 4e-16 * float(np.abs(sums).max()))


def _warn(max_iter: int, what: str, gap: float, tol: float) -> None:
    checks.warn(
        f"Sinkhorn stopped after {max_iter} sweeps with {what} sums off by {gap:.1g}, tol {tol:.1g}: raise max_iter or epsilon; "
        "a mask may allow no such weights",
        checks.ConvergenceWarning,
    )


def _combined(images: list[np.ndarray], residuals: list[np.ndarray]) -> np.ndarray:
    """The combination of images whose residuals' is shortest, coefficients adding up to one."""
    if len(images) == 1:
        return images[0]
    changes = np.diff(residuals, axis=0).T
    weights = np.linalg.lstsq(changes, residuals[-1], rcond=1e-14)[0]
    return images[-1] - np.diff(images, axis=0).T @ weights


def response(weights: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """eta (m, m): the change of log v at y that one more token at z makes, eta[y, z]; its p-mean over y is -1/2.

    With S(x, y) the weights' density, A their average and A* its adjoint in p dvol, both potentials' equations give

        (1 - A* A) eta_z = A* S(., z) - S(z, .),

    -(1 + A)^-1 S(., z) for symmetric f.
    """
    density, adjoint = weights / mass, (weights * mass[:, None]).T / mass[:, None]
    return _inverse(weights, mass) @ (adjoint @ density - density.T) - 0.5


def second_response(weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """The second order averaged over where the token is, (m,), for eta less its mean over z.

    With beta_z = -A eta_z - S(., z) + 1 what log u changes by, P_z the mean over z, and f(z, z) of a field f_z(y) written
    diag f,

        (1 - A* A) zeta = P_z eta_z^2 - A* P_z beta_z^2 + A* (A diag eta - diag beta).
    """
    adjoint = (weights * mass[:, None]).T / mass[:, None]
    beta = 1 - weights @ eta - weights / mass
    own = np.diagonal(eta)
    known = eta**2 @ mass + adjoint @ (weights @ own - np.diagonal(beta) - beta**2 @ mass)
    return _inverse(weights, mass) @ known + mass @ (eta**2 @ mass - own) / 2


def response_series(weights: np.ndarray, fluctuation: np.ndarray, order: int) -> list[np.ndarray]:
    """[e_1, ..., e_order], each (m, k): the powers of t in v, relative to v, when tokens have the density p (1 + t xi).

    Of one potential, with g_k the k-th power of A[(1 + t xi) e]:

        (1 + A) e_k = -A[xi e_{k-1}] - sum_j e_j g_{k-j},     0 < j < k,

    which has a solution where tokens fall into islands, too.
    """
    inverse = np.linalg.inv(np.eye(len(weights)) + weights)
    e, g = [np.ones_like(fluctuation)], [np.ones_like(fluctuation)]
    for k in range(1, order + 1):
        seen = weights @ (fluctuation * e[-1])
        e.append(-inverse @ (seen + sum(e[j] * g[k - j] for j in range(1, k))))
        g.append(weights @ e[-1] + seen)
    return e[1:]


def response_series_of_two(weights: np.ndarray, mass: np.ndarray, fluctuation: np.ndarray, order: int) -> list[np.ndarray]:
    """As `response_series`, of two potentials.

    With u (1 + t d_1 + ...) and v (1 + t e_1 + ...) rows and columns sum to one at every power of t: g_k the k-th power of
    A[(1 + t xi) e] and g*_k that of A*[(1 + t xi) d],

        d_k + g_k + sum_j d_j g_{k-j} = 0,     e_k + g*_k + sum_j e_j g*_{k-j} = 0,     0 < j < k.
    """
    adjoint = (weights * mass[:, None]).T / mass[:, None]
    inverse = _inverse(weights, mass)
    d, e = [np.ones_like(fluctuation)], [np.ones_like(fluctuation)]
    of_rows, of_columns = [d[0]], [d[0]]
    for k in range(1, order + 1):
        row, column = weights @ (fluctuation * e[-1]), adjoint @ (fluctuation * d[-1])
        rows = -row - sum(d[j] * of_rows[k - j] for j in range(1, k))
        known = -column - sum(e[j] * of_columns[k - j] for j in range(1, k)) - adjoint @ rows
        e.append(inverse @ known)
        of_rows.append(weights @ e[-1] + row)
        d.append(rows - weights @ e[-1])
        of_columns.append(adjoint @ d[-1] + column)
    return e[1:]


def _inverse(weights: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """The inverse of 1 - A* A, but for constants and for what is constant on islands of tokens: these change no weight."""
    root = np.sqrt(mass)
    symmetric = root[:, None] * weights / root
    return pinvh(np.eye(len(mass)) - symmetric.T @ symmetric, rtol=_SINGULAR) * root / root[:, None]
