"""Runs on disk: how a Solution is described in JSON, and stores that are written while a run goes on.

A store is a folder. Whatever is in it was written whole, under another name, and then renamed; a run that is killed leaves
what it had finished:

    run/            start.npz (what is known before the run), 000000000.npz, ... (one saved layer each), end.npz
    run.zarr/       a Zarr group with the arrays t, y, layers, points, of which t is written last, and the description
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import capacity, checks, exports, files
from .grid import Axis, Grid

WHAT = "a file written by Solution.save, or the store of a run"
CUT_OFF = "cut off: the run was ended from outside; what it had finished is here"
_STILL = ("points", "embedding")  # arrays without an entry per layer or time
_ARRAYS = ("t", "y", "layers", *_STILL)
_PLACED = {"points": ("place1", "coordinate"), "embedding": ("node", "direction")}  # names of their axes in Zarr
_START, _END = "start.npz", "end.npz"
_KEY = "attnflow"  # of the description among the attributes of a Zarr group


def encode(grid: Grid | None, status: int, message: str, stats: dict, provenance: dict, saved: int = 0) -> str:
    """All of a Solution that is no array, and how many layers or times a store holds at least once its run has ended."""
    meta = {
        "axes": [] if grid is None else [[a.kind, a.size, a.low, a.high] for a in grid.axes],
        "sphere": bool(grid and grid.sphere),
        "endless": list(grid.endless) if grid else [],
        "status": status,
        "message": message,
        "stats": stats,
        "provenance": provenance,
        "saved": saved,
    }
    return json.dumps(meta, default=exports.plain)


def decode(text: str, found: int) -> dict[str, Any]:
    """The arguments of a Solution that `encode` wrote, of which so many layers or times were found.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError, RecursionError
        If it did not, or some are missing.
    """
    meta = json.loads(text)
    if found < meta.get("saved", 0):  # which older files lack
        raise ValueError(f"it lacks saved layers or times: {meta['saved']} were written, {found} are whole")
    axes = tuple(Axis(*axis) for axis in meta["axes"])
    endless = tuple((bool(low), bool(high)) for low, high in meta["endless"])
    grid = Grid(axes, bool(meta["sphere"]), endless) if axes else None
    plain = {name: meta[name] for name in ("status", "message", "stats")}
    told = plain["stats"].get("statistics") if isinstance(plain["stats"], dict) else None
    if isinstance(told, dict):
        plain["stats"]["statistics"] = {name: np.array(values) for name, values in told.items()}
    return {"grid": grid, **plain, "provenance": meta.get("provenance", {})}


class Writer(Protocol):
    """An open store."""

    def write(self, k: int, t: float, y: np.ndarray, layer: float | None) -> None:
        """The k-th saved layer or time, counted from 0; once more if the first try was cut short."""

    def end(self, meta: str) -> None:
        """How the run ended."""


def check_new(store: str | os.PathLike) -> Path:
    """The path of a store that is not there yet, in a folder that is.

    Raises
    ------
    TypeError, ValueError
        Of what is no such path; whatever is there is left as it is.
    ImportError
        If it ends in .zarr and zarr is not installed.
    """
    path = checks.path(store, "store")
    try:
        there, parent = os.path.lexists(path), path.parent.is_dir()
    except OSError as error:
        raise ValueError(f"store must be the name of a folder, got {checks.short(store)} ({error.strerror})") from None
    if there:
        raise ValueError(f"store must be a new folder, got {str(path)!r}, which exists")
    if not parent:
        raise ValueError(f"store must be in a folder that exists, got {str(path)!r}")
    if path.suffix in (".npz", ".npy"):
        raise ValueError(f"store must be a folder, or end in .zarr, got {str(path)!r}; Solution.save writes a single file")
    if path.suffix == ".zarr":
        exports.installed("zarr", "a store that ends in .zarr")
    return path


def create(path: Path, meta: str, length: int, **still: np.ndarray | None) -> Writer:
    """A store of up to `length` saved layers or times, Zarr where its name ends in .zarr; `still` are points and embedding."""
    known = {name: array for name, array in still.items() if array is not None}
    return (_Zarr if path.suffix == ".zarr" else _Pieces)(path, meta, length, known)


class _Pieces:
    def __init__(self, path: Path, meta: str, length: int, still: dict[str, np.ndarray]) -> None:
        self.path = path
        path.mkdir()
        self._save(_START, meta=np.array(meta), **still)

    def write(self, k: int, t: float, y: np.ndarray, layer: float | None) -> None:
        layers = {} if layer is None else {"layers": np.array([layer])}
        self._save(_piece(k), t=np.array([t]), y=y[None], **layers)

    def end(self, meta: str) -> None:
        self._save(_END, meta=np.array(meta))

    def _save(self, name: str, **arrays: Any) -> None:
        with files.whole(self.path / name, name="store") as file:
            np.savez(file, **arrays)


class _Zarr:
    def __init__(self, path: Path, meta: str, length: int, still: dict[str, np.ndarray]) -> None:
        self.group = import_module("zarr").create_group(str(path), attributes={_KEY: meta})
        self.length = length
        for name, array in still.items():
            self._array(name, array.shape, array.shape, _PLACED[name])[...] = array

    def write(self, k: int, t: float, y: np.ndarray, layer: float | None) -> None:
        if not k:
            places = tuple(f"place{j + 1}" for j in range(y.ndim - 1))
            self._array("y", (self.length, *y.shape), (1, *y.shape), ("t", *places, "column"))
            self._array("t", (self.length,), (1,), ("t",))
            if layer is not None:
                self._array("layers", (self.length,), (1,), ("t",))
        values = {"y": y, "layers": layer, "t": t}  # the time last: what has one is whole
        for name in ("y", "t") if layer is None else values:
            self.group[name][k] = values[name]

    def end(self, meta: str) -> None:
        self.group.attrs[_KEY] = meta

    def _array(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dims: tuple[str, ...]):
        checked = import_module("zarr.codecs").ZstdCodec(checksum=True)
        kind = {"dtype": "float64", "fill_value": np.nan, "dimension_names": dims, "compressors": [checked]}
        return self.group.create_array(name, shape=shape, chunks=chunks, overwrite=True, **kind)


def is_store(path: str | os.PathLike) -> bool:
    """Whether there is a folder that looks like one."""
    path = checks.path(path, "path")
    return any((path / name).is_file() for name in (_START, "zarr.json"))


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a store as far as it was written, and the description as "meta".

    Raises
    ------
    ValueError
        Naming path, if it is no such store, or nothing had been finished.
    ImportError
        Of a Zarr group without zarr.
    """
    path = checks.path(path, "path")
    arrays = _read_pieces(path) if (path / _START).is_file() else _read_zarr(path)
    if not len(arrays.get("t", ())):
        raise _refused(path, "nothing was finished before it was cut off")
    return arrays


