"""Files: written whole or not at all, and read only as far as they are what they claim to be.

Nothing that is read is executed, and nothing is allocated because a header says so: what a header declares is compared
with what the file holds, and with the memory there is, before any array is made.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from math import prod
from typing import IO, Any, cast

import numpy as np

from . import capacity, checks

_PIECE = 2**24  # bytes read at once
_DEFLATE = 1032  # the most that deflate can save
_HEADER = 2**14  # bytes of an array's header in a compressed file, which may be all that is compressed


@contextmanager
def whole(path: str | os.PathLike, mode: str = "wb", name: str = "path") -> Iterator[IO]:
    """An open file that becomes `path` when all is written; if anything fails, nothing is left of it.

    Until then it has a name of its own in the same folder that nobody can foresee, so that no link of that name can
    lead elsewhere. Like `open`, it leaves permissions to the umask.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(f"{folder}/notes.txt", "w") as file:
    ...         _ = file.write("all of it")
    ...     os.listdir(folder)
    ['notes.txt']
    """
    path = checks.path(path, name)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{name} must be a file to write, got {str(path)!r}, which is something else")
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:  # in the user's words: the partial file is not his
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        text: dict[str, Any] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
        with open(handle, mode, **text) as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_bytes(path: str | os.PathLike, most: int, name: str) -> bytes:
    """A small file's content; refused if it is larger than `most` bytes, or not a regular file."""
    with open_regular(path, name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{name} must have at most {most} bytes, got more in {os.fspath(path)!r}")
    return content


def read_json(path: str | os.PathLike, most: int, name: str) -> dict[str, Any]:
    """The table of a JSON file of at most `most` bytes; refused as `read_bytes` does, and if it is none."""
    content = read_bytes(path, most, name)
    try:
        table = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be a JSON table, got {os.fspath(path)!r} ({one_line(error)})") from None
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a JSON table, got {os.fspath(path)!r} with {checks.short(table)}")
    return table


def read_array(path: str | os.PathLike, name: str) -> np.ndarray:
    """The numbers of an .npy file.

    Raises
    ------
    ValueError
        In one line that begins with `name`: not such a file, damaged, no numbers, or more than fit into memory.
    OSError
        If there is no such file, or it may not be read.
    """
    with open_regular(path, name) as file:
        if file.peek(2)[:2] == b"PK":
            raise ValueError(f"{name} must be a single .npy array, got the archive {os.fspath(path)!r}")
        return _read_npy(file, os.fstat(file.fileno()).st_size, name, f"an .npy file of numbers, got {os.fspath(path)!r}")


def read_archive(path: str | os.PathLike, accepted: Collection[str], name: str, what: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, numbers or text, all of them among the accepted names.

    Raises as `read_array`; `what` says what kind of file was expected.
    """
    wanted = f"{what}, got {os.fspath(path)!r}" if isinstance(path, (str, os.PathLike)) else what
    with open_regular(path, name) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile lets through whatever damaged bytes lead to
            raise ValueError(f"{name} must be {wanted} ({one_line(error)})") from None
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names) or not set(names) <= set(accepted):
            odd = next((n for n in names if n not in accepted), "one twice")
            raise ValueError(f"{name} must be {wanted} (it may hold {', '.join(sorted(accepted))}, got {odd[:40]!r})")
        for member in members:
            if member.compress_size > size or member.file_size > _HEADER + _DEFLATE * member.compress_size:
                raise ValueError(f"{name} must be {wanted} ({member.filename} declares more than the file holds)")
        capacity.fits(sum(member.file_size for member in members), name)
        arrays = {}
        for key, member in zip(names, members):
            try:
                stream = cast(zipfile.ZipExtFile, archive.open(member))
            except Exception as error:
                raise ValueError(f"{name} must be {wanted} ({one_line(error)})") from None
            with stream:
                arrays[key] = _read_npy(stream, member.file_size, name, wanted, "biufU")
        return arrays


def one_line(error: Exception, most: int = 120) -> str:
    """What went wrong, in one short line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def open_regular(path: str | os.PathLike, name: str) -> BufferedReader:
    """A regular file, open for reading: a pipe would wait, a device need not end."""
    path = checks.path(path, name)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{name} must be a regular file, got {str(path)!r}, which is something else")
    return open(path, "rb")


def _read_npy(file: BufferedIOBase, size: int, name: str, wanted: str, kinds: str = "biufcUS") -> np.ndarray:
    """One array from an open file of `size` bytes, whose header must account for every one of them."""
    begin = file.tell()
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](file)
    except Exception as error:  # a header is a Python literal: its parser fails in as many ways as there are
        raise ValueError(f"{name} must be {wanted} (no header of an array: {one_line(error)})") from None
    if dtype.kind not in kinds or dtype.itemsize == 0:
        raise ValueError(f"{name} must be {wanted} (its entries are of type {str(dtype)[:40]})")
    rest = size - (file.tell() - begin)
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{name} must be {wanted} (its header declares {_shape(shape)} {dtype}, but {rest} bytes follow)")
    capacity.fits(rest, name)
    result = np.empty(shape[::-1] if fortran else shape, dtype)
    try:
        content, done = result.reshape(-1).view(np.uint8).data, 0
        while done < rest:
            got = file.readinto(content[done : done + _PIECE])
            if not got:
                raise EOFError("it ends early")
            done += got
    except Exception as error:  # a damaged archive, a disk that fails
        raise ValueError(f"{name} must be {wanted} ({one_line(error)})") from None
    return result.T if fortran else result


def _shape(shape: tuple[int, ...]) -> str:
    text = " x ".join(str(n) if abs(n) < 10**15 else "very many" for n in shape[:4])
    return f"{text or 'one'}{' x ...' * (len(shape) > 4)}"
