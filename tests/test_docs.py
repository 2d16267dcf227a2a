"""The site's sources, without Sphinx: names, links, and what is made from the code."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attnflow as af
from attnflow import families, learning, theory

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def module(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


pages, docstrings, check_links = module("pages"), module("docstrings"), module("check_links")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    out = tmp_path_factory.mktemp("generated")
    pages.write(ROOT, out)
    return out


def listed(page):
    return set(re.findall(r"^   ([\w.]+)$|``theory\.(\w+)``", (DOCS / "api" / page).read_text(encoding="utf-8"), re.M))


def test_every_public_name_has_its_place_in_the_reference():
    every = {name for page in (DOCS / "api").glob("*.rst") for pair in listed(page.name) for name in pair if name}
    assert set(af.__all__) <= every
    for page, names in (("families", families.__all__), ("theory", theory.__all__), ("learning", learning._LATER)):
        assert {name for pair in listed(f"{page}.rst") for name in pair if name} == set(names)


def _prose(text):
    """Without code and formulas."""
    return re.sub(r"```\w+\n.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.S)


def test_links_and_toctrees_of_the_pages_lead_somewhere(generated):
    def there(page, target):
        path = DOCS / target.lstrip("/") if target.startswith("/") else page.parent / target
        path = path.resolve()
        made = generated / path.relative_to(DOCS / "generated") if path.is_relative_to(DOCS / "generated") else path
        return any(made.with_name(made.name + suffix).exists() for suffix in ("", ".md", ".rst", ".ipynb"))

    sources = {path: path for pattern in ("*.md", "*.rst") for path in DOCS.rglob(pattern)}
    sources = {path: path for path in sources if not path.is_relative_to(DOCS / "generated") and "stubs" not in path.parts}
    sources |= {DOCS / "generated" / path.relative_to(generated): path for path in generated.rglob("*.md")}
    assert len(sources) > 75
    for page, source in sources.items():
        text = pages.placed(source.read_text(encoding="utf-8"))
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _prose(text))
        targets += re.findall(r"```\{(?:literal)?include\} (\S+)", text)
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.S):
            targets += [line for line in tree.split() if not line.startswith(":")]
        targets += re.findall(r":doc:`([^`]+)`", text)
        for target in targets:
            assert re.match(r"https?://", target) or there(page, target), f"{page.name}: {target}"


def test_figures_say_what_is_stored(generated):
    page = (generated / "figures/f01_bias.md").read_text(encoding="utf-8")
    assert page.startswith("# One layer is one time step") and "f01_bias.png" in page and "| -1.7713 | -1.7713 |" in page
    assert len(list((generated / "figures").glob("*.md"))) == len(list((ROOT / "paper_figures/results").glob("*.png")))


def test_pages_of_an_earlier_build_go_and_others_are_left_as_they_are(generated):
    (generated / "figures/f00_gone.md").write_text("# Gone")
    page = generated / "commands.md"
    before = page.stat().st_mtime_ns
    pages.write(ROOT, generated)
    assert not (generated / "figures/f00_gone.md").exists() and page.stat().st_mtime_ns == before


def test_a_part_that_readme_lost_is_named():
    with pytest.raises(ValueError, match="README.md must have '## B'"):
        pages.part("## A\ntext", "## A", "## B")
    assert pages.part("a [b](validation/results/c.md) z", "a", "z") == "[b](/generated/measurements/c.md)\n"


@pytest.mark.parametrize(
    "link, place",
    [
        ("![a](../../paper_figures/results/f01_bias.png)", "![a](/generated/figures/f01_bias.png)"),
        ("[a](../../paper_figures/results/f01_bias.png)", "[a](/generated/figures/f01_bias.md)"),
        ("[a](paper_figures/results/README.md)", "[a](/generated/figures.md)"),
        ("[a](../validation/results/noise.md)", "[a](/generated/measurements/noise.md)"),
        ("[a](../notebooks/01_first_limit.ipynb)", "[a](/generated/notebooks/01_first_limit.ipynb)"),
        ("[a](docs/guides/limits.md)", "[a](/guides/limits.md)"),
        ("[a](../theory/bias.md)", "[a](../theory/bias.md)"),
    ],
)
def test_links_to_the_repository_lead_to_pages_of_the_site(link, place):
    assert pages.placed(link) == place


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["f = |x - y|^2, a * b"], [r"f = \|x - y\|^2, a \* b"]),
        (["See `f_` and X_, not x_i."], ["See `f_` and X\\_, not x_i."]),
        (["It is", "", "    |a| = b", "", "so."], ["It is", "", "::", "", "    |a| = b", "", "so."]),
        (
            ["A.", "", "Parameters", "----------", "x : (N, n) array", "    In |x|."],
            ["A.", "", "Parameters", "----------", "x : (N, n) array", r"    In \|x\|."],
        ),
        (["Examples", "--------", ">>> a * b", "x_"], ["Examples", "--------", ">>> a * b", "x_"]),
        (["`.gap` of `Layer.gap`"], ["``.gap`` of `Layer.gap`"]),
    ],
)
def test_formulas_of_docstrings_stay_what_they_are(lines, expected):
    assert docstrings.quoted(lines) == expected


def test_a_broken_link_or_anchor_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#x">b</a><a href="https://else.where">c</a><a href="#here">d</a>'
    )
    (tmp_path / "b.html").write_text('<p id="y"><img src="gone.png">')
    assert check_links.broken(tmp_path) == ["a.html: b.html#x", "b.html: gone.png"]


@pytest.mark.optional
@pytest.mark.slow
def test_the_shell_script_runs_a_layer_on_a_scheduler_and_workers_of_this_machine(tmp_path):
    pytest.importorskip("distributed")
    tokens = np.random.default_rng(0).random((3000, 2))
    np.save(tmp_path / "x.npy", tokens)
    np.save(tmp_path / "v.npy", np.cos(2 * np.pi * tokens))
    command = ["bash", DOCS / "guides/sharded_layer.sh", "x.npy", "v.npy", "out.npy", "2"]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), 1e-3)
    assert abs(np.load(tmp_path / "out.npy") - layer(tokens, np.cos(2 * np.pi * tokens))).max() < 1e-11
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "v.npy", "x.npy"]


@pytest.mark.optional
@pytest.mark.slow
def test_the_job_script_runs_a_study_on_workers_of_this_machine(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2, 0.1]\nsizes = [50]\nseeds = 2\n")
    command = [sys.executable, DOCS / "guides/cluster_study.py", "study.toml", "--on", "local", "--workers", "1"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    rows = (tmp_path / "study.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * (2 + 1)  # a head; per temperature two seeds and the infinite-token layer
