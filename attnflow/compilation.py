"""Compiled loops are kept on disk, in a temporary folder where nothing else can be written.

numba keeps them beside the source or in the user's cache folder and raises while it is imported where it can do
neither, as in a read-only installation run by a user without a home.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba

from . import checks, files


def cached_njit(shared: tuple[str, ...] = (), **options) -> Callable:
    """`numba.njit` for a loop that is called from Python: it lets go of the interpreter's lock, and is kept on disk.

    What is kept there belongs to the loop's own file, and to the files `shared`: those of everything else that is
    compiled into it. numba alone would run old code after an edit of these.

    Examples
    --------
    >>> @cached_njit(error_model="numpy")
    ... def half(x):
    ...     return x / 2
    >>> half(3.0)
    1.5
    """

    def decorate(function: Callable) -> Callable:
        try:
            return _stamped(numba.njit(nogil=True, cache=True, **options)(function), shared)
        except OSError:  # a shared source cannot be read, as in a zipped installation: nobody would notice its change
            return numba.njit(nogil=True, **options)(function)
        except RuntimeError:  # no folder can be written to, or there is no file that could have changed
            loop = numba.njit(nogil=True, **options)(function)
        if os.path.exists(function.__code__.co_filename) and (folder := _temporary_folder()):
            before = numba.config.CACHE_DIR  # type: ignore[attr-defined]  # set while numba is imported
            numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
            try:
                loop.enable_caching()
                _stamped(loop, shared)
            except RuntimeError:
                pass
            finally:
                numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
        return loop

    return decorate


def cached_cfunc(signature, **options) -> Callable:
    """`numba.cfunc` for a function that compiled loops take as an argument, kept on disk where that can be."""

    def decorate(function: Callable) -> Callable:
        try:
            return numba.cfunc(signature, cache=True, **options)(function)
        except (OSError, RuntimeError):
            return numba.cfunc(signature, **options)(function)

    return decorate


def _stamped(loop: Callable, shared: tuple[str, ...]) -> Callable:
    """The loop, whose file on disk is out of date when a shared one has changed."""
    if shared:
        kept = loop._cache._cache_file  # type: ignore[attr-defined]  # numba has no other way in
        kept._source_stamp = (kept._source_stamp, *map(source_stamp, shared))
    return loop


@cache
def source_stamp(path: str) -> str:
    """What changes when the file does."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _temporary_folder() -> str | None:
    """A folder that is this user's alone: whoever could write there would choose what is run."""
    try:
        path = Path(tempfile.gettempdir()) / f"attnflow-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not _is_private(path):
                path = Path(tempfile.mkdtemp(prefix="attnflow-"))
    except OSError:
        path = None
    where = "not kept, and compiled by every process anew" if path is None else f"kept in {path}"
    checks.warn(
        f"compiled loops are {where}: neither the installation nor a cache folder of yours can be written; set "
        "NUMBA_CACHE_DIR to choose one",
        checks.AttnflowWarning,
    )
    return None if path is None else str(path)


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return mine and stat.S_ISDIR(found.st_mode)


def user_cache() -> Path:
    """The user's cache folder for attnflow; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnflow"


def keep_source(name: str, source: str) -> str:
    """The path of a file in the user's cache folder with this source, beside which numba keeps what it compiles.

    The file is made, or made anew, where its content is not this one; nobody else can write to its folder. Where that is
    not to be had, a name that is no file's: `cached_njit` then keeps nothing.
    """
    try:
        folder = user_cache() / "expressions"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        if not _is_private(folder):
            return f"<{name}>"
        if not (path.is_file() and path.read_bytes() == source.encode()):
            with files.whole(path) as file:
                file.write(source.encode())
    except (OSError, ValueError, RuntimeError):  # ValueError: a folder of that name; RuntimeError: a user without a home
        return f"<{name}>"
    return str(path)
