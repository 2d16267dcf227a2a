"""f = -activation(a1'Px + a2'Py): its values, its slope, its units, and what has no limit without a graph."""

import numpy as np
import pytest

import attnflow as af

RNG = np.random.default_rng(2)
A1, A2, P = RNG.normal(size=4), RNG.normal(size=4), RNG.normal(size=(4, 3))
X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3))
ACTIVATIONS = {
    "identity": lambda r: r,
    "relu": lambda r: np.maximum(r, 0),
    "leaky_relu": lambda r: np.maximum(r, 0.2 * r),
    "elu": lambda r: np.where(r > 0, r, np.exp(r) - 1),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_slopes_are_those_of_the_definition(name):
    f, act = af.Additive(A1, A2, P, name), ACTIVATIONS[name]
    exact = -act((X @ P.T @ A1)[:, None] + Y @ P.T @ A2)
    np.testing.assert_allclose(f(X, Y), exact, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(f.transposed()(Y, X), exact.T, rtol=1e-13, atol=1e-15)
    own, base = af.Additive(A1, A2, P, act), super(af.Additive, f).slope(X)
    np.testing.assert_allclose(own(X, Y), exact, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(f.slope(X), base, atol=1e-8)
    np.testing.assert_allclose(own.slope(X), base, atol=1e-8)
    assert not f.symmetric and af.Additive(A1, A1, P, name).symmetric


def test_a_given_derivative_is_used():
    f = af.Additive(A1, A2, P, np.sin, np.cos)
    np.testing.assert_allclose(f.slope(X), -np.cos(X @ P.T @ (A1 + A2))[:, None] * (A2 @ P), rtol=1e-13)


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_a_leaky_f_has_no_unit(unit):
    """It is homogeneous: a and epsilon in other units give the same weights, to rounding."""
    tokens = RNG.normal(size=(300, 3))
    for mask in (None, "causal", np.c_[np.arange(300), np.arange(300) * 7 % 300]):
        layer, other = (af.Attention(af.Additive(u * A1, u * A2, P), 0.5 * u, mask=mask) for u in (1.0, unit))
        np.testing.assert_allclose(other(tokens), layer(tokens), rtol=1e-12, atol=1e-13)


def test_a_graph_attention_layer_is_that_of_its_paper():
    """Velickovic et al. 2018, equation 3: softmax over the neighbours of LeakyReLU(a'[Wh_i | Wh_j]), epsilon = 1/2."""
    tokens = RNG.normal(size=(40, 3))
    edges = np.argwhere((RNG.random((40, 40)) < 0.2) | np.eye(40, dtype=bool))
    projected, expected = tokens @ P.T, np.zeros((40, 4))
    for i in range(40):
        keys = edges[edges[:, 0] == i, 1]
        e = np.array([np.concatenate([A1, A2]) @ np.concatenate([projected[i], projected[j]]) for j in keys])
        weights = np.exp(np.where(e > 0, e, 0.2 * e))
        expected[i] = weights / weights.sum() @ projected[keys]
    layer = af.Attention(af.Additive(A1, A2, P), 0.5, mask=edges)
    np.testing.assert_allclose(layer(tokens, projected), expected, rtol=1e-12)
    assert layer.time_step == layer.clock == 1


def test_without_a_graph_there_is_no_limit():
    f = af.Additive(A1, A2, P)
    assert af.Attention(f, 0.5).clock == 1
    for ask in (lambda: af.Attention(f, 0.5).time_step, lambda: f.metric(X)):
        with pytest.raises(ValueError, match="on a graph of near tokens there is one: give the layer its edges as mask"):
            ask()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((A1[1:], A2, P), "^a1 must have shape"),
        ((A1, A2[None], P), "^a2 must have shape"),
        ((A1, A2, P[0]), "^P must have shape"),
        ((A1, A2, P, "gelu"), "^activation must be one of 'elu', 'identity', 'leaky_relu', 'relu', 'tanh', got str 'gelu'"),
        ((A1, A2, P, "tanh", np.cos), "^derivative must be None for the activation 'tanh'"),
        ((A1, A2, P, np.sin, 3), "^derivative must be callable on arrays, or None, got"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        af.Additive(*arguments)


def test_an_activation_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="^activation must return shape"):
        af.Additive(A1, A2, P, lambda r: r.sum())(X, Y)
