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
_TEMPERATURE, _TOKENS = r"temperature $\epsilon$ (length$^2$)", r"number of tokens $N$"
_ERROR, _DEVIATION = r"error against the equation, relative $L^2(p)$", r"deviation from $N = \infty$, relative $L^2(p)$"


def plot_study(result, axes=None):
    """Bias against temperature and noise against the number of tokens; the titles say what was found.

    Predictions are drawn as lines where there are any; where there are none, a note says why. Several normalisations are
    drawn together, bias at infinitely many tokens and noise at the largest temperature, each in a colour of its own.

    Parameters
    ----------
    result : StudyResult
    axes : pair of Axes, optional

    Returns
    -------
    pair of Axes
    """
    left, right = style.new_axes(axes, count=2)
    if len(result.parts) > 1:
        _compare_bias(result.parts, left)
        _compare_noise(result.parts, right)
    else:
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
    """Measured values at x with their standard errors, predicted ones, NaN where there are none to draw, and where those hold.

    The line is predicted where nothing is measured yet too: (x, values).
    """

    x: np.ndarray
    measured: np.ndarray
    error: np.ndarray
    predicted: np.ndarray
    holds: np.ndarray
    line: tuple[np.ndarray, np.ndarray]


def _plot_bias(result, ax) -> None:
    sizes = [n for n in result.study.sizes if np.isfinite(n)]
    series = [_series(result, "epsilon", "error", n) for n in sizes]
    infinite = _infinite(result)
    _draw(ax, series, [f"$N$ = {n:g}" for n in sizes], style.MARKERS[1:], [infinite])
    ax.plot(*result.bias(), "o", color=style.ACCENT, markersize=6, zorder=3, label=r"$N = \infty$")
    _finish(ax, _bias_found(result, infinite), _TEMPERATURE, _ERROR, result.study.epsilons)
    if not result.exact:
        _explain(ax, result, "bias", infinite, x=0.98)


def _plot_noise(result, ax) -> None:
    epsilons = sorted({e for e, _, _ in result.noise()})
    series = [_series(result, "size", "deviation", e) for e in epsilons]
    _draw(ax, series, [rf"$\epsilon$ = {e:g}" for e in epsilons], style.MARKERS, [])
    sizes = [n for n in result.study.sizes if np.isfinite(n)]
    _finish(ax, _noise_found(result, series), _TOKENS, _DEVIATION, sizes)
    if series:
        _explain(ax, result, "noise", series[0], x=0.02)


def _compare_bias(results, ax) -> None:
    """The errors of infinitely many tokens, one colour for each normalisation."""
    _draw(ax, [_infinite(result) for result in results], _names(results, "epsilon"), style.MARKERS, [])
    errors = np.concatenate([result.bias()[1] for result in results])
    _finish(
        ax,
        f"Bias: errors of {_span(errors)}" if len(errors) else "Bias: no cell was finished",
        _TEMPERATURE,
        _ERROR,
        results[0].study.epsilons,
    )


def _compare_noise(results, ax) -> None:
    """The deviations at the largest temperature, one colour for each normalisation."""
    epsilon = max(results[0].study.epsilons)
    series = [_series(result, "size", "deviation", epsilon) for result in results]
    _draw(ax, series, _names(results, "size"), style.MARKERS, [])
    title = rf"Noise at $\epsilon$ = {epsilon:g}: {_agreement(*series) or 'none predicted'}"
    _finish(ax, title, _TOKENS, _DEVIATION, [n for n in results[0].study.sizes if np.isfinite(n)])


def _names(results, axis: str) -> list[str]:
    """Of the normalisations, with the slopes that were found."""
    return [f"{result.study.names[0]}{_slope(result, axis, ': slope {:.2f}')}" for result in results]


def _slope(result, axis: str, words: str) -> str:
    try:
        return words.format(result.slope(axis).value)
    except ValueError:  # too few cells, or round-off
        return ""


def _infinite(result) -> _Points:
    """The infinite-token errors, the smallest temperature first."""
    epsilons, errors = (values[::-1] for values in result.bias())
    predicted = _visible([result.predicted.bias[e] for e in epsilons], errors)
    line = _line(result.study.epsilons, result.predicted.bias.__getitem__, epsilons, predicted)
    return _Points(epsilons, errors, np.zeros(len(errors)), predicted, np.full(len(errors), True), line)


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
    slope = _slope(result, "size", ", slope {:.2f} in $N$")
    return f"Noise: deviations of {_span(measured)}{slope},\n{_agreement(*series) or 'none predicted'}"


def _agreement(*series: _Points) -> str:
    """How the points lie to their lines; nothing where there are none."""
    known = [np.isfinite(points.predicted) & points.holds for points in series]
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
    if np.isfinite(points.line[1]).any():
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


def _series(result, along: str, quantity: str, fixed: float) -> _Points:
    """The error or the deviation of finitely many tokens along epsilon or size, the other one fixed."""
    x, measured, error = _spread(result, along, quantity, fixed)
    predict: Callable[[float, float], float] = getattr(result.predicted, quantity)
    cells = [(v, fixed) if along == "epsilon" else (fixed, v) for v in x]
    holds = np.array([result.predicted.holds(*cell) for cell in cells], dtype=bool)
    visible = _visible([predict(*cell) for cell in cells], measured)
    planned = result.study.epsilons if along == "epsilon" else [n for n in result.study.sizes if np.isfinite(n)]
    line = _line(planned, lambda v: predict(*((v, fixed) if along == "epsilon" else (fixed, v))), x, visible)
    return _Points(x, measured, error, visible, holds, line)


def _line(planned: Sequence[float], predict: Callable[[float], float], x: np.ndarray, visible: np.ndarray):
    """Through what is visible at x, and what is predicted of all else that is planned."""
    known = dict(zip(x.tolist(), visible.tolist()))
    places = np.array(sorted({*planned, *known}), dtype=float)
    ahead = np.array([known[v] if v in known else predict(v) for v in places.tolist()], dtype=float)
    return places, np.where(ahead > _ROUND_OFF, ahead, np.nan)


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
    """Predicted lines, then the measured points on them, hollow where no line can be trusted; `lines` are predictions whose
    points come later."""
    colors = style.shades(len(series))
    for points, color in zip(series, colors):
        if np.isfinite(points.line[1]).any():
            ax.plot(*points.line, color=color, linewidth=1.2, zorder=1)
    for points in lines:
        if np.isfinite(points.line[1]).any():
            ax.plot(*points.line, color=style.INK, linewidth=1.2, zorder=1, label="predicted (lines)")
    for points, color, marker, label in zip(series, colors, cycle(markers), labels):
        look = {"fmt": marker, "color": color, "markersize": 4.5, "linewidth": 1, "capsize": 2, "zorder": 2}
        hollow = ~points.holds, "white", None if points.holds.any() else label
        for some, filled, name in ((points.holds, color, label), hollow):
            if some.any():
                mark = {"label": name, "markerfacecolor": filled}
                ax.errorbar(points.x[some], points.measured[some], 1.96 * points.error[some], **mark, **look)
    if not all(points.holds.all() for points in series):
        style_of_hollow = {"marker": "o", "color": "0.35", "markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
        ax.plot([], [], label="hollow: too few tokens to predict", **style_of_hollow)
