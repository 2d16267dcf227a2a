"""Docstrings are written for a terminal: what reStructuredText would read in their formulas is quoted here, on the way to the site."""

import re

_SECTION = re.compile(r"-{3,}\s*$")
_CODE = re.compile(r"(``.+?``|`[^`]+`(?:_)?|:\w+:`[^`]+`)")


def as_rest(app, what, name, obj, options, lines: list[str]) -> None:
    """An indented formula of the text becomes a literal block, and |x|, * and a trailing _ stay what they are."""
    lines[:] = quoted(lines)


def quoted(lines: list[str]) -> list[str]:
    """The lines of a numpydoc docstring as reStructuredText."""
    result: list[str] = []
    free, section = True, ""  # in running text, where indentation means a formula
    block = None  # the indentation of a literal block
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and _SECTION.match(lines[number + 1]) and line.strip():
            section, free, block = line.strip(), line.strip() in ("Notes", "References"), None
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent < block:
            block = None
        if free and block is None and indent >= 2 and number and not lines[number - 1].strip():
            result += ["::", ""] if not result or not result[-1].rstrip().endswith("::") else []
            block = indent
        if section == "Examples" or block is not None or _SECTION.match(line):
            result.append(line)
        else:
            result.append(_escaped(line))
    return result


def _escaped(line: str) -> str:
    head = re.match(r"(\s*)(\*{1,2}\w+|\w[\w, *]*?)( : .*)?$", line)  # a parameter's own line is numpydoc's
    if head and head[3]:
        return f"{head[1]}{head[2]}{_text(head[3])}"
    return _text(line)


def _text(text: str) -> str:
    pieces = _CODE.split(text)
    pieces[1::2] = [f"`{piece}`" if piece.startswith("`.") else piece for piece in pieces[1::2]]  # one class's own, of many
    pieces[::2] = [re.sub(r"([|*])|(?<=\w)(_)(?!\w)", r"\\\1\2", piece) for piece in pieces[::2]]
    return "".join(pieces)
