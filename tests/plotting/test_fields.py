"""Fields are drawn where they are: the sphere as a sphere, charts in their place, with colours that hold over time."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import Normalize
from mpl_toolkits.mplot3d.proj3d import proj_transform

import attnflow as af
from attnflow.grid import Axis, Grid
from attnflow.solution import Solution

PI = np.pi
SPHERE = Grid((Axis("colatitude", 12, 0.0, PI), Axis("periodic", 24, 0.0, 2 * PI)), sphere=True)
ANNULUS = Grid((Axis("cells", 12, 1.0, 2.0), Axis("periodic", 24, 0.0, 2 * PI)))
TORUS = Grid((Axis("periodic", 24, 0.0, 2 * PI), Axis("fourier", 24, 0.0, 2 * PI)))
CUBE = Grid((Axis("cells", 8, 0.0, 1.0), Axis("gauss", 8, 0.0, 2.0), Axis("fourier", 8, 0.0, 3.0)))
SQUARE = Grid((Axis("fourier", 12, 0.0, 1.0), Axis("cells", 10, 0.0, 3.0)))


def polar(x):
    return np.stack([x[..., 0] * np.cos(x[..., 1]), x[..., 0] * np.sin(x[..., 1])], axis=-1)


def ring(x):
    radius = 2 + 0.5 * np.cos(x[..., 0])
    return np.stack([radius * np.cos(x[..., 1]), radius * np.sin(x[..., 1]), 0.5 * np.sin(x[..., 0])], axis=-1)


def field(grid, function, embedding=None, t=(0.0, 0.5, 1.0)):
    """function(x) (1 - t / 2) on the grid's points."""
    y = np.stack([(1 - s / 2) * function(grid.points).reshape(*grid.shape, 1) for s in t])
    places = None if embedding is None else embedding(grid.points)
    return Solution(t=np.array(t), y=y, grid=grid, embedding=places)


def height(x):
    return x[:, 2]


def first(x):
    return x[:, 0]


def corners(mesh):
    return mesh.get_coordinates()[..., 0], mesh.get_coordinates()[..., 1]


def quads(ax):
    """(K, 4, 3) corners of the faces of 3-D axes, in the order of their colours."""
    (faces,) = ax.collections
    return np.asarray(faces._faces)


def seen(ax, points):
    """(M, 3) colours of the picture where points in space (M, 3) appear."""
    ax.figure.canvas.draw()
    x, y, _ = proj_transform(*points.T, ax.get_proj())
    column, row = ax.transData.transform(np.stack([x, y], axis=-1)).round().astype(int).T
    return np.asarray(ax.figure.canvas.buffer_rgba())[::-1][row, column, :3] / 255


def hue(colors):
    """What is left of a colour when it is lit more or less."""
    return colors[..., :3] / colors[..., :3].sum(axis=-1, keepdims=True)


def towards_viewer(ax):
    elevation, azimuth = np.deg2rad([ax.elev, ax.azim])
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def test_the_sphere_is_drawn_closed_at_poles_and_seam():
    faces = quads(field(SPHERE, height).plot())
    np.testing.assert_allclose(np.linalg.norm(faces, axis=-1), 1.0, atol=1e-12)
    normals = np.cross(faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]) / 2
    assert np.abs(normals.sum(axis=0)).max() < 1e-12  # of a closed surface, and of no other that lacks a face
    edges = np.concatenate([faces[:, [k, (k + 1) % 4]] for k in range(4)]).round(9) + 0.0
    edges = edges[np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1) > 1e-6]  # at a pole two corners fall together
    undirected = [tuple(sorted(map(tuple, edge))) for edge in edges.tolist()]
    assert set(np.unique(np.unique(undirected, axis=0, return_counts=True)[1])) == {2}  # each edge joins two faces


