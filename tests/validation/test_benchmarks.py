"""Benchmarks time what solves the case, refuse unknown names, and compare with references that are right."""

import dataclasses
import re

import numpy as np
import pytest

from validation.benchmarks import Case, Family, Solver, ladder, pde, pde_cases, processes, worker
from validation.benchmarks.__main__ import main
from validation.benchmarks.finite_volumes import assemble
from validation.benchmarks.tuning import measure_error, tune

CASES = pde_cases.CASES


def test_the_references_are_the_known_values():
    quarter = np.pi / 2
    circle = CASES["circle"].reference()(np.array([[0.0], [quarter], [2 * quarter], [3 * quarter]]))
    known = [0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043]
    np.testing.assert_allclose(circle, known, atol=1e-12)
    torus = CASES["torus"].reference()(np.array([[0, 0], [quarter, 0], [0, quarter], [2 * quarter, 2 * quarter]]))
    known = [0.53797857874327, 0.55911782726059, 0.40535835076568, -0.26474250701675]
    np.testing.assert_allclose(torus, known, atol=1e-12)


def test_the_galerkin_reference_decays_an_eigenfunction_at_its_rate():
    b, k = 0.5, 2  # p proportional to exp(b x): exp(-b x) (k cos k x + b sin k x) decays at b^2 + k^2
    case = Case(
        "line",
        "",
        1,
        np.pi,
        False,
        0.3,
        1e-6,
        log_density=lambda x: b * x[..., 0],
        score=lambda x: np.full(x.shape, b),
        initial=lambda x: (np.exp(-b * x) * (k * np.cos(k * x) + b * np.sin(k * x)))[..., 0],
        reference=lambda: pde_cases.legendre_solution(case, 21),
    )
    points = case.nodes(9)
    np.testing.assert_allclose(case.reference()(points), np.exp(-0.3 * 4.25) * case.initial(points), atol=1e-10)


def test_the_reference_in_the_box_solves_its_equation_and_lets_nothing_out():
    box, dt, h = CASES["box"], 1e-3, 1e-3
    at = {sign: pde_cases.legendre_solution(dataclasses.replace(box, t=box.t + sign * dt), 19) for sign in (-1, 0, 1)}
    inside, step = np.random.default_rng(0).uniform(0.3, 2.8, (20, 2)), h * np.eye(2)

    def gradient(x):
        return np.stack([(at[0](x + e) - at[0](x - e)) / (2 * h) for e in step], axis=-1)

    def flux(x):
        return np.einsum("...ij,...j->...i", box.diffusion(x), gradient(x))

    divergence = sum((flux(inside + e)[:, k] - flux(inside - e)[:, k]) / (2 * h) for k, e in enumerate(step))
    rate = (at[1](inside) - at[-1](inside)) / (2 * dt)
    np.testing.assert_allclose(divergence / box.weight(inside), rate, atol=2e-5)
    assert np.abs(rate).max() > 0.1
    wall = np.stack([np.linspace(0.2, 2.9, 7), np.full(7, np.pi)], axis=-1)
    assert np.abs(flux(wall)[:, 1]).max() < 1e-4 < 1e-2 < np.abs(gradient(wall)[:, 0]).max()


@pytest.mark.parametrize("name", CASES)
def test_scores_are_gradients_of_log_densities(name):
    case, h = CASES[name], 1e-5
    x = np.random.default_rng(0).random((5, case.dim)) * case.length
    differences = [(case.log_density(x + e) - case.log_density(x - e)) / (2 * h) for e in h * np.eye(case.dim)]
    np.testing.assert_allclose(np.stack(differences, axis=-1), case.score(x), atol=1e-9)


def test_the_off_diagonal_metric_stays_where_the_seven_point_scheme_is_monotone():
    K = CASES["box"].diffusion(CASES["box"].nodes(60, centred=True))
    share = np.abs(K[:, 0, 1]) / np.minimum(K[:, 0, 0], K[:, 1, 1])
    assert 0.45 < share.max() < 0.51


