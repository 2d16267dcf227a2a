"""The predicted noise on many nodes, in three dimensions, between walls, of heads, chosen keys and causal layers."""

from math import comb

import numpy as np
import pytest
from scipy.integrate import quad

import attnflow as af
from attnflow.checks import AccuracyWarning
from attnflow.continuum.derivative import of_chosen, of_sums
from attnflow.continuum.nodes import bind_nodes

CIRCLE, TORUS = af.Circle(), af.Torus([2 * np.pi, 2 * np.pi])
F, P = af.SquaredDistance(CIRCLE), af.Density(CIRCLE, lambda x: 0.7 * np.cos(x[..., 0]))
X = np.linspace(0, 2 * np.pi, 16, endpoint=False)[:, None]
KEY_BIASED = ["softmax", af.DensityCorrected(0.5), "column", "sinkhorn"]
CHOSEN = [(af.TopK(120), 1e6), (af.TopK(120), 0.1), (af.Sparse(), 35.0), (af.Sparse(alpha=1.5), 2.0), (af.Perplexity(80), 1.0)]


def wave(x):
    return np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0])


def noise_of(layer, density, tokens, points, initial, depth, seeds):
    """Standard deviation over sets of tokens at points, which follow the tokens' layers: (points, c)."""
    a, found = layer.residual, []
    plain = af.MultiHead(layer.layers, layer.mixing) if isinstance(layer, af.MultiHead) else None
    plain = plain or af.Attention(layer.f, layer.epsilon, layer.normalization)
    for seed in range(seeds):
        x = density.sample(tokens, rng=seed)
        run, at = af.propagate(layer, x, initial, depth), initial(points).reshape(len(points), -1)
        for h in run.y[:depth]:
            at = (1 - a) * at + a * plain(x, h, queries=points)
        found.append(at)
    return np.std(found, axis=0, ddof=1)


def rms(ratio):
    return np.sqrt(np.mean(np.square(ratio)))


