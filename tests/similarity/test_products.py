"""Factors of a head: the same sums as their product at the cost of their rank, and what has a limit."""

import numpy as np
import pytest

import attnflow as af

RNG = np.random.default_rng(0)
W_Q, W_K = RNG.standard_normal((2, 4, 9))
X, Y = RNG.standard_normal((7, 9)), RNG.standard_normal((5, 9))


def test_factors_are_their_product():
    f = af.DotProduct(W_Q, W_K)
    np.testing.assert_allclose(f(X, Y), -X @ W_Q.T @ W_K @ Y.T, rtol=1e-13)
    np.testing.assert_allclose(f.transposed()(Y, X), f(X, Y).T, rtol=1e-13)
    assert f.key_features(Y).shape == (5, 4) and f.query_features(X).shape == (7, 4) and f.dim == 9
    layer, whole = af.Attention(f, 2.0), af.Attention(af.DotProduct(W_Q.T @ W_K), 2.0)
    np.testing.assert_allclose(layer(X, Y[:, :1].repeat(2, 0)[:7]), whole(X, Y[:, :1].repeat(2, 0)[:7]), rtol=1e-12)


@pytest.mark.parametrize(
    "f, symmetric, definite, obstacle",
    [
        (af.DotProduct(W_Q, W_K), False, False, "antisymmetric part of norm .*symmetric_part"),
        (af.DotProduct(W_Q, W_Q), True, True, "rank 4 of 9: .*map them"),
        (af.DotProduct(W_Q, -W_Q), True, False, "an eigenvalue of -1 of the largest"),
        (af.DotProduct(np.diag([1.0, 0.0])), True, True, "rank 1 of 2"),
        (af.DotProduct([[0.0, 1.0], [1.0, 0.0]]), True, False, "an eigenvalue of -1 of the largest"),
        (af.DotProduct(np.zeros((3, 3))), True, True, "rank 0 of 3"),
        (af.DotProduct(np.tile(W_Q, (2, 1)), np.concatenate([W_Q, -W_Q])), True, True, "rank 0 of 9"),  # they cancel
        (af.DotProduct([[0.0, 1.0], [-1.0, 0.0]]), False, False, "antisymmetric part of norm 1 "),
        (af.DotProduct(np.eye(3), 2 * np.eye(3)), True, True, None),
        (af.DotProduct(1e200 * np.eye(3), 1e-200 * np.eye(3)), True, True, None),
        (af.DotProduct([[2.0, 0.5], [0.5, 1.0]]), True, True, None),
        (af.DotProduct(), True, True, None),
        (af.DotProduct(np.eye(2), bias=[0.0, 0.0]), True, True, None),
    ],
)
def test_what_stands_in_the_way_of_a_limit_is_said_with_a_way_onward(f, symmetric, definite, obstacle):
    assert (f.symmetric, f.positive_definite) == (symmetric, definite)
    layer = af.Attention(f, 0.1, residual=0.5)
    if obstacle is None:
        assert layer.time_step == 0.025 == layer.clock
        return
    with pytest.raises(ValueError, match=f"W must be symmetric positive definite.*{obstacle}") as refused:
        layer.time_step
    assert len(str(refused.value)) < 400
    tokens = 0.1 * np.eye(f.dim)
    assert af.propagate(layer, tokens, tokens, layers=3).t.tolist() == [0, 1, 2, 3]  # layers are counted


def test_the_symmetric_part_keeps_its_factors():
    f = af.DotProduct(W_Q, W_K)
    part, W = f.symmetric_part(), W_Q.T @ W_K
    assert part.symmetric and part.key_features(X).shape[1] == 8
    np.testing.assert_allclose(part(X, Y), -X @ (W + W.T) @ Y.T / 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(af.DotProduct(W).symmetric_part()(X, Y), part(X, Y), rtol=1e-12, atol=1e-12)
    sphere = np.eye(3)
    full = af.DotProduct(np.diag([2.0, 1, 1]), np.eye(3))
    np.testing.assert_array_equal(full.metric(sphere[1:]), np.broadcast_to(np.diag([1.0, 0.5, 0.5]), (2, 3, 3)))


@pytest.mark.parametrize("engine", ["reference", "numba", "auto"])
def test_a_bias_of_the_queries_is_a_key_bias(engine):
    bias = RNG.standard_normal(4)
    f, plain = af.DotProduct(W_Q, W_K, bias), af.DotProduct(W_Q, W_K)
    np.testing.assert_allclose(f(X, Y), plain(X, Y) - Y @ (bias @ W_K), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(f.transposed()(Y, X), f(X, Y).T, rtol=1e-13)
    np.testing.assert_allclose(f.slope(X), -(X @ W_Q.T + bias) @ W_K, rtol=1e-8, atol=1e-8)
    logits = (X @ W_Q.T + bias) @ (X @ W_K.T + RNG.standard_normal(4)).T / 2  # a bias of the keys has no effect
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    layer = af.Attention(f, 1.0, backend=engine)
    np.testing.assert_allclose(layer(X), softmax @ X, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.weights(X), softmax, rtol=1e-12, atol=1e-15)


def test_a_bias_takes_symmetry_and_the_limit_away():
    whole = af.DotProduct(np.eye(2), bias=[1.0, 0.0])
    assert not whole.symmetric and not whole.positive_definite and whole.defects(X[:, :2])["asymmetry"] > 0.1
    np.testing.assert_array_equal(whole(X[:, :2], Y[:, :2]), af.DotProduct(bias=[1.0, 0.0])(X[:, :2], Y[:, :2]))
    with pytest.raises(ValueError, match="bias must be None for f to have a local limit, got a key bias of slope 1 "):
        af.Attention(whole, 0.1).time_step
    assert whole.symmetric_part().obstacle is None
    with pytest.raises(ValueError, match="symmetric f"):
        af.Attention(whole, 0.1, "sinkhorn")(X[:, :2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((W_Q, W_K[:, :3]), r"W_K must have the shape of W, \(4, 9\), got \(4, 3\)"),
        ((W_Q, W_K[0]), r"W_K must be a factor of shape \(r, n\), got shape \(9,\)"),
        ((None, W_K), "W must be given beside W_K"),
        ((W_Q, np.full((4, 9), np.nan)), "W_K must be finite"),
        ((W_Q, W_K, np.ones(9)), r"bias must have shape \(4\), got \(9,\)"),
        ((np.eye(3), None, [np.inf, 0, 0]), "bias must be finite"),
    ],
)
def test_bad_factors_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        af.DotProduct(*arguments)
