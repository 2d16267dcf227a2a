"""The look of every figure: one accent colour, greys for the rest, predictions under the points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import checks, display

ACCENT = "#c2410c"
INK = "#1f2937"
MARKERS = "os^Dv<>P"
SIZE = (4.6, 3.6)  # inches


def new_axes(ax=None, count: int = 1, size: tuple[float, float] = SIZE, projection: str | None = None):
    """The given Axes, or new ones side by side (through pyplot, so that notebooks show them)."""
    if ax is not None:
        return _given(ax, count)
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1,
        count,
        figsize=(size[0] * count, size[1]),
        layout="constrained",
        squeeze=False,
        subplot_kw={"projection": projection},
    )
    return axes[0, 0] if count == 1 else axes[0]


def _given(ax, count: int):
    from matplotlib.axes import Axes

    some = (ax,) if count == 1 else checks.sequence(ax, "axes", "matplotlib Axes")
    if len(some) != count or not all(isinstance(one, Axes) for one in some):
        name, what = ("ax", "a matplotlib Axes") if count == 1 else ("axes", f"{count} matplotlib Axes")
        raise TypeError(f"{name} must be {what}, got {checks.short(ax)}")
    return ax


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """From light to dark, readable in grey and to the colour-blind."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 - 0.8 * k / max(1, count - 1)) for k in range(count)]


def finish(ax, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels with symbols and units, and no clutter."""
    set_title(ax, title)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)


def along(grid, k: int = 0) -> str:
    """The label of a grid's k-th coordinate: angles are named as such."""
    name = grid.names[k]
    if grid.sphere:
        return f"{name} (rad)"
    return coordinate(name.startswith("theta"), "" if len(grid.names) == 1 else f"_{k + 1}")


def coordinate(angle: bool, index: str = "") -> str:
    """The label of a coordinate that is an angle, or a length."""
    return rf"angle $\theta{index}$ (rad)" if angle else f"position $x{index}$ (length)"


def in_angles(solution) -> bool:
    """Whether the coordinates of a solution's tokens are angles."""
    return solution.stats.get("coordinate") == "angle"


def angle_ticks(axis, grid, k: int = 0) -> None:
    """Quarter turns as multiples of pi, where a coordinate is an angle."""
    if not grid.axes[k].angle:
        return
    low, high = grid.axes[k].low, grid.axes[k].high
    quarters = np.arange(np.ceil(low / (np.pi / 2) - 1e-9), np.floor(high / (np.pi / 2) + 1e-9) + 1)
    axis.set_ticks(quarters * np.pi / 2, [_quarter(int(q)) for q in quarters])


def _quarter(count: int) -> str:
    text = display.number(count * np.pi / 2).replace("*", "")
    return f"${text}$".replace("pi", r"\pi")


def limits(values: np.ndarray, margin: float = 0.0) -> tuple[float, float]:
    """Least and largest of the finite values, with a margin, in parts of their range; wide enough to hide round-off."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low <= 1e-12 * size or size == 0:
        return low - (size or 1.0) / 2, high + (size or 1.0) / 2
    return low - margin * (high - low), high + margin * (high - low)


def label_space(ax, xlabel: str, ylabel: str, zlabel: str) -> None:
    """Labels and few ticks on 3-D Axes, where there is little room."""
    ax.set_xlabel(xlabel, fontsize=8)
    ax.set_ylabel(ylabel, fontsize=8)
    ax.set_zlabel(zlabel, fontsize=8)
    ax.locator_params(nbins=3)
    ax.tick_params(labelsize=7, pad=0)
    ax.grid(False)


def times_beside_title(ax) -> None:
    """A legend of two or so times above the right corner, where it hides nothing."""
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "ncols": 4}
    ax.legend(fontsize=8, frameon=False, columnspacing=1.0, handletextpad=0.2, **place)


def set_title(ax, title: str) -> None:
    """A claim or a plain statement, above the left corner."""
    ax.set_title(title, fontsize=10.5, loc="left", color=INK)


def quantity(solution, column: int = 0) -> str:
    """What is drawn of y, in words and as a symbol: of several columns, which."""
    name = r"density $\rho$" if _holds_density(solution) else "feature $H$"
    count = solution.y.shape[-1]
    return name if count == 1 else f"{name}, column {column + 1} of {count}"


def heading(solution, where: str = "", time: float | None = None) -> str:
    """What is drawn, where and when (None: over time), and whether the run was cut short."""
    name = "Density" if _holds_density(solution) else "Features"
    when = " over time" if time is None else f" at $t$ = {time:.3g}"
    return name + where + when + cut_short(solution)


def cut_short(solution) -> str:
    """For titles: nothing for a run that finished."""
    on_purpose = solution.status == 1 and "stopped by callback" in solution.message
    return " (stopped)" if on_purpose else {0: "", 1: " (interrupted)"}.get(solution.status, " (failed)")


def _holds_density(solution) -> bool:
    return solution.stats.get("quantity") == "density"


def log_scale(ax) -> None:
    """Logarithmic axes, the vertical one with plain numbers."""
    ax.set(xscale="log", yscale="log")
    plain_log(ax.yaxis)


def plain_log(axis) -> None:
    """Over less than three decades a logarithmic axis says 0.02 rather than 2 x 10^-2."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high > 1000 * low:
        return
    axis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if high > 4 * low else (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0))
    )
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def plain_ticks(axis, values: Sequence[float]) -> None:
    """Ticks at the values themselves on a logarithmic axis, thinned to at most six."""
    from matplotlib.ticker import FixedLocator, NullLocator

    chosen = sorted(values)[:: -(-len(values) // 6)]
    axis.set_major_locator(FixedLocator(chosen))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
