"""A Solution as a labelled xarray Dataset, or as a pandas table: what is along which axis, and where."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np

from . import capacity


def to_xarray(solution) -> Any:
    """See `Solution.to_xarray`."""
    xarray = installed("xarray", "to_xarray")
    dims, coordinates = _where(solution)
    dims = ("t", *dims, "column")
    coordinates = {"t": ("t", solution.t)} | coordinates
    if solution.layers is not None:
        coordinates["layers"] = "t", solution.layers
    fields: dict[str, Any] = {"y": (dims, solution.y)}
    errors = solution.node_errors()
    if errors is not None:
        fields["estimated_error"] = dims[1:], errors
    told = {name: json.dumps(getattr(solution, name), default=plain) for name in ("stats", "provenance")}
    return xarray.Dataset(fields, coordinates, {"status": solution.status, "message": solution.message, **told})


def to_dataframe(solution) -> Any:
    """See `Solution.to_dataframe`."""
    pandas = installed("pandas", "to_dataframe")
    dims, coordinates = _where(solution)
    times, columns = len(solution.t), solution.y.shape[-1]
    sizes = solution.y.shape[1:-1]
    count = int(np.prod(sizes))
    capacity.fits(8 * times * count * (1 + len(coordinates) + columns), "y")
    table: dict[str, np.ndarray] = {"t": np.repeat(solution.t, count)}
    if solution.layers is not None:
        table["layers"] = np.repeat(solution.layers, count)
    for name, (dim, values, *_) in coordinates.items():
        shape = [size if other == dim else 1 for other, size in zip(dims, sizes)]
        table[name] = np.tile(np.broadcast_to(np.reshape(values, shape), sizes).ravel(), times)
    names = ["y"] if columns == 1 else [f"y{k + 1}" for k in range(columns)]
    flat = solution.y.reshape(-1, columns)
    return pandas.DataFrame(table | {name: flat[:, k] for k, name in enumerate(names)})


def plain(value):
    """numpy numbers and arrays as JSON."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _where(solution) -> tuple[tuple[str, ...], dict[str, tuple]]:
    """The dimensions between time and columns, and coordinates: name -> (dimension, values[, attributes])."""
    grid = solution.grid
    if grid is None:
        points = np.empty((0, 0)) if solution.points is None else solution.points
        names = ["x"] if points.shape[1] == 1 else [f"x{k + 1}" for k in range(points.shape[1])]
        tokens = {"token": ("token", np.arange(solution.y.shape[1]))}
        return ("token",), tokens | {name: ("token", points[:, k]) for k, name in enumerate(names)}
    units = [{"units": "rad" if axis.angle else "length"} for axis in grid.axes]
    return grid.names, {n: (n, axis.nodes, unit) for n, axis, unit in zip(grid.names, grid.axes, units)}


def installed(package: str, what: str):
    """An optional package, or what `what` needs installed."""
    try:
        return import_module(package)
    except ImportError:
        raise ImportError(f'{what} needs {package}: pip install "attnflow[storage]"') from None
