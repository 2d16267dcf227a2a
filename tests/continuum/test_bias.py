"""The predicted bias beyond flat spaces: spheres, maps, asymmetric similarities, heads, and where its first order vanishes."""

import numpy as np
import pytest
import sympy as sp
from scipy.linalg import expm

import attnflow as af

CIRCLE, P = af.Circle(), af.Density(af.Circle(), lambda x: np.cos(x[..., 0] - 0.5))
X = np.array([[0.9], [2.0], [4.0]])


def two_waves(x):
    return np.sin(x[..., 0]) + np.cos(2 * x[..., 0])


def measured(layer_at, density, initial, t, x, depth):
    """error / tau of so many layers and of twice and four times as many, extrapolated twice to infinitely many."""
    errors, exact = [], af.limit(layer_at(0.01), density).solve(initial, t, rtol=1e-8).at(x)
    for layers in (depth, 2 * depth, 4 * depth):
        layer = layer_at(t / layers)
        errors.append((af.propagate(layer, density, initial, layers, save_every=layers).at(x) - exact) / t * layers)
    once = [2 * fine - coarse for coarse, fine in zip(errors, errors[1:])]
    return (4 * once[1] - once[0]) / 3


@pytest.mark.parametrize("residual", [1.0, 0.4])
@pytest.mark.parametrize("normalization", ["softmax", af.DensityCorrected(0.5), "column"], ids=str)
def test_the_chord_of_a_circle_is_an_arc_with_a_longer_time_step(normalization, residual):
    # d_chord^2 = d^2 - d^4 / 12 + ...: the arc's similarity but for m2 = s + s^2, so that E has L more, and L H = dH/dt
    t, h = 0.3, 1e-3
    chord = af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1))
    arc, layer = (af.Attention(f, 0.02, normalization, residual) for f in (af.SquaredDistance(CIRCLE), chord))
    after, before = af.limit(arc, P).solve(two_waves, [t - h, t + h], rtol=1e-11).at(X, [t - h, t + h])[::-1]
    rate = (after - before) / (2 * h)
    expected = af.predicted_bias(arc, P, two_waves, t)(X) / layer.time_step + t / residual * rate
    found = af.predicted_bias(layer, P, two_waves, t)(X) / layer.time_step
    np.testing.assert_allclose(found, expected, rtol=5e-4, atol=5e-4)


@pytest.mark.parametrize("normalization", ["softmax", "column", af.Sinkhorn(potentials=2)], ids=str)
def test_an_asymmetric_similarity_has_the_predicted_bias(normalization):
    x0, y0 = sp.symbols("x0 y0")
    f = af.PseudoMetric(2 * (1 - sp.cos(x0 - y0)) * (1 + sp.Rational(3, 10) * sp.sin(y0)), 1)
    layer_at = lambda tau: af.Attention(f, 2 * tau, normalization)  # noqa: E731
    layer = layer_at(0.01)
    found = af.predicted_bias(layer, P, two_waves, 0.3)(X) / layer.time_step
    np.testing.assert_allclose(found, measured(layer_at, P, two_waves, 0.3, X, 20), rtol=1e-3, atol=1e-3)


def test_heads_that_mix_columns_have_the_predicted_bias():
    f, W = af.SquaredDistance(CIRCLE), np.array([[0.6, 0.2], [0.0, 0.3]])
    initial = lambda x: np.stack([np.sin(x[..., 0]), np.cos(2 * x[..., 0])], axis=-1)  # noqa: E731

    def layer_at(tau):
        return af.MultiHead([af.Attention(f, 2 * tau), af.Attention(f, 4 * tau, "sinkhorn")], [W, np.eye(2) - W])

    layer = layer_at(0.01)
    found = af.predicted_bias(layer, P, initial, 0.3)(X) / layer.time_step
    np.testing.assert_allclose(found, measured(layer_at, P, initial, 0.3, X, 20), rtol=1e-3, atol=1e-3)


