"""Pictures of studies: predictions first, then the measured points on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from textwrap import fill
from typing import NamedTuple

import numpy as np

from . import style

_CLOSE = 0.15  # off one, up to which measured over predicted is called agreement
_BELOW = 1e-3  # of the points: predictions below are not of what the points show, and not drawn
_ROUND_OFF = 1e-10  # of the features, in predictions and deviations


def plot_study(result, axes=None):
    """Bias against temperature and noise against the number of tokens; the titles say what was found.

    Predictions are drawn as lines where there are any; where there are none, a note says why.

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
    title = f"The solutions differ by at most {np.max(comparison.error):.2g}"
    style.finish(ax, title, r"time $t$ (metric length$^2$)", r"relative $L^2(p)$ difference")
    return ax


class _Points(NamedTuple):
    """Measured values at x with their standard errors, and predicted ones, NaN where there are none to draw."""

    x: np.ndarray
    measured: np.ndarray
    error: np.ndarray
    predicted: np.ndarray


def _plot_bias(result, ax) -> None:
    bias, noise = result.predicted.bias, result.predicted.noise
    sizes = [n for n in result.study.sizes if np.isfinite(n)]

    def predict(n: float) -> Callable[[float], float]:
        return lambda e: np.hypot(bias[e], noise[e] / np.sqrt(n))

    series = [_series(result, "epsilon", "error", n, predict(n)) for n in sizes]
    epsilons, errors = (values[::-1] for values in result.bias())
    infinite = _Points(epsilons, errors, np.zeros(len(errors)), _visible([bias[e] for e in epsilons], errors))
    _draw(ax, series, [f"$N$ = {n:g}" for n in sizes], style.MARKERS[1:], [infinite])
    ax.plot(*result.bias(), "o", color=style.ACCENT, markersize=6, zorder=3, label=r"$N = \infty$")
    _finish(
        ax, _bias_found(result, infinite), r"temperature $\epsilon$ (length$^2$)",
        r"error against the equation, relative $L^2(p)$", result.study.epsilons,
    )  # fmt: skip
    if not result.exact:
        _explain(ax, result, "bias", infinite, x=0.98)


def _plot_noise(result, ax) -> None:
    noise = result.predicted.noise
    epsilons = sorted({e for e, _, _ in result.noise()})

    def predict(e: float) -> Callable[[float], float]:
        return lambda n: noise[e] / np.sqrt(n)

    series = [_series(result, "size", "deviation", e, predict(e)) for e in epsilons]
    _draw(ax, series, [rf"$\epsilon$ = {e:g}" for e in epsilons], style.MARKERS, [])
    sizes = [n for n in result.study.sizes if np.isfinite(n)]
    ylabel = r"deviation from $N = \infty$, relative $L^2(p)$"
    _finish(ax, _noise_found(result, series), r"number of tokens $N$", ylabel, sizes)
    if series:
        _explain(ax, result, "noise", series[0], x=0.02)


def _bias_found(result, infinite: _Points) -> str:
    """The verdict on the errors, from the numbers."""
    if not len(infinite.x):
        return r"Bias: no cell of $N = \infty$ was finished"
    if result.exact:
        return f"Bias: exact to round-off (errors below {_above(infinite.measured.max())})"
    falls = len(infinite.x) < 2 or bool((np.diff(infinite.measured) > 0).all())  # with epsilon
    span = _span(infinite.measured)
    if not falls:
        return rf"Bias: the error does not fall with $\epsilon$ ({span})"
    return rf"Bias: errors of {span} at $N = \infty$," + f"\n{_agreement(infinite) or 'none predicted'}"


def _noise_found(result, series: Sequence[_Points]) -> str:
    """The verdict on the deviations, from the numbers."""
    if not series:
        return "Noise: no finite $N$ to see it at"
    measured = np.concatenate([points.measured for points in series])
    if measured.max() < _ROUND_OFF:
        return "Noise: none but round-off"
    try:
        slope = f", slope {result.slope('size').value:.2f} in $N$"
    except ValueError:  # too few sizes
        slope = ""
    return f"Noise: deviations of {_span(measured)}{slope},\n{_agreement(*series) or 'none predicted'}"


def _agreement(*series: _Points) -> str:
    """How the points lie to their lines; nothing where there are none."""
    known = [np.isfinite(points.predicted) for points in series]
    ratio = np.concatenate([points.measured[k] / points.predicted[k] for points, k in zip(series, known)])
    if not len(ratio):
        return ""
    error = np.concatenate([points.error[k] / points.predicted[k] for points, k in zip(series, known)])
    span = " to ".join(dict.fromkeys([f"{ratio.min():.2f}", f"{ratio.max():.2f}"]))
    off = np.abs(ratio - 1)
    if (off <= _CLOSE).all():
        return f"as predicted (ratio {span})"
    if (off <= _CLOSE + 1.96 * error).all():
        return f"as predicted, within errors (ratio {span})"
    return f"{span} times the predicted"


def _span(values: np.ndarray) -> str:
    return " to ".join(dict.fromkeys([f"{values.min():.2g}", f"{values.max():.2g}"]))


def _above(value: float) -> str:
    """The next power of ten."""
    return f"1e{int(np.floor(np.log10(max(value, 1e-16)))) + 1}"


def _visible(predicted: Sequence[float], measured: np.ndarray) -> np.ndarray:
    """Predictions, NaN where they are round-off or far below what was measured."""
    values = np.asarray(predicted, dtype=float)
    return np.where(values > np.maximum(_ROUND_OFF, _BELOW * measured), values, np.nan)


def _explain(ax, result, kind: str, points: _Points, x: float) -> None:
    """Why there is no line, where there is none."""
    if np.isfinite(points.predicted).any():
        return
    known = np.isfinite(list(getattr(result.predicted, kind).values())).any()
    reason = "it is round-off next to the points" if known else result.predicted.unknown.get(kind, "")
    reason = reason.partition(", got ")[0]
    text = fill(f"no prediction: {reason}", 44, max_lines=3, placeholder=" …") if reason else ""
    side = "right" if x > 0.5 else "left"
    ax.text(x, 0.02, text, fontsize=7, color="0.35", transform=ax.transAxes, ha=side, va="bottom")


def _finish(ax, title: str, xlabel: str, ylabel: str, ticks: Sequence[float]) -> None:
    style.log_scale(ax)
    if len(ticks):
        style.plain_ticks(ax.xaxis, ticks)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False)
    style.finish(ax, title, xlabel, ylabel)


def _series(result, along: str, quantity: str, fixed: float, predict: Callable[[float], float]) -> _Points:
    x, measured, error = _spread(result, along, quantity, fixed)
    return _Points(x, measured, error, _visible([predict(v) for v in x], measured))


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


def _draw(ax, series: Sequence[_Points], labels: Sequence[str], markers: str, lines: Sequence[_Points]) -> None:
    """Predicted lines, then the measured points on them; `lines` are predictions whose points come later."""
    colors = style.shades(len(series))
    for points, color in zip(series, colors):
        if np.isfinite(points.predicted).any():
            ax.plot(points.x, points.predicted, color=color, linewidth=1.2, zorder=1)
    for points in lines:
        if np.isfinite(points.predicted).any():
            ax.plot(points.x, points.predicted, color=style.INK, linewidth=1.2, zorder=1, label="predicted (lines)")
    for points, color, marker, label in zip(series, colors, cycle(markers), labels):
        look = {"fmt": marker, "color": color, "markersize": 4.5, "linewidth": 1, "capsize": 2, "zorder": 2}
        ax.errorbar(points.x, points.measured, 1.96 * points.error, label=label, **look)
