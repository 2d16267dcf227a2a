"""A plan meets the asked error, in theory's closed case and when it is run, and says what it can't reach."""

import re
import tomllib

import numpy as np
import pytest

import attnflow as af
from attnflow import capacity
from attnflow.cli import main
from attnflow.continuum import PredictedError
from attnflow.studies import cost, planning
from attnflow.studies.files import read_study
from attnflow.studies.planning import Parts, Search

CIRCLE = af.SquaredDistance(af.Circle())


def wave(x):
    return np.sin(x[..., 0]) + 0.4 * np.cos(2 * x[..., 0])


def test_flat_noise_without_a_mean_has_the_plan_of_theory(monkeypatch):
    """Least N^2 t / tau with (.7 tau)^2 + 40 / N = .03^2: tau = target / (C_b sqrt 5) = .019166297, N = 55555.6."""

    def constants(layer, density, initial, t, n_tokens):
        bias, noise = 0.7 * layer.time_step, np.sqrt(40 / n_tokens)
        return PredictedError(np.hypot(bias, noise), None, None, None, bias, noise, 0.0, 1e3, "leading order")

    class Squared(Search):
        def cost(self, layers, n_tokens):
            return "numba", layers * float(n_tokens) ** 2 / 1e9

    monkeypatch.setattr(planning, "predicted_error", constants)
    monkeypatch.setattr(planning, "_AIM", 1.0)
    tau, size = 0.019166297, 55555.6
    plan = Squared(CIRCLE, af.VonMises(1.0), wave, 32 * tau, 0.03, "softmax").plan()
    assert abs(plan.layers - 32) <= 2  # numbers of layers that are compared are a ninth apart
    assert plan.seconds == pytest.approx(32 * size**2 / 1e9, rel=0.01)  # flat about the least
    assert plan.layers * plan.layer.time_step == pytest.approx(32 * tau, rel=1e-14)
    assert 0.98 * 0.03 <= plan.predicted.relative <= 0.03


@pytest.mark.parametrize("normalization", ["softmax", "sinkhorn"])
def test_a_plan_that_is_run_has_the_asked_error(normalization):
    p = af.Density(af.Circle(), lambda x: 0.6 * np.cos(x[..., 0] + 1) + 0.3 * np.sin(2 * x[..., 0]))
    plan = af.error_budget(CIRCLE, p, wave, t=0.3, error=0.06, normalization=normalization)
    equation = af.limit(plan.layer, p).solve(wave, 0.3)
    squares = []
    for seed in range(60):
        tokens = p.sample(plan.n_tokens, rng=seed)
        run = af.propagate(plan.layer, tokens, wave(tokens), plan.layers, save_every=plan.layers)
        squares.append(af.compare(run, equation).error[-1] ** 2)
    error = np.std(squares) / np.sqrt(len(squares)) / (2 * np.mean(squares))
    assert np.sqrt(np.mean(squares)) / 0.06 == pytest.approx(0.99, abs=0.03 + 2.5 * error)
    assert sum(plan.shares.values()) == pytest.approx(1) and plan.shares["noise"] > plan.shares["bias"] > 0


def test_normalizations_are_compared_by_their_time():
    plan = af.error_budget(CIRCLE, af.VonMises(1.0), wave, t=0.3, error=0.1)
    others = plan.alternatives
    seconds = [plan.seconds, *(other.seconds for other in others)]
    assert seconds == sorted(seconds) and len(seconds) == 4
    drifts = sorted(p.normalization.drift for p in (plan, *others))
    assert drifts == [0.0, 1.0, 1.0, 2.0]  # column; alpha = 1/2 and Sinkhorn; softmax
    for chosen in (plan, *others):
        assert 0.098 <= chosen.predicted.relative <= 0.1
        alone = af.error_budget(CIRCLE, af.VonMises(1.0), wave, 0.3, 0.1, chosen.normalization)
        assert (alone.layers, alone.n_tokens) == (chosen.layers, chosen.n_tokens)
    assert "against equations of their own" in str(plan) and str(plan.n_tokens) in str(plan)


def test_fewer_errors_cost_more_and_layers_meet_the_time_whatever_the_metric():
    f = af.LogDistance(af.Circle())  # m2 is no multiple of eps
    plans = [af.error_budget(f, af.VonMises(0.5), wave, 0.2, error, "softmax") for error in (0.1, 0.05)]
    for plan in plans:
        assert plan.layers * plan.layer.time_step == pytest.approx(0.2, rel=1e-12)
        assert plan.epsilon == plan.layer.epsilon and plan.residual == 1.0
    assert plans[1].n_tokens > 2 * plans[0].n_tokens and plans[1].seconds > plans[0].seconds


