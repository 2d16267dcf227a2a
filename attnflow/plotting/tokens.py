"""A user's own tokens through layers: spread, perplexity, and where the tokens lie."""

from __future__ import annotations

import numpy as np

from . import style
from .solutions import plot_solution


def plot_tokens(run, spread: np.ndarray, perplexity: np.ndarray, axes=None):
    """Three pictures of a propagated token set.

    Parameters
    ----------
    run : Solution
    spread : (T,) array
        Root mean square distance of the features from their mean, per saved layer.
    perplexity : (rows,) array
        Of the attention rows.
    axes : three Axes, optional

    Returns
    -------
    three Axes
    """
    first, second, third = style.new_axes(axes, count=3)
    first.plot(run.layers, spread, "o-", color=style.ACCENT, markersize=3.5, linewidth=1)
    if (spread > 0).all():
        first.set_yscale("log")
        style.plain_log(first.yaxis)
    verb = "grows" if spread[-1] > 1.01 * spread[0] else "shrinks" if spread[-1] < 0.99 * spread[0] else "stays"
    span = f"at {spread[0]:.3g}" if verb == "stays" else f"from {spread[0]:.3g} to {spread[-1]:.3g}"
    title = f"The spread {verb} {span}{style.cut_short(run)}"
    style.finish(first, title, "layer", "spread of the features (their unit)")
    second.hist(perplexity, bins=30, color="0.7")
    second.axvline(np.median(perplexity), color=style.ACCENT)
    style.finish(second, f"A token attends to {np.median(perplexity):.3g} tokens (median)", "perplexity (tokens)", "rows")
    plot_solution(run, third)
    return first, second, third
