"""Rows of numbers that need not be in memory: arrays, .npy files, Zarr and Dask arrays, and several of them in a row.

Files are read and written by position, not mapped: what was read does not count as this process's memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks, files

_KINDS = "fiu"


class Rows:
    """(size, columns) numbers, read some rows at a time; one-dimensional ones are one column."""

    size: int
    columns: int

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows first to last, (last - first, columns), in float64."""
        raise NotImplementedError

    def piece(self, first: int, last: int) -> Piece:
        """What a task is sent: where to read, or what is only here."""
        return self.read(first, last)

    @property
    def places(self) -> list[Path]:
        """The files, or folders, that they are known to be read from."""
        return []


@dataclass(frozen=True)
class _Span:
    rows: Rows
    first: int
    last: int


Piece = np.ndarray | _Span


def load(piece: Piece) -> np.ndarray:
    """The rows, read where this is called."""
    return piece if isinstance(piece, np.ndarray) else piece.rows.read(piece.first, piece.last)


def spans(size: int, block: int) -> Iterator[tuple[int, int]]:
    """First and last row of every block."""
    return ((first, min(first + block, size)) for first in range(0, size, block))


class Sliced(Rows):
    """Whatever can be sliced: NumPy's arrays, mapped ones too, Zarr's, Dask's."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.size, self.columns = _sizes(self.shape)

    def read(self, first: int, last: int) -> np.ndarray:
        return np.asarray(self.array[first:last], dtype=np.float64).reshape(last - first, self.columns)

    @property
    def places(self) -> list[Path]:
        array = self.array
        while array is not None and not isinstance(array, np.memmap):  # a view of a mapped file
            array = getattr(array, "base", None)
        filename = getattr(array, "filename", None)
        return [] if filename is None else [Path(filename)]


class Stored(Sliced):
    """A Zarr array: workers read it themselves."""

    def piece(self, first: int, last: int) -> Piece:
        return _Span(self, first, last)

    @property
    def places(self) -> list[Path]:
        root = getattr(self.array.store, "root", None)
        return [] if root is None else [Path(root) / self.array.path]


class Npy(Rows):
    """A file of numpy.save, which workers read themselves."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self._offset, shape = int(mapped.offset), mapped.shape
        except (ValueError, EOFError, AttributeError) as error:  # an archive has no offset
            raise ValueError(f"{name} must be an .npy file of numbers, got {str(path)!r} ({files.one_line(error)})") from None
        self.path, self.shape, self.dtype = path.absolute(), shape, mapped.dtype  # workers may be in another folder
        self.size, self.columns = _sizes(shape)
        self._mapped = not mapped.flags.c_contiguous

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: type = np.float64) -> Npy:
        """A new file to be written."""
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        return cls(path, "path")

    def read(self, first: int, last: int) -> np.ndarray:
        if self._mapped:  # column by column: rows are not together
            return np.array(np.load(self.path, mmap_mode="r")[first:last], dtype=np.float64)
        row = self.columns * self.dtype.itemsize
        read = np.fromfile(self.path, self.dtype, (last - first) * self.columns, offset=self._offset + first * row)
        return read.reshape(last - first, self.columns).astype(np.float64, copy=False)

    def piece(self, first: int, last: int) -> Piece:
        return _Span(self, first, last)

    @property
    def places(self) -> list[Path]:
        return [self.path]

    def write(self, first: int, values: np.ndarray) -> None:
        """Rows from `first` on, of a file made by `create`."""
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self._offset + first * self.columns * self.dtype.itemsize)
            np.ascontiguousarray(values, dtype=self.dtype).tofile(file)