def test_a_sample_stands_for_its_kernel_density():
    tokens = np.random.default_rng(0).normal(size=(200, 1))
    f = af.SquaredDistance(af.Euclidean(1))
    plan = af.error_budget(f, tokens, lambda x: x[..., 0], 0.2, 0.1, "softmax")
    same = af.error_budget(f, af.KernelDensity(tokens), lambda x: x[..., 0], 0.2, 0.1, "softmax")
    assert (plan.epsilon, plan.n_tokens) == (same.epsilon, same.n_tokens)
    assert isinstance(plan.density, af.KernelDensity)
    assert "below 50 the asymptotics end" in plan.message  # in the tails


def test_what_cannot_be_reached_is_refused_with_the_reason(monkeypatch):
    p = af.VonMises(1.0)
    floor = r"error must be at least about (\S+), got 1e-06: with N = (\S+) tokens, all that 3 GB of free memory hold"
    with monkeypatch.context() as small:
        small.setattr(capacity, "available", lambda: 3 * 10**9)
        with pytest.raises(ValueError, match=floor) as refused:
            af.error_budget(CIRCLE, p, wave, 0.3, 1e-6, "softmax")
    least, most = map(float, re.match(floor, str(refused.value)).groups())
    cold = af.predicted_error(af.Attention(CIRCLE, 0.6 / 64), p, wave, 0.3, 10**7)
    assert most == 1e7 and cold.noise_share < least < cold.relative < 2 * cold.noise_share
    with pytest.raises(ValueError, match="normalization must be a key bias for a budget of epsilon, got topk:8"):
        af.error_budget(CIRCLE, p, wave, 0.3, 0.1, af.TopK(8))
    with pytest.raises(ValueError, match="density must have at most 3 dimensions for a prediction from a sample, got 4"):
        af.error_budget(CIRCLE, np.ones((9, 4)), wave, 0.3, 0.1)
    true = planning.predicted_error

    def refusing(layer, *rest):
        if layer.epsilon < 0.1:
            raise ValueError("too many nodes")
        return true(layer, *rest)

    monkeypatch.setattr(planning, "predicted_error", refusing)
    with pytest.raises(ValueError, match=r"error must be above 0\.0\d+, .* the bias at epsilon = 0.15 .*too many nodes"):
        af.error_budget(CIRCLE, p, wave, 0.3, 0.01, "softmax")


@pytest.mark.slow
def test_an_error_that_takes_too_long_is_refused_with_what_the_time_allows(monkeypatch):
    p, search = af.VonMises(1.0), Search(CIRCLE, af.VonMises(1.0), wave, 0.3, 0.02, "softmax")
    monkeypatch.setattr(capacity, "DAYS", search.cost(8, 4000)[1] / 86400)
    floor = r"error must be at least about (\S+), got 0.02: with N = \S+ tokens, all that end within"
    with pytest.raises(ValueError, match=floor) as refused:
        af.error_budget(CIRCLE, p, wave, 0.3, 0.02, "softmax")
    some = af.predicted_error(search.layer(8), p, wave, 0.3, 4000).relative
    assert 0.5 * some < float(re.match(floor, str(refused.value))[1]) < 1.1 * some


def test_a_runs_seconds_hold_what_is_around_its_sums(monkeypatch):
    """A pair of the dense engine 1e-9 s: 7e-4 s a run, 4e-8 s a token, 5e-5 s a layer, about 1e-9 s a pair of tokens."""
    monkeypatch.setattr(cost, "dense_unit", lambda: 1e-9)
    monkeypatch.setattr("attnflow.kernels.choice.dense_unit", lambda: 1e-9)
    seconds = {}
    for rule in ("softmax", "column", "sinkhorn"):
        search = Search(CIRCLE, af.VonMises(1.0), wave, 0.3, 0.05, rule)
        seconds[rule] = [search.cost(layers, 100)[1] for layers in (4, 8)]
    layer = (seconds["softmax"][1] - seconds["softmax"][0]) / 4
    assert 5e-5 < layer < 5e-5 + 2e-9 * 100**2
    assert seconds["softmax"][0] == pytest.approx(7e-4 + 4e-8 * 100 + 4 * layer, rel=1e-9)
    assert seconds["column"][0] == pytest.approx(seconds["softmax"][0] + layer, rel=1e-9)  # column sums
    assert seconds["sinkhorn"][0] > seconds["softmax"][0] + 10 * layer  # its sweeps


