"""What cells will take is predicted before the first, corrected on the way, and decides which begin."""

import numpy as np
import pytest
import tqdm.auto

import attnflow as af
from attnflow.checks import PartialWarning
from attnflow.progress import track_seconds
from attnflow.studies import sweep
from attnflow.studies.cost import cost_of_cells
from attnflow.studies.execution import compute

P = af.VonMises(1.0)


def study(epsilons=(0.1, 0.05), sizes=(500, 2000), seeds=2, **options):
    f = af.SquaredDistance(af.Circle())
    return af.ConvergenceStudy(f, P, lambda x: np.cos(x[..., 0]), 0.5, epsilons, sizes, seeds, **options)


def test_cells_cost_what_their_pairs_and_layers_do():
    made = study((0.1, 0.05), (4000, 8000), 1, backend="numba", normalization=["softmax", "sinkhorn"])
    costs = {cell[:2] + cell[3:]: seconds for cell, seconds in cost_of_cells(made, made.cells()).items()}
    assert all(seconds > 0 for seconds in costs.values())
    assert costs[0.05, 8000, 0] > 1.5 * costs[0.1, 8000, 0] and costs[0.1, 8000, 0] > 1.5 * costs[0.1, 4000, 0]
    assert costs[0.1, 8000, 1] > costs[0.1, 8000, 0]  # Sinkhorn's sweeps


def test_what_a_run_would_warn_of_or_refuse_is_left_to_it():
    made = study((0.01, 0.005), (20,))  # tokens that attend only to themselves
    assert len(cost_of_cells(made, made.cells())) == 6


class Brittle(af.VonMises):
    """Has no samples of one size."""

    def sample(self, n, rng=None):
        return super().sample(n, rng) if n != 61 else 1 // 0


def test_a_function_that_raises_costs_its_cells_alone_and_no_prediction_of_time():
    made = af.ConvergenceStudy(
        af.SquaredDistance(af.Circle()), Brittle(1.0), lambda x: np.cos(x[..., 0]), 0.2, (0.1,), (60, 61), 2
    )
    assert all(seconds > 0 for seconds in cost_of_cells(made, made.cells()).values())
    with pytest.warns(PartialWarning, match="2 of 5 cells failed, the first with ZeroDivisionError"):
        result = made.run(progress=True)
    assert [cell["size"] for cell in result.cells] == ["inf", 60, 60]


def test_several_at_a_time_begin_with_the_dearest_and_one_with_the_cheapest(monkeypatch):
    began = []

    def spy(study, cells, *others):
        began.append(cells)
        return compute(study, cells, 1, None, *others[2:])

    monkeypatch.setattr(sweep, "compute", spy)
    made = study((0.1, 0.05), (100, 3000), 1)
    results = [made.run(n_jobs=jobs, progress=False) for jobs in (1, 2)]
    costs = cost_of_cells(made, made.cells())
    assert began[0] == made.cells() and began[1] == sorted(made.cells(), key=costs.__getitem__, reverse=True)
    assert [c["error"] for c in results[0].cells] == [c["error"] for c in results[1].cells]


class Bar(tqdm.auto.tqdm):
    """Remembers what it has shown."""

    shown: list[tuple[float, float]] = []

    def update(self, n=1):
        super().update(n)
        self.shown.append((self.n, self.total))


def test_the_bar_counts_predicted_seconds_and_learns_what_they_are(monkeypatch):
    clock = iter(np.cumsum([0.0, 2.0, 4.0, 6.0]))  # twice what is predicted
    monkeypatch.setattr(Bar, "shown", [])
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.setattr("attnflow.progress.time.perf_counter", lambda: next(clock))
    assert list(track_seconds([1, 2, 3], True, lambda step: float(step), 6.0)) == [1, 2, 3]
    shares = [n / total for n, total in Bar.shown]
    assert shares == pytest.approx([1 / 6, 3 / 6, 1.0])
    totals = [total for _, total in Bar.shown]
    assert 6 < totals[0] < totals[1] < totals[2] < 12 and totals[2] == pytest.approx(12, rel=0.03)


def test_a_bar_is_closed_with_the_study_it_shows(monkeypatch, capsys):
    made = study((0.4, 0.2), (30,), 1)
    monkeypatch.setattr(Bar, "shown", [])
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    result = made.run(progress=True)
    assert len(Bar.shown) == len(result.cells) == 4
    assert Bar.shown[-1][0] == pytest.approx(Bar.shown[-1][1])
