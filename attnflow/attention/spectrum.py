"""Eigenvalues and eigenvectors of a layer on its tokens: what many layers forget last, and which tokens belong together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import checks, display
from ..simplex import label_sets
from .bound import BoundLayer
from .eigenpairs import dense_real, dense_symmetric, largest_real, largest_symmetric
from .masks import Causal

_DENSE = 500  # tokens up to which a matrix is simpler
_TOLERANCE = 1e-10  # of residuals
_WARN = 1e-7
_ONE = 1e-10  # off one, up to which an eigenvalue of the weights counts as one
_SPAN = 1e-300  # smallest over largest weight; below, the matrix cannot be made symmetric
_TINY = 1e-6  # of the weights, below which an eigenvector is not extended off the tokens


class _Pair(NamedTuple):
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


class LayerSpectrum(_Pair):
    """(eigenvalues (k,) of A, right eigenvectors (k, N)), largest first, A being the layer with its residual step.

    Attributes
    ----------
    tokens : (N, n) array
    weight : (N,) array
        Sums to one; eigenvectors have unit norm in it. The conserved weight for symmetric f, in which they are
        orthogonal, 1 / N otherwise.
    residuals : (k,) array
        Measured norms of A v - lambda v.
    """

    tokens: np.ndarray
    weight: np.ndarray
    residuals: np.ndarray
    conserved = True  # rows of weights sum to one: constants stay
    _bound: BoundLayer

    def __new__(cls, eigenvalues, eigenvectors, weight: np.ndarray, residuals: np.ndarray, bound: BoundLayer):
        self = super().__new__(cls, eigenvalues, eigenvectors)
        self.tokens, self.weight, self.residuals, self._bound = bound.tokens, weight, residuals, bound
        return self

    def __getnewargs__(self):
        return self.eigenvalues, self.eigenvectors, self.weight, self.residuals, self._bound

    def __repr__(self) -> str:
        gap = f", gap {self.gap:.4g}" if len(self.eigenvalues) > 1 else ""
        return f"LayerSpectrum(k={len(self.eigenvalues)} eigenvalues on {len(self.tokens)} tokens{gap})"

    def _repr_html_(self) -> str:
        rows = [
            (k, display.word(value), display.word(rate)) for k, (value, rate) in enumerate(zip(self.eigenvalues, self.rates))
        ]
        return display.table(f"Spectrum of a layer on {len(self.tokens)} tokens", rows, ("mode", "eigenvalue", "rate (1/time)"))

    @property
    def rates(self) -> np.ndarray:
        """(lambda - 1) / layer.clock (k,): as `limit(layer, density).spectrum(k)` has them, up to bias and noise."""
        return (self.eigenvalues - 1) / self._bound.layer.clock

    @property
    def gap(self) -> float:
        """Rate at which features forget all but their mean: minus the real part of the second of `rates`.

        Raises
        ------
        ValueError
            If only the constant's eigenvalue was computed.
        """
        if len(self.eigenvalues) < 2:
            raise ValueError(f"k must be at least 2 to tell the spectral gap, got {len(self.eigenvalues)}")
        return float(-self.rates[1].real)

    def at(self, queries: np.ndarray) -> np.ndarray:
        """Eigenvectors off the tokens, by Nystroem's formula phi(q) = sum_j S(q, x_j) phi_j / mu.

        S are the weights of a query that is no token, mu their eigenvalue, residual step left out (Coifman & Lafon 2006,
        section 3.4, geometric harmonics).

        Parameters
        ----------
        queries : (M, n) array

        Returns
        -------
        (k, M) array

        Raises
        ------
        ValueError
            If an eigenvalue mu is below 1e-6 in size: what divides by it is made of rounding errors.
        """
        queries = self._bound.layer.f.check(queries, "queries")
        plain = _without_residual(self.eigenvalues, self._bound.layer.residual)
        tiny = np.abs(plain) < _TINY
        if tiny.any():
            first = int(np.argmax(tiny))
            raise ValueError(
                f"k must be at most {first} to extend all eigenvectors to queries: eigenvalue {first} of the weights is "
                f"{abs(plain[first]):.1g} in size, less than {_TINY:g}"
            )
        return (_attend(self._bound, self.eigenvectors.T, queries) / plain).T

    def metastable_sets(self, count: int | None = None) -> np.ndarray:
        """Labels 0, ..., count - 1 of the sets of tokens that exchange features slowest, (N,).

        The nearest corners of the simplex that the first `count` eigenvectors span (Weber & Galliat 2002; Deuflhard &
        Weber 2005). None counts the rates before the largest relative jump.

        Raises
        ------
        ValueError
            If count is not between 1 and the number of eigenvalues, or f or the mask is asymmetric.

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> tokens = np.random.default_rng(0).normal(size=(300, 1)) + np.repeat([0.0, 10.0], 150)[:, None]
        >>> spectrum = af.Attention(af.SquaredDistance(af.Euclidean(1)), 2.0).spectrum(tokens, 4)
        >>> np.bincount(spectrum.metastable_sets())
        array([150, 150])
        """
        if np.iscomplexobj(self.eigenvalues):
            raise ValueError("f must be symmetric, and the mask, for metastable sets, got complex eigenvectors")
        return label_sets(self.eigenvectors, np.maximum(1 - self.eigenvalues, _ONE), count)

    def plot(self, ax=None):
        """Draw the rates, with the gap between the constant's and the others; returns the Axes."""
        from ..plotting.spectra import plot_rates

        return plot_rates(self, ax)


