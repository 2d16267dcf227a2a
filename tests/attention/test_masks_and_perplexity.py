"""Infinite f as a mask in whole layers, rows that see nothing, and the temperature of a given perplexity."""

import numpy as np
import pytest

import attnflow as af
from attnflow.attention import perplexity

RNG = np.random.default_rng(0)
DOCUMENTS = np.c_[RNG.normal(size=90), np.repeat([0.0, 1.0, 2.0], 30)]
VALUES = RNG.normal(size=(90, 2))
MASKED = af.PseudoMetric(lambda x, y: np.where(x[..., 1] == y[..., 1], (x[..., 0] - y[..., 0]) ** 2, np.inf), 2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", ["reference", "numba"])
@pytest.mark.parametrize("normalization", ["softmax", "column", "sinkhorn", af.DensityCorrected(1.0)], ids=str)
def test_masked_documents_are_layers_of_their_own(normalization, engine, dtype):
    masked = af.Attention(MASKED, 0.3, normalization, backend=engine, dtype=dtype)
    alone = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.3, normalization, backend="reference")
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    got, parts = masked(DOCUMENTS, VALUES), [slice(30 * k, 30 * k + 30) for k in range(3)]
    for part in parts:
        np.testing.assert_allclose(got[part], alone(DOCUMENTS[part, :1], VALUES[part]), atol=tolerance)
    S = masked.weights(DOCUMENTS)
    assert (S[DOCUMENTS[:, None, 1] != DOCUMENTS[:, 1]] == 0).all()
    if normalization == "sinkhorn":
        np.testing.assert_allclose(S.sum(axis=0), 1, atol=10 * tolerance)
    run = af.propagate(masked, DOCUMENTS, VALUES, 200, 200)  # the columns of other documents do not leak in
    one = af.propagate(alone, DOCUMENTS[:30, :1], VALUES[:30], 200, 200)
    np.testing.assert_allclose(run.y[-1][:30], one.y[-1], atol=200 * tolerance)


@pytest.mark.parametrize("engine", ["reference", "numba"])
def test_a_row_that_sees_nothing_is_named(engine):
    tokens = DOCUMENTS.copy()
    blind = af.PseudoMetric(lambda x, y: np.where(x[..., 0] == tokens[37, 0], np.inf, MASKED.pair.function(x, y)), 2)
    layer = af.Attention(blind, 0.3, backend=engine)
    with pytest.raises(ValueError, match="^f must be finite between query 37 and at least one key"):
        layer(tokens, VALUES)
    with pytest.raises(ValueError, match="^f must be finite between query 37 and at least one key"):
        layer.weights(tokens)
    queries = np.array([[0.0, 1.0], [0.0, 7.0]])
    with pytest.raises(ValueError, match="^f must be finite between query 1 and at least one key"):
        af.Attention(MASKED, 0.3, backend=engine)(tokens, VALUES, queries)


def test_a_finite_f_beyond_the_range_is_no_mask():
    f = af.PseudoMetric(lambda x, y: np.full((x + y).shape[:-1], 1e300), 2)
    for engine in ("reference", "numba"):
        mean = af.Attention(f, 1e-5, backend=engine)(DOCUMENTS, VALUES, DOCUMENTS[:3])
        np.testing.assert_allclose(mean, np.broadcast_to(VALUES.mean(axis=0), (3, 2)), atol=1e-14)


def dense_perplexity(f_values, epsilon):
    logits = -f_values / (2 * epsilon)
    w = np.exp(logits - logits.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    return np.exp(-np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0).sum(axis=1))


@pytest.mark.parametrize("equal, target", [(180, 270.0), (180, 181.0), (100, 20.0), (260, 299.0), (0, 30.0)])
def test_a_perplexity_is_reached_among_duplicates(equal, target):
    x = np.random.default_rng(3).normal(size=(300, 2))
    x[:equal] = x[0]
    f = af.SquaredDistance(af.Euclidean(2))
    epsilon = af.epsilon_for_perplexity(f, x, target)
    assert np.median(dense_perplexity(f(x, x), epsilon)) == pytest.approx(target, rel=2e-3)


@pytest.mark.parametrize("scale", [2.0**-990, 2.0**-60, 1.0, 2.0**600, 2.0**900])
@pytest.mark.parametrize("constant", [0.0, 1e6, -(2.0**40)])
def test_perplexity_follows_the_scale_of_f_and_no_constant(scale, constant):
    x = RNG.integers(-500, 500, (100, 1)) / 64  # all f are then exact
    f = af.PseudoMetric(lambda x, y: scale * ((x - y)[..., 0] ** 2 + constant), 1)
    expected = af.epsilon_for_perplexity(af.SquaredDistance(af.Euclidean(1)), x, 12.0)
    epsilon = af.epsilon_for_perplexity(f, x, 12.0)
    assert epsilon / scale == pytest.approx(expected, rel=2e-3)
    known = dense_perplexity((x - x.T) ** 2, epsilon / scale)
    np.testing.assert_allclose(perplexity(af.Attention(f, epsilon).bind(x)), known, rtol=1e-9)


def test_a_perplexity_that_no_temperature_has_is_refused_with_those_there_are():
    x = np.repeat(np.arange(4.0), 5)[:, None]
    with pytest.raises(ValueError, match="^target must be a perplexity that some epsilon reaches, here 5 to 20, got 3"):
        af.epsilon_for_perplexity(af.SquaredDistance(af.Euclidean(1)), x, 3.0)
    with pytest.raises(ValueError, match="here 1 to 30, got 40"):
        af.epsilon_for_perplexity(MASKED, DOCUMENTS, 40.0)
    with pytest.raises(ValueError, match="^tokens must differ"):
        af.epsilon_for_perplexity(af.SquaredDistance(af.Euclidean(1)), np.ones((9, 1)), 3.0)


def test_masses_are_read_before_they_are_used():
    layer, x = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.3), np.arange(5.0)[:, None]
    for wrong in (np.full(5, np.nan), np.zeros(4), 0.0, np.zeros(5) + 1j, np.full(5, np.inf), "12345", np.full(5, -np.inf)):
        with pytest.raises((ValueError, TypeError), match="^log_mass must"):
            layer.bind(x, wrong)
    part = layer.bind(x, np.array([-np.inf, 0.0, 1.0, -np.inf, 0.0]))
    w = np.array([0.0, 1.0, np.e, 0.0, 1.0]) * np.exp(-((x - x.T) ** 2) / 0.6)
    np.testing.assert_allclose(part.attend(x).mean, w @ x / w.sum(axis=1, keepdims=True), rtol=1e-13)
