"""L in one dimension without subtraction: eigenvalues and solves to full relative accuracy, however slow the exchange.

Cells in a row, or around a circle, exchange at rates >= 0: L is fixed by them, its diagonal is minus their sum. Nothing
is subtracted but the eigenvalue sought, or a shift that is not real. Eliminating cell i of -L - tau passes its room on,

    p_i = up_i + ring_i + d_i,    d_{i+1} = d_i back_i / p_i + wall_{i+1} - tau,    ring_{i+1} = ring_i back_i / p_i,

with up_i the rate from i to i + 1, back_i that from i + 1 to i, ring_i what eliminated cells have put between i and
the last one, wall_i the rate lost to a wall (Fernando & Parlett's differential qd; around a circle Grassmann, Taksar
& Heyman's elimination). The number of negative pivots is that of eigenvalues below tau, exactly so for rates that
are off by a few units in the last place, which moves no eigenvalue by more than as many relative to itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compilation import cached_njit
from ..eigenvalues import SMALLEST
from .operator import Cells

_TINY = np.finfo(float).eps
_CLOSE = 1e-3  # relative distance of eigenvalues whose functions are made orthogonal
_SOLVES = 3  # of inverse iteration: one would do, but for an unlucky start


@dataclass(frozen=True)
class Chain:
    """Cells in a row, the last of them next to the first where it wraps.

    Attributes
    ----------
    up, back : (n - 1,) arrays
        Rates from each cell to the next, and from the next to it.
    ring : float
        Rate from the first cell to the last, around the circle; 0 in a row.
    wall : (n,) array
        Rates at which cells lose to walls.
    share : (n,) array
        Weight of each cell over that of the last; 0 in a row.
    order : (n,) array
        The cells' places on their grid.
    """

    up: np.ndarray
    back: np.ndarray
    ring: float
    wall: np.ndarray
    share: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, cells: Cells) -> Chain:
        """Those of a line, as they lie, or of a circle."""
        around = cells.grid.axes[0].kind == "periodic"
        # the heaviest cell of a circle comes last: what the others pass on to it, it outweighs
        last = int(np.argmax(cells.log_weight)) if around else cells.grid.size - 1
        order = np.roll(np.arange(cells.grid.size), cells.grid.size - 1 - last)
        up, down = (rates[order] for rates in cells.bands())
        wall = np.zeros(len(order)) if cells.leak is None else cells.leak[order]
        weight = cells.log_weight[order]
        share = np.exp(np.minimum(weight - weight[-1], 700.0)) if around else np.zeros(len(order))
        return cls(up[:-1], down[1:], float(down[0]) if around else 0.0, wall, share, order)

    def counts(self, tau: np.ndarray) -> np.ndarray:
        """How many eigenvalues of -L are less than each of tau (m,), all positive."""
        return _counts(tau, self.up, self.back, self.ring, self.wall, self.share)

    def solve(self, tau: float, right: np.ndarray) -> np.ndarray:
        """H with (-L - tau) H = right, (n,)."""
        inverse, rings = eliminate(tau, self.up, self.back, self.ring, self.wall, self.share)
        result = right[:, None].copy()
        substitute(result, inverse, rings, self.back, self.up, self.share)
        return result[:, 0]


def chain_eigenpairs(cells: Cells, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k eigenvalues of L nearest zero, from the largest down, and eigenfunctions (k, n) of unit weighted norm.

    Where all walls are no-flux the first is the constant's, exactly 0. Others below 1e-300 in size are given as 0 as well.

    Examples
    --------
    >>> import attnflow as af
    >>> cells = af.DriftDiffusion(af.Density(af.Circle(), lambda x: 100 * np.cos(2 * x[..., 0]))).cells((2048,), (None,))
    >>> values, functions = chain_eigenpairs(cells, 3)
    >>> bool(0 > values[1] > -1e-170)
    True
    """
    conserved = cells.leak is None
    chain = Chain.of(cells)
    half = (cells.log_weight[chain.order] - cells.log_weight.max()) / 2
    sizes = _smallest(chain, np.arange(int(conserved), k), cells.bound)
    sizes = np.append(0.0, sizes) if conserved else sizes
    functions = np.empty((k, len(half)))
    functions[:, chain.order] = _functions(chain, sizes, half, conserved)
    return -sizes, functions


