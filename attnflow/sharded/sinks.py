"""Where results go: an array in memory, an .npy file or a Zarr array, written block by block, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .. import capacity, checks
from .rows import Npy, Rows, is_shards, library_of, needs_zarr


class Sink:
    """(size, columns) numbers: `write` rows in any order, then `finish`, or `abandon`."""

    def __init__(self, out: str | os.PathLike | None, size: int, columns: int, block: int) -> None:
        self._path = None if out is None else check_out(out)
        self._partial: Path | None = None
        self._array: Any  # of the kind that the path's end tells
        shape = size, columns
        if self._path is None:
            capacity.fits(8 * size * columns, "out=None")
            self._array = np.empty(shape)
            return
        self._partial = self._path.with_name(f".{secrets.token_hex(8)}.partial")
        if self._path.suffix == ".npy":
            self._array = Npy.create(self._partial, shape)
        else:
            chunks = min(block, size), columns
            self._array = needs_zarr("out").open_array(str(self._partial), mode="w", shape=shape, chunks=chunks, dtype="f8")

    def write(self, first: int, values: np.ndarray) -> None:
        """Rows from `first` on."""
        if isinstance(self._array, Npy):
            self._array.write(first, values)
        else:
            self._array[first : first + len(values)] = values

    def finish(self) -> Any:
        """What was written: the array, one that is mapped, or Zarr's."""
        if self._path is None:
            return self._array
        assert self._partial is not None
        self._partial.replace(self._path)
        self._partial = None
        if self._path.suffix == ".npy":
            return np.load(self._path, mmap_mode="r")
        return needs_zarr("out").open_array(str(self._path), mode="r")

    def abandon(self) -> None:
        """Nothing is left of what is not finished."""
        if self._partial is None:
            return
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.unlink(missing_ok=True)


def check_out(out: str | os.PathLike) -> Path:
    """A path that can be written, of a kind that its end tells."""
    path = checks.path(out, "out")
    if path.suffix not in (".npy", ".zarr"):
        raise ValueError(f"out must end in .npy or .zarr, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"out must be in a folder that exists, got {str(path)!r}")
    if path.suffix == ".zarr":
        needs_zarr("out")
        if path.exists():
            raise ValueError(f"out must be new for a Zarr array, got {str(path)!r}, which exists")
    elif path.exists() and not path.is_file():
        raise ValueError(f"out must be a file to write, got {str(path)!r}, which is something else")
    return path


def check_apart(out: Path, rows: Rows, name: str) -> None:
    """ValueError if the result would replace what it is computed from, or be written into its folder."""
    for place in rows.places:
        if place.exists() and any(path.exists() and path.samefile(place) for path in (out, *out.absolute().parents)):
            raise ValueError(f"out must be another file than {name}, got {str(out)!r} for both")


def like(given: Any, result: Any, block: int) -> Any:
    """The result as a Dask array where one came in, or a shard that is one."""
    if not any(library_of(part) == "dask" for part in (given if is_shards(given) else [given])):
        return result
    from dask import array

    return array.from_array(result, chunks=(block, -1))
