"""A read-only installation without a home folder works, and says where compiled loops are kept."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import attnflow

RUN = "import attnflow as af; print(af.Attention(af.SquaredDistance(af.Euclidean(1)), 1.0, backend='numba')([[0.0], [1.0]]).sum())"


@pytest.fixture
def installed(tmp_path):
    """A copy of the package where nothing can be kept, not even by root: what should be folders are files."""
    source, target = Path(attnflow.__file__).parent, tmp_path / "site" / "attnflow"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [target, *(p for p in target.rglob("*") if p.is_dir())]:
        (folder / "__pycache__").write_text("")
    (tmp_path / "tmp").mkdir()
    hidden = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH", "TMPDIR")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"HOME": "/dev/null", "PYTHONPATH": str(target.parent), "TMPDIR": str(tmp_path / "tmp")}
    return tmp_path, environment


def run(folder, environment, code=RUN):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_read_only_installation_keeps_compiled_loops_in_a_temporary_folder(installed):
    folder, environment = installed
    first = run(folder, environment)
    assert first.stdout == "1.0\n" and first.stderr.count("compiled loops are kept in") == 1
    (kept,) = (folder / "tmp").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    compiled = {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")}
    assert compiled and run(folder, environment).stdout == "1.0\n"
    assert compiled == {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")}  # taken from there


@pytest.mark.skipif(os.name == "nt", reason="no such files or limits there")
def test_a_temporary_folder_that_others_can_write_to_is_not_trusted(installed):
    folder, environment = installed
    foreign = folder / "tmp" / f"attnflow-{os.getuid()}"
    foreign.mkdir()
    foreign.chmod(0o777)
    done = run(folder, environment, "import attnflow")
    assert "compiled loops are kept in" in done.stderr and f"{foreign}:" not in done.stderr
    assert not list(foreign.iterdir())


@pytest.mark.parametrize("shared", [True, False])
def test_an_edit_of_a_file_that_is_compiled_into_a_loop_is_noticed(tmp_path, shared):
    (tmp_path / "inner.py").write_text("import numba\n@numba.njit\ndef number():\n    return 1.0\n")
    (tmp_path / "outer.py").write_text(
        "import inner\nfrom attnflow.compilation import cached_njit\n"
        f"@cached_njit({'(inner.__file__,)' if shared else ''})\ndef loop():\n    return inner_number()\n"
        "inner_number = inner.number\nprint(loop())\n"
    )
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
        "PYTHONPATH": str(Path(attnflow.__file__).parents[1]),
    }
    assert run(tmp_path, environment, "import outer").stdout == "1.0\n"
    (tmp_path / "inner.py").write_text("import numba\n@numba.njit\ndef number():\n    return 22.0\n")
    assert run(tmp_path, environment, "import outer").stdout == ("22.0\n" if shared else "1.0\n")
