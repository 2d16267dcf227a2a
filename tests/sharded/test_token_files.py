"""Tokens on disk, in Zarr and in Dask; workers of a cluster; and what of these is refused."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import attnflow as af
from attnflow.sharded import disk
from attnflow.sharded import layer as sharded_layer
from attnflow.sharded import sums as sharded_sums
from attnflow.sharded.rows import open_rows
from attnflow.sharded.sinks import Sink

LAYER = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), 1e-3, backend="cells")
TOKENS = np.random.default_rng(0).random((900, 2))
VALUES = np.cos(2 * np.pi * TOKENS)
SHARDS = af.Sharded(LAYER, block=250)
EXPECTED = SHARDS(TOKENS, VALUES)


def saved(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [folder / f"{name}.npy" for name in arrays]


def test_files_shards_of_them_and_mapped_arrays_give_the_same_bits(tmp_path):
    x, v, first, rest = saved(tmp_path, x=TOKENS, v=VALUES, first=TOKENS[:333], rest=TOKENS[333:])
    columns_first, single = saved(tmp_path, f=np.asfortranarray(TOKENS), single=VALUES[:, 0])
    out = SHARDS(str(x), v, out=tmp_path / "out.npy")
    assert isinstance(out, np.memmap) and (out == EXPECTED).all() and (np.load(tmp_path / "out.npy") == EXPECTED).all()
    for tokens in ([first, rest], [TOKENS[:100], TOKENS[100:]], np.load(x, mmap_mode="r"), columns_first):
        assert (SHARDS(tokens, v) == EXPECTED).all()
    column = VALUES[:, 0]
    for values in (single, [column[:450], column[450:]], [column[:100], column[100:]]):
        assert (SHARDS(x, values) == EXPECTED[:, :1]).all()
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem == "out" or path.suffix != ".npy") == ["out.npy"]


def test_many_layers_from_file_to_file_leave_only_the_result(tmp_path):
    x, v = saved(tmp_path, x=TOKENS, v=VALUES)
    (tmp_path / "scratch").mkdir()
    shards = af.Sharded(LAYER, block=250, scratch=tmp_path / "scratch")
    y = shards.propagate(x, v, 4, out=tmp_path / "y.npy")
    assert (y == SHARDS.propagate(TOKENS, VALUES, 4)).all() and list((tmp_path / "scratch").iterdir()) == []
    again = SHARDS.propagate(x, SHARDS.propagate(x, v, 3), 1)
    assert (y == again).all()


def test_an_interrupted_run_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    np.save(tmp_path / "out.npy", np.ones(3))
    real, written = Sink.write, []

    def write(self, first, values):
        written.append(first)
        if len(written) == 2:
            raise KeyboardInterrupt
        real(self, first, values)

    monkeypatch.setattr(sharded_layer.Sink, "write", write)
    with pytest.raises(KeyboardInterrupt):
        SHARDS(TOKENS, VALUES, out=tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"] and (np.load(tmp_path / "out.npy") == 1).all()


def test_a_result_does_not_replace_what_it_is_computed_from(tmp_path):
    x, v, first, rest = saved(tmp_path, x=TOKENS, v=VALUES, first=TOKENS[:333], rest=TOKENS[333:])
    (tmp_path / "link.npy").symlink_to(x)
    mapped = np.load(x, mmap_mode="r")[:800]
    for name, tokens, values, queries, out in [
        ("tokens", x, None, None, x),
        ("tokens", x, v, None, tmp_path / "link.npy"),
        ("tokens", [first, rest], v, None, rest),
        ("tokens", mapped, None, None, x),
        ("values", x, v, None, v),
        ("queries", TOKENS, VALUES, x, x),
    ]:
        with pytest.raises(ValueError, match=f"out must be another file than {name}, got '.*npy' for both"):
            SHARDS(tokens, values, queries, out=out)
    with pytest.raises(ValueError, match="out must be another file than values"):
        SHARDS.propagate(x, v, 2, out=v)
    assert (np.load(x) == TOKENS).all() and (np.load(v) == VALUES).all() and (np.load(rest) == TOKENS[333:]).all()


@pytest.mark.parametrize(
    "rule, layers, asked", [(af.DensityCorrected(0.5), 3, False), ("column", 1, True), ("softmax", 2, False)]
)
@pytest.mark.parametrize("backend", ["cells", "numba"])
def test_what_is_on_disk_is_what_was_predicted(tmp_path, monkeypatch, rule, layers, asked, backend):
    layer = af.Attention(LAYER.f, 1e-3, rule, backend=backend)
    values, queries, held = np.cos(TOKENS[:, :1] * np.arange(8)), TOKENS[:500] if asked else None, []
    real = Sink.finish

    def finish(self):
        held.extend(path.stat().st_size for path in tmp_path.rglob("*.npy"))
        return real(self)

    monkeypatch.setattr(sharded_layer.Sink, "finish", finish)
    shards = af.Sharded(layer, block=250, scratch=tmp_path)
    shards(TOKENS, values, queries) if layers == 1 else shards.propagate(TOKENS, values, layers)
    heads = 128 * len(held)
    asked_rows = None if queries is None else open_rows(queries, "queries")
    expected = disk.needed(layer, backend, open_rows(TOKENS, "tokens"), asked_rows, 8, layers)
    assert sum(held) - heads == expected
    if backend == "cells" and layers == 3:
        assert expected == 300 * len(TOKENS)


def test_what_has_no_room_on_disk_is_not_begun(tmp_path, monkeypatch):
    (x,) = saved(tmp_path, x=TOKENS)
    free = 900 * (8 * 2 + 4 + 16 * 2 + 8)  # in scratch; 900 * 16 for the result are lacking
    monkeypatch.setattr(af.capacity.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(sharded_layer, "survey", lambda *_: pytest.fail("tokens were read"))
    shards = af.Sharded(LAYER, block=250, scratch=tmp_path)
    with pytest.raises(
        ValueError, match=r"scratch must have room on disk, got a request for 6.84e\+4 bytes in .* 5.40e\+4 are free"
    ):
        shards(x, out=tmp_path / "out.npy")


@pytest.mark.optional
def test_dask_arrays_in_dask_arrays_out():
    array = pytest.importorskip("dask.array")
    out = SHARDS(array.from_array(TOKENS, chunks=(400, 2)), array.from_array(VALUES, chunks=(300, 1)))
    assert isinstance(out, array.Array) and out.chunks[0] == (250, 250, 250, 150) and (out.compute() == EXPECTED).all()
    halves = [array.from_array(part, chunks=(200, 2)) for part in (TOKENS[:450], TOKENS[450:])]
    out = SHARDS(halves, [VALUES[:100], halves[0] * 0 + 1, VALUES[550:]])
    assert isinstance(out, array.Array) and isinstance(SHARDS(halves), array.Array) and out.shape == (900, 2)
    with pytest.raises(ValueError, match="tokens must have shape"):
        SHARDS(array.from_array(TOKENS, chunks=(400, 2))[array.from_array(TOKENS[:, 0]) > 0.5])  # of a length not known yet


@pytest.mark.optional
def test_zarr_in_zarr_out(tmp_path):
    zarr = pytest.importorskip("zarr")
    for name, array in (("x", TOKENS), ("v", VALUES)):
        zarr.save_array(str(tmp_path / f"{name}.zarr"), array)
    tokens = zarr.open_array(str(tmp_path / "x.zarr"), mode="r")
    out = SHARDS(tokens, tmp_path / "v.zarr", out=tmp_path / "out.zarr")
    assert isinstance(out, zarr.Array) and (out[:] == EXPECTED).all()
    with pytest.raises(ValueError, match="out must be new for a Zarr array"):
        SHARDS(tokens, out=tmp_path / "out.zarr")
    with pytest.raises(ValueError, match="out must be another file than tokens"):
        SHARDS(tokens, out=tmp_path / "x.zarr" / "out.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="tokens must be a Zarr array, got the folder"):
        SHARDS(tmp_path / "empty")


def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r'tokens is a Zarr array.*pip install "attnflow\[storage\]"'):
        SHARDS(tmp_path)
    with pytest.raises(ImportError, match=r"out is a Zarr array"):
        SHARDS(TOKENS, out=tmp_path / "out.zarr")


@pytest.mark.optional
@pytest.mark.parametrize("backend", [pytest.param("numba", marks=pytest.mark.slow), "cells", "nufft"])
def test_workers_in_processes_give_the_same_bits(tmp_path, backend, cluster):
    layer = af.Attention(LAYER.f, 1e-4, "column", backend=backend, rtol=1e-9, residual=0.5)
    x = np.random.default_rng(1).random((20_000, 2))
    v = np.sin(2 * np.pi * x[:, :1])
    saved(tmp_path, x=x)
    found = af.Sharded(layer, block=5000, client=cluster, scratch=tmp_path).propagate(tmp_path / "x.npy", v, 2)
    assert (found == af.Sharded(layer, block=5000).propagate(x, v, 2)).all()
    with pytest.raises(ValueError, match="tokens must be finite, got .* in row 12345"):
        af.Sharded(layer, block=5000, client=cluster)(spoilt(x, 12345))


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("finufft")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as workers:
        with distributed.Client(workers) as client:
            yield client


@pytest.mark.optional
def test_a_closed_client_is_refused():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
        shards = af.Sharded(LAYER, client=client)
    with pytest.raises(ValueError, match="client must be open, got one that is closed"):
        shards(TOKENS)
    with pytest.raises(ValueError, match="client must be open"):
        af.Sharded(LAYER, client=client)


def spoilt(array, row, value=np.nan):
    array = array.copy()
    array[row, 0] = value
    return array


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: SHARDS(spoilt(TOKENS, 700)), ValueError, r"tokens must be finite, got .*nan.* in row 700"),
        (lambda: SHARDS(TOKENS, spoilt(VALUES, 260, np.inf)), ValueError, r"values must be finite, got .*inf.* in row 260"),
        (lambda: SHARDS([TOKENS, VALUES[:, :1]]), ValueError, "tokens must be shards of the same number of columns, got 2"),
        (lambda: SHARDS(TOKENS[:, :1]), ValueError, "tokens must have 2 columns"),
        (lambda: SHARDS(TOKENS, VALUES[1:]), ValueError, "values must have 900 rows as tokens have, got 899"),
        (lambda: SHARDS("nowhere.npy"), FileNotFoundError, "tokens must be a file that exists, got 'nowhere.npy'"),
        (lambda: SHARDS(TOKENS, out="nowhere/out.npy"), FileNotFoundError, "out must be in a folder that exists"),
        (lambda: SHARDS(TOKENS, out="out.txt"), ValueError, "out must end in .npy or .zarr"),
        (lambda: af.Sharded(LAYER, scratch="nowhere"), FileNotFoundError, "scratch must be a folder that exists"),
        (lambda: SHARDS(__file__), ValueError, "tokens must be an .npy file of numbers"),
        (lambda: SHARDS(TOKENS.astype(str)), TypeError, "tokens must be an array of real numbers"),
        (lambda: af.Sharded(af.MultiHead([LAYER])), TypeError, "layer must be an Attention, got MultiHead"),
        (lambda: af.Sharded(af.Attention(LAYER.f, 1.0, af.TopK(3))), ValueError, "layer must weigh all keys.*'topk:3'"),
        (lambda: af.Sharded(af.Attention(LAYER.f, 1.0, "screening:0.5")), ValueError, "layer must weigh all keys"),
        (lambda: af.Sharded(af.Attention(LAYER.f, 1.0, "none")), ValueError, "layer must divide by its row sums"),
        (lambda: af.Sharded(af.Attention(LAYER.f, 1.0, mask="causal")), ValueError, "layer must have no mask"),
        (lambda: af.Sharded(af.Attention(LAYER.f, 1.0, residual=0.5))(TOKENS, queries=TOKENS), ValueError, "queries must be None"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("f", [af.DotProduct(), af.SquaredDistance(af.Sphere(2))], ids=repr)
def test_cells_refuse_another_similarity_before_tokens_are_sorted(f, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_sums, "cut", lambda *_: pytest.fail("tokens were sorted"))
    ends = np.concatenate([np.eye(3), -np.eye(3)])
    with pytest.raises(ValueError, match="near keys to be found in cells, got"):
        af.Sharded(af.Attention(f, 1.0, backend="cells"), block=3)(ends)


def test_an_archive_and_a_file_cut_short_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=TOKENS)
    (x,) = saved(tmp_path, x=TOKENS)
    x.write_bytes(x.read_bytes()[:-8])
    for path in (x, tmp_path / "x.npz"):
        with pytest.raises(ValueError, match="tokens must be an .npy file of numbers"):
            SHARDS(path)