def test_a_bias_is_that_of_a_time_far_shorter_than_its_layers():
    # t -> 0: a tau t (E / a - L^2 / 2) H of the arc's closed form, t a thousandth of the time steps extrapolated from
    ring = af.Attention(af.DotProduct(), 0.02)
    layer = af.Attention(af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1)), 0.02)
    on_ring = lambda y: np.stack([np.cos(y[:, 0]), np.sin(y[:, 0])], axis=-1)  # noqa: E731
    short = 1e-4
    one = af.predicted_bias(layer, P, two_waves, short)(X) / layer.time_step / short
    arc = af.Attention(af.SquaredDistance(CIRCLE), 0.02)
    rate = (af.limit(arc, P).solve(two_waves, short, rtol=1e-12).at(X) - two_waves(X)[:, None]) / short
    expected = af.predicted_bias(arc, P, two_waves, short)(X) / layer.time_step / short + rate
    np.testing.assert_allclose(one, expected, rtol=2e-3, atol=2e-3)
    # the same similarity of unit vectors, whose f.metric is half the round one: twice its time
    density = af.VonMisesFisher([np.cos(0.5), np.sin(0.5)], 1.0)
    angle = lambda u: two_waves(np.arctan2(u[..., 1], u[..., 0])[..., None])  # noqa: E731
    there = af.predicted_bias(ring, density, angle, short / 2)(on_ring(X)) / ring.time_step / short
    np.testing.assert_allclose(there, 2 * expected, rtol=2e-3, atol=2e-3)


ELLIPSE = af.SquaredMap(lambda x: np.concatenate([2 * np.cos(x), np.sin(x)], axis=-1))


def test_a_constant_changes_no_bias_and_columns_of_other_units_neither():
    layer, points = af.Attention(ELLIPSE, 0.05), np.array([[0.9], [2.0]])
    alone = af.predicted_bias(layer, af.VonMises(1.0), lambda x: np.sin(6 * x[..., 0]), 0.01)(points)[:, 0]

    def columns(x):
        return np.stack([1e9 * np.cos(x[..., 0]), 1e7 + np.sin(6 * x[..., 0])], axis=-1)

    together = af.predicted_bias(layer, af.VonMises(1.0), columns, 0.01)(points)
    np.testing.assert_allclose(together[:, 1], alone, rtol=1e-4)


@pytest.mark.parametrize(
    "f, density, t, rule",
    [(ELLIPSE, af.VonMises(1.0), 0.0, "softmax"), (af.SquaredDistance(CIRCLE), af.Uniform(CIRCLE), 0.5, "sinkhorn")],
)
def test_where_there_is_no_bias_it_is_nothing_without_a_warning(f, density, t, rule):
    bias = af.predicted_bias(af.Attention(f, 0.05, rule), density, lambda x: np.cos(x[..., 0]), t)
    assert (bias(np.array([[0.9], [2.0]])) == 0).all()


def test_a_bias_is_that_of_the_weights_as_they_are_defined():
    def bias(rule, **options):
        layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05, rule, **options)
        return af.predicted_bias(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.5)(np.array([[0.9], [2.0]]))

    exact = bias("sinkhorn")
    np.testing.assert_allclose(bias(af.Sinkhorn(tol=1e-3)), exact, rtol=1e-12)
    np.testing.assert_allclose(bias("sinkhorn", dtype="float32"), exact, rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_far_out_on_a_line_is_the_bias_of_where_tokens_end(heads):
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1)
    layer = layer if heads == 1 else af.MultiHead([layer] * heads)
    bias = af.predicted_bias(layer, af.Gaussian([0.0], [[1.0]]), lambda x: x[..., 0], 0.2)
    end, inside, *far = bias(np.array([[5.6], [1.0], [6.0], [8.0], [12.0], [-12.0]]))[:, 0]
    assert end == pytest.approx(5.6 * inside, rel=5e-3)  # it is a multiple of x
    np.testing.assert_allclose(far, np.array([1, 1, 1, -1]) * end, rtol=0.03)


@pytest.mark.parametrize("degree", [1, 2])
def test_plain_sinkhorn_layers_of_gaussian_tokens_have_their_second_order(degree):
    # kappa^degree per layer, kappa = exp(-asinh(s / (2 Sigma))): error / tau^2 -> t k / (6 Sigma^3) e^(-k t / Sigma)
    Sigma, t, x = 0.7, 0.4, np.array([[0.3], [-1.1]])
    hermite = lambda x: x[..., 0] if degree == 1 else x[..., 0] ** 2 - Sigma  # noqa: E731
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.02, "sinkhorn")
    found = af.predicted_bias(layer, af.Gaussian([0.0], [[Sigma]]), hermite, t)(x)[:, 0] / layer.time_step**2
    expected = t * degree / (6 * Sigma**3) * np.exp(-degree * t / Sigma) * hermite(x)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.slow
