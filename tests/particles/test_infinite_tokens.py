"""The infinite-token layer against the FFT, closed forms, and literal numbers of the expansion in eps."""

import numpy as np
import pytest
from scipy.special import ive

import attnflow as af
from attnflow.attention import bind_density

CIRCLE, P = af.Circle(), af.VonMises(1.0)
ALL = ["softmax", "column", "sinkhorn", af.DensityCorrected(0.5)]


def cos(x):
    return np.cos(x[..., 0])


def fft_layer(density, values, grid, epsilon):
    """A H = G(pH) / G(p), G = exp((eps/2) Delta), on a periodic grid: exact for smooth p."""
    k2 = sum(
        np.reshape(
            (2 * np.pi / (a.high - a.low) * np.fft.fftfreq(a.size, 1 / a.size)) ** 2,
            [-1 if j == i else 1 for j in range(len(grid.axes))],
        )
        for i, a in enumerate(grid.axes)
    )
    p, h = (field.reshape(grid.shape) for field in (density.pdf(grid.points), values(grid.points)))
    smooth = lambda v: np.fft.ifftn(np.exp(-epsilon * k2 / 2) * np.fft.fftn(v)).real  # noqa: E731
    return smooth(p * h) / smooth(p)


@pytest.mark.parametrize("epsilon", [0.005 * 4 * np.pi**2, 0.02])
def test_circle_equals_the_fft(epsilon):
    run = af.propagate(af.Attention(af.SquaredDistance(CIRCLE), epsilon), P, cos, layers=1)
    np.testing.assert_allclose(run.y[1, :, 0], fft_layer(P, cos, run.grid, epsilon), atol=1e-10)
    assert run.stats["engine"] == "numba" and run.stats["quadrature_error"] < 1e-8


def test_two_torus_equals_the_fft():
    torus = af.Torus([1.0, 2.0])
    density = af.Density(torus, lambda x: np.cos(2 * np.pi * x[..., 0]) + 0.5 * np.sin(np.pi * (x[..., 1] + x[..., 0] * 2)))
    values = lambda x: np.sin(2 * np.pi * x[..., 0]) * np.cos(np.pi * x[..., 1])  # noqa: E731
    run = af.propagate(af.Attention(af.SquaredDistance(torus), 0.004), density, values, layers=1)
    np.testing.assert_allclose(run.y[1, ..., 0], fft_layer(density, values, run.grid, 0.004), atol=1e-10)


def generator(normalization, epsilon, theta):
    """(A H - H) / tau at theta, H = cos, on a fixed fine grid."""
    layer = af.Attention(af.SquaredDistance(CIRCLE), epsilon, normalization)
    bound, grid = bind_density(layer, P)
    points = np.reshape(theta, (-1, 1)).astype(float)
    return (bound.attend(np.cos(grid.points), points).mean[:, 0] - np.cos(points[:, 0])) / layer.time_step


def limit_of_cos(drift, theta):
    return -np.cos(theta) + drift * np.sin(theta) ** 2


@pytest.mark.parametrize("normalization, drift", list(zip(ALL, [2, 0, 1, 1])), ids=str)
def test_generators_converge_to_the_limit(normalization, drift):
    theta = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    expected = limit_of_cos(drift, theta)
    error = generator(normalization, 1e-3, theta) - expected
    assert np.linalg.norm(error) < 0.005 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "normalization, drift, bias, tolerance",
    [("softmax", 2, -1.77127307, 0.01), ("sinkhorn", 1, -0.27787245, 0.01), ("column", 0, 1.51430076, 0.01),
     (af.DensityCorrected(1.0), 0, 1.51430076, 0.01), (af.DensityCorrected(0.5), 1, 0.15582282, 0.02)],
    ids=str,
)  # fmt: skip
def test_bias_of_one_layer_is_the_literal_number(normalization, drift, bias, tolerance):
    theta, epsilon = 18 * 2 * np.pi / 128, 1e-3
    measured = (generator(normalization, epsilon, theta)[0] - limit_of_cos(drift, theta)) / epsilon
    assert measured == pytest.approx(bias, rel=tolerance)


def test_softmax_bias_at_a_tenth_of_the_temperature():
    assert limit_of_cos(2, 0.9) == pytest.approx(0.6055921264, abs=1e-10)
    assert (generator("softmax", 1e-4, 0.9)[0] - 0.6055921264224227) / 1e-4 == pytest.approx(-1.8293150, abs=1e-6)


@pytest.mark.parametrize(
    "normalization, consensus",
    [("softmax", 0.6740957435), (af.DensityCorrected(0.5), 0.4664303487), (af.DensityCorrected(1.0), 0.0967637408),
     ("sinkhorn", 0.4463899659)],
    ids=str,
)  # fmt: skip
def test_consensus_of_infinitely_many_tokens(normalization, consensus):
    # at eps = 0.2; Sinkhorn's is that of its equation at any eps
    run = af.propagate(af.Attention(af.SquaredDistance(CIRCLE), 0.2, normalization), P, cos, 400, save_every=400)
    np.testing.assert_allclose(run.y[-1], consensus, atol=1e-9)


