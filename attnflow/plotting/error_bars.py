"""Error bars from one set of tokens, over positions on a line or in the order of the features."""

from __future__ import annotations

import numpy as np

from .. import checks
from . import style

_FEW = 60  # outputs that are drawn each with its own bar
_WIDE = 1.96  # standard errors of a 95 % interval


def plot_error_bars(bars, ax=None, column: int = 0):
    """One column of the features with its 95 % intervals, and where two temperatures put the limit.

    Over positions of one coordinate; else the outputs stand in the order of their features.

    Parameters
    ----------
    bars : ErrorBars
    ax : Axes, optional
    column : int

    Returns
    -------
    Axes
    """
    column = checks.integer(column, "column", largest=bars.features.shape[1] - 1)
    ax = style.new_axes(ax)
    features, half = bars.features[:, column], _WIDE * bars.noise[:, column]
    line = bars.points.shape[1] == 1
    order = np.argsort(bars.points[:, 0] if line else features)
    x, features, half = (bars.points[order, 0] if line else np.arange(len(order))), features[order], half[order]
    if bars.bias is not None:
        limit = features - bars.bias[order, column]
        ax.plot(x, limit, ".", color="0.55", markersize=2.5, label="limit, from two temperatures")
    if len(x) > _FEW:
        ax.fill_between(x, features - half, features + half, color=style.ACCENT, alpha=0.25, linewidth=0, label="95 %")
        ax.plot(x, features, color=style.ACCENT, linewidth=1.2, label="feature")
    else:
        ax.errorbar(x, features, half, fmt="o", color=style.ACCENT, markersize=3.5, linewidth=1, label="feature, 95 %")
    count = bars.features.shape[1]
    what = "feature $H$" if count == 1 else f"feature $H$, column {column + 1} of {count}"
    where = style.coordinate(bars.angle) if line else "outputs, in the order of their features"
    style.finish(ax, f"Relative standard error {bars.noise_share:.2g}", where, what)
    ax.margins(y=0.12)  # room for the legend
    ax.legend(fontsize=7, frameon=False, loc="upper center", ncols=3, columnspacing=1.0, handletextpad=0.4)
    return ax
