"""Named densities: constants, masses, scores and moments against closed forms."""

import numpy as np
import pytest

import attnflow as af
from attnflow.geometry import Remetrised

E0 = np.eye(4096)[0]
TOKENS = np.random.default_rng(5).normal(size=(50, 2))


@pytest.mark.parametrize(
    "dim, kappa, log_at_mode",
    [
        (2, 3.0, -0.423184688222766399),
        (5, 2.0, -1.64980304084478855),
        (200, 0.001, 243.969069601575436),
        (768, 10.0, 1468.65605245441762),
        (4096, 3000.0, 13304.5062217393686),
    ],
)
def test_von_mises_fisher_constant_in_any_dimension(dim, kappa, log_at_mode):
    mu = E0[:dim]
    assert af.VonMisesFisher(mu, kappa).log_pdf(mu) == pytest.approx(log_at_mode, rel=1e-13)


def test_von_mises_fisher_without_concentration_is_uniform():
    p, q = af.VonMisesFisher(E0[:6], 0.0), af.Uniform(af.Sphere(5))
    assert p.pdf(E0[:6]) == pytest.approx(q.pdf(E0[:6]), rel=1e-14)
    assert q.pdf(E0[:6]) == pytest.approx(1 / np.pi**3)


def densities():
    peak, valley = af.VonMisesFisher([0.6, 0.0, 0.8], 3.0), af.VonMisesFisher([0.0, 1.0, 0.0], 1.0)
    plane = af.Gaussian([1.0, -1.0], [[2.0, 0.5], [0.5, 1.0]])
    chart = af.Chart(lambda x: (2 + np.sin(x))[..., None], [(0, 2 * np.pi)], periodic=True)
    return {
        "uniform torus": af.Uniform(af.Torus([2.0, 3.0])),
        "uniform box": af.Uniform(af.Box([(-5, -3)])),
        "uniform chart": af.Uniform(chart),
        "von Mises": af.VonMises(2.0, 1.0),
        "von Mises-Fisher": peak,
        "gaussian": plane,
        "mixture of gaussians": af.Mixture([plane, af.Gaussian([0.0, 0.0], np.eye(2))], [0.3, 0.7]),
        "mixture on the sphere": af.Mixture([peak, valley], [0.5, 0.5]),
        "kernel density": af.KernelDensity(TOKENS),
    }


@pytest.mark.parametrize("name", densities())
def test_named_density_has_mass_one(name):
    p = densities()[name]
    grid = p.grid(256)
    assert grid.weights @ (p.pdf(grid.points) * p.space.volume_element(grid.points)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", densities())
def test_closed_score_is_the_gradient_of_log_pdf(name):
    p = densities()[name]
    x = p.space.probe_points()
    np.testing.assert_allclose(p.score(x), af.Density(p.space, p.log_pdf).score(x), atol=1e-8)


@pytest.mark.parametrize("name", densities())
def test_samples_lie_in_the_space_and_repeat_with_their_seed(name):
    p = densities()[name]
    x = p.space.check(p.sample(1000, rng=3))
    assert x.shape == (1000, p.space.columns)
    np.testing.assert_array_equal(x, p.sample(1000, rng=np.random.default_rng(3)))


def test_gaussian_samples_have_its_moments_in_ten_dimensions():
    factor = np.random.default_rng(1).normal(size=(10, 10))
    cov = factor @ factor.T + np.eye(10)
    x = af.Gaussian(np.arange(10.0), cov).sample(200_000, rng=0)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.01 * np.abs(cov).max() * 2)
    np.testing.assert_allclose(x.mean(axis=0), np.arange(10), atol=0.05)


def test_mixture_far_from_both_peaks_does_not_underflow():
    p = af.Mixture([af.Gaussian(0.0, 1.0), af.Gaussian(10.0, 1.0)], [0.5, 0.5])
    assert p.log_pdf(np.array([[100.0]])) == pytest.approx(-0.5 * 90**2 - 0.5 * np.log(2 * np.pi) - np.log(2))
    assert p.score(np.array([[100.0]])) == pytest.approx(-90.0)


