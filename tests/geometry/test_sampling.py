"""Samples are drawn from the density: goodness of fit against masses by quadrature.

Each test can fail: the last ones show that the same p-values reject a density that is slightly off.
"""

import numpy as np
import pytest
from scipy import special, stats

import attnflow as af
from attnflow.geometry import Remetrised

RING = af.Chart(lambda x: (2 + np.sin(x))[..., None], [(0, 2 * np.pi)], periodic=True)
ELLIPSOID = Remetrised(af.Sphere(2), lambda x: np.broadcast_to(np.diag([1.0, 1.0, 9.0]), (len(x), 3, 3)))
HALF_PLANE = af.Chart(lambda x: np.eye(2) / x[..., 1, None, None] ** 2, [(-1, 1), (0, np.inf)])


def first(x):
    return x[..., 0]


def angle(x):
    return np.arctan2(x[:, 1], x[:, 0]) % (2 * np.pi)


def on_circle(a):
    return np.concatenate([np.cos(a), np.sin(a)], axis=-1)


def p_value_on_a_line(density, sample):
    """Kolmogorov-Smirnov against the cumulative midpoint sums of the density."""
    (low, high), to_points = density.extent[0], lambda x: x
    if isinstance(density.space, af.Sphere):
        sample, to_points, low, high = angle(sample), on_circle, 0.0, 2 * np.pi
    edge = np.linspace(low, high, 20_001)
    middle = to_points((edge[1:, None] + edge[:-1, None]) / 2)
    mass = density.pdf(middle) * density.space.volume_element(middle) * np.diff(edge)
    cumulative = np.concatenate([[0.0], np.cumsum(mass)])
    return stats.kstest(sample.ravel(), lambda x: np.interp(x, edge, cumulative)).pvalue


def p_value_in_cells(density, coordinates, edges, to_points=lambda x: x, merge=20):
    """Chi-square over a tensor of cells; expected masses by four-point Gauss quadrature in 6^n parts of each."""
    node, weight = np.polynomial.legendre.leggauss(4)
    nodes, weights = [], []
    for edge in edges:
        fine = np.interp(np.arange(6 * (len(edge) - 1) + 1) / 6, np.arange(len(edge)), edge)
        half = np.diff(fine)[:, None] / 2
        nodes.append((fine[:-1, None] + half * (1 + node)).ravel())
        weights.append((half * weight).ravel())
    points = to_points(np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, len(edges)))
    q = density.pdf(points) * density.space.volume_element(points)
    mass = q.reshape([len(w) for w in weights])
    for k, w in enumerate(weights):
        mass = mass * w.reshape([-1 if j == k else 1 for j in range(len(weights))])
        mass = np.add.reduceat(mass, np.arange(0, len(w), 24), axis=k)
    counts = np.histogramdd(coordinates, bins=edges)[0]
    expected = mass * len(coordinates)
    rare = expected < merge
    seen, wanted = ([*v[~rare], len(coordinates) - v[~rare].sum()] for v in (counts, expected))
    if wanted[-1] < 1:  # no rare cell is left over, only rounding
        seen, wanted = seen[:-1], np.array(wanted[:-1]) * sum(seen[:-1]) / sum(wanted[:-1])
    return stats.chisquare(seen, wanted).pvalue


@pytest.mark.parametrize(
    "density",
    [
        af.Density(af.Circle(), lambda x: np.cos(x[..., 0]) + np.sin(3 * x[..., 0])),
        af.Density(af.Box([(-1, 2)]), lambda x: -3 * np.maximum(x[..., 0] - 0.3, 0) ** 2),
        af.Density(af.Euclidean(1), lambda x: -0.5 * (x[..., 0] ** 2 - 4) ** 2),
        af.Density(af.Sphere(1), lambda x: 2 * x[..., 0] * x[..., 1]),
        af.Density(RING, lambda x: np.cos(x[..., 0])),
        af.Uniform(RING),
        af.VonMises(1.5, 2.0),
        af.VonMisesFisher([0.6, 0.8], 2.0),
        af.Mixture([af.Gaussian(-1.0, 0.1), af.Gaussian(2.0, 1.0)], [0.2, 0.8]),
        af.KernelDensity(np.array([[0.0], [1.0], [5.0]]), 0.3),
    ],
    ids="circle, one-sided, two wells, S^1, ring, uniform ring, von Mises, S^1 peak, mixture, kernels".split(", "),
)
def test_samples_on_a_line_follow_their_distribution(density):
    assert p_value_on_a_line(density, density.sample(20_000, rng=1)) > 1e-3


def square(low, high, parts=12, dim=2):
    return [np.linspace(low, high, parts + 1)] * dim