def test_every_visible_point_of_the_sphere_has_its_own_colour():
    ax = field(SPHERE, height).plot()
    points = np.random.default_rng(0).normal(size=(400, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points[points @ towards_viewer(ax) > 0.4]
    exact = matplotlib.colormaps["viridis"](Normalize(-np.cos(PI / 24), np.cos(PI / 24))(points[:, 2]))
    off = np.abs(hue(seen(ax, points)) - hue(exact)).max(axis=1)
    assert len(points) > 80 and off.max() < 0.03  # the hues themselves span 0.4


@pytest.mark.parametrize("kind", ["periodic", "fourier"])
def test_an_annulus_is_drawn_from_radius_one_to_radius_two(kind):
    grid = Grid((ANNULUS.axes[0], Axis(kind, 24, 0.0, 2 * PI)))
    ax = field(grid, first, polar).plot()
    (mesh,) = ax.collections
    x, y = corners(mesh)
    radius = np.hypot(x, y)
    assert radius.min() == pytest.approx(1.0, abs=1e-12) and radius.max() == pytest.approx(2.0, abs=1e-12)
    np.testing.assert_allclose([x[:, 0], y[:, 0]], [x[:, -1], y[:, -1]], atol=1e-12)  # the seam is closed
    middle = (radius[1:, :-1] + radius[:-1, :-1]) / 2
    np.testing.assert_allclose(mesh.get_array(), middle / 2, atol=1e-12)  # H = r / 2 at t = 1
    assert ax.get_aspect() == 1


def test_a_surface_of_revolution_is_drawn_in_space_and_closed():
    ax = field(TORUS, first, ring).plot()
    faces = quads(ax)
    radius = np.hypot(faces[..., 0], faces[..., 1])
    np.testing.assert_allclose((radius - 2) ** 2 + faces[..., 2] ** 2, 0.25, atol=1e-12)
    normals = np.cross(faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]) / 2
    assert np.abs(normals.sum(axis=0)).max() < 1e-12
    assert abs((faces.mean(axis=1) * normals).sum() / 3) == pytest.approx(2 * PI**2 * 2 * 0.25, rel=2e-3)  # its volume


def test_a_periodic_chart_whose_picture_stays_open_is_not_sewn_up():
    def sheet(x):
        return np.stack([x[..., 0], x[..., 1], 0.1 * np.cos(x[..., 0])], axis=-1)

    faces = quads(field(TORUS, first, sheet).plot())
    assert faces[..., :2].min() == pytest.approx(0.0, abs=1e-9)
    assert faces[..., :2].max() == pytest.approx(2 * PI, abs=1e-9)
    assert np.ptp(faces, axis=1).max() < 2 * PI / 96 * 1.001  # no face reaches across
    step = 2 * PI / 24  # cubics, continued over one step, are wrong by step^4 times the fourth derivative
    np.testing.assert_allclose(faces[..., 2], 0.1 * np.cos(faces[..., 0]), atol=0.1 * step**4)


def test_a_flat_field_fills_its_domain_with_its_values():
    ax = field(SQUARE, lambda x: np.cos(2 * PI * x[:, 0]) + x[:, 1] ** 2).plot()
    (mesh,) = ax.collections
    x, y = corners(mesh)
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 1, 0, 3)
    centre = (x[1:, 1:] + x[:-1, :-1]) / 2, (y[1:, 1:] + y[:-1, :-1]) / 2
    np.testing.assert_allclose(mesh.get_array(), (np.cos(2 * PI * centre[0]) + centre[1] ** 2) / 2, atol=1e-12)


def test_a_grid_fine_enough_shows_its_own_nodes():
    grid = Grid((Axis("periodic", 128, 0.0, 1.0), Axis("cells", 150, 0.0, 3.0)))
    noise = np.random.default_rng(0).normal(size=grid.size)
    (mesh,) = field(grid, lambda x: noise, t=(0.0,)).plot().collections
    x, y = corners(mesh)
    np.testing.assert_allclose((x[1:, 0] + x[:-1, 0]) / 2, grid.axes[0].nodes, atol=1e-12)
    np.testing.assert_allclose((y[0, 1:] + y[0, :-1]) / 2, grid.axes[1].nodes, atol=1e-12)
    np.testing.assert_allclose(mesh.get_array(), noise.reshape(grid.shape), atol=1e-11)


def test_a_very_fine_grid_is_drawn_with_fewer_cells():
    grid = Grid((Axis("periodic", 1500, 0.0, 1.0), Axis("cells", 600, 0.0, 3.0)))
    (mesh,) = field(grid, lambda x: np.sin(2 * PI * x[:, 0]) * x[:, 1], t=(0.0,)).plot().collections
    x, y = corners(mesh)
    assert mesh.get_array().shape == (512, 512)
    middle = (x[1:, 1:] + x[:-1, 1:]) / 2, (y[1:, 1:] + y[1:, :-1]) / 2
    np.testing.assert_allclose(mesh.get_array(), np.sin(2 * PI * middle[0]) * middle[1], atol=1e-9)


