"""The unit sphere: distances at both ends of their range, volumes, grids."""

import numpy as np
import pytest

import attnflow as af


def arc(angle):
    return np.array([np.cos(angle), np.sin(angle), 0.0])


@pytest.mark.parametrize("angle", [1e-9, 0.3, np.pi / 2, np.pi - 1e-9])
def test_distance_keeps_its_digits_for_near_and_antipodal_points(angle):
    distance = af.Sphere(2).distance(arc(0.0), arc(angle))
    assert distance == pytest.approx(angle, rel=1e-14)
    assert np.pi - distance == pytest.approx(np.pi - angle, abs=5e-16)


@pytest.mark.parametrize("dim, volume", [(1, 2 * np.pi), (2, 4 * np.pi), (3, 2 * np.pi**2), (6, 16 * np.pi**3 / 15)])
def test_volume_is_that_of_the_unit_sphere(dim, volume):
    assert af.Sphere(dim).volume == pytest.approx(volume, rel=1e-14)


def test_metric_projects_on_the_tangent_space():
    g = af.Sphere(2).metric(np.array([[0.0, 0.6, 0.8]]))
    np.testing.assert_allclose(g[0], [[1, 0, 0], [0, 0.64, -0.48], [0, -0.48, 0.36]], atol=1e-15)


def test_grid_on_the_two_sphere_integrates_polynomials():
    grid = af.Sphere(2).grid(8)
    assert grid.shape == (8, 16)
    x, y, z = grid.points.T
    for values, exact in [(1 + 0 * x, 4 * np.pi), (z**2, 4 * np.pi / 3), (x**2 * y**2, 4 * np.pi / 15), (x * z**3, 0)]:
        assert grid.weights @ values == pytest.approx(exact, abs=1e-13)


def test_grid_on_the_circle_is_the_longitude():
    grid = af.Sphere(1).grid(4)
    np.testing.assert_allclose(grid.points, [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-15)
    assert grid.weights.sum() == pytest.approx(2 * np.pi)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_unit_cube_maps_to_the_sphere_keeping_volumes(dim):
    u = np.random.default_rng(0).random((40_000, dim))
    x = af.Sphere(dim).check(af.Sphere(dim).from_unit_cube(u))
    second_moment = x.T @ x / len(x)
    np.testing.assert_allclose(second_moment, np.eye(dim + 1) / (dim + 1), atol=0.006)


def test_check_names_the_vector_that_is_not_unit():
    points = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.00001]])
    with pytest.raises(ValueError, match="tokens must be unit vectors on Sphere\\(2\\), got norm 1.00001 at index 1"):
        af.Sphere(2).check(points, "tokens")
    af.Sphere(2).check(points.astype(np.float32))  # single precision is given more room


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: af.Sphere(0), ValueError, "dim must be at least 1"),
        (lambda: af.Sphere(2.0), TypeError, "dim must be an integer"),
        (lambda: af.Sphere(3).grid(8), ValueError, r"S\^1 or S\^2"),
        (lambda: af.Sphere(2).grid((8, 15)), ValueError, "even number of longitudes"),
    ],
)
def test_bad_spheres_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
