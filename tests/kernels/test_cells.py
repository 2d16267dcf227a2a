"""Sums over near keys against the definition: every row within the asked tolerance, whatever tokens and bias."""

import tracemalloc

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.kernels import reference_engine as reference
from attnflow.kernels.cells_engine import lists as cell_lists
from attnflow.kernels.cells_engine import search as cells
from attnflow.kernels.cells_engine import sweep as neighbours
from attnflow.kernels.numba_engine import dense as numba_engine

PERIODS = [1.0, 2.0, 1.5]
TRANSFORMS = {
    "d^2": af.SquaredDistance,
    "d": lambda space: af.PowerDistance(space, 1.0),
    "d^4": lambda space: af.PowerDistance(space, 4.0),
    "log": af.LogDistance,
}


def space(dim, torus=False):
    return af.Torus(PERIODS[:dim]) if torus else af.Euclidean(dim)


def cloud(kind, dim, rng, count):
    x = rng.uniform(-1, 1, (count, dim))
    if kind == "clustered":
        x = np.sign(x) + 0.01 * rng.standard_normal((count, dim))
    if kind == "duplicated":
        x[count // 3 :] = x[rng.integers(0, count // 3, count - count // 3)]
    if kind == "far-flung":
        x[:5] *= 10.0 ** np.arange(5)[:, None]
    return x


def errors(f, epsilon, queries, keys, values, bias, dtype=np.float64, rtol=1e-12):
    """Per row: error of the mean over the largest value, error of the log-sum-exp; how rows were found."""
    run = cells.plan(f, epsilon, queries, keys, dtype, rtol)
    mean, log_sum_exp = run(values, bias)
    counted = run.stats
    again = run(values, bias)
    np.testing.assert_array_equal(again[0], mean)
    np.testing.assert_array_equal(again[1], log_sum_exp)
    exact = reference.plan(f, epsilon, queries, keys, np.float64, 0.0)(values, bias)
    wrong = np.abs(mean - exact[0]).max(axis=1) / np.abs(values).max()
    return wrong, np.abs(log_sum_exp - exact[1]), counted


def rounding(f, epsilon, keys, rtol):
    """How much a weight moves when a coordinate moves by its last bits."""
    reach = cells.radius(f, epsilon, len(keys), rtol)
    depth = np.log(2 * len(keys) / rtol)
    return 1e-15 * depth * (10 + 4 * np.abs(keys).max() / min(reach, 1.0))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["random", "clustered", "duplicated", "far-flung"]), dim=st.sampled_from([1, 2, 3]),
    torus=st.booleans(), transform=st.sampled_from(list(TRANSFORMS)), decade=st.floats(-8, 4), digits=st.floats(1, 12),
    spread=st.sampled_from([0.0, 1.0, 30.0]), asking=st.sampled_from(["tokens", "near", "far"]),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_every_row_is_within_rtol(kind, dim, torus, transform, decade, digits, spread, asking, seed):
    rng, f = np.random.default_rng(seed), TRANSFORMS[transform](space(dim, torus))
    epsilon, rtol = 10**decade, 10**-digits
    keys, values = cloud(kind, dim, rng, 300), rng.standard_normal((300, 2)) + [0.0, 100.0]
    queries = {"tokens": None, "near": cloud("random", dim, rng, 90), "far": 30 * cloud(kind, dim, rng, 90)}[asking]
    bias = spread * np.log(10) * rng.uniform(-1, 0, 300)
    bias[rng.integers(0, 300, 7)] = -np.inf
    mean, log_sum_exp, _ = errors(f, epsilon, queries, keys, values, bias, rtol=rtol)
    everything = keys if queries is None else np.vstack([keys, queries])
    logits = reference.dense_logits(f, epsilon, keys if queries is None else queries, keys, bias).max(axis=1)
    tolerance = rtol + rounding(f, epsilon, everything, rtol) + 1e-13 * np.abs(logits)
    assert (mean <= tolerance).all() and (log_sum_exp <= tolerance).all()