def layer_spectrum(bound: BoundLayer, k: int, progress: bool = False) -> LayerSpectrum:
    """The k largest eigenvalues of a `BoundLayer`; see `Attention.spectrum`.

    For symmetric f and mask the weights S are self-adjoint in the conserved weight w, so w^(1/2) S w^(-1/2) is symmetric,
    whatever the normalisation.
    """
    layer, size = bound.layer, len(bound.tokens)
    symmetric = bound.self_adjoint
    weight = bound.conserved_weight() if symmetric else np.full(size, 1 / size)
    if weight.min() < _SPAN * weight.max():
        raise ValueError(
            f"epsilon must be larger for a spectrum on these tokens, got {layer.epsilon:g}: their conserved weights differ by "
            "more than numbers do"
        )
    dense, tol = size <= max(_DENSE, 5 * k + 150), max(_TOLERANCE, layer.rtol)
    root = np.sqrt(weight)

    def apply(v: np.ndarray) -> np.ndarray:
        return root[:, None] * bound.attend(v / root[:, None]).mean

    if dense:
        S = root[:, None] * bound.weights() / root
        plain, rows = dense_symmetric((S + S.T) / 2, k) if symmetric else dense_real(S, k)
    elif symmetric:
        plain, rows = largest_symmetric(apply, root, k, tol, progress)
    else:
        plain, rows = largest_real(apply, size, k, tol, progress)
    rows = _normalised(rows / root, weight)
    a = layer.residual
    residuals = a * np.sqrt((np.abs(_attend(bound, rows.T) - rows.T * plain) ** 2).T @ weight)
    _warn(bound, plain, residuals, k)
    return LayerSpectrum(1 + a * (plain - 1), rows, weight, residuals, bound)


def _attend(bound: BoundLayer, values: np.ndarray, queries: np.ndarray | None = None) -> np.ndarray:
    """Weighted means of real or complex values (N, k)."""
    if not np.iscomplexobj(values):
        return bound.attend(np.ascontiguousarray(values), queries).mean
    mean = bound.attend(np.concatenate([values.real, values.imag], axis=1), queries).mean
    return mean[:, : values.shape[1]] + 1j * mean[:, values.shape[1] :]


def _without_residual(eigenvalues: np.ndarray, residual: float) -> np.ndarray:
    return 1 - (1 - eigenvalues) / residual


def _normalised(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Unit weighted norm, positive at the first token where they exceed half their maximum."""
    size = np.abs(rows)
    rows, size = (part / np.sqrt(size**2 @ weight)[:, None] for part in (rows, size))
    first = np.argmax(size > 0.5 * size.max(axis=1, keepdims=True), axis=1)[:, None]
    return rows * (np.take_along_axis(rows, first, 1).conj() / np.take_along_axis(size, first, 1))


def _warn(bound: BoundLayer, plain: np.ndarray, residuals: np.ndarray, k: int) -> None:
    copies, rtol = int((np.abs(plain - 1) < max(_ONE, bound.layer.rtol)).sum()), bound.layer.rtol
    if copies > (1 if bound.mask is None else bound.mask.parts):
        checks.warn(
            f"eigenvalue 1 comes {copies} times{' at least' * (copies == k)}: the tokens fall into as many sets that do "
            "not attend to each other; epsilon is below their distance",
            checks.IsolatedTokensWarning,
        )
    if residuals.max() > max(_WARN, 10 * rtol):
        checks.warn(
            f"eigenvectors are good to a residual of {residuals.max():.1g} only; ask for fewer, or raise epsilon",
            checks.ConvergenceWarning,
        )
    if isinstance(bound.layer.mask, Causal):
        error = np.abs(plain[:, None] - bound.own_weights()).min(axis=1).max()
        if error > max(_WARN, 10 * rtol):
            checks.warn(
                f"eigenvalues are off by up to {error:.1g} at least: a causal layer is triangular, they are weights that tokens give "
                "themselves, and small residuals don't tell where a matrix is this far from normal; take those weights",
                checks.ConvergenceWarning,
            )
