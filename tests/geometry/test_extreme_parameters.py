"""Named densities at the ends of their parameters: concentrations to 1e300, tokens far apart, weights of nothing."""

import pickle

import numpy as np
import pytest
import sympy
from scipy import special

import attnflow as af


@pytest.mark.parametrize(
    "kappa, x, right",  # with 60 digits
    [(3e6, 2e-3, 0.53812484844457863), (1e15, 0.0, 16.35044966425067), (1e300, 0.0, 344.46882541590218)],
)
def test_von_mises_is_known_at_any_concentration(kappa, x, right):
    assert af.VonMises(kappa, 0.5).log_pdf(np.array([0.5 + x])) == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("kappa", [3.0, 9e4, 2e5, 1e12, 1e300])
def test_von_mises_samples_have_its_spread(kappa):
    loc = 1.0 if kappa < 1e20 else 0.0  # numbers near 1 are 1e-16 apart
    x = af.VonMises(kappa, loc).sample(40_000, rng=2)[:, 0]
    mean = (1 - special.ive(1, kappa) / special.ive(0, kappa)) / 2 if kappa < 1e6 else 1 / (4 * kappa)
    if kappa == 1e300:
        x = x[x < 3]  # below 0 they round to 2 pi
        assert len(x) == pytest.approx(20_000, abs=500)
    assert np.mean((np.sin((x - loc) / 2) / np.sqrt(mean)) ** 2) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(
    "dim, kappa, right", [(5, 1e9, 37.770777542074131), (64, 1e6, 377.2959353592204), (3, 1e12, 25.793144049519203)]
)
def test_von_mises_fisher_is_known_at_any_concentration(dim, kappa, right):
    mu = np.full(dim, dim**-0.5)
    assert af.VonMisesFisher(mu, kappa).log_pdf(mu) == pytest.approx(right, rel=1e-13)
    aside = np.eye(dim)[0] - np.eye(dim)[1]
    x = mu + aside * 1e-3 / np.sqrt(2 * kappa)
    assert af.VonMisesFisher(mu, kappa).log_pdf(x) == pytest.approx(right - 0.5e-6, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 7])
@pytest.mark.parametrize("kappa", [0.0, 5.0, 1e20, 1e300])
def test_von_mises_fisher_samples_are_as_far_from_the_mode_as_they_should(dim, kappa):
    mu = np.eye(dim)[0]
    x = af.VonMisesFisher(mu, kappa).sample(30_000, rng=3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-15)
    aside = np.mean(x[:, 1:] ** 2)
    # <|x - <mu, x> mu|^2> is (d - 1) A / kappa, with the mean resultant A
    if kappa == 0:
        right = 1 / dim
    else:
        right = (special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa) if kappa < 1e6 else 1) / kappa
    assert aside == pytest.approx(right, rel=0.03)


def test_von_mises_fisher_has_its_score_in_a_narrow_peak():
    kappa, step = 1e14, 1e-9
    x = np.array([[np.sin(step), 0.0, np.cos(step)]])
    np.testing.assert_allclose(af.VonMisesFisher([0.0, 0.0, 1.0], kappa).score(x)[0, 0], -kappa * step, rtol=1e-9)


TOKENS = np.concatenate([7e7 + np.linspace(-1, 1, 30), [-3e9, 0.0, 12.0]])[:, None]


@pytest.mark.parametrize("bandwidth", [0.03, 2.0])
def test_kernel_densities_of_tokens_far_apart_are_those_of_their_kernels(bandwidth):
    p, x = af.KernelDensity(TOKENS, bandwidth), np.array([[7e7 + 0.25], [-3e9], [5.0], [1e12]])
    parts = -0.5 * ((x - TOKENS[:, 0]) / bandwidth) ** 2
    right = special.logsumexp(parts, axis=1) - np.log(len(TOKENS) * np.sqrt(2 * np.pi) * bandwidth)
    np.testing.assert_allclose(p.log_pdf(x), right, rtol=1e-12)
    share = special.softmax(parts, axis=1)
    np.testing.assert_allclose(p.score(x)[:, 0], (share * (TOKENS[:, 0] - x)).sum(axis=1) / bandwidth**2, rtol=1e-9)


