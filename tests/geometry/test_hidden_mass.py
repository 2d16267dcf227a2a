"""Mass where one does not look: far away, in a spike, at a pole, in a tail, between the nodes, under any constant."""

import numpy as np
import pytest
from scipy import special, stats

import attnflow as af
from attnflow.checks import AccuracyWarning

LINE, PLANE, UNIT, SQUARE = af.Euclidean(1), af.Euclidean(2), af.Box([(0, 1)]), af.Box([(0, 1)] * 2)
CIRCLE, TORUS, SPHERE = af.Circle(), af.Torus([2 * np.pi] * 2), af.Sphere(2)


def normal(mean, width):
    return lambda x: stats.norm.logpdf(x[..., 0], mean, width)


def either(a, b):
    return lambda x: np.logaddexp(a(x), b(x)) - np.log(2)


def flat(x):
    return np.zeros(x.shape[:-1])


def spot(centre, width):
    """An isotropic normal density in the plane."""
    return lambda x: -((x - centre) ** 2).sum(-1) / (2 * width**2) - np.log(2 * np.pi * width**2)


def pole_in_the_middle(x):
    """Distribution of |x - .62|^-.7 on the unit interval."""
    part = np.sign(x - 0.62) * np.abs(x - 0.62) ** 0.3
    return (part + 0.62**0.3) / (0.62**0.3 + 0.38**0.3)


def laplace_between_walls(x, centre=0.237, width=3e-5):
    return np.where(x < centre, np.exp((x - centre) / width) / 2, 1 - np.exp((centre - x) / width) / 2)


