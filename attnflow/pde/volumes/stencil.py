"""The compiled march of a finite-volume operator: Chebyshev's recurrence, stencil and sums in one pass over memory.

In u = sqrt(w) H the pair form of `operator` is symmetric, S u_i = sum_o c_io u_{i+o} - loss_i u_i: one
array per pair of neighbours, and wrapping indices everywhere, since the rates across walls are zero. The
recurrence works on rows of the last axis, which stay in the first-level cache while their neighbours are added.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ...compilation import cached_njit


@cached_njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def advance(before, here, sums, weights, first, factor, own, rates, offsets):
    """len(weights) steps of T_{k+1} = 2 P T_k - T_{k-1}, adding weights[k, m] T_{k+1} to sums[m] for m >= first[k].

    Fields are (n0, n1, n2); rates (P, n0, n1, n2) and own (n0, n1, n2) are those of P = 1 + 2 S / bound. `before` and
    `here` change places each step: after an even number of steps they stand where they stood. factor is 1 for
    the first step of all (T_1 = P T_0) and 2 after it.
    """
    n0, n1, n2 = here.shape
    row = np.empty(n2)
    for k in range(len(weights)):
        for i in range(n0):
            for j in range(n1):
                centre, own_row, u_row = before[i, j], own[i, j], here[i, j]
                for m in range(n2):
                    row[m] = own_row[m] * u_row[m]
                for p in range(len(offsets)):
                    d0, d1, d2 = offsets[p]
                    i1, j1, i2, j2 = _wrap(i + d0, n0), _wrap(j + d1, n1), _wrap(i - d0, n0), _wrap(j - d1, n1)
                    _add(row, rates[p, i, j], here[i1, j1], d2, 0)
                    _add(row, rates[p, i2, j2], here[i2, j2], -d2, -d2)
                if factor == 1.0:
                    for m in range(n2):
                        centre[m] = row[m]
                else:
                    for m in range(n2):
                        centre[m] = 2.0 * row[m] - centre[m]
                for s in range(first[k], len(sums)):
                    weight, total = weights[k, s], sums[s, i, j]
                    for m in range(n2):
                        total[m] += weight * centre[m]
        factor = 2.0
        before, here = here, before


@njit(nogil=True, inline="always", fastmath={"contract", "reassoc", "nsz"})
def _add(row, rate, u, shift, rate_shift):
    """row[m] += rate[m + rate_shift] u[m + shift], shift -1, 0 or 1, rate_shift 0 or equal to it, indices wrapping."""
    n = len(row)
    if shift == 0:
        for m in range(n):
            row[m] += rate[m] * u[m]
    elif shift == 1:
        if rate_shift == 0:
            for m in range(n - 1):
                row[m] += rate[m] * u[m + 1]
            row[n - 1] += rate[n - 1] * u[0]
        else:
            for m in range(n - 1):
                row[m] += rate[m + 1] * u[m + 1]
            row[n - 1] += rate[0] * u[0]
    else:
        if rate_shift == 0:
            for m in range(1, n):
                row[m] += rate[m] * u[m - 1]
            row[0] += rate[0] * u[n - 1]
        else:
            for m in range(1, n):
                row[m] += rate[m - 1] * u[m - 1]
            row[0] += rate[n - 1] * u[n - 1]


@njit(nogil=True, inline="always")
def _wrap(i, n):
    return i - n if i >= n else (i + n if i < 0 else i)


def apply(v, own, rates, offsets, xp=np):
    """The same P v by shifting whole arrays (*grid) of the namespace xp: for graphics cards, and as the definition."""
    result = own * v
    for offset, rate in zip(offsets, rates):
        axes = tuple(range(len(offset)))
        back = tuple(-o for o in offset)
        result += rate * xp.roll(v, back, axes) + xp.roll(rate * v, offset, axes)
    return result