def test_one_prediction_tells_the_error_of_other_token_numbers():
    search = Search(CIRCLE, af.VonMises(1.0), wave, 0.3, 0.05, "softmax")

    def predicted(size):
        return af.predicted_error(search.layer(12), search.density, wave, 0.3, size)

    parts = Parts.of(predicted(3000), 3000)
    for size in (800, 3000, 12000):
        assert parts.tokens(predicted(size).relative) == pytest.approx(size, rel=0.02)
    assert parts.tokens(0.99 * parts.bias) == np.inf


def test_half_the_tokens_double_the_noise_and_the_mean():
    """.03^2 + .001 + .02^2 = .0023 with 1000 tokens, .03^2 + .002 + .04^2 = .0045 with 500."""
    found = PredictedError(np.sqrt(0.0023), None, None, None, 0.03, np.sqrt(0.001), 0.02, 1e3, "leading order")
    assert Parts.of(found, 1000).tokens(np.sqrt(0.0045)) == pytest.approx(500)


def test_time_counts_sweeps_and_goes_on_beyond_the_tokens_it_is_predicted_on(monkeypatch):
    softmax, sinkhorn = (Search(CIRCLE, af.VonMises(1.0), wave, 0.5, 0.05, rule) for rule in ("softmax", "sinkhorn"))
    monkeypatch.setattr(cost, "_RUN", 0.0)
    monkeypatch.setattr(cost, "_TOKEN", 0.0)
    sweeps = sinkhorn.layer(4).bind(af.VonMises(1.0).sample(500, rng=0)).stats["sinkhorn_sweeps"]
    assert sweeps > 20
    assert sinkhorn.cost(4, 1500)[1] / softmax.cost(4, 1500)[1] == pytest.approx(
        (5 + sweeps) / 4
    )  # and the sum they begin with
    engine, seconds = softmax.cost(4, 2**15)  # cells of so warm a layer hold all: N^2, counted on some queries
    monkeypatch.setattr(cost, "_SAMPLED", 2**13)
    assert softmax.cost(4, 2**15) == (engine, pytest.approx(seconds, rel=0.1))


STUDY = """
[space]
kind = "circle"
[density]
kind = "vonmises"
kappa = 1.0
[pseudometric]
kind = "squared-distance"
[initial]
kind = "sin"
[study]
t = 0.2
epsilons = [0.2]
sizes = [50]
seeds = 3
"""


def test_the_command_prints_a_plan_and_writes_it_as_a_study(tmp_path, capsys):
    asked, out = tmp_path / "study.toml", tmp_path / "plan.toml"
    asked.write_text(STUDY)
    assert main(["budget", str(asked), "--error", "0.1", "--out", str(out)]) == 0
    assert "ErrorBudget for 0.1" in capsys.readouterr().out
    study, own = read_study(out), read_study(asked)
    plan = af.error_budget(own.f, own.density, own.initial, 0.2, 0.1)
    assert plan.epsilon in study.epsilons and plan.n_tokens in study.sizes and np.inf in study.sizes
    assert study.layer(0.1).normalization == plan.normalization and (study.t, study.seeds) == (0.2, 3)
    tables = tomllib.loads(out.read_text())
    assert {name: tables[name] for name in ("space", "density")} == {
        name: tomllib.loads(STUDY)[name] for name in ("space", "density")
    }
    assert main(["budget", str(asked), "--error", "-1"]) == 2
    assert "error must be positive" in capsys.readouterr().err


def test_the_command_keeps_what_the_study_says_of_its_layer(tmp_path, capsys):
    asked, out = tmp_path / "study.toml", tmp_path / "plan.toml"
    asked.write_text(STUDY + '\n[layer]\nnormalization = ["softmax", "column"]\nbackend = "numba"\ndtype = "float32"\n')
    assert main(["budget", str(asked), "--error", "0.1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert ": softmax, epsilon = " in printed and "    column, drift 0: " in printed and "inkhorn" not in printed
    study = read_study(out)
    assert (study.backend, study.dtype) == ("numba", "float32")
    asked.write_text(STUDY + "\n[layer]\nresidual = 0.5\n")
    assert main(["budget", str(asked), "--error", "0.1"]) == 2
    assert "residual must be 1 for a budget, got 0.5" in capsys.readouterr().err
