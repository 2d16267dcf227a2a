"""Cells and predictions of studies in an SQLite file: each is written as it is done, so nothing that is done is lost.

A rollback journal (SQLite's own default) rather than a log beside the file: it works on network disks too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import checks
from ..exports import plain

FORMAT = 1  # of the file, its PRAGMA user_version; stores of before it had none
_APPLICATION = int.from_bytes(b"attn")
_BEFORE = ("key", "study", "result")  # columns of a store without a format: finished cells only
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, kind TEXT, study TEXT, parameters TEXT, seed INTEGER, "
    "versions TEXT, engine TEXT, seconds REAL, status TEXT, host TEXT, message TEXT, result TEXT)",
    "CREATE TABLE IF NOT EXISTS studies (key TEXT PRIMARY KEY, parts TEXT, description TEXT, tables TEXT)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)
_MIGRATION = (
    "ALTER TABLE cells RENAME TO before",
    _SCHEMA[0],
    "INSERT INTO cells (key, kind, study, status, result) SELECT key, 'cell', study, 'finished', result FROM before",
    "DROP TABLE before",
)

_PATIENCE, _ATTEMPTS = 1.0, 60  # seconds to wait for another process that writes, and how often


class Entry(NamedTuple):
    """A row of the store: one cell or one prediction, and where its number comes from.

    `result` is None where it failed; `message` then says how, and else what was warned of (`warnings_kept`).
    """

    key: str
    kind: str
    study: str
    parameters: dict
    seed: int | None
    versions: dict
    engine: str | None
    seconds: float | None
    status: str
    host: str
    message: str
    result: dict | None


class Asked(NamedTuple):
    """A study that a store was used for: the keys of its normalisations, its data, and its study file's tables, if any."""

    parts: list[str]
    description: dict
    tables: dict | None


_COLUMNS = Entry._fields
# another process may have finished what fails here
_INSERT = (
    f"INSERT INTO cells ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    + " WHERE excluded.status = 'finished' OR cells.status = 'failed'"
)