@pytest.mark.parametrize("power", [1.5, 4.0])
def test_other_transforms_have_the_same_limit_in_their_own_time(power):
    layer = af.Attention(af.PowerDistance(CIRCLE, power), 0.01 ** (power / 2) / 2)
    bound, grid = bind_density(layer, P, grid=4096)
    value = (bound.attend(np.cos(grid.points), np.array([[0.9]])).mean[0, 0] - np.cos(0.9)) / layer.time_step
    bias_scale = layer.f.moments(layer.epsilon, 1)[0]
    assert value == pytest.approx(0.6055921264, abs=4 * bias_scale)
    assert layer.time_step < 0.02


GAUSS = {"softmax": 0.9090909091, "sinkhorn": 0.9512492197, af.DensityCorrected(0.5): 0.9482758621, "column": 0.9909909910}


@pytest.mark.parametrize("normalization, kappa", GAUSS.items(), ids=str)
def test_gaussian_tokens_contract_by_kappa(normalization, kappa):
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1, normalization)
    run = af.propagate(layer, af.Gaussian([0.0], [[1.0]]), lambda x: x, layers=1)
    points = np.array([[-1.2], [0.3], [2.0]])
    np.testing.assert_allclose(run.at(points), kappa * points, atol=2e-6)  # at() interpolates by local cubics
    bound, grid = bind_density(layer, af.Gaussian([0.0], [[1.0]]))
    np.testing.assert_allclose(bound.attend(grid.points, points).mean, kappa * points, atol=1e-9)


def test_mahalanobis_and_covariance_that_do_not_commute():
    G, Sigma, eps = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[1.0, -0.5], [-0.5, 0.8]]), 0.2
    assert np.abs(G @ Sigma - Sigma @ G).max() > 0.1
    layer = af.Attention(af.Mahalanobis(G), eps)
    bound, grid = bind_density(layer, af.Gaussian([0.0, 0.0], Sigma))
    x = np.array([[0.7, -0.4], [1.0, 1.0]])
    expected = x @ (Sigma @ np.linalg.inv(Sigma + eps * np.linalg.inv(G))).T
    np.testing.assert_allclose(bound.attend(grid.points, x).mean, expected, atol=1e-9)


@pytest.mark.parametrize(
    "dim, decay", [(1, [0.94859982595, 0.81028003481, 0.62448781203]), (2, [0.90000000412, 0.72999999876, 0.53500000474])]
)
def test_sphere_harmonics_decay_by_bessel_ratios(dim, decay):
    beta = 10.0
    nu = (dim + 1) / 2 - 1
    np.testing.assert_allclose(ive(nu + np.arange(1, 4), beta) / ive(nu, beta), decay, rtol=1e-10)
    sphere = af.Sphere(dim)
    harmonics = lambda x: np.stack(  # noqa: E731  degrees 1, 2, 3 along the last axis
        [x[..., -1], x[..., -1] ** 2 - 1 / (dim + 1), x[..., -1] ** 3 - 3 * x[..., -1] / (dim + 3)], axis=-1
    )
    layer = af.Attention(af.DotProduct(), 1 / (2 * beta))
    run = af.propagate(layer, af.Uniform(sphere), harmonics, layers=1)
    np.testing.assert_allclose(run.y[1], run.y[0] * decay, atol=1e-8)
    assert layer.time_step == pytest.approx(1 / (4 * beta))  # in units of f.metric, half the round one


def test_von_mises_fisher_density_shifts_the_concentration():
    mu, kappa, beta = np.array([0.6, 0.0, 0.8]), 1.5, 8.0
    layer = af.Attention(af.DotProduct(), 1 / (2 * beta))
    bound, grid = bind_density(layer, af.VonMisesFisher(mu, kappa))
    x = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    z = beta * x + kappa * mu
    length = np.linalg.norm(z, axis=1, keepdims=True)
    expected = (1 / np.tanh(length) - 1 / length) * z / length  # a_1 on S^2
    np.testing.assert_allclose(bound.attend(grid.points, x).mean, expected, atol=1e-8)


def test_nodes_resolve_the_features_too():
    layer, fast = af.Attention(af.SquaredDistance(CIRCLE), 0.05), lambda x: np.cos(64 * x[..., 0])  # noqa: E731
    run = af.propagate(layer, P, fast, layers=1)
    assert run.grid.size > 128
    np.testing.assert_allclose(run.y[1, :, 0], fft_layer(P, fast, run.grid, 0.05), atol=1e-10)
    for rough in (lambda x: (np.cos(x[..., 0]) > 0.9) * 1.0, lambda x: x[..., 0]):
        with pytest.warns(af.checks.AccuracyWarning, match="values are not smooth"):
            af.propagate(layer, P, rough, layers=1)


