"""A layer: its weights, what it conserves, its options and what it refuses."""

import numpy as np
import pytest

import attnflow as af

CIRCLE = af.Circle()
ALL = ["softmax", "column", "sinkhorn", af.DensityCorrected(0.5)]
TOKENS = af.VonMises(1.0).sample(300, rng=0)
VALUES = np.concatenate([np.cos(TOKENS), np.sin(3 * TOKENS)], axis=1)


def layer(normalization="softmax", epsilon=0.05, **options):
    return af.Attention(af.SquaredDistance(CIRCLE), epsilon, normalization, **options)


@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_weights_are_the_definition(normalization):
    K = np.exp(-(CIRCLE.distance(TOKENS[:, None], TOKENS) ** 2) / 0.1)
    q = K.sum(axis=1)
    key = {"softmax": np.ones_like(q), "column": 1 / q}.get(normalization)
    if normalization == "sinkhorn":
        key = np.ones_like(q)
        for _ in range(80):
            key = np.sqrt(key / (K @ key))
    elif key is None:
        key = q**-0.5
    expected = K * key
    expected /= expected.sum(axis=1, keepdims=True)
    made = layer(normalization)
    np.testing.assert_allclose(made.weights(TOKENS), expected, rtol=1e-11)
    np.testing.assert_allclose(made(TOKENS, VALUES), expected @ VALUES, atol=1e-12)
    np.testing.assert_allclose(made(TOKENS), expected @ TOKENS, atol=1e-11)


@pytest.mark.parametrize("mask", [None, "causal", np.arange(300) % 3], ids=["all", "causal", "labels"])
def test_weights_without_row_sums_are_the_similarity_divided_by_the_number_of_keys(mask):
    made = layer("none", mask=mask)
    seen = np.ones((300, 300)) if mask is None else np.tril(np.ones((300, 300)))
    if isinstance(mask, np.ndarray):
        seen = mask[:, None] == mask
    expected = np.exp(-(CIRCLE.distance(TOKENS[:, None], TOKENS) ** 2) / 0.1) * seen / seen.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(made.weights(TOKENS), expected, rtol=1e-11)
    np.testing.assert_allclose(made(TOKENS, VALUES), expected @ VALUES, atol=1e-12)
    np.testing.assert_allclose(made.bind(TOKENS).attend_transposed(VALUES), expected.T @ VALUES, atol=1e-11)
    np.testing.assert_allclose(made.bind(TOKENS).own_weights(), np.diag(expected), rtol=1e-12)
    if mask is None:
        np.testing.assert_allclose(made(TOKENS, VALUES, queries=TOKENS[5:9]), (expected @ VALUES)[5:9], atol=1e-12)
        mass = np.linspace(1.0, 3.0, 300)
        weighed = made.bind(TOKENS, np.log(mass)).attend(VALUES).mean
        np.testing.assert_allclose(weighed, expected * 300 * mass / mass.sum() @ VALUES, atol=1e-12)


def test_without_row_sums_there_is_no_limit_and_the_reason_is_said():
    with pytest.raises(ValueError, match="normalization must divide by row sums for a limit"):
        af.limit(layer("none"), af.VonMises(1.0))


def test_sinkhorn_weights_are_doubly_stochastic():
    S = layer("sinkhorn").weights(TOKENS)
    np.testing.assert_allclose(S.sum(axis=0), 1, atol=2e-12)
    np.testing.assert_allclose(S, S.T, atol=1e-12)


@pytest.mark.parametrize("residual", [1.0, 0.3])
@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_the_weighted_sum_of_features_is_conserved(normalization, residual):
    made = layer(normalization, residual=residual)
    bias = made.bind(TOKENS).key_bias
    K = np.exp(-made.f(TOKENS, TOKENS) / (2 * made.epsilon))
    w = np.exp(bias) * (K @ np.exp(bias))
    before, after = w @ VALUES, w @ made(TOKENS, VALUES)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-13 * np.sum(w))


@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_queries_at_tokens_give_the_tokens_rows(normalization):
    made = layer(normalization)
    np.testing.assert_allclose(made(TOKENS, VALUES, queries=TOKENS[5:9]), made(TOKENS, VALUES)[5:9], rtol=1e-13)


def test_residual_step_mixes_with_the_features():
    plain, half = layer()(TOKENS, VALUES), layer(residual=0.5)(TOKENS, VALUES)
    np.testing.assert_allclose(half, (VALUES + plain) / 2, atol=1e-15)
    assert layer(residual=0.5).time_step == 0.0125


