"""What was computed can be computed again from its file, and the command says whether the numbers are the same."""

import json
import sqlite3
import sys
from functools import partial

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main
from attnflow.provenance import described
from attnflow.studies.files import read_study
from attnflow.studies.rerun import recorded

FILE = """
[layer]
normalization = ["softmax", "density-corrected:0.5"]
[study]
t = 0.3
epsilons = [0.2, 0.1]
sizes = [30, 60]
seeds = 2
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study of a command; predictions are tested elsewhere."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "study.toml").write_text(FILE)
    read_study(folder / "study.toml").run(folder / "study.sqlite", progress=False)
    return folder / "study.sqlite"


@pytest.fixture(autouse=True)
def no_predictions(monkeypatch):
    monkeypatch.setattr("attnflow.cli.rerun.report", lambda result, out, options: 0)


def edited(path, copy, statement):
    copy.write_bytes(path.read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute(statement)
    return copy


def test_a_rerun_has_the_same_numbers_bit_for_bit(original, tmp_path, capsys):
    before = original.read_bytes()
    assert main(["rerun", str(original), "--out", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out == "20 cells computed again: all numbers are equal, bit for bit\n"
    assert original.read_bytes() == before and (tmp_path / "again/study.sqlite").exists()
    assert main(["rerun", str(original), "--out", str(tmp_path / "again")]) == 2
    assert "--out must be a folder without a study.sqlite" in capsys.readouterr().err


def test_numbers_that_are_not_the_same_are_told_with_what_has_changed(original, tmp_path, capsys):
    change = "UPDATE cells SET result = json_set(result, '$.error', json_extract(result, '$.error') + 0.25) WHERE seed = 1"
    other = edited(original, tmp_path / "other.sqlite", change)
    with sqlite3.connect(other) as connection:
        connection.execute("UPDATE cells SET versions = json_set(versions, '$.numpy', '1.0')")
        connection.execute("DELETE FROM cells WHERE key IN (SELECT key FROM cells WHERE seed = 0 LIMIT 1)")
    assert main(["rerun", str(other), "--out", str(tmp_path / "again")]) == 1
    said = capsys.readouterr().out
    assert said == (
        "19 cells computed again: 8 differ, by at most 0.25, 8 of them by more than their accuracy; 1 were not in the store "
        f"(numpy 1.0 then, {np.__version__} now)\n"
    )


def test_what_cannot_be_computed_again_says_why(original, tmp_path, capsys):
    made = af.ConvergenceStudy(
        af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.3, (0.2,), (30,), 1
    )
    made.run(tmp_path / "python.sqlite", progress=False)
    (tmp_path / "text.csv").write_text("error\n1\n")
    nameless = edited(original, tmp_path / "nameless.sqlite", "DELETE FROM studies")
    for path, why in (
        (tmp_path / "python.sqlite", "of one that was made in Python"),
        (nameless, "file must say which study it is of"),
        (tmp_path / "text.csv", "or study.sqlite of attnflow converge"),
        (tmp_path / "none.sqlite", "No such file"),
    ):
        assert main(["rerun", str(path), "--out", str(tmp_path / "again")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert not (tmp_path / "none.sqlite").exists() and not (tmp_path / "again").exists()


def test_a_study_of_files_that_have_changed_is_no_longer_that_study(tmp_path, capsys):
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).normal(size=(50, 1)))
    (tmp_path / "study.toml").write_text(
        '[space]\nkind = "euclidean"\ndim = 1\n[density]\nkind = "kernel"\ntokens = "tokens.npy"\n[initial]\nkind = "coordinate"\n'
        '[study]\nt = 0.1\nepsilons = [0.1]\nsizes = ["inf"]'
    )
    read_study(tmp_path / "study.toml").run(tmp_path / "s.sqlite", progress=False)
    assert len(recorded(tmp_path / "s.sqlite").cells) == 1
    np.save(tmp_path / "tokens.npy", np.random.default_rng(1).normal(size=(50, 1)))
    assert main(["rerun", str(tmp_path / "s.sqlite"), "--out", str(tmp_path / "again")]) == 2
    assert "file must be of a study that can be made again" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:  # of another version it may be another one
        connection.execute("UPDATE cells SET versions = json_set(versions, '$.attnflow', '0.0')")
    assert len(recorded(tmp_path / "s.sqlite").cells) == 1


@pytest.mark.parametrize("change", ["json_remove(result, '$.error')", "json_set(result, '$.deviation', 'big')", "'[1]'"])
def test_a_damaged_cell_is_named_before_anything_is_computed(original, tmp_path, capsys, change):
    other = edited(original, tmp_path / "other.sqlite", f"UPDATE cells SET result = {change} WHERE seed = 1")
    assert main(["rerun", str(other), "--out", str(tmp_path / "again")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "store must hold whole cells" in line and not (tmp_path / "again").exists()


def test_a_refined_study_is_kept_with_the_seeds_that_it_took(tmp_path):
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2]\nsizes = [40, 160]\nseeds = 3")
    result = read_study(tmp_path / "study.toml").refine("size", 0.6, store=tmp_path / "s.sqlite", progress=False)
    assert result.study.seeds > 3 and recorded(tmp_path / "s.sqlite").study.seeds == result.study.seeds


def test_a_table_of_cells_says_what_it_is_of(original, tmp_path):
    result = recorded(original).study.run(original, progress=False)
    result.to_csv(tmp_path / "cells.csv")
    told = json.loads((tmp_path / "cells.csv.json").read_text())
    assert told["tables"]["study"]["epsilons"] == [0.2, 0.1] and told["study"]["density"]["kappa"] == 1.0
    assert told["written_by"]["numpy"] == np.__version__ and told["message"] == "finished"


SUM = """
[density]
kind = "exp"
parts = [{kind = "cos", factor = 0.5}]
[initial]
kind = "sum"
parts = [{kind = "sin", mode = 2, factor = 3.0}, {kind = "cos"}]
[study]
t = 0.3
epsilons = [0.2]
sizes = ["inf"]
"""


def test_a_description_is_the_same_whenever_its_file_is_read(tmp_path):
    (tmp_path / "study.toml").write_text(SUM)
    made = [read_study(tmp_path / "study.toml") for _ in range(2)]  # two objects, at two places in memory
    said = made[0].description()
    assert said == made[1].description() and " at 0x" not in str(said)
    sine, cosine = said["initial"]["parts"]
    assert sine == {"kind": "sin", "mode": 2, "axis": 0, "factor": 3.0} and cosine["kind"] == "cos"


class Plain:
    def method(self, x):
        return x


def test_no_description_tells_where_in_memory_something_is():
    things = [Plain(), Plain().method, [Plain()], np.cos, lambda x: x, partial(Plain().method, 1)]
    said = str(described(things))
    assert "Plain object>" in said and "0x" not in said


@pytest.mark.optional
def test_cells_are_a_dataset(original):
    pytest.importorskip("xarray")
    result = recorded(original).study.run(original, progress=False)
    data = result.to_xarray()
    assert dict(data.sizes) == {"normalization": 2, "epsilon": 2, "size": 3, "seed": 2}
    for cell in result.cells:
        where = {name: cell[name] for name in ("normalization", "epsilon", "seed")} | {"size": float(cell["size"])}
        assert float(data.error.sel(where)) == cell["error"]
    assert np.isnan(data.error.sel(size=np.inf, seed=1)).all()
    assert json.loads(data.attrs["written_by"])["numpy"] == np.__version__


def test_a_dataset_without_xarray_names_the_extra(original, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"to_xarray needs xarray: pip install attnflow\[storage\]"):
        recorded(original).study.run(original, progress=False).to_xarray()
