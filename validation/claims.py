"""Everything that README and the pages claim in numbers, in one table: from the stored results of validations and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from paper_figures import FIGURES, Check

from . import HEAD, Claim, aligned

ROOT = Path(__file__).parents[1]
FIGURES_AT = ROOT / "paper_figures/results"


class Row(NamedTuple):
    """A claim, the result that it is read from, and the pages that send their readers there."""

    claim: Claim
    result: str
    pages: tuple[str, ...]


def rows(results: Path, parts: Iterable[str], figures: Path | None = FIGURES_AT) -> list[Row]:
    """Claims of the tables in the folder `results`, those of the named parts and of all benchmarks there, then of the figures.

    A part without a table, or whose table claims nothing, is a claim that does not hold; benchmarks need not claim anything.
    """
    benchmarks = sorted(path.stem for path in results.glob("benchmarks-*.md"))
    found = [(name, claim) for name in parts for claim in of_table(results / f"{name}.md") or [_nothing(name)]]
    found += [(name, claim) for name in benchmarks for claim in of_table(results / f"{name}.md")]
    found += [(name, of_figure(figures / f"{name}.json")) for name in FIGURES] if figures is not None else []
    pages = _pages()
    return [Row(claim, name, tuple(page for page, text in pages.items() if _sends(text, name))) for name, claim in found]


def of_table(path: Path) -> list[Claim]:
    """The claims at the end of a stored table, none where it has no table of claims; of one that is missing, that it is."""
    if not path.exists():
        return [Claim(f"{path.stem} was run", "no table", f"{path.name}", False)]
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    heads = [k for k, row in enumerate(cells) if row == list(HEAD)]
    return [Claim(*row[:3], row[3] == "yes") for row in cells[heads[-1] + 2 :]] if heads else []


def of_figure(path: Path) -> Claim:
    """The claim of a figure: all its numbers within their tolerances, judged anew from the numbers; the one that is nearest to its own."""
    if not path.exists():
        return Claim(f"{path.stem} was drawn", "no data", path.name, False)
    summary = json.loads(path.read_text(encoding="utf-8"))
    checks = [Check(c["claim"], c["predicted"], c["measured"], c["tolerance"]) for c in summary["checks"]]
    least = max(checks, key=_used)
    number = f"{least.measured:.5g} for {least.predicted:.5g} +- {least.tolerance:.2g}"
    held = sum(check.holds for check in checks)
    return Claim(summary["title"], f"{held} of {len(checks)}, nearest: {number}", "all within", held == len(checks))


def text(found: list[Row]) -> str:
    """The table in Markdown, and how many hold."""
    cells = [(*row.claim[:3], "yes" if row.claim.holds else "NO", ", ".join(row.pages) or "-", row.result) for row in found]
    missed = [row for row in found if not row.claim.holds]
    lines = aligned((*HEAD, "where", "result"), [[cell.replace("|", r"\|") for cell in row] for row in cells], str.ljust)
    return "\n".join([*lines, "", f"{len(found) - len(missed)} of {len(found)} claims hold."]) + "\n"


def _nothing(name: str) -> Claim:
    """What is said of a part whose table has no claims that can be read."""
    return Claim(f"{name} claims something", "no table of claims", f"one with {', '.join(HEAD)}", False)


def _used(check: Check) -> float:
    """The share of its tolerance that a check uses; a number that is none uses all of it."""
    off = abs(check.measured - check.predicted)
    return off / check.tolerance if check.tolerance > 0 and off == off else 0.0 if off == 0 else float("inf")


def _pages() -> dict[str, str]:
    """README and the pages that are written by hand, by name."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in paths
        if not path.is_relative_to(ROOT / "docs/generated")
    }


def _sends(page: str, result: str) -> bool:
    return re.search(rf"/{re.escape(result)}\.(md|png)\)", page) is not None
