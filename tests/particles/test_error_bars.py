"""Error bars from one set of tokens: reference numbers, derivatives in the tokens' masses, and what signs make of them."""

import numpy as np
import pytest

import attnflow as af
from attnflow.particles.responses import along, of_outputs, standard_errors

F = af.SquaredDistance(af.Circle())
P = af.VonMises(1.0)
J = np.arange(40)
X = np.mod(2 * np.pi * J / 40 + 0.3 * np.sin(1.7 * J), 2 * np.pi)[:, None]
H = np.sin(X) + 0.3 * np.cos(2 * X)
QUERIES = np.linspace(0.0, 6.0, 5)[:, None]
RULES = ["softmax", af.DensityCorrected(0.5), "column", "sinkhorn", af.Sinkhorn(potentials=2)]
HEAD = af.DotProduct([[1.0, 0.4], [-0.2, 0.8]])  # not symmetric


def by_differences(layer, tokens, values, layers, token):
    """dH / d log mass of one token, of fourth order."""

    def after(change):
        bound, features = layer.bind(tokens, change * np.eye(len(tokens))[token]), values
        for _ in range(layers):
            features = bound.step(features)
        return features

    h = 3e-3
    first, second = ((after(k * h) - after(-k * h)) / (2 * k * h) for k in (1, 2))
    third = (after(3 * h) - after(-3 * h)) / (6 * h)
    return 1.5 * first - 0.6 * second + 0.1 * third


