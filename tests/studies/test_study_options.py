"""Residual steps, arithmetic and several normalisations of a study, and what it predicts at few tokens."""

import dataclasses
import sqlite3
from functools import partial

import numpy as np
import pytest

import attnflow as af
from attnflow import capacity
from attnflow.studies import prediction, recall
from attnflow.studies.files import read_study
from attnflow.studies.store import Store

CIRCLE, P = af.Circle(), af.VonMises(1.0)


def cos(x):
    return np.cos(x[..., 0])


def study(epsilons=(0.1, 0.05), sizes=(60, 90), seeds=2, density=P, **options):
    return af.ConvergenceStudy(af.SquaredDistance(CIRCLE), density, cos, 0.5, epsilons, sizes, seeds, **options)


def test_residual_layers_take_smaller_steps_and_meet_the_time():
    # uniform density: one layer leaves 1 - a (1 - e^-tau) of cos, the last one of the step that is left 1 - a r (1 - e^-tau)
    made = study((0.15,), [np.inf], density=af.Uniform(CIRCLE), residual=0.4)
    assert made.layers(0.15) == 16 and made.rest(0.15) == pytest.approx(2 / 3, rel=1e-9)
    (cell,) = made.run(progress=False).cells
    reached = (1 - 0.4 * -np.expm1(-0.075)) ** 16 * (1 - 0.4 * (2 / 3) * -np.expm1(-0.075))
    assert cell["layers"] == 17 and cell["error"] == pytest.approx(abs(reached / np.exp(-0.5) - 1), rel=1e-6)


def test_finite_tokens_take_the_same_residual_steps():
    made = study((0.3,), (40,), 1, residual=0.5)
    (cell,) = [c for c in made.run(progress=False).cells if c["size"] == 40]
    tokens = P.sample(40, rng=np.random.default_rng([0, 40, int(np.float64(0.3).view(np.uint64))]))
    A = af.Attention(af.SquaredDistance(CIRCLE), 0.3).weights(tokens)
    h = np.cos(tokens)
    for step in [0.5] * 6 + [0.5 * 2 / 3]:
        h = h + step * (A @ h - h)
    equation = af.DriftDiffusion(P).solve(cos, 0.5).at(tokens)
    assert cell["error"] == pytest.approx(np.linalg.norm(h - equation) / np.linalg.norm(equation), rel=1e-9)


def test_sinkhorn_with_a_residual_is_of_first_order_and_predicted():
    """The constant is (1/a - 1)/2 t |L^2 H(t)| / |H(t)| over a: .56614 / 2 for the start and density of the theory."""
    start = lambda x: np.sin(x[..., 0]) + np.cos(2 * x[..., 0])  # noqa: E731
    made = af.ConvergenceStudy(
        af.SquaredDistance(CIRCLE), af.VonMises(1.5), start, 0.5, (0.02, 0.01, 0.005), [np.inf], normalization="sinkhorn",
        residual=0.5,
    )  # fmt: skip
    result = made.run(progress=False)
    assert result.predicted.slope["epsilon"] == 1
    assert result.constant("epsilon").value == pytest.approx(result.predicted.constant["epsilon"], rel=0.005)


def test_what_results_depend_on_tells_cells_apart_and_engines_do_not(tmp_path):
    store = tmp_path / "s.sqlite"
    study().run(store, progress=False)
    assert study(residual=0.5).run(store, progress=False).resumed == 0
    single = study(dtype="float32", backend="numba").run(store, progress=False)
    assert single.resumed == 0
    again = study(backend="reference").run(store, progress=False)
    assert again.resumed == 10
    error = [[c["error"] for c in result.cells] for result in (single, again)]
    assert error[0] != error[1] and error[0] == pytest.approx(error[1], rel=1e-3)
    fresh = study(backend="reference").run(progress=False)
    assert {c["engine"] for c in fresh.cells if c["size"] != "inf"} == {"reference"}


