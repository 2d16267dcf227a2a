"""The program against exact solutions, against itself and against peers: what a validation reports.

Each module of this folder has a `run() -> Report`; `python -m validation` runs them, prints their tables and
fails if a claim does. Claims compare numbers computed in the run: no result is written into the code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Claim", "Report"]


HEAD = ("claim", "measured", "required", "holds")  # of the table of claims


class Claim(NamedTuple):
    """One thing that a validation says, in words: what, how much was measured, what is required, and whether that holds."""

    claim: str
    measured: str
    required: str
    holds: bool


@dataclass(frozen=True)
class Report:
    """What one validation found.

    Attributes
    ----------
    title : str
        What is compared with what.
    text : str
        How, in a few sentences.
    columns : sequence of str
        Head of the table, units included.
    rows : sequence of sequences of str
        The table.
    claims : sequence of Claim
    draw : callable, optional
        Draws the table on an Axes.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    claims: Sequence[Claim]
    draw: Callable | None = field(default=None, repr=False)

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    def markdown(self) -> str:
        """Title, text, and two aligned tables: what was found, and the claims.

        Examples
        --------
        >>> print(Report("Sums", "Two ways.", ["n", "sum"], [["1", "0.5"]], [Claim("they differ by", "0", "0", True)]).markdown())
        # Sums
        <BLANKLINE>
        Two ways.
        <BLANKLINE>
        | n | sum |
        |--:|----:|
        | 1 | 0.5 |
        <BLANKLINE>
        | claim          | measured | required | holds |
        |:---------------|:---------|:---------|:------|
        | they differ by | 0        | 0        | yes   |
        <BLANKLINE>
        """
        found = aligned(self.columns, self.rows)
        judged = aligned(HEAD, [(*claim[:3], "yes" if claim.holds else "NO") for claim in self.claims], str.ljust)
        return "\n".join([f"# {self.title}", "", self.text, "", *found, "", *(judged if self.claims else []), ""])


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], side: Callable = str.rjust) -> list[str]:
    """The lines of a Markdown table whose columns are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    lines = ["| " + " | ".join(side(cell, w) for cell, w in zip(row, widths)) + " |" for row in (columns, *rows)]
    ends = ("-", ":") if side is str.rjust else (":", "-")
    lines.insert(1, "|" + "|".join(ends[0] + "-" * w + ends[1] for w in widths) + "|")
    return lines
