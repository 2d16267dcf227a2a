"""The floors hold, and importing attnflow stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attnflow

PACKAGE = Path(attnflow.__file__).parent
FLOORS = {
    "capacity": 0,
    "checks": 0,
    "compilation": 0,
    "files": 0,
    "progress": 0,
    "grid": 0,
    "norms": 0,
    "resolution": 0,
    "solution": 0,
    "geometry": 1,
    "similarity": 2,
    "kernels": 3,
    "attention": 4,
    "pde": 4,
    "theory": 4,
    "particles": 5,
    "continuum": 6,
    "learning": 6,
    "studies": 7,
    "plotting": 8,
    "cli": 9,
}
INDEPENDENT = {"pde": {"geometry"}, "theory": {"geometry"}}  # the other oracle sees nothing of attention
OPTIONAL = {"cupy", "torch", "dask", "distributed", "finufft", "pandas", "sklearn"}


def imported_units(path: Path) -> list[tuple[str, bool]]:
    """(unit of attnflow imported, whether inside a function) for every relative or absolute import."""
    tree, found = ast.parse(path.read_text()), []
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    package = ["attnflow", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{full}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(n.split(".")[1], id(node) in inside) for n in names if n.startswith("attnflow.")]
    return found


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_import_only_from_lower_floors(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other, inside_function in imported_units(path):
        if other == unit or (other == "plotting" and inside_function and unit != "cli"):
            continue  # a result's .plot() may import plotting inside the method
        assert FLOORS[other] < FLOORS[unit] or FLOORS[unit] == 0 == FLOORS[other], f"{path} imports {other}"
        if unit in INDEPENDENT and FLOORS[other] > 0:
            assert other in INDEPENDENT[unit], f"{path} imports {other}"


def test_every_folder_has_a_floor():
    units = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert units - {"__init__", "__pycache__"} <= set(FLOORS)


def test_import_loads_no_optional_package_and_neither_matplotlib_nor_sympy():
    code = "import attnflow, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "attnflow" in loaded
    assert not loaded & (OPTIONAL | {"matplotlib", "sympy"})


def test_nothing_pickled_and_nothing_evaluated():
    for path in SOURCES:
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert not names & {"eval", "exec", "pickle", "sympify", "parse_expr"}, path
        assert "allow_pickle=True" not in path.read_text()


def test_loops_are_kept_on_disk_by_one_function():
    """numba's own option raises while a read-only installation is imported."""
    kept = [path.name for path in SOURCES if "cache=True" in path.read_text()]
    assert kept == ["compilation.py"]
