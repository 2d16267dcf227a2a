"""Layers as transformers have them: norms before, after and around, a gain, and a map after attention."""

import numpy as np
import pytest

import attnflow as af

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
V = np.array([[0.5, 0.3, 0.0], [-0.3, 1.0, 0.2], [0.1, 0.0, -0.5]])
GAIN = np.array([1.5, -0.7, 1.0])
W_IN, W_OUT = RNG.normal(size=(3, 7)), 0.5 * RNG.normal(size=(7, 3))
SPHERE = af.Attention(af.SquaredDistance(af.Sphere(2)), 0.3)


def mlp(x):
    return np.tanh(x @ W_IN) @ W_OUT


def layer(residual=0.7, epsilon=0.4):
    return af.Attention(af.DotProduct(), epsilon, residual=residual)


def softmax(x):
    S = np.exp(x @ x.T / (2 * 0.4))
    return S / S.sum(axis=1, keepdims=True)


def normal(x):
    return GAIN * x / np.linalg.norm(x, axis=1, keepdims=True)


def dense(norm, x):
    """One layer, residual 0.7, as the docstring of `evolve` has it."""
    if norm == "pre":
        x = x + 0.7 * softmax(normal(x)) @ normal(x) @ V.T
        return x + mlp(normal(x))
    if norm == "post":
        x = normal(x + 0.7 * softmax(x) @ x @ V.T)
        return normal(x + mlp(x))
    if norm == "peri":
        x = x + 0.7 * normal(softmax(normal(x)) @ normal(x) @ V.T)
        return x + normal(mlp(normal(x)))
    x = x + 0.7 * (softmax(x) @ x - x) @ V.T
    return x + mlp(x)


@pytest.mark.parametrize("norm", [None, "pre", "post", "peri"])
def test_layers_are_their_equations(norm):
    run = af.evolve(layer(), X, 3, V, norm=norm, gain=1.0 if norm is None else GAIN, map=mlp)
    x = X
    for k in range(3):
        x = dense(norm, x)
        np.testing.assert_allclose(run.y[k + 1], x, rtol=1e-11, atol=1e-12)
    heads = af.MultiHead([layer(1.0)] * 2, [0.25 * V.T, 0.75 * V.T], 0.7)
    if norm is not None:  # without a norm heads subtract x, not V x
        np.testing.assert_allclose(af.evolve(heads, X, 3, norm=norm, gain=GAIN, map=mlp).y[-1], x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("residual", [0.3, 1.0])
def test_post_norm_is_the_sphere_with_another_residual(residual):
    constrained = af.evolve(layer(residual / (1 + residual)), UNIT, 5, constrain="sphere")
    np.testing.assert_allclose(af.evolve(layer(residual), UNIT, 5, norm="post").y, constrained.y, atol=1e-13)


def test_post_norm_stays_on_its_ellipsoid():
    run = af.evolve(layer(), X, 4, V, norm="post", gain=GAIN, map=mlp)
    np.testing.assert_allclose(np.linalg.norm(run.y[1:] / GAIN, axis=-1), 1, atol=1e-14)


def test_equal_tokens_grow_by_one_step_a_layer_under_pre_norm():
    # A N(x) = N(x) where all tokens are the same: |x| <- |x| + a |N(x)|, linear in depth; peri-norm hides the size of V
    run = af.evolve(layer(0.5), np.tile([[0.3, 0.4, 0.0]], (5, 1)), 20, norm="pre", gain=2.0)
    np.testing.assert_allclose(np.linalg.norm(run.y, axis=-1).T, np.tile(0.5 + np.arange(21.0), (5, 1)), rtol=1e-13)
    large, small = (af.evolve(layer(), X, 4, s * V, norm="peri").y[-1] for s in (1e6, 1e-6))
    np.testing.assert_allclose(large, small, rtol=1e-10)


def test_a_pseudo_metric_on_the_sphere_sees_directions():
    run = af.evolve(SPHERE, 3 * X, 2, norm="pre")
    x = 3 * X
    for _ in range(2):
        x = x + SPHERE(x / np.linalg.norm(x, axis=1, keepdims=True))
    np.testing.assert_allclose(run.y[-1], x, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(af.evolve(SPHERE, UNIT, 3, norm="post").y, axis=-1), 1, atol=1e-14)


def test_a_map_on_the_sphere_is_normalised_again():
    y = af.evolve(layer(), UNIT, 1, constrain="sphere", map=mlp).y[1]
    x = af.evolve(layer(), UNIT, 1, constrain="sphere").y[1]
    x = x + mlp(x)
    np.testing.assert_allclose(y, x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-14)


def test_sizes_far_from_one_are_normalised_as_any_other():
    usual = af.evolve(layer(), X, 1, norm="pre").y[1] - X
    for scale in (1e-200, 1e200):
        tiny = af.evolve(af.MultiHead([layer(1.0)], [0.0]), scale * X, 1, norm="pre")
        np.testing.assert_array_equal(tiny.y[1], tiny.y[0])
    np.testing.assert_allclose(af.evolve(layer(), 1e-200 * X, 1, norm="pre").y[1], usual, rtol=1e-12)


@pytest.mark.parametrize(
    "norm, tokens, value_matrix, after",
    [
        ("pre", [[0.0, 0.0], [1.0, 0.0]], None, 0),
        ("post", [[1.0, 0.2], [1.0, 0.2]], -np.eye(2), 0),  # x - x
        ("pre", [[0.6, 0.8], [0.6, 0.8]], -np.eye(2), 1),  # is zero for the next layer
        ("peri", [[1.0, 0.1], [-1.0, -0.1]], None, 0),  # the mean of two opposite tokens
    ],
)
def test_zero_vectors_end_the_run(norm, tokens, value_matrix, after):
    run = af.evolve(af.Attention(af.DotProduct(), 1e20), tokens, 3, value_matrix, norm=norm)
    assert run.status == -1 and f"after {after} of 3" in run.message and "no direction" in run.message
    assert len(run.y) == after + 1 and np.isfinite(run.y).all()


def test_a_map_that_fails_later_keeps_the_layers_before():
    run = af.evolve(layer(), X, 400, norm="pre", map=lambda x: np.full_like(x, 1e307))
    assert run.status == -1 and 10 < run.layers[-1] < 25 and np.isfinite(run.y).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"norm": "layer"}, "norm must be one of 'peri', 'post', 'pre'"),
        ({"norm": 3}, "norm must be one of"),
        ({"norm": "pre", "constrain": "sphere"}, "norm must be None beside constrain"),
        ({"norm": "pre", "gain": [1.0, 2.0]}, r"gain must be a number or have shape \(3,\), got \(2,\)"),
        ({"norm": "pre", "gain": np.nan}, "gain must be finite"),
        ({"gain": 2.0}, "gain must be 1 without a norm"),
        ({"map": 3}, "map must be callable on tokens"),
        ({"map": lambda x: x[:, :2]}, r"map\(tokens\) must have shape \(12, 3\)"),
        ({"map": lambda x: x / 0 * 0}, r"map\(tokens\) must be finite"),
        ({"layer": SPHERE, "norm": "pre", "gain": 2.0}, "gain must be 1 for a pseudo-metric on the sphere"),
        ({"layer": SPHERE, "tokens": 2 * UNIT, "norm": "post"}, "tokens must"),
        ({"layer": SPHERE}, "constrain must be 'sphere'"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_bad_norms_are_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        af.evolve(**{"layer": layer(), "tokens": UNIT, "layers": 1} | arguments)