def test_bias_on_the_sphere_is_that_of_the_closed_form():
    # p prop. to e^(1.5 z), H = z + z^2 - 0.3 z^3 at z = 0.5 and -0.2: L H, E H of the geodesic similarity and of the chord's
    LH, arc, chord = np.array([3.04375, 4.11552]), np.array([-22.6598958333, -1.0672]), np.array([-18.6015625, 4.42016])
    np.testing.assert_allclose(chord - arc, LH * (1 + 1 / 3), atol=1e-9)
    density, t, z = af.VonMisesFisher([0.0, 0.0, 1.0], 1.5), 1e-5, np.array([0.5, -0.2])
    x = np.stack([np.sqrt(1 - z**2), 0 * z, z], axis=-1)
    initial = lambda x: x[..., 2] + x[..., 2] ** 2 - 0.3 * x[..., 2] ** 3  # noqa: E731

    def rate(f, residual, stretch=1):
        """E / residual - L^2 / 2 in round units of time."""
        layer = af.Attention(f, 0.02, residual=residual)
        bias = af.predicted_bias(layer, density, initial, t / stretch)(x)[:, 0]
        return bias / (layer.time_step / residual) / residual / t / stretch

    plain = rate(af.SquaredDistance(density.space), 1.0)
    np.testing.assert_allclose(rate(af.SquaredDistance(density.space), 0.5) - plain, arc, rtol=2e-3, atol=5e-3)
    np.testing.assert_allclose(rate(af.DotProduct(), 1.0, 2) - plain, chord - arc, rtol=2e-3, atol=5e-3)


