"""Named arrays in a safetensors file: an 8-byte length, a JSON header, raw arrays; read one at a time, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import capacity, checks, files

_HEADER = 100_000_000  # bytes, the most that the format allows
_DIMENSIONS = 32  # that every NumPy has
_METADATA = "__metadata__"
_STORED = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "U8": "|u1",
    "BOOL": "|b1",
}
_WRITTEN = {np.dtype(stored): name for name, stored in _STORED.items() if name != "BF16"}


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
    tensors : mapping of str to array
        Of float64, float32, float16, int64, int32, uint8 or bool; any shape.
    metadata : mapping of str to str, optional
        Notes kept beside the arrays.

    Raises
    ------
    TypeError
        If there are no mappings, a name or a note is no text, or an array is of another type.
    ValueError
        If an array is called "__metadata__", which the format keeps for the notes, or has masked entries.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/line.safetensors", {"slope": np.array([2.0, 3.0])}, {"unit": "m"})
    ...     file = read_tensors(f"{folder}/line.safetensors")
    ...     list(file), file["slope"], file.metadata
    (['slope'], array([2., 3.]), {'unit': 'm'})
    """
    checks.instance(tensors, Mapping, "tensors", "a mapping of names to arrays")
    checks.instance({} if metadata is None else metadata, Mapping, "metadata", "a mapping of str to str, or None")
    arrays = {name: _writable(name, array) for name, array in tensors.items()}
    notes = dict(metadata or {})
    if odd := [note for pair in notes.items() for note in pair if not isinstance(note, str)]:
        raise TypeError(f"metadata must map str to str, got {checks.short(odd[0])}")
    header: dict[str, Any] = {_METADATA: notes} if notes else {}
    end = 0
    # the widest numbers first: each array then starts at a multiple of its item size
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        kind = _WRITTEN[arrays[name].dtype]
        header[name] = {"dtype": kind, "shape": arrays[name].shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER:
        raise ValueError(f"tensors must have a header of at most {_HEADER} bytes, got {len(arrays)} arrays of {len(text)}")
    with files.whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(arrays[name].tobytes())


def _writable(name: object, array: object) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"tensors must have names of type str, got {checks.short(name)}")
    if name == _METADATA:
        raise ValueError(f"tensors must not be called {_METADATA!r}, which the format keeps for notes")
    if np.ma.is_masked(array):
        raise ValueError(f"tensors must have no masked entries, got {checks.short(array)} for {name!r}")
    result = np.asarray(array)
    stored = result.dtype.newbyteorder("<")
    if stored not in _WRITTEN:
        accepted = ", ".join(str(dtype) for dtype in _WRITTEN)
        raise TypeError(f"tensors must be arrays of {accepted}, got {result.dtype} for {name!r}")
    return result.astype(stored, copy=False)


@dataclass(frozen=True, repr=False)
class TensorFile(Mapping[str, np.ndarray]):
    """The arrays of a file by name; each is read when it is asked for, nothing is kept.

    16-bit floats come as float32, which holds them exactly; other types as they are.

    Attributes
    ----------
    path : Path
    metadata : dict
        Notes, str to str.
    """

    path: Path
    metadata: dict[str, str]
    _entries: dict[str, tuple[str, tuple[int, ...], int]]  # stored type, shape, first byte in the file

    def __getitem__(self, name: str) -> np.ndarray:
        kind, shape, begin = self._entries[name]
        count, stored = prod(shape), np.dtype(_STORED[kind])
        capacity.fits(count * max(stored.itemsize, 4 * (kind in ("F16", "BF16"))), f"{name} of {str(self.path)!r}")
        with files.open_regular(self.path, "path") as file:
            file.seek(begin)
            content = file.read(count * stored.itemsize)
        if len(content) < count * stored.itemsize:
            raise ValueError(f"path must be a safetensors file, got {str(self.path)!r}, cut off since it was opened")
        array = np.frombuffer(bytearray(content), stored).reshape(shape)
        if kind == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32) if kind == "F16" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, which is not read for it."""
        return self._entries[name][1]

    def __repr__(self) -> str:
        return f"TensorFile({str(self.path)!r}, {len(self)} arrays)"


def read_tensors(path: str | os.PathLike) -> TensorFile:
    """Open a safetensors file: its header is checked at once against all that the file holds.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    TensorFile

    Raises
    ------
    ValueError
        Naming the file and what is wrong: not of this format, cut off, a header larger than the file or than 100 MB, a name
        twice, an unknown type, or arrays that overlap, leave gaps, or do not have the size of their shape.
    OSError
        If there is no such file, or it may not be read.

    Examples
    --------
    See `write_tensors`.
    """
    wrong = f"path must be a safetensors file, got {os.fspath(path)!r}" if isinstance(path, (str, os.PathLike)) else ""
    with files.open_regular(path, "path") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER):
            claimed = f"whose header would have {length} bytes of {size}" if size >= 8 else f"of {size} bytes"
            raise ValueError(f"{wrong}, {claimed}")
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wrong} (its header is no JSON: {files.one_line(error)})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{wrong} (its header is no table)")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(note, str) for note in metadata.values()):
        raise ValueError(f"{wrong} (its metadata is no table of text)")
    entries, spans = {}, []
    for name, entry in header.items():
        try:
            kind, shape, (begin, end) = (entry[key] for key in ("dtype", "shape", "data_offsets"))
            plain = all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end))
            plain = plain and len(shape) <= _DIMENSIONS and prod(number or 1 for number in shape) < 2**60
        except (TypeError, KeyError, ValueError):
            plain = False
        if not plain:
            raise ValueError(f"{wrong} (no type, shape and place for {name[:80]!r})")
        if not isinstance(kind, str) or kind not in _STORED:
            raise ValueError(f"{wrong} ({name[:80]!r} is of type {str(kind)[:20]!r}, accepted are {', '.join(_STORED)})")
        if end - begin != prod(shape) * np.dtype(_STORED[kind]).itemsize:
            raise ValueError(f"{wrong} ({name[:80]!r} of shape {tuple(shape)} and type {kind} has {end - begin} bytes)")
        entries[name] = kind, tuple(shape), 8 + length + begin
        spans.append((begin, end, name))
    covered = 0
    for begin, end, name in sorted(spans):
        if begin != covered:
            raise ValueError(f"{wrong} ({name[:80]!r} starts at byte {begin} where the arrays before it end at {covered})")
        covered = end
    if covered != size - 8 - length:
        raise ValueError(
            f"{wrong} (its arrays end at byte {covered}, the file holds {size - 8 - length}: it is cut off or longer)"
        )
    return TensorFile(Path(path), metadata, entries)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table from its entries, each name once."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:80]!r} comes twice")
    return table
