"""Every figure's checks hold on its stored data, fail with one wrong constant, and the pictures are drawn."""

import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import paper_figures
from paper_figures import FIGURES, Check, plot
from paper_figures.__main__ import main

STORED = Path(paper_figures.__file__).parent / "results"
each_figure = pytest.mark.parametrize("name", FIGURES)


def load(name):
    module = import_module(f"paper_figures.{name}")
    with np.load(STORED / f"{name}.npz", allow_pickle=False) as data:
        return module, dict(data)


@each_figure
def test_its_checks_hold_on_the_stored_data(name):
    module, data = load(name)
    failed = [check for check in module.check(data, module.CONSTANTS) if not check.holds]
    assert not failed


@each_figure
def test_one_wrong_constant_makes_it_fail(name):
    module, data = load(name)
    assert module.WRONG.keys() == module.CONSTANTS.keys()
    assert not all(check.holds for check in module.check(data, module.WRONG))


@each_figure
def test_it_is_drawn_with_a_claim_and_labelled_axes(name):
    module, data = load(name)
    figure = plot(module, data)
    figure.canvas.draw()
    assert figure.get_suptitle().replace("\n", " ") == module.TITLE
    assert module.__doc__ and "Source:" in module.__doc__
    for ax in figure.axes:
        assert ax.get_label() == "<colorbar>" or not ax.axison or (ax.get_xlabel() and ax.get_ylabel())


@each_figure
def test_the_gallery_has_its_claim_and_verdict(name):
    module, data = load(name)
    gallery = (STORED / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in gallery.splitlines() if line.startswith("|") and f"({name}.png)" in line]
    checks = module.check(data, module.CONSTANTS)
    verdict = "holds" if all(check.holds for check in checks) else "FAILS"
    assert module.TITLE in row and f"{verdict}, {len(checks)} checks" in row


def test_a_number_that_is_not_one_never_holds():
    assert not Check("x", 1.0, np.nan, 1.0).holds
    assert Check.relative("x", -2.0, -2.01, 0.01).holds and not Check.relative("x", -2.0, -2.03, 0.01).holds


def test_a_figure_whose_package_is_missing_is_left_out_and_said_to_be(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("paper_figures.__main__.find_spec", lambda name: None)
    monkeypatch.setattr("paper_figures.__main__.FIGURES", ("f20_learned_metric",))
    assert main(["--quick", "--out", str(tmp_path)]) == 0  # all of them: the others are drawn
    assert "f20_learned_metric: left out: needs torch" in capsys.readouterr().out
    assert main(["f20", "--quick", "--out", str(tmp_path)]) == 1  # asked for by name


def test_half_a_measurement_is_none():
    def measure(quick, progress):  # as solvers do
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        return {"error": 0.0}

    with pytest.raises(KeyboardInterrupt):
        paper_figures.compute(SimpleNamespace(measure=measure, check=lambda data, constants: [], CONSTANTS={}))


def test_an_unknown_figure_is_refused_with_the_accepted_names(capsys):
    assert main(["f99"]) == 2
    assert "f01_bias" in capsys.readouterr().err


@pytest.mark.slow
def test_figures_made_in_processes_are_those_made_here(tmp_path):
    for folder, jobs in (("one", "1"), ("two", "2")):
        words = ["f09", "f10", "--quick", "--jobs", jobs, "--out", str(tmp_path / folder)]
        subprocess.run([sys.executable, "-m", "paper_figures", *words], cwd=STORED.parents[1], check=True, capture_output=True)
    for stored in (tmp_path / "one").glob("*.npz"):
        with np.load(stored) as here, np.load(tmp_path / "two" / stored.name) as there:
            for name in here:
                np.testing.assert_allclose(there[name], here[name], rtol=1e-9, atol=1e-13)


def test_jobs_are_at_least_one(capsys):
    assert main(["f03", "--jobs", "0"]) == 2
    assert "--jobs" in capsys.readouterr().err
