"""Classifiers that learn what attends to what: metric-attention, L2 self-attention and self-attention for scikit-learn."""

from __future__ import annotations

import os

import numpy as np

from .. import checks
from . import model_files, training
from .estimator import AttentionClassifier
from .lbfgs import by_lbfgs


class MetricAttention(AttentionClassifier):
    """Classifier by metric-attention: tokens attend by |phi(x) - phi(y)|^2 of a learned map phi (Ruan & Zhang 2024).

    Linear map, `blocks` times h + softmax(logits) V h, linear map: logits -|phi(h_i) - phi(h_j)|^2 / sqrt(width), with
    phi(h) = h + W_2 tanh(W_1 h + b_1) + b_2. Cross-entropy of all tokens at once, by Adam, in float32 and O(N) memory.
    Everything after the fit is NumPy in float64. Tokens are taken as they are: scale them before, as in a Pipeline.

    Parameters
    ----------
    width : int
        Columns of the states, and of W_1.
    blocks : int
    learning_rate, weight_decay : float
        Of Adam; the decay is added to the gradient.
    epochs : int
        Most steps.
    lipschitz : float, optional
        In (0, 1): bounds the product of the spectral norms of W_1 and W_2, so that phi is injective whatever is learned, on
        raw tokens where the linear map before it is, which takes a width of their columns at least. Without it phi folds: distant tokens of a class come to lie near each other, and no equation holds there.
    tol : float
        Training stops early once the loss has not fallen by this for `n_iter_no_change` epochs.
    n_iter_no_change : int
    random_state : int, RandomState or None
        Of the parameters at the start. An int gives the same model each time, bit for bit on one machine.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    classes_ : (classes,) array
    pseudometric_ : SquaredMap
        f of the first block on raw tokens, linear map included, with its exact Jacobian; goes straight into `Attention`.
    epsilon_ : float
        Its temperature, sqrt(width) / 2.
    history_ : dict
        "loss" and "accuracy" on the training tokens, arrays (n_iter_,).
    n_iter_ : int
    interrupted_ : bool
        Whether Ctrl-C ended the training before its time.
    parameters_ : dict
        Arrays by name, as in `networks.PropagationNetwork`; W_2 within its bound.
    states_ : list of (N, width) arrays
        The training tokens before each block, which tokens to predict attend to.
    graph_ : bool
        Whether the fit had edges.
    n_features_in_ : int

    Raises
    ------
    ValueError, TypeError
        From `fit`, naming the argument; from `predict` for other columns, or edges where the fit had none.
    ImportError
        From `fit`, without PyTorch.

    Warns
    -----
    ConvergenceWarning
        From `fit`, if it was interrupted: what was learned until then is kept.

    Examples
    --------
    See `L2Attention`, which can be trained without PyTorch; then `MetricAttention(random_state=0).fit(X, y)` alike.
    """

    _attention = "metric"

    def __init__(
        self,
        width: int = 10,
        blocks: int = 1,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 600,
        lipschitz: float | None = None,
        tol: float = 1e-6,
        n_iter_no_change: int = 50,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            width,
            blocks,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epochs=epochs,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            progress=progress,
        )
        self.lipschitz = lipschitz

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.lipschitz is not None and not 0 < checks.real(self.lipschitz, "lipschitz") < 1:
            raise ValueError(f"lipschitz must be in (0, 1), got {self.lipschitz!r}")


class L2Attention(AttentionClassifier):
    """Classifier by L2 self-attention: logits -|Q (h_i - h_j)|^2 / sqrt(width).

    Parameters
    ----------
    solver : {"adam", "lbfgs"}
        "lbfgs": scipy's L-BFGS-B on the exact gradient in float64, without PyTorch. `epochs` is then its most iterations,
        `tol` the largest entry of the gradient to stop at; `learning_rate` and `n_iter_no_change` do nothing. The
        same `random_state` is the same start for both.
    width, blocks, learning_rate, weight_decay, epochs, tol, n_iter_no_change, random_state, progress
        As in `MetricAttention`, and so are attributes and errors.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow.learning import L2Attention
    >>> X = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8)), axis=-1).reshape(-1, 2)
    >>> y = np.where(X[:, 0] > 0, "right", "left")
    >>> model = L2Attention(solver="lbfgs", random_state=0).fit(X, y)
    >>> model.predict([[-0.4, 3.0], [0.4, -3.0]])
    array(['left', 'right'], dtype='<U5')
    >>> model.attention(X[:5]).shape, model.pseudometric_.metric(X[:5]).shape
    ((5, 64), (5, 2, 2))
    """

    _attention = "l2"

    def __init__(
        self,
        width: int = 10,
        blocks: int = 1,
        *,
        solver: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 600,
        tol: float = 1e-6,
        n_iter_no_change: int = 50,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            width,
            blocks,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epochs=epochs,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            progress=progress,
        )
        self.solver = solver

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.choice(self.solver, "solver", ("adam", "lbfgs"))

    def _train(self, start, X, labels, edges) -> tuple[dict[str, np.ndarray], training.History]:
        if self.solver == "adam":
            return super()._train(start, X, labels, edges)
        options = {name: getattr(self, name) for name in ("weight_decay", "epochs", "tol", "progress")}
        return by_lbfgs(start, X, labels, edges, **options)


class SelfAttention(AttentionClassifier):
    """Classifier by self-attention: logits (Q h_i).(K h_j) / sqrt(width).

    Parameters, attributes and errors are those of `MetricAttention`, without `lipschitz`. `pseudometric_` is a
    `DotProduct` with bias.
    """

    _attention = "self"


def load(path: str | os.PathLike) -> AttentionClassifier:
    """The classifier that its method `save` wrote.

    Raises
    ------
    ValueError
        In one line that begins with `path`: damaged, or its parts do not fit each other.
    OSError
        If there is no such file, or it may not be read.

    Examples
    --------
    >>> import tempfile
    >>> from attnflow.learning import L2Attention, load
    >>> model = L2Attention(solver="lbfgs", random_state=0).fit([[0.0], [0.2], [0.8], [1.0]], [3, 3, 7, 7])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.safetensors")
    ...     load(f"{folder}/model.safetensors").predict([[0.9]])
    array([7])
    """
    kinds = (MetricAttention, L2Attention, SelfAttention)
    return model_files.read(path, {kind.__name__: kind for kind in kinds})
