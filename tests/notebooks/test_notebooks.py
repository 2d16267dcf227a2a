"""Every notebook runs from top to bottom, and is stored without outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

FIRST = "01_first_limit"  # the others run with the slow tests
LEARNED = "09_learned_metric"  # needs PyTorch
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
marks = {path.stem: pytest.mark.slow for path in NOTEBOOKS} | {FIRST: ()} | {LEARNED: (pytest.mark.slow, pytest.mark.optional)}
runs = [pytest.param(path, marks=marks[path.stem]) for path in NOTEBOOKS]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", runs, ids=lambda path: path.stem)
def test_it_runs_without_an_error_and_shows_pictures(path, monkeypatch):
    if path.stem == LEARNED:
        pytest.importorskip("torch")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook's own backend is the one that shows pictures inline
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output.text for output in outputs if "Warning" in output.get("text", "")]


@each_notebook
def test_it_is_stored_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert all("execution" not in cell.metadata for cell in cells)
