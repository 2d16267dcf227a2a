"""What this machine cannot hold or finish is refused before any work, with the bytes or the time it would take.

Checks of memory and time are lower bounds made generously small: what passes may still be slow, what is refused could not have
been done.
"""

from __future__ import annotations

import os
import re
import shutil
from decimal import Decimal
from numbers import Integral
from pathlib import Path

_SMALL = 2**26  # bytes that are never worth a look at the machine
DAYS = 30  # that one call may take
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class BeyondMemory(ValueError):
    """A refusal of this machine at this moment: where, or when, more memory is free, the same call may be right."""


def fits(needed: int, name: str) -> None:
    """Refuse an argument whose arrays need more bytes than there are.

    Parameters
    ----------
    needed : int
        Bytes, of any size.
    name : str
        The argument that asks for them.

    Raises
    ------
    BeyondMemory
        With the bytes that are needed and those that are available.

    Examples
    --------
    >>> fits(10**30, "grid")
    Traceback (most recent call last):
    attnflow.capacity.BeyondMemory: grid must fit into memory, got a request for 1.00e+30 bytes where ... are available
    """
    if needed > _SMALL and needed > (free := available()):
        raise BeyondMemory(
            f"{name} must fit into memory, got a request for {Decimal(int(needed)):.3g} bytes where "
            f"{Decimal(free):.3g} are available"
        )


def ends(steps: float, name: str, seconds: float = 2e-5, what: str = "steps") -> None:
    """Refuse an argument that asks for more steps than can be done in a month.

    Parameters
    ----------
    steps : int or float
        Of any size, infinity too.
    name : str
        The argument that asks for them.
    seconds : float
        What a step takes at the very least; one that calls NumPy a few times takes 2e-5.
    what : str
        The name of a step.

    Raises
    ------
    ValueError
        With the number of steps and the time they would take.

    Examples
    --------
    >>> ends(1e12, "layers", what="layers")
    Traceback (most recent call last):
    ValueError: layers must end within 30 days, got a request for 1.00e+12 layers, at least 231 days
    """
    count = Decimal(int(steps) if isinstance(steps, Integral) else float(steps))
    days = count * Decimal(seconds) / 86400
    if days > DAYS:
        raise ValueError(f"{name} must end within {DAYS} days, got a request for {count:.3g} {what}, at least {days:.3g} days")


def stored(needed: int, folder: Path, name: str) -> None:
    """Refuse what needs more bytes on disk than are free there.

    Parameters
    ----------
    needed : int
        Bytes.
    folder : Path
        One that exists.
    name : str
        The argument that says where.

    Raises
    ------
    ValueError
        With the bytes that are needed and those that are free.

    Examples
    --------
    >>> stored(10**30, Path("."), "out")
    Traceback (most recent call last):
    ValueError: out must have room on disk, got a request for 1.00e+30 bytes in '.' where ... are free
    """
    if needed > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"{name} must have room on disk, got a request for {Decimal(int(needed)):.3g} bytes in {str(folder)!r} where "
            f"{Decimal(free):.3g} are free"
        )


def available() -> int:
    """Bytes that this process can still get: free memory of the machine, and what limits of its own leave."""
    return min((free for free in (_of_machine(), _of_cgroup(), _of_process()) if free is not None), default=2**62)


def _of_machine() -> int | None:
    try:
        free = re.search(r"MemAvailable:\s*(\d+)", (_PROC / "meminfo").read_text())
    except OSError:  # not Linux
        free = None
    if free:
        return 1024 * int(free[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_cgroup() -> int | None:
    """What the control groups of this process leave, versions 1 and 2; files in the page cache can be given up."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    left = []
    for number, controllers, path in (line.split(":", 2) for line in lines):
        if number != "0" and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS if number == "0" else _CGROUPS / "memory"
        limit, usage = ("memory.max", "memory.current") if number == "0" else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = root / path.strip("/")
        for folder in (group, *group.parents):  # a container may not see the folders above its own
            if not folder.is_relative_to(root):
                break
            try:
                most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                cached = re.search(r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
                left.append(max(most - used + int(cached[1] if cached else 0), 0))
            except (OSError, ValueError):  # no such folder, or "max"
                continue
    return min(left, default=None)


def _of_process() -> int | None:
    """What `ulimit -v` leaves of the address space."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int((_PROC / "self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return None
    return None if most == resource.RLIM_INFINITY else max(most - pages * resource.getpagesize(), 0)
