"""The look of every figure: one accent colour, greys for the rest, predictions under the points."""

from __future__ import annotations

from collections.abc import Sequence

from .. import checks

ACCENT = "#c2410c"
INK = "#1f2937"
MARKERS = "os^Dv<>P"


def new_axes(ax=None, count: int = 1, size: tuple[float, float] = (4.6, 3.6), projection: str | None = None):
    """The given Axes, or new ones side by side (through pyplot, so that notebooks show them)."""
    if ax is not None:
        return _given(ax, count)
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, count, figsize=(size[0] * count, size[1]), layout="constrained", squeeze=False,
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


def set_title(ax, title: str) -> None:
    """A claim or a plain statement, above the left corner."""
    ax.set_title(title, fontsize=10.5, loc="left", color=INK)


def quantity(solution) -> tuple[str, str]:
    """What y is, in words and as a symbol: features, unless the solution's stats say a density."""
    return ("density", r"\rho") if solution.stats.get("quantity") == "density" else ("feature", "H")


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
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high > 4 * low else (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def plain_ticks(axis, values: Sequence[float]) -> None:
    """Ticks at the values themselves on a logarithmic axis, thinned to at most six."""
    from matplotlib.ticker import FixedLocator, NullLocator

    chosen = sorted(values)[:: -(-len(values) // 6)]
    axis.set_major_locator(FixedLocator(chosen))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
