"""The CUDA engine against the definition: on a device, and without one by kernels that g++ compiled for the host."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import host_cuda
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow import kernels
from attnflow.kernels import reference_engine as reference
from attnflow.kernels.cupy_engine import launch as cuda_kernels
from attnflow.kernels.cupy_engine import neighbours as cupy_cells
from attnflow.kernels.cupy_engine import run as cupy_engine
from attnflow.kernels.rules import reach_of

TOLERANCE = {"float64": 3e-13, "float32": 1e-5}
FLAT, TORUS = af.Euclidean(3), af.Torus([1.0, 2.0, 3.0])
SKEW = np.array([[1.0, 0.3, 0.0], [-0.2, 1.0, 0.5], [0.0, 0.0, 1.0]])
CASES = {  # the last: whether the queries are among the keys, which spares some a running maximum
    "squared": (af.SquaredDistance(FLAT), "float64", True),
    "squared, elsewhere": (af.SquaredDistance(FLAT), "float64", False),
    "squared, float32": (af.SquaredDistance(FLAT), "float32", True),
    "wrapped": (af.SquaredDistance(TORUS), "float64", False),
    "wrapped, float32": (af.SquaredDistance(TORUS), "float32", True),
    "distance, wrapped": (af.PowerDistance(TORUS, 1.0), "float64", True),
    "power 1.5": (af.PowerDistance(FLAT, 1.5), "float64", False),
    "log": (af.LogDistance(FLAT), "float64", True),
    "angle": (af.SquaredDistance(af.Sphere(2)), "float64", True),
    "dot product": (af.DotProduct(SKEW), "float64", True),
    "cosine, float32": (af.Cosine(), "float32", False),
}


@pytest.fixture(params=["host", "device"])
def cupy(request, monkeypatch):
    """CuPy itself, or its stand-in on the host."""
    cuda_kernels.kernel.cache_clear()
    if request.param == "device":
        if cupy_engine.unavailable() is not None:
            pytest.skip(cupy_engine.unavailable())
    elif host_cuda.COMPILER is None:
        pytest.skip("needs g++")
    else:
        monkeypatch.setitem(sys.modules, "cupy", host_cuda.cupy())
    yield sys.modules["cupy"] if request.param == "host" else pytest.importorskip("cupy")
    cuda_kernels.kernel.cache_clear()


def sample(f, count, seed, columns=2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 3))
    if f.pair.geodesic:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, rng.standard_normal((count, columns))


def compare(f, epsilon, queries, keys, values, bias=None, dtype="float64", rtol=None, tolerance=None):
    """Run the engine and the definition; the run that ran."""
    run = cupy_engine.plan(f, epsilon, queries, keys, np.dtype(dtype).type, rtol or TOLERANCE[dtype])
    mean, lse = run(values, bias)
    true_mean, true_lse = reference.plan(f, epsilon, queries, keys, np.float64, 0)(values, bias)
    size = np.abs(values).max() if values is not None and values.size else 1.0
    tolerance = tolerance or TOLERANCE[dtype]
    np.testing.assert_allclose(mean, true_mean, rtol=0, atol=tolerance * size)
    np.testing.assert_allclose(lse, true_lse, rtol=tolerance, atol=tolerance)
    return run


@pytest.mark.parametrize("f", [af.SquaredDistance(FLAT), af.SquaredDistance(TORUS)])
def test_wide_gaussians_are_the_work_of_cufinufft_where_it_is_installed(cupy, monkeypatch, f):
    if isinstance(cupy, SimpleNamespace):
        pytest.importorskip("finufft")
        monkeypatch.setitem(sys.modules, "cufinufft", host_cuda.cufinufft())
    else:
        pytest.importorskip("cufinufft")
    monkeypatch.setattr(cupy_engine, "MANY", 0)
    monkeypatch.setattr(cupy_engine, "PAIRS", 0)
    rng = np.random.default_rng(21)
    keys, values, bias = 0.2 * rng.standard_normal((300, 3)), rng.standard_normal((300, 3)), rng.standard_normal(300)
    queries = np.concatenate([0.2 * rng.standard_normal((40, 3)), [[0.49, 0.9, 1.4]]])  # the last is far from all keys
    for some in (None, bias):
        run = compare(f, 0.004, queries, keys, values, some, rtol=1e-9, tolerance=2e-9)
        assert run.stats["kernel"] == "cufinufft" and 1 <= run.stats["rows_by_another_engine"] < 10
    assert compare(f, 0.004, None, keys, values, bias, rtol=1e-9, tolerance=2e-9).stats["kernel"] == "cufinufft"
    assert compare(f, 0.004, None, keys, values, bias, "float32").stats["kernel"] != "cufinufft"


@pytest.mark.parametrize("name", CASES)
def test_every_pseudometric_agrees_with_the_definition(cupy, name):
    f, dtype, own = CASES[name]
    keys, values = sample(f, 300, 0)
    queries, bias = None if own else sample(f, 9, 2)[0], np.random.default_rng(1).standard_normal(300)
    run = compare(f, 0.3, queries, keys, values, bias, dtype)
    assert run.stats == {"kernel": "fused", "pairs": (300 if own else 9) * 300}


def test_no_token_is_lost_at_the_edge_of_a_tile_a_chunk_or_a_part(cupy, monkeypatch):
    f, wanted = af.SquaredDistance(FLAT), []
    monkeypatch.setattr(cuda_kernels, "splits", lambda *sizes: wanted[-1])
    for parts, n_queries, n_keys in [(1, 1, 1), (1, 5, 128), (1, 511, 129), (1, 513, 2), (2, 7, 128), (3, 513, 300)]:
        wanted.append(parts)
        (keys, values), queries = sample(f, n_keys, 3), sample(f, n_queries, 4)[0]
        compare(f, 1.0, queries, keys, values)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_spread_of_biases_that_no_exponential_spans_is_followed_by_a_running_maximum(cupy, dtype):
    f = af.SquaredDistance(FLAT)
    keys, values = sample(f, 200, 5)
    for spread in (1.0, 2000.0):  # with more than the exponents of dtype span, the smallest may not decide
        bias = np.linspace(-spread, 0, 200) + 1e4
        compare(f, 0.3, None, keys, values, bias, dtype)


def test_single_precision_sees_neither_the_origin_nor_a_common_bias(cupy):
    keys, values = sample(af.SquaredDistance(FLAT), 300, 20)
    compare(af.SquaredDistance(FLAT), 0.3, None, keys + 1e5, values, np.full(300, 1e5 + 1 / 3), "float32")


def test_angles_are_as_exact_near_antipodes_as_near_neighbours(cupy):
    keys, values = sample(af.SquaredDistance(af.Sphere(2)), 50, 21)
    opposite = 1e-7 * values[:, :1] - keys
    tokens = np.concatenate([keys, opposite / np.linalg.norm(opposite, axis=1, keepdims=True)])
    compare(af.SquaredDistance(af.Sphere(2)), 10.0, None, tokens, np.concatenate([values, -values]))


def test_logits_that_rise_along_the_keys_are_summed_relative_to_the_last(cupy):
    f = af.SquaredDistance(FLAT)
    keys, values = sample(f, 300, 6)
    far = np.linspace(50, 0, 300)[:, None] + 0.01 * keys
    compare(f, 0.3, far[-3:] + 0.1, far, values)


@pytest.mark.parametrize("columns", [0, 1, 9, 33])
def test_columns_are_summed_in_as_many_passes_as_they_need(cupy, columns):
    f = af.SquaredDistance(FLAT)
    keys, _ = sample(f, 150, 7)
    values = np.random.default_rng(8).standard_normal((150, columns)) if columns else None
    run = compare(f, 0.3, None, keys, values)
    assert run.stats["kernel"] == ("blocks" if columns == 33 else "fused")


@pytest.mark.parametrize("f", [af.SquaredMap(lambda x: x), af.DotProduct(), af.LogDistance(af.Euclidean(12))], ids=repr)
@pytest.mark.parametrize("far", [0.0, 1e5])
def test_many_dimensions_go_by_blocks(cupy, monkeypatch, f, far):
    chosen, choose = [], cuda_kernels.logits_from
    monkeypatch.setattr(cuda_kernels, "logits_from", lambda *about: chosen.append(choose(*about)) or chosen[-1])
    monkeypatch.setattr(cuda_kernels, "block_shape", lambda queries, keys, most: (40, 64))
    rng = np.random.default_rng(9)
    keys = rng.standard_normal((150, 12)) + (far if f.pair.reduction == "squared" else 0.0)
    bias = rng.standard_normal(150)
    run = compare(f, 2.0, None, keys, rng.standard_normal((150, 3)), bias)
    assert run.stats["kernel"] == "blocks" and chosen == [cuda_kernels.PRODUCTS]


def test_products_are_not_used_where_their_error_would_show(cupy):
    rng = np.random.default_rng(10)
    spread = np.repeat(1e4 * rng.standard_normal((10, 12)), 20, axis=0)  # clusters a thousand of their widths apart
    keys = spread + rng.standard_normal((200, 12))
    f = af.SquaredDistance(af.Euclidean(12))
    compare(f, 3.0, None, keys, rng.standard_normal((200, 2)), rtol=1e-12)


def test_your_own_function_is_asked_in_blocks_and_answers_with_device_arrays(cupy, monkeypatch):
    monkeypatch.setattr(cuda_kernels, "block_shape", lambda queries, keys, most: (40, 64))
    keys, values = sample(af.DotProduct(), 150, 11)
    f = af.PseudoMetric(lambda x, y: abs(x - y).sum(axis=-1) + 0.1 * x[..., 0], 3)
    assert compare(f, 0.3, keys[:50], keys, values).stats["kernel"] == "blocks"
    x, y = sympy.symbols("x0:3"), sympy.symbols("y0:3")
    compare(af.PseudoMetric(1 - sympy.cos(x[0] - y[0]) + (x[1] - y[2]) ** 2, 3), 0.3, None, keys, values)
    hole = af.PseudoMetric(lambda x, y: abs(x[..., 0] - y[..., 0]) / (y[..., 1] != keys[149, 1]), 3)
    with pytest.raises(ValueError, match="got nan for query 149 and key 149"):
        cupy_engine.plan(hole, 0.3, None, keys, np.float64, 1e-12)(values)
    numpy_only = af.PseudoMetric(lambda x, y: np.zeros((150, 150)), 3)
    with pytest.raises(ValueError, match="use backend='numba'"):
        cupy_engine.plan(numpy_only, 0.3, None, keys, np.float64, 1e-12)(values)


def clustered(dim, count, seed):
    """A dense cluster, scattered tokens, duplicates and one far away."""
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([0.01 * rng.standard_normal((count // 3, dim)), 6 * rng.random((count - count // 3, dim))])
    tokens[1] = tokens[0]
    return tokens


@pytest.mark.parametrize(
    "f, dtype",
    [
        (af.SquaredDistance(af.Euclidean(2)), "float64"),
        (af.SquaredDistance(af.Torus([6.0, 6.0])), "float64"),
        (af.SquaredDistance(af.Euclidean(3)), "float32"),
    ],
    ids=["plane", "torus", "space"],
)
def test_neighbours_alone_give_the_same_sums(cupy, monkeypatch, f, dtype):
    monkeypatch.setattr(cupy_engine, "SPARSE", 0)
    keys = clustered(f.dim, 400, 12)
    rng = np.random.default_rng(13)
    values, bias = rng.standard_normal((400, 2)), np.clip(rng.standard_normal(400), -2, 2)
    for b in (None, bias):
        run = compare(f, 1e-3, None, keys, values, b, dtype)
        assert run.stats["kernel"] == "cells" and run.stats["pairs"] < 400**2 / 3 and run.stats["redone"] == 0


def test_a_query_that_its_neighbours_do_not_certify_meets_all_keys(cupy, monkeypatch):
    monkeypatch.setattr(cupy_engine, "SPARSE", 0)
    f, keys = af.SquaredDistance(af.Euclidean(2)), clustered(2, 400, 14)
    cutoff = 4 * np.ceil(np.log(2 * 404 / TOLERANCE["float64"]) / 4)
    distance = reach_of(f.pair, 1e-3, cutoff)
    edge = np.array([[9.0, 9.0]]) + distance * np.array([[0, 0.99], [0, -1.01], [0, -1.012], [0, -1.014]])
    keys = np.concatenate([keys, edge])  # one of four keys of about the same weight is a neighbour
    queries = np.concatenate([keys[200:250] + 0.01, [[9.0, 9.0], [40.0, -3.0], [-1e6, 2.0], [3.0, 1e9]]])
    run = compare(f, 1e-3, queries, keys, np.random.default_rng(15).standard_normal((404, 2)))
    assert run.stats["kernel"] == "cells" and 4 <= run.stats["redone"] < 20


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.floats(0.01, 3.0), st.integers(1, 40), st.integers(0, 2**20))
def test_a_sweep_meets_every_neighbour_exactly_once(dim, periodic, distance, chunk, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", host_cuda.cupy())
        lengths = np.array([6.0, 2.0, 1.0])[:dim]
        pair = replace(af.SquaredDistance(af.Euclidean(dim)).pair, period=tuple(lengths) if periodic else None)
        v, u = clustered(dim, 90, seed), clustered(dim, 30, seed + 1) - 1.0
        sweep = cupy_cells.sweep(pair, *(host_cuda.on_device(x) for x in (u, v)), distance, chunk)
    met = np.zeros((30, 90), int)
    for first, last, ranges in zip(sweep.chunks[:-1], sweep.chunks[1:], sweep.ranges):
        assert 0 < last - first <= chunk
        for begin, end in ranges:
            met[np.ix_(sweep.queries[first:last], sweep.keys[begin:end])] += 1
    difference = u[:, None] - v
    if periodic:
        difference -= lengths * np.round(difference / lengths)
    near = (difference**2).sum(axis=-1) < distance**2
    assert met.max() <= 1 and met[near].all() and met.sum() == sweep.pairs


def test_the_reach_is_where_the_similarity_has_decayed():
    for f in (af.SquaredDistance(FLAT), af.PowerDistance(FLAT, 1.0), af.PowerDistance(FLAT, 3.0), af.LogDistance(FLAT)):
        distance = reach_of(f.pair, 0.1, 20.0)
        far = np.array([[distance, 0.0, 0.0]])
        assert np.exp(-f(0 * far, far) / 0.2) == pytest.approx(np.exp(-20.0))


def test_arrays_come_back_to_where_they_came_from(cupy):
    f = af.Mahalanobis(np.diag([1.0, 2.0, 3.0]))  # its factor is NumPy's
    keys, values = sample(f, 50, 16)
    here = cupy_engine.plan(f, 0.3, None, keys, np.float64, 1e-12)(values)
    there = cupy_engine.plan(f, 0.3, None, cupy.asarray(keys), np.float64, 1e-12)(cupy.asarray(values))
    assert all(type(array) is np.ndarray for array in here)
    assert all(isinstance(array, cupy.ndarray) for array in there)
    for one, other in zip(here, there):
        np.testing.assert_array_equal(one, cupy.asnumpy(other))
    layer = af.Attention(f, 0.3, "sinkhorn", backend="cupy")
    after = layer(cupy.asarray(keys), values)
    assert isinstance(after, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(after), layer(keys, values))


def test_a_bias_of_minus_infinity_takes_a_key_out(cupy):
    f = af.SquaredDistance(FLAT)
    keys, values = sample(f, 300, 17)
    bias = np.where(np.arange(300) < 200, -np.inf, 0.0)  # a whole tile before the first key that counts
    compare(f, 0.3, None, keys, values, bias)


def test_pairs_beyond_the_range_weigh_nothing_and_a_query_with_no_others_is_refused(cupy):
    f = af.SquaredDistance(FLAT)
    keys, values = np.array([[0.0, 0, 0], [1e200, 0, 0]]), np.array([[1.0, 0.0], [2.0, 0.0]])

    def attend(epsilon, queries, keys, values, dtype):
        return cupy_engine.plan(f, epsilon, queries, keys, dtype, 1e-5)(values)

    assert attend(1.0, keys[:1], keys, values, np.float64)[0][0, 0] == 1
    infinite = np.array([[0.0, 0, 0], [1e39, 0, 0]])  # in single precision; times 0 that is no number
    product = cupy_engine.plan(af.DotProduct(), 0.5, np.array([[0.0, 1, 0]]), infinite, np.float32, 1e-5)
    assert product(values)[0][0, 0] == 1
    with pytest.raises(ValueError, match="query 1 beyond the range of float64"):
        attend(1.0, -keys, keys, values, np.float64)
    with pytest.raises(ValueError, match="query 0 beyond the range of float32.*use dtype='float64'"):
        attend(1e-39, 1 + keys[:1], keys[:1], values[:1], np.float32)
    with pytest.raises(ValueError, match="values overflow"):
        attend(1.0, keys[:1], keys[:1], np.array([[1e39, 0.0]]), np.float32)


@pytest.mark.parametrize("normalization", ["softmax", "sinkhorn", af.DensityCorrected(0.5)], ids=str)
def test_whole_layers_agree_with_the_reference(cupy, normalization):
    f, (tokens, values) = af.SquaredDistance(FLAT), sample(af.SquaredDistance(FLAT), 200, 18)
    layers = [af.Attention(f, 0.3, normalization, backend=name) for name in ("cupy", "reference")]
    assert layers[0].bind(tokens).stats["engine"] == "cupy"
    np.testing.assert_allclose(layers[0](tokens, values), layers[1](tokens, values), atol=1e-11)


def test_streams_do_not_meet(cupy):
    if isinstance(cupy, SimpleNamespace):
        pytest.skip("no streams on the host")
    f = af.SquaredDistance(FLAT)
    keys, values = sample(f, 5000, 19)
    alone = cupy_engine.plan(f, 0.1, None, keys, np.float64, 1e-12)(values)
    streams, plans = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)], []
    for stream in streams:
        with stream:
            plans.append(cupy_engine.plan(f, 0.1, None, cupy.asarray(keys), np.float64, 1e-12))
    for stream, run in zip(streams, plans):
        with stream:
            for one, other in zip(alone, run(cupy.asarray(values))):
                np.testing.assert_array_equal(one, cupy.asnumpy(other))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "needs a CUDA device, its driver and a CuPy" in cupy_engine.unavailable()
    bare = host_cuda.cupy()
    monkeypatch.setitem(sys.modules, "cupy", bare)
    bare.cuda.runtime.getDeviceCount = lambda: 0
    assert "driver finds none" in cupy_engine.unavailable()

    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: the driver is too old")

    bare.cuda.runtime.getDeviceCount = no_driver
    monkeypatch.setitem(kernels.ENGINES, "cupy", replace(kernels.ENGINES["cupy"], needs=()))
    assert af.backends()["cupy"].startswith("not available: needs a CUDA device")
    with pytest.raises(ImportError, match="backend 'cupy' needs a CUDA device.*cudaErrorInsufficientDriver"):
        af.Attention(af.DotProduct(), 0.5, backend="cupy")
    with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        cupy_engine.plan(af.DotProduct(), 0.5, None, np.zeros((2, 2)), np.float64, 1e-12)


def test_nothing_is_subtracted_only_where_no_exponential_can_leave_the_range():
    distance, product = af.SquaredDistance(FLAT).pair, af.DotProduct().pair
    NONE, RUNNING = 0, 1
    choose = cuda_kernels.subtraction
    assert choose(distance, 8, own=True, spread=500.0) == NONE
    assert choose(distance, 4, own=True, spread=500.0) == RUNNING
    assert choose(distance, 8, own=True, spread=np.inf) == RUNNING
    assert choose(distance, 8, own=False, spread=0.0) == RUNNING
    assert choose(product, 8, own=True, spread=0.0) == RUNNING


def test_the_cut_into_pieces_bounds_memory_and_fills_a_device():
    assert [cuda_kernels.passes(c) for c in (0, 1, 8, 9, 32)] == [(1, 0), (1, 1), (1, 8), (2, 5), (4, 8)]
    assert cuda_kernels.splits(1000, 10**6, 512, 1, 132) == 1954  # few queries: as many parts as have four tiles
    assert cuda_kernels.splits(10**6, 10**6, 512, 1, 132) == 4
    assert cuda_kernels.splits(10**8, 10**8, 512, 1, 132) == 1
    rows, columns = cuda_kernels.block_shape(10**6, 10**6, 2**24)
    assert rows * columns == 2**24 and cuda_kernels.block_shape(10, 20, 2**24) == (10, 20)
    chunks, ranges = cuda_kernels.all_pairs(1000, 1000, 512, 3)
    assert list(chunks) == [0, 512, 1000] and ranges.tolist() == [[0, 384], [384, 768], [768, 1000]]
    sizes = [(3, 1, 4), (3, 1, 8), (8, 8, 4), (8, 8, 8)]
    assert [cuda_kernels.queries_per_thread(*size) for size in sizes] == [4, 4, 2, 1]