@pytest.mark.parametrize(
    "rule, errors",
    [
        ("softmax", [0.12168991, 0.00832922, 0.1402045]),
        (af.DensityCorrected(0.5), [0.08920929, 0.00553896, 0.10252647]),
        ("column", [0.06002416, 0.0033821, 0.07125193]),
        ("sinkhorn", [0.08177035, 0.00512943, 0.09381889]),
    ],
)
def test_reference_numbers(rule, errors):
    bars = af.error_bars(af.Attention(F, 0.1, rule, residual=0.4), X, H, 6)
    np.testing.assert_allclose(bars.noise[[0, 10, 20], 0], errors, rtol=0, atol=5e-9)
    assert bars.accuracy == 0


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_responses_are_the_derivatives_in_the_masses_and_add_up_to_zero(rule):
    layer = af.Attention(F, 0.1, rule, residual=0.4)
    responses = of_outputs(layer.bind(X), H, 6)
    np.testing.assert_allclose(responses[7], by_differences(layer, X, H, 6, 7), atol=1e-9)
    np.testing.assert_allclose(responses.sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("rule", ["softmax", af.DensityCorrected(0.5), "column", af.Sinkhorn(potentials=2)], ids=str)
def test_asymmetric_weights_respond_by_their_own_columns(rule):
    tokens = np.random.default_rng(0).normal(size=(30, 2))
    layer = af.Attention(HEAD, 0.7, rule)
    responses = of_outputs(layer.bind(tokens), tokens, 3)
    np.testing.assert_allclose(responses[4], by_differences(layer, tokens, tokens, 3, 4), atol=1e-9)
    np.testing.assert_allclose(along(layer.bind(tokens), tokens, 3, np.eye(30)), responses, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("layers", [1, 6])
def test_at_queries_both_directions_agree(rule, layers):
    bound = af.Attention(F, 0.1, rule).bind(X)
    backwards = of_outputs(bound, H, layers, QUERIES)
    np.testing.assert_allclose(along(bound, H, layers, np.eye(40), QUERIES), backwards, atol=1e-12)
    np.testing.assert_allclose(backwards.sum(axis=0), 0, atol=1e-12)


def test_heads_add_up_their_responses():
    heads = [af.Attention(F, 0.1), af.Attention(F, 0.2, "sinkhorn"), af.Attention(F, 0.15, af.DensityCorrected(0.3))]
    layer = af.MultiHead(heads, [0.5, 0.2, 0.3], residual=0.6)
    responses = of_outputs(layer.bind(X), H, 4)
    np.testing.assert_allclose(responses[7], by_differences(layer, X, H, 4, 7), atol=1e-9)
    W = np.array([[0.3, 0.2], [-0.1, 0.5]])
    mixed = af.MultiHead(heads, [W, 0.7, (slice(0, 1), np.array([[0.1, 0.4]]))], residual=0.6)
    values = np.hstack([H, np.cos(X)])
    expected = by_differences(mixed, X, values, 4, 7)
    np.testing.assert_allclose(along(mixed.bind(X), values, 4, np.eye(40))[7], expected, atol=1e-9)
    assert af.error_bars(mixed, X, values, 4).accuracy == 0  # as many directions as tokens


def test_labels_part_the_tokens():
    labels = np.arange(40) % 2
    bars = af.error_bars(af.Attention(F, 0.2, "column", mask=labels), X, H, 3)
    odd = af.error_bars(af.Attention(F, 0.2, "column"), X[1::2], H[1::2], 3)
    np.testing.assert_allclose(bars.noise[1::2], odd.noise, atol=1e-12)
    np.testing.assert_allclose(bars.bias[1::2], odd.bias, atol=1e-12)


def test_random_signs_tell_each_error_as_closely_as_they_say():
    tokens = af.VonMises(1.0).sample(400, rng=0)
    layer = af.Attention(F, 0.1)
    exact = np.sqrt(np.sum(of_outputs(layer.bind(tokens), np.cos(tokens), 5) ** 2, axis=0))
    bars = af.error_bars(layer, tokens, np.cos(tokens), 5, rng=0)
    assert bars.accuracy == pytest.approx(1 / np.sqrt(128))
    off = bars.noise / exact - 1
    assert np.sqrt(np.mean(off**2)) == pytest.approx(bars.accuracy, rel=0.4)  # few directions matter: errors move together
    assert bars.noise_share == pytest.approx(np.linalg.norm(exact) / np.linalg.norm(bars.features), rel=0.2)


def test_the_standard_error_is_the_predicted_noise():
    density, layer = af.VonMises(1.0), af.Attention(F, 0.1, af.DensityCorrected(0.5))
    points = np.array([[0.7], [2.0], [4.5]])
    predicted = af.predicted_noise(layer, density, lambda x: np.cos(x[..., 0]), 5 * layer.time_step, 20_000)(points)
    tokens = density.sample(20_000, rng=0)
    bars = af.error_bars(layer, tokens, np.cos(tokens), 5, queries=points)
    np.testing.assert_allclose(bars.noise, predicted, rtol=0.05)


def test_two_temperatures_tell_the_bias():
    density, layer = af.VonMises(1.0), af.Attention(F, 0.08)
    x = np.linspace(0, 2 * np.pi, 100_001)
    mass = np.cumsum(density.pdf(x[:, None]))
    tokens = np.interp((np.arange(2000) + 0.5) / 2000, mass / mass[-1], x)[:, None]  # next to no noise

    def start(x):
        return np.cos(x[..., 0])

    bars = af.error_bars(layer, tokens, start, 10, queries=QUERIES)
    infinite, exact = (
        run.at(QUERIES) for run in (af.propagate(layer, density, start, 10), af.limit(layer, density).solve(start, 0.4))
    )
    np.testing.assert_allclose(bars.bias, infinite - exact, atol=0.05 * np.abs(infinite - exact).max())
    assert bars.relative == pytest.approx(np.hypot(bars.noise_share, bars.bias_share))


def test_without_a_limit_there_is_no_bias_but_noise():
    tokens = np.random.default_rng(0).normal(size=(50, 2))
    bars = af.error_bars(af.Attention(HEAD, 0.7), tokens, tokens, 2)
    assert bars.bias is None and bars.relative == bars.noise_share > 0
    assert "no limit equation" in repr(bars)


def test_what_has_no_error_bars_says_why():
    for rule in (af.TopK(5), af.Perplexity(5.0), af.Screening(0.5)):
        with pytest.raises(ValueError, match="must weigh all keys"):
            af.error_bars(af.Attention(F, 0.1, rule), X, H, 2)
    with pytest.raises(ValueError, match="mask must be None or labels"):
        af.error_bars(af.Attention(F, 0.1, mask="causal"), X, H, 2)
    with pytest.raises(ValueError, match="queries must be None for residual"):
        af.error_bars(af.Attention(F, 0.1, residual=0.5), X, H, 2, queries=QUERIES)


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["signs", "exact"])
def test_error_bars_are_in_the_units_of_the_features(queries):
    layer, tokens = af.Attention(F, 0.1), P.sample(300, rng=0)
    usual = af.error_bars(layer, tokens, np.cos(tokens), 4, queries, rng=0)
    for power in (2.0**-665, 2.0**-548, 2.0**515):
        bars = af.error_bars(layer, tokens, power * np.cos(tokens), 4, queries, rng=0)
        np.testing.assert_allclose(bars.noise / power, usual.noise, rtol=1e-12)
        assert bars.relative == pytest.approx(usual.relative, rel=1e-12)


def test_layers_in_single_precision_know_the_errors_of_features_far_from_zero():
    tokens = P.sample(300, rng=0)
    double, single = (af.Attention(F, 0.1, dtype=dtype) for dtype in ("float64", "float32"))
    usual = af.error_bars(double, tokens, np.cos(tokens), 4, rng=0)
    for layer in (single, af.MultiHead([single, single], mixing=[0.25, 0.75])):
        bars = af.error_bars(layer, tokens, 1e6 + np.cos(tokens), 4, rng=0)
        np.testing.assert_allclose(bars.noise, usual.noise, rtol=1e-3)
        np.testing.assert_allclose(bars.features - 1e6, usual.features, atol=1e-5)
        np.testing.assert_allclose(bars.bias, usual.bias, atol=1e-5)
    runs, ones = [(single.bind(tokens), 4)], np.ones((1, 1))
    errors, _ = standard_errors(runs, 1e6 + np.cos(tokens), ones, rng=np.random.default_rng(0))
    np.testing.assert_allclose(errors[0], usual.noise, rtol=1e-3)
    halves = af.MultiHead([double, double], mixing=[0.25, 0.25])  # of which constants are not kept
    shifted = af.error_bars(halves, tokens, 1e3 + np.cos(tokens), 1, rng=0)
    np.testing.assert_allclose(shifted.features, 0.5 * (1e3 + double(tokens, np.cos(tokens))), rtol=1e-12)
