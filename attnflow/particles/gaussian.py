"""Tokens of a Gaussian law, infinitely many, that move: they stay Gaussian, and their law is known to machine precision.

If f is quadratic, weights are exp(l) with l = y'B x + c'y - y'C y / 2 + d'x - x'D x / 2, the tokens y are from N(a, S), and
what a query x attends to is affine: with the bias of keys as Gaussian, exp(e'y - y'E y / 2), and T = C + E,

    E[y | x] = M x + b,    M = (1 + S T)^-1 S B,    b = a + (1 + S T)^-1 S (c + e - T a).

Row sums are Gaussian in x (DensityCorrected), column sums in y (column). Sinkhorn's joint law of x and y has the margins
N(a, S) and the correlations U diag(r) V', where S^(1/2) B S^(1/2) = U diag(k) V' and r / (1 - r^2) = k. Source: Castin,
Ablin, Carrillo & Peyre 2025 (softmax); derived for this package (the others).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import capacity, checks, display
from ..attention import Attention, Column, DensityCorrected, MultiHead, Sinkhorn, Softmax, heads_of
from ..attention.heads import check_columns
from ..attention.masks import Causal
from ..geometry import Euclidean
from ..similarity import PseudoMetric
from .blocks import TOO_LARGE

_QUADRATIC = 1e-9  # how far f may be from quadratic, of its largest value
_PROBES = 32  # points at which it is asked
_CANCELLED = 1e-13  # of the largest of its parts: rounding errors far from zero
_SYMMETRIC = 1e-12


class GaussianRun(NamedTuple):
    """The law N(mean, cov) of tokens after 0, 1, ... layers.

    Attributes
    ----------
    mean : (layers + 1, n) array
    cov : (layers + 1, n, n) array
    status : int
        0 when finished; -1 where the law grew beyond numbers or weights had no sum: the layers before are here.
    message : str
    """

    mean: np.ndarray
    cov: np.ndarray
    status: int
    message: str

    def __repr__(self) -> str:
        return display.cut(f"GaussianRun({len(self.mean) - 1} layers, {self.mean.shape[1]} coordinates, {self.message!r})")


@dataclass(frozen=True, eq=False)
class GaussianTokens:
    """Infinitely many tokens of the law N(mean, cov) in flat space.

    Parameters
    ----------
    mean : (n,) array
    cov : (n, n) array
        Symmetric positive semidefinite.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> import attnflow as af
    >>> layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), epsilon=0.1)
    >>> run = af.GaussianTokens([0.0], [[1.0]]).evolve(layer, layers=2)
    >>> run.cov[:, 0, 0].round(8)
    array([1.        , 0.82644628, 0.65766299])
    """

    mean: np.ndarray
    cov: np.ndarray

    def __repr__(self) -> str:
        return display.shown("GaussianTokens", self.mean, self.cov)

    def __post_init__(self) -> None:
        mean = checks.array(self.mean, "mean", (None,)).astype(float)
        cov = checks.array(self.cov, "cov", (len(mean), len(mean))).astype(float)
        scale = np.abs(cov).max()
        if np.abs(cov - cov.T).max() > _SYMMETRIC * scale or np.linalg.eigvalsh(cov)[0] < -_SYMMETRIC * scale:
            raise ValueError(f"cov must be symmetric positive semidefinite, got {checks.entries(cov)}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", (cov + cov.T) / 2)

    def evolve(self, layer: Attention | MultiHead, layers: int, value_matrix: np.ndarray | None = None) -> GaussianRun:
        """Their law after 0, ..., `layers` layers x <- x + a V (A x - x), or x + a (sum_i A_i x W_i - x), as `evolve` has them.

        Parameters
        ----------
        layer : Attention or MultiHead
            With f quadratic in both tokens: DotProduct, Mahalanobis, SquaredDistance of Euclidean space, an own PseudoMetric
            such as |Q x - K y|^2. Normalization softmax, Sinkhorn, DensityCorrected or column. A causal mask changes
            nothing but where the first tokens are: all others see tokens of the same law; with softmax only.
        layers : int
        value_matrix : (n, n) array, optional
            V; None is the identity, and what several heads take.

        Returns
        -------
        GaussianRun

        Raises
        ------
        ValueError, TypeError
            Naming the argument, before any work.

        Examples
        --------
        Values that turn by a right angle turn the law:

        >>> import attnflow as af
        >>> layer = af.Attention(af.Mahalanobis([[1.0, 0.0], [0.0, 1.0]]), epsilon=1.0, residual=0.5)
        >>> run = af.GaussianTokens([0.0, 0.0], [[2.0, 0.0], [0.0, 0.5]]).evolve(layer, 3, [[0.0, -1.0], [1.0, 0.0]])
        >>> run.cov[-1].round(3)
        array([[ 2.069, -0.471],
               [-0.471,  0.766]])
        """
        n = len(self.mean)
        weights = [_read(head, self.mean, self.cov) for head in heads_of(layer)]
        layers = checks.integer(layers, "layers")
        if isinstance(layer, MultiHead):
            if value_matrix is not None:
                raise ValueError(
                    f"value_matrix must be None for MultiHead, whose mixing holds it, got {checks.short(value_matrix)}"
                )
            if layer.token_mixing is not None:
                raise ValueError(
                    f"layer must not mix tokens, which are infinitely many, got W_A of shape {layer.token_mixing.shape}"
                )
            check_columns(layer, n, "mean", again=True)
            values = [W * np.eye(n) if W.ndim == 0 else W.T for W in layer.mixing]
            own = np.eye(n)
        else:
            own = np.eye(n) if value_matrix is None else checks.array(value_matrix, "value_matrix", (n, n)).astype(float)
            values = [own]
        capacity.ends(layers, "layers", 1e-5 + 1e-9 * n**2, "layers")
        capacity.fits(8 * (n + 1) * n * (layers + 1), "layers")
        a, S, status, message = self.mean, self.cov, 0, "finished"
        means, covs = [a], [S]
        for k in range(layers):
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    a, S = _step(layer, weights, values, own, a, S)
            except _Unbounded as error:
                status, message = -1, f"stopped after {k} of {layers} layers, which are here: {error}"
                break
            means.append(a)
            covs.append(S)
        return GaussianRun(np.array(means), np.array(covs), status, message)


class _Unbounded(ArithmeticError):
    """A law that is none."""


def _step(layer, weights: list[_Weights], values: list[np.ndarray], own: np.ndarray, a: np.ndarray, S: np.ndarray):
    """a, S after a layer x <- J x + j."""
    moved, shift = -own, np.zeros_like(a)
    for head, w, V in zip(heads_of(layer), weights, values):
        M, b = _attended(head.normalization, w, a, S)
        moved, shift = moved + V @ M, shift + V @ b
    J = np.eye(len(a)) + layer.residual * moved
    a, S = J @ a + layer.residual * shift, J @ S @ J.T
    if not (np.isfinite(a).all() and np.isfinite(S).all()):
        raise _Unbounded(TOO_LARGE)
    return a, (S + S.T) / 2


class _Weights(NamedTuple):
    """log K(x, y) = y'B x + c'y - y'C y / 2 + d'x - x'D x / 2, but for a constant."""

    B: np.ndarray
    C: np.ndarray
    c: np.ndarray
    D: np.ndarray
    d: np.ndarray

    def transposed(self) -> _Weights:
        return _Weights(self.B.T, self.D, self.d, self.C, self.c)

    def row_sums(self, a: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F, f of the logarithm f'x - x'F x / 2 of the mean of K(x, y) over y."""
        P = _posterior(S, self.C)
        return self.D - self.B.T @ P @ self.B, self.d + self.B.T @ (a + P @ (self.c - self.C @ a))


def _attended(rule, w: _Weights, a: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M, b of E[y | x] = M x + b."""
    if isinstance(rule, Sinkhorn):
        root = _root(S)
        U, k, _ = np.linalg.svd(root @ w.B @ root)
        M = root @ (U * (2 / (1 + np.sqrt(1 + 4 * k**2)))) @ U.T @ root @ w.B
        return M, a - M @ a
    T, t = w.C, w.c
    if isinstance(rule, (Column, DensityCorrected)):
        alpha = rule.alpha if isinstance(rule, DensityCorrected) else 1.0
        F, f = (w.transposed() if isinstance(rule, Column) else w).row_sums(a, S)
        T, t = T - alpha * F, t - alpha * f
    P = _posterior(S, T)
    return P @ w.B, a + P @ (t - T @ a)


def _posterior(S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """(S^-1 + T)^-1 = S^(1/2) (1 + S^(1/2) T S^(1/2))^-1 S^(1/2), S singular or not."""
    root = _root(S)
    inner = np.eye(len(S)) + root @ T @ root
    if not np.isfinite(inner).all():
        raise _Unbounded(TOO_LARGE)
    if np.linalg.eigvalsh((inner + inner.T) / 2)[0] <= 0:
        raise _Unbounded("weights grow so fast with y that they have no sum over tokens of this covariance")
    return root @ np.linalg.solve(inner, root)


def _root(S: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(S)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _read(layer: Attention, mean: np.ndarray, cov: np.ndarray) -> _Weights:
    """What a layer's weights are made of, or a refusal."""
    f, rule = layer.f, layer.normalization
    if not isinstance(rule, (Softmax, Sinkhorn, DensityCorrected, Column)):
        raise ValueError(f"normalization must be softmax, Sinkhorn, DensityCorrected or column for Gaussian tokens, got {rule}")
    if layer.mask is not None and not (isinstance(layer.mask, Causal) and isinstance(rule, Softmax)):
        raise ValueError(
            f"mask must be None, or causal with softmax, for Gaussian tokens, got {layer.mask!r} with {rule}: what tokens see "
            "must be of their own law"
        )
    if f.space is not None and not isinstance(f.space, Euclidean):
        raise ValueError(f"f must live on Euclidean space for Gaussian tokens, got {f.space}")
    f.check(mean[None], "mean")
    w = _quadratic(f, mean, cov, layer.epsilon)
    if isinstance(rule, Sinkhorn) and rule.needs_symmetry:
        scale = max(np.abs(part).max() for part in w)
        if max(np.abs(w.B - w.B.T).max(), np.abs(w.C - w.D).max(), np.abs(w.c - w.d).max()) > _QUADRATIC * scale:
            raise ValueError(f"f must be symmetric for Sinkhorn, got {f}; use Sinkhorn(potentials=2)")
    return w


def _quadratic(f: PseudoMetric, mean: np.ndarray, cov: np.ndarray, epsilon: float) -> _Weights:
    """The coefficients of -f / (2 eps), from its values at unit vectors and their sums, and a check elsewhere and where
    the tokens are."""
    n = len(mean)
    units = np.eye(n)
    i, j = np.triu_indices(n, 1)
    origin, pairs = np.zeros((1, n)), units[i] + units[j]
    capacity.fits(8 * len(pairs) * (n + 1), "mean")

    def one_sided(values) -> tuple[np.ndarray, np.ndarray]:
        """Slope and Hessian at zero of a quadratic function of points."""
        ahead, back = values(units) - zero, values(-units) - zero
        hessian = np.diag(ahead + back)
        if n > 1:
            hessian[i, j] = hessian[j, i] = values(pairs) - zero - ahead[i] - ahead[j]
        return (ahead - back) / 2, hessian

    zero = float(f(origin, origin)[0, 0])
    of_x, in_x = one_sided(lambda x: f(x, origin)[:, 0])
    of_y, in_y = one_sided(lambda y: f(origin, y)[0])
    both = f(units, units) - f(units, origin) - f(origin, units) + zero
    spread = np.random.default_rng(0).normal(scale=2.0, size=(2, _PROBES, n))
    for x, y in (spread, mean + spread @ _root(cov), mean + 3 * spread @ _root(cov)):
        parts = [np.broadcast_to(zero, (len(x), len(y))), x @ both @ y.T]
        for points, slope, hessian, axis in ((x, of_x, in_x, 1), (y, of_y, in_y, 0)):
            parts.append(np.expand_dims(points @ slope + np.einsum("ki,ij,kj->k", points, hessian, points) / 2, axis))
        expected = f(x, y)
        allowed = _QUADRATIC * max(np.abs(expected).max(), np.abs(both).max())
        allowed += _CANCELLED * max(np.abs(part).max() for part in parts)
        if not np.abs(sum(parts) - expected).max() <= allowed:
            raise ValueError(f"f must be quadratic in both tokens for Gaussian ones to stay Gaussian, got {f}")
    unit = -1 / (2 * epsilon)
    return _Weights(unit * both.T, -unit * in_y, unit * of_y, -unit * in_x, unit * of_x)
