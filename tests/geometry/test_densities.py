"""Densities from a user's log p: constants, scores, extents, and what is refused."""

import numpy as np
import pytest

import attnflow as af
from attnflow.checks import AccuracyWarning


def first(x):
    return x[..., 0]


@pytest.mark.parametrize(
    "space, log_pdf, log_mass",
    [
        (af.Circle(), lambda x: np.cos(x[..., 0]), 2.073791250303764),  # log(2 pi I_0(1))
        (af.Box([(0, 1), (0, 2)]), lambda x: x[..., 0] - x[..., 1], np.log((np.e - 1) * (1 - np.exp(-2)))),
        (af.Sphere(1), lambda x: x[..., 1], 2.073791250303764),
        (af.Sphere(2), lambda x: 2 * x[..., 2], np.log(2 * np.pi * np.sinh(2))),
        (af.Euclidean(1), lambda x: -(np.abs(x[..., 0] - 300) ** 2) / 0.02, 0.5 * np.log(0.02 * np.pi)),
        (af.Euclidean(2), lambda x: -((x - [40, -7]) ** 2).sum(-1) / 2, np.log(2 * np.pi)),
        (af.Euclidean(3), lambda x: -(x**2).sum(-1), 1.5 * np.log(np.pi)),
    ],
    ids=["circle", "box", "circle in the plane", "sphere", "line", "plane", "three dimensions"],
)
def test_a_density_is_normalised_over_its_space(space, log_pdf, log_mass):
    x = space.probe_points()
    np.testing.assert_allclose(log_pdf(x) - af.Density(space, log_pdf).log_pdf(x), log_mass, atol=1e-11)


def test_extent_closes_in_on_a_far_and_narrow_peak():
    ((low, high),) = af.Density(af.Euclidean(1), lambda x: -0.5 * ((x[..., 0] - 5000) / 0.1) ** 2).extent
    reach = 0.1 * np.sqrt(84)
    assert low == pytest.approx(5000 - reach, abs=0.3) and low < 5000 - reach
    assert high == pytest.approx(5000 + reach, abs=0.3) and high > 5000 + reach


def test_numerical_score_agrees_with_the_closed_form():
    p = af.Density(af.Torus([2 * np.pi, 1.0]), lambda x: np.cos(x[..., 0]) * np.sin(2 * np.pi * x[..., 1]))
    x = np.array([[0.0, 0.0], [1.0, 0.999], [6.2, 0.5]])
    exact = np.stack(
        [
            -np.sin(x[:, 0]) * np.sin(2 * np.pi * x[:, 1]),
            2 * np.pi * np.cos(x[:, 0]) * np.cos(2 * np.pi * x[:, 1]),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(p.score(x), exact, atol=1e-10)


def test_numerical_score_never_leaves_the_box():
    p = af.Density(af.Box([(0, 1)]), lambda x: np.where((x < 0) | (x > 1), np.nan, np.sin(3 * x))[..., 0])
    x = np.array([[0.0], [0.001], [0.5], [1.0]])
    np.testing.assert_allclose(p.score(x), 3 * np.cos(3 * x), atol=1e-9)


def test_score_on_the_sphere_is_tangential():
    p = af.Density(af.Sphere(2), lambda x: x[..., 0] * x[..., 2])
    x = af.Sphere(2).probe_points()
    radial = np.stack([x[:, 2], 0 * x[:, 0], x[:, 0]], axis=-1)
    np.testing.assert_allclose(p.score(x), radial - 2 * (x[:, 0] * x[:, 2])[:, None] * x, atol=1e-10)


def test_points_may_come_in_any_batch_shape():
    p = af.Density(af.Torus([1, 1]), lambda x: np.sin(2 * np.pi * x[..., 0]))
    assert p.pdf(np.zeros((3, 4, 2))).shape == (3, 4)
    assert p.score(np.zeros((3, 4, 2))).shape == (3, 4, 2)
    assert p.pdf(np.zeros(2)).shape == ()


def test_a_density_that_is_zero_somewhere_has_mass_one():
    p = af.Density(af.Box([(0, 1)]), lambda x: np.where(x[..., 0] > 0, np.log(np.maximum(x[..., 0], 1e-300)), -np.inf))
    assert p.pdf(np.array([0.25])) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.slow
def test_a_kink_finer_than_the_finest_grid_is_reported():
    with pytest.warns(AccuracyWarning, match="an estimate, not a bound"):
        af.Density(af.Torus([1, 1]), lambda x: -200 * np.abs(np.sin(np.pi * (x - 0.123))).sum(-1)).pdf(np.zeros(2))


def test_a_score_over_a_jump_is_reported():
    p = af.Density(af.Circle(), lambda x: np.where(np.sin(x[..., 0]) > 0, 0.0, 1.0))
    with pytest.warns(AccuracyWarning, match="log_pdf is not smooth"):
        p.score(np.array([[np.pi - 0.001]]))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: af.Density("circle", first), TypeError, "space must be an attnflow space, got str"),
        (lambda: af.Density(af.Circle(), 1.0), TypeError, "log_pdf must be callable"),
        (lambda: af.Density(af.Circle(), np.cos), ValueError, r"log_pdf must return shape \(16,\).*x\[..., 0\]"),
        (lambda: af.Density(af.Euclidean(1), lambda x: np.nan * x[..., 0]), ValueError, "finite or -inf, got nan"),
        (lambda: af.Density(af.Circle(), first), ValueError, "log_pdf must be periodic on Circle.*coordinate 0"),
        (lambda: af.Density(af.Torus([1, 2]), lambda x: x[..., 1]), ValueError, "coordinate 1"),
        (lambda: af.Density(af.Euclidean(1), first).pdf(np.zeros(1)), ValueError, "log_pdf must decay"),
        (lambda: af.Density(af.Euclidean(4), first).pdf(np.zeros(4)), ValueError, "at most 3"),
        (lambda: af.Density(af.Euclidean(4), first).sample(2), ValueError, "at most 3"),
        (lambda: af.Density(af.Sphere(3), first).pdf(np.ones(4) / 2), ValueError, r"S\^1 or S\^2"),
        (lambda: af.Density(af.Box([(0, 1)]), lambda x: x[..., 0] - np.inf).pdf(np.zeros(1)), ValueError, "somewhere"),
        (lambda: af.VonMises(1.0).pdf(np.linspace(0, 1, 5)), ValueError, r"x must have shape \(..., 1\).*add an axis"),
        (lambda: af.VonMises(1.0).sample(0), ValueError, "n must be at least 1"),
        (lambda: af.VonMises(1.0).sample(3, rng="seed"), TypeError, "rng must be"),
    ],
)
def test_bad_densities_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
