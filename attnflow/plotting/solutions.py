"""Pictures of one Solution: fields as curves or maps, tokens as points, and both in motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .. import checks
from . import style
from .fields import draw_field, embedding_of
from .places import draw_places, find_places

_MOST_CURVES = 6
_MOST_TRACKS = 200
_MARGIN = 0.05


def plot_solution(solution, ax=None, column: int = 0, t: float | Sequence[float] | None = None, kind: str | None = None):
    """Draw what the solution holds.

    A field in one dimension: curves at a few times; in two: a map at the last time, where its points really are (S^2
    as a sphere, a chart with an embedding in its place); in three: slices across the last axis.
    Tokens with features: features over positions (one coordinate), or coloured points. Tokens that move: their tracks
    (one coordinate), or start and end. Points of three coordinates are drawn in space, of more on their principal axes.

    Parameters
    ----------
    solution : Solution
    ax : Axes, optional
        Plane or 3-D.
    column : int
        Which column of the features; where there are several, labels say which it is. Tokens that move have none: 0.
    t : float, sequence of float or None
        Saved times, or any that dense output covers, one for maps and coloured points; None: as above.
    kind : {"history", "plane", "space"} or None
        "history": a field in one dimension over position and time, in colours. "plane" and "space": on new plane or 3-D Axes
        what has a picture on both, as surfaces (S^2 in the Hammer projection), solids and tokens of three coordinates.
        None: as above.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        Naming column, t or kind.
    """
    column = _read_column(solution, column)
    picture, ax = _asked(solution, kind, ax)
    times, y = solution.frames(t)
    everything = y
    if t is None and picture.most is not None:
        chosen = np.unique(np.linspace(0, len(times) - 1, min(picture.most, len(times))).astype(int))
        some = chosen if picture.most > 1 else [len(times) - 1]
        times, y = times[some], y[some]
    elif picture.most == 1 and len(times) > 1:
        raise ValueError(f"t must be one time for this picture, got {len(times)}; animate shows several")
    ax, show = picture.draw(solution, times, y, column, ax, y if picture.most == 1 else everything)
    show(range(len(times)))
    return ax


def animate_solution(solution, column: int = 0, t: Sequence[float] | None = None, interval: int = 60):
    """A matplotlib animation over the times (None: all saved ones), with the labels, limits and columns of the plot.

    Parameters
    ----------
    solution : Solution
    column : int
    t : sequence of float or None
    interval : int
        Milliseconds a frame.

    Returns
    -------
    Film
        A matplotlib FuncAnimation that notebooks show, in colours that hold for all frames; `.save` writes .gif, .html, and
        .mp4 where ffmpeg is installed.

    Raises
    ------
    TypeError, ValueError
        Naming column or t.
    """
    import matplotlib.pyplot as plt

    from .film import Film

    column = _read_column(solution, column)
    times, y = solution.frames(t)
    ax, show = _kind(solution).draw(solution, times, y, column, None, y)
    animation = Film(ax.figure, lambda k: show([k]), frames=len(times), interval=interval, blit=False)
    plt.close(ax.figure)  # the animation shows itself; the bare figure would appear a second time in a notebook
    return animation


class _Kind(NamedTuple):
    """How many times one picture shows unless told (None: all), and how to draw them.

    draw takes the solution, times (K,), y (K, ...), the column, Axes or None, and the y that sets the limits; it
    returns the Axes and a callable that shows those of the K times whose indices it is given, of maps the last.
    """

    most: int | None
    draw: Callable


def _kind(solution) -> _Kind:
    if solution.grid is not None:
        return _Kind(_MOST_CURVES, _curves) if len(solution.grid.axes) == 1 else _Kind(1, _map)
    if solution.points is None:
        return _Kind(None, _tracks) if solution.y.shape[2] == 1 else _Kind(2, _positions)
    return _Kind(_MOST_CURVES, _curves) if solution.points.shape[1] == 1 else _Kind(1, _colored_points)


def _asked(solution, kind: str | None, ax):
    """How a kind of picture is drawn, on which Axes."""
    if kind is None:
        return _kind(solution), ax
    kind, grid = checks.choice(kind, "kind", ("history", "plane", "space")), solution.grid
    if kind == "history":
        if grid is None or len(grid.axes) > 1:
            raise ValueError("kind must be None, 'plane' or 'space' for what is no field in one dimension, got 'history'")
        return _Kind(None, _history), ax
    if kind == "space" and not _in_space(solution):
        raise ValueError("kind must be None, 'history' or 'plane' for what does not lie in space, got 'space'")
    if ax is not None:
        raise ValueError(f"kind must be None for Axes that are given, which are plane or 3-D already, got {kind!r}")
    return _kind(solution), style.new_axes(projection="3d" if kind == "space" else None)


def _in_space(solution) -> bool:
    """Whether its points have three coordinates."""
    if solution.grid is None:
        return (solution.y if solution.points is None else solution.points).shape[-1] == 3
    places = embedding_of(solution)
    return len(solution.grid.axes) == 3 or (places is not None and places.shape[1] == 3)


def _read_column(solution, column: int) -> int:
    column = checks.integer(column, "column")
    moving = solution.grid is None and solution.points is None
    if moving and column:
        raise ValueError(f"column must be 0 for tokens that move, whose columns are coordinates, got {column}")
    if column >= solution.y.shape[-1]:
        raise ValueError(f"column must be less than {solution.y.shape[-1]}, the number of columns, got {column}")
    return column


def _map(solution, times, fields, column: int, ax, everything):
    ax, show = draw_field(solution, times, fields, column, ax)
    return ax, lambda chosen: show(chosen[-1])


def _curves(solution, times, y, column: int, ax, everything):
    ax = style.new_axes(ax)
    grid = solution.grid
    x = solution.points[:, 0] if grid is None else grid.axes[0].nodes
    order, line = np.argsort(x), "-" if grid is not None else "."
    along = style.coordinate(style.in_angles(solution)) if grid is None else style.along(grid)
    style.finish(ax, "", along, style.quantity(solution, column))
    ax.set(xlim=style.limits(x, _MARGIN), ylim=style.limits(everything[..., column], _MARGIN))
    if grid is not None:
        style.angle_ticks(ax.xaxis, grid)

    def show(chosen: Sequence[int]) -> None:
        _clear(ax)
        for k, color in zip(chosen, _colors(len(chosen))):
            values = y[k][..., column].ravel()[order]
            ax.plot(x[order], values, line, color=color, linewidth=1.4, markersize=3, label=f"$t$ = {times[k]:.3g}")
        if len(chosen) > 1:
            ax.legend(fontsize=8, frameon=False)
        style.set_title(ax, style.heading(solution, "", times[chosen[0]] if len(chosen) == 1 else None))

    return ax, show


def _history(solution, times, y, column: int, ax, everything):
    """Position across, time upwards."""
    ax, grid = style.new_axes(ax), solution.grid
    if len(times) < 2:
        raise ValueError(f"t must be at least two times for a history, got {len(times)}")
    x, values = grid.axes[0].nodes, y[..., column]
    image = ax.pcolormesh(x, times, values, cmap="viridis", shading="gouraud", rasterized=True)
    ax.figure.colorbar(image, ax=ax, label=style.quantity(solution, column))
    style.finish(ax, style.heading(solution), style.along(grid), "time $t$")
    style.angle_ticks(ax.xaxis, grid)
    ax.grid(False)
    return ax, lambda chosen: None


def _tracks(solution, times, y, column: int, ax, everything):
    """Positions over time, up to the last time shown; every so manyth token where there are many."""
    ax = style.new_axes(ax)
    some = np.argsort(y[0, :, 0])[:: -(-y.shape[1] // _MOST_TRACKS)]
    style.finish(ax, "", "time $t$", style.coordinate(style.in_angles(solution)))
    ax.set(xlim=style.limits(times, _MARGIN), ylim=style.limits(everything, _MARGIN))
    marker = "." if len(times) == 1 else ""

    def show(chosen: Sequence[int]) -> None:
        _clear(ax)
        last = chosen[-1] + 1
        ax.plot(times[:last], y[:last, some, 0], color=style.ACCENT, alpha=0.3, linewidth=0.7, marker=marker)
        when = f"to $t$ = {times[chosen[-1]]:.3g}" if len(times) > 1 else f"at $t$ = {times[0]:.3g}"
        share = "Positions" if len(some) == y.shape[1] else f"{len(some)} of {y.shape[1]} tokens"
        style.set_title(ax, f"{share} {when}{style.cut_short(solution)}")

    return ax, show


def _positions(solution, times, y, column: int, ax, everything):
    places = find_places(everything, ax, style.in_angles(solution))
    ax = draw_places(places, ax)
    fixed = len(ax.lines)

    def show(chosen: Sequence[int]) -> None:
        _clear(ax, fixed)
        colors = [*["0.75"] * (len(chosen) == 2), *_colors(len(chosen))][: len(chosen) - 1] + [style.ACCENT]
        for k, color in zip(chosen, colors):
            ax.plot(*places(y[k]).T, ".", color=color, markersize=4, label=f"$t$ = {times[k]:.3g}")
        if len(chosen) > 1:
            style.times_beside_title(ax)
        when = f" at $t$ = {times[chosen[0]]:.3g}" if len(chosen) == 1 else ""
        style.set_title(ax, f"Positions{when}{style.cut_short(solution)}")

    return ax, show


def _colored_points(solution, times, y, column: int, ax, everything):
    from matplotlib.colors import Normalize

    places = find_places(solution.points, ax, style.in_angles(solution))
    ax = draw_places(places, ax)
    limits = Normalize(*style.limits(everything[..., column]))
    image = ax.scatter(*places(solution.points).T, c=y[-1][:, column], s=8, cmap="viridis", norm=limits)
    pad = {"pad": 0.12, "shrink": 0.75} if ax.name == "3d" else {}
    ax.figure.colorbar(image, ax=ax, label=style.quantity(solution, column), **pad)

    def show(chosen: Sequence[int]) -> None:
        image.set_array(y[chosen[-1]][:, column])
        style.set_title(ax, style.heading(solution, "", times[chosen[-1]]))

    return ax, show


def _colors(count: int) -> list:
    return [style.ACCENT] if count == 1 else style.shades(count)


def _clear(ax, keep: int = 0) -> None:
    """Remove what an earlier frame drew."""
    for line in list(ax.lines)[keep:]:
        line.remove()
