"""A user's own tokens through layers: spread, perplexity, where the tokens lie, and how sure their features are."""

from __future__ import annotations

import numpy as np

from . import style
from .error_bars import plot_error_bars
from .solutions import plot_solution


def plot_tokens(run, spread: np.ndarray, perplexity: np.ndarray, axes=None, bars=None):
    """Three pictures of a propagated token set, and a fourth where its error bars are known.

    Parameters
    ----------
    run : Solution
    spread : (T,) array
        Root mean square distance of the features from their mean, per saved layer.
    perplexity : (rows,) array
        Of the attention rows.
    axes : three or four Axes, optional
    bars : ErrorBars, optional

    Returns
    -------
    three or four Axes
    """
    first, second, third, *rest = axes = style.new_axes(axes, count=3 + (bars is not None))
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
    for fourth in rest:
        plot_error_bars(bars, fourth)
    return tuple(axes)