@pytest.mark.parametrize(
    "density, edges",
    [
        (af.Density(af.Torus([1.0, 1.0]), lambda x: np.sin(2 * np.pi * x).sum(-1) ** 2), square(0, 1)),
        (af.Density(af.Box([(0, 1)] * 2), lambda x: -((x - 0.9) ** 2).sum(-1) / 0.0002), square(0.86, 0.94)),
        (af.Density(af.Euclidean(2), lambda x: -((x - 3) ** 4).sum(-1) / 4 + x[..., 0] * x[..., 1]), square(1, 7)),
        (
            af.Density(HALF_PLANE, lambda x: 3 * np.log(x[..., 1]) - x[..., 1]),
            [np.linspace(-1, 1, 9), np.linspace(0, 8, 17)],
        ),
        (af.Gaussian([1.0, 0.0], [[1.0, 0.9], [0.9, 1.0]]), square(-3, 4)),
        (af.Density(af.Torus([1.0] * 3), lambda x: 2 * np.cos(2 * np.pi * x).prod(-1)), square(0, 1, 6, 3)),
        (af.Density(af.Euclidean(3), lambda x: -(x**2).sum(-1) / 2 - x[..., 0] ** 4), square(-3, 3, 6, 3)),
    ],
    ids=["torus", "narrow peak", "plane", "half-plane", "gaussian", "3-torus", "space"],
)
def test_samples_in_two_and_three_dimensions_follow_their_density(density, edges):
    assert p_value_in_cells(density, density.sample(50_000, rng=2), edges) > 1e-3


def on_sphere(a):
    """(z, longitude), in which the round measure is dz d(longitude)."""
    r = np.sqrt(1 - a[:, 0] ** 2)
    return np.stack([r * np.cos(a[:, 1]), r * np.sin(a[:, 1]), a[:, 0]], axis=-1)


def sphere_p_value(density, sample):
    edges = [np.linspace(-1, 1, 11), np.linspace(0, 2 * np.pi, 13)]
    return p_value_in_cells(density, np.stack([sample[:, 2], angle(sample)], axis=-1), edges, on_sphere)


@pytest.mark.parametrize(
    "density",
    [
        af.Density(af.Sphere(2), lambda x: 3 * x[..., 0] * x[..., 2]),
        af.Density(ELLIPSOID, first),
        af.VonMisesFisher([0.0, -0.6, 0.8], 5.0),
        af.Uniform(af.Sphere(2)),
        af.Mixture([af.VonMisesFisher([0.0, 0.0, 1.0], 5.0), af.Uniform(af.Sphere(2))], [0.5, 0.5]),
    ],
    ids=["generic", "ellipsoid", "von Mises-Fisher", "uniform", "mixture"],
)
def test_samples_on_the_sphere_follow_their_density(density):
    assert sphere_p_value(density, density.sample(50_000, rng=4)) > 1e-3


@pytest.mark.parametrize("dim", [4, 64])
def test_von_mises_fisher_samples_have_their_mean_resultant_in_high_dimension(dim):
    kappa, mu = 20.0, np.eye(dim)[1]
    resultant = special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa)
    mean = af.VonMisesFisher(mu, kappa).sample(100_000, rng=0).mean(axis=0)
    np.testing.assert_allclose(mean, resultant * mu, atol=5e-3)


def test_the_line_test_rejects_a_concentration_ten_percent_off():
    right, wrong = (af.Density(af.Circle(), lambda x, k=k: k * np.cos(x[..., 0])) for k in (1.0, 1.1))
    assert p_value_on_a_line(wrong, right.sample(50_000, rng=1)) < 1e-6


def test_the_cell_tests_reject_a_concentration_ten_percent_off():
    right, wrong = (af.Density(af.Torus([1, 1]), lambda x, k=k: k * np.cos(2 * np.pi * x).sum(-1)) for k in (1.0, 1.1))
    assert p_value_in_cells(wrong, right.sample(50_000, rng=1), square(0, 1)) < 1e-6
    right, wrong = (af.VonMisesFisher([0.0, 0.0, 1.0], k) for k in (2.0, 2.2))
    assert sphere_p_value(wrong, right.sample(50_000, rng=1)) < 1e-6


def test_a_spike_the_envelope_did_not_see_still_gets_its_share():
    width, centre = 0.0012, 65.5 / 128  # half way between the points where the envelope looks
    spike = af.Density(
        af.Box([(0, 1)] * 2),
        lambda x: np.log1p(np.exp(-((x - centre) ** 2).sum(-1) / (2 * width**2)) / (2 * np.pi * width**2)),
    )
    near = np.linalg.norm(spike.sample(40_000, rng=0) - centre, axis=1) < 0.01
    assert near.mean() == pytest.approx(0.5, abs=0.01)


def test_inversion_is_exact_to_rounding():
    u = np.random.default_rng(7).random(1000)
    x = af.Density(af.Box([(0, 1)]), first).sample(1000, rng=7)
    np.testing.assert_allclose(x[:, 0], np.log1p(u * (np.e - 1)), atol=1e-14)
