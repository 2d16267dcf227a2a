"""Pseudo-metrics made of inner products: the transformer's own -x'Wy, and the cosine."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks, display
from .pairs import Pair
from .pseudometrics import PseudoMetric


class DotProduct(PseudoMetric):
    """f = -x'Wy, or f = -(W_Q x + bias).(W_K y): a transformer's softmax(x'Wy) is epsilon = 1/2, or sqrt(d_head) / 2 for
    its scaled scores.

    Local only where x'Wx is constant and W symmetric positive definite, as on the unit sphere with
    W = 1: there |x - y|^2 / 2 = 1 + f, the metric is half the round one and the time step eps / 2. For any other W many
    layers have no limit equation: `obstacle` says why, and what can be done.

    Parameters
    ----------
    W : (n, n) or (r, n) array, optional
        The identity when None; W_Q if W_K is given.
    W_K : (r, n) array, optional
        The factors of W = W_Q'W_K as networks store them: a pair then costs r products, not n.
    bias : (r,) array, optional
        Of the queries, added to W_Q x (without factors to W'x): a key bias bias'W_K y whatever the query. A bias of the keys
        would add to f what depends on x alone, which softmax does not see.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> af.DotProduct()([[1.0, 0.0]], [[0.6, 0.8]])
    array([[-0.6]])
    >>> W_Q, W_K = np.array([[1.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]])    # a head of one column on three
    >>> af.DotProduct(W_Q, W_K)([[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]])          # -(1 + 3) 5
    array([[-20.]])
    >>> af.DotProduct(W_Q, W_K, bias=[0.5])([[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]])    # -(1 + 3 + 0.5) 5
    array([[-22.5]])
    """

    dim = None

    def __init__(self, W: np.ndarray | None = None, W_K: np.ndarray | None = None, bias: np.ndarray | None = None) -> None:
        self.pair = Pair("inner", "affine")
        self.W: np.ndarray | None = None
        self.factors: tuple[np.ndarray, np.ndarray] | None = None
        self.symmetric = self.positive_definite = True  # x'y is a Gram matrix, and so is its exponential
        if W_K is not None:
            self.factors = _factors(W, W_K)
            self.dim = self.factors[0].shape[1]
        elif W is not None:
            self.W = square(W, "W")
            self.dim = len(self.W)
        self.bias = None if bias is None else self._of_queries(bias)
        if self.dim is not None:
            self._classify()

    def __repr__(self) -> str:
        matrices = self.factors or (() if self.W is None else (self.W,))
        return display.shown("DotProduct", *matrices, **({} if self.bias is None else {"bias": self.bias}))

    def _description_(self) -> dict[str, np.ndarray | None]:
        W, W_K = self.factors or (self.W, None)
        return {"W": W, "W_K": W_K, "bias": self.bias}

    @property
    def latex(self) -> str:
        if self.factors is None:
            left = "x^\\top" if self.W is None else f"x^\\top {display.latex_array(self.W, 'W')}"
            return f"f(x, y) = -{left} y" if self.bias is None else f"f(x, y) = -({left} + b^\\top) y"
        bias = "" if self.bias is None else " + b"
        return f"f(x, y) = -(W_Q x{bias})^\\top W_K y"

    @property
    def metric_latex(self) -> str:
        if self.factors is not None:
            half = r"\frac{1}{2} W_Q^\top W_K"
        else:  # |x| is constant where f = -x'y has a limit
            half = (
                r"\frac{1}{2} g_{\mathrm{round}}" if self.W is None else rf"\frac{{1}}{{2}} {display.latex_array(self.W, 'W')}"
            )
        return rf"{half}, \quad {self.latex}"

    def _of_queries(self, bias: np.ndarray) -> np.ndarray:
        if self.dim is None:
            self.W = np.eye(len(checks.array(bias, "bias", (None,))))
            self.dim = len(self.W)
        return checks.array(bias, "bias", (len(self.factors[0]) if self.factors else self.dim,)).astype(np.float64)

    def _classify(self) -> None:
        """What W is, from a matrix of at most twice its rank, in units of its largest entry."""
        if self.factors is not None:
            of_queries, of_keys = map(_in_units, self.factors)
            R = np.linalg.qr(np.concatenate([of_queries, of_keys]).T)[1]
            core = R[:, : len(of_queries)] @ R[:, len(of_queries) :].T
            core[np.abs(core) <= 1e-14 * len(core)] = 0.0  # factors that cancel leave rounding
        else:
            assert self.W is not None
            core = self.W
        core = _in_units(core)
        even, odd = (core + core.T) / 2, (core - core.T) / 2
        if np.abs(odd).max() <= 5e-13:
            odd[:] = 0.0
        eigenvalues = np.linalg.eigvalsh(even)
        lowest = 0.0 if eigenvalues[0] >= -1e-13 else float(eigenvalues[0] / abs(eigenvalues).max())
        rank = int((np.linalg.svd(core, compute_uv=False) > 1e-13 * len(core)).sum())
        self._parts = rank, float(np.linalg.norm(even)), float(np.linalg.norm(odd)), lowest
        self.symmetric = not odd.any() and not self._key_bias.any()
        self.positive_definite = self.symmetric and lowest == 0

    @property
    def _key_bias(self) -> np.ndarray:
        """c (n,) of f = -x'Wy - c'y."""
        if self.bias is None:
            return np.zeros(1)
        return self.bias if self.factors is None else self.bias @ self.factors[1]

    @property
    def obstacle(self) -> str | None:
        if self.dim is None:
            return None
        rank, even, odd, lowest = self._parts
        if odd:
            found = f"an antisymmetric part of norm {odd / np.hypot(even, odd):.2g} of W's"
            onward = (
                "f.symmetric_part() has one if W + W' is positive definite; f itself is smallest elsewhere, on the unit "
                "sphere at y = W'x / |W'x|, where each layer moves features at once"
            )
        elif lowest:
            found = f"an eigenvalue of {lowest:.2g} of the largest"
            onward = "along its vector tokens that differ attend to each other; add a multiple of the identity to W"
        elif rank < self.dim:
            found = f"rank {rank} of {self.dim}"
            onward = "tokens differ in columns that f does not see; map them to those it does, as tokens @ W_Q.T"
        elif self._key_bias.any():
            size = np.linalg.norm(self._key_bias)
            return f"bias must be None for f to have a local limit, got a key bias of slope {size:.3g} that draws all tokens one way"
        else:
            return None
        return f"W must be symmetric positive definite for f = -x'Wy to have a local limit, got {found}: {onward}"

    def symmetric_part(self) -> DotProduct:
        """f = -x'(W + W')y / 2 without a bias; factors stay factors, of twice the rank."""
        if self.factors is not None:
            return DotProduct(np.concatenate(self.factors) / 2, np.concatenate(self.factors[::-1]))
        return DotProduct(None if self.W is None else self.W / 2 + self.W.T / 2)

    def query_features(self, x: np.ndarray) -> np.ndarray:
        if self.factors is not None:
            x = product(x, self.factors[0].T)
        elif self.W is not None:
            x = product(x, self.W)
        return x if self.bias is None else x + self.bias

    def key_features(self, y: np.ndarray) -> np.ndarray:
        return y if self.factors is None else product(y, self.factors[1].T)

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, Any]:
        of_bias = () if self.bias is None else (of_queries.sum(axis=0),)
        if self.factors is not None:
            return of_queries @ self.factors[0] + of_keys @ self.factors[1], (of_queries.T @ x, of_keys.T @ x, *of_bias)
        if self.W is None:
            return of_queries + of_keys, None
        of_W = x.T @ of_queries
        return of_queries @ self.W.T + of_keys, (of_W, *of_bias) if of_bias else of_W

    def metric(self, x: np.ndarray) -> np.ndarray:
        """W / 2 at points (..., n); it acts on the tangent space of {x'Wx = constant}."""
        x = checks.coordinates(x, "x", self.dim)
        if self.obstacle:
            raise ValueError(self.obstacle)
        W = self.factors[0].T @ self.factors[1] if self.factors else np.eye(x.shape[-1]) if self.W is None else self.W
        if not np.isfinite(W).all():
            raise ValueError("W must be within the range of numbers, got factors whose product is not")
        level = np.einsum("...i,ij,...j->...", x, W, x)
        if np.ptp(level) > 1e-6 * np.abs(level).max():
            raise ValueError(
                f"x'Wx must be constant over the points for f = -x'Wy to have a local limit, got values from "
                f"{level.min():.4g} to {level.max():.4g}; normalise the tokens, or use Mahalanobis"
            )
        return np.broadcast_to(W / 2, (*x.shape, x.shape[-1]))


class Cosine(PseudoMetric):
    """f = 1 - x'y / (|x| |y|) = |x / |x| - y / |y||^2 / 2: half the squared chord between directions.

    Computed from the chord: one minus a cosine would leave nothing of small angles. The metric on unit vectors is half
    the round one. A zero vector has no direction and is refused.

    Examples
    --------
    >>> import attnflow as af
    >>> af.Cosine()([[2.0, 0.0]], [[0.0, 3.0]])
    array([[1.]])
    """

    dim = None

    def __init__(self) -> None:
        self.symmetric, self.positive_definite, self.pair = True, True, Pair("squared")

    def __repr__(self) -> str:
        return "Cosine()"

    @property
    def latex(self) -> str:
        return "f(x, y) = 1 - \\frac{x^\\top y}{|x| \\, |y|}"

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return _directions(x)[0] / np.sqrt(2)

    def features_vjp(self, x: np.ndarray, of_queries: np.ndarray, of_keys: np.ndarray) -> tuple[np.ndarray, None]:
        """Across x only: its length does not matter."""
        u, norm = _directions(x)
        of_features = (of_queries + of_keys) / np.sqrt(2)
        return (of_features - (of_features * u).sum(axis=1, keepdims=True) * u) / norm, None

    def metric(self, x: np.ndarray) -> np.ndarray:
        """(I - x x' / |x|^2) / (2 |x|^2): zero along x, half the round metric across it."""
        u, norm = _directions(checks.coordinates(x, "x", None))
        return (np.eye(u.shape[-1]) - u[..., :, None] * u[..., None, :]) / 2 / norm[..., None] / norm[..., None]


def _directions(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x / |x| and |x| (..., 1) for vectors (..., n) of any length: scaled by a power of two before they are squared."""
    _, exponent = np.frexp(abs(x).max(axis=-1, keepdims=True))
    scaled = np.ldexp(x, -exponent)
    norm = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    if (norm == 0).any():
        raise ValueError(f"tokens must not be zero vectors for Cosine, got one at index {int(norm.ravel().argmin())}")
    return scaled / norm, np.ldexp(norm, exponent)


def product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x (N, n) times a matrix, refused where that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        image = x @ matrix
    if not bool(abs(image).max(initial=0.0) < np.inf):
        largest = float(abs(x).max())
        raise ValueError(f"tokens must be smaller for their products to stay in range, got coordinates up to {largest:.3g}")
    return image


def square(matrix: np.ndarray, name: str) -> np.ndarray:
    """A square matrix; a number is one of one row."""
    matrix = np.atleast_2d(checks.array(matrix, name)).astype(np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    return matrix


def _factors(W_Q, W_K) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices (r, n)."""
    if W_Q is None:
        raise ValueError("W must be given beside W_K: the factor (r, n) of the queries")
    W_Q, W_K = (checks.array(factor, name).astype(np.float64) for factor, name in ((W_Q, "W"), (W_K, "W_K")))
    for factor, name in ((W_Q, "W"), (W_K, "W_K")):
        if factor.ndim != 2 or factor.size == 0:
            raise ValueError(f"{name} must be a factor of shape (r, n), got shape {factor.shape}")
    if W_Q.shape != W_K.shape:
        raise ValueError(f"W_K must have the shape of W, {W_Q.shape}, got {W_K.shape}")
    return W_Q, W_K


def _in_units(matrix: np.ndarray) -> np.ndarray:
    """Scaled by a power of two to entries up to about one."""
    return np.ldexp(matrix, -np.frexp(np.abs(matrix).max())[1])
