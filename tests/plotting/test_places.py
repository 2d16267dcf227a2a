"""Tokens are drawn at the coordinates that the labels name: on circles and spheres, in space, on principal axes."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from attnflow.solution import Solution

RNG = np.random.default_rng(0)
T = np.array([0.0, 0.5, 1.0])


def moving(start, factors=(1.0, 0.7, 0.4), status=0):
    return Solution(t=T, y=np.stack([start * k for k in factors]), status=status)


def on_sphere(n):
    y = RNG.normal(size=(3, 40, n))
    return Solution(t=T, y=y / np.linalg.norm(y, axis=-1, keepdims=True))


def dots(ax):
    """(K, N, m) drawn positions, one row of the first axis a time."""
    lines = [line for line in ax.lines if line.get_marker() == "."]
    return np.stack([np.stack(line.get_data_3d() if ax.name == "3d" else line.get_data(), axis=-1) for line in lines])


def labels(ax):
    return [ax.get_xlabel(), ax.get_ylabel(), *([ax.get_zlabel()] if ax.name == "3d" else [])]


def limits(ax):
    return [ax.get_xlim(), ax.get_ylim(), *([ax.get_zlim()] if ax.name == "3d" else [])]


@pytest.mark.parametrize(
    "run", [moving(RNG.normal(size=(30, 2))), moving(RNG.normal(size=(30, 3))), on_sphere(2), on_sphere(3)],
    ids=["plane", "space", "circle", "sphere"],
)  # fmt: skip
def test_tokens_of_two_or_three_coordinates_are_drawn_at_them(run):
    ax = run.plot()
    np.testing.assert_array_equal(dots(ax), run.y[[0, -1]])
    assert labels(ax) == ["$x_1$ (length)", "$x_2$ (length)", "$x_3$ (length)"][: run.y.shape[2]]
    np.testing.assert_array_equal(dots(run.plot(t=T)), run.y)
    np.testing.assert_array_equal(dots(run.plot(t=0.5)), run.y[1:2])


def test_unit_vectors_are_drawn_on_their_circle_or_sphere():
    for run in (on_sphere(2), on_sphere(3)):
        ax = run.plot()
        rim = [line for line in ax.lines if line.get_marker() == "None"]
        for line in rim:
            radius = np.linalg.norm(line.get_data_3d() if ax.name == "3d" else line.get_data(), axis=0)
            np.testing.assert_allclose(radius, 1.0, atol=1e-12)
        assert len(rim) == (1 if ax.name != "3d" else 11)
        assert ax.get_aspect() == 1 or np.ptp(ax._box_aspect) < 1e-12
    assert len(moving(RNG.normal(size=(30, 3))).plot().lines) == 2


@pytest.mark.parametrize("projection", [None, "3d"])
def test_more_coordinates_are_drawn_on_principal_axes_that_say_so(projection):
    spread = np.array([1.0, 4.0, 0.5, 2.0, 0.1])
    run = moving(RNG.normal(size=(400, 5)) * spread)
    ax = run.plot(plt.figure().add_subplot(projection=projection))
    pooled = run.y.reshape(-1, 5)
    shares = np.sort(np.linalg.eigvalsh(np.cov(pooled.T)))[::-1] / np.trace(np.cov(pooled.T))
    drawn = dots(ax)
    m = drawn.shape[2]
    assert m == (2 if projection is None else 3)
    assert labels(ax) == [f"principal axis {k + 1}, {shares[k]:.0%} of the variance" for k in range(m)]
    every = dots(run.plot(plt.figure().add_subplot(projection=projection), t=T)).reshape(-1, m)
    np.testing.assert_allclose(np.var(every, axis=0) / np.var(pooled, axis=0).sum(), shares[:m], rtol=1e-10)
    assert np.corrcoef(every[:, 0], pooled[:, 1])[0, 1] > 0.99  # the widest coordinate, not turned round


def test_in_the_plane_points_of_space_are_not_called_by_their_coordinates():
    ax = on_sphere(3).plot(plt.figure().add_subplot())
    assert all(label.startswith("principal axis") for label in labels(ax))


@pytest.mark.parametrize(
    "run",
    [moving(RNG.normal(size=(30, n))) for n in (1, 2, 3, 5)]
    + [on_sphere(2), on_sphere(3)]
    + [Solution(t=T, y=RNG.normal(size=(3, 30, 2)), points=RNG.normal(size=(30, n))) for n in (1, 2, 3, 5)],
    ids=["1", "2", "3", "5", "circle", "sphere", "fixed-1", "fixed-2", "fixed-3", "fixed-5"],
)
def test_an_animation_has_the_labels_limits_and_columns_of_the_plot(run):
    for column in range(1 if run.points is None else 2):
        ax = run.plot(column=column)
        animation = run.animate(column=column)
        animation._init_draw()
        other = animation._fig.axes[0]
        assert labels(other) == labels(ax) and other.name == ax.name
        np.testing.assert_allclose(limits(other), limits(ax), rtol=1e-12)
        bars = [[bar.get_ylabel() for bar in figure.axes[1:]] for figure in (ax.figure, animation._fig)]
        assert bars[0] == bars[1]
        animation._func(2)
        assert "$t$ = 1" in other.get_title(loc="left")


def test_coloured_tokens_lie_at_their_places_and_say_their_column():
    points = on_sphere(3).y[0]
    run = Solution(t=T, y=RNG.normal(size=(3, 40, 2)), points=points)
    ax = run.plot(column=1)
    image = ax.collections[0]
    np.testing.assert_array_equal(np.stack(image._offsets3d, axis=-1), points)
    np.testing.assert_array_equal(image.get_array(), run.y[-1, :, 1])
    assert ax.figure.axes[1].get_ylabel() == "feature $H$, column 2 of 2"
    np.testing.assert_array_equal(run.plot(column=0, t=0.5).collections[0].get_array(), run.y[1, :, 0])


def test_lone_and_lost_tokens_are_drawn_too():
    for n in (1, 2, 3, 4):
        ax = Solution(t=T[:1], y=np.full((1, 1, n), 0.3)).plot()
        ax.figure.canvas.draw()
        moving(RNG.normal(size=(30, n)), (1.0, 2.0, np.inf), status=-1).plot().figure.canvas.draw()


def test_columns_of_tokens_that_move_are_coordinates():
    with pytest.raises(ValueError, match="^column must be 0 for tokens that move"):
        moving(RNG.normal(size=(30, 2))).plot(column=1)
