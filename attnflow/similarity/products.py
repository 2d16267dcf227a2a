"""Pseudo-metrics made of inner products: the transformer's own -x'Wy, and the cosine."""

from __future__ import annotations

import numpy as np

from .. import checks
from .pairs import Pair
from .pseudometrics import PseudoMetric


class DotProduct(PseudoMetric):
    """f = -x'Wy (W None: the identity); softmax(x'Wy) of a transformer is epsilon = 1/2.

    Local only where x'Wx is constant and W symmetric positive definite, as on the unit sphere with
    W = 1: there |x - y|^2 / 2 = 1 + f, the metric is half the round one and the time step eps / 2.

    Parameters
    ----------
    W : (n, n) array, optional

    Examples
    --------
    >>> import attnflow as af
    >>> af.DotProduct()([[1.0, 0.0]], [[0.6, 0.8]])
    array([[-0.6]])
    """

    dim = None

    def __init__(self, W: np.ndarray | None = None) -> None:
        self.pair = Pair("inner", "affine")
        self.W = None if W is None else square(W, "W")
        self.symmetric = self.positive_definite = True  # x'y is a Gram matrix, and so is its exponential
        if self.W is not None:
            self.dim = len(self.W)
            self.symmetric = bool(np.abs(self.W - self.W.T).max() <= 1e-12 * np.abs(self.W).max())
            lowest = np.linalg.eigvalsh(self.W / 2 + self.W.T / 2)[0]
            self.positive_definite = self.symmetric and bool(lowest >= -1e-13 * np.abs(self.W).max())

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return x if self.W is None else product(x, self.W)

    def key_features(self, y: np.ndarray) -> np.ndarray:
        return y

    def metric(self, x: np.ndarray) -> np.ndarray:
        """W / 2 at points (..., n); it acts on the tangent space of {x'Wx = constant}."""
        x = checks.coordinates(x, "x", self.dim)
        W = np.eye(x.shape[-1]) if self.W is None else checks.spd(self.W, "W")
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

    def query_features(self, x: np.ndarray) -> np.ndarray:
        return _directions(x)[0] / np.sqrt(2)

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
