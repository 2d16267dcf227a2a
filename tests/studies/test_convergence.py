"""Studies: what they measure, how they resume, and what tells one cell from another."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import attnflow as af
from attnflow.studies import cells
from attnflow.studies.fits import fit_values

CIRCLE, P = af.Circle(), af.VonMises(1.0)


def cos(x):
    return np.cos(x[..., 0])


def study(epsilons=(0.05, 0.1), sizes=(60, np.inf), seeds=2, initial=cos, density=P, **options):
    return af.ConvergenceStudy(af.SquaredDistance(CIRCLE), density, initial, 0.5, epsilons, sizes, seeds, **options)


FINE = (0.02, 0.01, 0.00625, 0.004, 0.0025)  # 1 / eps layers reach t = 1/2


@pytest.mark.parametrize(
    "normalization, slope, tolerance", [("softmax", 1, 0.03), (af.DensityCorrected(0.5), 1, 0.03), ("sinkhorn", 2, 0.1)]
)
def test_bias_has_the_predicted_slope_and_constant(normalization, slope, tolerance):
    result = study(FINE, [np.inf], normalization=normalization).run(progress=False)
    value, low, high = result.slope("epsilon")
    assert value == pytest.approx(slope, abs=tolerance) and low <= value <= high
    assert result.predicted.slope["epsilon"] == pytest.approx(slope, abs=1e-12)
    constant = result.constant("epsilon")
    if normalization == "softmax":
        assert constant.value == pytest.approx(0.274292, rel=0.002)  # p-weighted, as eps -> 0
        assert result.predicted.constant["epsilon"] == pytest.approx(0.274292, rel=1e-4)
    if normalization == "sinkhorn":
        assert constant.value == pytest.approx(result.predicted.constant["epsilon"], rel=0.01)


@pytest.mark.slow
def test_noise_has_the_predicted_slope_and_constant():
    # two layers: at depth the O(1/N) bias of the mean joins the noise and steepens the slope of few tokens
    made = af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, cos, 0.1, (0.1,), (300, 1000, 3000), 100)
    result = made.run(progress=False)
    value, low, high = result.slope("size")
    assert value == pytest.approx(-0.5, abs=0.05) and low < -0.5 < high
    value, low, high = result.constant("size")
    assert value == pytest.approx(result.predicted.constant["size"], rel=0.1) and low < value < high
    assert {row["engine"] for row in result.cells} <= {"numba", "cells", "nufft"}  # as auto chose


def test_other_kernels_have_their_own_power_of_epsilon():
    f = af.PowerDistance(CIRCLE, 4.0)
    made = af.ConvergenceStudy(f, P, cos, 0.5, (4e-4, 2e-4, 1e-4, 5e-5, 2.5e-5), [np.inf])
    result = made.run(progress=False)
    assert result.predicted.slope["epsilon"] == pytest.approx(0.5)  # tau ~ eps^(2/q)
    assert result.slope("epsilon").value == pytest.approx(0.5, abs=0.03)
    assert result.constant("epsilon").value == pytest.approx(result.predicted.constant["epsilon"], rel=0.02)


def test_a_gaussian_on_a_line_has_the_predicted_bias():
    made = af.ConvergenceStudy(
        af.SquaredDistance(af.Euclidean(1)), af.Gaussian([0.0], [[0.5]]), cos, 0.2, (0.04, 0.02, 0.01, 0.005, 0.0025), [np.inf]
    )
    result = made.run(progress=False)
    assert result.slope("epsilon").value == pytest.approx(1, abs=0.03)
    assert result.constant("epsilon").value == pytest.approx(result.predicted.constant["epsilon"], rel=0.005)


def test_walls_slow_convergence_as_predicted():
    box = af.Box([(0.0, np.pi)])
    made = af.ConvergenceStudy(af.SquaredDistance(box), af.Uniform(box), cos, 0.5, (0.02, 0.01, 0.005, 0.0025), [np.inf])
    result = made.run(progress=False)
    assert result.slope("epsilon").value == pytest.approx(0.5, abs=0.05)  # sqrt(eps)
    assert result.predicted.slope["epsilon"] == 0.5
    assert dict(zip(*result.bias()))[0.0025] == pytest.approx(result.predicted.bias[0.0025], rel=0.05)


def test_an_equation_that_cannot_be_solved_yet_is_refused_before_any_work():
    with pytest.raises(NotImplementedError, match="density must live on a torus, box, line or chart"):
        af.ConvergenceStudy(af.DotProduct(), af.VonMisesFisher([0, 0, 0, 1.0], 1.0), lambda x: x, 0.2, [0.1], [np.inf])


def test_infinity_is_always_computed_and_sizes_are_independent():
    result = study(sizes=(60,)).run(progress=False)
    table = result.to_dataframe()
    assert sorted(table["size"].unique()) == [60, np.inf] and len(table) == 2 + 4
    assert (table[table["size"] == np.inf]["deviation"] == 0).all()
    assert table["error"].is_unique
    assert (table["t"] == 0.5).all()


def test_a_second_run_takes_every_cell_from_the_store(tmp_path, monkeypatch):
    first = study().run(tmp_path / "study.sqlite", progress=False)
    monkeypatch.setattr("attnflow.studies.cells.run_cell", lambda *_: pytest.fail("computed again"))
    second = study().run(tmp_path / "study.sqlite", progress=False)
    assert second.cells == first.cells and second.resumed == len(first.cells) == 6


def test_an_edited_function_is_a_new_cell(tmp_path):
    study().run(tmp_path / "study.sqlite", progress=False)
    for changed in (
        study(initial=lambda x: np.cos(x[..., 0]) + 1e-9 * np.sin(3 * x[..., 0])),
        study(density=af.VonMises(1.0 + 1e-9)),
        study(normalization="sinkhorn"),
    ):
        assert changed.run(tmp_path / "study.sqlite", progress=False).resumed == 0
    assert study(initial=lambda y: np.cos(y[..., 0])).fingerprint == study().fingerprint


def test_another_version_is_a_new_cell(monkeypatch):
    before = study().fingerprint
    monkeypatch.setattr(af, "__version__", "99")
    assert study().fingerprint != before


def test_a_larger_study_computes_only_what_is_new(tmp_path):
    study().run(tmp_path / "s.sqlite", progress=False)
    grown = study(sizes=(60, 90), seeds=3).run(tmp_path / "s.sqlite", progress=False)
    assert grown.resumed == 6 and len(grown.cells) == 2 + 2 * 2 * 3


SCRIPT = """
import sys, numpy as np, attnflow as af
study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.5,
                            [0.1, 0.05], [60, 1500], 40)