def heights(ax):
    return [float(text.get_text().partition("= ")[2]) for text in ax.texts]


def test_a_solid_is_drawn_in_slices_that_say_where_they_are():
    ax = field(CUBE, lambda x: x[:, 0] + 10 * x[:, 1] + np.cos(2 * PI * x[:, 2] / 3)).plot()
    assert len(ax.collections) == len(ax.texts) == 6 and "slices across $x_3$ at $t$ = 1" in ax.get_title(loc="left")
    assert len({mesh.norm.vmin for mesh in ax.collections}) == len({mesh.norm.vmax for mesh in ax.collections}) == 1
    for k, (mesh, height) in enumerate(zip(ax.collections, heights(ax))):
        x, y = corners(mesh)
        x, y = (x[1:, 1:] + x[:-1, :-1]) / 2 - (k % 3) * 1.25, (y[1:, 1:] + y[:-1, :-1]) / 2 + (k // 3) * 2.6
        np.testing.assert_allclose(mesh.get_array(), (x + 10 * y + np.cos(2 * PI * height / 3)) / 2, atol=0.01)


@pytest.mark.parametrize("make", ["plane", "space"])
@pytest.mark.parametrize("third", [np.sin, np.cos], ids=["odd", "even"])
@pytest.mark.parametrize("waves", [1, 2, 3, 4, 6])
def test_no_wave_vanishes_between_the_slices(waves, third, make):
    grid = Grid((Axis("fourier", 16, 0.0, 1.0),) * 2 + (Axis("fourier", 24, 0.0, 2.0),))
    odd = field(grid, lambda x: np.sin(2 * PI * x[:, 0]) * np.sin(2 * PI * x[:, 1]) * third(PI * waves * x[:, 2]), t=(0.0,))
    ax = odd.plot(plt.figure().add_subplot(projection="3d") if make == "space" else None)
    if make == "space":
        (faces,) = ax.collections
        assert len(np.unique(faces._facecolor3d.round(2), axis=0)) > 100
    else:
        assert max(np.ptp(mesh.get_array()) for mesh in ax.collections) > 1.7


def test_in_space_the_slices_of_a_solid_lie_where_they_are():
    ax = field(CUBE, lambda x: x[:, 0] + 10 * x[:, 1]).plot(plt.figure().add_subplot(projection="3d"))
    middle, colors = quads(ax).mean(axis=1), ax.collections[0]._facecolor3d
    assert len(np.unique(middle[:, 2].round(9))) == 4 and (np.ptp(quads(ax)[..., 2], axis=1) == 0).all()
    limits = Normalize(0.5 * (1 / 16 + 10 * CUBE.axes[1].nodes[0]), 0.5 * (15 / 16 + 10 * CUBE.axes[1].nodes[-1]))
    exact = (middle[:, 0] + 10 * middle[:, 1]) / 2
    np.testing.assert_allclose(colors, matplotlib.colormaps["viridis"](limits(exact)), atol=0.02)


def test_on_plane_axes_the_sphere_becomes_a_map_that_keeps_areas():
    ax = plt.figure().add_subplot()
    assert field(SPHERE, height).plot(ax) is ax
    (mesh,) = ax.collections
    x, y = corners(mesh)
    diagonals = x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1], x[1:, :-1] - x[:-1, 1:], y[1:, :-1] - y[:-1, 1:]
    area = np.abs(diagonals[0] * diagonals[3] - diagonals[1] * diagonals[2]) / 2
    edges = np.linspace(0, PI, len(area) + 1)
    on_sphere = (np.cos(edges[:-1]) - np.cos(edges[1:])) * 2 * PI / area.shape[1]
    assert area.sum() == pytest.approx(4 * PI, rel=1e-3)
    np.testing.assert_allclose(area[20:-20] / on_sphere[20:-20, None], 1.0, atol=0.01)
    assert (np.diff(mesh.get_array().mean(axis=1)) < 0).all() and y[0, 0] > y[-1, 0]  # H = z falls from the north pole
    drawn_values = mesh.get_array()[:, 0]
    np.testing.assert_allclose(drawn_values, np.cos((edges[:-1] + edges[1:]) / 2) / 2, atol=2e-4)


