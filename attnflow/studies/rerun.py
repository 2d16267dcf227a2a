"""A study computed again, from what its store says of it; and whether the numbers are the same."""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

from ..provenance import versions
from .cells import check_row
from .convergence import ConvergenceStudy
from .files import study_from_tables
from .result import StudyResult
from .store import Store
from .sweep import key_of

_NUMBERS = ("error", "deviation")


class Recorded(NamedTuple):
    """A study, its finished cells, and the versions that computed them."""

    study: ConvergenceStudy
    cells: list[dict]
    versions: dict[str, set[str]]


class Verdict(NamedTuple):
    """How cells that were computed again compare with those of a store.

    Attributes
    ----------
    compared, differ : int
        Cells of both, and those of them whose numbers are not the same bit for bit.
    largest : float
        Difference, relative as errors are.
    beyond : int
        Cells that differ by more than the accuracy that both state.
    absent : int
        Cells that the store does not have.
    """

    compared: int
    differ: int
    largest: float
    beyond: int
    absent: int

    def __str__(self) -> str:
        if not self.differ:
            said = f"{self.compared} cells computed again: all numbers are equal, bit for bit"
        else:
            how = f"{self.beyond} of them by more than their accuracy" if self.beyond else "all within their accuracy"
            said = f"{self.compared} cells computed again: {self.differ} differ, by at most {self.largest:.2g}, {how}"
        return said + f"; {self.absent} were not in the store" * bool(self.absent)


def recorded(path: str | os.PathLike) -> Recorded:
    """The study that a store was last used for.

    Raises
    ------
    ValueError
        If the file is no store, has a damaged cell, does not say which study it is of, or that was made in Python: of
        functions; if what its tables name has changed since.
    """
    with Store(path) as kept:
        asked = kept.asked()
        if asked is None:
            raise ValueError(
                f"file must say which study it is of, got {os.fspath(path)!r}: it is empty, or of a format that did not"
            )
        if asked.tables is None:
            raise ValueError(
                f"file must be of a study that a study file describes, got {os.fspath(path)!r}, of one that was made in "
                "Python: what its functions were cannot be read from it, run its script again"
            )
        study = study_from_tables(asked.tables)
        seen: dict[str, set[str]] = {}
        for made_by in (made_by for part in asked.parts for made_by in kept.made_by(part)):
            for name, version in made_by.items():
                seen.setdefault(name, set()).add(version)
        changed, prints = other_versions(seen), [part.fingerprint for part in study.parts]
        if len(asked.parts) != len(prints) or (seen and not changed and asked.parts != prints):
            raise ValueError(
                f"file must be of a study that can be made again, got {os.fspath(path)!r}: its tables make another one now, "
                "for a file that they name, or what is left out of them, has changed"
            )
        keys = {key_of(asked.parts, cell): partial(check_row, study, cell) for cell in study.cells()}
        try:
            return Recorded(study, list(kept.find(keys).values()), seen)
        except ValueError as error:
            raise ValueError(f"{error} ({changed})" if changed else str(error)) from None


def compared(before: Recorded, result: StudyResult) -> Verdict:
    """What came out again beside what was in the store."""
    old = {_place(cell): cell for cell in before.cells}
    pairs = [(old[_place(cell)], cell) for cell in result.cells if _place(cell) in old]
    gaps = [max(abs(a[name] - b[name]) for name in _NUMBERS) for a, b in pairs]
    return Verdict(
        compared=len(pairs),
        differ=sum(gap > 0 for gap in gaps),
        largest=max(gaps, default=0.0),
        beyond=sum(gap > a["accuracy"] + b["accuracy"] for gap, (a, b) in zip(gaps, pairs)),
        absent=len(result.cells) - len(pairs),
    )


def other_versions(then: dict[str, set[str]]) -> str:
    """Which versions are not those of then, in words; empty where all are."""
    now = versions()
    changed = {name: seen for name, seen in then.items() if seen != {now.get(name)}}
    return ", ".join(f"{name} {' and '.join(sorted(seen))} then, {now.get(name)} now" for name, seen in changed.items())


def _place(cell: dict) -> tuple:
    return tuple(cell[name] for name in ("normalization", "epsilon", "size", "seed"))
