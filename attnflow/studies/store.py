"""Finished cells of a study in an SQLite file: each is written as it finishes, so nothing finished is lost.

A rollback journal (SQLite's own default) rather than a log beside the file: it works on network disks too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping

from .. import checks

_COLUMNS = ("key", "study", "result")
_SCHEMA = "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, study TEXT, result TEXT)"
_INSERT = "INSERT OR REPLACE INTO cells VALUES (?, ?, ?)"

_PATIENCE, _ATTEMPTS = 1.0, 60  # seconds to wait for another process that writes, and how often


class Store:
    """Results by key; a context manager. Path None keeps them in memory only.

    Raises
    ------
    TypeError
        If the path is none.
    ValueError
        If there is a file that is no such store, or a damaged one; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        self._path = ":memory:" if path is None else str(checks.path(path, "store"))
        self._connection: sqlite3.Connection | None = None
        self._empty = True
        try:
            trouble = self._open()
        except (sqlite3.Error, UnicodeError) as error:
            trouble = str(error)
        if trouble:
            self.close()
            raise ValueError(f"store must be a file of finished cells, got {self._path!r}: {trouble}")

    def _open(self) -> str:
        """What is wrong with the file, if anything."""
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            return "no regular file"
        self._connection = sqlite3.connect(self._path, timeout=_PATIENCE)
        tables = self._execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        columns = tuple(row[1] for row in self._execute("PRAGMA table_info(cells)"))
        if tables and (tables != [("cells",)] or columns != _COLUMNS):
            return "a database of something else"
        self._empty = not tables
        faults = [row[0] for row in self._execute("PRAGMA quick_check(1)") if row[0] != "ok"]
        return " ".join(str(faults[0]).split()) if faults else ""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def find(self, keys: Mapping[str, Callable[[dict], None]]) -> dict[str, dict]:
        """The finished ones among the keys, each looked at by its key's check, which raises ValueError."""
        found = {}
        for key, check in {} if self._empty else keys.items():
            try:
                row = self._execute("SELECT result FROM cells WHERE key = ?", (key,)).fetchone()
                if row:
                    found[key] = json.loads(row[0])
                    check(found[key])
            except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
                unread = isinstance(error, sqlite3.OperationalError)
                if unread and "decode" not in str(error):  # another process holds it, or the disk fails
                    raise OSError(f"the store {self._path!r} could not be read: {error}") from None
                raise ValueError(
                    f"store must hold whole cells, got {self._path!r} with a damaged one ({'no text' if unread else error}); "
                    "nothing in it was changed: move it away, or delete the row"
                ) from None
        return found

    def prepare(self) -> None:
        """Write something and take it back, so that a store that takes nothing is found before any work."""
        try:
            self._write(_SCHEMA)
            self._write(_INSERT, ("", "", " " * 4096))
            self._write("DELETE FROM cells WHERE key = ''")
        except sqlite3.Error as error:
            raise ValueError(f"store must be a file that can be written, got {self._path!r}: {error}") from None
        self._empty = False

    def add(self, key: str, study: str, result: dict) -> None:
        """Write one finished cell, durably, before returning.

        Raises
        ------
        OSError
            If it cannot be: the disk is full, or the file was taken away.
        """
        try:
            self._write(_INSERT, (key, study, json.dumps(result)))
        except sqlite3.Error as error:
            raise OSError(f"a finished cell could not be written to the store {self._path!r}: {error}") from None

    def _write(self, statement: str, values: tuple = ()) -> None:
        self._execute(statement, values, commit=True)

    def _execute(self, statement: str, values: tuple = (), commit: bool = False) -> sqlite3.Cursor:
        assert self._connection is not None
        for attempt in range(_ATTEMPTS):  # SQLite's own wait would not let Ctrl-C through
            try:
                with self._connection if commit else contextlib.nullcontext():
                    return self._connection.execute(statement, values)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError  # the last attempt returns or raises


def content_key(content) -> str:
    """Digest of JSON-able content."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
