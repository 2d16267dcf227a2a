"""Validations hold, say so in a table, and refuse names they do not know."""

import re

import numpy as np
import pytest

from validation import Claim, Report, digits
from validation.__main__ import main, write


@pytest.fixture(scope="module")
def report():
    return digits.run(splits=3)


def test_attention_is_no_less_accurate_than_label_propagation(report):
    assert report.holds, report.markdown()


def test_the_table_holds_accuracies_of_every_split_and_method(report):
    accuracies = np.array([row[1:] for row in report.rows[:3]], dtype=float)
    assert accuracies.shape == (3, len(digits.METHODS))
    assert (accuracies > 0.9).all() and (accuracies < 1).all()
    np.testing.assert_allclose(np.array(report.rows[3][1:], dtype=float), accuracies.mean(axis=0), atol=1e-4)


def test_the_same_report_is_written_twice_with_the_same_bytes(report, tmp_path):
    first, second = (write(report, tmp_path / folder, "digits") for folder in "ab")
    assert [path.name for path in first] == ["digits.md", "digits.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_labels_settle_on_the_harmonic_extension():
    # a path 0-1-2-3 with labelled ends: the walk from 1 reaches 0 before 3 with probability 2/3
    weights = np.array([[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 1]])
    features, layers = digits.propagate_labels(weights, np.array([0, 0, 1, 1]), [np.array([0, 3])])
    np.testing.assert_allclose(features[:, 0, 0], [1, 2 / 3, 1 / 3, 0], atol=2 * digits.TOL)
    assert layers < 20


def test_an_unknown_name_is_refused_with_the_accepted_ones(capsys):
    assert main(["nope"]) == 2
    assert re.search(r"NAME must be one of .*digits.*, got nope", capsys.readouterr().err)


def test_a_failing_claim_fails_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(digits, "run", lambda: Report("t", "", ["a"], [["1"]], [Claim("no", "1", "0", False)]))
    assert main(["digits", "--out", str(tmp_path)]) == 1
    assert "a claim fails in digits" in capsys.readouterr().err
    assert "| no    | 1        | 0        | NO    |" in (tmp_path / "digits.md").read_text()
