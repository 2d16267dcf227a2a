"""Paths of the limit equation: weak orders without noise, closed forms within standard errors, honest error bars.

The weak error of a scheme is computed without random numbers: its one-step operator acts on the values of H0 at
interpolation nodes, the mean over the noise being a quadrature, and is applied as often as there are steps.
"""

import itertools
import warnings

import numpy as np
import pytest
import sympy
from numpy.polynomial import hermite_e, legendre
from scipy import stats
from scipy.linalg import expm
from scipy.special import jv, jvp, yv, yvp

import attnflow as af
from attnflow.geometry import Remetrised
from attnflow.particles import diffusions, feynman_kac, langevin
from attnflow.particles.moments import Moments

CIRCLE = np.pi / 2 * np.arange(4.0)[:, None]
CIRCLE_EXACT = np.array([0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043])
LINE = np.array([[-0.5], [0.0], [0.4], [1.1]])
LINE_EXACT = np.array([0.902404523462279, 0.913296183755108, 0.873861343782559, 0.708552953230377])
x0 = sympy.Symbol("x0")
VANISHING = af.Density(af.Box([(0, 1)]), lambda x: np.log(x[..., 0]))
RING = af.Chart(sympy.diag(1, (2 + sympy.cos(x0)) ** 2), [(0, 2 * np.pi)] * 2, periodic=True)


def circle_initial(x):
    return np.sin(x[:, 0]) + np.cos(2 * x[:, 0])


def after(density, t, steps, nodes, f, basis, quadrature):
    """Means, after `steps` steps from the nodes, of a function with values f at the nodes: no random numbers."""
    scheme = diffusions.build_scheme(density, 2.0)
    numbers, weights = quadrature
    size = scheme.draws * nodes.shape[1]
    xi = np.array(list(itertools.product(numbers, repeat=size))).reshape(-1, scheme.draws, nodes.shape[1])
    w = np.array(list(itertools.product(weights, repeat=size))).prod(axis=1)
    rows = [w @ basis(scheme.advance(np.tile(x, (len(xi), 1)), t / steps, np.moveaxis(xi, 1, 0))) for x in nodes]
    return np.linalg.matrix_power(np.array(rows) / w.sum(), steps) @ f