study.run(sys.argv[1], progress=False)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killing_the_process_loses_no_finished_cell(tmp_path):
    path = tmp_path / "s.sqlite"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])

    def rows():
        if not path.exists():
            return 0
        with sqlite3.connect(path) as connection:
            return (
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                and connection.execute("SELECT count(*) FROM cells").fetchone()[0]
            )

    deadline = time.monotonic() + 120
    while rows() < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = rows()
    assert 5 <= survived < 162
    made = af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, cos, 0.5, [0.1, 0.05], [60], 40)
    resumed = made.run(path, progress=False)
    assert resumed.resumed == min(survived, 82)
    assert [c["error"] for c in resumed.cells] == [c["error"] for c in made.run(progress=False).cells]


def test_sizes_and_temperatures_have_tokens_of_their_own(monkeypatch):
    seen = []
    real = cells.propagate

    def propagate(layer, tokens, *args, **options):
        if isinstance(tokens, np.ndarray):
            seen.append(tokens[0, 0])
        return real(layer, tokens, *args, **options)

    monkeypatch.setattr(cells, "propagate", propagate)
    study(epsilons=(0.1, 0.05, 0.08), sizes=(30, 60), seeds=3).run(progress=False)
    assert len(seen) == 18 == len(set(seen))


def test_slope_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside, x = 0, np.log(np.repeat([100, 200, 400, 800], 5))
    for _ in range(400):
        value, low, high = fit_values(np.stack([x, np.ones_like(x)], axis=1), -0.5 * x + rng.normal(size=20), "sizes")
        inside += low < -0.5 < high
    assert 0.92 < inside / 400 < 0.98


