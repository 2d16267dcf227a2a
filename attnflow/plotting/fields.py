"""Where a field's values sit, drawn there: maps in the plane, surfaces and the sphere in space, slices of solids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..grid import Axis, Grid
from . import style

_FLAT_CELLS, _SURFACE_CELLS, _SLICE_CELLS = (128, 512), (96, 128), (48, 128)  # fewest and most along an axis
_VIEW = {"elev": 24.0, "azim": -56.0}  # degrees
_SLICES, _SHEETS = 6, 4  # of a solid: side by side, and in space, where they hide one another


def draw_field(solution, times: np.ndarray, fields: np.ndarray, column: int = 0, ax=None):
    """Draw a column of a field in two or three dimensions, in colours that hold for all times.

    A map in the plane where the coordinates or the embedding are two numbers; a surface in space where
    they are three, S^2 among them; a field in three dimensions as slices across its last axis, one of them
    through the value farthest from the mean. On plane Axes S^2 is drawn in the Hammer projection, which keeps areas,
    another surface over its coordinates; on 3-D Axes the slices lie where they are.

    The cells drawn are the grid's own, or finer or coarser ones that carry the grid's interpolant: a
    spectral grid of twelve nodes is a smooth picture too.

    Parameters
    ----------
    solution : Solution
        With a grid of two or three axes.
    times : (K,) array
    fields : (K, *grid, c) array
        At these times; the last of them is drawn.
    column : int
    ax : Axes, optional
        Plane or 3-D. New ones are 3-D for surfaces; turn them with ax.view_init.

    Returns
    -------
    Axes
    callable
        Position in `times` -> None: recolours and retitles the picture.

    Examples
    --------
    >>> import matplotlib, attnflow as af
    >>> matplotlib.use("Agg")
    >>> heat = af.Heat(af.Torus([1.0, 1.0])).solve(lambda x: np.cos(2 * np.pi * x[..., 0]), [0.0, 0.01])
    >>> ax, show = draw_field(heat, heat.t, heat.y)
    >>> show(0)
    >>> ax.get_title(loc="left")
    'Features at $t$ = 0'
    """
    grid, embedding = solution.grid, embedding_of(solution)
    fields = fields[..., column : column + 1]
    solid, surface = len(grid.axes) == 3, embedding is not None and embedding.shape[1] == 3
    ax = style.new_axes(ax, projection="3d" if surface else None, size=(6.2, 4.2) if solid else style.SIZE)
    spatial = ax.name == "3d"
    if solid:
        where, draw = " in slices across $x_3$", _draw_sheets if spatial else _draw_slices
        sheets = _slices(grid, fields, _SHEETS if spatial else _SLICES)
    elif spatial:
        where, draw = " on the sphere" if grid.sphere else " on the surface", _draw_surface
        sheets = [_sheet(grid, embedding, _SURFACE_CELLS)]
    elif grid.sphere:
        where, draw, sheets = " on the sphere", _draw_hammer, [_sheet(grid, None, _FLAT_CELLS)]
    else:
        where, draw = (" over the coordinates", _draw_coordinates) if surface else ("", _draw_plane)
        sheets = [_sheet(grid, None if surface else embedding, _FLAT_CELLS)]
    recolour = draw(ax, [corners for corners, _ in sheets], _limits(fields), style.quantity(solution, column))
    if draw is _draw_coordinates or (draw is _draw_plane and embedding is None):
        _name_angles(ax, grid)

    def show(k: int) -> None:
        recolour(np.concatenate([_carry(grid.axes, fields[k], centres).ravel() for _, centres in sheets]))
        style.set_title(ax, style.heading(solution, where, times[k]))

    show(len(times) - 1)
    return ax, show


def embedding_of(solution) -> np.ndarray | None:
    """(size, 2 or 3) places of the nodes where they differ from the coordinates."""
    if len(solution.grid.axes) == 3:
        return None
    return solution.grid.points if solution.embedding is None and solution.grid.sphere else solution.embedding


def _limits(fields: np.ndarray):
    from matplotlib.colors import Normalize

    return Normalize(*style.limits(fields))


def _sheet(grid: Grid, embedding: np.ndarray | None, counts: tuple[int, int]):
    """Corners (a + 1, b + 1, m) of the cells that cover the grid's domain, and their centres' coordinates per axis."""
    edges, centres = zip(*(_cells(axis, *counts) for axis in grid.axes))
    if embedding is None:
        return np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1), centres
    places = embedding.reshape(*grid.shape, -1)
    return _carry(_smooth_axes(grid, places), places, edges), centres


def _cells(axis: Axis, least: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and centres of cells along an axis: around the nodes themselves where these are neither few nor many."""
    count = int(np.clip(axis.size, least, most))
    edges = np.linspace(axis.low, axis.high, count + 1)
    if count == axis.size and axis.kind in ("fourier", "periodic"):
        edges = edges - axis.spacing / 2
    return edges, (edges[:-1] + edges[1:]) / 2