@pytest.mark.parametrize("projection", [None, "3d"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: field(SPHERE, height),
        lambda: field(ANNULUS, first, polar),
        lambda: field(TORUS, first, ring),
        lambda: field(SQUARE, first),
        lambda: field(CUBE, first),
        lambda: field(SQUARE, lambda x: 0 * x[:, 0]),
    ],
    ids=["sphere", "annulus", "torus", "square", "cube", "constant"],
)
def test_given_axes_of_either_kind_are_used(make, projection):
    ax = plt.figure().add_subplot(projection=projection)
    assert make().plot(ax) is ax
    ax.figure.canvas.draw()
    assert ax.has_data() and ax.get_title(loc="left") and (ax.axison is False or ax.get_xlabel())
    assert [other.get_ylabel() or other.get_xlabel() for other in ax.figure.axes if other is not ax] == ["feature $H$"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: field(SPHERE, height),
        lambda: field(ANNULUS, first, polar),
        lambda: field(TORUS, first, ring),
        lambda: field(SQUARE, first),
        lambda: field(CUBE, first),
    ],
    ids=["sphere", "annulus", "torus", "square", "cube"],
)
def test_an_animation_changes_colours_within_fixed_limits(make):
    solution = make()
    animation = solution.animate()
    animation._init_draw()
    ax, bar = animation._fig.axes
    drawn = ax.collections[0]
    limits, colors = [], []
    for k, t in enumerate(solution.t):
        animation._func(k)
        assert ax.get_title(loc="left").endswith(f"$t$ = {t:.3g}")
        limits.append(bar.get_ylim())
        if hasattr(drawn, "_facecolor3d"):
            colors.append(drawn._facecolor3d.copy())
        else:
            drawn.update_scalarmappable()
            colors.append(drawn.get_facecolor().copy())
    assert set(limits) == {(solution.y.min(), solution.y.max())}
    assert all(np.abs(a - b).max() > 0.05 for a, b in zip(colors, colors[1:]))


def test_a_surface_animation_plays_in_a_notebook():
    html = field(SPHERE, height, t=(0.0, 1.0)).animate().to_jshtml()
    assert html.count("data:image/png;base64") == 2


def test_an_embedding_is_saved_and_read(tmp_path):
    solution = field(ANNULUS, first, polar)
    solution.save(tmp_path / "run.npz")
    np.testing.assert_array_equal(af.load(tmp_path / "run.npz").embedding, polar(ANNULUS.points))
    field(ANNULUS, first).save(tmp_path / "run.npz")
    assert af.load(tmp_path / "run.npz").embedding is None


def test_an_embedding_of_another_grid_is_refused_on_reading(tmp_path):
    solution = field(ANNULUS, first, polar)
    solution.embedding = solution.embedding[:-1]
    solution.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"embedding must have shape \(288, any\), got \(287, 2\)"):
        af.load(tmp_path / "run.npz")


def test_a_pulled_back_chart_remembers_its_map():
    chart = af.Chart.pullback(polar, [(1.0, 2.0), (0.0, 2 * PI)], periodic=[False, True])
    assert chart.embedding is polar
    assert af.Chart(chart.metric, [(1.0, 2.0), (0.0, 2 * PI)], periodic=[False, True]).embedding is None


def two_columns(x):
    return np.stack([x[:, 0], 5 - x[:, 0] ** 2], axis=-1)


@pytest.mark.parametrize("grid", [Grid((Axis("cells", 16, 0.0, 2.0),)), SQUARE, CUBE], ids=["line", "square", "cube"])
def test_a_picture_says_which_column_it_shows(grid):
    t = np.array([0.0, 1.0])
    y = np.stack([two_columns(grid.points).reshape(*grid.shape, 2) * (1 - s / 2) for s in t])
    solution = Solution(t=t, y=y, grid=grid)
    for column, name in ((0, "feature $H$, column 1 of 2"), (1, "feature $H$, column 2 of 2")):
        animation = solution.animate(column=column)
        animation._init_draw()
        for figure in (solution.plot(column=column).figure, animation._fig):
            assert name in [label for ax in figure.axes for label in (ax.get_ylabel(), ax.get_xlabel())]
    if len(grid.axes) == 1:
        np.testing.assert_allclose(solution.plot(column=1).lines[-1].get_ydata(), y[-1, :, 1])
    else:
        mesh = solution.plot(column=1).collections[0]
        assert mesh.norm.vmax == y[-1, ..., 1].max() != y[-1, ..., 0].max()


