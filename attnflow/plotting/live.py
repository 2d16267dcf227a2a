"""A study watched while it runs: its picture in a notebook, or on a page that this machine serves to itself.

Both are callbacks of `ConvergenceStudy.run`, which gives them what is finished. A picture takes a part of a second: the
next one waits until all of them together are a small part of the time.
"""

from __future__ import annotations

import io
import time
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Thread

from .. import checks, display

_SHARE = 0.1  # of the time, that pictures may take
_REFRESH = 2  # seconds after which a browser asks again
_COLUMNS = ("normalization", "epsilon", "size", "seed", "error", "deviation", "seconds", "engine")
_STYLE = (
    "body{font:14px system-ui,sans-serif;color:#1f2937;max-width:62rem;margin:1.5rem auto;padding:0 1rem}"
    "svg{width:100%;height:auto}progress{width:100%;height:.6rem;accent-color:#c2410c}pre{overflow-x:auto}"
    "table{border-collapse:collapse}caption{text-align:left;padding:.5rem 0}"
    "th,td{padding:.15rem .8rem .15rem 0;text-align:right;border-bottom:1px solid #e5e7eb;font-variant-numeric:tabular-nums}"
)
_PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{refresh}<style>{style}</style></head>'
    '<body><h1>{title}</h1><progress max="{total}" value="{done}"></progress>{picture}{found}{cells}</body></html>\n'
)


class _Watch:
    """Draws what is finished, as often as its share of the time allows."""

    def __init__(self) -> None:
        self._next, self._seen = 0.0, None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'nothing is finished yet' if self._seen is None else _title(self._seen)})"

    def __call__(self, result) -> None:
        """Show what is finished; a callback of `ConvergenceStudy.run`."""
        for part in result.parts:
            part.predicted  # made once, and no part of what pictures take
        began, self._seen = time.monotonic(), result
        if began >= self._next or _whole(result):
            self._show(result)
            ended = time.monotonic()
            # the first one loads matplotlib, and tells nothing of those to come
            self._next = ended + (_REFRESH if self._next == 0.0 else (ended - began) / _SHARE)

    def _show(self, result) -> None:
        raise NotImplementedError


class LiveFigure(_Watch):
    """The picture of a running study in a notebook, which fills in as cells finish.

    Raises
    ------
    ImportError
        Without IPython.

    Examples
    --------
    In a notebook, ``study.run(callback=af.LiveFigure())``. It is any callback's way of looking at a study:

    >>> import attnflow as af
    >>> callable(af.LiveFigure())
    True
    """

    def __init__(self) -> None:
        super().__init__()
        if find_spec("IPython") is None:
            raise ImportError("LiveFigure needs a notebook: pip install ipython, or watch an af.LivePage()")
        self._handle = None

    def _show(self, result) -> None:
        from IPython.display import display as show

        figure = _picture(result)
        if self._handle is None:
            self._handle = show(figure, display_id=True)
        else:
            self._handle.update(figure)


class LivePage(_Watch):
    """A page on 127.0.0.1 with the picture, the slopes and the cells of a running study; a context manager.

    Parameters
    ----------
    port : int
        0 takes a free one; `address` says which.

    Raises
    ------
    ValueError
        If the port is in use, or none.

    Examples
    --------
    >>> import attnflow as af, urllib.request
    >>> with af.LivePage() as page:
    ...     text = urllib.request.urlopen(page.address).read().decode()
    >>> "nothing is finished yet" in text
    True
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        port = checks.integer(port, "port", least=0)
        self._html = _html("nothing is finished yet", "", "", "", 0, 1, going=True)
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds that a silent connection may take a thread

            def do_GET(self) -> None:
                known = self.path in ("/", "/index.html")
                body = page._html.encode() if known else b"not found\n"
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8" if known else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)
                if known:
                    page._asked, page._last = True, not page._going

            def log_message(self, format: str, *_) -> None:
                """Requests are nobody's business."""

        self._going, self._asked, self._last = True, False, False
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(f"port must be one that is free on this machine, got {port}: {error}") from None
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __repr__(self) -> str:
        return f"LivePage({self.address!r})"

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """The study has ended: show what there is, and stop once a page that is open somewhere has had time to fetch it."""
        if self._seen is not None and self._going:
            self._draw(self._seen, going=False)
            self._going = False  # not before the page is there
        patience = time.monotonic() + _REFRESH + 0.5
        while self._asked and not (self._going or self._last) and time.monotonic() < patience:
            time.sleep(0.05)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _show(self, result) -> None:
        self._draw(result, going=True)

    def _draw(self, result, going: bool) -> None:
        drawn = io.StringIO()
        _picture(result).savefig(drawn, format="svg")
        svg = drawn.getvalue()
        done, total, title = len(result.cells), len(result.study.cells()), _title(result)
        found = "" if going else f"<pre>{escape(result.summary())}</pre>"
        self._html = _html(title, svg[svg.index("<svg") :], found, _cells(result.cells), done, total, going)


def _whole(result) -> bool:
    return len(result.cells) == len(result.study.cells())


def _title(result) -> str:
    count = display.counted(len(result.study.cells()), "cell")
    return f"All {count} are finished" if _whole(result) else f"{len(result.cells)} of {count}"


def _picture(result):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.9), layout="constrained")  # without pyplot: no window can open
    result.plot(figure.subplots(1, 2))
    return figure


def _cells(cells: list[dict]) -> str:
    """A table, the last one first."""
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(str(cell[n]))}</td>' for n in _COLUMNS)}</tr>" for cell in reversed(cells))
    return f"<table><caption>Finished cells</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html(title: str, picture: str, found: str, cells: str, done: int, total: int, going: bool) -> str:
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH}">' if going else ""
    return _PAGE.format(
        title=escape(title), refresh=refresh, style=_STYLE, total=total, done=done, picture=picture, found=found, cells=cells
    )
