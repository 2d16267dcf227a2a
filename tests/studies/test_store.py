"""A store is trusted as far as it can be checked, and is never overwritten with anything but finished cells."""

import json
import sqlite3

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main
from attnflow.studies import store

P = af.VonMises(1.0)


def cos(x):
    return np.cos(x[..., 0])


def study(**options):
    return af.ConvergenceStudy(af.SquaredDistance(af.Circle()), P, cos, 0.5, (0.1, 0.05), (60,), 2, **options)


def edit(path, change):
    """Apply a change to the first finite cell's row."""
    with sqlite3.connect(path) as connection:
        for key, result in connection.execute("SELECT key, result FROM cells").fetchall():
            row = json.loads(result)
            if row["size"] == 60:
                value = change(row)
                as_text = isinstance(value, str)  # whatever its bytes are
                value = value.encode("utf-8", "surrogateescape") if as_text else value
                place = "CAST(? AS TEXT)" if as_text else "?"
                connection.execute(f"UPDATE cells SET result = {place} WHERE key = ?", (value, key))
                return


def swap(path):
    with sqlite3.connect(path) as connection:
        (a, x), (b, y) = connection.execute("SELECT key, result FROM cells LIMIT 2").fetchall()
        connection.executemany("UPDATE cells SET result = ? WHERE key = ?", [(y, a), (x, b)])


ROWS = {
    "a key is missing": lambda row: json.dumps({k: v for k, v in row.items() if k != "deviation"}),
    "a key too many": lambda row: json.dumps({**row, "verdict": "fine"}),
    "not finite": lambda row: json.dumps({**row, "error": float("nan")}),
    "infinite": lambda row: json.dumps({**row, "deviation": float("inf")}),
    "negative": lambda row: json.dumps({**row, "error": -0.1}),
    "text for a number": lambda row: json.dumps({**row, "error": "0.1"}),
    "an integer beyond floats": lambda row: json.dumps({**row, "error": 10**400}),
    "a truth for a seed": lambda row: json.dumps({**row, "seed": bool(row["seed"])}),
    "another temperature": lambda row: json.dumps({**row, "epsilon": 0.07}),
    "another number of layers": lambda row: json.dumps({**row, "layers": row["layers"] + 1}),
    "a formula": lambda row: json.dumps({**row, "engine": "=HYPERLINK(1)"}),
    "an engine that is none": lambda row: json.dumps({**row, "engine": ["numba"]}),
    "no JSON": lambda row: json.dumps(row)[:-3],
    "a list": lambda row: "[1, 2]",
    "ten thousand brackets": lambda row: "[" * 10_000 + "]" * 10_000,
    "bytes": lambda row: b"\xff\xfe\x00",
    "text that is none": lambda row: json.dumps(row).replace("engine", "eng\udcffne"),
    "nothing": lambda row: None,
    "a number": lambda row: 7,
}


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_is_named_and_left_as_it_is(tmp_path, name):
    path = tmp_path / "s.sqlite"
    study().run(path, progress=False)
    edit(path, ROWS[name])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="store must hold whole cells, got .*s.sqlite") as caught:
        study().run(path, progress=False)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_another_cells_row_does_not_count(tmp_path):
    study().run(tmp_path / "s.sqlite", progress=False)
    swap(tmp_path / "s.sqlite")
    with pytest.raises(ValueError, match="must be .* in this cell"):
        study().run(tmp_path / "s.sqlite", progress=False)


def others_database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.execute("INSERT INTO bookmarks VALUES ('x')")


