"""What README and the pages beside it promise: code runs, commands exist, study files are valid, pictures are there."""

import configparser
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import attnflow as af
from attnflow.cli import main
from attnflow.studies.files import study_from_tables
from validation.__main__ import NAMES, RESULTS
from validation.claims import of_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES, COMMANDS = "docs/guides/examples.md", "docs/guides/commands.md"


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", read(page), re.S)


def run(code, page):
    names = {}
    exec(compile("import numpy as np, attnflow as af\n" + code, page, "exec"), names)  # noqa: S102  our own page
    return names


def test_readme_is_two_screens():
    assert len(README.splitlines()) <= 120


def test_the_ten_lines_print_what_readme_says_and_agree(capsys):
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    run(code, "README.md")
    printed = capsys.readouterr().out
    assert f"    {printed}" in README
    predicted, measured = map(float, re.findall(r"0\.\d+", printed))
    assert measured == pytest.approx(predicted, rel=0.1)


def test_the_equation_alone_is_solved_to_the_accuracy_asked(capsys):
    names = run(blocks(EXAMPLES, "python")[0], EXAMPLES)
    assert names["solution"].stats["estimated_error"] < 1e-5
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_attention_family_follows_its_limits(capsys):
    run(blocks(EXAMPLES, "python")[1], EXAMPLES)
    near, heads, shape = capsys.readouterr().out.splitlines()
    assert 0 < float(near) < 0.02 and 0 < float(heads) < 0.05 and shape == "(5000, 1)"


@pytest.mark.slow
def test_the_learned_metric_is_one(capsys):
    names = run(blocks(EXAMPLES, "python")[2], EXAMPLES)
    assert names["model"].score(names["X"], names["y"]) > 0.9 and names["gradient"].shape == (300, 2)


@pytest.mark.parametrize("page, first", [(COMMANDS, 0.2), ("docs/start.md", 0.125)])
def test_study_files_are_valid(page, first):
    (text,) = blocks(page, "toml")
    assert study_from_tables(tomllib.loads(text)).epsilons[0] == first


def test_every_command_and_name_exists():
    for command in re.findall(r"`attnflow (\w+)", README + read(COMMANDS)):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
    for module in re.findall(r"python -m ([\w.]+) ", README + read(COMMANDS)):
        assert importlib.util.find_spec(module) or module == "sphinx", module
    section = read("docs/api/index.md").split("## What there is")[1]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert len(table) > 15
    for name in re.findall(r"`([A-Za-z_]\w*)", "\n".join(table)):
        assert any(hasattr(place, name) for place in (af, af.Attention, af.DriftDiffusion, af.learning)), name


def test_every_validation_is_named():
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", read(COMMANDS)))


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
    section = read("docs/theory/learned_metrics.md").split("\n## What learning a metric is worth\n")[1]
    section = section.replace("](../../", "](")
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


def test_the_coverage_of_error_bars_is_quoted_as_measured():
    shares = [float(x) for claim in of_table(RESULTS / "coverage.md") for x in claim.measured.split(" to ")]
    for page in (EXAMPLES, "docs/theory/error_bars.md"):
        low, high = map(float, re.search(r"(\d\d) to (\d\d) %", read(page)).groups())
        assert (low, high) == (round(100 * min(shares)), round(100 * max(shares))), page


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
