"""The program against exact solutions, against itself and against peers: what a validation reports.

Each module of this folder has a `run() -> Report`; `python -m validation` runs them, prints their tables and
fails if a claim does. Claims compare numbers computed in the run: no result is written into the code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Report"]


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
    claims : dict
        Sentence with its numbers -> whether it holds.
    draw : callable, optional
        Draws the table on an Axes.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    claims: dict[str, bool]
    draw: Callable | None = field(default=None, repr=False)

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(self.claims.values())

    def markdown(self) -> str:
        """Title, text, aligned table and claims.

        Examples
        --------
        >>> print(Report("Sums", "Two ways.", ["n", "sum"], [["1", "0.5"]], {"they agree": True}).markdown())
        # Sums
        <BLANKLINE>
        Two ways.
        <BLANKLINE>
        | n | sum |
        |--:|----:|
        | 1 | 0.5 |
        <BLANKLINE>
        - [x] they agree
        <BLANKLINE>
        """
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows)]
        aligned = [[cell.rjust(w) for cell, w in zip(row, widths)] for row in (self.columns, *self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in aligned]
        lines.insert(1, "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|")
        claims = [f"- [{'x' if holds else ' '}] {sentence}" for sentence, holds in self.claims.items()]
        return "\n".join([f"# {self.title}", "", self.text, "", *lines, "", *claims, ""])