@pytest.mark.parametrize("name", ["circle", "torus", "cube"])
def test_the_peers_operator_keeps_constants_conserves_and_is_symmetric_in_its_weight(name):
    operator, points = assemble(CASES[name], 6)
    weighted = operator.toarray() * CASES[name].weight(points)[:, None]
    np.testing.assert_allclose(operator.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(weighted, weighted.T, atol=1e-12)
    assert (operator.toarray() > 0).sum() == 2 * CASES[name].dim * len(points)


def test_tuning_takes_the_coarsest_grid_and_the_loosest_tolerance_that_reach_the_error():
    tried = []

    def prepare(case, grid, tolerance):
        tried.append((grid, tolerance))
        points = case.nodes(8)
        wrong = points[:, 0] * 0 + 1 + 1 / grid**2 + tolerance
        return Solver(lambda _: wrong, lambda values: (points, values))

    exact = dataclasses.replace(CASES["circle"], error=1e-3, reference=lambda: lambda x: np.ones(len(x)))
    best = tune(exact, [Family("made up", ladder(8, 128, 4), [1e-2, 1e-3, 1e-4, 1e-5], prepare)])
    assert (best.grid, best.tolerance) in [(32, 1e-5), (38, 1e-4), (45, 1e-4)]  # all have 1 / grid^2 + tolerance <= 1e-3
    assert best.error == pytest.approx(1 / best.grid**2 + best.tolerance)
    assert (27, 1e-5) in tried and (45, 1e-3) in tried  # neither is: what was taken is the coarsest, the loosest
    assert (45, 1e-5) not in tried


def test_nothing_is_tuned_when_no_grid_reaches_the_error():
    def prepare(case, grid, tolerance):
        return Solver(lambda _: np.full(8, np.nan), lambda values: (case.nodes(8), values))

    assert tune(CASES["circle"], [Family("made up", [8, 16], [0.0], prepare)]) is None


def test_a_worker_answers_ready_and_then_one_run_per_request(monkeypatch):
    events = []
    monkeypatch.setattr(worker, "_SAMPLE", 0.01)
    tiny = dataclasses.replace(CASES["circle"], error=1e-2)
    worker.serve(tiny, "Radau", ["run\n", "ignored\n", "run\n"], events.append)
    assert [event["event"] for event in events] == ["ready", "run", "run"]
    assert re.fullmatch(r"finite volumes, \d+ cells, rtol \S+", events[0]["setting"])
    assert all(0 < event["error"] <= 1e-2 and event["seconds"] > 0 for event in events[1:])


def test_a_worker_solves_with_attnflow(monkeypatch):
    monkeypatch.setattr(worker, "_SAMPLE", 0.01)
    events = []
    worker.serve(dataclasses.replace(CASES["circle"], error=1e-2), "attnflow", ["run\n"], events.append)
    assert [event["event"] for event in events] == ["ready", "run"]
    assert re.fullmatch(r"\S+, \d+ cells, rtol \S+", events[0]["setting"])
    assert events[1]["error"] <= 1e-2


def test_what_attnflow_cannot_solve_is_reported_not_raised(monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no such walls")

    events = []
    monkeypatch.setattr(worker, "load_families", lambda *_: [Family("", [0], [1.0], lambda *_: Solver(refuse, refuse))])
    worker.serve(CASES["circle"], "attnflow", ["run\n"], events.append)
    assert events == [{"event": "unsolved", "why": "no such walls"}]


@pytest.mark.parametrize(
    "method, package, name, grids, tolerance, order",
    [
        ("scikit-fem", "skfem", "box", (6, 12), 32, 4),
        ("findiff", "findiff", "torus-fine", (20, 30), 0.0, 6),
        ("BDF", "scipy", "circle", (256, 512), 1e-9, 2),
        ("expm_multiply", "scipy", "cube", (8, 16), 0.0, 2),
    ],
)
def test_peers_converge_at_the_order_of_their_discretisation(method, package, name, grids, tolerance, order):
    pytest.importorskip(package)
    case = CASES[name]
    exact, family = case.reference(), worker.load_families(case, method)[0]
    solvers = [family.prepare(case, grid, tolerance) for grid in grids]
    errors = [measure_error(solver, solver.step(solver.fresh()), exact) for solver in solvers]
    assert np.log(errors[0] / errors[1]) / np.log(grids[1] / grids[0]) == pytest.approx(order, abs=0.5)  # on the way to it


def test_a_library_that_is_not_installed_is_absent(monkeypatch):
    events = []
    monkeypatch.setitem(worker.METHODS, "missing", ("ours", ("no-such-library",)))
    worker.serve(CASES["circle"], "missing", [], events.append)
    assert events == [{"event": "absent", "why": "no-such-library is not installed"}]


@pytest.mark.parametrize("arguments", [["nowhere", "attnflow"], ["circle", "magic"], ["circle"]])
def test_a_worker_refuses_names_it_does_not_know(arguments, capsys):
    assert worker.main(arguments) == 2
    assert re.search(r"(CASE|METHOD) must be one of .*(circle|attnflow).*, got|usage: ", capsys.readouterr().err)


def test_an_unknown_benchmark_is_refused_with_the_accepted_ones(capsys):
    assert main(["nope"]) == 2
    assert (
        "NAME must be one of pde, dense, heads, sparse, masks, layers, spectrum, expressions, scaling, auto, gpu, got nope"
        in capsys.readouterr().err
    )


class _Acted:
    """A worker that is never started: ours is fast, findiff missing, py-pde wrong where told."""

    error = 1e-9

    def __init__(self, case, method):
        self.seconds = 0.001 if method == "attnflow" else 0.06
        self.solves = method != "findiff"
        told = {"setting": "8 cells", "setup_seconds": 0.0, "compile_seconds": 0.0}
        self.ready = {"event": "ready", **told} if self.solves else {"event": "absent", "why": "not installed"}

    def run(self):
        return {"seconds": self.seconds, "error": self.error}

    def close(self):
        pass


def test_the_table_has_every_case_and_method_with_its_goal_met_or_not(monkeypatch):
    monkeypatch.setattr(pde, "Worker", _Acted)
    report = pde.run(rounds=3)
    rows = {tuple(row[:2]): dict(zip(report.columns, row, strict=True)) for row in report.rows}
    assert set(rows) == {(case, method) for case, peers in pde.PEERS.items() for method in (pde.OURS, *peers)}
    assert {case for case, _ in rows} == set(CASES)
    assert rows["circle", "BDF"]["times ours"] == "60" and rows["circle", "BDF"]["met"] == "yes"
    assert rows["circle", "py-pde"]["goal"] == ">= 1000" and rows["circle", "py-pde"]["met"] == "no"
    assert rows["torus-fine", "findiff"]["setting"] == "absent: not installed"
    assert report.holds  # a goal that is missed is no failure


def test_a_wrong_error_fails_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pde, "Worker", _Acted)
    monkeypatch.setattr(_Acted, "error", 1e-5)
    assert main(["pde", "--rounds", "1", "--out", str(tmp_path)]) == 1
    (row,) = [
        line for line in (tmp_path / "benchmarks-pde.md").read_text().splitlines() if "circle: worst of the timed" in line
    ]
    assert re.findall(r"[^| ][^|]*[^| ]", row)[1:] == ["1e-05", "at most 1e-06", "NO"]


def test_a_process_that_dies_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "false")
    died = processes.Worker("circle", "attnflow")
    died.close()
    assert not died.solves
    assert died.ready == {"event": "unsolved", "why": "its process ended with code 1"}
