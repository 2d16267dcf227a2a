"""The table of predicted errors, on few token sets: its ratios are of what runs are, and its claims can fail."""

from dataclasses import replace

import pytest

import attnflow as af
from validation import predicted_error


@pytest.fixture
def circle(monkeypatch):
    monkeypatch.setattr(predicted_error, "NORMALIZATIONS", {"softmax": "softmax"})
    return replace(predicted_error.PROBLEMS[0], runs=((0.4, 2, 460),))


def test_ratios_are_about_one(circle):
    report = predicted_error.run((circle,), seeds=25)
    assert report.holds and len(report.rows) == 2
    assert all(float(row[-1].split()[0]) == pytest.approx(1, abs=0.25) for row in report.rows)


def test_a_prediction_for_half_the_tokens_fails(circle, monkeypatch):
    own = af.predicted_error
    monkeypatch.setattr(af, "predicted_error", lambda layer, p, h, t, n: own(layer, p, h, t, 2 * n))
    assert not predicted_error.run((circle,), seeds=25).holds
