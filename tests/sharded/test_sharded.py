"""A layer read block by block is the layer: whatever is cut where, by whichever engine, from whichever files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.kernels import Attended, attend, choice
from attnflow.sharded import merge
from attnflow.sharded.pairs import Kernel
from attnflow.sharded.rows import Npy, open_rows
from attnflow.sharded.slabs import axis_of, cut
from attnflow.sharded.sums import Sampled, kernel_of, survey

TORUS, PLANE = (af.SquaredDistance(space) for space in (af.Torus([1.0, 1.0]), af.Euclidean(2)))
RNG = np.random.default_rng(0)
TOKENS = RNG.random((1500, 2))
VALUES = np.stack([np.cos(2 * np.pi * TOKENS[:, 0]), TOKENS[:, 0] * TOKENS[:, 1], 5 + TOKENS[:, 1]], axis=1)


def layer(f=TORUS, epsilon=1e-3, normalization="softmax", backend="numba", **options):
    return af.Attention(f, epsilon, normalization, backend=backend, **options)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 199), max_size=6, unique=True), st.floats(1e-3, 1e3), st.floats(0, 300), st.integers(0, 2**32 - 1)
)
def test_any_split_of_the_keys_merges_to_one_call(cuts, epsilon, spread, seed):
    rng = np.random.default_rng(seed)
    queries, keys, values = rng.normal(size=(7, 3)), rng.normal(size=(200, 3)), rng.normal(size=(200, 2))
    bias = spread * rng.normal(size=200)
    edges = [0, *sorted(cuts), 200]
    f = af.SquaredDistance(af.Euclidean(3))
    parts = [attend(f, epsilon, queries, keys[a:b], values[a:b], bias[a:b], "reference") for a, b in zip(edges, edges[1:])]
    merged, whole = merge(parts), attend(f, epsilon, queries, keys, values, bias, "reference")
    # logits of size L are known to L times the unit of rounding, and so are the weights; products of other shapes round otherwise
    lengths = np.linalg.norm(queries, axis=1) + np.linalg.norm(keys, axis=1).max()
    size = 1 + abs(whole.log_sum_exp) + lengths**2 / (2 * epsilon)
    assert (abs(merged.log_sum_exp - whole.log_sum_exp) < 1e-15 * size + 1e-14).all()
    assert (abs(merged.mean - whole.mean) < 1e-13 * (1 + size[:, None] / 100)).all()


def test_a_shard_in_which_nothing_is_seen_changes_nothing_and_all_such_shards_are_nothing():
    none = Attended(np.zeros((2, 1)), np.array([-np.inf, -np.inf]))
    some = Attended(np.array([[3.0], [0.0]]), np.array([2.0, -np.inf]))
    for parts in ([none, some], [some, none], [none, some, none]):
        merged = merge(parts)
        assert merged.mean.tolist() == [[3.0], [0.0]] and merged.log_sum_exp.tolist() == [2.0, -np.inf]
    with pytest.raises(ValueError, match="partials must be at least one"):
        merge([])


@pytest.mark.parametrize("backend", ["numba", "cells", pytest.param("nufft", marks=pytest.mark.optional), "auto"])
@pytest.mark.parametrize("normalization", ["softmax", af.DensityCorrected(0.5), "column", "sinkhorn"])
@pytest.mark.parametrize("f", [TORUS, PLANE], ids=["torus", "plane"])
def test_blocks_are_the_layer(f, normalization, backend):
    if backend == "nufft":
        pytest.importorskip("finufft")
    one = layer(f, 1e-3, normalization, backend, rtol=1e-10, residual=0.7)
    shards = af.Sharded(one, block=400)
    assert abs(shards(TOKENS, VALUES) - layer(f, 1e-3, normalization, rtol=1e-12, residual=0.7)(TOKENS, VALUES)).max() < 1e-10
    assert shards.stats["blocks"] == 4 and shards.stats["isolated"] == 0


@pytest.mark.parametrize("backend", ["numba", "cells", pytest.param("nufft", marks=pytest.mark.optional)])
def test_queries_near_and_far_see_what_they_see_of_the_layer(backend):
    if backend == "nufft":
        pytest.importorskip("finufft")
    queries = np.concatenate([RNG.random((90, 2)), [[3.0, 0.5], [-8.0, 0.2], [0.5, 40.0]]])
    for normalization in ("softmax", "column"):
        one = layer(PLANE, 1e-3, normalization, backend, rtol=1e-10)
        expected = layer(PLANE, 1e-3, normalization)(TOKENS, VALUES, queries)
        assert abs(af.Sharded(one, block=400)(TOKENS, VALUES, queries) - expected).max() < 1e-10


def test_far_keys_of_large_bias_are_not_left_out_and_isolated_tokens_are_told():
    line = af.SquaredDistance(af.Euclidean(1))
    tokens = np.concatenate([0.01 * RNG.normal(size=300), np.arange(0.5, 5.0, 0.1), [30.0]])[:, None]
    values, rule = np.cos(tokens), af.DensityCorrected(-3.0)  # a crowd's keys weigh 300^3 times as much as others
    with pytest.warns(af.checks.IsolatedTokensWarning, match="1 of 346"):
        expected = layer(line, 0.02, rule, "reference")(tokens, values)
    with pytest.warns(af.checks.IsolatedTokensWarning, match="1 of 346"):
        found = af.Sharded(layer(line, 0.02, rule, "cells", rtol=1e-10), block=10)(tokens, values)
    assert abs(found - expected).max() < 1e-10


@pytest.mark.parametrize(
    "f, epsilon",
    [
        (af.LogDistance(af.Euclidean(2)), 0.05),
        (af.SquaredMap(lambda x: np.concatenate([x, np.sin(3 * x), np.cos(2 * x)], axis=-1)), 0.01),
        (af.PowerDistance(af.Torus([1.0, 1.0]), 1.0), 0.01),
    ],
    ids=["logarithm", "map to six features", "power"],
)
def test_near_keys_of_other_similarities(f, epsilon):
    shards = af.Sharded(layer(f, epsilon, backend="cells", rtol=1e-9), block=300)
    assert abs(shards(TOKENS, VALUES) - layer(f, epsilon)(TOKENS, VALUES)).max() < 1e-8


@pytest.mark.parametrize("normalization", ["column", af.DensityCorrected(0.5), af.Sinkhorn(potentials=2)])
def test_an_asymmetric_f(normalization):
    head = layer(af.DotProduct([[1.0, 0.9], [-0.9, 0.8]]), 0.5, normalization)
    assert abs(af.Sharded(head, block=400)(TOKENS, VALUES) - head(TOKENS, VALUES)).max() < 1e-11


def test_rows_come_back_in_their_order_from_slabs(tmp_path):
    rows = open_rows(TOKENS, "tokens")
    axis = axis_of(PLANE, TOKENS.min(axis=0), TOKENS.max(axis=0))
    order = cut(rows, TOKENS[::3], lambda x: x, axis, 200, tmp_path, "keys", None)
    sizes = np.diff(order.slabs.starts)
    assert sizes.sum() == 1500 and sizes.max() < 230 and (order.slabs.low[1:] > order.slabs.high[:-1]).all()
    there = order.sort(open_rows(VALUES, "values"), tmp_path / "v.npy")
    back = np.concatenate([block for _, _, block in order.unsort(there)])
    assert (back == VALUES).all() and not (there.read(0, 1500) == VALUES).all()


def test_tokens_in_one_place_are_one_slab():
    same = np.repeat([[0.25, 0.5]], 700, axis=0)
    found = af.Sharded(layer(backend="cells"), block=200)(same, VALUES[:700])
    assert np.allclose(found, VALUES[:700].mean(axis=0), atol=1e-12)


def test_many_layers_and_eigenvalues():
    one = layer(normalization=af.DensityCorrected(0.5), backend="cells", residual=0.5)
    shards = af.Sharded(one, block=400)
    expected = af.propagate(one, TOKENS, VALUES, 5, save_every=5).y[-1]
    assert abs(shards.propagate(TOKENS, VALUES, 5) - expected).max() < 1e-11
    few = TOKENS[:600]
    found, known = shards.spectrum(few, 3), one.spectrum(few, 3)
    assert abs(found.eigenvalues - known.eigenvalues).max() < 1e-9
    assert abs(abs(found.at(few[:9])) - abs(known.at(few[:9]))).max() < 1e-6


@pytest.mark.parametrize("epsilon, cheapest", [(1e-6, "cells"), pytest.param(1e-3, "nufft", marks=pytest.mark.optional)])
def test_the_engine_is_chosen_from_a_sample_as_from_all_tokens(epsilon, cheapest):
    if cheapest == "nufft":
        pytest.importorskip("finufft")
    tokens = np.sort(np.random.default_rng(2).random((100_000, 2)), axis=0)  # along a diagonal
    one = layer(epsilon=epsilon, backend="auto", rtol=1e-9)
    sample = survey(TORUS, open_rows(tokens, "tokens"), "tokens", 7000, None).sample
    assert 40_000 < len(sample) <= 2**16
    asked = TORUS, epsilon, None, sample, "float64", 1e-9, 1, 2
    found, known = choice.cheapest(Sampled(*asked, queried=100_000, held=100_000)), one.plan(tokens)
    assert found.engine == known.engine == cheapest
    for engine, seconds in known.seconds.items():
        assert found.seconds[engine] == pytest.approx(seconds, rel=0.5)


def test_float32_and_values_that_are_the_tokens():
    single = layer(PLANE, 1e-2, dtype="float32", backend="cells")
    assert abs(af.Sharded(single, block=400)(TOKENS) - layer(PLANE, 1e-2)(TOKENS)).max() < 1e-5


def test_what_is_no_number_does_not_merge_and_means_of_nothing_are_nothing():
    with pytest.raises(ValueError, match="log-sum-exps that are finite or -inf, got nan in row 0 of partial 0"):
        merge([([[np.nan]], [np.nan]), ([[2.0]], [0.0])])
    with pytest.raises(ValueError, match="log-sum-exps that are finite or -inf, got inf in row 1 of partial 1"):
        merge([([[1.0], [1.0]], [0.0, 0.0]), ([[2.0], [2.0]], [0.0, np.inf])])
    with pytest.raises(ValueError, match=r"finite means, got \[nan\] in row 0 of partial 1"):
        merge([([[1.0]], [0.0]), ([[np.nan]], [0.0])])
    for parts in ([([[np.nan]], [-np.inf]), ([[2.0]], [0.0])], [([[2.0]], [0.0]), ([[np.nan]], [-np.inf])]):
        assert merge(parts).mean.tolist() == [[2.0]] and merge(parts).log_sum_exp.tolist() == [0.0]


def short_sighted(x, y):
    f = np.square(x - y).sum(axis=-1)
    return np.where(f < 0.2**2, f, np.inf)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_a_query_need_not_see_a_key_in_every_shard_but_one_in_all(backend):
    one = layer(af.PseudoMetric(short_sighted, 1), 0.01, backend=backend)
    line = np.linspace(0.0, 1.0, 40)[:, None]
    assert abs(af.Sharded(one, block=10)(line) - one(line)).max() < 1e-12
    with pytest.raises(ValueError, match="f must be finite between query 33 and at least one key"):
        af.Sharded(one, block=10)(line, queries=np.where(np.arange(40)[:, None] == 33, 7.0, line))


def test_a_shard_beyond_the_range_of_float32_weighs_nothing():
    one = layer(af.SquaredDistance(af.Euclidean(1)), 1e-6, dtype="float32")
    tokens = np.concatenate([np.linspace(0.0, 1e-3, 20), 1e17 + np.zeros(20)])[:, None]
    assert abs(af.Sharded(one, block=20)(tokens) - one(tokens)).max() <= 1e-5 * 1e17


def test_errors_say_of_which_rows_they_speak():
    def broken(x, y):
        f = np.square(x - y).sum(axis=-1)
        return np.where((x[..., 0] == 36.0) & (y[..., 0] == 13.0), np.nan, f)

    one = layer(af.PseudoMetric(broken, 1), 1.0)
    line = np.arange(40.0)[:, None]
    with pytest.raises(ValueError, match="got nan for query 6 and key 3, of queries 30 to 39 and keys 10 to 19"):
        af.Sharded(one, block=10)(line)


@pytest.mark.optional
def test_the_engine_is_chosen_for_the_whole_extent_of_the_tokens():
    pytest.importorskip("finufft")
    tokens = np.random.default_rng(4).random((140_000, 2))  # of which every third is looked at
    tokens[1] = 3e4
    one = layer(PLANE, 1e-3, backend="auto", rtol=1e-9)
    seen = survey(PLANE, open_rows(tokens, "tokens"), "tokens", 50_000, None)
    assert (seen.of_keys[1] == 3e4).all() and (seen.sample.max(axis=0) == 3e4).all()
    assert kernel_of(one, seen, seen).backend == one.plan(tokens).engine == "cells"


def test_corners_and_their_tokens_are_those_of_features_in_any_block():
    f = af.DotProduct([[1.0, 0.0], [2.0, 1.0]])
    seen = survey(f, open_rows(TOKENS, "tokens"), "tokens", 333, None)
    for corners, features in ((seen.of_queries, f.query_features), (seen.of_keys, f.key_features)):
        assert (np.array(corners) == [end(features(TOKENS), axis=0) for end in (np.min, np.max)]).all()
        assert set(map(float, np.ravel(corners))) <= set(map(float, np.ravel(features(seen.sample[-8:]))))


@pytest.mark.parametrize("f, extent", [(PLANE, 1.0), (PLANE, 0.1), (TORUS, 1.0)])
def test_no_task_holds_more_than_some_blocks_however_far_keys_are_seen(f, extent, monkeypatch):
    tokens, most = np.random.default_rng(5).random((6000, 2)), []
    tokens[:, 0] *= extent
    tokens[1500:4500] = tokens[1500]  # which no slab cuts apart
    real = Kernel.attend
    monkeypatch.setattr(Kernel, "attend", lambda self, *some: most.append(max(map(len, some[:2]))) or real(self, *some))
    read = Npy.read
    monkeypatch.setattr(Npy, "read", lambda self, first, last: most.append(last - first) or read(self, first, last))
    found = af.Sharded(layer(f, 1e-3, af.DensityCorrected(0.5), backend="cells", rtol=1e-6), block=200)(tokens)
    assert max(most) <= 400
    assert abs(found - layer(f, 1e-3, af.DensityCorrected(0.5))(tokens)).max() < 1e-6


@pytest.mark.parametrize("others", [[1e5], [-3e4, 1e12], [0.5] * 5000, np.geomspace(1e-12, 1e12, 3000)])
def test_slabs_are_even_whatever_is_far_or_crowded(tmp_path, others):
    x = np.concatenate([RNG.random(20_000), others, 0.5 + 1e-9 * RNG.random(5000)])[:, None]
    line = af.SquaredDistance(af.Euclidean(1))
    seen = survey(line, open_rows(x, "tokens"), "tokens", 1000, None)
    order = cut(seen.rows, seen.sample, lambda x: x, axis_of(line, *seen.of_keys), 1000, tmp_path, "keys", None)
    sizes = np.diff(order.slabs.starts)
    assert np.sort(sizes)[-2] < 1100 and sizes.max() < (6200 if len(others) == 5000 else 1100)
    parts = [last - first for slab in range(len(sizes)) for first, last in order.slabs.parts(slab)]
    assert sum(parts) == len(x) and max(parts) <= 1500