@settings(max_examples=40, deadline=None)
@given(
    dim=st.sampled_from([1, 2, 3]), torus=st.booleans(), transform=st.sampled_from(list(TRANSFORMS)),
    decade=st.floats(-6, 2), spread=st.sampled_from([0.0, 30.0]), seed=st.integers(0, 2**16),
)  # fmt: skip
@pytest.mark.slow
def test_every_row_is_within_rtol_in_single_precision(dim, torus, transform, decade, spread, seed):
    rng, f = np.random.default_rng(seed), TRANSFORMS[transform](space(dim, torus))
    keys, values = cloud("clustered", dim, rng, 300), rng.standard_normal((300, 2))
    bias = spread * np.log(10) * rng.uniform(-1, 0, 300)
    mean, log_sum_exp, _ = errors(f, 10**decade, None, keys, values, bias, np.float32, 1e-5)
    assert mean.max() < 3e-5 and log_sum_exp.max() < 3e-5


def test_single_precision_loses_nothing_to_distant_clusters():
    rng, f = np.random.default_rng(1), TRANSFORMS["d^2"](space(2))
    keys = np.sign(rng.uniform(-1, 1, (400, 1))) * 1e5 + 1e-2 * rng.standard_normal((400, 2))
    values = rng.standard_normal((400, 1))
    assert errors(f, 1e-5, None, keys, values, None, np.float32, 1e-5)[0].max() < 3e-5
    dense = numba_engine.plan(f, 1e-5, None, keys, np.float32, 1e-5)(values, None)[0]
    assert np.abs(dense - reference.plan(f, 1e-5, None, keys, None, None)(values, None)[0]).max() > 0.1


@pytest.mark.parametrize("cells_per_side", [0.9, 1.0, 1.5, 1.99, 2.0, 2.01, 2.5, 3.0, 3.5, 4.0, 7.0])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_no_image_is_counted_twice_or_lost(dim, cells_per_side):
    rng, f = np.random.default_rng(2), TRANSFORMS["d^2"](space(dim, torus=True))
    keys, values = rng.uniform(-3, 3, (400, dim)), rng.standard_normal((400, 2))
    epsilon = (PERIODS[0] / cells_per_side / cells.radius(f, 1.0, 400, 1e-8)) ** 2
    assert np.max(errors(f, epsilon, None, keys, values, None, rtol=1e-8)[:2]) < 1e-8


def test_rows_that_need_it_are_searched_deeper_or_summed_densely():
    f, rng = TRANSFORMS["d^2"](space(2)), np.random.default_rng(3)
    keys, values = rng.uniform(0, 1, (500, 2)), rng.standard_normal((500, 1))
    reach = cells.radius(f, 1e-4, 500, 1e-9)
    rightmost = keys[keys[:, 0].argmax()]
    queries = rightmost + np.array([[0.0, 0.0], [0.8 * reach, 0.0], [5 * reach, 0.0], [1e3, 1e3]])
    mean, log_sum_exp, stats = errors(f, 1e-4, queries, keys, values, None, rtol=1e-9)
    assert mean.max() < 1e-9 and (log_sum_exp < [1e-9, 1e-9, 1e-9, 1e-5]).all()  # the last is 1e10
    assert stats == {"widened": 1, "dense": 2}
    bias = np.where(keys[:, 0] < 0.3, -60.0, 0.0)  # a search for all sees too few keys there
    mean, log_sum_exp, stats = errors(f, 1e-4, None, keys, values, bias, rtol=1e-9)
    assert max(mean.max(), log_sum_exp.max()) < 1e-9 and stats["widened"] > 50 and stats["dense"] == 0