def test_scotts_rule_is_not_fooled_by_rounding():
    with pytest.raises(ValueError, match="bandwidth must be given"):
        af.KernelDensity(np.full((7, 1), 0.1))  # their standard deviation is 1e-17
    assert af.KernelDensity(np.array([[-1e200], [1e200], [0.0]])).bandwidth == pytest.approx(1e200 * 3**-0.2)


def test_a_part_without_weight_is_no_part():
    circle = [af.VonMises(2.0), af.VonMises(1e305), af.Uniform(af.Circle())]
    p, x = af.Mixture(circle, [1.0, 0.0, 0.0]), np.array([[0.3], [3.0], [0.0]])
    np.testing.assert_allclose(p.score(x), af.VonMises(2.0).score(x), rtol=1e-14)
    np.testing.assert_allclose(p.log_pdf(x), af.VonMises(2.0).log_pdf(x), rtol=1e-14)
    near, far = af.Gaussian(0.0, 1.0), af.Gaussian(1e9, 1.0)
    assert af.Mixture([near, far], [1.0, 0.0]).extent == near.extent
    assert af.Mixture([near, far], [1.0, 1e-310]).score(np.array([[1e9]]))[0, 0] == pytest.approx(0.0, abs=1e-9)


def test_gaussians_at_the_ends_of_numbers():
    assert af.Gaussian(0.0, 1e307).log_pdf(np.zeros(1)) == pytest.approx(-0.5 * (np.log(2 * np.pi) + 307 * np.log(10)))
    for cov in (1e-320, np.eye(2) * 1e-312):
        with pytest.raises(ValueError, match="^cov must"):
            af.Gaussian(np.zeros(np.ndim(cov) or 1), cov)


@pytest.mark.parametrize("bandwidth", [1e-320, [1e-200], True])
def test_bandwidths_without_a_kernel_are_refused(bandwidth):
    with pytest.raises((TypeError, ValueError), match="^bandwidth must"):
        af.KernelDensity(np.zeros((2, 1)), bandwidth)


@pytest.mark.parametrize("densities", [None, af.VonMises(1.0), np.random.default_rng(0), 3, "ab"], ids=str)
def test_mixtures_of_no_sequence_are_refused(densities):
    with pytest.raises(TypeError, match="^densities must be a sequence of attnflow densities"):
        af.Mixture(densities, [1.0])


def ring(x):
    return (2 + np.sin(x))[..., None]


def parabola(x):
    return np.stack([x[..., 0], x[..., 0] ** 2], axis=-1)


def well(x):
    return -(x[..., 0] ** 2)


@pytest.mark.parametrize(
    "density",
    [
        af.Uniform(af.Chart(ring, [(0, 2 * np.pi)], periodic=True)),
        af.Uniform(af.Chart(sympy.Matrix([[(2 + sympy.cos(sympy.Symbol("x0"))) ** 2]]), [(0, 1)])),
        af.Density(af.Chart.pullback(parabola, [(0, 1)]), well),
        af.Density(af.Euclidean(1), well),
        af.VonMisesFisher([0.0, 1.0], 3.0),
        af.Mixture([af.Gaussian(0.0, 1.0), af.KernelDensity(np.array([[0.0], [1.0]]), 0.5)], [0.5, 0.5]),
    ],
    ids=str,
)
def test_densities_can_be_pickled_fresh_and_used(density):
    x = density.space.probe_points()
    fresh = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(fresh.log_pdf(x), density.log_pdf(x))
    used = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(used.sample(5, rng=0), density.sample(5, rng=0))


def test_heat_in_a_conformal_metric_can_be_pickled():
    heat, x = af.ConformalHeat(af.VonMises(1.0)), np.array([[0.3], [2.0]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(heat)).log_weight(x), heat.log_weight(x))
