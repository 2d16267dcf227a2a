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
    "display": 0,
    "compilation": 0,
    "exports": 0,
    "files": 0,
    "functions": 0,
    "progress": 0,
    "provenance": 0,
    "recording": 0,
    "stores": 0,
    "grid": 0,
    "norms": 0,
    "resolution": 0,
    "simplex": 0,
    "solution": 0,
    "geometry": 1,
    "similarity": 2,
    "kernels": 3,
    "families": 3,
    "attention": 4,
    "pde": 4,
    "theory": 4,
    "particles": 5,
    "sharded": 5,
    "continuum": 6,
    "learning": 6,
    "studies": 7,
    "plotting": 8,
    "cli": 9,
}
INDEPENDENT = {"pde": {"geometry"}, "theory": {"geometry"}, "families": set()}  # other oracles see nothing of attention
OPTIONAL = {"cupy", "torch", "dask", "distributed", "finufft", "pandas", "sklearn", "xarray", "zarr"}


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


# top first: a file imports only from below, or from what stands beside it in its own folder
ORDER = {
    "pde": (
        "coupled forward conformal", "equations masses", "equation spectrum", "methods watched", "volumes nodes harmonics hermite", "report",
        "eigenvalues refinement", "problem reach", "generator sources", "timing", "peaks", "grids propagator", "backends boundaries chebyshev",
    ),
    "kernels": (
        "near", "choice", "cupy_engine", "nufft_engine", "cells_engine", "numba_engine reference_engine", "costs", "registry rules scaling threads", "masks",
    ),
}  # fmt: skip


def module_graph():
    """Every file's imports from the package, inside functions and for types too: name -> names."""
    files = {
        path: ".".join(("attnflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
    }
    names, graph = set(files.values()), {}
    for path, name in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                full = ".".join([*base, *([node.module] if node.module else [])])
                found |= {f"{full}.{alias.name}" if f"{full}.{alias.name}" in names else full for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = (found & names) - {name}
    return graph


def test_no_circle_of_imports_anywhere():
    graph, below = module_graph(), set()
    while rest := [name for name in graph if name not in below]:
        free = [name for name in rest if graph[name] <= below]
        assert free, f"a circle among {rest}"
        below.update(free)


@pytest.mark.parametrize("unit", ORDER)
def test_nothing_climbs_inside_a_folder(unit):
    graph, prefix = module_graph(), f"attnflow.{unit}."
    floor = {name: -k for k, names in enumerate(ORDER[unit]) for name in names.split()}
    rooms = {name: name.removeprefix(prefix).split(".")[0] for name in graph if name.startswith(prefix)}
    for room in set(rooms.values()):  # a new engine has a place
        if room.endswith("_engine"):
            floor.setdefault(room, floor["cupy_engine"])
    assert set(rooms.values()) == set(floor), "a file without a place"
    for name, room in rooms.items():
        for other in graph[name] & set(rooms):
            assert rooms[other] == room or floor[rooms[other]] < floor[room], f"{name} imports {other}"


def test_nothing_below_the_equations_names_one():
    for path in (PACKAGE / "pde").rglob("*.py"):
        if path.stem not in ("coupled", "forward", "conformal", "equations", "__init__"):
            named = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not named & {"Equation", "DriftDiffusion", "Heat", "FokkerPlanck", "General", "Heads", "ConformalHeat"}, path


def test_an_engine_is_a_module_or_folder_of_its_name():
    from attnflow.kernels import ENGINES

    for name, engine in ENGINES.items():
        assert engine.module == f"attnflow.kernels.{name}_engine"


def test_plotting_imports_no_result_class():
    results = {"Solution", "StudyResult", "Comparison", "Spectrum", "LayerSpectrum", "FeynmanKac", "ConvergenceStudy", "Parity"}
    for path in (PACKAGE / "plotting").glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not {alias.name for node in nodes for alias in node.names} & results, path


def test_what_compiled_loops_share_is_named_where_they_are_kept():
    """numba would run old code from disk after an edit of another file: `cached_njit` has to be told of it."""
    for path in SOURCES:
        text = path.read_text()
        if "cached_njit(" not in text or path.name == "compilation.py":
            continue
        package = ["attnflow", *path.relative_to(PACKAGE).parent.parts]
        imports = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom) and node.level]
        taken = {
            ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]) for node in imports
        }
        compiled = {name for name in taken if any(w in name for w in ("arithmetic", "tiles", "rules"))}
        assert not compiled or "SHARED" in text, path


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
        names = [n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)]
        if path.name == "generated.py":
            names.remove("exec")  # once: of text that is printed there from a tree of known nodes
        assert not {*names} & {"eval", "exec", "pickle", "sympify", "parse_expr"}, path
        assert "allow_pickle=True" not in path.read_text()


def test_loops_are_kept_on_disk_by_one_function():
    """numba's own option raises while a read-only installation is imported."""
    kept = [path.name for path in SOURCES if "cache=True" in path.read_text()]
    assert kept == ["compilation.py"]