def test_several_normalisations_are_studies_of_the_same_tokens(tmp_path):
    rules = ["softmax", af.DensityCorrected(0.5), "sinkhorn"]
    together = study(normalization=rules).run(tmp_path / "s.sqlite", progress=False)
    assert together.study.names == ("softmax", "density-corrected:0.5", "sinkhorn") and len(together.cells) == 30
    for rule in rules:
        alone = study(normalization=rule).run(tmp_path / "s.sqlite", progress=False)
        assert alone.resumed == 10 and together.of(rule).cells == alone.cells
        assert together.of(rule).slope("size") == alone.slope("size")
    streams = [part.token_stream(part.cells()[-1]).random() for part in together.study.parts]
    assert len(set(streams)) == 1
    assert "sinkhorn\n" in together.summary() and together.to_dataframe()["normalization"].nunique() == 3
    left, right = together.plot()
    assert len(left.get_legend().get_texts()) == len(right.get_legend().get_texts()) - 1 == 3  # and the hollow ones


def test_processes_compute_several_normalisations(tmp_path):
    rules = ["softmax", "sinkhorn"]
    serial, parallel = (study(normalization=rules).run(n_jobs=jobs, progress=False) for jobs in (1, 2))
    assert [c["deviation"] for c in serial.cells] == [c["deviation"] for c in parallel.cells]


def test_one_of_several_must_be_chosen():
    several = study(normalization=["softmax", "sinkhorn"])
    result = af.StudyResult(several, [], "finished")
    for ask in (lambda: result.slope("size"), lambda: several.layer(0.1), result.bias, result.noise):
        with pytest.raises(ValueError, match="normalization must be one"):
            ask()
    with pytest.raises(ValueError, match="normalization must be one of 'sinkhorn', 'softmax', got str 'column'"):
        result.of("column")
    assert study(normalization=["softmax"]).fingerprint == study().fingerprint  # one of one is chosen
    with pytest.raises(ValueError, match="normalization must name each once"):
        study(normalization=["softmax", "softmax"])
    with pytest.raises(ValueError, match="normalization must be a sequence of normalisations, got none"):
        study(normalization=[])


