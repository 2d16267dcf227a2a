"""The limit of a layer: metric, density, drift; and iterated layers against it at any depth."""

import numpy as np
import pytest

import attnflow as af
from attnflow import checks
from attnflow.attention import bind_density
from attnflow.pde.nodes.operator import spectral_matrix

CIRCLE, P = af.Circle(), af.VonMises(1.0)
F = af.SquaredDistance(CIRCLE)
GRID = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]


def cos(x):
    return np.cos(x[..., 0])


def two_waves(x):
    return np.sin(x[..., 0]) + np.cos(2 * x[..., 0])


def error_over_tau(density, initial, normalization, tau, residual=1.0, t=0.5):
    """(layers - equation) / tau on the grid and the equation's solution there; tau is the plain layer's step."""
    layer = af.Attention(F, 2 * tau, normalization, residual)
    depth = round(t / layer.time_step)
    run = af.propagate(layer, density, initial, depth, save_every=depth)
    solution = af.limit(layer, density).solve(initial, depth * layer.time_step, rtol=1e-11)
    return (run.at(GRID) - solution.at(GRID))[:, 0] / tau, solution.at(GRID)[:, 0]


def relative(error, solution, weight=None):
    weight = np.ones_like(error) if weight is None else weight
    return np.sqrt(np.sum(weight * error**2) / np.sum(weight * solution**2))


@pytest.mark.parametrize(
    "normalization, drift", [("softmax", 2), ("sinkhorn", 1), ("column", 0), (af.DensityCorrected(0.25), 1.5)]
)
def test_each_normalisation_has_its_drift(normalization, drift):
    assert af.limit(af.Attention(F, 0.1, normalization), P).drift == drift


@pytest.mark.parametrize(
    "normalization, consensus", [("softmax", 0.6977746580), ("sinkhorn", 0.4463899659), (af.DensityCorrected(1.0), 0.0)]
)
def test_consensus_of_the_equation(normalization, consensus):
    end = af.limit(af.Attention(F, 0.1, normalization), P).solve(cos, 40.0).at(GRID)
    np.testing.assert_allclose(end, consensus, atol=1e-6)


def test_depth_error_is_the_literal_constant():
    error, solution = error_over_tau(P, cos, "softmax", 0.005)
    assert np.abs(error).max() == pytest.approx(0.247720, rel=0.01)
    assert relative(error, solution) == pytest.approx(0.323236, rel=0.01)
    assert relative(error, solution, P.pdf(GRID)) == pytest.approx(0.274292, rel=0.01)
    layer = af.Attention(F, 0.01)
    assert af.predicted_bias(layer, P, cos, 0.5)(np.array([[0.9]]))[0, 0] / 0.005 == pytest.approx(-0.203205, rel=1e-4)


# limits of error / tau at t = 1/2, unweighted relative L2, and their values at tau = 0.00625; found twice: by this
# package and by a stand-alone FFT layer with a matrix exponential (below, `independent_depth_error`)
DEPTH = [
    ("softmax", 1.0, 1.31606327, 1.32958),
    ("softmax", 0.5, 1.83192034, 1.84612),
    ("sinkhorn", 0.5, 0.56952244, 0.56614),
    ("sinkhorn", 1.0, 0.00105191, 0.0),
]


@pytest.mark.parametrize("normalization, residual, measured, limit", DEPTH)
def test_residual_steps_have_their_own_constant(normalization, residual, measured, limit):
    density = af.Density(CIRCLE, lambda x: 1.5 * np.cos(x[..., 0]))
    error, solution = error_over_tau(density, two_waves, normalization, 0.00625, residual)
    assert relative(error, solution) == pytest.approx(measured, rel=1e-5)
    assert independent_depth_error(normalization, residual, 0.00625) == pytest.approx(measured, rel=1e-5)
    layer = af.Attention(F, 0.0125, normalization, residual)
    predicted = af.predicted_bias(layer, density, two_waves, 0.5)(GRID)[:, 0] / 0.00625
    # plain Sinkhorn layers: the second order, which is all there is
    assert relative(predicted, solution) == (pytest.approx(limit, rel=1e-4) if limit else pytest.approx(measured, rel=1e-2))


