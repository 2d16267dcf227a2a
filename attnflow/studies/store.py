"""Finished cells of a study in an SQLite file: each is written as it finishes, so nothing finished is lost."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable

from .. import checks

_SCHEMA = "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, study TEXT, result TEXT)"


class Store:
    """Results by key; a context manager. Path None keeps them in memory only.

    Raises
    ------
    ValueError
        If the file is there but is no such store.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        file = ":memory:" if path is None else checks.path(path, "store")
        try:
            self._connection = sqlite3.connect(file, timeout=60)
            with self._connection:
                self._connection.execute(_SCHEMA)
                self._connection.execute("SELECT key, study, result FROM cells LIMIT 1")
        except sqlite3.Error as error:
            raise ValueError(f"store must be a file of finished cells, got {str(path)!r} ({error})") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self._connection.close()

    def find(self, keys: Iterable[str]) -> dict[str, dict]:
        """The finished ones among the keys."""
        found = {}
        for key in keys:
            row = self._connection.execute("SELECT result FROM cells WHERE key = ?", (key,)).fetchone()
            if row:
                found[key] = json.loads(row[0])
        return found

    def add(self, key: str, study: str, result: dict) -> None:
        """Write one finished cell, durably, before returning."""
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?)", (key, study, json.dumps(result)))


def content_key(content) -> str:
    """Digest of JSON-able content."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
