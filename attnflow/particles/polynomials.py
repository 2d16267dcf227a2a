"""Powers of a self-adjoint operator as short Chebyshev sums: thousands of layers at the cost of hundreds.

Let P have its spectrum in [-1, 1] and 0 <= m <= 1. Then

    (1 - m + m P)^l = sum_k g_k T_k(P),     T_{k+1} = 2 P T_k - T_{k-1},

where g_k is the probability that a random walk of l steps, each staying with 1 - m or going left or right with m / 2,
ends at distance k: positive, of sum one, negligible beyond sqrt(2 l m log(2 / tol)). All powers share one sequence
T_k(P) H; a low power is complete before a high one. Cutting off at degree K costs at most sum_{k > K} g_k in the norm
of the inner product, and round-off no more than in l steps: the errors of all applications, each as large as that of
a step, add up to k^2 / m of them in T_k, and k^2 is l m on the average.

Sources: Carne 1985, "A transmutation formula for Markov chains"; Sachdeva & Vishnoi 2014, "Faster algorithms via
approximation theory".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..progress import track

_LEAST = 1e-24  # probability beyond the terms that are ever looked at
_BLOCK = 16  # polynomials added to many sums at once, as one matrix product
_CHUNK = 2**17  # entries of a sum in one such product: its result stays in the cache


@dataclass
class PowerSums:
    """Powers of 1 - m + m P applied to a start, added up.

    Attributes
    ----------
    sums : (L, N, c) array
        One for each power; only the first `finished` are complete.
    finished : int
    applications : int
        Of P.
    growth : float
        Largest |T_k(P) start| over the largest |start|, of any column: how much more than in the norm of the inner
        product an error may show at a single point.
    tail : float
        Largest sum of the coefficients left out of a finished sum.
    interrupted : bool
    """

    sums: np.ndarray
    finished: int = 0
    applications: int = 0
    growth: float = 1.0
    tail: float = 0.0
    interrupted: bool = False


def sum_powers(
    apply: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    powers: np.ndarray,
    move: float,
    tolerance: np.ndarray,
    most_growth: float = np.inf,
    progress: bool = False,
    keep: Callable[[np.ndarray], None] | None = None,
) -> PowerSums:
    """(1 - m + m P)^l start for all l in `powers`, in one recursion.

    Parameters
    ----------
    apply : callable
        v (N, c) -> P v, a new array.
    start : (N, c) array
    powers : (L,) array of int
        Increasing, at least 0.
    move : float
        m.
    tolerance : (L,) array
        Largest error from truncation at a single point, relative to the largest |start| of the column. It is
        estimated as the coefficients left out times the growth so far.
    most_growth : float
        Stop, with sums unfinished, where T_k has grown by more.
    progress : bool
    keep : callable, optional
        Is given each sum (N, c) as it is finished, in order.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 5)[:, None]
    >>> run = sum_powers(lambda v: x * v, np.ones((5, 1)), np.array([200]), 0.5, np.array([1e-10]))
    >>> bool(np.abs(run.sums[0] - ((1 + x) / 2) ** 200).max() < 1e-10), run.applications
    (True, 64)
    """
    coefficients = expand_powers(powers, move)
    left_out = np.cumsum(coefficients[::-1], axis=0)[::-1] - coefficients
    block = np.empty((min(_BLOCK, len(powers)), start.size))
    run = PowerSums(np.zeros((len(powers), *start.shape)))
    scale = np.abs(start).max(axis=0)
    scale[scale == 0] = 1.0
    before, here, waiting = None, start, 0
    expected = degree_bound(powers[-1], move, tolerance[-1])
    try:
        for k in track(range(len(coefficients)), progress, expected, unit="application"):
            if k:
                after = apply(here)
                run.applications += 1
                if before is not None:
                    after *= 2
                    after -= before
                before, here = here, after
                run.growth = max(run.growth, float((np.abs(here).max(axis=0) / scale).max()))
            if not run.growth <= most_growth:
                break
            block[waiting] = here.ravel()
            waiting += 1
            unfinished = np.flatnonzero(left_out[k] * run.growth > tolerance)
            if waiting == len(block) or len(unfinished) == 0:
                _add(run.sums[run.finished :], coefficients[k + 1 - waiting : k + 1, run.finished :], block[:waiting])
                waiting = 0
                finished = int(unfinished[0]) if len(unfinished) else len(powers)
                run.tail = max([run.tail, *left_out[k, run.finished : finished]])
                while run.finished < finished:
                    run.finished += 1
                    if keep is not None:
                        keep(run.sums[run.finished - 1])
                if run.finished == len(powers):
                    break
    except KeyboardInterrupt:
        run.interrupted = True
    return run


def expand_powers(powers: np.ndarray, move: float) -> np.ndarray:
    """Coefficients g_k (degree + 1, L) of (1 - m + m x)^l in T_k(x), accurate relative to themselves, of sum one.

    They obey (l - k + 1) g_{k-1} = 2 k (1/m - 1) g_k + (l + k + 1) g_{k+1} (g_0 counted twice), all terms positive: run
    downwards from where they are negligible, the recursion forgets how it began.

    Examples
    --------
    >>> expand_powers(np.array([2]), 0.5)[:, 0]   # (1 + x)^2 / 4 = 3/8 + x/2 + T_2(x)/8
    array([0.375, 0.5  , 0.125])
    """
    powers = np.asarray(powers)
    first = np.minimum(degree_bound(powers, move, _LEAST), powers)
    first -= (powers - first) % 2  # with m = 1 the walk is at even distances after an even number of steps
    top = int(first.max())
    g = np.zeros((top + 2, len(powers)))
    g[top, first == top] = 1.0
    for k in range(top, 0, -1):
        g[k - 1] = (2 * k * (1 / move - 1) * g[k] + (powers + k + 1) * g[k + 1]) / np.maximum(powers - k + 1, 1)
        g[k - 1, first == k - 1] = 1.0
        large = g[k - 1] > 1e200
        if large.any():
            g[:, large] *= 1e-200
    g[0] /= 2
    return g[:-1] / g.sum(axis=0)


def degree_bound(powers, move: float, tol):
    """A degree beyond which the coefficients sum to less than tol, by Bernstein's inequality; some 8% too high."""
    exponent = np.log(2 / np.asarray(tol)) / 3
    degree = np.ceil(exponent + np.sqrt(exponent**2 + 6 * exponent * np.multiply(powers, move))).astype(int)
    return np.minimum(degree, powers)


def _add(sums: np.ndarray, coefficients: np.ndarray, block: np.ndarray) -> None:
    """sums[l] += sum_k coefficients[k, l] block[k], a chunk of the columns at a time: little memory besides."""
    flat = sums.reshape(len(sums), -1)
    width = max(1, _CHUNK // len(sums))
    for first in range(0, flat.shape[1], width):
        columns = slice(first, first + width)
        flat[:, columns] += coefficients.T @ block[:, columns]
