"""Geodesics against those known in closed form."""

import numpy as np
import pytest

import attnflow as af


def half_plane(x):
    return np.eye(2) / x[..., 1, None, None] ** 2


def sphere(x):
    """Of colatitude and longitude."""
    return np.eye(2) * np.stack([np.ones(len(x)), np.sin(x[..., 0]) ** 2], axis=-1)[..., None]


@pytest.mark.parametrize("start, end", [([-1.0, 1.0], [1.0, 1.0]), ([0.0, 0.2], [2.0, 3.0]), ([0.0, 0.1], [0.0, 10.0])])
def test_length_in_the_half_plane_falls_to_its_formula_with_the_square_of_a_segment(start, end):
    exact = np.arccosh(1 + np.sum(np.subtract(end, start) ** 2) / (2 * start[1] * end[1]))
    errors = [af.geodesic(half_plane, start, end, m)[1] - exact for m in (32, 64)]
    assert abs(errors[1]) < 3e-3 * exact and errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_a_great_circle_is_a_plane_curve_of_equal_steps():
    start, end = np.array([0.6, 0.0]), np.array([1.2, 2.0])
    path, length = af.geodesic(sphere, start, end)
    x = np.stack(
        [np.sin(path[:, 0]) * np.cos(path[:, 1]), np.sin(path[:, 0]) * np.sin(path[:, 1]), np.cos(path[:, 0])], axis=-1
    )
    assert length == pytest.approx(np.arccos(x[0] @ x[-1]), rel=1e-3)
    assert np.abs(x @ np.cross(x[0], x[-1])).max() < 2e-3
    steps = np.linalg.norm(np.diff(x, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.01
    np.testing.assert_array_equal(path[[0, -1]], [start, end])


def test_of_a_map_it_is_no_longer_than_the_line_and_no_shorter_than_the_chord():
    f = af.SquaredMap(lambda x: np.concatenate([x, 2 * np.exp(-4 * (x**2).sum(-1, keepdims=True))], axis=-1))  # a hill
    start, end = np.array([[-1.0, 0.1]]), np.array([[1.0, 0.1]])
    line = f.defects(np.concatenate([start, end]))["folding"]
    length = af.geodesic(f.metric, start[0], end[0])[1]
    chord = np.sqrt(f(start, end)[0, 0])
    assert chord < length < 0.8 * chord / line


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.geodesic("g", [0.0], [1.0]), "metric must be callable"),
        (lambda: af.geodesic(half_plane, [[0.0, 1.0]], [1.0, 1.0]), "start must have shape"),
        (lambda: af.geodesic(half_plane, [0.0, 1.0], [1.0, 1.0, 1.0]), "end must have shape"),
        (lambda: af.geodesic(half_plane, [0.0, 1.0], [1.0, 1.0], 0), "segments must be at least 1"),
        (lambda: af.geodesic(lambda x: -np.ones((len(x), 1, 1)), [0.0], [1.0]), "metric must be symmetric positive definite"),
        (lambda: af.geodesic(lambda x: np.ones(len(x)), [0.0], [1.0]), "metric\\(points\\) must have shape"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_no_way_between_one_point_and_itself():
    path, length = af.geodesic(half_plane, [0.0, 1.0], [0.0, 1.0], 4)
    assert length == 0 and (path == [0.0, 1.0]).all() and len(path) == 5
