"""Every link, picture and anchor within a built site is there: python docs/check_links.py build/docs"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[key] or "" for key in ("id", "name") if key in values}
        self.targets |= {values[key] or "" for key in ("href", "src") if key in values}


def broken(site: Path) -> list[str]:
    """Links that lead nowhere, as "page: target"."""
    read = cache(_Page)
    found = []
    for page in sorted(site.rglob("*.html")):
        for target in sorted(read(page).targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue  # of others
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchored = parts.fragment and there.suffix == ".html"
            if not there.exists() or (anchored and unquote(parts.fragment) not in read(there).anchors):
                found.append(f"{page.relative_to(site)}: {target}")
    return found


if __name__ == "__main__":
    pages = broken(Path(sys.argv[1]))
    print("\n".join(pages) or "every link within the site leads somewhere")
    sys.exit(bool(pages))
