"""Several heads as one layer: the dense sum, its limit with the constant, and what it refuses."""

import sys
import types

import numpy as np
import pytest
from scipy.linalg import circulant, expm

import attnflow as af

CIRCLE, P = af.Circle(), af.VonMises(1.0)
F = af.SquaredDistance(CIRCLE)
LAYERS = [af.Attention(F, 0.05), af.Attention(F, 0.1, "sinkhorn"), af.Attention(F, 0.2, af.DensityCorrected(0.5))]
TOKENS = P.sample(150, rng=0)
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(150, 4))
POINTS = RNG.normal(size=(30, 3))
UNIT = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
TWO = (np.array([[0.6, 0.3], [-0.1, 0.5]]), np.array([[0.4, -0.3], [0.1, 0.5]]))  # of sum one, and do not commute


def mixed(kind):
    """Mixing for three heads and what it is multiplied out."""
    W = RNG.normal(size=(3, 4, 4))
    if kind == "numbers":
        return [0.2, 0.5, -0.7], [w * np.eye(4) for w in (0.2, 0.5, -0.7)]
    if kind == "narrow":
        return list(W[:, :, :2]), list(W[:, :, :2])
    if kind == "factors":
        return [(w[:, :1], w[:1]) for w in W], [np.outer(w[:, 0], w[0]) for w in W]
    if kind == "slices":
        return [(slice(k, k + 2), w[:2]) for k, w in enumerate(W)], [np.eye(4)[:, k : k + 2] @ w[:2] for k, w in enumerate(W)]
    return [0.3, *W[1:]], [0.3 * np.eye(4), *W[1:]]


