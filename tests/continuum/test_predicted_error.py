"""The predicted error: what it is made of, that runs meet it, and where it says that it knows little."""

import numpy as np
import pytest

import attnflow as af
from attnflow.continuum.infinite import infinite_layers
from attnflow.norms import norm
from attnflow.studies.cells import run_cell
from attnflow.studies.design import Cell

F, P = af.SquaredDistance(af.Circle()), af.VonMises(1.0)
LAYER = af.Attention(F, 0.05)


def cos(x):
    return np.cos(x[..., 0])


def measured(layer, layers, n_tokens, sets):
    """Root mean square of what compare prints."""
    equation = af.limit(layer, P).solve(cos, layers * layer.time_step)
    runs = (af.propagate(layer, P.sample(n_tokens, rng=seed), cos, layers, save_every=layers) for seed in range(sets))
    return float(np.sqrt(np.mean([af.compare(run, equation).error[-1] ** 2 for run in runs])))


@pytest.mark.parametrize(
    "normalization, a, layers", [("softmax", 1.0, 10), pytest.param("sinkhorn", 0.3, 30, marks=pytest.mark.slow)]
)
def test_runs_meet_it(normalization, a, layers):
    layer = af.Attention(F, 0.1, normalization, residual=a)
    predicted = af.predicted_error(layer, P, cos, layers * layer.time_step, 200)
    assert measured(layer, layers, 200, 200) / predicted.relative == pytest.approx(1, abs=0.06)  # two standard errors


def test_it_is_made_of_its_parts():
    error, t = af.predicted_error(LAYER, P, cos, 0.52, 500), 0.52
    grid = P.grid(128)
    weights = P.pdf(grid.points) * grid.weights
    scale = norm(weights, af.limit(LAYER, P).solve(cos, t).at(grid.points))
    shares = [norm(weights, part(grid.points)) / scale for part in (error.bias, error.noise, error.mean)]
    assert shares == pytest.approx([error.bias_share, error.noise_share, error.mean_share], rel=1e-5)
    whole = norm(weights, error.bias(grid.points) + error.mean(grid.points)) / scale
    assert np.hypot(whole, error.noise_share) == pytest.approx(error.relative, rel=1e-5)


def test_infinitely_many_tokens_have_the_bias_of_a_study():
    study = af.ConvergenceStudy(F, P, cos, 0.52, [0.05], [np.inf])
    error = af.predicted_error(LAYER, P, cos, 0.52)
    assert error.relative == error.bias_share == pytest.approx(run_cell(study, Cell(0.05, np.inf, 0))["error"], rel=1e-6)
    points = np.array([[0.9], [2.0]])
    assert not error.noise(points).any() and not error.mean(points).any() and error.n_eff == np.inf
    assert error.regime == "leading order"
    assert error.bias(points) == pytest.approx(af.predicted_bias(LAYER, P, cos, 0.52)(points), rel=0.1)


def test_noise_tends_to_the_leading_order_and_the_mean_falls_as_one_over_n():
    few, many = (af.predicted_error(LAYER, P, cos, 0.5, n) for n in (10**4, 10**7))
    point = np.array([[0.9]])
    assert many.noise(point) == pytest.approx(af.predicted_noise(LAYER, P, cos, 0.5, 10**7)(point), rel=1e-4)
    assert few.mean(point) == pytest.approx(1000 * many.mean(point), rel=1e-9)


def test_regimes_follow_the_tokens_that_a_query_averages_over():
    found = [af.predicted_error(LAYER, P, cos, 0.5, n) for n in (100, 1000, 10**6)]
    assert [error.regime for error in found] == ["outside", "next order", "leading order"]
    # N p (4 pi eps)^(1/2) at theta = pi
    expected = 1000 * np.exp(-1) / (2 * np.pi * np.i0(1.0)) * np.sqrt(4 * np.pi * 0.05)
    assert found[1].n_eff == pytest.approx(expected, rel=0.01)
    assert repr(found[1]).endswith(f"N_eff >= {expected:.3g}, next order)")


def test_a_few_tokens_far_out_on_a_line_spoil_no_regime():
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1)
    errors = [af.predicted_error(layer, af.Gaussian([0.0], [[1.0]]), lambda x: x[..., 0], 0.2, n) for n in (100, 10**6)]
    assert [error.regime for error in errors] == ["outside", "leading order"]
    assert errors[1].n_eff < 10


def test_tokens_count_in_the_metric_of_f():
    stretched = af.SquaredMap(lambda x: 3 * np.stack([np.cos(x[..., 0]), np.sin(x[..., 0])], axis=-1))
    errors = [
        af.predicted_error(af.Attention(f, eps), P, cos, t, 1000) for f, eps, t in ((F, 0.04, 0.2), (stretched, 0.36, 1.8))
    ]
    assert errors[0].n_eff == pytest.approx(errors[1].n_eff, rel=1e-9)
    assert errors[0].noise_share == pytest.approx(errors[1].noise_share, rel=0.05)  # chords for arcs


def test_walls_are_in_the_bias():
    box = af.Box([(0, np.pi)])
    layer = af.Attention(af.SquaredDistance(box), 0.02)
    start = lambda x: np.cos(x[..., 0]) + np.cos(2 * x[..., 0])  # noqa: E731
    assert af.predicted_error(layer, af.Uniform(box), start, 0.5).relative == pytest.approx(0.0875, abs=5e-5)


def test_heads_have_a_bias_and_a_noise_but_no_mean():
    heads = af.MultiHead([LAYER, af.Attention(F, 0.1)])
    error = af.predicted_error(heads, P, cos, 0.3, 1000)
    assert np.isnan(error.mean_share) and np.isnan(error.mean(np.array([[0.9]]))).all() and error.regime == "outside"
    assert error.relative == pytest.approx(np.hypot(error.bias_share, error.noise_share), rel=1e-12)
    alike = af.predicted_error(af.MultiHead([LAYER, LAYER]), P, cos, 0.5, 10**5)
    assert alike.noise_share == pytest.approx(af.predicted_error(LAYER, P, cos, 0.5, 10**5).noise_share, rel=1e-2)


def test_the_last_layer_is_the_share_of_a_step_that_is_left():
    layer = af.Attention(F, 0.1, residual=0.5)
    runs = [infinite_layers(layer, P, cos, t) for t in (2 * layer.time_step, 2.5 * layer.time_step, 3 * layer.time_step)]
    ends = [run.y[-1] for run in runs]
    assert ends[1] - ends[0] == pytest.approx((ends[2] - ends[0]) / 2, abs=1e-14)


@pytest.mark.parametrize(
    "n_tokens, error", [(1, ValueError), (0, ValueError), (-np.inf, TypeError), (np.nan, TypeError), ("many", TypeError)]
)
def test_fewer_than_two_tokens_are_refused(n_tokens, error):
    with pytest.raises(error, match="n_tokens must be"):
        af.predicted_error(LAYER, P, cos, 0.5, n_tokens)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="density must live on the space of f"):
        af.predicted_error(LAYER, af.Uniform(af.Torus([1.0, 1.0])), cos, 0.5, 100)
    with pytest.raises(ValueError, match="t must leave something of initial"):
        af.predicted_error(LAYER, P, lambda x: 0 * x[..., 0], 0.5, 100)
    with pytest.raises(ValueError, match="mask"):
        af.predicted_error(af.Attention(F, 0.05, mask="causal"), P, cos, 0.05, 100)
