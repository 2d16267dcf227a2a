"""The weights of a layer as a picture: who attends to whom, and who to nobody."""

from __future__ import annotations

import numpy as np

from .. import checks
from . import style

_FAINT = "#f6e3d7"
_DECADES = 1e-3  # of the largest weight: what is below has the lightest shade


def plot_weights(weights: np.ndarray, along: np.ndarray | None = None, ax=None):
    """Weights in shades of their logarithm, from light to dark; those that are zero stay white.

    Parameters
    ----------
    weights : (M, N) array
        Not negative, such as `layer.weights(tokens)`: rows are queries, columns keys.
    along : (N,) array, optional
        By which keys are sorted, such as a coordinate of the tokens; and queries, if there are N. As they come when None.
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.VonMises(1.0).sample(100, rng=0)
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), 0.05, af.TopK(10))
    >>> plot_weights(layer.weights(tokens), tokens[:, 0]).get_title(loc="left")
    '10 % of the weights are not zero'
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    weights = checks.array(weights, "weights", (None, None))
    if not weights.size or (weights < 0).any() or not weights.any():
        raise ValueError(f"weights must be nonnegative and not all zero, got {checks.short(weights)}")
    queries = keys = ""
    if along is not None:
        order, keys = np.argsort(checks.array(along, "along", (weights.shape[1],)), kind="stable"), ", sorted"
        weights = weights[:, order]
        if len(weights) == len(order):
            weights, queries = weights[order], keys
    ax = style.new_axes(ax)
    largest = weights.max()
    shades = LinearSegmentedColormap.from_list("weights", [_FAINT, style.ACCENT, style.INK]).with_extremes(bad="white")
    drawn = ax.imshow(
        np.ma.masked_equal(weights, 0),
        norm=LogNorm(_DECADES * largest, largest, clip=True),
        cmap=shades,
        interpolation="nearest",
    )
    share = float((weights > 0).mean())
    title = "No weight is zero" if share == 1 else f"{100 * share:.3g} % of the weights are not zero"
    style.finish(ax, title, f"key{keys}", f"query{queries}")
    ax.grid(False)
    ax.figure.colorbar(drawn, ax=ax, label="weight", fraction=0.046, pad=0.03)
    return ax