def others_cells(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cells (row INTEGER, column INTEGER, formula TEXT)")


def view_of_that_name(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE kept (key TEXT, study TEXT, result TEXT)")
        connection.execute("CREATE VIEW cells AS SELECT * FROM kept")


def truncated(path):
    study().run(path, progress=False)
    path.write_bytes(path.read_bytes()[:6000])


def overwritten_in_the_middle(path):
    study().run(path, progress=False)
    content = bytearray(path.read_bytes())
    content[4096:4300] = b"\xa5" * 204
    path.write_bytes(bytes(content))


FILES = {
    "another application's": others_database,
    "a table of that name": others_cells,
    "a view of that name": view_of_that_name,
    "truncated": truncated,
    "overwritten in the middle": overwritten_in_the_middle,
    "text": lambda path: path.write_text("cells\n" * 500),
    "a header only": lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\x10" * 3000),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path, name, monkeypatch):
    path = tmp_path / "s.sqlite"
    FILES[name](path)
    before = path.read_bytes()
    monkeypatch.setattr("attnflow.studies.cells.run_cell", lambda *_: pytest.fail("computed before it was looked at"))
    with pytest.raises(ValueError, match="store must be a file of finished cells, got .*s.sqlite") as caught:
        study().run(path, progress=False)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(ValueError, match="store must be a file of finished cells, got .*: no regular file"):
        study().run(tmp_path, progress=False)


def limited(pragma):
    """sqlite3.connect with a pragma: what full and read-only disks do, without one (root writes everywhere)."""
    connect = sqlite3.connect

    def limit(*args, **options):
        connection = connect(*args, **options)
        connection.execute(pragma)
        return connection

    return limit


def test_a_store_that_cannot_be_written_is_found_before_the_first_cell(tmp_path, monkeypatch):
    study().run(tmp_path / "s.sqlite", progress=False)
    monkeypatch.setattr(store.sqlite3, "connect", limited("PRAGMA query_only = ON"))
    monkeypatch.setattr("attnflow.studies.cells.run_cell", lambda *_: pytest.fail("computed before it was looked at"))
    with pytest.raises(ValueError, match="store must be a file that can be written, got .*readonly"):
        study(seed=1).run(tmp_path / "s.sqlite", progress=False)
    assert len(study().run(tmp_path / "s.sqlite", progress=False).cells) == 6  # nothing to write


def test_a_full_disk_ends_the_study_in_a_line_that_says_what_was_kept(tmp_path, monkeypatch, capsys):
    path = tmp_path / "s.sqlite"
    made = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), P, cos, 0.5, (0.4, 0.25), (30,), 60)
    monkeypatch.setattr(store.sqlite3, "connect", limited("PRAGMA max_page_count = 6"))
    with pytest.raises(OSError, match="a finished cell could not be written to the store .*disk is full") as caught:
        made.run(path, progress=False)
    monkeypatch.undo()
    kept = made.run(path, progress=False)
    assert 0 < kept.resumed < 122
    assert caught.value.__notes__ == [f"after {kept.resumed} of 122 cells; run again with the same store to resume"]


def test_the_command_gives_a_line_and_2_for_bad_stores_and_1_for_full_ones(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.toml").write_text("[study]\nt = 0.5\nepsilons = [0.4, 0.25]\nsizes = [30]\nseeds = 60\n")
    command = ["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path)]
    others_database(tmp_path / "study.sqlite")
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attnflow: store must be a file of finished cells")
    (tmp_path / "study.sqlite").unlink()
    monkeypatch.setattr(store.sqlite3, "connect", limited("PRAGMA max_page_count = 6"))
    assert main(command) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attnflow:")]
    assert len(said) == 1 and "disk is full" in said[0] and "run again with the same store to resume" in said[0]
    assert not (tmp_path / "converge.csv").exists()


def test_a_store_keeps_no_file_beside_it(tmp_path):
    study().run(tmp_path / "s.sqlite", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [
        "s.sqlite"
    ]  # a rollback journal, which goes: network disks have no shared memory
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (6,)


def newer(path):
    study().run(path, progress=False)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {store.FORMAT + 1}")
        connection.execute("ALTER TABLE cells ADD COLUMN mood TEXT")


def test_a_store_of_a_newer_format_is_refused_unharmed(tmp_path):
    path = tmp_path / "s.sqlite"
    newer(path)
    before = path.read_bytes()
    for ask in (study(), study(seed=1)):
        with pytest.raises(
            ValueError, match="store must be a file of finished cells, .*: of format 2, written by a newer attnflow"
        ):
            ask.run(path, progress=False)
    assert path.read_bytes() == before


def of_the_first_format(path):
    """As they were before stores had a number: three columns of finished cells."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT key, study, result FROM cells WHERE kind = 'cell'").fetchall()
        for table in ("cells", "studies"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("CREATE TABLE cells (key TEXT PRIMARY KEY, study TEXT, result TEXT)")
        connection.executemany("INSERT INTO cells VALUES (?, ?, ?)", rows)
        connection.execute("PRAGMA user_version = 0")
        connection.execute("PRAGMA application_id = 0")


def test_a_store_of_the_first_format_is_read_and_brought_up_by_the_first_write(tmp_path):
    path = tmp_path / "s.sqlite"
    first = study().run(path, progress=False)
    of_the_first_format(path)
    before = path.read_bytes()
    again = study().run(path, progress=False)
    assert again.cells == first.cells and again.resumed == 6
    assert path.read_bytes() == before  # there was nothing to write
    assert study(seed=1).run(path, progress=False).resumed == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (store.FORMAT,)
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
            ("cells",),
            ("studies",),
        ]
        assert connection.execute("SELECT count(*), count(host) FROM cells").fetchone() == (12, 6)  # whose were not known
    assert study().run(path, progress=False).cells == first.cells


def test_a_store_that_cannot_be_brought_up_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    first = study().run(path, progress=False)
    of_the_first_format(path)
    before = path.read_bytes()
    broken = (*store._MIGRATION[:2], "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(store, "_MIGRATION", broken)
    with pytest.raises(ValueError, match="store must be a file that can be written, .*no such table"):
        study(seed=1).run(path, progress=False)
    assert path.read_bytes() == before and study().run(path, progress=False).cells == first.cells


def test_every_cell_says_where_it_comes_from(tmp_path):
    path = tmp_path / "s.sqlite"
    result = study(residual=0.5).run(path, progress=False)
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        rows = {row["key"]: row for row in connection.execute("SELECT * FROM cells")}
        (asked,) = connection.execute("SELECT * FROM studies").fetchall()
    assert len(rows) == 6
    for row in rows.values():
        cell, parameters = json.loads(row["result"]), json.loads(row["parameters"])
        assert cell in result.cells and (row["kind"], row["status"], row["message"]) == ("cell", "finished", "")
        assert (row["seed"], row["engine"], row["seconds"]) == (cell["seed"], cell["engine"], cell["seconds"])
        assert parameters["epsilon"] == cell["epsilon"] and parameters["residual"] == 0.5
        assert json.loads(row["versions"])["numpy"] == np.__version__ and row["host"]
        assert row["study"] == study(residual=0.5).fingerprint == json.loads(asked["parts"])[0]
    assert json.loads(asked["description"])["density"]["kappa"] == 1.0 and json.loads(asked["tables"]) is None


def test_a_failure_never_takes_the_place_of_a_result(tmp_path):
    with store.Store(tmp_path / "s.sqlite") as kept:
        kept.prepare()
        finished = store.Entry("a", "cell", "s", {}, 0, {}, "numba", 0.1, "finished", "here", "", {"error": 1.0})
        failed = finished._replace(status="failed", message="RuntimeError: late", result=None)
        for entry in (failed, finished, failed):  # another process tried the same
            kept.add(entry)
        assert kept.find({"a": lambda _: None}) == {"a": {"error": 1.0}}
