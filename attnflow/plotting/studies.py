"""Pictures of studies: predictions first, then the measured points on them."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle

import numpy as np

from . import style


def plot_study(result, axes=None):
    """Bias against temperature and noise against the number of tokens.

    Parameters
    ----------
    result : StudyResult
    axes : pair of Axes, optional

    Returns
    -------
    pair of Axes
    """
    left, right = style.new_axes(axes, count=2)
    _plot_bias(result, left)
    _plot_noise(result, right)
    return left, right


def plot_comparison(comparison, ax=None):
    """Relative error against time; returns the Axes."""
    ax = style.new_axes(ax)
    ax.plot(comparison.t, comparison.error, "o-", color=style.ACCENT, markersize=4, linewidth=1)
    style.finish(ax, "How far apart the two solutions are", r"time $t$ (metric length$^2$)", r"relative $L^2(p)$ difference")
    return ax


def _plot_bias(result, ax) -> None:
    predicted = result.predicted
    sizes = [n for n in result.study.sizes if np.isfinite(n)]
    epsilons = np.array(sorted(predicted.bias))
    bias = np.array([predicted.bias[e] for e in epsilons])
    noise = np.array([predicted.noise[e] for e in epsilons])
    colors = style.shades(len(sizes))
    for size, color in zip(sizes, colors):
        ax.plot(epsilons, np.sqrt(bias**2 + noise**2 / size), color=color, linewidth=1.2, zorder=1)
    if np.isfinite(bias).any():
        ax.plot(epsilons, bias, color=style.INK, linewidth=1.2, zorder=1, label="predicted (lines)")
    for size, color, marker in zip(sizes, colors, cycle(style.MARKERS[1:])):
        _points(ax, _spread(result, "epsilon", "error", size), color, marker, f"$N$ = {size:g}")
    measured = result.bias()
    ax.plot(*measured, "o", color=style.ACCENT, markersize=6, zorder=3, label=r"$N = \infty$")
    style.log_scale(ax)
    style.plain_ticks(ax.xaxis, measured[0])
    style.finish(
        ax, "Bias: the error follows the predicted lines", r"temperature $\epsilon$ (length$^2$)",
        r"error against the equation, relative $L^2(p)$",
    )
    ax.legend(fontsize=8, frameon=False)


def _plot_noise(result, ax) -> None:
    predicted = result.predicted
    epsilons = sorted({e for e, _, _ in result.noise()})
    sizes = np.array([n for n in result.study.sizes if np.isfinite(n)])
    colors = style.shades(len(epsilons))
    for epsilon, color in zip(epsilons, colors):
        ax.plot(sizes, predicted.noise[epsilon] / np.sqrt(sizes), color=color, linewidth=1.2, zorder=1)
    for epsilon, color, marker in zip(epsilons, colors, cycle(style.MARKERS)):
        _points(ax, _spread(result, "size", "deviation", epsilon), color, marker, rf"$\epsilon$ = {epsilon:g}")
    style.log_scale(ax)
    if len(sizes):
        style.plain_ticks(ax.xaxis, sizes)
        ax.legend(fontsize=8, frameon=False)
    style.finish(
        ax, r"Noise: the deviation falls as $N^{-1/2}$, as predicted", r"number of tokens $N$",
        r"deviation from $N = \infty$, relative $L^2(p)$",
    )


def _spread(result, along: str, quantity: str, fixed: float):
    """Root mean square over seeds and its standard error, against epsilon or size, the other one fixed."""
    other = "size" if along == "epsilon" else "epsilon"
    groups = defaultdict(list)
    for cell in result.cells:
        if cell["size"] != "inf" and cell[other] == fixed:
            groups[cell[along]].append(cell[quantity] ** 2)
    x = np.array(sorted(groups))
    mean = np.array([np.mean(groups[v]) for v in x])
    error = np.array([np.std(groups[v]) / np.sqrt(max(1, len(groups[v]) - 1)) for v in x])
    return x, np.sqrt(mean), error / (2 * np.sqrt(np.maximum(mean, 1e-300)))


def _points(ax, data, color, marker: str, label: str) -> None:
    x, y, error = data
    ax.errorbar(x, y, 1.96 * error, fmt=marker, color=color, markersize=4.5, linewidth=1, capsize=2, zorder=2, label=label)