LINES = {
    # name: space, log p, its distribution, and to what the quantiles are known
    "two far apart": (LINE, either(normal(-3.0, 0.5), normal(52.0, 2.0)), lambda x: (stats.norm.cdf(x, -3, 0.5) + stats.norm.cdf(x, 52, 2)) / 2, 1e-11),
    "very far apart": (LINE, either(normal(0.0, 1.0), normal(-7e4, 3.0)), lambda x: (stats.norm.cdf(x) + stats.norm.cdf(x, -7e4, 3)) / 2, 1e-9),
    "narrow beside wide": (LINE, either(normal(1.0, 1.0), normal(1.7, 2e-5)), lambda x: (stats.norm.cdf(x, 1) + stats.norm.cdf(x, 1.7, 2e-5)) / 2, 1e-10),
    "far away": (LINE, normal(-471.3, 0.2), lambda x: stats.norm.cdf(x, -471.3, 0.2), 1e-11),
    "spike in a box": (UNIT, normal(0.2871, 3e-5), lambda x: stats.norm.cdf(x, 0.2871, 3e-5), 1e-11),
    "spike on a plateau": (UNIT, either(flat, normal(0.4137, 5e-5)), lambda x: (x + stats.norm.cdf(x, 0.4137, 5e-5)) / 2, 1e-11),
    "cusp": (UNIT, lambda x: -np.abs(x[..., 0] - 0.237) / 3e-5, laplace_between_walls, 1e-11),
    "pole at a wall": (UNIT, lambda x: -0.95 * np.log(x[..., 0]), lambda x: x**0.05, 1e-13),
    "mild pole": (UNIT, lambda x: -0.3 * np.log(x[..., 0]), lambda x: x**0.7, 1e-13),
    "pole in the middle": (UNIT, lambda x: -0.7 * np.log(np.abs(x[..., 0] - 0.62)), pole_in_the_middle, 1e-4),  # rounding
    "Cauchy": (LINE, lambda x: -np.log1p(((x[..., 0] - 7) / 3) ** 2), lambda x: stats.cauchy.cdf(x, 7, 3), 1e-13),
    "Student": (LINE, lambda x: -1.25 * np.log1p(x[..., 0] ** 2 / 1.5), lambda x: stats.t.cdf(x, 1.5), 1e-12),
    "support far away": (LINE, lambda x: np.where(np.abs(x[..., 0] - 731.25) <= 0.75, 0.0, -np.inf), lambda x: (x - 730.5) / 1.5, 1e-11),
    "exponential": (UNIT, lambda x: -4000 * x[..., 0], lambda x: -np.expm1(-4000 * x), 1e-12),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_samples_on_a_line_are_the_quantiles_of_their_shares(name):
    space, log_p, distribution, accuracy = LINES[name]
    share = np.random.default_rng(3).random(2000)
    x = af.Density(space, log_p).sample(2000, rng=3)
    np.testing.assert_allclose(distribution(x[:, 0]), share, atol=accuracy)


@pytest.mark.parametrize("name", ["spike on a plateau", "far away", "Cauchy"])
@pytest.mark.parametrize("constant", [-1500, 640, 2e5])
def test_a_constant_added_to_log_p_changes_nothing(name, constant):
    space, log_p, distribution, _ = LINES[name]
    p, q = af.Density(space, log_p), af.Density(space, lambda x: log_p(x) + constant)
    x = space.probe_points()
    np.testing.assert_allclose(q.log_pdf(x), p.log_pdf(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(distribution(q.sample(500, rng=1)), distribution(p.sample(500, rng=1)), atol=1e-8)


@pytest.mark.parametrize("space", [af.Torus([1.0, 2.0]), SPHERE, af.Torus([1.0] * 3)], ids=str)
def test_samples_by_rejection_do_not_depend_on_a_constant_either(space):
    def log_p(x):
        return np.cos(2 * np.pi * x[..., 0])

    drawn = [af.Density(space, lambda x, c=c: log_p(x) + c).sample(500, rng=5) for c in (0.0, -3000.0, 900.0)]
    np.testing.assert_allclose(drawn[1], drawn[0], atol=1e-12)
    np.testing.assert_allclose(drawn[2], drawn[0], atol=1e-12)


WAVE = 1 - np.log(2 * np.pi * special.i0(1))  # log of exp(cos) / its integral, at the crest


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "space, log_p, point, right, accuracy",
    [
        (CIRCLE, lambda x: np.cos(1024 * x[..., 0]), [0.0], WAVE, 1e-11),
        (CIRCLE, lambda x: np.cos(777 * x[..., 0] + 1), [-1 / 777], WAVE, 1e-11),
        (UNIT, lambda x: np.cos(2 * np.pi * 256 * x[..., 0]), [0.0], 1 - np.log(special.i0(1)), 1e-11),
        (TORUS, lambda x: np.cos(64 * x[..., 0]), [0.0, 0.0], WAVE - np.log(2 * np.pi), 1e-11),
        (TORUS, lambda x: np.cos(64 * x[..., 0]) + np.cos(48 * x[..., 1]), [0.0, 0.0], 2 * WAVE, 1e-11),
        # the sectoral harmonic of degree 96: with x = sin^96 of the colatitude, the mean of exp(x cos) is I_0(x)
        pytest.param(SPHERE, lambda x: ((x[..., 0] + 1j * x[..., 1]) ** 96).real, [1.0, 0.0, 0.0], 1 - np.log(12.862246146833309), 1e-9, marks=SLOW),
        (UNIT, lambda x: np.where(x[..., 0] > 0.3137, 0.0, -np.inf), [0.9], -np.log(0.6863), 1e-11),
        (UNIT, lambda x: np.where(abs(x[..., 0] - 0.41) < 0.2234, 0.0, -np.inf), [0.5], -np.log(0.4468), 1e-11),
        (UNIT, normal(0.7771, 1e-7), [0.7771], -np.log(np.sqrt(2 * np.pi) * 1e-7), 1e-7),
        (SQUARE, spot([0.3123, 0.8017], 8e-5), [0.3123, 0.8017], -np.log(2 * np.pi * 6.4e-9), 1e-9),
        (SQUARE, either(flat, spot([0.1371, 0.4421], 1.2e-4)), [0.9, 0.9], -np.log(2), 1e-9),
        (TORUS, lambda x: -2e7 * (np.sin((x - [1.0, 5.0]) / 2) ** 2).sum(-1), [1.0, 5.0], np.log(1e7 / (2 * np.pi)), 1e-7),
        pytest.param(SPHERE, lambda x: 3e6 * (x @ [0.48, 0.6, 0.64] - 1), [0.48, 0.6, 0.64], np.log(3e6 / (2 * np.pi)), 1e-8, marks=SLOW),
        (PLANE, either(spot([0, 0], 1.0), spot([-200, 90], 2.0)), [0.0, 0.0], -np.log(4 * np.pi), 1e-10),
        (PLANE, lambda x: -1.5 * np.log1p(((x - [5, 0]) ** 2).sum(-1)), [5.0, 0.0], -np.log(2 * np.pi), 1e-10),
    ],
)  # fmt: skip
def test_a_density_is_normalised_whatever_hides_in_it(space, log_p, point, right, accuracy):
    assert af.Density(space, log_p).log_pdf(np.array(point)) == pytest.approx(right, abs=accuracy)


def test_each_of_three_modes_in_the_plane_gets_its_share():
    centres, widths = np.array([[0, 0], [150, 0], [-30, -80]]), (1.0, 0.1, 3.0)
    spots = [spot(c, w) for c, w in zip(centres, widths)]
    x = af.Density(PLANE, lambda x: special.logsumexp([f(x) for f in spots], axis=0)).sample(20_000, rng=0)
    for centre, width in zip(centres, widths):
        near = x[np.abs(x - centre).max(axis=1) < 6 * width]
        assert len(near) == pytest.approx(20_000 / 3, abs=4 * np.sqrt(20_000 * 2 / 9))
        np.testing.assert_allclose(near.std(axis=0), width, rtol=0.04)


def test_a_spike_on_a_plateau_of_the_square_gets_its_share():
    centre, width = np.array([0.6217, 0.1733]), 1.1e-4
    x = af.Density(SQUARE, either(flat, spot(centre, width))).sample(20_000, rng=0)
    near = x[np.abs(x - centre).max(axis=1) < 6 * width]
    assert len(near) == pytest.approx(10_000, abs=4 * np.sqrt(5000))
    np.testing.assert_allclose(near.std(axis=0), width, rtol=0.03)


def test_heavy_tails_in_the_plane_are_sampled():
    r = np.linalg.norm(af.Density(PLANE, lambda x: -1.5 * np.log1p((x**2).sum(-1))).sample(20_000, rng=1), axis=1)
    assert stats.kstest(r, lambda r: 1 - 1 / np.sqrt(1 + r**2)).pvalue > 1e-3


@pytest.mark.slow
def test_a_jump_across_the_plane_is_reported_and_within_what_is_said():
    with pytest.warns(AccuracyWarning, match="an estimate, not a bound"):
        at = af.Density(PLANE, lambda x: np.where(((x - [3, 4]) ** 2).sum(-1) < 4, 0.0, -np.inf)).pdf(np.array([3.0, 4.0]))
    assert at == pytest.approx(1 / (4 * np.pi), rel=1e-3)


@pytest.mark.parametrize(
    "space, log_p, message",
    [
        (LINE, lambda x: -0.5 * np.log1p(x[..., 0] ** 2), "log_pdf must fall faster"),
        (PLANE, lambda x: -np.log1p((x**2).sum(-1)), "log_pdf must fall faster"),
        (UNIT, lambda x: -np.log(x[..., 0]), "log_pdf must be integrable, got a pole at x = \\[0"),
        (LINE, lambda x: np.where(np.abs(x[..., 0] - 3e7) < 1e-3, 0.0, -np.inf), "narrow beside its distance"),
        (PLANE, lambda x: np.where(((x - 4e5) ** 2).sum(-1) < 1, 0.0, -np.inf), "narrow beside its distance"),
    ],
)
def test_what_cannot_be_normalised_is_refused_in_words_that_fit(space, log_p, message):
    with pytest.raises(ValueError, match=message):
        af.Density(space, log_p).pdf(np.full(space.columns, 0.5))


def test_a_pole_in_two_dimensions_is_refused_by_the_sampler():
    with pytest.raises(ValueError, match="log_pdf must be bounded to be sampled in 2 dimensions"):
        af.Density(SQUARE, lambda x: -0.5 * np.log(x[..., 0])).sample(10, rng=0)


def test_periodicity_is_checked_below_a_large_constant():
    with pytest.raises(ValueError, match="log_pdf must be periodic"):
        af.Density(CIRCLE, lambda x: 1e5 + 1e-5 * x[..., 0])
