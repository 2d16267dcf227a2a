"""Learned attentions are compared on the same repeats, with the intervals and the bound that they should have."""

from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from validation import Claim, Report, learned_digits, meshes, moons, repeats
from validation.__main__ import main, write
from validation.repeats import Entry, Fit


def test_paired_intervals_are_student_s():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.8, 1.0, (2, 10))
    mean, half = repeats.paired(*([Fit(x, np.empty(0), 0.0) for x in values] for values in (a, b)))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], [low, high], rtol=1e-12)


@pytest.mark.parametrize("noise", [0.2, 0.35])
def test_no_classifier_of_moons_is_better_than_bayes_s(noise):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 100_000)
    tokens = np.stack([np.cos(angle), np.sin(angle)], axis=1) + noise * rng.standard_normal((len(angle), 2))
    upper, lower = moons.moon_densities(tokens, noise)
    # the moons are alike, turned by pi: the posterior of the likelier one, over tokens of either, has the mean sought
    likelier = np.maximum(upper, lower) / (upper + lower)
    assert moons.bayes_accuracy(noise) == pytest.approx(likelier.mean(), abs=4 * stats.sem(likelier))
    assert moons.bayes_accuracy(noise) == pytest.approx(np.mean(upper > lower), abs=4 * stats.sem(upper > lower))


def test_densities_of_moons_are_those_of_the_tokens():
    task = moons.moons(0, test=40_000)
    for label, density in enumerate(moons.moon_densities(np.array([[0.0, 1.0], [1.0, -0.5], [0.5, 0.25]]), moons.NOISE)):
        tokens = task.test_tokens[task.test_labels == label]
        near = np.linalg.norm(tokens[:, None] - [[0.0, 1.0], [1.0, -0.5], [0.5, 0.25]], axis=2) < 0.1
        measured = near.mean(axis=0) / (0.01 * np.pi)
        np.testing.assert_allclose(measured, density, atol=0.06)


def test_every_classifier_gets_the_same_repeats_and_its_own_row():
    entries = [
        Entry(("self", "0.001"), lambda random_state: DummyClassifier(strategy="uniform", random_state=random_state)),
        Entry(("1 nearest", ""), lambda random_state: KNeighborsClassifier(1), ("self", "0.001")),
    ]
    task = partial(moons.moons, test=500)
    fits = repeats.run_repeats(entries, task, repeats=3, jobs=1)
    for k, fit in enumerate(fits["1 nearest", ""]):
        own = task(k)
        assert fit.accuracy == KNeighborsClassifier(1).fit(own.tokens, own.labels).score(own.test_tokens, own.test_labels)
    first, second = repeats.rows(entries, fits)
    assert first[4] == "" and float(second[4].split(" ± ")[0]) > 0.3
    assert len(first) == 2 + len(repeats.COLUMNS)


def test_tokens_learned_from_are_not_tested_on():
    digits, parts = learned_digits.split(0), meshes.surfaces(0, test=1)
    for task in (digits, parts, moons.moons(0, test=100)):
        together = np.concatenate([task.tokens, task.test_tokens])
        assert len(np.unique(together, axis=0)) == len(together)
    np.testing.assert_allclose(parts.tokens.std(axis=0), 1)


@pytest.mark.optional
@pytest.mark.parametrize("run", [partial(moons.run, test=200), learned_digits.run, partial(meshes.run, test=1)])
def test_a_report_has_a_row_for_each_classifier(run, tmp_path):
    pytest.importorskip("torch")
    report = run(repeats=2, epochs=2, jobs=1)
    assert all(len(row) == len(report.columns) for row in report.rows)
    methods = [row[0] for row in report.rows]
    assert methods.count("metric") == methods.count("self") >= len(repeats.RATES)
    assert [path.suffix for path in write(report, tmp_path, "learned")] == [".md", ".png"]


def test_what_needs_a_package_says_so_and_the_others_run(monkeypatch, tmp_path, capsys):
    def without_torch():
        raise ImportError('training needs PyTorch: pip install "attnflow[learning]"')

    monkeypatch.setattr(moons, "run", without_torch)
    monkeypatch.setattr(meshes, "run", lambda: Report("t", "", ["a"], [["1"]], [Claim("yes", "1", "1", True)]))
    assert main(["moons", "meshes", "--out", str(tmp_path)]) == 1
    assert "moons cannot run: training needs PyTorch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["meshes.md"]