@pytest.mark.parametrize("name, value", [("residual", 0.0), ("residual", 1.5), ("backend", "abacus"), ("dtype", "float16")])
def test_options_are_checked_before_any_work(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        study(**{name: value})


def test_a_study_file_names_several_and_their_step(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        '[layer]\nnormalization = ["softmax", "density-corrected"]\nalpha = 0.5\nresidual = 0.5\ndtype = "float32"\n'
        "[study]\nt = 0.5\nepsilons = [0.1]\nsizes = [50]"
    )
    made = read_study(path)
    assert made.names == ("softmax", "density-corrected:0.5") and made.parts[1].layer(0.1).residual == 0.5
    assert made.of("softmax").layer(0.1).dtype == "float32"
    path.write_text(path.read_text().replace('"density-corrected"', '"sinkhorn"'))
    with pytest.raises(ValueError, match=r"\[layer\] alpha must come with"):
        read_study(path)


def test_few_tokens_are_predicted_to_the_next_order():
    """The built-in study: slope -.556 +- .004 over 17 repeats."""
    predicted = af.StudyResult(read_study(), [], "").predicted
    assert predicted.slope["size"] == -0.5 and predicted.at_sizes["slope"] == pytest.approx(-0.556, abs=0.006)
    assert [cell for cell in predicted.errors if not predicted.holds(*cell)] == [(0.02, 400)]
    bias = predicted.errors[0.2, 400].bias_share
    assert predicted.error(0.2, 4000) == pytest.approx(np.hypot(bias, predicted.deviation(0.2, 4000)), rel=0.05)


def predictions(monkeypatch):
    """The calls of the functions that predict."""
    called = []
    for name in ("predicted_bias", "predicted_noise", "predicted_error"):

        def count(name, real, *args):
            called.append((name, args[0].epsilon, *args[4:]))
            return real(*args)

        monkeypatch.setattr(prediction, name, partial(count, name, getattr(prediction, name)))
    return called


def test_a_number_is_predicted_once(tmp_path, monkeypatch):
    called = predictions(monkeypatch)
    first = study(sizes=(60,)).run(tmp_path / "s.sqlite", progress=False)
    assert not called  # nobody has asked yet
    said = first.summary()
    assert len(called) == 5  # the bias, and noise and error of each temperature
    again = study(sizes=(60,)).run(tmp_path / "s.sqlite", progress=False)
    assert again.summary() == said and len(called) == 5 and again.predicted == first.predicted
    grown = study(sizes=(60, 90)).run(tmp_path / "s.sqlite", progress=False)
    assert grown.predicted.bias == first.predicted.bias and called[5:] == [("predicted_error", e, 90) for e in (0.1, 0.05)]
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM cells WHERE kind = 'prediction'").fetchone() == (7,)


def test_what_is_not_predicted_and_what_predictions_warn_of_is_told_again(tmp_path, monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no theory of this")

    def doubt(*_):
        af.checks.warn("a rough one", af.checks.AccuracyWarning)
        return lambda points: np.ones((len(points), 1))

    made, path = study((0.1,), (60,)), tmp_path / "s.sqlite"
    made.run(path, progress=False)
    for name, function in (("predicted_bias", doubt), ("predicted_noise", refuse), ("predicted_error", refuse)):
        monkeypatch.setattr(prediction, name, function)
    with pytest.warns(af.checks.AccuracyWarning, match="a rough one"):
        first = made.run(path, progress=False).predicted
    called = predictions(monkeypatch)
    with pytest.warns(af.checks.AccuracyWarning, match="a rough one"):
        again = made.run(path, progress=False).predicted
    assert first.unknown["noise"] == again.unknown["noise"] == "no theory of this" and np.isnan(again.noise[0.1])
    assert not called and again.bias == first.bias


def test_what_memory_refuses_today_is_asked_again_tomorrow(tmp_path, monkeypatch):
    made, path = study((0.1,), (60,)), tmp_path / "s.sqlite"
    made.run(path, progress=False)
    with monkeypatch.context() as today:
        today.setattr(prediction, "predicted_noise", lambda *_: capacity.fits(10**30, "max_nodes"))
        first = made.run(path, progress=False).predicted
    called = predictions(monkeypatch)
    again = made.run(path, progress=False).predicted
    assert "max_nodes must fit into memory" in first.unknown["noise"] and np.isnan(first.noise[0.1])
    assert called == [("predicted_noise", 0.1, 1)] and again.noise[0.1] > 0 and not again.unknown


def test_predictions_of_another_form_are_computed_anew(tmp_path, monkeypatch):
    made, path = study((0.1,), (60,)), tmp_path / "s.sqlite"
    made.run(path, progress=False).predicted
    called = predictions(monkeypatch)
    monkeypatch.setattr(recall, "PREDICTION_FORM", recall.PREDICTION_FORM + 1)
    made.run(path, progress=False).predicted
    assert len(called) == 3


def test_a_disk_that_takes_no_prediction_costs_no_number(tmp_path, monkeypatch):
    made, path = study((0.1,), (60,)), tmp_path / "s.sqlite"
    kept, expected = made.run(path, progress=False), made.run(progress=False).predicted
    execute = Store._execute

    def full(self, said, values=()):
        if self._path == str(path) and said.startswith("INSERT INTO cells") and values[1] == "prediction":
            raise sqlite3.OperationalError("database or disk is full")
        return execute(self, said, values)

    monkeypatch.setattr(Store, "_execute", full)
    with pytest.warns(
        af.checks.PartialWarning, match="predictions are computed anew by the next run, for .*disk is full"
    ) as told:
        assert kept.predicted == expected
    assert len(told) == 1


def test_a_prediction_that_is_damaged_in_the_store_is_named(tmp_path):
    path = tmp_path / "s.sqlite"
    study((0.1,), (60,)).run(path, progress=False).predicted
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cells SET result = '{\"numbers\": [1]}' WHERE kind = 'prediction'")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="store must hold whole cells, .*a prediction must have its numbers"):
        study((0.1,), (60,)).run(path, progress=False).predicted
    assert path.read_bytes() == before


def test_a_result_predicts_without_its_store(tmp_path, monkeypatch):
    kept = study((0.1,), (60,)).run(tmp_path / "s.sqlite", progress=False)
    connect = sqlite3.connect

    def only_read(*args, **options):
        connection = connect(*args, **options)
        if args[0] != ":memory:":
            connection.execute("PRAGMA query_only = ON")
        return connection

    monkeypatch.setattr("attnflow.studies.store.sqlite3.connect", only_read)
    expected = kept.predicted.bias
    (tmp_path / "s.sqlite").unlink()
    assert dataclasses.replace(kept).predicted.bias == expected and not list(tmp_path.iterdir())