def test_kernel_density_is_the_mean_of_its_kernels():
    p = af.KernelDensity(1e4 + TOKENS, bandwidth=[0.2, 0.5])
    x = 1e4 + np.array([[0.3, -0.2], [2.0, 1.0]])
    z = (x[:, None] - p.tokens) / [0.2, 0.5]
    kernels = np.exp(-0.5 * (z**2).sum(-1)) / (2 * np.pi * 0.1)
    np.testing.assert_allclose(p.pdf(x), kernels.mean(axis=1), rtol=1e-10)


def test_default_bandwidth_is_scotts_rule_per_coordinate():
    np.testing.assert_allclose(af.KernelDensity(TOKENS).bandwidth, TOKENS.std(axis=0, ddof=1) * 50 ** (-1 / 6), rtol=1e-14)


def test_uniform_on_a_remetrised_sphere_is_one_over_its_area():
    half = Remetrised(af.Sphere(2), lambda x: np.broadcast_to(np.eye(3) / 2, (len(x), 3, 3)))
    assert af.Uniform(half).pdf(np.array([0.0, 0.0, 1.0])) == pytest.approx(1 / (2 * np.pi))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: af.Uniform(af.Euclidean(2)), ValueError, "finite volume, got Euclidean"),
        (lambda: af.VonMises(-1.0), ValueError, "kappa must be at least 0"),
        (lambda: af.VonMises(1.0, np.nan), ValueError, "loc must be finite"),
        (lambda: af.VonMisesFisher([1.0, 1.0], 1.0), ValueError, "mu must be unit vectors"),
        (lambda: af.VonMisesFisher([1.0], 1.0), ValueError, "mu must have at least two entries"),
        (lambda: af.VonMisesFisher([0.0, 1.0], np.inf), ValueError, "kappa must be finite"),
        (lambda: af.Gaussian([0, 0], [[1, 2], [2, 1]]), ValueError, "cov must be symmetric positive definite"),
        (lambda: af.Gaussian([0, 0], [[1, 0.5], [0, 1]]), ValueError, "cov must be symmetric positive definite"),
        (lambda: af.Gaussian([0, 0], np.eye(3)), ValueError, r"cov must have shape \(2, 2\), got \(3, 3\)"),
        (lambda: af.Gaussian([0, 0], 1.0), ValueError, r"cov must have shape \(2, 2\), got \(\)"),
        (lambda: af.Gaussian(np.zeros((2, 2)), np.eye(2)), ValueError, "mean must have shape"),
        (lambda: af.Mixture([], []), TypeError, "densities must be a sequence"),
        (lambda: af.Mixture([af.VonMises(1.0), "x"], [0.5, 0.5]), TypeError, r"got \['str'\]"),
        (lambda: af.Mixture([af.VonMises(1.0), af.Gaussian(0.0, 1.0)], [0.5, 0.5]), ValueError, "at index 1"),
        (lambda: af.Mixture([af.VonMises(1.0)] * 2, [0.5, 0.6]), ValueError, "sum to one"),
        (lambda: af.Mixture([af.VonMises(1.0)] * 2, [-0.5, 1.5]), ValueError, "non-negative"),
        (lambda: af.Mixture([af.VonMises(1.0)] * 2, [1.0]), ValueError, r"weights must have shape \(2\)"),
        (lambda: af.KernelDensity(np.zeros((0, 2))), ValueError, "tokens must hold at least one point"),
        (lambda: af.KernelDensity(np.zeros(5)), ValueError, r"add an axis: tokens\[:, None\]"),
        (lambda: af.KernelDensity(np.zeros((5, 1))), ValueError, "bandwidth must be given"),
        (lambda: af.KernelDensity(TOKENS, bandwidth=0.0), ValueError, "bandwidth must be positive"),
        (lambda: af.KernelDensity(TOKENS, bandwidth=[1.0] * 3), ValueError, "one number or 2"),
        (lambda: af.KernelDensity(np.array([[np.nan]])), ValueError, "tokens must be finite"),
    ],
)
def test_bad_parameters_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
