"""What the attention classifiers share: scikit-learn's methods, and what they say of the metric they learned."""

from __future__ import annotations

import os

import numpy as np

from .. import checks
from ..attention import Attention
from ..similarity import PseudoMetric
from . import model_files, propagation, training

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.metrics import accuracy_score
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError('attention classifiers need scikit-learn: pip install "attnflow[learning]"') from missing


class AttentionClassifier(ClassifierMixin, BaseEstimator):
    """The network of `propagation` behind scikit-learn's methods; subclasses say which attention, and how it is trained."""

    _attention: str

    def __init__(
        self,
        width: int = 10,
        blocks: int = 1,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 600,
        tol: float = 1e-6,
        n_iter_no_change: int = 50,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.width = width
        self.blocks = blocks
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.progress = progress

    def fit(self, X, y, edges=None):
        """Train on tokens X (N, n) with labels y (N,). Returns the estimator.

        Parameters
        ----------
        X : (N, n) array
        y : (N,) array
            Labels of at least two classes.
        edges : (E, 2) array of int, optional
            Query first: tokens attend along these only, to themselves where an edge says so. Several meshes are one
            graph of several parts.
        """
        self._check_parameters()
        y = validate_data(self, y=y)
        X = validate_data(self, X, dtype=np.float64)
        if len(y) != len(X):
            raise ValueError(f"y must have shape ({len(X)},), one label for each row of X, got {y.shape}")
        try:
            check_classification_targets(y)
            self.classes_, labels = np.unique(y, return_inverse=True)
        except TypeError:
            raise TypeError(f"y must hold labels that can be sorted, got {checks.short(y)}") from None
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes, got one class, {self.classes_.tolist()[0]!r}")
        edges = None if edges is None else _read_edges(edges, len(X))
        sizes = propagation.shapes(self._attention, X.shape[1], len(self.classes_), self.width, self.blocks)
        start = propagation.initial(sizes, check_random_state(self.random_state))
        self.parameters_, history = self._train(start, X, labels, edges)
        self.history_ = history.arrays()
        self.n_iter_ = len(history.loss)
        self.interrupted_ = history.interrupted
        self.graph_ = edges is not None
        self.states_ = propagation.forward(self.parameters_, self._attention, X, edges=edges)[0]
        return self

    def predict_proba(self, X, edges=None) -> np.ndarray:
        """Probabilities (M, classes) of tokens X (M, n).

        They attend to the training tokens and not to each other; after a fit on edges, to each other along `edges`
        (E, 2), which are then needed.
        """
        scores = self._forward(X, edges)[1]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, X, edges=None) -> np.ndarray:
        """The likeliest class (M,) of each token, see `predict_proba`."""
        scores = self._forward(X, edges)[1]
        return self.classes_[scores.argmax(axis=1)]

    def score(self, X, y, sample_weight=None, edges=None) -> float:
        """Accuracy on tokens X (M, n) with labels y (M,)."""
        return accuracy_score(y, self.predict(X, edges), sample_weight=sample_weight)

    @property
    def pseudometric_(self) -> PseudoMetric:
        """f of the first block on raw tokens (..., n), the linear map before it included."""
        check_is_fitted(self)
        return propagation.first_pseudometric(self.parameters_, self._attention)

    @property
    def epsilon_(self) -> float:
        """Its temperature, sqrt(width) / 2."""
        check_is_fitted(self)
        return propagation.temperature(self.parameters_)

    def attention(self, X, edges=None) -> np.ndarray:
        """Weights (M, N) of tokens X (M, n) on the training tokens in the first block, rows summing to one.

        After a fit on edges, (M, M) on each other. Refused above 2^26 entries.
        """
        X, edges = self._read(X, edges)
        f = propagation.pseudometric(self.parameters_, self._attention)
        layer, h = Attention(f, self.epsilon_, mask=edges), propagation.entry(self.parameters_)(X)
        return layer.weights(h) if self.graph_ else layer.weights(self.states_[0], h)

    def project(self, X, n: int = 2) -> np.ndarray:
        """The first n principal axes (M, n) of phi(X), those of the training tokens; of W_K h in self-attention.

        Signs are such that the largest entry of each axis is positive.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        n = checks.integer(n, "n", least=1, largest=self.states_[0].shape[1])
        features = propagation.pseudometric(self.parameters_, self._attention).key_features
        image = features(self.states_[0])
        centre = image.mean(axis=0)
        axes = np.linalg.eigh((image - centre).T @ (image - centre))[1].T[::-1][:n]
        largest = np.abs(axes).argmax(axis=1)
        axes = axes * np.sign(axes[np.arange(n), largest])[:, None]
        return (features(propagation.entry(self.parameters_)(X)) - centre) @ axes.T

    def save(self, path: str | os.PathLike) -> None:
        """Write the trained classifier to a safetensors file, which `attnflow.learning.load` reads.

        A RandomState is not kept; labels must be numbers or text.
        """
        check_is_fitted(self)
        model_files.write(path, self)

    def _forward(self, X, edges) -> tuple[list[np.ndarray], np.ndarray]:
        X, edges = self._read(X, edges)
        return propagation.forward(self.parameters_, self._attention, X, None if self.graph_ else self.states_, edges)

    def _read(self, X, edges) -> tuple[np.ndarray, np.ndarray | None]:
        """Tokens, and edges exactly where the network was trained on some."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        if (edges is not None) != self.graph_:
            with_or_without = "with" if self.graph_ else "without"
            raise ValueError(
                f"edges must be given if the fit had some, got a fit {with_or_without} edges; then tokens attend along them"
            )
        return X, None if edges is None else _read_edges(edges, len(X))

    def _check_parameters(self) -> None:
        for name in ("width", "blocks", "epochs", "n_iter_no_change"):
            checks.integer(getattr(self, name), name, least=1)
        checks.positive(self.learning_rate, "learning_rate")
        for name in ("weight_decay", "tol"):
            checks.nonnegative(getattr(self, name), name)

    def _train(self, start, X, labels, edges) -> tuple[dict[str, np.ndarray], training.History]:
        names = ("learning_rate", "weight_decay", "epochs", "tol", "n_iter_no_change", "progress")
        options = {name: getattr(self, name) for name in names}
        return training.by_adam(start, self._attention, getattr(self, "lipschitz", None), X, labels, edges, **options)


def _read_edges(value, size: int) -> np.ndarray:
    """Edges (E, 2) between `size` tokens, sorted, none twice, with a key for every query."""
    checks.array(value, "edges", (None, 2))
    edges = np.asarray(value)
    if edges.dtype.kind not in "iu":
        raise TypeError(f"edges must be integers, query first, got {checks.short(edges)}")
    if not (edges.min() >= 0 and edges.max() < size):
        raise ValueError(f"edges must be between tokens from 0 to {size - 1}, got {edges.min()} to {edges.max()}")
    blind = np.flatnonzero(np.bincount(edges[:, 0].astype(np.int64), minlength=size) == 0)
    if len(blind):
        raise ValueError(f"edges must let every token see some, got none from token {blind[0]}")
    return np.unique(edges.astype(np.int64), axis=0)