@pytest.mark.parametrize(
    "rule, epsilon, tolerance", [*((rule, 0.1, 1e-7) for rule in KEY_BIASED), *((*law, 0.01) for law in CHOSEN)], ids=str
)
def test_a_layer_answers_to_more_tokens_here_and_fewer_there_as_its_derivative_says(rule, epsilon, tolerance):
    layer = af.Attention(F, epsilon, rule)
    bound, grid, _ = bind_nodes(layer, P, wave, n_tokens=400)
    xi, h = np.concatenate([np.cos(grid.points), np.sin(2 * grid.points) + 0.5], axis=1), wave(grid.points)[:, None]
    nothing = np.zeros((grid.size, 1, 2))
    _, change = (of_chosen if bound.layer.normalization.selects else of_sums)(bound, xi).step(h, nothing)
    t = 1e-2 if bound.layer.normalization.selects else 1e-4
    for k in range(2):
        more, fewer = (layer.bind(grid.points, bound.log_mass + np.log1p(s * t * xi[:, k])).attend(h).mean for s in (1, -1))
        expected = (more - fewer) / (2 * t)
        np.testing.assert_allclose(change[:, :, k], expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("rule", KEY_BIASED, ids=str)
def test_random_signs_agree_with_the_sum_within_their_stated_error(rule):
    density = af.Density(TORUS, lambda x: np.cos(x[..., 0]) + 0.7 * np.cos(x[..., 1]))
    layer = af.Attention(af.SquaredDistance(TORUS), 0.2, rule, 0.6)
    points = np.random.default_rng(0).uniform(0, 2 * np.pi, (100, 2))
    whole, some = (af.predicted_noise(layer, density, wave, 0.12, 1000, max_nodes=m) for m in (3000, 0))
    off = rms(some(points) / whole(points) - 1)
    assert whole.relative_error == 0 and 0 < some.relative_error < 0.02
    assert some.relative_error / 3 < off < 2 * some.relative_error
    np.testing.assert_array_equal(some(points), af.predicted_noise(layer, density, wave, 0.12, 1000, max_nodes=0)(points))


@pytest.mark.parametrize("rule", ["softmax", "column"])
def test_random_signs_know_neither_the_layers_precision_nor_a_constant(rule):
    def noise(constant, dtype):
        layer = af.Attention(F, 0.05, rule, dtype=dtype)
        return af.predicted_noise(layer, P, lambda x: constant + wave(x), 0.1, 1000, max_nodes=0)(X)

    np.testing.assert_allclose(noise(1e6, "float32"), noise(0.0, "float64"), rtol=1e-6)


@pytest.mark.slow
def test_one_layer_on_the_three_torus_is_the_integral():
    # uniform p: S p is the normal density of variance s, (1/N) integral S^2 p (h - A h)^2 in closed form
    torus, s, x = af.Torus([2 * np.pi] * 3), 0.3, np.random.default_rng(0).uniform(0, 2 * np.pi, (200, 3))
    layer = af.Attention(af.SquaredDistance(torus), s)
    noise = af.predicted_noise(layer, af.Uniform(torus), lambda x: np.cos(x[..., 0]), layer.time_step, 1000)
    c, e = np.cos(x[:, 0]), np.exp(-s / 2)
    spread = (1 + np.exp(-s) * np.cos(2 * x[:, 0])) / 2 - 2 * e * np.exp(-s / 4) * c**2 + e**2 * c**2
    expected = np.sqrt((2 * np.pi) ** 3 / 1000 * (4 * np.pi * s) ** -1.5 * spread)
    ratio = noise(x)[:, 0] / expected
    assert noise.relative_error < 0.05
    assert rms(ratio - 1) < 2 * noise.relative_error and np.mean(ratio**2) == pytest.approx(1, abs=noise.relative_error)


@pytest.mark.parametrize("f, kernel", [(af.SquaredDistance(af.Sphere(3)), lambda t: -(t**2)), (af.DotProduct(), np.cos)])
def test_one_layer_on_the_three_sphere_is_the_integral(f, kernel):
    layer, x = af.Attention(f, 0.4), np.array([[0.6, 0.3, 1.0, 0.2]]) / np.sqrt(1.49)
    noise = af.predicted_noise(layer, af.Uniform(af.Sphere(3)), lambda x: x[..., 0], layer.time_step, 1000)

    def integral(function):
        return quad(lambda t: 4 * np.pi * np.sin(t) ** 2 * function(t), 0, np.pi, epsabs=1e-12)[0]

    total = integral(lambda t: np.exp(kernel(t) / 0.8))
    mean, cos2 = integral(lambda t: np.exp(kernel(t) / 0.8) * np.cos(t)) / total, x[0, 0] ** 2
    square = integral(lambda t: np.exp(kernel(t) / 0.4) * (cos2 * (np.cos(t) - mean) ** 2 + (1 - cos2) / 3 * np.sin(t) ** 2))
    assert noise(x)[0, 0] == pytest.approx(np.sqrt(2 * np.pi**2 * square / 1000) / total, rel=2e-3)


def test_one_layer_of_gaussian_tokens_is_the_integral():
    S, s, x = 0.8, 0.4, np.array([[0.2, 0.1], [0.9, 0.1], [1.8, 0.1]])
    layer = af.Attention(af.SquaredDistance(af.Euclidean(2)), s)
    noise = af.predicted_noise(layer, af.Gaussian(np.zeros(2), S * np.eye(2)), lambda x: x[..., 0], layer.time_step, 1000)

    def normal(variance):
        return np.exp(-(x**2).sum(axis=1) / (2 * variance)) / (2 * np.pi * variance)

    variance, mean = S * s / 2 / (S + s / 2), S / (S + s / 2) - S / (S + s)
    square = normal(S + s / 2) / (4 * np.pi * s * normal(S + s) ** 2) * (variance + (mean * x[:, 0]) ** 2)
    np.testing.assert_allclose(noise(x)[:, 0], np.sqrt(square / 1000), rtol=0.01)


@pytest.mark.parametrize(
    "density, points, nodes",
    [
        (af.VonMises(8.0), np.linspace(-1.0, 1.0, 11)[:, None], 1000),
        (
            af.VonMisesFisher(np.array([0.0, 0.0, 1.0]), 10.0),
            np.stack([np.sin(a := np.linspace(0, 1.1, 12)), 0 * a, np.cos(a)], 1),
            (120, 240),
        ),
    ],
    ids=["circle", "sphere"],
)
def test_one_layer_between_the_nodes_of_a_narrow_density_is_the_integral(density, points, nodes):
    layer = af.Attention(af.SquaredDistance(density.space), 0.05)
    fine = density.grid(nodes)
    p = density.pdf(fine.points) * fine.weights

    def features(x):
        return np.sin(x[..., 0])

    S = np.exp(-(density.space.distance(points[:, None], fine.points) ** 2) / 0.1)
    of_p = S @ p
    off = features(fine.points) - (S @ (p * features(fine.points)) / of_p)[:, None]
    noise = np.sqrt((S * off) ** 2 @ p / 4000) / of_p
    found = af.predicted_noise(layer, density, features, layer.time_step, 4000)
    np.testing.assert_allclose(found(points)[:, 0], noise, rtol=1e-3)
    if density.space.dim == 1:  # on the sphere it takes longer
        own = (features(points) - features(fine.points[:1]) + off[:, 0]) / of_p
        mean = (own - (S**2 * off) @ p / of_p**2) / 4000
        error = af.predicted_error(layer, density, features, layer.time_step, 4000)
        np.testing.assert_allclose(error.mean(points)[:, 0], mean, rtol=1e-6, atol=1e-6 * np.abs(mean).max())
        assert np.ptp(error.noise(points) / found(points)) < 1e-9


def test_one_layer_between_walls_is_the_integral():
    box, s, x = af.Box([(0, np.pi)]), 0.05, np.array([[0.0], [0.3], [1.4]])
    layer = af.Attention(af.SquaredDistance(box), s)
    noise = af.predicted_noise(layer, af.Uniform(box), lambda x: np.cos(x[..., 0]), layer.time_step, 1000)
    for at, value in zip(x[:, 0], noise(x)[:, 0]):

        def integral(function, power=1):
            return quad(lambda y: np.exp(-power * (y - at) ** 2 / (2 * s)) * function(y), 0, np.pi, epsabs=1e-13)[0]

        total = integral(lambda y: 1.0)
        mean = integral(np.cos) / total
        expected = np.sqrt(np.pi / 1000 * integral(lambda y: (np.cos(y) - mean) ** 2, 2)) / total
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["softmax", af.Sinkhorn(tol=1e-5)], ids=str)
def test_noise_between_walls_is_as_measured(rule):
    box, points = af.Box([(0, np.pi)]), np.linspace(0.01, 3.13, 16)[:, None]
    density, layer = af.Density(box, lambda x: 0.6 * x[..., 0]), af.Attention(af.SquaredDistance(box), 0.1, rule)
    noise = af.predicted_noise(layer, density, wave, 4 * layer.time_step, 600)
    assert rms(noise_of(layer, density, 600, points, wave, 4, 200) / noise(points)) == pytest.approx(1, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("rule, epsilon", [CHOSEN[0], CHOSEN[2]], ids=str)
def test_noise_of_chosen_keys_is_as_measured(rule, epsilon):
    layer = af.Attention(F, epsilon, rule)
    noise = af.predicted_noise(layer, P, wave, 2.0, 400)
    assert rms(noise_of(layer, P, 400, X, wave, 2, 200) / noise(X)) == pytest.approx(1, abs=0.08)


@pytest.mark.slow
def test_heads_that_mix_columns_are_noisy_as_measured():
    W = np.array([[0.5, 0.3], [-0.3, 0.5]])
    layer = af.MultiHead([af.Attention(F, 0.1), af.Attention(F, 0.3, "sinkhorn")], [W, W.T], residual=0.7)
    noise = af.predicted_noise(
        layer, P, lambda x: np.concatenate([np.sin(x), np.cos(2 * x)], axis=-1), 3 * layer.time_step, 400
    )
    measured = noise_of(layer, P, 400, X, lambda x: np.concatenate([np.sin(x), np.cos(2 * x)], axis=-1), 3, 150)
    np.testing.assert_allclose([rms(ratio) for ratio in (measured / noise(X)).T], 1, atol=0.1)


def test_heads_that_are_one_layer_have_its_noise():
    layer, turn = af.Attention(F, 0.1), np.array([[0.6, -0.8], [0.8, 0.6]])
    heads = af.MultiHead([layer, layer], [0.3 * np.eye(2), 0.7 * np.eye(2)])
    turned = af.MultiHead([layer], [turn])

    def both(x):
        return np.stack([np.sin(x[..., 0]), np.cos(x[..., 0])], axis=-1)

    one, same = (af.predicted_noise(l, P, both, 3 * layer.time_step, 400)(X) for l in (layer, heads))
    np.testing.assert_allclose(same, one, rtol=1e-12)
    afterwards = af.predicted_noise(layer, P, lambda x: both(x) @ turn @ turn @ turn, 3 * layer.time_step, 400)(X)
    np.testing.assert_allclose(af.predicted_noise(turned, P, both, 3 * layer.time_step, 400)(X), afterwards, rtol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_causal_layers_at_small_eps_are_noisier_by_sums_of_binomials(depth):
    # A^i dA h has the spectrum k exp(-(i + 1) s k^2 / 2): the mean of A^i dA h A^j dA h is as (1 + (i + j) / 2)^(-3/2)
    layers = [af.Attention(F, 1e-3, mask=mask) for mask in ("causal", None)]
    causal, plain = (af.predicted_noise(l, P, wave, depth * l.time_step, 10**6)(np.array([[0.1], [3.2]])) for l in layers)
    pairs = [(comb(i + j, i), (1 + (i + j) / 2) ** -1.5) for i in range(depth) for j in range(depth)]
    growth = sum(c * v for c, v in pairs) / sum(v for _, v in pairs)
    np.testing.assert_allclose((causal / plain) ** 2, growth, rtol=0.02)


@pytest.mark.slow
def test_noise_of_causal_layers_is_as_measured():
    layer, places = af.Attention(F, 0.1, residual=0.8, mask="causal"), [499, 999]
    found = []
    for seed in range(300):
        x = P.sample(1000, rng=seed)
        x[places] = 0.9
        found.append(af.propagate(layer, x, wave, 2).y[-1][places, 0])
    noise = af.predicted_noise(layer, P, wave, 2 * layer.time_step, 1000)
    predicted = [noise(np.array([[0.9]]), position)[0, 0] for position in (0.5, 1.0)]
    np.testing.assert_allclose(np.std(found, axis=0) / predicted, 1, atol=0.13)


def test_deep_causal_layers_are_warned_of():
    layer = af.Attention(F, 0.1, mask="causal")
    with pytest.warns(AccuracyWarning, match="^after 6 causal layers .* of the predicted variance is of the first tokens"):
        af.predicted_noise(layer, P, wave, 6 * layer.time_step, 1000)


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda: af.predicted_noise(af.Attention(F, 0.1), P, wave, 0.1, 100)(X, 0.5), "position must be 1 where all tokens see all"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1, "sinkhorn", mask=np.arange(4) % 2), P, wave, 0.1, 100), "layer must have no mask"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1, af.DensityCorrected(0.2), mask="causal"), P, wave, 0.1, 100), "normalization must be 'softmax'"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1, af.Sparse(0.2)), P, wave, 1.0, 100), "fraction must be None"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1, af.TopK(100)), P, wave, 1.0, 100), "k must be below the number of tokens"),
        (lambda: af.predicted_noise(af.Attention(F, 0.1), P, wave, 0.1, 100, max_nodes=-1), "max_nodes must be at least 0"),
        (lambda: af.predicted_noise(af.MultiHead([af.Attention(F, 0.1), af.Attention(F, 0.1, mask="causal")]), P, wave, 0.1, 100), "all causal, or none"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