def independent_depth_error(normalization, residual, tau, n=128):
    """The same number from thirty lines of NumPy that share nothing with the package."""
    from scipy.linalg import expm

    x, k = 2 * np.pi * np.arange(n) / n, np.fft.fftfreq(n, 1 / n)
    p, h = np.exp(1.5 * np.cos(x)), np.sin(x) + np.cos(2 * x)
    spectral = lambda symbol: np.fft.ifft(symbol[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0).real  # noqa: E731
    smooth = spectral(np.exp(-tau * k**2))
    weight, drift = p, 2
    if normalization == "sinkhorn":
        weight, drift = np.sqrt(p), 1
        for _ in range(200):
            weight = np.sqrt(weight * p / (smooth @ weight))
    exact = expm(0.5 * (spectral(-(k**2)) - drift * np.diag(1.5 * np.sin(x)) @ spectral(1j * k * (abs(k) < n / 2)))) @ h
    for _ in range(round(0.5 / (residual * tau))):
        h = h + residual * ((smooth @ (weight * h)) / (smooth @ weight) - h)
    return np.sqrt(np.sum((h - exact) ** 2) / np.sum(exact**2)) / tau


@pytest.mark.parametrize(
    "normalization, rate, tolerance",
    [("softmax", 1, 0.03), (af.DensityCorrected(0.5), 1, 0.03), ("column", 1, 0.03), ("sinkhorn", 2, 0.1)],
)
def test_depth_error_falls_at_its_rate(normalization, rate, tolerance):
    taus = np.array([0.0125, 0.00625, 0.003125])
    errors = [tau * np.linalg.norm(error_over_tau(P, cos, normalization, tau)[0]) for tau in taus]
    assert np.polyfit(np.log(taus), np.log(errors), 1)[0] == pytest.approx(rate, abs=tolerance)


def test_an_odd_density_drifts_to_the_right_side():
    density = af.Density(CIRCLE, lambda x: np.sin(x[..., 0]) + 0.5 * np.cos(2 * x[..., 0] + 0.4))
    error, solution = error_over_tau(density, two_waves, "softmax", 0.0025)
    assert relative(error, solution) * 0.0025 < 0.006
    layer = af.Attention(F, 0.005)
    predicted = af.predicted_bias(layer, density, two_waves, 0.5)(GRID)[:, 0] / 0.0025
    assert relative(error - predicted, predicted) < 0.02


@pytest.mark.parametrize("make", [lambda: af.PowerDistance(CIRCLE, 4.0), lambda: af.LogDistance(CIRCLE)])
def test_other_kernels_have_the_predicted_bias(make):
    f = make()
    layer = af.Attention(f, 2e-5 if isinstance(f, af.PowerDistance) else 0.004)
    depth = round(0.3 / layer.time_step)
    error = af.propagate(layer, P, two_waves, depth, save_every=depth).at(GRID) - af.limit(layer, P).solve(
        two_waves, depth * layer.time_step
    ).at(GRID)
    predicted = af.predicted_bias(layer, P, two_waves, depth * layer.time_step)(GRID)
    assert relative((error - predicted)[:, 0], predicted[:, 0]) < 0.03


def test_bias_on_the_two_torus():
    torus = af.Torus([2 * np.pi, 2 * np.pi])
    density = af.Density(torus, lambda x: 0.6 * np.cos(x[..., 0]) + 0.4 * np.sin(x[..., 1] - x[..., 0]))
    initial = lambda x: np.cos(x[..., 0] + x[..., 1])  # noqa: E731
    layer = af.Attention(af.SquaredDistance(torus), 0.04)
    depth, x = 10, torus.probe_points(50)
    run = af.propagate(layer, density, initial, depth, save_every=depth, grid=64)
    error = run.at(x) - af.limit(layer, density).solve(initial, depth * layer.time_step).at(x)
    predicted = af.predicted_bias(layer, density, initial, depth * layer.time_step)(x)
    assert relative((error - predicted)[:, 0], predicted[:, 0]) < 0.05


def generator_error(layer, density, initial):
    """Relative L2 distance of (A H - H) / tau from L H, L the Fourier matrix of the limit."""
    nodes = density.space.grid(129)
    start = checks.evaluate(initial, nodes.points, "initial")
    expected = spectral_matrix(af.limit(layer, density).generator, nodes) @ start
    bound, grid = bind_density(layer, density)
    rate = (bound.attend(checks.evaluate(initial, grid.points, "initial"), nodes.points).mean - start) / layer.time_step
    return np.linalg.norm(rate - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("normalization", ["softmax", "sinkhorn", af.DensityCorrected(0.5)], ids=str)
def test_a_map_with_varying_volume_has_the_limit_of_its_metric(normalization):
    # an ellipse with a bump: sqrt(g) varies by a factor of more than two around the circle
    phi = lambda x: np.concatenate([(1.6 + 0.3 * np.cos(2 * x)) * np.cos(x), 0.8 * np.sin(x)], axis=-1)  # noqa: E731
    f = af.SquaredMap(phi)
    stretch = np.sqrt(f.metric(GRID)[:, 0, 0])
    assert stretch.max() > 2 * stretch.min()
    density = af.Density(CIRCLE, lambda x: np.cos(x[..., 0] - 0.5))
    errors = [generator_error(af.Attention(f, eps, normalization), density, two_waves) for eps in (1e-3, 5e-4, 2.5e-4)]
    assert errors[-1] < 0.01
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(1, abs=0.1)


def test_mahalanobis_rescales_time_and_density():
    # the same layer twice: metric G on a line, or the unit metric on the line stretched by sqrt(G)
    G, density = 4.0, af.Gaussian([0.0], [[0.5]])
    layer = af.Attention(af.Mahalanobis([[G]]), 0.1)
    equation = af.limit(layer, density)
    mass = equation.density.pdf(np.array([[0.3]])) * equation.density.space.volume_element(np.array([[0.3]]))
    np.testing.assert_allclose(mass, density.pdf(np.array([[0.3]])), rtol=1e-12)
    stretched = af.DriftDiffusion(af.Gaussian([0.0], [[0.5 * G]])).solve(lambda y: np.cos(y[..., 0] / 2), 0.3)
    points = np.array([[-0.4], [0.0], [0.9]])
    np.testing.assert_allclose(equation.solve(cos, 0.3).at(points), stretched.at(2 * points), atol=2e-7)


def test_dot_product_on_the_sphere_has_half_the_round_metric():
    mu = [0.0, 0.0, 1.0]
    layer, density = af.Attention(af.DotProduct(), 0.05), af.VonMisesFisher(mu, 2.0)
    equation = af.limit(layer, density)
    x = np.array([[0.6, 0.0, 0.8]])
    np.testing.assert_allclose(equation.density.pdf(x), 2 * density.pdf(x), rtol=1e-12)  # volume halves in two dimensions
    # (A H - H) / tau against L H of H = z: -l(l+1) and drift in round units, twice that in units of f.metric
    rates = []
    for eps in (0.004, 0.002):
        layer = af.Attention(af.DotProduct(), eps)
        bound, grid = bind_density(layer, density)
        rates.append((bound.attend(grid.points[:, 2:], x).mean[0, 0] - 0.8) / layer.time_step)
    expected = 2 * (-2 * 0.8 + 2 * 2.0 * (1 - 0.8**2))
    assert 2 * rates[1] - rates[0] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.limit(af.Attention(af.DotProduct([[1.0, 1.0], [0.0, 1.0]]), 1.0), af.Gaussian([0.0, 0.0], np.eye(2))), "W must be symmetric positive definite"),
        (lambda: af.limit(af.Attention(af.DotProduct(), 1.0), af.Gaussian([0.0, 0.0], np.eye(2))), "x'Wx must be constant"),
        (lambda: af.limit(af.Attention(F, 0.1), af.Uniform(af.Circle(1.0))), "density must live on the space of f"),
        (lambda: af.limit(F, P), "layer must be an attnflow.Attention"),
        (lambda: af.limit(af.Attention(F, 0.1), "p"), "density must be an attnflow density"),
        (lambda: af.limit(af.Attention(af.Mahalanobis([[1.0]]), 0.1), P), "f must be periodic"),
        (lambda: af.limit(af.Attention(af.PseudoMetric(lambda x, y: np.sin(x - y)[..., 0], 1), 0.1), P), "f must be smallest at y = x"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1), P, cos, 0.5, 0), "n_tokens must be at least 1"),
        (lambda: af.predicted_noise(af.Attention(F, 1e-7), P, cos, 0.5, 10), "epsilon must be larger"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize(
    "normalization, residual",
    [("softmax", 1.0), ("softmax", 0.5), ("sinkhorn", 0.5), (af.DensityCorrected(0.5), 1.0), (af.DensityCorrected(0.5), 0.5)],
    ids=str,
)
def test_bias_of_gaussian_tokens_is_that_of_the_closed_form(normalization, residual):
    # H = x: layers multiply by (1 - a + a kappa)^l, the equation by exp(-drift t / Sigma); difference to first order
    Sigma, t, x = 0.7, 0.4, np.array([[0.3], [-1.1]])
    kappa = {
        "softmax": lambda s: Sigma / (Sigma + s),
        "sinkhorn": lambda s: (np.sqrt(s**2 + 4 * Sigma**2) - s) / (2 * Sigma),
    }.get(normalization, lambda s: (1 / s) / (1 / s + 1 / Sigma - 0.5 / (Sigma + s)))
    s = 1e-5
    tau = residual * s / 2
    drift = af.Attention(af.SquaredDistance(af.Euclidean(1)), s, normalization).normalization.drift
    exact = (np.exp(t / tau * np.log1p(residual * (kappa(s) - 1))) - np.exp(-drift * t / Sigma)) / tau * x
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.02, normalization, residual)
    predicted = af.predicted_bias(layer, af.Gaussian([0.0], [[Sigma]]), lambda x: x, t)(x) / layer.time_step
    np.testing.assert_allclose(predicted, exact, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_bias_under_mahalanobis_in_the_plane_is_that_of_the_closed_form():
    # A x = Sigma (Sigma + s G^-1)^-1 x and L x = -2 G^-1 Sigma^-1 x, for matrices that do not commute
    from scipy.linalg import expm

    G, Sigma, t = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[1.0, -0.5], [-0.5, 0.8]]), 0.3
    s = 1e-4
    A = Sigma @ np.linalg.inv(Sigma + s * np.linalg.inv(G))
    generator = -2 * np.linalg.inv(G) @ np.linalg.inv(Sigma)
    exact = (np.linalg.matrix_power(A, round(2 * t / s)) - expm(t * generator.T).T) / (s / 2)
    layer = af.Attention(af.Mahalanobis(G), 0.02)
    x = np.array([[0.4, -0.3], [0.5, 1.0]])
    predicted = af.predicted_bias(layer, af.Gaussian([0.0, 0.0], Sigma), lambda x: x, t)(x) / layer.time_step
    np.testing.assert_allclose(predicted, x @ exact.T, rtol=5e-3, atol=2e-3)


def test_a_bias_of_sixty_four_waves_is_that_of_one_on_a_longer_circle():
    x, circle = np.array([[0.2], [0.9]]), af.Circle()
    layer = af.Attention(af.SquaredDistance(circle), 1e-6)
    slow, fast = (af.Density(circle, lambda x, m=m: 0.5 * np.cos(m * x[..., 0])) for m in (1, 64))
    one = af.predicted_bias(layer, slow, lambda x: np.cos(x[..., 0]), 0.1)(x)
    many = af.predicted_bias(layer, fast, lambda x: np.cos(64 * x[..., 0]), 0.1 / 64**2)(x / 64)
    assert many / 64**2 == pytest.approx(one, rel=1e-6)
