"""Pages that are made at every build: figures and notebooks, commands and the study file, from where they are kept."""

from __future__ import annotations

import argparse
import ast
import json
import re
from pathlib import Path

from attnflow.cli import _parser
from attnflow.studies.reference import study_reference
from paper_figures import FIGURES
from validation import claims
from validation.__main__ import NAMES, RESULTS

FRONT = ("# attnflow\n", "\n## Where the rest is")  # what the site's first page takes from README: after a text, before another
_PLACES = (  # of what pages link to in the repository, from any of its folders
    (r"(!\[[^\]]*\])\((?:\.\./)*paper_figures/results/([\w-]+\.png)\)", r"\1(/generated/figures/\2)"),
    (r"\]\((?:\.\./)*paper_figures/results/([\w-]+)\.png\)", r"](/generated/figures/\1.md)"),
    (r"\]\((?:\.\./)*paper_figures/results/README\.md\)", "](/generated/figures.md)"),
    (r"\]\((?:\.\./)*validation/results/([\w-]+)\.(md|png)\)", r"](/generated/measurements/\1.\2)"),
    (r"\]\((?:\.\./)*notebooks/(\w+)\.ipynb\)", r"](/generated/notebooks/\1.ipynb)"),
    (r"\]\((?:\.\./)*CONTRIBUTING\.md\)", "](/generated/contributing.md)"),
    (r"\]\(docs/([\w/]+\.md)\)", r"](/\1)"),
)
_CODE = re.compile(r"(`[^`]*`)")


def write(root: Path, out: Path) -> None:
    """All generated pages of the repository `root` into the folder `out`, where only what has changed is written anew."""
    pictures = sorted((root / "paper_figures/results").glob("f*.png"))
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    measured = sorted((root / "validation/results").glob("*.md"))
    readme = (root / "README.md").read_text(encoding="utf-8")
    texts = {
        "study_file.md": "# The study file\n\n" + literal(study_reference()),
        "commands.md": commands(),
        "figures.md": gallery([picture.stem for picture in pictures], root),
        **{f"figures/{picture.stem}.md": figure(picture.stem, root) for picture in pictures},
        "notebooks.md": tour(notebooks),
        "measurements.md": measurements(measured),
        "claims.md": claimed(),
        "contributing.md": placed((root / "CONTRIBUTING.md").read_text(encoding="utf-8")),
        "front.md": part(readme, *FRONT),
    }
    contents = {out / name: text.encode() for name, text in texts.items()}
    contents |= {out / "figures" / picture.name: picture.read_bytes() for picture in pictures}
    contents |= {out / "notebooks" / path.name: path.read_bytes() for path in notebooks}
    contents |= {out / "measurements" / path.name: path.read_bytes() for path in measured}
    contents |= {out / "measurements" / path.name: path.read_bytes() for path in (root / "validation/results").glob("*.png")}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    for path in set(out.rglob("*.*")) - set(contents):  # of an earlier build
        path.unlink()


def part(readme: str, after: str, before: str) -> str:
    """What README says after one text and before another, its links led to where things are on the site."""
    _, found, rest = readme.partition(after)
    text, end, _ = rest.partition(before)
    if not (found and end):
        raise ValueError(f"README.md must have {before if found else after!r}: pages.FRONT tells the site what to take from it")
    return placed(text).strip() + "\n"


def placed(text: str) -> str:
    """A page whose links to files of the repository lead to where they are on the site."""
    for place, there in _PLACES:
        text = re.sub(place, there, text)
    return text


def measurements(results: list[Path]) -> str:
    """The list of what validation measured."""
    text = """What `python -m validation` and `python -m validation.benchmarks` wrote: accuracy, memory, and speed beside other
libraries, goals missed included."""
    return _listing("Measurements", text, [f"measurements/{path.stem}" for path in results])


def claimed() -> str:
    """The one table of claims, from stored results."""
    text = """# Every claim in one table

What `python -m validation --stored` prints: each claim of README and of these pages, how much was measured, what is required, and where
it is claimed. It is read from stored results; `python -m validation` and `python -m paper_figures` measure anew, and fail if a claim does.

| claim | measured | required | holds | where |
|---|---|---|---|---|
"""
    lines = []
    for claim, result, at in claims.rows(RESULTS, NAMES):
        folder = "figures" if result in FIGURES else "measurements"
        where = [f"[{result}](/generated/{folder}/{result}.md)"]
        where += [f"[{page.removeprefix('docs/')}]({page.removeprefix('docs')})" for page in at if page.startswith("docs/")]
        cells = [literal(cell).strip() for cell in claim[:3]]
        lines.append(f"| {' | '.join(cells)} | {'yes' if claim.holds else 'NO'} | {', '.join(where)} |")
    return text + "\n".join(lines) + "\n"


