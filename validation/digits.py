"""Real tokens: labels spread over handwritten digits by attention, as well as by the usual method.

The 1797 digits that come with scikit-learn are the tokens, their 64 pixels (0 to 16) the coordinates. A tenth
of them is labelled; many attention layers carry the labels on, the labelled tokens being set back after each:

    H <- A H,   H_i <- one-hot label of i for i labelled,   until no entry of H changes by more than 1e-3.

Density correction (alpha = 1) makes this the Dirichlet problem of the plain heat equation, with the labelled
digits as its boundary. The temperature is the one at which a token attends to 7 tokens, the neighbour number of
the baseline. Neither the temperature nor the number of layers has seen a label.
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.plotting import style

from . import Claim, Report

NEIGHBOURS = 7
TOL = 1e-3
MOST_LAYERS = 5000
METHODS = ("attention", "label propagation", "nearest neighbour")


def run(splits: int = 10) -> Report:
    """Accuracy on the unlabelled digits, for attention and for two methods of scikit-learn.

    Parameters
    ----------
    splits : int
        Random choices of the labelled tenth, stratified, from a fixed seed.

    Returns
    -------
    Report
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedShuffleSplit

    tokens, digits = load_digits(return_X_y=True)
    pairs = list(StratifiedShuffleSplit(n_splits=splits, train_size=0.1, random_state=0).split(tokens, digits))

    f = af.SquaredDistance(af.Euclidean(tokens.shape[1]))
    layer = af.Attention(f, af.epsilon_for_perplexity(f, tokens, NEIGHBOURS), af.DensityCorrected(1.0))
    weights = layer.weights(tokens)
    features, layers = propagate_labels(weights, digits, [labelled for labelled, _ in pairs])
    engine_gap = np.abs(layer(tokens, features[:, 0]) - weights @ features[:, 0]).max()

    accuracy = np.empty((splits, len(METHODS)))
    for k, (labelled, rest) in enumerate(pairs):
        guesses = features[rest, k].argmax(axis=1), *_baselines(tokens, digits, labelled, rest)
        accuracy[k] = [np.mean(guess == digits[rest]) for guess in guesses]
    return _report(accuracy, layer, layers, engine_gap, len(tokens), len(pairs[0][0]))


def propagate_labels(weights: np.ndarray, labels: np.ndarray, labelled: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Features after as many layers as they need to settle, all choices of labelled tokens at once.

    Parameters
    ----------
    weights : (N, N) array
        One attention layer, rows summing to one.
    labels : (N,) array of int
        Classes 0, 1, ...; only those of labelled tokens are used.
    labelled : list of arrays of int
        Indices of the labelled tokens, one array per split.

    Returns
    -------
    (N, splits, classes) array, int
        Features, and the number of layers, common to all splits.
    """
    clamped = np.zeros((len(labels), len(labelled), labels.max() + 1))
    known = np.zeros((len(labels), len(labelled), 1), dtype=bool)
    for k, rows in enumerate(labelled):
        clamped[rows, k, labels[rows]] = 1.0
        known[rows, k] = True
    features = clamped
    for layers in range(1, MOST_LAYERS + 1):
        attended = (weights @ features.reshape(len(labels), -1)).reshape(clamped.shape)
        before, features = features, np.where(known, clamped, attended)
        if np.abs(features - before).max() <= TOL:
            return features, layers
    raise RuntimeError(f"features still change by more than {TOL:g} after {MOST_LAYERS} layers")


def _baselines(tokens: np.ndarray, digits: np.ndarray, labelled: np.ndarray, rest: np.ndarray) -> list[np.ndarray]:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.semi_supervised import LabelPropagation

    partial = np.full(len(digits), -1)
    partial[labelled] = digits[labelled]
    spread = LabelPropagation(kernel="knn", n_neighbors=NEIGHBOURS, max_iter=20_000).fit(tokens, partial)
    nearest = KNeighborsClassifier(1).fit(tokens[labelled], digits[labelled])
    return [spread.transduction_[rest], nearest.predict(tokens[rest])]


def _report(accuracy: np.ndarray, layer: af.Attention, layers: int, engine_gap: float, tokens: int, labelled: int) -> Report:
    mean, error = accuracy.mean(axis=0), _standard_error(accuracy)
    best = 1 + int(np.argmax(mean[1:]))
    lead = accuracy[:, 0] - accuracy[:, best]
    rows = [[str(k), *(f"{a:.4f}" for a in row)] for k, row in enumerate(accuracy)]
    rows += [["mean", *(f"{a:.4f}" for a in mean)], ["standard error", *(f"{a:.4f}" for a in error)]]
    margin = _standard_error(lead)
    ahead = f"{lead.mean():+.4f} +- {margin:.4f}"
    claims = [
        Claim(
            f"accuracy less that of {METHODS[best]}, paired",
            ahead,
            "at least minus its standard error",
            bool(lead.mean() >= -margin),
        ),
        Claim(
            "one layer by the engine less the dense matrix product",
            f"{engine_gap:.0e}",
            "at most 1e-12",
            bool(engine_gap <= 1e-12),
        ),
    ]
    text = (
        f"{tokens} handwritten digits, {labelled} of them labelled, {len(accuracy)} random choices of these. "
        "Accuracy on the others.\n"
        "Attention: squared distance of raw pixels, density-corrected (alpha = 1), "
        f"epsilon = {layer.epsilon:.4g} (grey levels)^2 (median perplexity {NEIGHBOURS}),\n"
        f"{layers} layers (until no feature changes by more than {TOL:g}), labelled tokens reset after each.\n"
        f"Peers, from scikit-learn: LabelPropagation(kernel='knn', n_neighbors={NEIGHBOURS}), run until it converges, "
        "and KNeighborsClassifier(1)."
    )
    title = "Real digits: attention against label propagation"
    return Report(title, text, ["split", *METHODS], rows, claims, lambda ax: _draw(ax, accuracy))


def _draw(ax, accuracy: np.ndarray) -> None:
    """Accuracy per split, in the order of attention's; beside them the means, each with its standard error."""
    order = np.argsort(accuracy[:, 0], kind="stable")
    best = 1 + int(np.argmax(accuracy.mean(axis=0)[1:]))
    splits, ahead = np.arange(len(order)), int((accuracy[:, 0] > accuracy[:, best]).sum())
    for column, color, marker in zip(range(len(METHODS)), (style.ACCENT, style.INK, "0.6"), style.MARKERS):
        values, end = 100 * accuracy[order, column], len(order) + 0.2
        look = {"color": color, "marker": marker, "markersize": 5.5, "zorder": 3 - column / 10}
        ax.plot(splits, values, linewidth=0.8, **look)
        ax.errorbar(end, values.mean(), _standard_error(values), capsize=3, linewidth=1.2, **look)
        ax.annotate(METHODS[column], (end + 0.35, values.mean()), color=color, va="center", fontsize=9)
    ax.set_xticks([*splits, len(order) + 0.2], [*map(str, order), "mean"])
    ax.set_xlim(-0.5, len(order) + 3.5)
    title = f"Attention labels more digits correctly than {METHODS[best]} on {ahead} of {len(order)} splits"
    style.finish(ax, title, "split, ordered by the accuracy of attention", "accuracy on unlabelled digits (%)")


def _standard_error(values: np.ndarray) -> np.ndarray:
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))