def test_chordal_sinkhorn_keeps_its_first_order():
    # the chord's geometric term B + L/2 does not cancel: only a flat Gaussian has second order
    f = af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1))
    result = af.ConvergenceStudy(f, P, cos, 0.5, (0.02, 0.01, 0.005, 0.0025), [np.inf], normalization="sinkhorn").run(
        progress=False
    )
    assert result.slope("epsilon").value == pytest.approx(1, abs=0.03)
    assert result.predicted.slope["epsilon"] == pytest.approx(1)


def test_layers_meet_the_time_whatever_the_step():
    # uniform density: A cos = e^-tau cos, and the last layer of step r leaves 1 - r (1 - e^-tau) of it, for any r
    made = study((0.15, 0.07), [np.inf], density=af.Uniform(CIRCLE))
    assert [made.layers(e) for e in made.epsilons] == [6, 14]
    assert made.rest(0.15) == pytest.approx(2 / 3, rel=1e-12) and made.rest(0.07) == pytest.approx(2 / 7, rel=1e-12)
    for cell, epsilon, layers, rest in zip(made.run(progress=False).cells, (0.15, 0.07), (6, 14), (2 / 3, 2 / 7)):
        tau = epsilon / 2
        reached = np.exp(-layers * tau) * (1 - rest * -np.expm1(-tau))
        assert cell["t"] == 0.5 and cell["layers"] == layers + 1
        assert cell["error"] == pytest.approx(abs(reached / np.exp(-0.5) - 1), rel=1e-6)
    assert study((0.02, 0.1), [np.inf]).rest(0.02) == 0  # 50 steps, though 0.5 / 0.01 is not 50 in binary


def test_finite_tokens_meet_the_time_by_the_same_last_layer():
    made = study((0.3,), (40,), seeds=1)
    (cell,) = [c for c in made.run(progress=False).cells if c["size"] == 40]
    tokens = P.sample(40, made.token_stream(cells.Cell(0.3, 40, 0)))
    A = af.Attention(af.SquaredDistance(CIRCLE), 0.3).weights(tokens)
    h = np.linalg.matrix_power(A, 3) @ np.cos(tokens)
    h += (A @ h - h) / 3
    equation = af.DriftDiffusion(P).solve(cos, 0.5).at(tokens)
    assert cell["error"] == pytest.approx(np.linalg.norm(h - equation) / np.linalg.norm(equation), rel=1e-9)


@pytest.mark.parametrize(
    "f, normalization, slope",
    [
        (af.LogDistance(CIRCLE), "sinkhorn", 2),  # m4 / m2^2 -> 3, and tau / eps is no constant
        (af.LogDistance(CIRCLE), "softmax", 1),
        (af.PowerDistance(CIRCLE, 1.0), "softmax", 2),  # m2 ~ eps^2
        (af.PowerDistance(CIRCLE, 1.0), "sinkhorn", 2),
        (af.PowerDistance(CIRCLE, 2.0), "sinkhorn", 2),
        (af.SquaredDistance(af.Sphere(1)), "sinkhorn", 2),  # a curve is flat
    ],
)
def test_slopes_are_predicted_as_epsilon_falls_and_measured_so(f, normalization, slope):
    initial = cos if f.space.columns == 1 else lambda x: x[..., 0] + x[..., 0] * x[..., 1]
    density = P if f.space.columns == 1 else af.VonMisesFisher([1.0, 0.0], 1.0)
    epsilons = (0.1, 0.08, 0.05, 0.04) if slope == 2 and "Power" in repr(f) and f.q == 1 else (0.025, 0.0125, 0.01, 0.00625)
    made = af.ConvergenceStudy(f, density, initial, 0.5, epsilons, [np.inf], normalization=normalization)
    result = made.run(progress=False)
    assert result.predicted.slope["epsilon"] == slope  # exactly: nothing is fitted to the study's own steps
    assert result.slope("epsilon").value == pytest.approx(slope, abs=0.1)


