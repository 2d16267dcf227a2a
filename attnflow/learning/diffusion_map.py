"""Diffusion maps: coordinates of data from the slowest modes of an attention layer, as a scikit-learn estimator."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .. import checks
from ..attention import Attention, DensityCorrected
from ..geometry import Euclidean
from ..similarity import SquaredDistance

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError('DiffusionMap needs scikit-learn: pip install "attnflow[learning]"') from missing

_SAMPLE = 4000  # tokens whose neighbours choose epsilon


class DiffusionMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Coordinates Psi_t(x) = (lambda_1^t psi_1(x), ..., lambda_m^t psi_m(x)) of data (Coifman & Lafon 2006).

    lambda_j and psi_j are the largest eigenvalues and right eigenvectors of the attention layer with weights
    proportional to exp(-|x_i - x_j|^2 / (2 epsilon)) / q_j^alpha, q the row sums; the constant psi_0 is left out.
    Distances of these points are diffusion distances of t layers. Points off the data are mapped by Nystroem's formula.

    Parameters
    ----------
    n_components : int
        m, at most the number of samples less 3.
    epsilon : float or "auto"
        Temperature, in squared units of the data. "auto": its root, the width of the Gaussian, is half the median
        distance of (at most 4000 of) the samples to their ceil(sqrt(N)) nearest others.
    alpha : float
        Density correction: 1 (Laplace-Beltrami, whatever the sampling density), 1/2 (Fokker-Planck), 0 (softmax).
    t : float
        Layers, positive; need not be whole.

    Attributes
    ----------
    embedding_ : (N, n_components) array
        What `transform` gives for the data.
    eigenvalues_ : (n_components,) array
        lambda_1, lambda_2, ..., largest first.
    epsilon_ : float
    layer_ : Attention
    spectrum_ : LayerSpectrum
        With the constant's eigenvalue, the eigenvectors and their rates.
    n_features_in_ : int

    Raises
    ------
    ValueError, TypeError
        From `fit`, naming the parameter.

    Examples
    --------
    Points on a circle keep their order:

    >>> import attnflow as af, numpy as np
    >>> angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(200)])
    >>> embedding = af.DiffusionMap(epsilon=0.02).fit_transform(X)
    >>> turned = np.unwrap(np.arctan2(embedding[:, 1], embedding[:, 0]))
    >>> bool(np.all(np.diff(turned) > 0) or np.all(np.diff(turned) < 0))
    True
    """

    def __init__(self, n_components: int = 2, epsilon: float | str = "auto", alpha: float = 1.0, t: float = 1) -> None:
        self.n_components = n_components
        self.epsilon = epsilon
        self.alpha = alpha
        self.t = t

    def fit(self, X, y=None) -> DiffusionMap:
        """Compute the embedding of samples X (N, n); y is ignored. Returns the estimator."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X, y=None) -> np.ndarray:
        """The embedding (N, n_components) of the samples X (N, n)."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        size = len(X)
        m = checks.integer(self.n_components, "n_components", least=1)
        if m > size - 3:
            raise ValueError(f"n_components must be at most n_samples - 3, here n_samples={size}, got {m}")
        normalization, self._t = DensityCorrected(self.alpha), checks.positive(self.t, "t")
        automatic = isinstance(self.epsilon, str) and self.epsilon == "auto"
        self.epsilon_ = _automatic(X) if automatic else checks.positive(self.epsilon, "epsilon")
        self.layer_ = Attention(SquaredDistance(Euclidean(X.shape[1])), self.epsilon_, normalization)
        self.spectrum_ = self.layer_.spectrum(X, m + 1)
        self.eigenvalues_ = self.spectrum_.eigenvalues[1:]
        self.embedding_ = self._embed(X)
        return self.embedding_

    def transform(self, X) -> np.ndarray:
        """Coordinates (M, n_components) of points X (M, n)."""
        check_is_fitted(self)
        return self._embed(validate_data(self, X, dtype=np.float64, reset=False))

    def _embed(self, X: np.ndarray) -> np.ndarray:
        return self.spectrum_.at(X)[1:].T * self.eigenvalues_**self._t

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]


def _automatic(X: np.ndarray) -> float:
    """The square of half the median distance to the ceil(sqrt(N)) nearest others.

    Half the median *squared* distance is twice as much: among 2000 samples of the Swiss roll of scikit-learn its
    Gaussians reach from one turn to the next, and the first coordinate no longer follows the angle.
    """
    count = min(int(np.ceil(np.sqrt(len(X)))), len(X) - 1)
    some = X[np.unique(np.linspace(0, len(X) - 1, min(len(X), _SAMPLE)).astype(int))]
    distances = cKDTree(X).query(some, k=count + 1)[0][:, 1:]  # the nearest is the sample itself
    epsilon = float(np.median(distances) / 2) ** 2
    if epsilon == 0:
        raise ValueError("epsilon must be given for X: 'auto' would be 0, most of the nearest samples coincide")
    return epsilon
