"""Seeds are added until a slope is known as well as asked, or what may be spent is."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

import attnflow as af
from attnflow.checks import PartialWarning
from attnflow.studies import cells as cells_of
from attnflow.studies import refinement, sweep

P = af.VonMises(1.0)


def study(initial=lambda x: np.cos(x[..., 0]), sizes=(40, 160), seeds=4, **options):
    return af.ConvergenceStudy(af.SquaredDistance(af.Circle()), P, initial, 0.2, (0.2,), sizes, seeds, **options)


def widest(result):
    return max(high - low for _, low, high in (part.slope("size") for part in result.parts))


@pytest.fixture
def computed(monkeypatch):
    cells, real = [], cells_of.run_cell

    def count(study, cell):
        cells.append(cell)
        return real(study, cell)

    monkeypatch.setattr(cells_of, "run_cell", count)
    return cells


def test_seeds_are_added_until_the_interval_is_narrow_and_each_cell_is_computed_once(computed):
    result = study().refine("size", 0.4, progress=False)
    assert widest(result) <= 0.4 < widest(study().run(progress=False)) and result.status == 0
    assert f"known to {widest(result):.3g}, with {result.study.seeds} seeds" in result.message
    seeds = result.study.seeds
    assert seeds > 4 and len(result.cells) == 1 + 2 * seeds and result.resumed == 0
    assert len(computed[: 1 + 2 * seeds]) == len(set(computed[: 1 + 2 * seeds]))


def test_a_refined_study_is_the_study_with_so_many_seeds():
    result = study(normalization=["softmax", "sinkhorn"]).refine("size", 0.6, progress=False)
    plain = study(seeds=result.study.seeds, normalization=["softmax", "sinkhorn"]).run(progress=False)
    same = [[{k: v for k, v in cell.items() if k != "seconds"} for cell in r.cells] for r in (result, plain)]
    assert same[0] == same[1] and result.study.parts[0].fingerprint == plain.study.parts[0].fingerprint
    assert widest(result) <= 0.6


def test_a_constant_is_refined_from_one_size():
    result = study(sizes=(100,)).refine("size", 0.4, kind="constant", progress=False)
    value, low, high = result.constant("size")
    assert result.status == 0 and high - low <= 0.4 and 0 < low < value
    assert "the constant in N is known to" in result.message


def test_a_budget_of_cells_is_kept_and_a_second_call_goes_on(tmp_path, computed):
    first = study().refine("size", 0.01, cells=30, store=tmp_path / "s.sqlite", progress=False)
    assert first.status == 1 and first.message.startswith("budget of 30 cells spent: the slope in N is known to")
    assert len(computed) == len(first.cells) <= 30 and len(first.cells) > 27
    second = study().refine("size", 0.01, cells=30, store=tmp_path / "s.sqlite", progress=False)
    assert len(computed) <= 60 and second.resumed == len(first.cells) and len(second.cells) == len(computed)
    few = study().refine("size", 0.01, cells=3, progress=False)
    assert few.status == 1 and len(few.cells) == 3 and few.message.startswith("budget spent after 3 of 9 cells")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_budget_of_seconds_is_kept(jobs):
    def slow(x):
        time.sleep(0.05 * (len(x) == 40))
        return np.cos(x[..., 0])

    began = time.monotonic()
    result = study(slow).refine("size", 1e-3, seconds=1.0, n_jobs=jobs, progress=False)
    inside, between = "budget spent after", "budget of 1 seconds spent"  # a round of seeds
    assert result.status == 1 and (inside in result.message or between in result.message)
    assert time.monotonic() - began < 6.0 and len(result.cells) < 2000


def test_cells_that_fail_end_a_refinement_within_its_budget(monkeypatch):
    tried, real = [], cells_of.run_cell

    def fail(study, cell):
        tried.append(cell)
        if cell.seed == 5:
            raise ZeroDivisionError("never")
        return real(study, cell)

    monkeypatch.setattr(cells_of, "run_cell", fail)
    with pytest.warns(PartialWarning, match="2 of .* cells failed, the first with ZeroDivisionError") as told:
        result = study().refine("size", 0.01, cells=40, progress=False)
    assert result.status == -1 and result.message.startswith("partial: 2 of ") and "is known to" in result.message
    assert len(told) == 1 and len(tried) == len(set(tried)) == len(result.cells) + 2 <= 40


def test_the_end_of_a_refinement_names_what_was_spent(monkeypatch):
    monkeypatch.setattr(refinement, "MOST_CELLS", 16)
    result = study().refine("size", 1e-3, progress=False)
    assert result.status == 1 and len(result.cells) == 15
    assert result.message.startswith("a study has at most 16 cells: the slope in N is known to")


def test_no_round_begins_after_the_time(computed, monkeypatch):
    result = study().refine("size", 1e-3, seconds=1e-9, progress=False)
    assert result.status == 1 and not computed and result.message.startswith("budget spent after 0 of 9 cells")
    clock = SimpleNamespace(monotonic=lambda: 100.0 * (len(computed) == 9))  # the time is over with the first round
    monkeypatch.setattr(sweep, "time", clock)
    monkeypatch.setattr(refinement, "time", clock)
    late = study().refine("size", 1e-3, seconds=30.0, progress=False)
    assert late.status == 1 and late.message.startswith("budget of 30 seconds spent: the slope in N is known to")
    assert len(late.cells) == len(computed) == 9 and late.study.seeds == 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: study().refine("epsilon", 0.1), "axis must be 'size' to refine, got 'epsilon'"),
        (lambda: study(sizes=(40, np.inf)).refine("size", 0.1), "sizes must have at least 2 finite"),
        (lambda: study().refine("size", 0.1, cells=0), "cells must be at least 1"),
        (lambda: study(lambda x: 1 + 0 * x[..., 0]).refine("size", 0.1, progress=False), "exact to round-off"),
    ],
)
def test_what_cannot_be_refined_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