def order(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def legendre_basis(size, low, high):
    """Gauss nodes, values of the interpolant at points from values at the nodes, and its derivative at the nodes."""
    z = legendre.leggauss(size)[0]
    inverse = np.linalg.inv(legendre.legvander(z, size - 1))
    slopes = np.stack([legendre.legval(z, legendre.legder(c)) for c in np.eye(size)], axis=1)
    middle, half = (low + high) / 2, (high - low) / 2

    def basis(x):
        return legendre.legvander((x - middle) / half, size - 1) @ inverse

    return middle + half * z, basis, slopes @ inverse / half


def midpoints(reach, count):
    """A quadrature of the normal law that bears the kinks that walls make."""
    z = reach * (2 * np.arange(count) + 1 - count) / count
    return z, np.exp(-(z**2) / 2)


def mean_cosine_on_the_line(count):
    """E cos(X) after `count` steps to t = 0.15: the drift is linear, so a step is x -> alpha x + beta + gamma xi."""
    scheme = diffusions.build_scheme(af.Gaussian(0.2, 0.49), 2.0)
    ends = scheme.advance(np.array([[0.0], [1.0], [0.0]]), 0.15 / count, np.array([[[0.0], [0.0], [1.0]]]))[:, 0]
    beta, alpha, gamma = ends[0], ends[1] - ends[0], ends[2] - ends[0]
    mean, variance = LINE[:, 0], 0.0
    for _ in range(count):
        mean, variance = alpha * mean + beta, alpha**2 * variance + gamma**2
    return np.exp(-variance / 2) * np.cos(mean)


def test_heun_has_weak_order_two_on_a_line_of_gaussian_tokens():
    steps = [5, 10, 20, 40]
    errors = [np.abs(mean_cosine_on_the_line(count) - LINE_EXACT).max() for count in steps]
    assert order(steps, errors) == pytest.approx(2, abs=0.15)


def weak_error_on_the_circle(count):
    nodes, k = 2 * np.pi * np.arange(31)[:, None] / 31, np.arange(-15, 16)
    inverse = np.exp(-1j * k[:, None] * nodes[:, 0]) / 31

    def basis(x):
        return (np.exp(1j * x * k) @ inverse).real

    f = after(af.VonMises(1.5), 0.5, count, nodes, circle_initial(nodes), basis, hermite_e.hermegauss(13))
    return np.abs(basis(CIRCLE) @ f - CIRCLE_EXACT).max()


def test_heun_has_weak_order_two_on_a_circle_of_von_mises_tokens():
    steps = [10, 20, 40, 80]
    assert order(steps, [weak_error_on_the_circle(count) for count in steps]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("paths", [1000, 10_000, 100_000])
def test_chosen_steps_keep_the_weak_error_well_below_the_statistical_one(paths):
    # the features' standard deviation is between 0.45 and 1 at the four points
    density = af.VonMises(1.5)
    count = diffusions.choose_steps(density, 2.0, diffusions.build_scheme(density, 2.0), CIRCLE, 0.5, paths)
    assert 0.02 < weak_error_on_the_circle(count) * np.sqrt(paths) < 0.25


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("degree", [1, 2])
def test_a_brownian_step_on_the_sphere_damps_harmonics_to_an_error_of_third_order(n, degree):
    # the first of the two half steps alone; harmonics of degree 1 and 2 around the pole decay by e^(-l (l + n - 1) h)
    pole, (z, w) = np.eye(n + 1)[:1], hermite_e.hermegauss(9)
    xi = np.array(list(itertools.product(z, repeat=n + 1)))
    weights = np.array(list(itertools.product(w, repeat=n + 1))).prod(axis=1)
    scheme = diffusions.build_scheme(af.Uniform(af.Sphere(n)), 2.0)
    lengths, errors = np.array([0.01, 0.005, 0.0025]), []
    for h in lengths:
        c = scheme.advance(np.repeat(pole, len(xi), axis=0), 2 * h, np.stack([xi, 0 * xi]))[:, 0]
        harmonic = c if degree == 1 else ((n + 1) * c**2 - 1) / n
        errors.append(abs(weights @ harmonic / weights.sum() - np.exp(-degree * (degree + n - 1) * h)))
    rate = 4 if n == 3 else 3  # on S^3 the third order vanishes as well
    assert order(1 / lengths, errors) == pytest.approx(rate, abs=0.1)


def zonal(size):
    z, basis, D = legendre_basis(size, -1, 1)
    return z, np.stack([np.sqrt(1 - z**2), 0 * z, z], axis=1), lambda x: basis(x[:, 2]), D


def test_splitting_has_weak_order_two_on_a_sphere_of_von_mises_fisher_tokens():
    z, nodes, basis, D = zonal(14)
    generator = np.diag(1 - z**2) @ D @ D + np.diag(-2 * z + 2 * 1.2 * (1 - z**2)) @ D
    f = z + 1.5 * z**2
    exact = expm(0.4 * generator) @ f
    steps, errors = [6, 12, 24], []
    for count in steps:
        end = after(af.VonMisesFisher([0.0, 0.0, 1.0], 1.2), 0.4, count, nodes, f, basis, hermite_e.hermegauss(3))
        errors.append(np.abs(end - exact).max())
    assert order(steps, errors) == pytest.approx(2, abs=0.15)


def test_any_metric_on_a_sphere_has_weak_order_one_and_two_after_extrapolation():
    # the metric of an ellipsoid of revolution: L = w^-1 d_z (w g^zz d_z), w = p^2 sqrt(det g)
    z, nodes, basis, D = zonal(20)
    space = Remetrised(af.Sphere(2), lambda x: np.broadcast_to(np.diag([1.0, 1.0, 1.6]), (len(x), 3, 3)))
    density = af.Density(space, lambda x: 0.5 * x[..., 2])
    stretch = z**2 + 1.6 * (1 - z**2)
    w = np.sqrt(stretch) * np.exp(z)
    f = z + z**2
    exact = expm(0.2 * np.diag(1 / w) @ D @ np.diag(w * (1 - z**2) / stretch) @ D) @ f
    steps = [16, 32, 64]
    ends = [after(density, 0.2, count, nodes, f, basis, hermite_e.hermegauss(7)) for count in steps]
    assert order(steps, [np.abs(end - exact).max() for end in ends]) == pytest.approx(1, abs=0.15)
    better = [np.abs(2 * fine - coarse - exact).max() for coarse, fine in itertools.pairwise(ends)]
    assert np.log2(better[0] / better[1]) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("shear", [0.0, 0.7])
def test_conormal_mirrors_keep_weak_order_one_in_a_sheared_annulus(shear):
    # polar coordinates r, u with angle u + shear r: off-diagonal at the walls r = 1 and 2; the mode of angle 1 is
    # J_1(kr) Y_1'(k) - J_1'(k) Y_1(kr) with k = 3.2824711911613815, where its slope at r = 2 vanishes too
    k = 3.2824711911613815
    assert jvp(1, k) * yvp(1, 2 * k) - jvp(1, 2 * k) * yvp(1, k) == pytest.approx(0, abs=1e-12)
    r, radial, _ = legendre_basis(12, 1, 2)
    f = (jv(1, k * r) * yvp(1, k) - jvp(1, k) * yv(1, k * r)) * np.exp(1j * shear * r)
    density = af.Uniform(af.Chart(sheared_metric(shear), [(1, 2), (0, 2 * np.pi)], periodic=(False, True)))
    steps, ends = [16, 32, 64], []
    for count in steps:
        nodes = np.stack([r, 0 * r], axis=1)
        ends.append(after(density, 0.1, count, nodes, f, lambda x: radial(x[:, 0]) * np.exp(1j * x[:, 1:]), midpoints(6, 80)))
    errors = [np.abs(end - np.exp(-0.1 * k**2) * f).max() for end in ends]
    assert order(steps, errors) == pytest.approx(1, abs=0.1)
    extrapolated = np.abs(2 * ends[2] - ends[1] - np.exp(-0.1 * k**2) * f).max()
    assert extrapolated < 0.05 * errors[2]


def sheared_metric(shear):
    def metric(x):
        r = x[..., 0]
        rows = [[1 + (shear * r) ** 2, shear * r**2], [shear * r**2, r**2]]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    return metric


def test_a_slope_of_p_at_a_wall_costs_no_more_than_an_order():
    x, basis, _ = legendre_basis(20, 0, np.pi)
    density = af.Density(af.Box([(0, np.pi)]), lambda x: x[..., 0])
    f = np.exp(-x) * (2 * np.cos(2 * x) + np.sin(2 * x))  # the no-flux mode of eigenvalue -5
    steps = [16, 32, 64, 128]
    ends = [after(density, 0.3, n, x[:, None], f, lambda y: basis(y[:, 0]), midpoints(7, 800)) for n in steps]
    errors = [np.abs(end - np.exp(-1.5) * f).max() for end in ends]
    assert 1 <= order(steps, errors) < 2 and errors[-1] < 3e-4


@pytest.mark.parametrize("steps", [1, 3])
def test_walls_are_exact_for_uniform_tokens_in_constant_metrics(steps):
    # the strip 0 < y < 1 in coordinates u = x - 0.6 y and y: cos(x) cos(pi y) decays by e^(-(1 + pi^2) t)
    G = np.array([[1.0, 0.6], [0.6, 1.36]])
    strip = af.Chart(lambda x: np.broadcast_to(G, (*x.shape, 2)), [(0, 2 * np.pi), (0, 1)], periodic=(True, False))

    def mode(x):
        return np.cos(x[:, 0] + 0.6 * x[:, 1]) * np.cos(np.pi * x[:, 1])

    scheme = diffusions.build_scheme(af.Uniform(strip), 2.0)
    z, w = midpoints(8, 200)
    xi = np.stack(np.meshgrid(z, z), axis=-1).reshape(1, -1, 2)
    start = np.array([[1.0, 0.97]])
    ends = scheme.advance(np.tile(start, (xi.shape[1], 1)), 0.05 / steps, xi)
    mean = np.outer(w, w).ravel() @ mode(ends) / np.outer(w, w).sum()
    assert mean == pytest.approx(np.exp(-(1 + np.pi**2) * 0.05 / steps) * mode(start)[0], abs=1e-5)


def deviations(estimate, exact):
    """(estimate - exact) / standard error at the last time, first column."""
    return (estimate.mean[-1, :, 0] - exact) / estimate.standard_error[-1, :, 0]


@pytest.mark.parametrize(
    "density, initial, points, t, exact",
    [
        (af.Gaussian(0.2, 0.49), lambda x: np.cos(x[:, 0]), LINE, 0.15, LINE_EXACT),
        (af.VonMises(1.5), circle_initial, CIRCLE, 0.5, CIRCLE_EXACT),
        (
            af.Density(af.Box([(0, np.pi)]), lambda x: 0.5 * x[..., 0]),
            lambda x: np.exp(-0.5 * x[:, 0]) * (np.cos(x[:, 0]) + 0.5 * np.sin(x[:, 0])),
            np.array([[0.0], [1.0]]),
            0.5,
            np.exp(-0.625) * np.array([1.0, np.exp(-0.5) * (np.cos(1.0) + 0.5 * np.sin(1.0))]),
        ),
    ],
    ids=["line", "circle", "walls"],
)
def test_means_over_paths_are_the_solution(density, initial, points, t, exact):
    H = feynman_kac(density, initial, points, t, paths=40_000, rng=1)
    assert H.mean.shape == H.standard_error.shape == H.bias.shape == (1, len(points), 1)
    assert np.abs(deviations(H, exact)).max() < 4
    assert H.standard_error.max() < 0.006 and np.abs(H.bias).max() < 3 * H.standard_error.max()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_harmonics_on_spheres_decay_at_their_rates(n):
    times = [0.05, 0.2]
    H = feynman_kac(
        af.Uniform(af.Sphere(n)),
        lambda x: np.stack([x[:, 0], ((n + 1) * x[:, 0] ** 2 - 1) / n], axis=1),
        np.eye(n + 1)[:1],
        times,
        paths=10_000,
        rng=n,
    )
    exact = np.exp(-np.outer(times, [n, 2 * (n + 1)]))
    assert np.abs((H.mean[:, 0] - exact) / H.standard_error[:, 0]).max() < 4
    assert H.standard_error.max() < 0.01


def test_error_bars_on_a_curved_torus_are_honest_against_the_pde():
    density = af.Density(RING, lambda x: 0.5 * np.cos(x[..., 0] - x[..., 1]))
    points = np.random.default_rng(5).uniform(0, 2 * np.pi, (30, 2))

    def initial(x):
        return np.cos(x[:, 0]) * np.sin(x[:, 1]) + np.sin(x[:, 0])

    exact = af.DriftDiffusion(density).solve(initial, 0.3, rtol=1e-6).at(points)[:, 0]
    H = feynman_kac(density, initial, points, 0.3, paths=600, rng=2)
    z = deviations(H, exact)
    assert np.abs(z).max() < 4
    assert z.std() == pytest.approx(1, abs=0.3) and abs(z.mean()) < 0.5


def test_error_bars_have_spread_one():
    H = feynman_kac(af.VonMises(1.5), circle_initial, np.repeat(CIRCLE, 100, axis=0), 0.5, paths=400, rng=3)
    z = deviations(H, np.repeat(CIRCLE_EXACT, 100))
    assert z.std() == pytest.approx(1, abs=0.1) and abs(z.mean()) < 0.15


def test_the_bias_is_that_of_the_scheme_and_the_mean_is_free_of_it():
    H = feynman_kac(af.Gaussian(0.2, 0.49), lambda x: np.cos(x[:, 0]), LINE, 0.15, paths=100_000, steps=2, rng=4)
    bias = (mean_cosine_on_the_line(1) - mean_cosine_on_the_line(2)) / 3
    assert bias == pytest.approx([2.259e-3, 3.552e-3, 2.754e-3, -2.165e-3], abs=1e-6)
    assert H.bias[0, :, 0] == pytest.approx(bias, abs=3e-4)
    z = deviations(H, mean_cosine_on_the_line(2) - bias)
    assert np.abs(z).max() < 3 and np.abs(bias / H.standard_error[0, :, 0]).max() > 6
    assert H.stats["steps"] == 2 and H.stats["step"] == pytest.approx(0.075) and H.stats["weak_order"] == 2


def test_moments_of_batches_are_those_of_all_values():
    values = np.random.default_rng(0).normal(size=(2, 3, 50, 4, 1)) + np.linspace(0, 5, 50)[:, None, None]
    sums = Moments((2, 3, 4, 1))
    for batch in np.split(values, [10, 11, 30], axis=2):
        sums.add(batch)
    np.testing.assert_allclose(sums.mean, values.mean(axis=2), rtol=1e-13)
    np.testing.assert_allclose(sums.standard_error(), values.std(axis=2, ddof=1) / np.sqrt(50), rtol=1e-13)


def test_a_lopsided_sample_is_measured_over_all_batches():
    values = np.random.default_rng(0).exponential(size=(2, 3, 500, 4, 1))
    sums = Moments((2, 3, 4, 1))
    for batch in np.split(values, [10, 11, 300], axis=2):
        sums.add(batch)
    np.testing.assert_allclose(sums.lopsidedness(), stats.skew(values, axis=2) ** 2 / 500, rtol=1e-10)


@pytest.mark.parametrize("power, paths", [(3.5, 500), (4.0, 4000)])
def test_intervals_that_miss_the_mean_of_a_lognormal_are_warned_of(power, paths):
    # long after the start x is N(0, 1/2), and the mean of exp(power x) is exp(power^2 / 4)
    held = warned = 0
    for seed in range(30):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", af.checks.AccuracyWarning)
            H = feynman_kac(af.Gaussian(0.0, 1.0), lambda x: np.exp(power * x[:, 0]), [[0.5]], 5.0, paths, rng=seed, steps=40)
        warned += any("95% intervals" in str(w.message) and "point 0, column 0" in str(w.message) for w in heard)
        held += abs(H.mean[0, 0, 0] - np.exp(power**2 / 4)) < 1.96 * H.standard_error[0, 0, 0]
    assert warned >= 25 and held < 27  # 95% intervals would hold 28.5


@pytest.mark.parametrize(
    "start",
    [lambda x: x[:, 0], lambda x: np.exp(0.5 * x[:, 0]), lambda x: 1e6 + np.cos(3 * x[:, 0]), lambda x: 7.0 + 0 * x[:, 0]],
    ids=["linear", "exponential", "large", "constant"],
)
def test_benign_starts_are_not_warned_of(start):
    for seed in range(5):  # warnings are errors here
        feynman_kac(af.Gaussian(0.0, 1.0), start, [[0.5], [-1.0]], 1.0, 1000, rng=seed, steps=20)


def test_long_paths_follow_the_stationary_law():
    # p^2 for drift 2, p for drift 1: the means of cos are I_1(3)/I_0(3) and I_1(1.5)/I_0(1.5)
    for drift, mean in [(2.0, 0.8099852939), (1.0, 0.5964200263)]:
        run = langevin(af.VonMises(1.5), [[3.0]], 6.0, paths=20_000, drift=drift, rng=0)
        assert np.cos(run.y[-1]).mean() == pytest.approx(mean, abs=4 * np.cos(run.y[-1]).std() / np.sqrt(20_000))
        assert run.y.min() >= 0 and run.y.max() < 2 * np.pi
    # sqrt(det g) on the ring: x0 has the density (2 + cos x0) / (4 pi), the mean of its cosine is 1/4
    run = langevin(af.Uniform(RING), [[np.pi, 0.0]], 8.0, paths=2000, steps=100, rng=0)
    assert np.cos(run.y[-1, :, 0]).mean() == pytest.approx(0.25, abs=4 * 0.7 / np.sqrt(2000))


def test_paths_of_one_point_lie_together_and_start_there():
    points = np.array([[0.5], [2.0], [4.0]])
    run = langevin(af.VonMises(1.0), points, [0.0, 1e-4, 0.03], paths=50, steps=10, rng=0)
    assert run.y.shape == (3, 150, 1) and run.points is None and run.status == 0
    y = run.y.reshape(3, 3, 50, 1)
    np.testing.assert_array_equal(y[0], np.broadcast_to(points[:, None], (3, 50, 1)))
    assert np.abs(y[1] - points[:, None]).max() < 0.1
    assert run.stats["steps"] == 11 and run.stats["paths"] == 50 and run.stats["points"] == 3
    again = langevin(af.VonMises(1.0), points, [0.0, 1e-4, 0.03], paths=50, steps=10, rng=0, progress=True)
    np.testing.assert_array_equal(run.y, again.y)


def test_paths_between_walls_stay_there():
    sloped = af.Density(af.Box([(0, 1), (-1, 1)]), lambda x: 3 * x[..., 0])
    run = langevin(sloped, [[1.0, -1.0]], [0.1, 2.0], 200, steps=40, rng=0)
    assert run.y[..., 0].min() >= 0 and run.y[..., 0].max() <= 1 and np.abs(run.y[..., 1]).max() <= 1
    half_line = af.Density(
        af.Chart(lambda x: 1 + 0 * x[..., None], [(0, np.inf)]), lambda x: -(x[..., 0] ** 2) / 2
    )  # |x| under e^(-x^2), whose mean is 1 / sqrt(pi)
    run = langevin(half_line, [[0.0]], 3.0, paths=2000, steps=100, rng=0)
    assert diffusions.settle(af.Circle(1.0), np.array([[-1e-20], [1.25], [-0.25]])).tolist() == [[0.0], [0.25], [0.75]]
    assert run.y.min() >= 0 and run.y.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=4 * 0.43 / np.sqrt(2000))


def test_chosen_steps_grow_with_steepness_and_with_paths():
    def steps(kappa, paths):
        density = af.VonMises(kappa)
        scheme = diffusions.build_scheme(density, 2.0)
        return diffusions.choose_steps(density, 2.0, scheme, np.array([[0.1]]), 0.5, paths)

    assert steps(100.0, 10_000) == pytest.approx(10 * steps(10.0, 10_000), rel=0.05)
    assert steps(10.0, 10**8) == pytest.approx(10 * steps(10.0, 10**4), rel=0.05)


def test_interrupted_runs_return_what_was_computed(monkeypatch):
    real, calls = diffusions._heun, []

    def interrupted(density, drift):
        advance = real(density, drift)

        def counted(*arguments):
            calls.append(1)
            if len(calls) == 25:
                raise KeyboardInterrupt
            return advance(*arguments)

        return counted

    monkeypatch.setattr(diffusions, "_heun", interrupted)
    run = langevin(af.VonMises(1.0), [[0.5]], [0.1, 0.2, 0.3], 10, steps=30, rng=0)
    assert run.status == 1 and "interrupted after 2 of 3" in run.message and run.y.shape == (2, 10, 1)
    calls.clear()
    first = langevin(af.VonMises(1.0), [[0.5]], 0.3, 10, steps=30, rng=0)
    assert first.status == 1 and first.t.tolist() == [0.0] and (first.y == 0.5).all()
    calls.clear()
    H = feynman_kac(af.VonMises(1.0), lambda x: x[:, 0], [[0.5]], 0.3, 40_000, steps=10, rng=0)
    assert H.status == 1 and "interrupted after 16384 of 40000 paths" in H.message and H.stats["paths"] == 16384
    assert np.isfinite(H.mean).all()
    calls[:] = [1] * 24
    H = feynman_kac(af.VonMises(1.0), lambda x: x[:, 0], [[0.5]], 0.3, 100, steps=10, rng=0)
    assert H.stats["paths"] == 0 and np.isnan(H.mean).all() and np.isnan(H.standard_error).all()


def test_steps_too_long_for_the_drift_are_reported():
    steep = af.Density(af.Euclidean(1), lambda x: -(x[..., 0] ** 4))
    run = langevin(steep, [[30.0]], [0.0, 1.0], 10, steps=4, rng=0)
    assert run.status == -1 and "ask for more steps" in run.message and len(run.y) == 1
    H = feynman_kac(steep, lambda x: x[:, 0], [[30.0]], 1.0, 10, steps=4, rng=0)
    assert H.status == -1 and "ask for more steps" in H.message and np.isnan(H.mean).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"density": "p"}, "density must be an attnflow Density"),
        ({"points": [[0.5, 0.5]]}, "points must have 1 column"),
        ({"points": [0.5]}, "points must have shape"),
        ({"density": af.Uniform(af.Box([(0, 1)])), "points": [[2.0]]}, "points must lie in"),
        ({"density": VANISHING, "points": [[0.0]]}, "density must have a finite score"),
        ({"t": -1.0}, "t must be a time"),
        ({"t": [0.2, 0.1]}, "t must be a time"),
        ({"paths": 1}, "paths must be at least 2"),
        ({"drift": np.nan}, "drift must be finite"),
        ({"rng": "seed"}, "rng must be a numpy Generator"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"density": af.Uniform(af.Sphere(3)), "points": np.eye(4), "t": 9.0, "steps": 6}, "steps must be at least"),
    ],
)
@pytest.mark.filterwarnings("ignore::attnflow.checks.AccuracyWarning", "ignore::RuntimeWarning")
def test_bad_input_names_the_argument_before_paths_start(change, message):
    given = {"density": af.VonMises(1.0), "points": [[0.5]], "t": 0.1, "paths": 10, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        langevin(**given)
    with pytest.raises((ValueError, TypeError), match=message):
        feynman_kac(initial=lambda x: x[:, 0], **given)


def test_initial_features_must_be_a_function_with_one_row_a_point():
    with pytest.raises(TypeError, match="initial must be callable"):
        feynman_kac(af.VonMises(1.0), np.ones(3), [[0.5]], 0.1, 10)
    with pytest.raises(ValueError, match="initial.* must have shape"):
        feynman_kac(af.VonMises(1.0), lambda x: np.ones(7), [[0.5]], 0.1, 10)