def test_a_square_in_disguise_is_a_flat_gaussian():
    line, p = af.Euclidean(1), af.Gaussian([0.0], [[0.5]])
    for f, slope in (
        (af.PseudoMetric(lambda x, y: 2 * (x[..., 0] - y[..., 0]) ** 2, 1), 2),
        (af.PseudoMetric(lambda x, y: (x[..., 0] - y[..., 0]) ** 2 + (x[..., 0] - y[..., 0]) ** 4, 1), 1),
    ):
        made = af.ConvergenceStudy(f, p, cos, 0.2, (0.1, 0.05), [np.inf], normalization="sinkhorn")
        assert af.StudyResult(made, [], "").predicted.slope["epsilon"] == slope, line


def test_a_cusp_has_its_exact_errors():
    made = af.ConvergenceStudy(af.PowerDistance(CIRCLE, 1.0), P, cos, 0.5, (0.036, 0.0185, 0.0099), [np.inf])
    errors = made.run(progress=False).bias()[1]
    np.testing.assert_allclose(errors, (0.00224593, 0.00059394, 0.00017018), rtol=1e-3)


def test_errors_of_round_off_are_called_exact_and_predict_nothing():
    for initial in (cos, lambda x: 1 + 0 * x[..., 0]):  # A cos = e^-tau cos on a uniform circle; constants stay
        result = study((0.1, 0.05, 0.025), [np.inf], density=af.Uniform(CIRCLE), initial=initial).run(progress=False)
        assert result.exact and np.isnan(result.predicted.slope["epsilon"])
        assert all(np.isnan(v) for v in result.predicted.bias.values())
        assert "exact to round-off" in result.summary() and "vanishes to round-off" in result.summary()
        with pytest.raises(ValueError, match="exact to round-off"):
            result.slope("epsilon")
    assert not study((0.1,), [np.inf]).run(progress=False).exact


def test_what_is_not_predicted_says_why_in_the_table():
    box = af.Box([(0.0, np.pi)])
    walls = af.ConvergenceStudy(
        af.SquaredDistance(box), af.Uniform(box), cos, 0.5, (0.05, 0.02, 0.01), [50], 2, normalization="sinkhorn"
    ).run(progress=False)
    assert "walls slow convergence down" in walls.summary() and np.isnan(walls.predicted.slope["epsilon"])
    assert "those of the fit" in walls.summary()


def test_a_seed_and_a_grid_make_other_cells(tmp_path):
    base = study(seeds=1).run(tmp_path / "s.sqlite", progress=False)
    other = study(seeds=1, seed=7).run(tmp_path / "s.sqlite", progress=False)
    finer = study(seeds=1, grid=512).run(tmp_path / "s.sqlite", progress=False)
    assert other.resumed == finer.resumed == 0
    finite = [[c["error"] for c in r.cells if c["size"] != "inf"] for r in (base, other, finer)]
    assert not set(finite[0]) & set(finite[1]) and finite[0] == pytest.approx(finite[2], rel=1e-9)
    np.testing.assert_allclose(base.bias()[1], finer.bias()[1], rtol=1e-9)


def test_processes_give_the_same_cells(tmp_path):
    serial = study().run(progress=False)
    parallel = study(initial=lambda x: np.cos(x[..., 0])).run(tmp_path / "s.sqlite", n_jobs=2, progress=False)
    assert [(c["error"], c["deviation"]) for c in parallel.cells] == [(c["error"], c["deviation"]) for c in serial.cells]


class Client:
    """The least that run(client=...) asks for."""

    def __init__(self):
        self.pool, self.submitted = ThreadPoolExecutor(1), 0

    def submit(self, function, *args):
        self.submitted += 1
        return self.pool.submit(function, *args)

    def gather(self, futures):
        return [future.result() for future in futures]


def test_any_client_with_submit_and_gather_will_do():
    client = Client()
    result = study().run(client=client, progress=False)
    assert client.submitted == 1 + 6 and [c["error"] for c in result.cells] == [
        c["error"] for c in study().run(progress=False).cells
    ]


