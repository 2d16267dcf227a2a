"""Runs that are watched, that keep little, and that are written while they go on."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import attnflow as af
from attnflow import capacity, stores
from attnflow.pde import watched
from attnflow.pde.nodes import solve as nodes_solve
from attnflow.pde.timing import asked_times

CIRCLE = af.Attention(af.SquaredDistance(af.Circle()), 0.1)
PLANE = af.Attention(af.SquaredDistance(af.Euclidean(2)), 0.3)
TOKENS = af.VonMises(1.0).sample(40, rng=0)
CLOUD = np.random.default_rng(0).normal(size=(30, 2))
TIMES = np.array([0.0, 0.5, 1.0, 1.5])
WIDE = af.Gaussian(0.5, 4.0)


def start(x):
    return np.cos(x[..., 0])


RUNS = {
    "propagate": lambda **how: af.propagate(CIRCLE, TOKENS, np.cos(TOKENS), 12, 3, **how),
    "polynomials": lambda **how: af.propagate(CIRCLE, TOKENS, np.cos(TOKENS), 600, 150, **how),
    "density": lambda **how: af.propagate(CIRCLE, af.VonMises(1.0), start, 12, 3, **how),
    "evolve": lambda **how: af.evolve(PLANE, CLOUD, 12, save_every=3, **how),
    "flow": lambda **how: af.evolve_continuous(PLANE, CLOUD, TIMES, **how),
    "noisy flow": lambda **how: af.evolve_continuous(PLANE, CLOUD, TIMES, noise=0.1, rng=1, **how),
    "langevin": lambda **how: af.langevin(af.Gaussian(0.0, 1.0), [[2.0], [0.0]], TIMES, 5, rng=1, **how),
    "solve": lambda **how: af.DriftDiffusion(af.VonMises(1.0), drift=1.0).solve(start, TIMES, grid=32, **how),
    "masses": lambda **how: af.FokkerPlanck(af.Gaussian(0.0, 1.0)).solve(WIDE.pdf, TIMES, grid=1024, **how),
}
EACH = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@EACH
def test_a_callback_sees_what_is_saved_and_ends_the_run_there(run):
    whole, seen = run(), []
    run(callback=lambda step: seen.append((step.layer, step.t, step.y.copy())))
    layers, times, fields = zip(*seen)
    np.testing.assert_array_equal(times, whole.t)
    np.testing.assert_array_equal(np.stack(fields), whole.y)
    np.testing.assert_array_equal(layers, [None] * len(times) if whole.layers is None else whole.layers)

    cut = run(callback=lambda step: step.t >= whole.t[2])
    assert cut.status == 1 and "stopped by callback" in cut.message
    np.testing.assert_array_equal(cut.t, whole.t[:3])
    np.testing.assert_array_equal(cut.y, whole.y[:3])
    last = run(callback=lambda step: step.t == whole.t[-1])  # there was nothing left to stop
    assert last.status == 0 and len(last.t) == len(whole.t)


def test_a_callback_cannot_change_a_run_and_its_errors_are_the_callers():
    with pytest.raises(ValueError, match="read-only"):
        RUNS["evolve"](callback=lambda step: step.y.fill(0.0))
    with pytest.raises(ZeroDivisionError):
        RUNS["polynomials"](callback=lambda step: 1 / 0)


@EACH
def test_the_last_and_statistics_are_those_of_all_that_is_saved(run):
    whole = run()
    for save in ("final", "statistics"):
        few = run(save=save)
        assert (few.status, len(few.t), few.t[-1]) == (0, 1, whole.t[-1])
        np.testing.assert_allclose(few.y[0], whole.y[-1], atol=1e-11)
    told, flat = few.stats["statistics"], whole.y.reshape(len(whole.t), -1, whole.y.shape[-1])
    np.testing.assert_array_equal(told["t"], whole.t)
    share = None
    if whole.grid is not None:
        flow = whole.stats.get("quantity") != "density"
        share = whole.grid.weights * (af.VonMises(1.0).pdf(whole.grid.points) if flow else 1.0)
    mean = np.stack([np.average(y, axis=0, weights=share) for y in flat])
    variance = np.stack([np.average((y - m) ** 2, axis=0, weights=share) for y, m in zip(flat, mean)])
    for name, expected in zip(("mean", "variance", "min", "max"), (mean, variance, flat.min(axis=1), flat.max(axis=1))):
        np.testing.assert_allclose(told[name], expected, atol=1e-11)


def test_every_so_manyth_layer_has_two_spellings():
    np.testing.assert_array_equal(af.evolve(PLANE, CLOUD, 7, save=3).layers, [0, 3, 6, 7])
    with pytest.raises(ValueError, match="save must be a word beside save_every, which is 2"):
        af.evolve(PLANE, CLOUD, 7, save_every=2, save=3)


SURFACE = af.DriftDiffusion(af.VonMisesFisher([0.0, 0.6, 0.8], 1.0))
CUT = af.FokkerPlanck(af.Gaussian(0.0, 1.0))


@pytest.mark.parametrize(
    "solve",
    [
        lambda t, **how: SURFACE.solve(lambda x: x[:, :2], t, rtol=1e-6, **how),
        lambda t, **how: SURFACE.solve(lambda x: x[:, :2], t, grid=16, method="chebyshev", **how),
        lambda t, **how: CUT.solve(WIDE.pdf, t, rtol=1e-6, **how),
    ],
    ids=["harmonics", "cells", "masses"],
)
@pytest.mark.parametrize("held", [0, watched._HELD])
def test_an_equation_is_solved_some_times_at_a_time(solve, held, store_name, tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "_HELD", held)
    times, seen = np.geomspace(0.01, 2.0, 60), []
    whole = solve(times)
    run = solve(times, save="final", callback=lambda step: seen.append((step.t, step.y.copy())), store=tmp_path / store_name)
    back = af.load(tmp_path / store_name)
    np.testing.assert_array_equal([t for t, _ in seen], times)
    np.testing.assert_array_equal(back.t, times)
    np.testing.assert_array_equal(back.y, [y for _, y in seen])
    np.testing.assert_array_equal(run.y, back.y[-1:])
    x = whole.grid.points[::7]
    for t in times[[0, 5, 31, -1]]:  # grids need not be the same
        np.testing.assert_allclose(back.at(x, t), whole.at(x, t), atol=2e-6)
    name = "mass" if whole.stats.get("quantity") == "density" else "deviation"
    assert len(run.stats[name]) == 1
    np.testing.assert_allclose(run.stats[name][0], whole.stats[name][-1], atol=1e-5)


def test_times_beyond_where_an_equation_is_stopped_are_not_solved_for(monkeypatch):
    monkeypatch.setattr(watched, "_HELD", 0)
    times, asked = np.linspace(0.0, 5.0, 200), []
    real = nodes_solve._fields_at
    monkeypatch.setattr(nodes_solve, "_fields_at", lambda *args: asked.extend(args[-1]) or real(*args))
    cut = af.DriftDiffusion(af.VonMises(1.0)).solve(start, times, callback=lambda step: step.t > 1.0)
    assert cut.status == 1 and cut.message.startswith("stopped by callback at t = 1.005; finished")
    assert len(cut.t) == len(cut.stats["deviation"]) == 41 and max(asked) < 1.3


def test_a_wall_that_acts_at_one_output_time_is_seen_by_who_asks_for_it():
    asked = asked_times(np.array([0.5]))
    widest = np.diff(asked).argmax()
    low, high = asked[widest : widest + 2] + 1e-4 * np.array([1, -1])

    def brief(x, t):
        return (low < t < high) / (high - low) + 0 * x[:, 0]

    times = np.unique(np.append(np.linspace(0.01, 0.5, 50), (low + high) / 2))
    seen, walls = [], [(("neumann", brief), "no-flux")]
    af.Heat(af.Box([(0, 1)])).solve(lambda x: 0 * x[:, 0], times, rtol=1e-4, boundary=walls, callback=seen.append)
    assert seen[-1].y.mean() == pytest.approx(1.0, abs=0.01)  # what came in


@pytest.mark.parametrize("save", ["final", "statistics"])
def test_memory_does_not_grow_with_the_layers(save):
    values = np.random.default_rng(0).normal(size=(40, 2000))

    def most(layers: int) -> int:
        tracemalloc.start()
        try:
            af.propagate(CIRCLE, TOKENS, values, layers, save=save, callback=lambda step: None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most(1)  # what is compiled and cached once
    statistics = 4 * 8 * 2000 * (save == "statistics")  # of a layer
    assert most(120) < most(20) + 2 * values.nbytes + 3 * 100 * statistics  # all would be 100 times the values more


@pytest.mark.parametrize("run", [af.propagate, af.evolve])
def test_what_cannot_end_or_fit_is_refused_before_anything_begins(run, tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "available", lambda: 2**33)
    given, seen = (PLANE, CLOUD, CLOUD) if run is af.propagate else (PLANE, CLOUD), []
    for layers, why, how in [
        (10**12, "layers must end within 30 days", {"save_every": 10**10, "save": "final"}),
        (10**9, "layers must fit into memory", {"save": "statistics"}),
    ]:
        with pytest.raises(ValueError, match=f"^{why}"):
            run(*given, layers, **how, store=tmp_path / "run", callback=seen.append)
        assert not seen and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "normalization, mask, why", [("topk:30", None, "k must be below"), ("softmax", [0, 1], "mask must hold")]
)
def test_a_layer_that_the_tokens_do_not_suit_is_refused_before_anything_begins(normalization, mask, why, tmp_path):
    layer = af.Attention(PLANE.f, 0.3, normalization, mask=None if mask is None else np.array(mask))
    seen, how = [], {"store": tmp_path / "run"}
    for norm in (None, "pre"):
        with pytest.raises(ValueError, match=f"^{why}"):
            af.evolve(layer, CLOUD, 3, norm=norm, callback=seen.append, **how)
        assert not seen and not list(tmp_path.iterdir())


def test_billions_of_layers_that_are_looked_at_take_no_memory(monkeypatch):
    monkeypatch.setattr(capacity, "available", lambda: 2**27)
    run = af.propagate(PLANE, CLOUD, CLOUD, 10**10, save="final", callback=lambda step: step.layer == 3)
    assert run.message == "stopped by callback after 3 of 10000000000 layers; the last is here"


@pytest.mark.parametrize("save, here", [("all", "they are here"), ("final", "the last is here")])
def test_a_run_that_stopped_says_what_of_it_is_here(save, here, tmp_path):
    how = {"save": save, "callback": lambda step: step.t > 0}
    runs = [af.evolve(PLANE, CLOUD, 9, **how), af.propagate(PLANE, CLOUD, CLOUD, 9, **how)]
    assert [run.message for run in runs] == [f"stopped by callback after 1 of 9 layers; {here}"] * 2
    walk = af.langevin(af.Gaussian([0.0], [[1.0]]), np.zeros((2, 1)), [0.1, 0.2], 3, rng=0, **how)
    assert walk.message == f"stopped by callback after 1 of 2 times; {here}"
    kept = af.evolve(PLANE, CLOUD, 9, store=tmp_path / "run", **how).message
    assert kept.endswith("they are here" if save == "all" else "they are in the store, the last here too")


@EACH
@pytest.mark.parametrize("save", ["all", "final"])
def test_a_store_reads_back_as_the_run_whatever_is_kept_in_memory(run, store_name, save, tmp_path):
    whole = run(store=tmp_path / store_name, save=save)
    back = af.load(tmp_path / store_name)
    for part in ("t", "y", "layers"):
        if getattr(whole, part) is not None:
            np.testing.assert_array_equal(getattr(back, part)[-len(whole.t) :], getattr(whole, part))
    for still in ("points", "embedding"):
        np.testing.assert_array_equal(getattr(back, still), getattr(whole, still))
    assert len(back.t) == len(run().t)
    assert (back.grid, back.status, back.message) == (whole.grid, 0, whole.message)
    assert (back.stats, back.provenance) == (whole.stats, whole.provenance)


@EACH
def test_statistics_read_back_as_arrays(run, store_name, tmp_path):
    whole = run(store=tmp_path / store_name, save="statistics").stats["statistics"]
    back = af.load(tmp_path / store_name).stats["statistics"]
    assert back.keys() == whole.keys() and all(isinstance(values, np.ndarray) for values in back.values())
    for name, values in whole.items():
        np.testing.assert_array_equal(back[name], values)


@EACH
@pytest.mark.parametrize("calls", [2, 4])
def test_ctrl_c_while_a_layer_is_written_leaves_no_gap(run, store_name, calls, tmp_path, monkeypatch):
    if calls == 4 and store_name.endswith(".zarr"):
        pytest.skip("all its arrays are made with the start")
    owner, part = (stores._Zarr, "_array") if store_name.endswith(".zarr") else (np, "savez")
    real, count = getattr(owner, part), []

    def write(*args, **kwargs):
        count.append(1)
        if len(count) == calls:  # the second is of the start, even where the first is of the points
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, part, write)
    cut = run(store=tmp_path / store_name)
    back = af.load(tmp_path / store_name)
    assert cut.status == back.status == 1 and "interrupted" in cut.message == back.message
    assert (len(cut.t) == 1) == (calls == 2)
    np.testing.assert_array_equal(back.t, cut.t)
    np.testing.assert_array_equal(back.y, cut.y)
    np.testing.assert_array_equal(cut.y[0], run().y[0])


@pytest.mark.optional
def test_a_zarr_store_is_an_xarray_dataset(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    run = RUNS["propagate"](store=tmp_path / "run.zarr")
    dataset = xarray.open_zarr(tmp_path / "run.zarr", consolidated=False)
    np.testing.assert_array_equal(dataset.y.sel(t=run.t[2]), run.y[2])


KILLED = """
import sys, numpy as np, attnflow as af
layer = af.Attention(af.SquaredDistance(af.Euclidean(2)), 0.3, backend="reference")
def slowly(step):
    print(step.layer, flush=True)
    if step.layer == 3:
        sys.stdin.readline()
