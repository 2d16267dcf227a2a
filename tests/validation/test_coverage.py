"""Coverage of error bars: the stored table, and its measure in small."""

import numpy as np

from validation import coverage
from validation.__main__ import RESULTS


def test_the_stored_table_is_of_every_problem_and_within_what_is_allowed():
    text = (RESULTS / "coverage.md").read_text(encoding="utf-8")
    found = text.partition("| claim")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [[p, n] for p in coverage.PROBLEMS for n in coverage.NORMALIZATIONS]
    low, high = coverage.ALLOWED
    assert all(low <= float(row[2]) <= high for row in rows)
    assert f"{coverage.SETS} sets of {coverage.TOKENS} random tokens" in text and "| NO" not in text


def test_scores_are_deviations_in_standard_errors(monkeypatch):
    monkeypatch.setattr(coverage, "TOKENS", 300)
    problem = coverage.PROBLEMS["line"]
    scores = coverage.standardised(problem, "softmax", 40, "line")
    assert scores.shape == (40, 5)
    assert 0.75 < np.sqrt(np.mean(scores**2)) < 1.3  # 200 scores, some of them alike
