"""Gradients of layers: by differences, by automatic differentiation, across engines, and what is refused."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

import attnflow as af
from attnflow.attention import Normalization, Softmax, gradients
from attnflow.checks import AccuracyWarning, IsolatedTokensWarning

RNG = np.random.default_rng(8)
SIZE, EPSILON = 60, 0.4
TOKENS, VALUES, TARGET = RNG.normal(size=(SIZE, 2)), RNG.normal(size=(SIZE, 3)), RNG.normal(size=(SIZE, 3))
G, W, B = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.4], [-0.3, 0.5]]), RNG.normal(size=(3, 2))
W_Q, W_K = RNG.normal(size=(2, 3, 2))
BIASED = np.random.default_rng(1).normal(size=(3, 5))  # W_Q, W_K and a bias side by side
SEEN = RNG.random((SIZE, SIZE)) < 0.1
SEEN[:, 0], SEEN[:, 7] = True, False  # a token that everybody sees, and one that nobody does


def learned(B, jacobian=True):
    """x -> (x, tanh B x), with its derivatives."""

    def slopes(x):
        return 1 - np.tanh(x @ B.T) ** 2

    def derivative(x):
        own = np.broadcast_to(np.eye(2), (*x.shape[:-1], 2, 2))
        return np.concatenate([own, slopes(x)[..., None] * B], axis=-2)

    return af.SquaredMap(
        lambda x: np.concatenate([x, np.tanh(x @ B.T)], axis=-1),
        derivative if jacobian else None,
        vjp=lambda x, cotangent: (slopes(x) * cotangent[:, 2:]).T @ x,
    )


# f from its parameters, and these; None where it has none
KINDS = {
    "flat": (lambda _: af.SquaredDistance(af.Euclidean(2)), None),
    "mahalanobis": (af.Mahalanobis, G),
    "map": (learned, B),
    "map by differences": (lambda B: learned(B, jacobian=False), B),
    "cosine": (lambda _: af.Cosine(), None),
    "dot": (lambda _: af.DotProduct(), None),
    "W": (af.DotProduct, W),
    "factors": (lambda both: af.DotProduct(*both), np.stack([W_Q, W_K])),
    "factors and bias": (lambda all: af.DotProduct(all[:, :2], all[:, 2:4], all[:, 4]), BIASED),
    "W and bias": (lambda both: af.DotProduct(both[:2], bias=both[2]), np.vstack([W, W[0]])),
}
RULES = ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn", af.Sinkhorn(potentials=2)]


def layer_of(f, epsilon=EPSILON, rule="softmax", **options):
    return af.Attention(f, epsilon, rule, **{"backend": "numba", "rtol": 1e-14, **options})


def loss(layer, tokens, values, target=TARGET):
    return np.sum((layer(tokens, values) - target) ** 2) / 2


def slope(function, step=1e-3):
    """Of a function at 0, by differences of sixth order."""
    return sum(c * (function(k * step) - function(-k * step)) for k, c in ((1, 45), (2, -9), (3, 1))) / (60 * step)


def check(gradient, of_direction, symmetric=False):
    """The gradient along two directions against the slope of the loss along them, to 1e-9."""
    for _ in range(2):
        direction = RNG.normal(size=np.shape(gradient))
        direction = direction + direction.T if symmetric else direction
        direction /= np.linalg.norm(direction)
        expected = slope(lambda h: of_direction(h * direction))
        assert np.vdot(gradient, direction) == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.linalg.norm(gradient))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_slopes_of_the_loss(kind, rule):
    of_parameters, parameters = KINDS[kind]
    f = of_parameters(parameters)
    if rule == "sinkhorn" and not f.symmetric:
        return
    options = {"rule": rule, "residual": 0.7}
    layer = layer_of(f, **options)
    found = layer.vjp(TOKENS, VALUES, layer(TOKENS, VALUES) - TARGET)
    check(found.tokens, lambda d: loss(layer, TOKENS + d, VALUES))
    check(found.values, lambda d: loss(layer, TOKENS, VALUES + d))
    check(found.epsilon, lambda d: loss(layer_of(f, EPSILON + d, **options), TOKENS, VALUES))
    if parameters is None:
        assert found.parameters is None
    else:
        of_f = found.parameters
        if isinstance(of_f, tuple):
            of_f = {"factors": np.stack, "factors and bias": np.column_stack, "W and bias": np.vstack}[kind](of_f)
        check(of_f, lambda d: loss(layer_of(of_parameters(parameters + d), **options), TOKENS, VALUES), kind == "mahalanobis")


@pytest.mark.parametrize("rule", ["softmax", "column", af.DensityCorrected(0.5)], ids=str)
@pytest.mark.parametrize(
    "mask", ["causal", RNG.integers(0, 4, SIZE), sparse.csr_array(SEEN)], ids=["causal", "labels", "one way"]
)
@pytest.mark.parametrize("kind", ["mahalanobis", "W"])
@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
def test_masks_have_gradients_too(kind, mask, rule):
    of_parameters, parameters = KINDS[kind]
    options = {"rule": rule, "mask": mask, "backend": "auto"}
    layer = layer_of(of_parameters(parameters), **options)
    found = layer.vjp(TOKENS, VALUES, layer(TOKENS, VALUES) - TARGET)
    check(found.tokens, lambda d: loss(layer, TOKENS + d, VALUES))
    check(found.values, lambda d: loss(layer, TOKENS, VALUES + d))
    symmetric = kind == "mahalanobis"
    check(found.parameters, lambda d: loss(layer_of(of_parameters(parameters + d), **options), TOKENS, VALUES), symmetric)


@pytest.mark.optional
@pytest.mark.parametrize("kind", ["flat", "W"])
def test_gradients_are_those_of_automatic_differentiation(kind):
    torch = pytest.importorskip("torch")
    of_parameters, parameters = KINDS[kind]
    x, v, epsilon = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (TOKENS, VALUES, EPSILON))
    f = -x @ torch.tensor(W) @ x.T if kind == "W" else ((x[:, None] - x) ** 2).sum(dim=-1)
    ((torch.softmax(-f / (2 * epsilon), dim=1) @ v - torch.tensor(TARGET)) ** 2 / 2).sum().backward()
    layer = layer_of(of_parameters(parameters))
    found = layer.vjp(TOKENS, VALUES, layer(TOKENS, VALUES) - TARGET)
    for ours, theirs in ((found.tokens, x), (found.values, v), (found.epsilon, epsilon)):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-12 * np.abs(ours).max())


@pytest.mark.parametrize("backend", ["reference", "cells", pytest.param("nufft", marks=pytest.mark.optional)])
def test_engines_agree(backend):
    if backend == "nufft":
        pytest.importorskip("finufft")
    rng = np.random.default_rng(2)
    tokens = rng.normal(size=(1500, 2))
    values, cotangent = np.sin(tokens), rng.normal(size=(1500, 2))
    found, expected = (
        layer_of(af.Mahalanobis(G), 0.1, rtol=1e-12, backend=name).vjp(tokens, values, cotangent) for name in (backend, "numba")
    )
    for name in ("tokens", "values", "epsilon", "parameters"):
        ours, known = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(ours, known, atol=1e-9 * np.abs(known).max(), err_msg=name)


def test_tokens_that_see_nobody_else_have_no_gradient():
    layer = layer_of(af.Mahalanobis(G), 1e-6, af.Sinkhorn(potentials=2))  # S'S is the identity
    with pytest.warns(IsolatedTokensWarning, match="60 of 60"):
        found = layer.vjp(TOKENS, VALUES, TARGET)
    assert abs(found.tokens).max() < 1e-6  # of rounding over epsilon
    np.testing.assert_allclose(found.values, TARGET, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
def test_logits_whose_rounding_changes_the_weights_are_reported():
    layer = layer_of(af.DotProduct(), 0.5)
    with pytest.warns(AccuracyWarning, match="^epsilon leaves logits up to .* add up to .* in 60 rows"):
        layer.vjp(1e8 * TOKENS, VALUES, TARGET)


def test_tokens_that_are_their_own_values_change_both_ways():
    layer, target = layer_of(af.Mahalanobis(G), rule="column", residual=0.6), TARGET[:, :2]
    found = layer.vjp(TOKENS, None, layer(TOKENS) - target)
    check(found.tokens, lambda d: loss(layer, TOKENS + d, None, target))
    apart = layer.vjp(TOKENS, TOKENS, layer(TOKENS) - target)
    np.testing.assert_array_equal(found.tokens, apart.tokens + apart.values)


def test_layers_one_after_the_other():
    """Tokens fixed, features through three layers: the cotangent of each is what the next one found of its values."""
    layer = layer_of(af.Mahalanobis(G), rule="sinkhorn")

    def run(layer, values):
        states = [values]
        for _ in range(3):
            states.append(layer(TOKENS, states[-1]))
        return states

    states = run(layer, VALUES)
    cotangent, of_G = states[-1] - TARGET, np.zeros((2, 2))
    for values in states[-2::-1]:
        found = layer.vjp(TOKENS, values, cotangent)
        cotangent, of_G = found.values, of_G + found.parameters
    check(of_G, lambda d: np.sum((run(layer_of(af.Mahalanobis(G + d), rule="sinkhorn"), VALUES)[-1] - TARGET) ** 2) / 2, True)


def test_an_offset_of_tokens_and_values_costs_no_digits():
    grain, far = 2.0**20, 2.0**20  # both sums are exact
    tokens, values = np.round(TOKENS * grain) / grain, np.round(VALUES * grain) / grain
    layer = layer_of(af.Mahalanobis(4 * np.eye(2)), rule="column")
    here, there = layer.vjp(tokens, values, TARGET), layer.vjp(tokens + far, values + far, TARGET)
    np.testing.assert_allclose(there.tokens, here.tokens, atol=1e-12 * np.abs(here.tokens).max())
    np.testing.assert_allclose(there.epsilon, here.epsilon, rtol=1e-11)
    np.testing.assert_allclose(there.parameters, here.parameters, rtol=1e-11)


def test_wide_values_are_summed_some_columns_at_a_time(monkeypatch):
    layer = layer_of(af.Mahalanobis(G), rule=af.DensityCorrected(1.0))
    whole = layer.vjp(TOKENS, VALUES, TARGET)
    monkeypatch.setattr(gradients, "_NUMBERS", 1)
    one_by_one = layer.vjp(TOKENS, VALUES, TARGET)
    np.testing.assert_allclose(one_by_one.tokens, whole.tokens, atol=1e-13)


@pytest.mark.slow
@pytest.mark.optional
def test_a_hundred_thousand_tokens_take_memory_of_their_number():
    pytest.importorskip("finufft")  # else minutes
    rng = np.random.default_rng(4)
    tokens, target = rng.normal(size=(10**5, 2)), rng.normal(size=(10**5, 2))
    values = np.sin(tokens)
    layer = af.Attention(af.Mahalanobis(G), 0.2)
    tracemalloc.start()
    found = layer.vjp(tokens, values, layer(tokens, values) - target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**30  # N x N numbers would be 80 times as much
    expected = slope(lambda h: loss(af.Attention(af.Mahalanobis(G), 0.2 + h), tokens, values, target))
    assert found.epsilon == pytest.approx(expected, rel=1e-8)


class Plain(Normalization):
    def key_bias(self, log_sum, size, tol):
        return np.zeros(size), {}


@pytest.mark.parametrize(
    "f, rule, words",
    [
        (af.SquaredDistance(af.Torus([1.0, 1.0])), "softmax", r"^f must be a squared distance .* got SquaredDistance\(Torus"),
        (af.SquaredDistance(af.Sphere(1)), "softmax", r"^f must be a squared distance .* got SquaredDistance\(Sphere"),
        (af.PowerDistance(af.Euclidean(2), 1.5), "softmax", "^f must be a squared distance .* got PowerDistance"),
        (af.Additive([1.0], [2.0], [[1.0, 0.0]]), "softmax", "^f must be a squared distance .* got Additive"),
        (af.Mahalanobis(G), af.TopK(5), "^normalization must have `key_bias_vjp` for a gradient, got 'topk'"),
        (af.Mahalanobis(G), Plain(), "^normalization must have `key_bias_vjp` for a gradient, got Plain"),
    ],
)
def test_a_gradient_that_is_not_known_is_refused_by_name(f, rule, words):
    with pytest.raises(NotImplementedError, match=words):
        af.Attention(f, 0.1, rule).vjp(TOKENS, VALUES, TARGET)


def test_a_rule_of_your_own_may_have_one():
    class Own(Plain):
        key_bias_vjp = Softmax.key_bias_vjp

    ours, known = (layer_of(af.Mahalanobis(G), rule=rule).vjp(TOKENS, VALUES, TARGET) for rule in (Own(), "softmax"))
    np.testing.assert_array_equal(ours.tokens, known.tokens)


def test_bad_arguments_are_named():
    layer = layer_of(af.Mahalanobis(G))
    for values, cotangent, words in (
        (VALUES[1:], TARGET, r"^values must have shape \(60,\) or \(60, c\)"),
        (VALUES, TARGET[1:], r"^cotangent must have shape \(60,\) or \(60, c\)"),
        (VALUES, TARGET[:, :2], r"^cotangent must have the shape of the layer's output, \(60, 3\), got \(60, 2\)"),
        (VALUES, np.where(TARGET > 2, np.nan, TARGET), "^cotangent must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            layer.vjp(TOKENS, values, cotangent)
    with pytest.raises(ValueError, match="^dtype must be 'float64' for a gradient"):
        af.Attention(af.Mahalanobis(G), 0.1, dtype="float32").vjp(TOKENS, VALUES, TARGET)
    short = af.SquaredMap(lambda x: x, lambda x: np.broadcast_to(np.eye(2), (min(len(x), 70), 2, 2)))
    with pytest.raises(ValueError, match=r"^jacobian\(points\) must have shape \(120, any, 2\), got \(70, 2, 2\)"):
        layer_of(short).vjp(*(np.vstack([part, part + 1]) for part in (TOKENS, VALUES, TARGET)))
    with pytest.raises(TypeError, match="^vjp must be callable"):
        af.SquaredMap(lambda x: x, vjp=3)
