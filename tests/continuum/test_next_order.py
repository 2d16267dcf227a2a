"""The next order in 1/N: literal numbers, the layers' own Taylor series, and tokens too few for the leading order."""

import numpy as np
import pytest

import attnflow as af
from attnflow.continuum.next_order import next_order, seen_mass, share_below, smallest, taylor
from attnflow.continuum.nodes import bind_nodes, weights_and_response
from attnflow.norms import norm

CIRCLE = af.Circle()
F = af.SquaredDistance(CIRCLE)
P = af.Density(CIRCLE, lambda x: 0.8 * np.cos(x[..., 0] - 0.4) + 0.4 * np.sin(2 * x[..., 0]))
TWO = af.Sinkhorn(potentials=2)


def waves(x):
    return np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0])


def cos(x):
    return np.cos(x[..., 0])


@pytest.mark.parametrize(
    "normalization, F_, F_plus_E, N_var",
    [
        ("softmax", -0.259724, -0.984329, 4.869746),
        (af.DensityCorrected(0.5), -2.149976, -3.039565, 2.109356),
        ("column", -2.663317, -3.539993, 0.449269),
        (af.DensityCorrected(1.0), -2.663317, -3.539993, 0.449269),
        ("sinkhorn", -1.933209, -2.690810, 1.805621),
        (TWO, -1.933209, -2.690810, 1.805621),
    ],
    ids=str,
)
def test_mean_and_variance_are_those_of_a_separate_recursion(normalization, F_, F_plus_E, N_var):
    layer = af.Attention(F, 0.08, normalization)
    found = next_order(layer, P, waves, 10 * layer.time_step, 1000)
    fields = found.mean * found.size, (found.mean + found.own) * found.size, found.variance * found.size**2
    at = [float(found.grid.interpolate(field, np.array([[48 * 2 * np.pi / 80]]))[0, 0]) for field in fields]
    assert at == pytest.approx([F_, F_plus_E, N_var], abs=6e-7)


@pytest.mark.parametrize(
    "f, normalization",
    [
        (F, "softmax"),
        (F, af.DensityCorrected(0.7)),
        (F, "column"),
        (F, "sinkhorn"),
        (af.PseudoMetric(lambda x, y: (1 - np.cos(x - y)).sum(-1) * (1.5 + 0.5 * np.cos(y[..., 0])), 1), "column"),
        (af.PseudoMetric(lambda x, y: (1 - np.cos(x - y)).sum(-1) * (1.5 + 0.5 * np.cos(y[..., 0])), 1), TWO),
    ],
    ids=lambda v: str(v) if not isinstance(v, af.PseudoMetric) else type(v).__name__,
)
def test_the_series_is_the_layers_own_to_third_order(f, normalization):
    layer = af.Attention(f, 0.2, normalization)
    bound, grid, mass = bind_nodes(layer, P, waves)
    A, eta = weights_and_response(bound, mass)
    xi = np.cos(grid.points - 1.0) + 0.5 * np.sin(3 * grid.points)
    xi -= mass @ xi / mass.sum()
    e = layer.normalization.response_series(A, eta, mass, xi, 3)
    steps = [1.0, 1.0, 0.6]
    H = taylor(A, [e[0] + xi, e[1] + xi * e[0], e[2] + xi * e[1]], waves(grid.points), steps)

    def missed(t):
        perturbed, h = layer.bind(grid.points, np.log(mass * (1 + t * xi[:, 0]))), waves(grid.points)[:, None]
        for a in steps:
            h = h + a * (perturbed.attend(h).mean - h)
        return np.abs(h - sum(t**k * power for k, power in enumerate(H))).max()

    assert np.log2(missed(0.08) / missed(0.04)) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("rule", [af.Sinkhorn(), TWO], ids=str)
def test_islands_of_tokens_answer_each_by_itself(rule):
    layer, mass, start = (
        af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.2, af.Sinkhorn()),
        np.full(12, 1 / 12),
        np.arange(12),
    )
    xi = np.random.default_rng(0).normal(size=(12, 3))

    def moved(here):
        A = weights[np.ix_(here, here)]
        share = mass[here] / mass[here].sum()
        e = rule.response_series(A, rule.response(A, None, share), share, xi[here], 3)
        return taylor(A, [e[0] + xi[here], e[1] + xi[here] * e[0], e[2] + xi[here] * e[1]], start[here] ** 2.0, [1.0, 0.6])

    tokens = np.random.default_rng(1).uniform(0, 1, (12, 1)) + np.repeat([0.0, 100.0], 6)[:, None]
    weights = layer.weights(tokens)
    together, first, second = moved(np.arange(12)), moved(np.arange(6)), moved(np.arange(6, 12))
    for whole, left, right in zip(together, first, second):
        np.testing.assert_allclose(whole, np.concatenate([left, right]), atol=1e-9 * np.abs(whole).max())


