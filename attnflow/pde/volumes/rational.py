"""exp(t L) applied to a vector, exactly in time, for a sparse L whose spectrum is real and <= 0.

On the negative axis exp is a rational function of type (14, 14) to 8e-14 (Caratheodory-Fejer), so

    exp(t L) v  =  sum_j  c_j (t L - z_j)^-1 v,        z_j the 14 poles, c_j their residues:

one complex solve per conjugate pair, whatever t and however stiff L: by elimination along the line in one
dimension, by sparse factorisations in more.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import splu

from ...compilation import cached_njit

DEGREE = 14


class Exponential:
    """Advances dv/dt = (L + growth) v + source; factorisations are kept for the next step of the same length.

    Parameters
    ----------
    operator : (n, n) sparse array
        L, similar to a symmetric matrix with eigenvalues <= 0.
    source : (n, c) array or None
        Constant in time.
    growth : float
        A number, at least 0.

    Examples
    --------
    >>> decay = Exponential(sparse.diags_array([-1.0, -2.0]))
    >>> decay.step(np.ones((2, 1)), 1.0).ravel().round(8)
    array([0.36787944, 0.13533528])
    """

    def __init__(self, operator: sparse.sparray, source: np.ndarray | None = None, growth: float = 0.0) -> None:
        self._operator = sparse.csc_array(operator, dtype=complex)
        self._source, self._growth = source, growth
        self._length = np.nan
        self._factors: list = []

    def step(self, values: np.ndarray, length: float, keep: bool = False) -> np.ndarray:
        """v (n, c) after a time `length`; `keep` stores the factorisations, about 7 times the memory of one.

        A constant source s adds t phi(t L + t growth) s, and phi(z + a) = (e^(z + a) - 1) / (z + a) =
        e^a sum_j (c_j / (z_j + a)) / (z - z_j).
        """
        same = abs(length - self._length) <= 1e-13 * length
        factors = self._factors if same else (self._factor(z, length) for z in exponential_poles()[0])
        if keep and not same:
            factors = self._factors = list(factors)
            self._length = length
        result, grows = np.zeros_like(values), length * self._growth
        for pole, residue, factor in zip(*exponential_poles(), factors):
            right = values.astype(complex) if self._source is None else values + length / (pole + grows) * self._source
            result += 2 * np.real(residue * factor.solve(right))
        return np.exp(grows) * result

    def _factor(self, pole: complex, length: float):
        shifted = length * self._operator - pole * sparse.eye_array(self._operator.shape[0], format="csc")
        # the pattern is symmetric and so, up to a diagonal similarity, is the matrix: order it as such
        return splu(shifted.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1, options={"SymmetricMode": True})


class LineExponential:
    """The same for cells on a line or circle: dv_i/dt = up_i v_{i+1} + down_i v_{i-1} + (growth - loss_i) v_i + source_i.

    Indices wrap; where the line ends, the rate across the end is zero.

    Examples
    --------
    >>> ring = LineExponential(np.ones(3), np.ones(3), np.full(3, 2.0))
    >>> decayed = ring.step(np.array([[1.0], [0.0], [-1.0]]), 1.0)   # eigenvalue -3
    >>> np.allclose(decayed.ravel(), [np.exp(-3), 0, -np.exp(-3)], atol=1e-12)
    True
    """

    def __init__(
        self, up: np.ndarray, down: np.ndarray, loss: np.ndarray, source: np.ndarray | None = None, growth: float = 0.0
    ) -> None:
        self._bands = up, down, loss
        self._source, self._growth = source, growth

    def step(self, values: np.ndarray, length: float, keep: bool = False) -> np.ndarray:
        """v (n, c) after a time `length`; nothing is worth keeping."""
        source = np.zeros((len(values), 0)) if self._source is None else self._source
        poles, residues = exponential_poles()
        grows = length * self._growth
        pushes = length / (poles + grows)
        return np.exp(grows) * _step_line(*self._bands, source, np.ascontiguousarray(values), length, poles, residues, pushes)


@cached_njit(error_model="numpy")
def _step_line(up, down, loss, source, values, length, poles, residues, pushes):
    """Elimination without pivoting: every leading block of L has a real spectrum and the poles are not real.

    The corner entries of a ring are a change of rank one: T + x y', x = (g, 0, ..., up_n), y = (1, 0, ..., down_0 / g).
    """
    n, columns = values.shape
    result = np.zeros_like(values)
    inverse, factor, ring = np.empty(n, np.complex128), np.empty(n, np.complex128), np.empty(n, np.complex128)
    solved = np.empty((n, columns), np.complex128)
    wraps = down[0] != 0.0 or up[n - 1] != 0.0
    for q in range(len(poles)):
        first = -length * loss[0] - poles[q]
        g = -first if wraps else 0j * first
        corner = length * down[0]
        for i in range(n):
            pivot = -length * loss[i] - poles[q]
            right = 0j * pivot
            if wraps and i == 0:
                pivot -= g
                right = g
            if wraps and i == n - 1:
                pivot -= corner * length * up[n - 1] / g
                right = right + length * up[n - 1]
            below = 0j * pivot
            if i > 0:
                below = length * down[i] * inverse[i - 1]
                pivot -= below * length * up[i - 1]
                right = right - below * ring[i - 1]
            inverse[i], factor[i], ring[i] = 1 / pivot, below, right
            for c in range(columns):
                right = values[i, c] + 0j
                if source.shape[1]:
                    right += pushes[q] * source[i, c]
                if i > 0:
                    right -= below * solved[i - 1, c]
                solved[i, c] = right
        for i in range(n - 1, -1, -1):
            above = length * up[i]
            ring[i] = (ring[i] - above * ring[i + 1]) * inverse[i] if i < n - 1 else ring[i] * inverse[i]
            for c in range(columns):
                rest = solved[i, c] - above * solved[i + 1, c] if i < n - 1 else solved[i, c]
                solved[i, c] = rest * inverse[i]
        for c in range(columns):
            pull = 0j * poles[q]
            if wraps:
                pull = (solved[0, c] + corner / g * solved[n - 1, c]) / (1 + ring[0] + corner / g * ring[n - 1])
            for i in range(n):
                result[i, c] += 2 * (residues[q] * (solved[i, c] - pull * ring[i])).real
    return result


@lru_cache
def exponential_poles(degree: int = DEGREE) -> tuple[np.ndarray, np.ndarray]:
    """Poles and residues in the upper half plane of the best approximation of exp on (-inf, 0].

    The Caratheodory-Fejer construction of Trefethen, Weideman & Schmelzer, BIT 46 (2006) 653: map the
    half line to the unit circle, z = 9 (s - 1) / (s + 1) with s = Re w; the singular vectors number
    `degree` of the Hankel matrix of the Chebyshev coefficients hold the poles.
    """
    count, nodes, scale = 75, 1024, 9.0
    w = np.exp(2j * np.pi * np.arange(nodes) / nodes)
    s = w.real
    chebyshev = np.fft.fft(np.exp(scale * (s - 1) / (s + 1 + 1e-16))).real / nodes
    left, singular, right = linalg.svd(linalg.hankel(chebyshev[1 : count + 1]))
    u, v = left[::-1, degree], right[degree]
    quotient = np.fft.fft(u, nodes) / np.fft.fft(v, nodes)
    approximant = np.polyval(chebyshev[count::-1], w) - singular[degree] * w**count * quotient
    roots = np.roots(v)
    roots = roots[np.abs(roots) > 1]
    numerator = np.fft.fft(approximant * np.polyval(np.poly(roots), w)).real[degree::-1] / nodes
    poles = scale * (roots - 1) ** 2 / (roots + 1) ** 2
    residues = np.array([np.polyval(numerator, q) / np.prod(q - np.delete(roots, k)) for k, q in enumerate(roots)])
    residues *= 4 * poles / (roots**2 - 1)
    upper = poles.imag > 0
    return poles[upper], residues[upper]
