"""Two temperatures: the order of what is left, and when a token set has something to win."""

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow.particles.extrapolation import halved, order
from attnflow.particles.responses import standard_errors
from attnflow.studies.prediction import order as order_of_study

F, P = af.SquaredDistance(af.Circle()), af.VonMises(1.0)
EPSILONS = np.array([0.16, 0.08, 0.04])


def start(x):
    return np.cos(x[..., 0])


def errors(rule, residual, run):
    found = []
    for k, epsilon in enumerate(EPSILONS):
        layer = af.Attention(F, epsilon, rule, residual)
        count = round(0.4 / layer.time_step)
        exact = af.limit(layer, P).solve(start, t=0.4)
        found.append(af.compare(run(layer, P, start, count), exact, P).error[-1])
    return found


@pytest.mark.parametrize(
    "rule, residual, plain, extrapolated", [("softmax", 1.0, 1, 2), ("sinkhorn", 0.5, 1, 2), ("sinkhorn", 1.0, 2, 4)]
)
def test_what_is_left_is_of_the_next_order(rule, residual, plain, extrapolated):
    for run, rate in ((af.propagate, plain), (af.extrapolate, extrapolated)):
        slope = np.polyfit(np.log(EPSILONS), np.log(errors(rule, residual, run)), 1)[0]
        assert slope == pytest.approx(rate, abs=0.25)


def decaying(tokens, epsilon=0.5, layers=4):
    """Standard normal tokens and their coordinate: (1 + eps)^-layers of infinitely many, e^(-eps layers) in the limit."""
    return af.Attention(af.SquaredDistance(af.Euclidean(1)), epsilon), tokens, tokens, layers


def test_tokens_win_where_bias_decides():
    tokens = af.Gaussian([0.0], [[1.0]]).sample(2000, rng=1)
    layer, *rest = decaying(tokens)
    run, plain = af.extrapolate(layer, *rest, rng=0), af.propagate(layer, *rest)
    exact = np.exp(-2.0) * tokens
    left, before = (np.linalg.norm(y - exact) / np.linalg.norm(exact) for y in (run.y[-1], plain.y[-1]))
    first_order = 2 * (1.5**-4 - 1.25**-8) / (2 * 1.25**-8 - 1.5**-4)
    assert run.stats["bias"] == pytest.approx(first_order, rel=0.1)
    assert run.stats["error_before"] == pytest.approx(before, rel=0.25)  # the next order in eps is a tenth of it
    assert left < run.stats["error_half"] < run.stats["error_before"]
    assert left < 2 * run.stats["noise"]
    np.testing.assert_allclose(run.t, plain.t)
    np.testing.assert_array_equal(run.y[0], plain.y[0])


def test_refused_with_the_numbers_where_noise_decides():
    tokens = P.sample(500, rng=0)
    with pytest.raises(
        ValueError, match=r"tokens must be more, or epsilon larger, .* noise of 0\.0\d+, .* alone has an error of"
    ):
        af.extrapolate(af.Attention(F, 0.05), tokens, start, 8, rng=0)


@pytest.mark.slow
def test_the_noise_factor_is_that_of_token_sets():
    layer = af.Attention(F, 0.16)
    at = np.linspace(0.5, 6.0, 12)[:, None]

    def both(seed):
        tokens = P.sample(800, rng=seed)
        tokens[: len(at)] = at
        coarse, fine = af.propagate(layer, tokens, start, 5).y[-1], af.propagate(halved(layer), tokens, start, 10).y[-1]
        return coarse[: len(at), 0], (2 * fine - coarse)[: len(at), 0]

    own, extrapolated = np.std([both(seed) for seed in range(150)], axis=0)
    tokens = P.sample(800, rng=999)
    runs = [(layer.bind(tokens), 5), (halved(layer).bind(tokens), 10)]
    errors, _ = standard_errors(runs, start(tokens)[:, None], np.array([[1, 0], [-1, 2]]), rng=np.random.default_rng(0))
    predicted = np.linalg.norm(errors[1]) / np.linalg.norm(errors[0])
    assert np.linalg.norm(extrapolated) / np.linalg.norm(own) == pytest.approx(predicted, rel=0.06)
    assert predicted == pytest.approx(1.31, abs=0.08)