def _smallest(chain: Chain, index: np.ndarray, bound: float) -> np.ndarray:
    """The eigenvalues of -L with the given indices, in increasing order; 0 where less than SMALLEST.

    Each bracket is cut in nine at a time: as quick as in two for so short an inner loop.
    """
    low, high = np.full(len(index), SMALLEST), np.full(len(index), 2 * bound)
    below = chain.counts(low) > index
    share = np.arange(1, 9) / 9
    while ((high - low > 2 * _TINY * high) & ~below).any():
        bottom, top = np.log(low), np.log(high)
        even, geometric = low + np.outer(share, high - low), np.exp(bottom + np.outer(share, top - bottom))
        cuts = np.vstack([low, np.where(top - bottom > 1, geometric, even), high]).T
        less = chain.counts(cuts[:, 1:-1].ravel()).reshape(len(index), -1) > index[:, None]
        place = (np.arange(len(index)), (~less).sum(axis=1))
        low, high = cuts[:, :-1][place], cuts[:, 1:][place]
    return np.where(below, 0.0, (low + high) / 2)


def _functions(chain: Chain, sizes: np.ndarray, half: np.ndarray, conserved: bool) -> np.ndarray:
    """Eigenfunctions (k, n) by inverse iteration; `half` is half of log w. The norm of H sqrt(w) is 1."""
    root, rng = np.exp(half), np.random.default_rng(0)
    result = np.ones((len(sizes), len(root)))
    for j, size in enumerate(sizes):
        near = [i for i in range(j) if abs(size - sizes[i]) <= _CLOSE * size or i == 0 and conserved]
        if j == 0 and conserved:
            result[0] /= np.linalg.norm(root)
            continue
        shift = max(size, SMALLEST)
        here = rng.normal(size=len(root))
        for _ in range(_SOLVES):
            here = chain.solve(shift, shift * (here / np.abs(here).max()))
            here /= np.abs(here * root).max()
            for i in near:
                here -= ((here * root) @ (result[i] * root)) * result[i]
            here /= np.linalg.norm(here * root)
        result[j] = here
    return result


@cached_njit(error_model="numpy")
def _counts(tau, up, back, ring, wall, share):
    negative = np.zeros(len(tau), dtype=np.int64)
    own, around, last = wall[0] - tau, np.full(len(tau), ring), np.zeros(len(tau))
    both = own + around
    for i in range(len(up)):
        for m in range(len(tau)):
            pivot = up[i] + both[m]
            if pivot == 0:
                pivot = -_TINY * up[i]
            negative[m] += pivot < 0
            passed = 1 / pivot
            last[m] += share[i] * (own[m] * passed) * around[m]
            passed *= back[i]
            own[m] = own[m] * passed + (wall[i + 1] - tau[m])
            both[m] = both[m] * passed + (wall[i + 1] - tau[m])
            around[m] *= passed
    for m in range(len(tau)):
        negative[m] += own[m] + last[m] < 0
    return negative


@cached_njit(error_model="numpy")
def eliminate(tau, up, back, ring, wall, share):
    """One over each pivot (n,) of -L - tau for a number tau, real or complex, and what ties the cells to the last (n,)."""
    inverse, rings = np.full(len(wall), 0 * tau), np.full(len(wall), 0 * tau)
    own, around, last = wall[0] - tau, ring + 0 * tau, 0 * tau
    both = own + around
    for i in range(len(up)):
        pivot = up[i] + both
        if pivot == 0:
            pivot -= _TINY * up[i]
        inverse[i], rings[i] = 1 / pivot, around
        last += share[i] * (own * inverse[i]) * around
        passed = back[i] * inverse[i]
        own = own * passed + (wall[i + 1] - tau)
        both = both * passed + (wall[i + 1] - tau)
        around *= passed
    pivot = own + last
    inverse[-1] = 1 / (pivot if pivot != 0 else _TINY * tau)
    return inverse, rings


@cached_njit(error_model="numpy")
def substitute(x, inverse, rings, back, up, share):
    """Right sides x (n, c) turned into solutions. In a row, with `up` for `back` and `back` for `up`, those of L'."""
    n = len(inverse)
    for c in range(x.shape[1]):
        here, total = x[0, c], 0 * x[0, c]
        for i in range(n - 1):
            here *= inverse[i]
            total += share[i] * rings[i] * here
            here = x[i + 1, c] + back[i] * here
            x[i + 1, c] = here
        x[n - 1, c] = (here + total) * inverse[n - 1]
        here = x[n - 1, c]
        for i in range(n - 2, -1, -1):
            here = (x[i, c] + up[i] * here + rings[i] * x[n - 1, c]) * inverse[i]
            x[i, c] = here
