"""A running study is watched: the page shows what is finished, at a small part of the time."""

import urllib.error
import urllib.request
from html.parser import HTMLParser

import numpy as np
import pytest

import attnflow as af
from attnflow.plotting import live
from attnflow.studies.result import StudyResult


class Page(HTMLParser):
    """The rows of its table, its markers, and how it is refreshed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.markers, self.refreshed, self._cell = [], 0, False, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        self.markers += tag == "use"
        self.refreshed |= ("http-equiv", "refresh") in attributes

    def handle_data(self, data):
        if self._cell:
            self.rows[-1].append(data)
            self._cell = False


def served(page):
    return Page(urllib.request.urlopen(page.address, timeout=10).read().decode())


@pytest.fixture(scope="module")
def result():
    study = af.ConvergenceStudy(
        af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.4, [0.1, 0.05], [200, 400, np.inf], 2
    )
    return study.run(progress=False)


def test_the_page_has_the_cells_that_are_finished_and_fills_in(result, monkeypatch):
    monkeypatch.setattr(live, "_SHARE", 1e9)  # every picture at once
    with af.LivePage() as page:
        part = StudyResult(result.study, result.cells[:3], "running")
        page(part)
        early = served(page)
        assert early.refreshed and len(early.rows) == 1 + 3
        page(result)
        late = served(page)
        assert not late.refreshed and late.markers > early.markers
        names = late.rows[0]
        found = {tuple(row) for row in late.rows[1:]}
        assert found == {tuple(str(cell[name]) for name in names) for cell in result.cells}
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page.address, timeout=2)


def test_pictures_take_a_small_part_of_the_time(result, monkeypatch):
    shown, clock = [], [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])

    class Slow(live._Watch):
        def _show(self, result):
            shown.append(len(result.cells))
            clock[0] += 1.0

    watch, part = Slow(), StudyResult(result.study, result.cells[:1], "running")
    for _ in range(1000):
        watch(part)
        clock[0] += 0.1
    assert 4 <= len(shown) <= 6  # 100 s, one picture a second long every 20
    watch(result)
    assert shown[-1] == len(result.cells)  # the last one in any case


def test_a_port_in_use_is_refused():
    with af.LivePage() as page:
        port = int(page.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(ValueError, match="port must be one that is free"):
            af.LivePage(port)
    with pytest.raises(ValueError, match="port"):
        af.LivePage(70000)


def test_a_notebook_shows_one_figure_that_is_renewed(result, monkeypatch):
    ipython = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("update", figure))

    monkeypatch.setattr(ipython, "display", lambda figure, display_id: shown.append(("display", figure)) or Handle())
    watch = af.LiveFigure()
    watch(result)
    watch(result)
    assert [kind for kind, _ in shown] == ["display", "update"]
    assert all(len(figure.axes) == 2 for _, figure in shown)