def test_a_client_of_another_version_is_refused_before_any_cell(tmp_path, monkeypatch):
    monkeypatch.setattr("attnflow.studies.execution._where", lambda: ("node7", {"attnflow": "0.0.1"}))
    client = Client()
    with pytest.raises(ValueError, match="client must have workers with attnflow .* as here, got 0.0.1 on node7"):
        study().run(tmp_path / "s.sqlite", client=client, progress=False)
    assert client.submitted == 1 and (tmp_path / "s.sqlite").read_bytes() == b""


def test_a_client_that_is_closed_is_named():
    client = Client()
    client.pool.shutdown()
    with pytest.raises(ValueError, match="client must be open and compute, got Client: RuntimeError: cannot schedule"):
        study().run(client=client, progress=False)


@pytest.mark.optional
def test_a_dask_client_will_do():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            result = study().run(client=client, progress=False)
    assert [c["error"] for c in result.cells] == [c["error"] for c in study().run(progress=False).cells]


def test_too_few_cells_for_a_fit_are_named():
    result = study((0.1,), (60,)).run(progress=False)
    with pytest.raises(ValueError, match="epsilons must be more for this fit"):
        result.slope("epsilon")
    with pytest.raises(ValueError, match="axis must be one of 'epsilon', 'size'"):
        result.slope("time")
    assert "epsilons must be more for this fit" in result.summary()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: study(epsilons=[]), "epsilons must be a sequence"),
        (lambda: study(epsilons=[0.1, -1.0]), "epsilons must be positive"),
        (lambda: study(epsilons=[5.0]), "epsilons must be small enough that t = 0.5 holds at least one layer"),
        (lambda: study(sizes=[10.5]), "sizes must be an integer"),
        (lambda: study(sizes=[1]), "sizes must be at least 2"),
        (lambda: study(sizes=100), "sizes must be a sequence"),
        (lambda: study(seeds=0), "seeds must be at least 1"),
        (lambda: study(initial=np.ones(3)), "initial must be callable"),
        (lambda: study(density="vonmises"), "density must be an attnflow density"),
        (lambda: study(density=af.Uniform(af.Circle(1.0))), "density must live on the space of f"),
        (lambda: study(normalization="nope"), "normalization must be one of"),
        (lambda: study(normalization="none"), "normalization must divide by row sums for a limit"),
        (lambda: study().run(store="/no/such/folder/s.sqlite"), "store must be a file of finished cells"),
        (lambda: study().run(client=5), "client must have submit"),
        (lambda: study(initial=lambda x: 0 * x[..., 0]), "initial must not vanish"),
        (lambda: study().run(n_jobs=0), "n_jobs must be positive"),
        (lambda: study().run(store=__file__, progress=False), "store must be a file of finished cells"),
        (lambda: study().run(store=3), "store must be a str or os.PathLike"),
        (lambda: study().run(store=[]), "store must be a str or os.PathLike"),
        (lambda: study(seeds=10**9), "seeds and sizes must make at most 1000000 cells, got 2000000002"),
        (lambda: study(seeds=10**18), "seeds and sizes must make at most 1000000 cells"),
        (lambda: study(seed=-1), "seed must be at least 0"),
        (lambda: study(grid=0), "grid must be at least 1"),
        (lambda: study(grid=32), "grid must have at least 2 nodes per kernel width"),
        (lambda: study(epsilons=[1e-300]), "epsilons must end within 30 days"),
        (lambda: study(epsilons=[0.05, 1.001]), "epsilons must be small enough that t = 0.5 holds at least one layer"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_a_study_is_known_once_and_stays_as_it_was_made(monkeypatch):
    from attnflow.studies import design

    counted, real = [], design.content_key

    def count(value):
        counted.append(value)
        return real(value)

    monkeypatch.setattr(design, "content_key", count)
    study = af.ConvergenceStudy(
        af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.47, (0.1, 0.05), (60,), 2
    )
    study.run(progress=False)
    assert len(counted) == 2 and study.layer(0.1) is study.layer(0.1)
    with pytest.raises(AttributeError, match="t cannot be set"):
        study.t = 1.0
