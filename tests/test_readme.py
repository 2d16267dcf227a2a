"""What README promises: its code runs, its commands exist, its study file is valid, its picture is there."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

import attnflow as af
from attnflow.cli import main
from attnflow.studies.files import study_from_tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_ten_lines_run_and_agree(capsys):
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    exec(compile(code, "README", "exec"), {})  # noqa: S102  our own README
    error, predicted = map(float, capsys.readouterr().out.splitlines())
    assert error == pytest.approx(predicted, rel=0.1)


def test_the_equation_alone_is_solved_to_the_accuracy_asked(capsys):
    names = {}
    exec(compile("import numpy as np, attnflow as af\n" + blocks("python")[1], "README", "exec"), names)  # noqa: S102
    assert names["solution"].stats["estimated_error"] < 1e-5
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_attention_family_follows_its_limits(capsys):
    exec(compile("import numpy as np, attnflow as af\n" + blocks("python")[2], "README", "exec"), {})  # noqa: S102
    near, heads, shape = capsys.readouterr().out.splitlines()
    assert 0 < float(near) < 0.02 and 0 < float(heads) < 0.05 and shape == "(5000, 1)"


def test_the_study_file_is_valid():
    (text,) = blocks("toml")
    assert study_from_tables(tomllib.loads(text)).epsilons[0] == 0.2


def test_every_command_and_name_in_readme_exists():
    for command in re.findall(r"`attnflow (\w+)", README):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
    section = README.split("## What there is")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    for name in re.findall(r"`([A-Za-z_]\w*)", "\n".join(table)):
        assert any(hasattr(place, name) for place in (af, af.Attention, af.DriftDiffusion, af.learning)), name


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)|`(notebooks/[^`]+)`", README):
        assert (ROOT / (target[0] or target[1])).exists(), target


def test_the_two_commands_are_word_for_word_complete():
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/attnflow converge",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest',
    ):
        assert README.count(f"    {command}\n") == 1


def table(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_learned_metrics_are_quoted_as_measured():
    section = README.split("\n## Learned metrics\n")[1].split("\n## ")[0]
    head, _, *quoted = table(section)
    names = {name for row in quoted for name in re.findall(r"\((.+)\)", row[0])}
    results = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    assert {Path(name).stem for name in names} == {"moons", "learned_digits", "meshes"}
    for row in quoted:
        (name,) = re.findall(r"\((.+)\)", row[0])
        columns, _, *measured = table(results[name])
        accuracy, difference = columns.index("accuracy"), columns.index("minus self")
        at = {cells[0]: cells for cells in measured if ", ".join(cells[1:accuracy]) == row[1]}
        assert dict(zip(head[2:5], row[2:5])) == {method: at[method][accuracy] for method in ("self", "L2", "metric")}
        assert row[5] == at["metric"][difference]
    prose = [line for line in section.splitlines() if not line.startswith("|")]
    for number in re.findall(r"[-+]?\d\.\d{4}(?: ± \d\.\d{4})?", "\n".join(prose)):
        assert any(number in text for text in results.values()), number


def test_the_extras_are_those_promised():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert set(config["options.extras_require"]) == {
        "test",
        "fast",
        "gpu",
        "distributed",
        "learning",
        "notebooks",
        "peers",
        "dev",
        "docs",
        "storage",
    }