def test_bias_on_the_three_sphere_is_that_of_the_closed_form():
    # as on S^2, with (n - 1) / 3 = 2/3 of L H: p prop. to e^(1.5 z), H = z + z^2 - 0.3 z^3 at z = 0.5 and -0.2
    square, arc, chord = np.array([-27.05625, -1.0125]), np.array([-23.9515625, -5.27432]), np.array([-20.3578125, 1.77288])
    density, t, z = af.VonMisesFisher([0.0, 0.0, 0.0, 1.0], 1.5), 1e-5, np.array([0.5, -0.2])
    x = np.stack([np.sqrt(1 - z**2), 0 * z, 0 * z, z], axis=-1)
    initial = lambda x: x[..., 3] + x[..., 3] ** 2 - 0.3 * x[..., 3] ** 3  # noqa: E731
    for f, E, stretch in ((af.SquaredDistance(density.space), arc, 1), (af.DotProduct(), chord, 2)):
        layer = af.Attention(f, 0.02, residual=0.5)
        bias = af.predicted_bias(layer, density, initial, t / stretch)(x)[:, 0] / layer.time_step / t / stretch
        np.testing.assert_allclose(bias, 2 * E - square / 2, rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("rule", ["softmax", af.DensityCorrected(0.4), "sinkhorn"], ids=str)
def test_gaussian_tokens_in_one_and_in_five_dimensions(rule):
    # four coordinates more, of which initial knows nothing, change nothing
    x, start = np.array([[0.5], [-0.9]]), lambda x: np.sin(x[..., 0]) + x[..., 0] ** 2
    for residual in (1.0, 0.4):
        line, five = (af.Attention(af.SquaredDistance(af.Euclidean(n)), 0.02, rule, residual) for n in (1, 5))
        one = af.predicted_bias(line, af.Gaussian([0.3], [[0.7]]), start, 0.3)(x)
        cov = np.diag([0.7, 1.0, 2.0, 0.5, 1.5])
        more = af.predicted_bias(five, af.Gaussian([0.3, 1.0, 0.0, 0.0, -1.0], cov), start, 0.3)(np.pad(x, [(0, 0), (0, 4)]))
        np.testing.assert_allclose(more, one, rtol=1e-4)


@pytest.mark.parametrize("residual", [1.0, 0.5])
def test_gaussian_tokens_in_five_dimensions_have_the_bias_of_their_layers(residual):
    # quadratic forms stay ones: A carries x to mu + K (x - mu) and adds the covariance C, the equation likewise
    n, t, rng = 5, 0.2, np.random.default_rng(0)
    root = rng.normal(size=(n, n))
    cov, G, Q = root @ root.T / n + 0.3 * np.eye(n), np.eye(n) + 0.2, np.diag([1.0, 0.0, -0.5, 2.0, 0.3])
    Q[0, 3] = Q[3, 0] = 0.4
    density, precision = af.Gaussian(np.ones(n), cov), np.linalg.inv(cov)
    y = density.sample(3, rng=1) - 1

    def value(form, constant):
        return np.einsum("mi,ij,mj->m", y, form, y) + constant

    turn = expm(-2 * t * np.linalg.solve(G, precision))
    exact, errors = value(turn.T @ Q @ turn, np.trace(Q @ (cov - turn @ cov @ turn.T)) / 2), []
    for layers in (16, 32, 64):
        s, form, constant = 2 * t / layers / residual, Q, 0.0
        K, C = np.linalg.inv(np.eye(n) + s * np.linalg.solve(G, precision)), np.linalg.inv(precision + G / s)
        for _ in range(layers):
            constant += residual * np.trace(form @ C)
            form = form + residual * (K.T @ form @ K - form)
        errors.append((value(form, constant) - exact) / t * layers)
    once = [2 * b - a for a, b in zip(errors, errors[1:])]
    layer = af.Attention(af.Mahalanobis(G), 0.02, residual=residual)
    start = lambda x: np.einsum("...i,ij,...j->...", x - 1, Q, x - 1)  # noqa: E731
    found = af.predicted_bias(layer, density, start, t)(y + 1)[:, 0] / layer.time_step
    np.testing.assert_allclose(found, (4 * once[1] - once[0]) / 3, rtol=1e-4, atol=1e-4)


def test_what_is_no_polynomial_of_many_coordinates_is_told():
    layer = af.Attention(af.SquaredDistance(af.Euclidean(12)), 0.02)
    with pytest.warns(af.checks.AccuracyWarning, match="initial depends on 12 coordinates"):
        af.predicted_bias(layer, af.Gaussian(np.zeros(12), np.eye(12)), lambda x: np.sign(x.sum(axis=-1) - 0.3), 0.1)


@pytest.mark.slow
def test_bias_on_a_torus_of_revolution_is_as_measured():
    def embedding(x):
        ring = 2 + np.cos(x[..., 1])
        return np.stack([ring * np.cos(x[..., 0]), ring * np.sin(x[..., 0]), np.sin(x[..., 1])], axis=-1)

    torus, f = af.Torus([2 * np.pi] * 2), af.SquaredMap(embedding)
    density = af.Density(torus, lambda x: 0.4 * np.sin(x[..., 1]))
    initial, x = lambda x: np.sin(x[..., 1]), np.array([[0.3, 0.4], [1.0, 2.0]])
    layer_at = lambda tau: af.Attention(f, 2 * tau)  # noqa: E731
    layer = layer_at(0.01)
    found = af.predicted_bias(layer, density, initial, 0.3)(x) / layer.time_step
    np.testing.assert_allclose(found, measured(layer_at, density, initial, 0.3, x, 3), rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.Attention(af.SquaredDistance(CIRCLE), 0.1, af.Screening(0.5)), "let all tokens be keys .*got Screening"),
        (lambda: af.MultiHead([af.Attention(af.SquaredDistance(CIRCLE), 0.1)], [0.5]), "mixing must add up to one"),
        (lambda: af.Attention(af.LogDistance(af.Euclidean(4)), 0.01), "density must be a Gaussian, and layer one head"),
    ],
)  # fmt: skip
def test_what_has_no_predicted_bias_is_refused_by_name(build, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        layer = build()
        density = af.Gaussian(np.zeros(4), np.eye(4)) if getattr(layer, "f", None) and layer.f.dim == 4 else P
        af.predicted_bias(layer, density, two_waves, 0.1)