def test_a_picture_shows_the_time_that_is_asked_for():
    flat, line = field(SQUARE, lambda x: x[:, 1]), field(Grid((Axis("cells", 16, 0.0, 2.0),)), first)
    (mesh,) = flat.plot(t=0.5).collections
    _, y = corners(mesh)
    np.testing.assert_allclose(mesh.get_array(), 0.75 * (y[1:, 1:] + y[:-1, :-1]) / 2, atol=1e-9)
    assert flat.plot(t=0.5).get_title(loc="left").endswith("$t$ = 0.5")
    np.testing.assert_allclose(line.plot(t=[0.5]).lines[0].get_ydata(), 0.75 * line.grid.axes[0].nodes)
    assert len(line.plot(t=[0.0, 0.5]).lines) == 2
    heat = af.Heat(af.Torus([1.0])).solve(lambda x: np.cos(2 * PI * x[:, 0]), 0.1)
    drawn = heat.plot(t=0.01).lines[0]  # not saved: from dense output
    np.testing.assert_allclose(drawn.get_ydata(), np.exp(-0.04 * PI**2) * np.cos(2 * PI * drawn.get_xdata()), atol=1e-8)
    assert len(heat.animate(t=[0.0, 0.01, 0.02]).to_jshtml().split("data:image/png;base64")) == 4


@pytest.mark.parametrize(
    "choice, error, message",
    [
        ({"column": 1}, ValueError, "column must be less than 1, the number of columns, got 1"),
        ({"column": -1}, ValueError, "column must be at least 0"),
        ({"column": 0.0}, TypeError, "column must be an integer"),
        ({"column": True}, TypeError, "column must be an integer"),
        ({"t": 0.3}, ValueError, "t must be a saved time, got 0.3"),
        ({"t": []}, ValueError, "t must be a sequence of times, got none"),
        ({"t": "last"}, TypeError, "t must be a real number"),
        ({"t": np.nan}, ValueError, "t must be finite"),
    ],
)
def test_columns_and_times_that_are_not_there_are_refused(choice, error, message):
    for draw in (field(SQUARE, first).plot, field(SQUARE, first).animate):
        with pytest.raises(error, match=f"^{message}"):
            draw(**choice)
    with pytest.raises(ValueError, match="t must be one time for this picture, got 2"):
        field(SQUARE, first).plot(t=[0.0, 1.0])


def test_round_off_is_not_drawn_as_if_it_were_features():
    noise = np.random.default_rng(0).normal(size=SQUARE.size)
    (mesh,) = field(SQUARE, lambda x: 1 + 1e-15 * noise, t=(0.0,)).plot().collections
    assert mesh.norm.vmax - mesh.norm.vmin > 0.9
    line = Grid((Axis("cells", 16, 0.0, 2.0),))
    assert np.ptp(field(line, lambda x: 1 + 1e-15 * noise[:16], t=(0.0,)).plot().get_ylim()) > 0.9


def test_a_run_cut_short_says_so_in_the_title():
    solution = field(SQUARE, first)
    solution.status = 1
    assert solution.plot().get_title(loc="left").endswith("(interrupted)")
    solution.status = -1
    assert solution.plot().get_title(loc="left").endswith("(failed)")


def test_curves_stay_curves():
    grid = Grid((Axis("cells", 16, 0.0, 2.0),))
    ax = field(grid, first).plot()
    assert [len(line.get_xdata()) for line in ax.lines] == [16, 16, 16]
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), grid.axes[0].nodes)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), grid.axes[0].nodes / 2)
    animation = field(grid, first).animate()
    animation._init_draw()
    animation._func(2)
    np.testing.assert_allclose(animation._fig.axes[0].lines[0].get_ydata(), grid.axes[0].nodes / 2)
