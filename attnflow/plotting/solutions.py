"""Pictures of one Solution: fields as curves or maps, tokens as points, and both in motion."""

from __future__ import annotations

import numpy as np

from . import style
from .fields import draw_field

_MOST_CURVES = 6


def plot_solution(solution, ax=None):
    """Draw what the solution holds.

    A field in one dimension: its first column at a few times; in two: a map at the last time, where its
    points really are (S^2 as a sphere, a chart with an embedding in its place); in three: the mid-planes.
    Tokens with features: features over positions (one coordinate), or coloured points. Tokens that move:
    their tracks (one coordinate), or start and end.

    Returns
    -------
    Axes
    """
    if solution.grid is not None and len(solution.grid.axes) > 1:
        return draw_field(solution, [len(solution.t) - 1], ax)[0]
    ax = style.new_axes(ax)
    chosen = np.unique(np.linspace(0, len(solution.t) - 1, min(_MOST_CURVES, len(solution.t))).astype(int))
    if solution.grid is not None:
        _curves(ax, solution.grid.axes[0].nodes, solution, chosen, "-")
    elif solution.points is None:
        _tracks(ax, solution)
    elif solution.points.shape[1] == 1:
        _curves(ax, solution.points[:, 0], solution, chosen, ".")
    else:
        _colored_points(ax, solution)
    return ax


def animate_solution(solution, interval: int = 60):
    """A matplotlib animation of a field or of tokens over the saved times, in colours that hold for all of them."""
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation

    if solution.grid is not None and len(solution.grid.axes) > 1:
        ax, show = draw_field(solution, range(len(solution.t)))
    else:
        ax, show = _draw_line(solution)
    animation = FuncAnimation(ax.figure, show, frames=len(solution.t), interval=interval, blit=False)
    plt.close(ax.figure)  # the animation shows itself; the bare figure would appear a second time in a notebook
    return animation


def _draw_line(solution):
    """Axes with a one-dimensional field or tokens, and how to show another frame."""
    ax = style.new_axes()
    moving = solution.grid is None and solution.points is None
    if moving:
        x, y = _plane(solution.y)
    else:
        nodes = solution.grid.axes[0].nodes if solution.grid is not None else solution.points[:, 0]
        x, y = np.broadcast_to(nodes, solution.y.shape[:2]), solution.y[..., 0]
    (line,) = ax.plot(x[0], y[0], "." if solution.grid is None else "-", color=style.ACCENT)
    ax.set(xlim=_padded(x), ylim=_padded(y))
    style.finish(ax, "", r"$x$", r"$x_2$" if moving else "{} ${}$".format(*style.quantity(solution)))

    def show(frame: int) -> None:
        line.set_data(x[frame], y[frame])
        style.set_title(ax, f"t = {solution.t[frame]:.3g}")

    return ax, show


def _curves(ax, x, solution, chosen, line: str) -> None:
    order = np.argsort(x)
    for index, color in zip(chosen, style.shades(len(chosen))):
        values = solution.y[index].reshape(len(x), -1)[:, 0]
        ax.plot(x[order], values[order], line, color=color, linewidth=1.4, markersize=3, label=f"$t$ = {solution.t[index]:.3g}")
    ax.legend(fontsize=8, frameon=False)
    name, symbol = style.quantity(solution)
    title = "Features relax towards their weighted mean" if name == "feature" else "The density over time"
    style.finish(ax, title, r"position $x$ (length)", rf"{name} ${symbol}(x, t)$")


def _tracks(ax, solution) -> None:
    if solution.y.shape[2] == 1:
        some = np.argsort(solution.y[0, :, 0])[:: max(1, solution.y.shape[1] // 200)]
        ax.plot(solution.t, solution.y[:, some, 0], color=style.ACCENT, alpha=0.3, linewidth=0.7)
        style.finish(ax, "Tokens that move", r"time $t$", r"position $x$ (length)")
        return
    x, y = _plane(solution.y)
    ax.plot(x[0], y[0], ".", color="0.75", markersize=3, label=f"$t$ = {solution.t[0]:.3g}")
    ax.plot(x[-1], y[-1], ".", color=style.ACCENT, markersize=4, label=f"$t$ = {solution.t[-1]:.3g}")
    ax.set_aspect("equal")
    ax.legend(fontsize=8, frameon=False)
    style.finish(ax, "Tokens that move", r"$x_1$ (length)", r"$x_2$ (length)")


def _colored_points(ax, solution) -> None:
    x, y = _plane(solution.points[None])
    features = solution.y[-1]
    label = "feature $H$"
    if features.shape[1] > 1:  # the combination of columns that tells tokens apart best
        centred = features - features.mean(axis=0)
        features = centred @ np.linalg.svd(centred, full_matrices=False)[2][:1].T
        label = "first principal feature"
    image = ax.scatter(x[0], y[0], c=features[:, 0], s=6, cmap="viridis")
    ax.figure.colorbar(image, ax=ax, label=label)
    flat = solution.points.shape[1] == 2
    names = ("$x_1$ (length)", "$x_2$ (length)") if flat else ("first principal axis", "second principal axis")
    style.finish(ax, f"Features at $t$ = {solution.t[-1]:.3g}", *names)


def _plane(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates to draw: the points' own, or their two principal axes when they have more."""
    if y.shape[2] == 2:
        return y[..., 0], y[..., 1]
    if y.shape[2] == 1:
        return y[..., 0], np.zeros(y.shape[:2])
    centred = y - y[0].mean(axis=0)
    axes = np.linalg.svd(centred[0], full_matrices=False)[2][:2]
    flat = centred @ axes.T
    return flat[..., 0], flat[..., 1]


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * max(high - low, 1e-9)
    return low - margin, high + margin
