"""exp(t S) applied to fields by Chebyshev polynomials, exactly in time, for every output time at once.

S is symmetric with its spectrum in [-bound, 0], so P = 1 + 2 S / bound has its own in [-1, 1] and

    exp(t S) = sum_k  c_k(t) T_k(P),     c_k = (2 - [k = 0]) e^-z I_k(z),  z = t bound / 2,

converges once k exceeds about sqrt(2 z log(1 / tol)): the polynomials are computed once, by
T_{k+1} = 2 P T_k - T_{k-1}, and each output time adds them up with coefficients of its own. All c_k are
positive and sum to one, so what is cut off is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import fft, special

from .. import capacity
from ..compilation import cached_njit
from ..progress import track


def coefficients(times: np.ndarray, bound: float, tol: float) -> np.ndarray:
    """c_k(t) for all times (T,): (degree + 1, T), rows summing to one over k; dropped terms add up to less than tol.

    Examples
    --------
    >>> c = coefficients(np.array([0.1]), 50.0, 1e-12)
    >>> x = -0.3   # an eigenvalue of P; of S it is (x - 1) * 25
    >>> bool(abs(np.polynomial.chebyshev.chebval(x, c[:, 0]) - np.exp(0.1 * (x - 1) * 25)) < 1e-12)
    True
    """
    z = np.asarray(times, dtype=float) * bound / 2
    degree = degree_for(float(z.max()), tol)
    capacity.ends(degree, "t", 1e-6, "applications")
    capacity.fits(40 * degree * z.size, "t")
    k = np.arange(degree + 1)[:, None]
    result = 2 * special.ive(k, z)
    result[0] /= 2
    tail = np.cumsum(result[::-1], axis=0)[::-1]
    result[tail < tol] = 0.0  # shorter times need fewer terms
    return result / result.sum(axis=0)


@lru_cache(maxsize=256)
def degree_for(z: float, tol: float) -> int:
    """The least degree, up to a few, whose tail sum_{k > degree} 2 e^-z I_k(z) is below tol.

    I_k(z) e^-z <= exp(-z (1 - sqrt(1 + (k/z)^2)) - k asinh(k/z)), which falls faster than geometrically.
    """
    z = min(z, 1e300)
    low, high = 0, 24 + int(2 * z + 4 * math.log(1 / tol)) if z else 1
    while high - low > 1:
        middle = (low + high) // 2
        r = middle / z
        above = r * r / (1 + math.sqrt(1 + r * r))  # sqrt(1 + r^2) - 1
        exponent = max(z * above - middle * math.asinh(r), -700.0)
        tail = 2 * math.exp(exponent) / (r - above)  # I_{k+1} / I_k <= 1 + above - r
        low, high = (low, middle) if tail < tol else (middle, high)
    return high


def integral_coefficients(times: np.ndarray, bound: float, tol: float, growth: float = 0.0) -> np.ndarray:
    """The same for what a source that is constant in time adds, t phi(t (S + growth)) with phi(z) = (e^z - 1) / z."""
    degree = degree_for(float(np.max(times)) * bound / 2, tol)
    nodes = 2 * max(degree, 8)
    lam = bound / 2 * (np.cos(np.pi * np.arange(nodes + 1) / nodes) - 1)[:, None] + growth
    scaled = lam * times
    values = times * np.where(scaled != 0, np.expm1(scaled) / np.where(scaled != 0, scaled, 1.0), 1.0)
    result = fft.dct(values, type=1, axis=0)[: degree + 1] / nodes
    result[0] /= 2
    return result


def propagate(twice: Callable, initial, weights: np.ndarray, progress: bool = False) -> list:
    """Sums over k of weights[k, m] T_k(P) initial, for m = 0, ..., T - 1, in arrays of initial's kind.

    `twice` is v -> 2 P v, a new array.
    """
    before, here = None, initial
    sums = [float(w) * initial for w in weights[0]]
    for k in track(range(1, len(weights)), progress, unit="term"):
        after = twice(here)
        if before is None:
            after /= 2
        else:
            after -= before
        before, here = here, after
        for m, weight in enumerate(weights[k]):
            if weight:
                sums[m] += float(weight) * here
    return sums


@cached_njit()
def propagate_plane(own, across, along, initial, weights):
    """`propagate` for one field (n, m) and 2 P v = own v + across v + v along: small arrays, on which each call from
    Python would take longer than its arithmetic. The sums are (T, n, m)."""
    before, here, after = np.zeros_like(initial), initial.copy(), np.empty_like(initial)
    moved = np.empty_like(initial)
    sums = np.empty((weights.shape[1], *initial.shape))
    for m in range(weights.shape[1]):
        sums[m] = weights[0, m] * initial
    for k in range(1, len(weights)):
        np.dot(across, here, after)
        np.dot(here, along, moved)
        half = 0.5 if k == 1 else 1.0
        for i in range(own.shape[0]):
            for j in range(own.shape[1]):
                after[i, j] = half * (after[i, j] + moved[i, j] + own[i, j] * here[i, j]) - before[i, j]
        before, here, after = here, after, before
        for m in range(weights.shape[1]):
            if weights[k, m] != 0:
                sums[m] += weights[k, m] * here
    return sums
