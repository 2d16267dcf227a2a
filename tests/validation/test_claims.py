"""The one table of claims, from stored results: all parts and figures are in it, a claim that fails fails the command."""

import json
import shutil
from pathlib import Path

import pytest

from paper_figures import FIGURES
from validation import Claim, Report, claims
from validation.__main__ import NAMES, RESULTS, main


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A copy of all stored results."""
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))
    shutil.copytree(
        claims.FIGURES_AT, tmp_path / "figures", ignore=lambda _, names: [n for n in names if Path(n).suffix != ".json"]
    )
    monkeypatch.setattr(claims, "FIGURES_AT", tmp_path / "figures")
    return tmp_path


def test_everything_stored_holds_and_has_measured_and_required(stored, capsys):
    found = claims.rows(stored / "results", NAMES, stored / "figures")
    assert {*NAMES, *FIGURES, "benchmarks-dense", "benchmarks-pde"} <= {row.result for row in found}
    assert all(row.claim.measured and row.claim.required for row in found)
    assert main(["--stored", "--out", str(stored / "results")]) == 0
    assert f"{len(found)} of {len(found)} claims hold." in capsys.readouterr().out
    pages = {row.result: row.pages for row in found}
    assert "docs/guides/examples.md" in pages["coverage"] and "docs/theory/bias.md" in pages["f23_curved_bias"]


def test_a_stored_table_is_read_as_it_was_written(tmp_path):
    said = [Claim("a: gap", "1e-3", "at most 1e-2", True), Claim("b", "2", "3 +- 0.5", False)]
    (tmp_path / "x.md").write_text(Report("X", "Text.", ["n", "gap"], [["1", "2"]], said).markdown())
    assert claims.of_table(tmp_path / "x.md") == said


def fail_a_table(stored):
    path = stored / "results/noise.md"
    head, yes, rest = path.read_text(encoding="utf-8").partition("| yes ")
    path.write_text(head + "| NO  " + rest, encoding="utf-8")
    assert yes


def test_a_part_without_a_table_of_claims_does_not_hold_and_is_named(tmp_path, capsys):
    (tmp_path / "noise.md").write_text("# Noise\n\n| n |\n|--:|\n| 1 |\n\n- [x] everything is as it should be\n")
    (tmp_path / "benchmarks-sums.md").write_text("# Sums\n\n| n |\n|--:|\n| 1 |\n")
    assert main(["noise", "--stored", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("validation: noise: noise claims something: no table of claims, required one with claim, measured,")
    assert "0 of 1 claims hold." in out


def fail_a_number_of_a_figure(stored):
    path = stored / "figures/f03_depth.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["checks"][2]["measured"] += 1  # what it says of holding is not asked
    path.write_text(json.dumps(summary), encoding="utf-8")


@pytest.mark.parametrize(
    "harm, said",
    [
        (fail_a_table, "validation: noise: softmax, 1 layer(s): worst ratio"),
        (fail_a_number_of_a_figure, "validation: f03_depth: "),
        (lambda stored: (stored / "results/parity.md").unlink(), "validation: parity: parity was run: no table"),
        (lambda stored: (stored / "figures/f30_norm_clocks.json").unlink(), "validation: f30_norm_clocks: "),
    ],
)
def test_what_fails_or_is_missing_fails_the_command(harm, said, stored, capsys):
    harm(stored)
    assert main(["--stored", "--out", str(stored / "results")]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(said) and len(err.splitlines()) == 1
    count = int(out.splitlines()[-2].split()[0])
    assert f"{count} of {count + 1} claims hold." in out
