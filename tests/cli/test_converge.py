"""attnflow converge: study files in, a picture, cells and a store out."""

import csv
import json

import numpy as np
import pytest

from attnflow.cli import main

STUDY = """
[space]
kind = "circle"
[density]
kind = "vonmises"
kappa = 1.0
[pseudometric]
kind = "squared-distance"
[layer]
normalization = "density-corrected"
alpha = 0.5
[initial]
kind = "sin"
mode = 2
[study]
t = 0.2
epsilons = [0.2, 0.1, 0.05]
sizes = [50, 100, "inf"]
seeds = 3
"""


def test_converge_writes_its_three_files_and_resumes(tmp_path, capsys):
    (tmp_path / "study.toml").write_text(STUDY)
    out = tmp_path / "out"
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "slope in eps" in printed and "predicted" in printed and "nan" not in printed
    assert sorted(p.name for p in out.iterdir()) == ["converge.csv", "converge.csv.json", "converge.png", "study.sqlite"]
    with open(out / "converge.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 3 * 2 * 3 and {row["size"] for row in rows} == {"inf", "50", "100"}
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(out)]) == 0
    assert "21 finished cells taken from" in capsys.readouterr().out


def test_converge_adds_seeds_until_a_slope_is_known(tmp_path, capsys):
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2]\nsizes = [40, 160]\nseeds = 3")
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path), "--width", "0.6"]) == 0
    (known,) = [line for line in capsys.readouterr().out.splitlines() if "the slope in N is known to" in line]
    assert float(known.split("known to ")[1].split(",")[0]) <= 0.6
    assert json.loads((tmp_path / "converge.csv.json").read_text())["tables"]["study"]["seeds"] > 3


@pytest.mark.filterwarnings("always::attnflow.checks.AttnflowWarning")
def test_cells_that_fail_are_told_and_the_others_written(tmp_path, capsys, monkeypatch):
    from attnflow.studies import cells as cells_of

    real = cells_of.run_cell

    def fail(study, cell):
        if cell.seed == 1:
            raise RuntimeError("the disk of the moon is full")
        return real(study, cell)

    monkeypatch.setattr(cells_of, "run_cell", fail)
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2]\nsizes = [40]\nseeds = 3")
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path)]) == 1
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "fail" in line]
    assert len(said) == 1 and said[0].startswith(
        "warning: 1 of 4 cells failed, the first with RuntimeError: the disk of the moon"
    )
    assert len((tmp_path / "converge.csv").read_text().splitlines()) == 1 + 3


def test_the_built_in_study_spans_a_decade():
    from attnflow.studies.files import read_study

    study = read_study()
    finite = [n for n in study.sizes if np.isfinite(n)]
    assert max(study.epsilons) / min(study.epsilons) >= 10 and max(finite) / min(finite) >= 10 and np.inf in study.sizes
    assert all(study.layers(e) * study.layer(e).time_step == pytest.approx(0.5) for e in study.epsilons)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('kind = "circle"', 'kind = "klein-bottle"', "[space] kind must be one of"),
        (
            "kappa = 1.0",
            "kapa = 1.0",
            "[density] of kind 'vonmises' must only have the keys ['kappa', 'loc'], got also ['kapa']",
        ),
        ("[layer]", "[layers]", "the study file must only have the keys"),
        ('kind = "squared-distance"', 'kind = "power-distance"', "[pseudometric] of kind 'power-distance'"),
        ("alpha = 0.5", 'alpha = "half"', "alpha must be a real number"),
        ('normalization = "density-corrected"', 'normalization = "softmax"', "[layer] alpha must come with"),
        ('kind = "sin"', "kind = \"__import__('os')\"", "[initial] kind must be one of"),
        ("t = 0.2", "", "[study] must have ['t']"),
        ("epsilons = [0.2", "epsilons = [-0.2", "epsilons must be positive"),
        ('sizes = [50, 100, "inf"]', 'sizes = [50, "many"]', "sizes must be an integer"),
        ("seeds = 3", "seeds = 3\ncolour = 1", "[study] must only have the keys"),
        ("[space]", "[space", "study file must be TOML"),
        ('[space]\nkind = "circle"', 'space = "circle"', "[space] must be a table of keys"),
        (
            'kind = "sin"\nmode = 2',
            'kind = "coordinate"',
            "[initial] of kind 'coordinate': kind must be 'cos' or 'sin' on a torus",
        ),
        ('kind = "sin"', 'kind = "sin"\naxis = 1', "[initial] of kind 'sin': axis must be below 1"),
        ('kind = "circle"', 'kind = "circle"\nlength = 1.0', "[density] must live on the [space]"),
    ],
)
def test_a_wrong_study_file_is_named_and_leaves_nothing_behind(tmp_path, capsys, old, new, message):
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new))
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