def mean_square(normalization, epsilon, steps, n_tokens, sets):
    """Of N uniform tokens on the circle, started with cos, from the layers of infinitely many; and its standard error."""
    x = np.random.default_rng(7).uniform(0, 2 * np.pi, (sets, n_tokens))
    d = np.abs(x[:, :, None] - x[:, None, :])
    K = np.exp(-(np.minimum(d, 2 * np.pi - d) ** 2) / (2 * epsilon))
    if normalization == "column":
        K /= K.sum(axis=1, keepdims=True)
    A = K / K.sum(axis=2, keepdims=True)
    h, decay = np.cos(x), 1.0
    for a in steps:
        h = (1 - a) * h + a * (A @ h[:, :, None])[:, :, 0]
        decay *= 1 - a + a * np.exp(-epsilon / 2)
    squares = np.mean((h - decay * np.cos(x)) ** 2, axis=1)
    return squares.mean(), squares.std() / np.sqrt(sets)


@pytest.mark.parametrize("normalization", ["softmax", "column"])
def test_eighty_tokens_scatter_as_the_next_order_says(normalization):
    layer, n_tokens = af.Attention(F, 0.15, normalization, residual=0.8), 80
    found = next_order(layer, af.Uniform(CIRCLE), cos, 4.5 * layer.time_step, n_tokens)
    variance, square = (found.mass @ field[:, 0] for field in (found.variance, (found.mean + found.own) ** 2))
    measured, error = mean_square(normalization, 0.15, [0.8] * 4 + [0.4], n_tokens, 3000)
    leading = variance * found.size[0] ** 2 / n_tokens
    assert measured == pytest.approx(leading + (square + found.second[0]) * (found.size[0] / n_tokens) ** 2, abs=3 * error)
    assert abs(measured - leading) > 5 * error


def test_white_noise_knows_the_correction_to_a_few_per_cent():
    found = next_order(af.Attention(F, 0.08, "column"), P, waves, 0.4, 1000)
    assert 0 < found.second_error[0] < 0.1 * found.second[0]


def test_the_smallest_number_is_what_one_token_is_expected_below():
    density, n_tokens = af.Gaussian([0.0], [[1.0]]), 1000
    grid = density.grid(400)
    p = density.pdf(grid.points)
    expected = np.exp(-(3.2905267**2) / 2) / np.sqrt(2 * np.pi)  # two tails of 1/1000
    assert smallest(p, p * grid.weights, n_tokens) == pytest.approx(expected, rel=0.03)
    assert share_below(expected, p, p * grid.weights) == pytest.approx(1 / n_tokens, rel=0.05)


@pytest.mark.parametrize("nodes", [60, 61, 62, 63])
def test_averages_over_tokens_hang_on_no_node(nodes):
    density, end = af.Gaussian([0.0], [[1.0]]), 3.2905267
    grid = density.grid(nodes)
    p = density.pdf(grid.points)
    fourth = seen_mass(p, p * grid.weights, 1000) @ grid.points[:, 0] ** 4
    # of the normal distribution within -end, end
    exact = 3 - 2 * (end**3 + 3 * end) * np.exp(-(end**2) / 2) / np.sqrt(2 * np.pi) / 0.999
    assert fourth == pytest.approx(exact, rel=5e-3)


def test_columns_are_predicted_each_by_itself():
    layer = af.Attention(F, 0.1, "sinkhorn")
    both = next_order(layer, P, lambda x: np.stack([1e6 * waves(x), cos(x)], axis=-1), 0.3, 300)
    one = next_order(layer, P, waves, 0.3, 300)
    scale = both.size[0] / one.size[0]
    assert norm(both.mass, both.mean[:, :1] * scale / 1e6 - one.mean) < 1e-9 * norm(both.mass, one.mean)
    assert both.second[0] * (scale / 1e6) ** 2 == pytest.approx(one.second[0], rel=1e-9)