class Store:
    """Results by key; a context manager. Path None keeps them in memory only.

    Raises
    ------
    TypeError
        If the path is none.
    ValueError
        If there is a file that is no such store, a damaged one, or one of a newer format; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        name = None if path is None else str(checks.path(path, "store"))
        self._path = ":memory:" if name is None else os.path.join(".", name) if name.startswith(":") else name
        self._connection: sqlite3.Connection | None = None
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
        self._connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        if trouble := self._unknown():
            return trouble
        faults = [row[0] for row in self._execute("PRAGMA quick_check(1)") if row[0] != "ok"]
        return " ".join(str(faults[0]).split()) if faults else ""

    def _unknown(self) -> str:
        """Why the file is none of the known formats; empty where it is one, or holds nothing yet."""
        application, form = (self._execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application == _APPLICATION and form > FORMAT:
            return f"of format {form}, written by a newer attnflow than this one, which reads formats up to {FORMAT}"
        tables = {row[0] for row in self._execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        ours = application == _APPLICATION and tables == {"cells", "studies"} and self._columns() == _COLUMNS
        before = application == form == 0 and tables == {"cells"} and self._columns() == _BEFORE
        return "" if ours or before or not tables else "a database of something else"

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
        with self._reading():
            columns = self._columns()
            finished = "" if columns == _BEFORE else "AND status = 'finished'"
            for key, check in keys.items() if columns else ():
                row = self._execute(f"SELECT result FROM cells WHERE key = ? {finished}", (key,)).fetchone()
                if row:
                    found[key] = json.loads(row[0])
                    check(found[key])
        return found

    def warned(self, keys: Iterable[str]) -> list[tuple[str, type[Warning]]]:
        """What was warned of in finished cells, as (message, category), each once."""
        said: dict[str, None] = {}
        with self._reading():
            for key in keys if self._columns() == _COLUMNS else ():
                for (message,) in self._execute("SELECT message FROM cells WHERE key = ?", (key,)):
                    said |= dict.fromkeys((message or "").splitlines())
        parts = [line.partition(": ") for line in said]
        return [(text, category) for kind, _, text in parts if (category := _category(kind))]

    def made_by(self, study: str) -> list[dict]:
        """The versions that made each finished cell of a study of one normalisation."""
        with self._reading():
            select = "SELECT versions FROM cells WHERE study = ? AND kind = 'cell' AND status = 'finished'"
            return [dict(json.loads(versions or "{}")) for (versions,) in self._execute(select, (study,))]

    def asked(self) -> Asked | None:
        """The study that cells were last computed for, if the store is of a format that keeps it."""
        with self._reading():
            if self._columns() != _COLUMNS:
                return None
            row = self._execute("SELECT parts, description, tables FROM studies ORDER BY rowid DESC LIMIT 1").fetchone()
            return None if row is None else Asked(*map(json.loads, row))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
            unread = isinstance(error, sqlite3.OperationalError)
            if unread and "decode" not in str(error):  # another process holds it, or the disk fails
                raise OSError(f"the store {self._path!r} could not be read: {error}") from None
            raise ValueError(
                f"store must hold whole cells, got {self._path!r} with a damaged one ({'no text' if unread else error}); "
                "nothing in it was changed: move it away, or delete the row"
            ) from None

    def prepare(self) -> None:
        """Bring the file to today's format, write something and take it back.

        So a store that takes nothing is found before any work.

        Raises
        ------
        ValueError
            If it cannot be written, or has come to be of a newer format.
        """
        try:
            with self._transaction():
                trouble = self._unknown()
                statements = [*(_MIGRATION if self._columns() == _BEFORE else ()), *_SCHEMA]
                for statement in () if trouble else statements:
                    self._execute(statement)
                if not trouble:
                    blank = Entry("", "", "", {}, None, {}, None, None, "failed", "", " " * 4096, None)
                    self.add(blank)
                    self._execute("DELETE FROM cells WHERE key = ''")
        except (sqlite3.Error, OSError) as error:
            trouble = str(error.__cause__ or error)
        if trouble:
            raise ValueError(f"store must be a file that can be written, got {self._path!r}: {trouble}")

    def ask(self, study: Asked) -> None:
        """Remember a study, as the last one."""
        values = [json.dumps(value, default=plain) for value in study]
        with self._writing("a study"):
            last = self._execute("SELECT parts, description, tables FROM studies ORDER BY rowid DESC LIMIT 1").fetchone()
            if last == tuple(values):
                return
            insert = "INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?)"
            self._execute(insert, (content_key([study.parts, values[1]]), *values))

    def add(self, entry: Entry) -> None:
        """Write one finished or failed cell, durably, before returning.

        Raises
        ------
        OSError
            If it cannot be: the disk is full, or the file was taken away.
        """
        values = [json.dumps(value) if isinstance(value, dict) else value for value in entry]
        with self._writing("a finished cell" if entry.result is not None else "a failed cell"):
            self._execute(_INSERT, tuple(values))

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"{what} could not be written to the store {self._path!r}: {error}") from error

    def _columns(self) -> tuple[str, ...]:
        return tuple(row[1] for row in self._execute("PRAGMA table_info(cells)"))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        assert self._connection is not None
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._execute("ROLLBACK")

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        for attempt in range(_ATTEMPTS):  # SQLite's own wait would not let Ctrl-C through
            try:
                return self._connection.execute(statement, values)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError  # the last attempt returns or raises


def warnings_kept(warned: Iterable[tuple[str, type[Warning]]]) -> str:
    """This package's warnings as text, a line each."""
    ours = dict.fromkeys((text, kind.__name__) for text, kind in warned if _category(kind.__name__))
    return "\n".join(f"{kind}: {' '.join(text.split())}" for text, kind in ours)


def _category(kind: str) -> type[Warning] | None:
    category = getattr(checks, kind, None)
    return category if isinstance(category, type) and issubclass(category, checks.AttnflowWarning) else None


def content_key(content) -> str:
    """Digest of JSON-able content."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