def test_column_uses_column_sums_of_an_asymmetric_similarity():
    f = af.DotProduct([[1.0, 0.7], [-0.2, 0.5]])
    x = np.random.default_rng(0).normal(size=(40, 2))
    K = np.exp(-f(x, x) / 2)
    expected = K / K.sum(axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(af.Attention(f, 1.0, "column").weights(x), expected, rtol=1e-12)


def test_tokens_changed_in_place_are_noticed():
    made, x = layer("sinkhorn"), TOKENS.copy()
    made(x, VALUES)
    x[:100] += 0.5
    np.testing.assert_array_equal(made(x, VALUES), layer("sinkhorn")(x, VALUES))


def test_an_engine_changed_in_place_is_noticed():
    made = layer(backend="numba")
    made(TOKENS)
    made.backend, made.dtype = "cells", "float32"
    assert (made.bind(TOKENS).stats["engine"], made.bind(TOKENS).stats["dtype"]) == ("cells", "float32")


def test_a_map_whose_parameters_change_is_noticed():
    scale = [1.0]
    made = af.Attention(af.SquaredMap(lambda x: scale[0] * np.concatenate([np.cos(x), np.sin(x)], -1)), 0.1, "column")
    before = made(TOKENS, VALUES)
    scale[0] = 2.0
    after = made(TOKENS, VALUES)
    assert np.abs(after - before).max() > 0.01
    fresh = af.Attention(af.SquaredMap(lambda x: 2.0 * np.concatenate([np.cos(x), np.sin(x)], -1)), 0.1, "column")
    np.testing.assert_array_equal(after, fresh(TOKENS, VALUES))


def test_float32_is_close_and_says_so():
    made = layer("sinkhorn", dtype="float32")
    np.testing.assert_allclose(made(TOKENS, VALUES), layer("sinkhorn")(TOKENS, VALUES), atol=3e-5)
    assert made.bind(TOKENS).stats["dtype"] == "float32"


def test_isolated_tokens_are_reported():
    with pytest.warns(af.checks.IsolatedTokensWarning, match="3 of 3 tokens attend only to themselves"):
        layer(epsilon=1e-4)(np.array([[0.0], [1.0], [2.0]]), np.zeros(3))


def test_sinkhorn_that_does_not_converge_is_reported():
    with pytest.warns(af.checks.ConvergenceWarning, match="after 3 sweeps"):
        layer(af.Sinkhorn(tol=1e-12, max_iter=3)).bind(TOKENS)


def test_perplexity_of_known_rows():
    uniform = af.attention.perplexity(af.Attention(af.SquaredDistance(CIRCLE), 1e6).bind(TOKENS))
    np.testing.assert_allclose(uniform, 300, rtol=1e-4)
    S = layer().weights(TOKENS)
    np.testing.assert_allclose(
        af.attention.perplexity(layer().bind(TOKENS)), np.exp(-(S * np.log(S + 1e-300)).sum(axis=1)), rtol=1e-6
    )
    made = layer(af.DensityCorrected(1.0))
    S = made.weights(TOKENS)
    np.testing.assert_allclose(
        af.attention.perplexity(made.bind(TOKENS)), np.exp(-(S * np.log(S + 1e-300)).sum(axis=1)), rtol=1e-6
    )
    epsilon = af.epsilon_for_perplexity(af.SquaredDistance(CIRCLE), TOKENS, 20.0)
    assert np.median(af.attention.perplexity(layer(epsilon=epsilon).bind(TOKENS))) == pytest.approx(20, rel=5e-3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: layer(epsilon=0.0), "epsilon must be positive"),
        (lambda: layer(epsilon=float("nan")), "epsilon must be finite"),
        (lambda: layer("softmin"), "normalization must be one of softmax, sinkhorn, column, none"),
        (lambda: layer(residual=1.5), "residual must be in"),
        (lambda: layer(backend="gpu"), "backend must be one of"),
        (lambda: layer(dtype="float16"), "dtype must be one of"),
        (lambda: af.Attention("d2", 0.1), "f must be a pseudo-metric"),
        (lambda: layer()(np.full((3, 1), np.nan)), "tokens must be finite, got nan at index"),
        (lambda: layer()(np.zeros(3)), "tokens\\[:, None\\]"),
        (lambda: layer()(np.zeros((3, 2))), "tokens must have 1 column"),
        (lambda: layer()(TOKENS, np.zeros(7)), "values must have shape"),
        (lambda: af.Attention(af.DotProduct(), 1.0)(np.eye(2), None, np.ones((4, 1))), "queries must have 2 columns"),
        (lambda: af.Attention(af.Cosine(), 1.0, backend="reference")(np.eye(2), None, np.ones((4, 3))), "queries must have 2"),
        (lambda: af.Attention(af.DotProduct(), 1.0).weights(np.eye(2), np.ones((4, 1))), "queries must have 2 columns"),
        (lambda: af.DotProduct()(np.eye(2), np.ones((4, 1))), "y must have 2 columns"),
        (lambda: af.PowerDistance(af.Euclidean(2), 0.1).moments(1e40), "epsilon must be smaller"),
        (
            lambda: af.epsilon_for_perplexity(af.PowerDistance(af.Euclidean(1), 1.0), 1e300 * TOKENS, 5.0),
            "tokens must lie where f",
        ),
        (lambda: layer(residual=0.5)(TOKENS, VALUES, TOKENS), "queries must be None for residual"),
        (lambda: layer().weights(np.zeros((9000, 1))), "tokens must make at most"),
        (lambda: layer(backend="reference")(np.zeros((9000, 1))), "tokens must make at most"),
        (lambda: af.Attention(af.DotProduct([[1.0, 1.0], [0.0, 1.0]]), 1.0, "sinkhorn").bind(np.eye(2)), "symmetric f"),
        (lambda: af.DensityCorrected(np.inf), "alpha must be finite"),
        (lambda: af.Sinkhorn(tol=-1.0), "tol must be positive"),
        (lambda: af.epsilon_for_perplexity(af.SquaredDistance(CIRCLE), TOKENS, 1000.0), "target must be between"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
