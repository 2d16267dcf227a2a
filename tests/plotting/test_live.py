"""A running study is watched: the page shows what is finished, at a small part of the time."""

import json
import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from html.parser import HTMLParser
from threading import Thread

import numpy as np
import pytest
from matplotlib.figure import Figure

import attnflow as af
from attnflow.cli import main
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


def at_the_end(page):
    """What a browser shows that asks again while it is told to."""
    while (shown := served(page)).refreshed:
        time.sleep(0.1)
    return shown


@pytest.fixture(scope="module")
def result():
    study = af.ConvergenceStudy(
        af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.4, [0.1, 0.05], [200, 400, np.inf], 2
    )
    return study.run(progress=False)


def test_the_page_has_the_cells_that_are_finished_and_fills_in(result, monkeypatch):
    monkeypatch.setattr(live, "_SHARE", 1e9)  # every picture at once
    monkeypatch.setattr(live, "_REFRESH", 2)
    last = []
    with af.LivePage() as page:
        part = StudyResult(result.study, result.cells[:3], "running")
        page(part)
        early = served(page)
        assert early.refreshed and len(early.rows) == 1 + 3
        page(result)
        late = served(page)
        assert late.refreshed and late.markers > early.markers  # seeds may be added still
        names = late.rows[0]
        found = {tuple(row) for row in late.rows[1:]}
        assert found == {tuple(str(cell[name]) for name in names) for cell in result.cells}
        browser = Thread(target=lambda: last.append(at_the_end(page)))
        browser.start()
    browser.join()
    assert not last[0].refreshed and len(last[0].rows) == len(late.rows)  # what it stays at, also where a run was interrupted
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page.address, timeout=2)


def test_a_study_that_runs_fills_the_page_with_what_its_store_has(result, monkeypatch, tmp_path):
    monkeypatch.setattr(live, "_SHARE", 1e9)
    monkeypatch.setattr(live, "_REFRESH", 0)
    counts = []
    with af.LivePage() as page:

        def watched(so_far):
            page(so_far)
            counts.append(len(served(page).rows) - 1)

        result.study.run(tmp_path / "study.sqlite", progress=False, callback=watched)
        shown = served(page)
    assert counts == list(range(1, len(result.cells) + 1))
    with closing(sqlite3.connect(tmp_path / "study.sqlite")) as store:
        kept = [json.loads(row) for (row,) in store.execute("SELECT result FROM cells WHERE kind = 'cell'")]
    names = shown.rows[0]
    assert {tuple(row) for row in shown.rows[1:]} == {tuple(str(cell[name]) for name in names) for cell in kept}


def test_a_callback_ends_a_study(result):
    part = result.study.run(progress=False, callback=lambda so_far: len(so_far.cells) == 4)
    assert part.status == 1 and "stopped by callback after 4 of" in part.message and len(part.cells) == 4


def test_the_command_says_where_its_page_is(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(live, "_picture", lambda result: Figure())  # drawn before
    study = tmp_path / "study.toml"
    study.write_text(
        '[space]\nkind = "circle"\n[density]\nkind = "uniform"\n[pseudometric]\nkind = "squared-distance"\n[layer]\n'
        '[initial]\nkind = "cos"\n[study]\nt = 0.4\nepsilons = [0.1]\nsizes = ["inf"]\n'
    )
    assert main(["converge", str(study), "--out", str(tmp_path), "--live"]) == 0
    assert "watch it at http://127.0.0.1:" in capsys.readouterr().out
    with af.LivePage() as page:
        port = page.address.rstrip("/").rpartition(":")[2]
        assert main(["converge", str(study), "--out", str(tmp_path), "--live", port]) == 2
    assert "port must be one that is free" in capsys.readouterr().err


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
    assert 9 <= len(shown) <= 12  # 100 s, after the first one a picture a second long every 10
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
