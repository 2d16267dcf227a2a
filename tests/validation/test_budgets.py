"""Budgets between walls: the stored table, and one plan whose error is measured."""

from dataclasses import replace

import pytest

import attnflow as af
from validation import budgets
from validation.__main__ import RESULTS


@pytest.fixture
def slope(monkeypatch):
    monkeypatch.setattr(budgets, "NORMALIZATIONS", {"sinkhorn": "sinkhorn"})
    return replace(budgets.PROBLEMS[1], errors=(0.05,))


def test_the_stored_table_has_every_plan_and_its_claim_holds():
    text = (RESULTS / "budgets.md").read_text(encoding="utf-8")
    table, _, claims = text.partition("| claim")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]
    asked = [[p.name, n, f"{e:g}"] for p in budgets.PROBLEMS for e in p.errors for n in budgets.NORMALIZATIONS]
    assert [row[:3] for row in rows] == asked and "| yes" in claims and "NO" not in claims
    assert f"{budgets.SEEDS} sets of the planned number" in text


def test_a_plan_between_walls_has_the_asked_error(slope):
    report = budgets.run((slope,), seeds=24)
    assert report.holds and float(report.rows[0][-1].split()[0]) == pytest.approx(0.99, abs=0.25)


def test_a_plan_for_twice_the_error_fails(slope, monkeypatch):
    own = af.error_budget
    monkeypatch.setattr(
        af, "error_budget", lambda *problem: replace(own(*problem[:4], 2 * problem[4], problem[5]), error=problem[4])
    )
    assert not budgets.run((slope,), seeds=24).holds