@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_a_chart_of_the_circle_is_the_circle(normalization):
    # x = u + 0.3 sin u: the same tokens in another coordinate, with a volume element that varies by a factor of 1.9
    to_circle = lambda u: u + 0.3 * np.sin(u)  # noqa: E731
    chart = af.Chart(lambda u: ((1 + 0.3 * np.cos(u)) ** 2)[..., None], [(0, 2 * np.pi)], periodic=True)
    embed = lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1)  # noqa: E731
    here = af.Attention(af.SquaredMap(embed), 0.1, normalization)
    there = af.Attention(af.SquaredMap(lambda u: embed(to_circle(u))), 0.1, normalization)
    density = af.Density(chart, lambda u: np.cos(to_circle(u)[..., 0]))
    u = np.array([[0.4], [2.0], [5.0]])
    runs = [
        af.propagate(layer, p, lambda x, back=back: np.cos(2 * back(x)[..., 0]), layers=5, grid=256)
        for layer, p, back in ((here, P, lambda x: x), (there, density, to_circle))
    ]
    np.testing.assert_allclose(runs[0].at(to_circle(u)), runs[1].at(u), atol=1e-11)


@pytest.mark.parametrize(
    "normalization, errors",
    [("softmax", [0.0875, 0.0619, 0.0437]), ("column", [0.0940, 0.0706, 0.0518]), ("sinkhorn", [0.00135, 0.00056, 0.00023])],
)
def test_walls_cost_the_square_root_of_eps(normalization, errors):
    # uniform on [0, pi], H0 = cos x + cos 2x, t = 1/2, tau = 0.01, 0.005, 0.0025
    box, waves = af.Box([(0.0, np.pi)]), lambda x: np.cos(x[..., 0]) + np.cos(2 * x[..., 0])  # noqa: E731
    for tau, literal in zip([0.01, 0.005, 0.0025], errors):
        layer = af.Attention(af.SquaredDistance(box), 2 * tau, normalization)
        run = af.propagate(layer, af.Uniform(box), waves, round(0.5 / tau), save_every=1000)
        x = run.grid.points[:, 0]
        exact = np.exp(-0.5) * np.cos(x) + np.exp(-2.0) * np.cos(2 * x)
        gap, w = run.y[-1, :, 0] - exact, run.grid.weights
        assert np.sqrt(w @ gap**2 / (w @ exact**2)) == pytest.approx(literal, rel=0.02)


def test_a_cusp_is_reported_and_a_coarse_grid_refused():
    with pytest.warns(af.checks.AccuracyWarning, match="is off by about"):
        af.propagate(af.Attention(af.PowerDistance(af.Euclidean(1), 1.0), 0.1), af.Gaussian([0.0], [[1.0]]), cos, 1)
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.01)
    with pytest.raises(ValueError, match="grid must have at least 2 nodes per kernel width.*use at least"):
        af.propagate(layer, P, cos, 1, grid=64)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda f: af.propagate(af.Attention(f, 0.1), af.Uniform(af.Torus([1.0])), cos, 1),
            "density must live on the space of f",
        ),
        (lambda f: af.propagate(af.Attention(f, 0.1), P, np.ones(64), 1), "values must be callable"),
        (lambda f: af.propagate(af.Attention(f, 0.1), P, lambda x: x[0], 1), "values\\(points\\) must have shape"),
        (lambda f: af.propagate(af.Attention(f, 0.1), np.ones((3, 1)), np.ones(3), 1, grid=64), "grid must be None"),
        (lambda f: af.propagate(af.Attention(f, 0.1), P, cos, -1), "layers must be at least 0"),
        (lambda f: af.propagate(af.Attention(f, 0.1), P, cos, 1.5), "layers must be an integer"),
        (lambda f: af.propagate(af.Attention(af.Mahalanobis([[1.0]]), 0.1), P, cos, 1), "f must be periodic"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(af.SquaredDistance(CIRCLE))


@pytest.mark.parametrize("mode", [1024, 1500])
def test_features_that_are_constant_on_a_thousand_nodes_are_seen(mode):
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05)
    run = af.propagate(layer, af.Uniform(CIRCLE), lambda x: cos(x)[:, None] * [1, 0] + 1e-9 * np.cos(mode * x) * [0, 1], 1)
    expected = np.exp(-0.025) * np.cos(run.grid.points)
    assert np.abs(run.y[-1] - expected * [1, 0]).max() < 1e-12


def test_features_that_a_given_grid_cannot_hold_are_warned_of():
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05)
    with pytest.warns(af.checks.AccuracyWarning, match="quadrature"):
        run = af.propagate(layer, af.Uniform(CIRCLE), lambda x: np.cos(64 * x[..., 0]), 1, grid=64)
    assert run.stats["quadrature_error"] > 0.5


@pytest.mark.parametrize(
    "f, waves",
    [(af.PowerDistance(af.Circle(), 1.0), 64), (af.SquaredDistance(af.Circle()), 64 * 65)],  # 64 and 130 nodes see one alias
    ids=["cusp", "Gaussian"],
)
def test_waves_that_given_nodes_do_not_see_are_warned_of(f, waves):
    layer = af.Attention(f, 0.1)
    with pytest.warns(af.checks.AccuracyWarning, match="not smooth on the grid"):
        run = af.propagate(layer, af.Uniform(af.Circle()), lambda x: np.cos(waves * x[..., 0]), 1, grid=64)
    assert run.stats["quadrature_error"] > 0.5
