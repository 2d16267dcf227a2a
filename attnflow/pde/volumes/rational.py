"""exp(t L) applied to a vector, exactly in time, for a sparse L whose spectrum is real and <= 0.

On the negative axis exp is a rational function of type (14, 14) to 8e-14 (Caratheodory-Fejer), so

    exp(t L) v  =  sum_j  c_j (t L - z_j)^-1 v,        z_j the 14 poles, c_j their residues:

one complex solve per conjugate pair, whatever t and however stiff L: by elimination without subtraction in one
dimension, by sparse factorisations in more.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import splu

from ...compilation import cached_njit
from . import chain
from .chain import Chain, eliminate, substitute

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
    """The same for the cells of a line or circle, whose slowest modes it knows relative to themselves.

    Parameters
    ----------
    line : Chain
    source : (n, c) array or None
        Constant in time.
    growth : float
        A number, at least 0.
    adjoint : bool
        Of L' in its place, for cells in a row: what they exchange are masses.

    Examples
    --------
    >>> pair = Chain(np.array([1e-9]), np.array([1e-9]), 0.0, np.zeros(2), np.zeros(2), np.arange(2))
    >>> LineExponential(pair).step(np.array([[1.0], [-1.0]]), 0.5e9).ravel().round(8)   # eigenvalue -2e-9
    array([ 0.36787944, -0.36787944])
    """

    def __init__(self, line: Chain, source: np.ndarray | None = None, growth: float = 0.0, adjoint: bool = False) -> None:
        self._line, self._source, self._growth = line, source, growth
        self._passes = (line.up, line.back) if adjoint else (line.back, line.up)

    def step(self, values: np.ndarray, length: float, keep: bool = False) -> np.ndarray:
        """v (n, c) after a time `length`; nothing is worth keeping."""
        line = self._line
        source = np.zeros((len(values), 0)) if self._source is None else self._source
        poles, residues = exponential_poles()
        grows = length * self._growth
        pushes = length / (poles + grows)
        rates = line.up, line.back, line.ring, line.wall, line.share
        result = np.empty_like(values)
        result[line.order] = _step_line(
            *rates, *self._passes, source[line.order], values[line.order], length, poles, residues, pushes
        )
        return np.exp(grows) * result


@cached_njit((chain.__file__,), error_model="numpy")
def _step_line(up, back, ring, wall, share, forward, backward, source, values, length, poles, residues, pushes):
    """(t L - z)^-1 v = (-L - tau)^-1 tau v / z with tau = -z / t: every leading block of L has a real spectrum, z is not."""
    result, solved = np.zeros_like(values), np.empty(values.shape, np.complex128)
    for q in range(len(poles)):
        tau = -poles[q] / length
        inverse, rings = eliminate(tau, up, back, ring, wall, share)
        for i in range(len(values)):
            for c in range(values.shape[1]):
                solved[i, c] = tau * (values[i, c] + pushes[q] * source[i, c] if source.shape[1] else values[i, c])
        substitute(solved, inverse, rings, forward, backward, share)
        result += 2 * (residues[q] / poles[q] * solved).real
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