def _carry(axes: Sequence[Axis], field: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
    """A field (*sizes, c) interpolated to a tensor product of coordinates, one (M,) array per axis."""
    if axes[0].kind == "colatitude":  # continue over the poles: periodic in the doubled colatitude
        field = np.concatenate([field, np.roll(field[::-1], axes[1].size // 2, axis=1)])
        half = np.pi / (2 * axes[0].size)
        axes = (Axis(axes[1].kind, 2 * axes[0].size, half, half + 2 * np.pi), axes[1])
    for k, (axis, x) in enumerate(zip(axes, where)):
        lines = np.moveaxis(field, k, 0)
        result = axis.interpolation(x) @ lines.reshape(axis.size, -1)
        field = np.moveaxis(np.asarray(result).reshape(len(x), *lines.shape[1:]), 0, k)
    return field


def _smooth_axes(grid: Grid, places: np.ndarray) -> tuple[Axis, ...]:
    """Axes to interpolate the nodes' places with: round where the places close up, open where they do not.

    Coordinates may wrap although their picture does not: a flat torus drawn as a rectangle. There the
    step from the last node to the first is out of proportion with all others.
    """
    axes = []
    for k, axis in enumerate(grid.axes):
        if axis.kind in ("fourier", "periodic"):
            line = np.moveaxis(places, k, 0)
            steps = np.linalg.norm(np.roll(line, -1, axis=0) - line, axis=-1)
            closes = steps[-1].max() <= 3 * steps[:-1].max(initial=0.0)
            shift = 0.0 if closes else axis.spacing / 2
            axis = Axis("fourier" if closes else "cells", axis.size, axis.low - shift, axis.high - shift)
        axes.append(axis)
    return tuple(axes)


def _slices(grid: Grid, fields: np.ndarray, count: int) -> list:
    """Sheets across the last axis, evenly spread, one of them through the value farthest from the mean.

    Sheets at fixed places may all lie on the nodes of a wave; then it would look like nothing.
    """
    axis = grid.axes[2]
    off = np.abs(fields - fields.mean(axis=(1, 2, 3), keepdims=True)).max(axis=(0, 1, 2, 4))
    farthest, step = axis.nodes[np.argmax(off)], (axis.high - axis.low) / count
    if axis.kind in ("fourier", "periodic"):
        heights = np.sort(axis.low + (farthest - axis.low) % step + step * np.arange(count))
    else:
        heights = axis.low + step * (np.arange(count) + 0.5)
        heights[np.abs(heights - farthest).argmin()] = farthest
    edges, centres = zip(*(_cells(other, *_SLICE_CELLS) for other in grid.axes[:2]))
    flat = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1)
    return [
        (np.concatenate([flat, np.full((*flat.shape[:2], 1), height)], axis=-1), (*centres, np.array([height])))
        for height in heights
    ]


def _draw_plane(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    recolour = _draw_mesh(ax, sheets[0][..., 0], sheets[0][..., 1], limits, label)
    style.finish(ax, "", "$x_1$ (length)", "$x_2$ (length)")
    ax.set_aspect("equal")
    return recolour


def _name_angles(ax, grid: Grid) -> None:
    """Where the plane is that of the coordinates."""
    for k, (axis, set_label) in enumerate(((ax.xaxis, ax.set_xlabel), (ax.yaxis, ax.set_ylabel))):
        if grid.axes[k].angle:
            set_label(style.along(grid, k))
            style.angle_ticks(axis, grid, k)


def _draw_coordinates(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    recolour = _draw_plane(ax, sheets, limits, label)
    ax.set(xlabel="coordinate $x_1$", ylabel="coordinate $x_2$", aspect="auto")
    return recolour


def _draw_hammer(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    colatitude, longitude = sheets[0][..., 0], sheets[0][..., 1]
    recolour = _draw_mesh(ax, *_hammer(colatitude, longitude - longitude.min()), limits, label, location="bottom")
    fine = np.linspace(0, 1, 91)
    for k in range(7):
        inner = 0 < k < 6
        color, width = ("white", 0.4) if inner else (style.INK, 0.8)
        line = {"color": color, "linewidth": width, "alpha": 0.6 if inner else 1.0}
        ax.plot(*_hammer(np.pi * fine, np.full(91, np.pi / 3 * k)), **line)
        ax.plot(*_hammer(np.full(91, np.pi / 6 * k), 2 * np.pi * fine), **line)
    style.finish(ax, "", "longitude (a line every 60°)", "latitude (every 30°)")
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return recolour


def _hammer(colatitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal-area map of the sphere onto an ellipse of half axes 2 sqrt(2) and sqrt(2); longitude in [0, 2 pi]."""
    turn = (longitude - np.pi) / 2
    scale = np.sqrt(2 / (1 + np.sin(colatitude) * np.cos(turn)))
    return 2 * scale * np.sin(colatitude) * np.sin(turn), scale * np.cos(colatitude)


def _draw_mesh(ax, x: np.ndarray, y: np.ndarray, limits, label: str, location: str = "right") -> Callable[[np.ndarray], None]:
    mesh, recolour = _color_mesh(ax, x, y, limits)
    ax.figure.colorbar(mesh, ax=ax, label=label, location=location)
    return recolour


def _color_mesh(ax, x: np.ndarray, y: np.ndarray, limits):
    shape = x.shape[0] - 1, x.shape[1] - 1
    mesh = ax.pcolormesh(x, y, np.zeros(shape), norm=limits, cmap="viridis", rasterized=True)
    return mesh, lambda values: mesh.set_array(values.reshape(shape))


def _draw_surface(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    recolour = _draw_faces(ax, sheets, limits, label, shaded=True)
    ax.set_axis_off()
    return recolour


def _draw_slices(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    """Side by side in two rows of the same Axes, each below its height, with the coordinates' ends at its sides."""
    from matplotlib.cm import ScalarMappable

    low, high = sheets[0].min(axis=(0, 1))[:2], sheets[0].max(axis=(0, 1))[:2]
    columns = len(sheets) // 2
    step = (high - low) * [1.25, 1.3]
    places = [np.array([k % columns, -(k // columns)]) * step for k in range(len(sheets))]
    recolours = []
    for sheet, place in zip(sheets, places):
        x, y = np.moveaxis(sheet[..., :2] + place, -1, 0)
        recolours.append(_color_mesh(ax, x, y, limits)[1])
        height = f"$x_3$ = {sheet[0, 0, 2]:.3g}"
        ax.text(
            (low + high)[0] / 2 + place[0], high[1] + place[1], height, fontsize=8, color=style.INK, ha="center", va="bottom"
        )
    ax.figure.colorbar(ScalarMappable(limits, "viridis"), ax=ax, label=label)
    style.finish(ax, "", "$x_1$ (length)", "$x_2$ (length)")
    for set_ticks, k, shown in ((ax.set_xticks, 0, places[:columns]), (ax.set_yticks, 1, places[::columns])):
        ends = low[k], high[k]
        set_ticks([end + place[k] for place in shown for end in ends], [f"{end:.3g}" for end in ends] * len(shown), fontsize=7)
    ax.set(xlim=(low[0], high[0] + places[-1][0]), ylim=(low[1] + places[-1][1], high[1] + 0.15 * (high[1] - low[1])))
    ax.set_aspect("equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)

    def recolour(values: np.ndarray) -> None:
        for paint, part in zip(recolours, np.split(values, len(sheets))):
            paint(part)

    return recolour


def _draw_sheets(ax, sheets, limits, label: str) -> Callable[[np.ndarray], None]:
    recolour = _draw_faces(ax, sheets, limits, label, shaded=False)
    style.label_space(ax, "$x_1$ (length)", "$x_2$ (length)", "$x_3$ (length)")
    ax.locator_params(axis="x", nbins=3, prune="upper")  # the end of x1 is where x2 begins
    return recolour


def _draw_faces(ax, sheets, limits, label: str, shaded: bool) -> Callable[[np.ndarray], None]:
    """Quadrilaterals in space, coloured by value times brightness; they fill the Axes."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    quads = np.concatenate([_quads(corners) for corners in sheets])
    brightness = _brightness(quads) if shaded else np.ones(len(quads))
    cmap = colormaps["viridis"]

    def recolour(values: np.ndarray) -> None:
        colors = cmap(limits(values))
        colors[:, :3] *= brightness[:, None]
        faces.set_facecolor(colors)

    faces = Poly3DCollection(quads, edgecolors="none", antialiased=False)
    ax.add_collection3d(faces)
    low, high = quads.min(axis=(0, 1)), quads.max(axis=(0, 1))
    extent = np.maximum(high - low, 1e-3 * (high - low).max())
    ax.set(xlim=(low[0], low[0] + extent[0]), ylim=(low[1], low[1] + extent[1]), zlim=(low[2], low[2] + extent[2]))
    if not shaded:  # sheets far enough apart to be seen
        extent[2] = max(extent[2], 1.3 * extent[:2].max())
    ax.set_box_aspect(extent)
    ax.view_init(**_VIEW)
    x, y, _ = proj_transform(*quads.reshape(-1, 3).T, ax.get_proj())
    reach = max(np.abs(x).max(), np.abs(y).max())
    ax.set_box_aspect(extent, zoom=(0.076 if shaded else 0.063) / reach)  # without zoom, 0.1 reaches the Axes' edge
    ax.figure.colorbar(ScalarMappable(limits, cmap), ax=ax, label=label, shrink=0.75, pad=0.02 if shaded else 0.12)
    return recolour


def _quads(corners: np.ndarray) -> np.ndarray:
    """(a b, 4, 3) from corners (a + 1, b + 1, 2 or 3); the plane lies in space at height 0."""
    if corners.shape[-1] == 2:
        corners = np.concatenate([corners, np.zeros_like(corners[..., :1])], axis=-1)
    around = corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]
    return np.stack(around, axis=2).reshape(-1, 4, 3)


def _brightness(quads: np.ndarray) -> np.ndarray:
    """Between 0.8 and 1, so that colours stay readable: by the angle of a face with a lamp above the viewer."""
    normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    elevation, azimuth = np.deg2rad([_VIEW["elev"] + 20, _VIEW["azim"] - 20])
    lamp = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
    return 0.8 + 0.2 * np.abs(normal @ np.array(lamp))  # both sides of a face are lit