@pytest.mark.parametrize("kind", ["numbers", "matrices beside a number", "narrow", "factors", "slices"])
def test_heads_are_the_dense_sum(kind):
    mixing, matrices = mixed(kind)
    heads = af.MultiHead(LAYERS, mixing)
    expected = sum(layer.weights(TOKENS) @ VALUES @ W for layer, W in zip(LAYERS, matrices))
    np.testing.assert_allclose(heads(TOKENS, VALUES), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    np.testing.assert_allclose(heads(TOKENS, VALUES, queries=TOKENS[7:9]), expected[7:9], rtol=0, atol=1e-11)
    for mine, W in zip(heads.mixing, matrices):
        np.testing.assert_allclose(mine * np.eye(4) if mine.ndim == 0 else mine, W, atol=1e-14)


def test_residual_and_the_mean_by_default():
    each = np.mean([layer(TOKENS, VALUES) for layer in LAYERS], axis=0)
    np.testing.assert_allclose(af.MultiHead(LAYERS)(TOKENS, VALUES), each, atol=1e-14)
    heads = af.MultiHead(LAYERS, residual=0.25)
    np.testing.assert_allclose(heads(TOKENS, VALUES), 0.75 * VALUES + 0.25 * each, atol=1e-14)
    assert heads.time_step == heads.clock == 0.25 * 0.025
    counted = af.Attention(
        af.DotProduct([[1.0, 0.9], [-0.9, 0.8]]), 1.0, af.TopK(3)
    )  # no limit of its own, layers are its time
    assert af.MultiHead([counted], residual=0.25).clock == 0.25


@pytest.mark.parametrize(
    "mixing, columns",
    [
        ((np.ones((8, 2)), np.ones((2, 8))), 2),
        (np.ones((8, 3)), 3),
        (np.ones((3, 8)), 3),
        ((slice(1, 6, 3), np.ones((2, 8))), 2),
    ],
    ids=["factors", "narrower after", "narrower before", "slice"],
)
def test_attention_sums_the_fewest_columns(mixing, columns, monkeypatch):
    summed, real = [], af.attention.BoundLayer.attend
    monkeypatch.setattr(
        af.attention.BoundLayer, "attend", lambda self, v, q=None: (summed.append(v.shape[1]), real(self, v, q))[1]
    )
    heads = af.MultiHead([LAYERS[0]], [mixing])
    heads(TOKENS, np.ones((150, heads.columns[0])))
    assert summed == [columns]


def test_one_head_with_a_matrix_is_a_layer_with_a_value_matrix():
    V = np.array([[0.5, 0.3, 0.0], [-0.3, 1.0, 0.2], [0.1, 0.0, -0.5]])
    layer = af.Attention(af.DotProduct(), 0.25)
    flow = {"constrain": "sphere", "t": [0.5, 2.0]}
    run, known = (
        af.evolve_continuous(af.MultiHead([layer], [V.T]), UNIT, **flow),
        af.evolve_continuous(layer, UNIT, value_matrix=V, **flow),
    )
    np.testing.assert_allclose(run.y, known.y, atol=1e-7)
    plain = af.evolve(layer, UNIT, 3, value_matrix=V, norm="pre").y
    np.testing.assert_allclose(af.evolve(af.MultiHead([layer], [V.T]), UNIT, 3, norm="pre").y, plain, atol=1e-13)


@pytest.mark.parametrize("residual", [1.0, 0.5])
def test_tokens_that_move_follow_their_heads(residual):
    layers = [
        af.Attention(af.SquaredDistance(af.Euclidean(3)), 0.3),
        af.Attention(af.DotProduct(np.diag([1.0, 2.0, 3.0])), 0.5),
    ]
    heads = af.MultiHead(layers, list(0.3 * RNG.normal(size=(2, 3, 3))), residual=residual)
    run = af.evolve(heads, POINTS, 2)
    np.testing.assert_allclose(run.y[1], heads(POINTS), atol=1e-14)
    np.testing.assert_allclose(run.y[2], heads(heads(POINTS)), atol=1e-14)
    on_sphere = heads(UNIT)
    on_sphere /= np.linalg.norm(on_sphere, axis=1, keepdims=True)
    np.testing.assert_allclose(af.evolve(heads, UNIT, 1, constrain="sphere").y[1], on_sphere, atol=1e-13)
    assert run.stats["engine"] and len(run.stats["heads"]) == 2


def test_small_steps_of_heads_are_their_flow():
    layers = [af.Attention(af.DotProduct(), epsilon) for epsilon in (0.25, 0.5)]
    mixing = [0.5 * np.eye(3), [[0.1, 0.6, 0.0], [-0.6, 0.1, 0.0], [0.0, 0.0, 0.3]]]
    for constrain in (None, "sphere"):
        flow = af.evolve_continuous(af.MultiHead(layers, mixing), UNIT, 1.0, constrain=constrain).y[-1]
        errors = [
            np.abs(af.evolve(af.MultiHead(layers, mixing, 1 / steps), UNIT, steps, constrain=constrain).y[-1] - flow).max()
            for steps in (20, 40, 80)
        ]
        assert np.polyfit(np.log([20, 40, 80]), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.1)


def start(x):
    return np.concatenate([np.cos(x), np.sin(2 * x)], axis=-1)


def heads_of_time_step(tau, residual):
    """Two temperatures, two normalisations, two matrices."""
    epsilon = 2 * tau / residual
    return af.MultiHead([af.Attention(F, epsilon), af.Attention(F, 2 * epsilon, "sinkhorn")], TWO, residual)


def first_order_error(t, residual, size=65):
    """error / tau: the integral of e^((t - u) G) (sum_i 2 r_i^2 B_i W_i / a - G^2 / 2) e^(u G) H, by Fourier matrices."""
    x, k = 2 * np.pi * np.arange(size) / size, np.arange(1, size)
    d = circulant(np.concatenate([[0.0], -np.where(k % 2, -1.0, 1.0) / (2 * np.sin(-np.pi * k / size))]))
    p, square, drift = np.exp(np.cos(x)), d @ d @ d @ d, np.diag(-np.sin(x)) @ d
    softmax, sinkhorn = d @ d + 2 * drift, d @ d + drift
    B = (square * p - np.diag(square @ p)) / (4 * p[:, None]) - ((d @ d @ p) / (2 * p))[:, None] * softmax
    G = np.kron(softmax, TWO[0].T) + 2 * np.kron(sinkhorn, TWO[1].T)
    R = (2 * np.kron(B, TWO[0].T) + 8 * np.kron(sinkhorn @ sinkhorn / 4, TWO[1].T)) / residual - G @ G / 2
    both = expm(t * np.block([[G, R], [np.zeros_like(G), G]]))
    return x[:, None], (both[: len(G), len(G) :] @ start(x[:, None]).ravel()).reshape(-1, 2)


@pytest.mark.parametrize("residual", [1.0, 0.5])
def test_layers_converge_to_their_limit_at_first_order_with_the_predicted_constant(residual):
    t, counts = 0.5, np.array([50, 100, 200])
    x, predicted = first_order_error(t, residual)
    equation = af.limit(heads_of_time_step(t / counts[0], residual), P).solve(start, t, rtol=1e-7).at(x)
    gaps = []
    for count in counts:
        heads = heads_of_time_step(t / count, residual)
        assert heads.time_step * count == pytest.approx(t)
        run = af.propagate(heads, P, start, int(count), save_every=int(count))
        gaps.append(run.at(x) - equation)
    assert np.polyfit(np.log(counts), np.log([np.linalg.norm(gap) for gap in gaps]), 1)[0] == pytest.approx(-1, abs=0.03)
    constant = 2 * gaps[2] * counts[2] / t - gaps[1] * counts[1] / t  # Richardson
    assert np.linalg.norm(constant - predicted) < 0.01 * np.linalg.norm(predicted)


def test_heads_that_read_slices_are_one_equation_each():
    mixing = [(slice(0, 1), np.eye(2)[:1]), (slice(1, 2), np.eye(2)[1:])]
    equation = af.limit(af.MultiHead(LAYERS[:2], mixing), P).solve(start, 0.3, rtol=1e-7)
    x = np.linspace(0, 6, 9)[:, None]
    for k, (layer, ratio) in enumerate(zip(LAYERS, (1.0, 2.0))):
        alone = af.limit(layer, P).solve(start, 0.3 * ratio, rtol=1e-7).at(x)[:, k]
        np.testing.assert_allclose(equation.at(x)[:, k], alone, atol=2e-6)


def test_one_common_set_of_nodes_is_fine_enough_for_each_head():
    heads = af.MultiHead([LAYERS[2], LAYERS[0]])
    run = af.propagate(heads, P, np.cos, 3)
    alone = af.propagate(LAYERS[0], P, np.cos, 3)
    assert run.grid.shape == alone.grid.shape and run.stats["quadrature_error"] < 1e-10
    with pytest.raises(ValueError, match="grid must have at least 2 nodes per kernel width"):
        af.propagate(heads, P, np.cos, 3, grid=50)


def test_a_run_of_heads_is_saved_compared_and_interrupted(tmp_path, monkeypatch):
    heads = heads_of_time_step(0.01, 1.0)
    run = af.propagate(heads, TOKENS, start, 6, save_every=2)
    run.save(tmp_path / "run.npz")
    assert af.load(tmp_path / "run.npz").stats["heads"][1]["sinkhorn_sweeps"] > 1
    np.testing.assert_allclose(af.compare(run, af.load(tmp_path / "run.npz")).error, 0)
    calls, real = [], af.attention.BoundHeads.step

    def step(self, values):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(af.attention.BoundHeads, "step", step)
    broken = af.propagate(heads, TOKENS, start, 6)
    assert broken.status == 1 and len(broken.y) == 4
    np.testing.assert_array_equal(broken.y[2], run.y[1])


def test_engines_agree_on_heads():
    table = af.parity(af.MultiHead(LAYERS, mixed("factors")[0]), TOKENS, VALUES, ["reference", "numba", "cells"])
    assert all(row.ran and row.difference < 1e-11 for row in table.rows)


def test_arrays_of_the_gpu_pass_through_the_host(monkeypatch):
    class Array:
        def __init__(self, held):
            self.held = held

    Array.__module__ = "cupy"
    library = types.SimpleNamespace(asarray=Array, asnumpy=lambda array: getattr(array, "held", array))
    monkeypatch.setitem(sys.modules, "cupy", library)
    for layer in (LAYERS[0], af.MultiHead(LAYERS)):
        result = layer(Array(TOKENS), queries=Array(TOKENS[:3]))
        assert isinstance(result, Array)
        np.testing.assert_array_equal(result.held, layer(TOKENS, queries=TOKENS[:3]))


def test_isolated_tokens_are_reported_of_the_head_that_isolates_them():
    heads = af.MultiHead([LAYERS[0], af.Attention(F, 1e-5)])
    with pytest.warns(af.checks.IsolatedTokensWarning, match="3 of 3"):
        run = af.propagate(heads, [[0.0], [1.0], [2.0]], np.cos, 1)
    assert run.stats["isolated"] == 3


ONE_SIDED = af.Attention(af.DotProduct([[1.0, 0.5], [0.0, 1.0]]), 0.1)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.MultiHead([]), "layers must be a sequence of Attention layers, got none"),
        (lambda: af.MultiHead([F]), "layers must be a sequence of Attention layers, got SquaredDistance"),
        (lambda: af.MultiHead([af.Attention(F, 0.1, residual=0.5)]), "layers must have residual = 1.* got 0.5 at index 0"),
        (lambda: af.MultiHead([LAYERS[0], af.Attention(af.SquaredDistance(af.Euclidean(1)), 1)]), "layers must be on tokens of one space"),
        (lambda: af.MultiHead([ONE_SIDED, af.Attention(af.SquaredDistance(af.Euclidean(3)), 1)]), "layers must be .* columns"),
        (lambda: af.MultiHead(LAYERS, [1.0]), "mixing must have one entry for each of 3 layers, got 1"),
        (lambda: af.MultiHead(LAYERS[:2], [np.eye(2), np.eye(3)]), r"mixing must be of one shape .*\(2, 2\) and \(3, 3\)"),
        (lambda: af.MultiHead(LAYERS[:1], [np.ones(2)]), "mixing must be numbers, matrices"),
        (lambda: af.MultiHead(LAYERS[:1], [(np.ones((2, 1)), np.ones((2, 2)))]), "mixing must have factors of shapes"),
        (lambda: af.MultiHead(LAYERS[:1], [(slice(0, 3), np.ones((2, 4)))]), "mixing must have a slice"),
        (lambda: af.MultiHead(LAYERS[:2], [1.0, np.ones((2, 3))]), "mixing must be square matrices beside numbers"),
        (lambda: af.MultiHead(LAYERS[:1], [np.ones((2, 3))], 0.5), "mixing must be square matrices for residual = 0.5"),
        (lambda: af.MultiHead(LAYERS[:1], [np.full((2, 2), np.nan)]), "mixing must be finite"),
        (lambda: af.propagate(af.MultiHead(LAYERS[:1], [np.ones((1, 3))]), TOKENS, TOKENS, 2), "mixing must be square matrices for more"),
        (lambda: af.propagate(heads_of_time_step(0.1, 1.0), TOKENS, TOKENS, 2), "values must have the 2 columns that mixing takes, got 1"),
        (lambda: heads_of_time_step(0.1, 1.0)(TOKENS), "values must have the 2 columns"),
        (lambda: heads_of_time_step(0.1, 0.5)(TOKENS, start(TOKENS), TOKENS), "queries must be None for residual = 0.5"),
        (lambda: af.evolve(af.MultiHead([ONE_SIDED]), UNIT[:, :2], 1, np.eye(2)), "value_matrix must be None for MultiHead, whose mixing"),
        (lambda: af.evolve(af.MultiHead([ONE_SIDED], [np.eye(3)]), UNIT[:, :2], 1), "tokens must have the 3 columns that mixing"),
        (lambda: af.limit(af.MultiHead(LAYERS[:2], [0.5, 0.4]), P), r"mixing must add up to one .* sum_i W_i = \[\[0.9\]\].*at once"),
        (
            lambda: af.limit(af.MultiHead([af.Attention(af.DotProduct(np.eye(2)), 0.1), ONE_SIDED]), af.Gaussian([0, 0], np.eye(2))),
            r"layers\[0\] must have a limit of its own, got none: x'Wx must be constant",
        ),
    ],
)  # fmt: skip
def test_bad_heads_are_refused_by_name(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