def test_a_search_much_deeper_than_the_cells_finds_what_there_is():
    f, rng = TRANSFORMS["d"](space(3)), np.random.default_rng(11)
    keys, values = rng.uniform(0, 1, (600, 3)), rng.standard_normal((600, 1))
    keys[400:] = 20 + 40 * rng.uniform(-1, 1, (200, 3))
    bias = np.where(np.arange(600) < 400, -600.0, 0.0)
    mean, log_sum_exp, stats = errors(f, 0.02, None, keys, values, bias, rtol=1e-6)
    assert max(mean.max(), log_sum_exp.max()) < 1e-6 and stats == {"widened": 400, "dense": 0}


@pytest.mark.parametrize(
    "broken", ["reach", "reach of the bias", "certificate", "one cell too few", "a weight off by a billionth"]
)
def test_a_perturbed_engine_is_noticed(monkeypatch, broken):
    f, rng = TRANSFORMS["d^2"](space(2)), np.random.default_rng(4)
    keys, values = rng.uniform(0, 1, (2000, 2)), rng.standard_normal((2000, 1))
    bias = np.where(keys[:, 0] < 0.3, -60.0, 0.0)
    honest, index = cells.reach_of, neighbours.index
    if broken == "reach":
        monkeypatch.setattr(cells, "reach_of", lambda *a: 0.4 * honest(*a))
    elif broken == "reach of the bias":
        monkeypatch.setattr(cells, "reach_of", lambda pair, epsilon, depth: honest(pair, epsilon, np.minimum(depth, 25)))
    elif broken == "certificate":
        monkeypatch.setattr(cells, "MARGIN", 200.0)
        monkeypatch.setattr(cells, "reach_of", lambda pair, epsilon, depth: honest(pair, epsilon, depth - 200 * (depth > 150)))
    elif broken == "one cell too few":
        monkeypatch.setattr(neighbours, "index", lambda code, shift, table: index(code[:-3], shift, table))
    else:
        bias[0] += 1e-9
    run = cells.plan(f, 1e-4, None, keys, np.float64, 1e-11)
    mean, _ = run(values, bias)
    if broken == "a weight off by a billionth":
        bias[0] -= 1e-9
    exact, _ = reference.plan(f, 1e-4, None, keys, None, None)(values, bias)
    assert np.abs(mean - exact).max() > 1e-11 * np.abs(values).max()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_thread_count_does_not_matter(dtype, two_threads):
    f, rng = TRANSFORMS["d^2"](space(2)), np.random.default_rng(5)
    keys = np.vstack([rng.uniform(0, 1, (40_000, 2)), 1e7 * rng.standard_normal((3000, 2))])
    values, bias = rng.standard_normal((43_000, 2)), rng.uniform(-40, 0, 43_000)
    results = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        run = cells.plan(f, 2e-6, None, keys, dtype, 1e-6)
        results.append((*run(values, bias), run.keys.order))
        assert run.stats["dense"] < 300
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("reach, bits", [(0.3, 4), (1e-3, 20), (1e-8, 50)])
def test_sorting_is_stable_and_by_cell(reach, bits):
    points = np.random.default_rng(6).uniform(0, 1, (2, 20_000))
    points[:, 5000:9000] = points[:, :1]
    grid = cell_lists.grid(points, points, None, reach)
    result = cell_lists.sort(points, grid)
    origin, side, counts, _, _ = grid.cells
    i, j = (np.minimum((points[d] - origin[d]) // side[d + 1], counts[d + 1] - 1) for d in (0, 1))
    np.testing.assert_array_equal(result.order, np.lexsort((j, i)))
    np.testing.assert_array_equal(result.points, points[:, result.order])
    assert grid.bits >= bits and (np.diff(result.code) >= 0).all()


@pytest.mark.parametrize("normalization", ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn"], ids=str)
@pytest.mark.parametrize("name, tokens", [
    ("SquaredDistance", "torus"), ("Mahalanobis", "plane"), ("SquaredMap", "plane"), ("LogDistance", "plane")
])  # fmt: skip
def test_layers_agree_with_the_reference(name, tokens, normalization):
    rng = np.random.default_rng(7)
    x, values = rng.uniform(0, 1, (600, 2)) ** 2, rng.standard_normal((600, 3))
    f = {
        "SquaredDistance": af.SquaredDistance(af.Torus([1.0, 1.0])),
        "Mahalanobis": af.Mahalanobis([[2.0, 0.5], [0.5, 1.0]]),
        "SquaredMap": af.SquaredMap(lambda x: np.concatenate([x, x[..., :1] * x[..., 1:]], axis=-1)),
        "LogDistance": af.LogDistance(af.Euclidean(2)),
    }[name]
    bound, exact = (af.Attention(f, 2e-3, normalization, backend=name).bind(x) for name in ("cells", "reference"))
    result = bound.step(values)
    assert bound.stats["engine"] == "cells" and exact.stats["engine"] == "reference"
    assert bound.plan.run.stats == {"widened": 0, "dense": 0}
    # Sinkhorn stops at its own tolerance: both engines are within it of the same scaling
    assert np.abs(result - exact.step(values)).max() < (2e-11 if normalization == "sinkhorn" else 4e-12)


def test_neighbours_alone_are_summed_and_memory_is_linear():
    f, rng = TRANSFORMS["d^2"](space(2)), np.random.default_rng(8)
    keys, values = rng.uniform(0, 1, (60_000, 2)), rng.standard_normal((60_000, 1))
    run = cells.plan(f, 4e-6, None, keys, np.float64, 1e-12)
    tracemalloc.start()
    mean, _ = run(values, None)
    assert tracemalloc.get_traced_memory()[1] < 60_000 * 8 * 30
    tracemalloc.stop()
    starts = np.empty(60_001, np.int64)
    assert neighbours.split(run.keys.code, run.grid.cells[2][2], starts) > 5000
    assert run.stats == {"widened": 0, "dense": 0}
    some = rng.integers(0, 60_000, 50)
    exact, _ = numba_engine.plan(f, 4e-6, keys[some], keys, np.float64, 0.0)(values, None)
    assert np.abs(mean[some] - exact).max() < 1e-12 * np.abs(values).max()


def test_extreme_temperatures():
    f, rng = TRANSFORMS["d^2"](space(3)), np.random.default_rng(9)
    keys, values = rng.uniform(0, 1, (200, 3)), rng.standard_normal((200, 2))
    for epsilon in (1e-280, 1e-30):
        mean, log_sum_exp = cells.plan(f, epsilon, None, keys, np.float64, 1e-12)(values, None)
        assert (mean == values).all() and (log_sum_exp == 0).all()
    mean, log_sum_exp = cells.plan(f, 1e300, None, keys, np.float64, 1e-12)(values, None)
    np.testing.assert_allclose(mean, np.broadcast_to(values.mean(axis=0), mean.shape), rtol=0, atol=1e-14)
    np.testing.assert_allclose(log_sum_exp, np.log(200), rtol=1e-14)


def test_one_key_left_in_and_none():
    f, keys = TRANSFORMS["d^2"](space(2)), np.random.default_rng(10).uniform(0, 1, (50, 2))
    bias = np.where(np.arange(50) == 7, 3.0, -np.inf)
    assert errors(f, 1e-3, None, keys, keys, bias)[0].max() < 1e-12
    with pytest.raises(ValueError, match="every key has a bias of -inf"):
        cells.plan(f, 1e-3, None, keys, np.float64, 1e-12)(keys, np.full(50, -np.inf))


@pytest.mark.parametrize("f, dim, why", [
    (af.SquaredDistance(af.Sphere(2)), 3, "a flat distance .* got SquaredDistance"),
    (af.DotProduct(), 2, "a flat distance"),
    (af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1), 2), 2, "a flat distance"),
    (af.DotProduct(np.eye(4)), 4, "a flat distance"),
])  # fmt: skip
def test_what_does_not_decay_with_a_distance_is_refused(f, dim, why):
    with pytest.raises(ValueError, match=why + '.*; use backend="numba"'):
        cells.plan(f, 0.1, None, np.eye(dim), np.float64, 1e-12)