def literal(text: str) -> str:
    """Markdown in which formulas outside of code stay as they are typed."""
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith(("    ", "#")):
            pieces = _CODE.split(line)
            pieces[::2] = [re.sub(r"([*_<|$\[\]~])", r"\\\1", piece) for piece in pieces[::2]]
            line = "".join(pieces)
        lines.append(line)
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The page of commands: what each prints for --help."""
    lines = ["# Commands", "", "As each prints them for `--help`; `python -m attnflow.cli` is the same.", ""]
    (actions,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for name, parser in actions.choices.items():
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
        lines += [f"## attnflow {name}", "", "```text", parser.format_help().rstrip(), "```", ""]
    lines += [
        "A command ends with status 0; 2 for bad input, 1 for what failed while running, 130 after Ctrl-C, 143 after SIGTERM."
    ]
    return "\n".join(lines) + "\n"


def gallery(names: list[str], root: Path) -> str:
    """All figures: what each claims and where the claim is from, with the verdict of its checks."""
    lines = [
        "# Figures",
        "",
        "Each claim is predicted before it is measured: lines are predictions, points are measured, and with one wrong",
        "constant a figure fails. `python -m paper_figures` computes them anew; add `--quick` for fewer and smaller runs.",
        "",
        "| | claim | source | verdict |",
        "|---|---|---|---|",
    ]
    for name in names:
        title, _, source, checks = _read(name, root)
        verdict = f"holds, {len(checks)} checks" if all(c["holds"] for c in checks) else "FAILS"
        picture = f"[![{name}](figures/{name}.png){{width=120px}}](figures/{name}.md)"
        lines.append(f"| {picture} | [{title}](figures/{name}.md) | {literal(source).strip()} | {verdict} |")
    lines += ["", "```{toctree}", ":hidden:", "", *(f"figures/{name}" for name in names), "```", ""]
    return "\n".join(lines)


def figure(name: str, root: Path) -> str:
    """One figure: its claim, the equation, the picture and its checks."""
    title, text, source, checks = _read(name, root)
    lines = [f"# {title}", "", f"![{title}]({name}.png)", "", literal(text), f"Source: {literal(source).strip()}", ""]
    lines += ["| claim | predicted | measured | tolerance | verdict |", "|---|--:|--:|--:|---|"]
    for c in checks:
        numbers = f"{c['predicted']:.5g} | {c['measured']:.5g} | {c['tolerance']:.2g}"
        lines.append(f"| {literal(c['claim']).strip()} | {numbers} | {'holds' if c['holds'] else 'FAILS'} |")
    lines += ["", f"Computed by `paper_figures/{name}.py`: `python -m paper_figures {name.partition('_')[0]}`.", ""]
    return "\n".join(lines)


def _read(name: str, root: Path) -> tuple[str, str, str, list[dict]]:
    """Title, docstring, source and checks of a figure, without running its module."""
    text = ast.get_docstring(ast.parse((root / f"paper_figures/{name}.py").read_text(encoding="utf-8"))) or ""
    text, _, source = text.partition("Source:")
    summary = json.loads((root / f"paper_figures/results/{name}.json").read_text(encoding="utf-8"))
    return summary["title"], text.strip(), " ".join(source.split("\n\n")[0].split()), summary["checks"]


def tour(notebooks: list[Path]) -> str:
    """The list of notebooks."""
    text = """A guided tour, which the tests run, and which was run for these pages. To change it, take the files below, or in a clone
`pip install -e ".[notebooks]"`, then `jupyter lab notebooks`."""
    files = "\n".join(f"- {{download}}`{path.name} <notebooks/{path.name}>`" for path in notebooks)
    return _listing("Notebooks", text, [f"notebooks/{path.stem}" for path in notebooks]) + "\n" + files + "\n"


def _listing(title: str, text: str, pages: list[str]) -> str:
    return "\n".join([f"# {title}", "", text, "", "```{toctree}", "", *pages, "```", ""])