class Joined(Rows):
    """Shards, one after the other."""

    def __init__(self, shards: list[Rows], name: str) -> None:
        columns = [shard.columns for shard in shards]
        if len(set(columns)) > 1:
            odd = next(k for k, count in enumerate(columns) if count != columns[0])
            raise ValueError(
                f"{name} must be shards of the same number of columns, got {columns[0]} in the first and {columns[odd]} in shard {odd}"
            )
        self.shards, self.columns = shards, columns[0]
        self.starts = [0, *accumulate(shard.size for shard in shards)]
        self.size = self.starts[-1]

    def read(self, first: int, last: int) -> np.ndarray:
        parts = [
            shard.read(max(first - start, 0), min(last - start, shard.size))
            for shard, start in zip(self.shards, self.starts)
            if start < last and start + shard.size > first
        ]
        return np.concatenate(parts)

    def piece(self, first: int, last: int) -> Piece:
        elsewhere = all(isinstance(shard, (Npy, Stored)) for shard in self.shards)
        return _Span(self, first, last) if elsewhere else self.read(first, last)

    @property
    def places(self) -> list[Path]:
        return [place for shard in self.shards for place in shard.places]


def open_rows(value: Any, name: str, bools: bool = False) -> Rows:
    """Rows of whatever a user has: not read yet, but of the right kind.

    Raises
    ------
    FileNotFoundError
        If a path leads nowhere.
    ImportError
        If a folder is Zarr's and Zarr is not installed.
    ValueError, TypeError
        Naming the argument.
    """
    if is_shards(value):
        return Joined([open_rows(part, name, bools) for part in value], name)
    rows: Sliced | Npy
    if isinstance(value, (str, os.PathLike)):
        rows = _open(checks.path(value, name), name)
    elif library_of(value) in ("dask", "zarr"):
        rows = Stored(value) if library_of(value) == "zarr" else Sliced(value)
    else:
        rows = Sliced(value if isinstance(value, np.memmap) else checks.reals(value, name, bools))
    if len(rows.shape) not in (1, 2) or not all(count > 0 for count in rows.shape):  # Dask's may be unknown, nan
        raise ValueError(f"{name} must have shape (N, n), one row a token, got {tuple(rows.shape)}")
    if np.dtype(rows.dtype).kind not in _KINDS + "b" * bools:
        raise TypeError(f"{name} must be real numbers, got the type {str(rows.dtype)[:40]}")
    return rows


def check_finite(block: np.ndarray, first: int, name: str) -> np.ndarray:
    """The block, which begins at row `first`; what is not finite is named by its row."""
    good = np.isfinite(block).all(axis=1)
    if not good.all():
        row = int(good.argmin())
        raise ValueError(f"{name} must be finite, got {checks.entries(block[row])} in row {first + row}")
    return block


def needs_zarr(name: str) -> Any:
    """The package, or what to install."""
    try:
        import zarr
    except ImportError:
        raise ImportError(f'{name} is a Zarr array, which needs zarr: pip install "attnflow[storage]"') from None
    return zarr


def _open(path: Path, name: str) -> Stored | Npy:
    if not path.exists():
        raise FileNotFoundError(f"{name} must be a file that exists, got {str(path)!r}")
    if path.is_dir():
        zarr = needs_zarr(name)
        try:
            return Stored(zarr.open_array(str(path.absolute()), mode="r"))
        except Exception as error:  # of Zarr's many kinds
            raise ValueError(f"{name} must be a Zarr array, got the folder {str(path)!r} ({files.one_line(error)})") from None
    if not path.is_file():
        raise ValueError(f"{name} must be a regular file, got {str(path)!r}, which is something else")
    return Npy(path, name)


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns: one-dimensional numbers are a column."""
    size, columns, *_ = (*shape, 1, 1)
    return size, columns


def is_shards(value: Any) -> bool:
    """Whether it is a list of shards; lists of numbers are arrays."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(_is_shard(part) for part in value)


def _is_shard(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) or getattr(value, "ndim", 0) in (1, 2)


def library_of(value: Any) -> str:
    """The name of the package that it is of."""
    return type(value).__module__.partition(".")[0]