@pytest.mark.parametrize(
    "f", [F, af.PowerDistance(af.Euclidean(2), 1.5), af.LogDistance(af.Euclidean(2)), af.Mahalanobis([[2.0]])], ids=str
)
def test_half_the_time_step_whatever_the_similarity(f):
    layer = af.Attention(f, 0.05, "sinkhorn", residual=0.7)
    half = halved(layer)
    assert half.time_step == pytest.approx(layer.time_step / 2, rel=1e-13)
    assert (half.residual, half.normalization) == (layer.residual, layer.normalization)


def test_the_order_that_is_removed():
    box, sphere = af.SquaredDistance(af.Box([(0.0, 1.0)])), af.SquaredDistance(af.Sphere(2))
    cases = [(F, "softmax", 1.0, 1), (F, "sinkhorn", 1.0, 2), (F, "sinkhorn", 0.5, 1), (sphere, "sinkhorn", 1.0, 1)]
    cases += [(box, "softmax", 1.0, 0.5), (box, "sinkhorn", 1.0, 1), (af.PowerDistance(af.Circle(), 1.0), "sinkhorn", 1.0, 1)]
    for f, rule, residual, expected in cases:
        points = f.space.probe_points()
        assert order(af.Attention(f, 0.05, rule, residual), points) == expected, (f, rule, residual)
    assert order(af.MultiHead([af.Attention(F, 0.05, "sinkhorn")] * 2), P.sample(10, rng=0)) == 1


def test_a_square_in_disguise_is_one_to_layers_and_studies():
    x, y = sympy.symbols("x0 y0")
    squares = [af.PowerDistance(af.Euclidean(1), 2.0), af.PseudoMetric((x - y) ** 2, 1), af.SquaredMap(lambda x: 3 * x + 1)]
    others = [af.PowerDistance(af.Euclidean(1), 1.5), af.PseudoMetric((x - y) ** 2 * (1 + 1e-3 * x**2 * y**2), 1)]
    density, points = af.Gaussian(0.0, 1.0), af.Gaussian(0.0, 1.0).sample(200, rng=0)
    for f, expected in [*((f, 2) for f in squares), *((f, 1) for f in others)]:
        assert order(af.Attention(f, 0.05, "sinkhorn"), points) == expected, f
        study = af.ConvergenceStudy(f, density, lambda x: x[..., 0], 0.1, [0.05], [100], normalization="sinkhorn")
        assert order_of_study(study) == expected, f


@pytest.mark.parametrize("power", [2.0**-665, 2.0**515])
def test_extrapolations_are_in_the_units_of_the_features(power):
    layer, tokens, values, layers = decaying(af.Gaussian([0.0], [[1.0]]).sample(2000, rng=1))
    usual, run = (af.extrapolate(layer, tokens, scale * values, layers, rng=0) for scale in (1.0, power))
    for name in ("bias", "noise", "noise_factor", "error_before", "error_half"):
        assert run.stats[name] == pytest.approx(usual.stats[name], rel=1e-10), name
    still = af.extrapolate(layer, tokens, 0 * values, layers, rng=0)
    assert still.stats["noise"] == 0.0 and not still.y.any()


@pytest.mark.parametrize(
    "layer, words",
    [
        (af.Attention(af.SquaredDistance(af.Box([(0.0, 7.0)])), 0.1), "space without walls"),
        (af.Attention(af.DotProduct([[-1.0]]), 0.1), "must have a limit equation"),
        (af.MultiHead([af.Attention(F, 0.1)] * 2, [1.0, 1.0]), "must have a limit equation"),
        (af.Attention(F, 0.1, af.TopK(5)), "must have a limit equation"),
    ],
)
def test_layers_without_a_first_order_are_refused(layer, words):
    with pytest.raises(ValueError, match=words):
        af.extrapolate(layer, P.sample(50, rng=0), start, 2)