def _read_pieces(path: Path) -> dict[str, np.ndarray]:
    names = [_START]
    while (path / _piece(len(names) - 1)).is_file():
        names.append(_piece(len(names) - 1))
    names += [_END] if (path / _END).is_file() else []
    capacity.fits(2 * sum((path / name).stat().st_size for name in names), "path")
    pieces = [files.read_archive(path / name, ("meta", *_ARRAYS), "path", WHAT) for name in names]
    found = {name: [piece[name] for piece in pieces if name in piece] for name in ("meta", *_ARRAYS)}
    try:
        once = {name: found.pop(name)[-1] for name in ("meta", *_STILL) if found[name]}
        return once | {name: np.concatenate(parts) for name, parts in found.items() if parts}
    except ValueError as error:
        raise _refused(path, files.one_line(error)) from None


def _read_zarr(path: Path) -> dict[str, np.ndarray]:
    zarr = exports.installed("zarr", "reading a Zarr group")
    try:
        group = zarr.open_group(str(path), mode="r")
        found = {"meta": np.array(group.attrs[_KEY])}
        kept = {name: group[name] for name in _ARRAYS if (path / name).exists()}
        if "t" not in kept:
            return found
        times = kept["t"]
        for name, array in kept.items():
            _check_form(name, array, times.shape)
        done = bisect_left(range(times.shape[0]), True, key=lambda k: not np.isfinite(times[k]))
        needed = [a.nbytes if name in _STILL else a.nbytes // a.shape[0] * done for name, a in kept.items()]
        capacity.fits(2 * sum(needed), "path")
        found |= {name: np.asarray(array[:] if name in _STILL else array[:done]) for name, array in kept.items()}
    except Exception as error:  # zarr lets through whatever damaged files lead to
        raise _refused(path, files.one_line(error)) from None
    layers = found.get("layers")
    whole = layers is not None and (layers == np.floor(layers)).all()
    return found | ({"layers": found["layers"].astype(int)} if whole else {})


def _check_form(name: str, array, times: tuple[int, ...]) -> None:
    """Refuse metadata that `_Zarr` did not write: with damaged ones, the same bytes read as other numbers."""
    chunks = array.shape if name in _STILL else (1, *array.shape[1:])
    little = import_module("zarr.codecs").BytesCodec(endian="little")
    lengths = times if name in _STILL else array.shape[:1]
    if (array.dtype, array.chunks, lengths) != (np.float64, chunks, times) or little not in array.metadata.codecs:
        raise ValueError(f"the array {name} has another form than was written")


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(f"path must be {WHAT}, got {str(path)!r} ({why})")


def _piece(k: int) -> str:
    return f"{k:09d}.npz"