af.evolve(layer, np.random.default_rng(0).normal(size=(30, 2)), 9, store=sys.argv[1], callback=slowly)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_a_run_that_is_killed_leaves_what_it_had_finished(store_name, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / store_name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 3:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    back, whole = af.load(tmp_path / store_name), af.evolve(PLANE, CLOUD, 3)
    assert back.status == 1 and "cut off" in back.message and "cut off" in repr(back)
    np.testing.assert_array_equal(back.layers, [0, 1, 2, 3])
    np.testing.assert_allclose(back.y, whole.y, atol=1e-12)
    back.plot()
    assert "<" in back.animate()._repr_html_()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_whenever_it_is_killed_the_layers_before_are_whole(store_name, tmp_path):
    code = KILLED.replace("9, store", "100_000, store").replace("step.layer == 3", "False")
    whole = af.evolve(af.Attention(PLANE.f, 0.3, backend="reference"), CLOUD, 400)
    for k, wait in enumerate(np.linspace(0.0, 0.3, 6)):
        store = tmp_path / f"{k}{store_name}"
        with subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
        back = af.load(store)
        assert back.status == 1
        some = min(len(back.y), len(whole.y))
        np.testing.assert_array_equal(back.layers, np.arange(len(back.layers)))
        np.testing.assert_allclose(back.y[:some], whole.y[:some], atol=1e-9)


def test_a_store_is_new_and_whatever_is_there_stays(tmp_path):
    (tmp_path / "thesis").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("thesis", "folder", "dangling", "missing/run", "thesis/run", "run.npz"):
        with pytest.raises(ValueError, match="^store must be "):
            RUNS["evolve"](store=tmp_path / name)
    assert (tmp_path / "thesis").read_text() == "precious" and not list((tmp_path / "folder").iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_zarr_store_without_zarr_names_the_extra_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r'needs zarr: pip install "attnflow\[storage\]"'):
        RUNS["evolve"](store=tmp_path / "run.zarr")
    assert not list(tmp_path.iterdir())


def test_a_run_says_what_it_was_given(tmp_path):
    RUNS["langevin"]().save(tmp_path / "run.npz")
    told = af.load(tmp_path / "run.npz").provenance
    assert told["function"] == "langevin" and told["parameters"]["rng"] == 1
    assert told["parameters"]["density"] == {"kind": "gaussian", "mean": [0.0], "cov": [[1.0]]}
    assert told["versions"]["attnflow"] == af.__version__ and {"numpy", "numba", "python"} <= set(told["versions"])

    layers = [af.Attention(af.DotProduct([[1.0, 0.0], [0.0, 2.0]]), 0.5, "topk:4", mask="causal"), PLANE]
    heads = [af.propagate(layer, CLOUD, CLOUD, 1).provenance["parameters"] for layer in layers]
    assert heads[0]["layer"]["f"] == {"kind": "dot-product", "W": [[1.0, 0.0], [0.0, 2.0]], "W_K": None, "bias": None}
    assert heads[0]["layer"]["normalization"] == "topk:4" and heads[0]["layer"]["mask"]["kind"] == "causal"
    assert heads[0]["tokens"] == heads[1]["tokens"] and len(heads[0]["tokens"]["sha256"]) == 64
    assert af.propagate(PLANE, CLOUD + 1e-15, CLOUD, 1).provenance["parameters"]["tokens"] != heads[0]["tokens"]


def test_a_generators_state_makes_the_same_paths_again():
    first = af.langevin(af.Gaussian(0.0, 1.0), [[0.0]], 0.1, 5)
    state = first.provenance["parameters"]["rng"]["state"]
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    np.testing.assert_array_equal(af.langevin(af.Gaussian(0.0, 1.0), [[0.0]], 0.1, 5, rng=rng).y, first.y)


def test_files_of_before_have_no_provenance(tmp_path):
    run = RUNS["propagate"]()
    meta = stores.encode(None, 0, "finished", {}, {}).replace(', "provenance": {}', "")
    np.savez(tmp_path / "run.npz", meta=np.array(meta), t=run.t, y=run.y)
    assert "provenance" not in meta and af.load(tmp_path / "run.npz").provenance == {}
