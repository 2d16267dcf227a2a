"""Standard, optimised, efficient and super attention: the dense definition, what they share, what they cost."""

import inspect
import pickle

import numpy as np
import pytest

import attnflow as af

RNG = np.random.default_rng(0)
D, N = 6, 20
W_Q, W_K, W_V, W_O = RNG.normal(size=(4, D, D))
W_A = RNG.normal(size=(N, N))
X = RNG.normal(size=(N, D))
BUILD = {
    "standard": lambda h, **o: af.standard_attention(W_Q, W_K, W_V, W_O, h, **o),
    "optimised": lambda h, **o: af.optimised_attention(W_Q, W_K, W_O, h, **o),
    "efficient": lambda h, **o: af.efficient_attention(W_Q, W_O, h, **o),
    "super": lambda h, **o: af.super_attention(W_Q, W_A, W_O, h, **o),
}


def dense(variant, heads):
    """softmax(Q K' / sqrt(d_head)) V per head, one beside the other, times W_O'; matrices act on columns."""
    Q, K = X @ W_Q.T, X if variant in ("efficient", "super") else X @ W_K.T
    V = X @ W_V.T if variant == "standard" else W_A @ X if variant == "super" else X
    results = []
    for q, k, v in zip(*(np.split(M, heads, axis=1) for M in (Q, K, V))):
        scores = q @ k.T / np.sqrt(D / heads)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        results.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(results, axis=1) @ W_O.T


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("variant", BUILD)
def test_variants_are_their_dense_definition(variant, heads):
    expected = dense(variant, heads)
    np.testing.assert_allclose(BUILD[variant](heads)(X), expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_one_head_of_merged_matrices_is_standard_attention():
    expected = BUILD["standard"](1)(X)
    size = np.abs(expected).max()
    for merged in (af.optimised_attention(W_Q, W_K, W_O @ W_V, 1), af.efficient_attention(W_K.T @ W_Q, W_O @ W_V, 1)):
        np.testing.assert_allclose(merged(X), expected, rtol=0, atol=1e-12 * size)
    assert np.abs(af.optimised_attention(W_Q, W_K, W_O @ W_V, 2)(X) - BUILD["standard"](2)(X)).max() > 0.1 * size
    np.testing.assert_allclose(af.super_attention(W_Q, np.eye(N), W_O, 3)(X), BUILD["efficient"](3)(X), atol=1e-13 * size)


def test_parameters_and_operations_are_counted():
    given = {"standard": (W_Q, W_K, W_V, W_O), "optimised": (W_Q, W_K, W_O), "efficient": (W_Q, W_O), "super": (W_Q, W_A, W_O)}
    for row in af.attention_costs(D, N).rows:
        layer = BUILD[row.variant](2)
        assert layer.parameters == row.parameters == sum(W.size for W in given[row.variant])
        # each matrix is one product with all tokens (W_A with all columns), scores and sums one each
        products = sum(N * D * D if W is not W_A else N * N * D for W in given[row.variant])
        assert layer.operations(N) == row.operations == products + 2 * N * N * D
    assert "0.75" in str(af.attention_costs(D, N)) and "parameters=108" in repr(BUILD["optimised"](2))


def test_variants_move_tokens_as_a_transformer_does():
    run = af.evolve(BUILD["super"](2), X, 1, norm="pre")
    y = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(run.y[1], X + BUILD["super"](2)(y), atol=1e-13)
    layer = pickle.loads(pickle.dumps(BUILD["super"](2)))
    np.testing.assert_array_equal(layer(X), BUILD["super"](2)(X))
    assert all(row.difference < 1e-13 for row in af.parity(layer, X, X, ["reference", "numba"]).rows)


def test_one_optimised_head_on_the_sphere_has_a_limit():
    # scores beta x'y, beta = b^2 / sqrt(3): on uniform tokens x decays by I_3/2(beta) / I_1/2(beta) a layer,
    # coth(beta) - 1 / beta, and in the limit by exp(-2 / (2 beta))
    b, uniform, x = 5.0, af.Uniform(af.Sphere(2)), np.eye(3)
    layer = af.optimised_attention(b * np.eye(3), b * np.eye(3), np.eye(3), 1)
    decay = np.sqrt(3) / b**2
    run = af.propagate(layer, uniform, lambda x: x, 4)
    np.testing.assert_allclose(run.y[-1].reshape(-1, 3), run.grid.points * (1 / np.tanh(1 / decay) - decay) ** 4, atol=1e-9)
    limit = af.limit(layer, uniform).solve(lambda x: x, run.t[-1], rtol=1e-3)
    np.testing.assert_allclose(limit.at(x), x * np.exp(-4 * decay), atol=2e-3)


@pytest.mark.skipif("mask" not in inspect.signature(af.Attention).parameters, reason="layers without masks")
@pytest.mark.parametrize("variant", ["standard", "super"])
def test_variants_under_a_causal_mask(variant):
    layer = (
        af.super_attention(W_Q, np.tril(W_A), W_O, 2, mask="causal") if variant == "super" else BUILD[variant](2, mask="causal")
    )
    Q, K = X @ W_Q.T, X if variant == "super" else X @ W_K.T
    V = np.tril(W_A) @ X if variant == "super" else X @ W_V.T
    rows = []
    for i in range(N):
        parts = []
        for q, k, v in zip(*(np.split(M, 2, axis=1) for M in (Q, K, V))):
            weights = np.exp(k[: i + 1] @ q[i] / np.sqrt(D / 2))
            parts.append(weights @ v[: i + 1] / weights.sum())
        rows.append(np.concatenate(parts) @ W_O.T)
    np.testing.assert_allclose(layer(X), rows, rtol=0, atol=1e-11 * np.abs(rows).max())


P = af.Gaussian(np.zeros(D), np.eye(D))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.standard_attention(W_Q, W_K, W_V, W_O, 4), "heads must divide the 6 columns of tokens, got 4"),
        (lambda: af.standard_attention(W_Q[:3], W_K, W_V, W_O, 2), "W_Q must be a square matrix"),
        (lambda: af.standard_attention(W_Q, W_K[:3], W_V, W_O, 2), r"W_K must have shape \(6, 6\)"),
        (lambda: af.optimised_attention(W_Q, W_K, W_O * np.nan, 2), "W_O must be finite"),
        (lambda: af.efficient_attention(W_Q, None, 2), "W_O must be an array of real numbers"),
        (lambda: af.super_attention(W_Q, W_A[:3], W_O, 2), "W_A must be a square matrix"),
        (lambda: af.super_attention(W_Q, W_A, W_O, 2, mask="causal"), r"W_A must be lower triangular .* at index \[0, 1\]"),
        (lambda: BUILD["super"](2)(X[:5]), "tokens must be 20, as many as W_A mixes, got 5"),
        (lambda: BUILD["super"](2).operations(5), "n_tokens must be 20"),
        (lambda: af.propagate(BUILD["super"](2), P, lambda x: x, 1), "tokens must be the 20 that W_A mixes, got a density"),
        (lambda: af.limit(BUILD["super"](2), P), "layer must not mix tokens to have a limit.*moves features at once"),
        (lambda: af.limit(BUILD["efficient"](2), P), "mixing must add up to one for heads to have a limit"),
        (
            lambda: af.limit(af.optimised_attention(np.eye(D), np.eye(D), np.eye(D), 2), P),
            r"layers\[0\] must have a limit of its own, got none: W must be symmetric positive definite .* rank 3 of 6",
        ),
    ],
)
def test_bad_variants_are_refused_by_name(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
