"""A metric tensor in the plane as a picture, and what a classifier made of attention has learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import checks
from . import style

_CELLS, _ELLIPSES = 96, 13  # along the longer axis
_ROUND = np.stack([np.cos(np.linspace(0, 2 * np.pi, 49)), np.sin(np.linspace(0, 2 * np.pi, 49))])


def plot_metric(metric: Callable, bounds, paths: Sequence[np.ndarray] = (), ax=None):
    """Ellipses of equally distant points on shades of the volume element sqrt(det g), and paths on top.

    Where ellipses are small, a short way is long; along their long axis features spread furthest.

    Parameters
    ----------
    metric : callable
        g at points (N, 2) -> (N, 2, 2), such as `f.metric` or `chart.metric`.
    bounds : two pairs (low, high)
        The part of the plane that is drawn.
    paths : sequence of (m, 2) arrays
        Such as geodesics, drawn in the accent colour.
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> half_plane = lambda x: np.eye(2) / x[..., 1, None, None] ** 2
    >>> plot_metric(half_plane, [(-1, 1), (0.2, 2)], [af.geodesic(half_plane, [-0.9, 0.3], [0.9, 0.3])[0]]).get_xlabel()
    '$x_1$ (length)'
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm

    checks.function(metric, "metric", "callable on points (N, 2)")
    bounds = checks.array(bounds, "bounds", (2, 2)).astype(float)
    if not (bounds[:, 0] < bounds[:, 1]).all():
        raise ValueError(f"bounds must be pairs (low, high), got {checks.entries(bounds)}")
    ax = style.new_axes(ax)
    x, y = _lattice(bounds, _CELLS)
    volume = np.sqrt(np.linalg.det(_at(metric, x, y)))
    low, high = volume.min(), volume.max()
    norm = LogNorm(low / 1.1, high * 1.1) if high < 1.2 * low else LogNorm(low, high)
    drawn = ax.pcolormesh(x, y, volume, norm=norm, cmap="Greys", alpha=0.4, rasterized=True, linewidth=0)
    bar = ax.figure.colorbar(drawn, ax=ax, label="volume element √det g", fraction=0.046, pad=0.03)
    style.plain_log(bar.ax.yaxis)
    x, y = _lattice(bounds, _ELLIPSES)
    values, vectors = np.linalg.eigh(_at(metric, x, y))
    axes = vectors / np.sqrt(values)[..., None, :]  # unit lengths under g
    radius = 0.45 * (x[1] - x[0]) / np.quantile(1 / np.sqrt(values[..., 0]), 0.9)
    rings = np.stack(np.meshgrid(x, y), axis=-1)[..., None] + radius * axes @ _ROUND
    lines = np.moveaxis(rings.reshape(-1, 2, _ROUND.shape[1]), 1, 2)
    ax.add_collection(LineCollection(list(lines), colors=style.INK, linewidths=0.7))
    for path in paths:
        ax.plot(*checks.array(path, "paths", (None, 2)).T, color=style.ACCENT)
    style.finish(ax, f"Circles of radius {radius:.2g} under the metric", "$x_1$ (length)", "$x_2$ (length)")
    ax.grid(False)
    ax.set(xlim=bounds[0], ylim=bounds[1], aspect="equal")
    return ax


def plot_learning(estimator, X: np.ndarray, y: np.ndarray, axes=None):
    """What a fitted attention classifier has learned: its regions, its metric, the learned plane, and its loss.

    The first two are for tokens of two columns only.

    Parameters
    ----------
    estimator : MetricAttention, L2Attention or SelfAttention
        Fitted.
    X : (N, n) array
    y : (N,) array
        Their classes.
    axes : four Axes, optional
        Two if X has not two columns.

    Returns
    -------
    the Axes
    """
    flat = X.shape[1] == 2
    axes = style.new_axes(axes, count=4 if flat else 2)
    colours = dict(zip(estimator.classes_, style.shades(len(estimator.classes_))))
    if flat:
        first, second = axes[:2]
        reach = 0.1 * np.ptp(X, axis=0)
        bounds = np.stack([X.min(axis=0) - reach, X.max(axis=0) + reach], axis=-1)
        across, up = _lattice(bounds, 2 * _CELLS)
        grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
        number = np.searchsorted(estimator.classes_, estimator.predict(grid)).reshape(len(up), len(across))
        levels = np.arange(len(colours) + 1) - 0.5
        first.contourf(across, up, number, levels, colors=list(colours.values()), alpha=0.3)
        _draw_classes(first, X, y, colours)
        style.finish(first, "The class that is predicted", "$x_1$ (length)", "$x_2$ (length)")
        first.set_aspect("equal")
        try:
            plot_metric(estimator.pseudometric_.metric, bounds, ax=second)
        except ValueError:
            second.text(0.5, 0.5, "f has no metric", ha="center", color=style.INK, transform=second.transAxes)
            second.set_axis_off()
    z = estimator.project(X)
    _draw_classes(axes[-2], z, y, colours)
    style.finish(axes[-2], "The learned plane", "first axis of $\\phi$", "second axis of $\\phi$")
    loss = estimator.history_["loss"]
    axes[-1].plot(np.arange(1, len(loss) + 1), loss, color=style.ACCENT)
    axes[-1].set_yscale("log")
    style.plain_log(axes[-1].yaxis)
    style.finish(axes[-1], "The loss", "epoch", "cross-entropy (nats)")
    return axes


def _draw_classes(ax, points: np.ndarray, y: np.ndarray, colours: dict) -> None:
    """Each class in its colour, its name at its middle token."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for k, (label, colour) in enumerate(colours.items()):
        own = points[y == label]
        ax.plot(*own.T, style.MARKERS[k % len(style.MARKERS)], color=colour, markersize=2.5)
        middle = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
        ax.text(*middle, str(label), fontsize=8, color=style.INK, ha="center", va="center", bbox=box, zorder=5)


def _lattice(bounds: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of square cells along both axes, `count` along the longer one."""
    side = (bounds[:, 1] - bounds[:, 0]).max() / count
    counts = np.maximum(1, np.round((bounds[:, 1] - bounds[:, 0]) / side)).astype(int)
    x, y = (low + (high - low) * (np.arange(n) + 0.5) / n for (low, high), n in zip(bounds, counts))
    return x, y


def _at(metric: Callable, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    g = checks.spd(checks.array(metric(points), "metric(points)", (len(points), 2, 2)), "metric", points)
    return g.reshape(len(y), len(x), 2, 2)
