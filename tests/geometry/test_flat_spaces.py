"""Flat spaces: distances, walls, grids, and what they refuse."""

import numpy as np
import pytest

import attnflow as af


def test_torus_distance_is_to_the_nearest_image():
    x, y = np.array([[0.1, 0.2]]), np.array([[0.9, 1.9]])
    assert af.Torus([1.0, 2.0]).distance(x[:, None], y) == pytest.approx(np.hypot(0.2, 0.3))
    assert af.Box([(0, 1), (0, 2)]).distance(x, y) == pytest.approx(np.hypot(0.8, 1.7))


@pytest.mark.parametrize(
    "space, volume",
    [(af.Circle(), 2 * np.pi), (af.Torus([1, 2, 3]), 6), (af.Box([(-5, -3), (0, 4)]), 8), (af.Euclidean(2), np.inf)],
)
def test_volume_is_the_product_of_the_lengths(space, volume):
    assert space.volume == pytest.approx(volume)
    assert space.flat


def test_only_a_box_has_a_boundary():
    assert af.Box([(0, 1)]).has_boundary
    assert not af.Circle().has_boundary and not af.Euclidean(3).has_boundary and not af.Sphere(2).has_boundary


def test_a_circle_equals_the_torus_of_its_length():
    assert af.Circle(3.0) == af.Torus([3.0]) and hash(af.Circle(3.0)) == hash(af.Torus([3.0]))
    assert af.Circle(3.0) != af.Circle(2.0)


@pytest.mark.parametrize("bounds", [(-10, -5), (5, 50), (-1, 1)])
def test_probe_points_lie_in_the_box(bounds):
    box = af.Box([bounds])
    probes = box.check(box.probe_points())
    assert np.ptp(probes) > 0.8 * (bounds[1] - bounds[0])


def test_box_names_the_first_point_outside():
    with pytest.raises(ValueError, match=r"tokens must lie in Box.*got \[1.5\] at index 1"):
        af.Box([(0, 1)]).check(np.array([[0.5], [1.5]]), "tokens")


def test_a_wall_rounded_to_float32_is_still_in_the_box():
    wall = np.array([[np.pi]], dtype=np.float32)
    assert float(wall[0, 0]) > np.pi
    af.Box([(0, np.pi)]).check(wall)


@pytest.mark.parametrize("space", [af.Circle(), af.Torus([1, 1]), af.Euclidean(2), af.Box([(0, 1)]), af.Sphere(2)])
@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 7)), np.zeros((0, 2)), np.full((1, 2), np.nan)])
def test_points_of_the_wrong_form_are_refused(space, bad):
    with pytest.raises(ValueError, match="tokens must"):
        space.check(bad, "tokens")


def test_distance_refuses_points_without_their_axis():
    with pytest.raises(ValueError, match=r"add an axis: x\[..., None\]"):
        af.Circle().distance(np.linspace(0, 1, 5), np.linspace(0, 1, 5))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: af.Circle(0.0), ValueError, "length must be positive"),
        (lambda: af.Circle("1"), TypeError, "length must be a real number"),
        (lambda: af.Torus([1.0, -1.0]), ValueError, "lengths must be positive"),
        (lambda: af.Torus([1.0] * 4), ValueError, "one to three"),
        (lambda: af.Torus([]), ValueError, "one to three"),
        (lambda: af.Box([(1, 0)]), ValueError, "low < high"),
        (lambda: af.Box([(0, np.inf)]), ValueError, "bounds must be finite"),
        (lambda: af.Box([(0, np.nan)]), ValueError, "low < high"),
        (lambda: af.Box([0, 1]), ValueError, r"\(low, high\) pairs"),
        (lambda: af.Euclidean(0), ValueError, "dim must be at least 1"),
        (lambda: af.Euclidean(2.0), TypeError, "dim must be an integer"),
        (lambda: af.Euclidean(1).grid(8), ValueError, "extent must say"),
        (lambda: af.Torus([1, 1]).grid((4, 4, 4)), ValueError, "one for each of 2 axes"),
        (lambda: af.Circle().grid(4.0), TypeError, "grid must be an integer"),
    ],
)
def test_bad_spaces_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
