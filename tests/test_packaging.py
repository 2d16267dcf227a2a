"""What is built holds the whole package and runs where nothing of the source tree is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import attnflow
from attnflow.cli import main

TREE = Path(attnflow.__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", "*-output", "build", "dist")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import attnflow as af, numpy as np
assert af.__file__.startswith(sys.argv[1]), af.__file__
print(af.Attention(af.SquaredDistance(af.Circle()), 0.1)(np.zeros((3, 1)), np.arange(3.0)).mean())
"""


def files_of(package: Path) -> set[str]:
    return {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def build(kind: str, tree: Path, out: Path) -> Path:
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(out)], cwd=tree, capture_output=True, text=True, check=True)
    return out / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_wheel_made_of_the_source_archive_is_the_whole_package_and_runs_alone(tmp_path):
    shutil.copytree(TREE, tmp_path / "tree", ignore=LEFT_OUT)
    archive = build("build_sdist", tmp_path / "tree", tmp_path / "archive")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    wheel = build("build_wheel", source, tmp_path / "wheel")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "alone"),
        str(wheel),
    ]
    subprocess.run(install, check=True)
    assert files_of(tmp_path / "alone" / "attnflow") == files_of(TREE / "attnflow")
    run = [sys.executable, "-c", RUN, str(tmp_path / "alone")]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "1.0\n"
    assert (
        wheel.name.startswith(f"attnflow-{attnflow.__version__}-") and archive.name == f"attnflow-{attnflow.__version__}.tar.gz"
    )


def test_the_citation_is_of_this_version_and_names_the_papers_of_the_theory():
    text = (TREE / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.M)[1] == attnflow.__version__
    sources = (TREE / "docs/theory/sources.md").read_text(encoding="utf-8")
    assert set(re.findall(r'"arXiv:([\d.]+)"', text)) == set(re.findall(r"arxiv\.org/abs/([\d.]+\d)", sources))


def test_the_version_stands_in_one_place(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"attnflow {attnflow.__version__}\n"
