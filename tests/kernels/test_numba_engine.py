"""The tiled CPU engine against the definition, evaluated densely in extended precision."""

import multiprocessing
import platform
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.kernels.numba_engine import arithmetic, logits, tiles
from attnflow.kernels.numba_engine import dense as engine

TOLERANCE = {np.float64: 1e-13, np.float32: 1e-5}
QUERY_EDGES = [1, tiles.QUERIES - 1, tiles.QUERIES, tiles.QUERIES + 1, 2 * tiles.QUERIES + 3]
EDGES = [1, tiles.TILE - 1, tiles.TILE, tiles.TILE + 1, 2 * tiles.TILE + 3]

PSEUDOMETRICS = {
    "squared": af.SquaredDistance(af.Euclidean(3)),
    "wrapped": af.SquaredDistance(af.Torus([1.0, 2.0, 3.0])),
    "mahalanobis": af.Mahalanobis(np.diag([1.0, 2.0, 0.5])),
    "distance": af.PowerDistance(af.Euclidean(3), 1.0),
    "power 1.5": af.PowerDistance(af.Euclidean(3), 1.5),
    "power 4, wrapped": af.PowerDistance(af.Torus([1.0, 2.0, 3.0]), 4.0),
    "log": af.LogDistance(af.Euclidean(3)),
    "angle": af.SquaredDistance(af.Sphere(2)),
    "angle to the 3": af.PowerDistance(af.Sphere(2), 3.0),
    "dot product": af.DotProduct(np.array([[1.0, 0.3, 0.0], [-0.2, 1.0, 0.5], [0.0, 0.0, 1.0]])),
    "cosine": af.Cosine(),
    "general": af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1) + 0.1 * x[..., 0], dim=3),
}


def attend(f, epsilon, queries, keys, values, key_bias, dtype):
    return engine.plan(f, epsilon, queries, keys, dtype, 1e-12)(values, key_bias)


def dense(f, epsilon, queries, keys, values, key_bias):
    """Mean, log-sum-exp, and per query the largest |f / (2 eps)| + |b| that carries weight."""
    pair = f.pair
    u, v = (np.asarray(a, np.longdouble) for a in (f.query_features(queries), f.key_features(keys)))
    if pair.reduction == "general":
        f_values = size = f.evaluate(u, v)
    else:
        difference = u[:, None] - v
        if pair.reduction == "wrapped":
            difference -= pair.period * np.round(difference / np.asarray(pair.period))
        r = size = u @ v.T if pair.reduction == "inner" else (difference**2).sum(axis=-1)
        if pair.geodesic:
            r = size = (2 * np.arctan2(np.sqrt(r), np.sqrt(((u[:, None] + v) ** 2).sum(axis=-1)))) ** 2
        if pair.transform == "power":
            f_values = size = r ** (np.longdouble(pair.parameter) / 2)
        elif pair.transform == "log1p":
            f_values = size = np.log1p(r)
        elif pair.transform == "affine":
            f_values, size = pair.parameter - r, np.abs(u) @ np.abs(v).T + abs(pair.parameter)
        else:
            f_values = r
    bias = np.zeros(len(keys)) if key_bias is None else key_bias
    logits = -f_values / (2 * np.longdouble(epsilon)) + bias
    top = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - top)
    total = weights.sum(axis=1, keepdims=True)
    largest = np.where(weights > 1e-20, np.abs(size) / (2 * epsilon) + np.abs(bias), 1).max(axis=1)
    return weights @ values / total, (top + np.log(total))[:, 0], np.maximum(largest, 1)


def assert_equals_dense(result, f, epsilon, queries, keys, values, key_bias=None, dtype=np.float64):
    mean, lse, largest = dense(f, epsilon, queries, keys, values, key_bias)
    allowed = (TOLERANCE[dtype] * largest).astype(float)
    error_mean = np.abs(result[0] - mean).max(axis=1, initial=0) / np.abs(values).max(initial=1e-300)
    assert (error_mean <= allowed).all(), f"means are off by {(error_mean / largest).max():.2e}"
    error_lse = np.abs(result[1] - lse)
    assert (error_lse <= allowed).all(), f"log-sum-exps are off by {(error_lse / largest).max():.2e}"


def tokens(f, count, rng, columns=2):
    x = rng.standard_normal((count, 3))
    if f.pair.geodesic:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, rng.standard_normal((count, columns))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", PSEUDOMETRICS)
def test_every_pseudometric_agrees_with_the_definition(name, dtype):
    f, rng = PSEUDOMETRICS[name], np.random.default_rng(0)
    keys, values = tokens(f, 700, rng)
    queries, bias = tokens(f, 19, rng)[0], rng.standard_normal(700)
    result = attend(f, 0.1, queries, keys, values, bias, dtype)
    assert_equals_dense(result, f, 0.1, queries, keys, values, bias, dtype)


@pytest.mark.parametrize("name", ["squared", "general"])
@pytest.mark.parametrize("n_keys", EDGES)
@pytest.mark.parametrize("n_queries", QUERY_EDGES)
def test_no_token_is_lost_at_the_edge_of_a_tile(name, n_keys, n_queries):
    f, rng = PSEUDOMETRICS[name], np.random.default_rng(1)
    (keys, values), queries = tokens(f, n_keys, rng, columns=1), tokens(f, n_queries, rng)[0]
    result = attend(f, 1.0, queries, keys, values, None, np.float64)
    assert_equals_dense(result, f, 1.0, queries, keys, values)


@pytest.mark.parametrize("features", [1, 3, 4, 5, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("inner", [False, True])
def test_no_coordinate_is_lost_among_those_taken_together(features, inner, dtype):
    f = af.DotProduct(np.eye(features)) if inner else af.PowerDistance(af.Euclidean(features), 1.5)
    rng = np.random.default_rng(4)
    keys, queries = rng.standard_normal((300, features)), rng.standard_normal((11, features))
    values = rng.standard_normal((300, 2))
    result = attend(f, features, queries, keys, values, None, dtype)
    assert_equals_dense(result, f, features, queries, keys, values, None, dtype)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_no_piece_of_a_callable_is_lost(extra):
    f, rng = PSEUDOMETRICS["general"], np.random.default_rng(2)
    keys, values = tokens(f, logits.COLUMNS + extra, rng)
    queries = tokens(f, logits.ROWS + extra, rng)[0]
    result = attend(f, 1.0, queries, keys, values, None, np.float64)
    assert_equals_dense(result, f, 1.0, queries, keys, values)


def test_the_comparison_notices_one_weight_off_by_a_billionth():
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(3)
    (keys, values), queries = tokens(f, 40, rng), tokens(f, 9, rng)[0]
    bias = np.zeros(40)
    for j in range(40):
        bias[j] = 1e-9
        result = attend(f, 10.0, queries, keys, values, bias, np.float64)
        with pytest.raises(AssertionError, match="means are off"):
            assert_equals_dense(result, f, 10.0, queries, keys, values)
        bias[j] = 0.0


@pytest.mark.parametrize("key", [0, tiles.TILE - 1, tiles.TILE, 2 * tiles.TILE + 2])
def test_the_comparison_notices_a_lost_key(key):
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(4)
    (keys, values), queries = tokens(f, 2 * tiles.TILE + 3, rng), tokens(f, 9, rng)[0]
    kept = np.arange(len(keys)) != key
    result = attend(f, 10.0, queries, keys[kept], values[kept], None, np.float64)
    with pytest.raises(AssertionError, match="off by"):
        assert_equals_dense(result, f, 10.0, queries, keys, values)


def test_the_comparison_notices_a_lost_query():
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(5)
    (keys, values), queries = tokens(f, 30, rng), tokens(f, tiles.QUERIES + 1, rng)[0]
    mean, lse = attend(f, 1.0, queries, keys, values, None, np.float64)
    mean[-1] = 0
    with pytest.raises(AssertionError, match="means are off"):
        assert_equals_dense((mean, lse), f, 1.0, queries, keys, values)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(PSEUDOMETRICS)),
    n_keys=st.integers(1, 1200),
    n_queries=st.integers(1, 40),
    columns=st.integers(0, 9),
    log_epsilon=st.floats(-6, 6),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_temperatures_of_twelve_decades(name, n_keys, n_queries, columns, log_epsilon, biased, seed):
    f, rng, epsilon = PSEUDOMETRICS[name], np.random.default_rng(seed), 10.0**log_epsilon
    keys, values = tokens(f, n_keys, rng, columns)
    queries, bias = tokens(f, n_queries, rng)[0], 10 * rng.standard_normal(n_keys) if biased else None
    result = attend(f, epsilon, queries, keys, values, bias, np.float64)
    assert_equals_dense(result, f, epsilon, queries, keys, values, bias)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(PSEUDOMETRICS)),
    n_keys=st.integers(1, 1200),
    columns=st.integers(0, 9),
    log_epsilon=st.floats(-2, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_single_precision_keeps_five_digits(name, n_keys, columns, log_epsilon, seed):
    f, rng, epsilon = PSEUDOMETRICS[name], np.random.default_rng(seed), 10.0**log_epsilon
    (keys, values), queries = tokens(f, n_keys, rng, columns), tokens(f, 9, rng)[0]
    bias = rng.standard_normal(n_keys)
    result = attend(f, epsilon, queries, keys, values, bias, np.float32)
    assert_equals_dense(result, f, epsilon, queries, keys, values, bias, np.float32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(PSEUDOMETRICS)), n_keys=st.integers(1, 1200), seed=st.integers(0, 2**32 - 1))
def test_order_of_keys_and_a_common_bias_do_not_matter(name, n_keys, seed):
    f, rng = PSEUDOMETRICS[name], np.random.default_rng(seed)
    (keys, values), queries = tokens(f, n_keys, rng), tokens(f, 5, rng)[0]
    mean, lse = attend(f, 1.0, queries, keys, values, None, np.float64)
    order = rng.permutation(n_keys)
    mean_2, lse_2 = attend(f, 1.0, queries, keys[order], values[order], np.full(n_keys, 3.0), np.float64)
    np.testing.assert_allclose(mean_2, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(lse_2 - 3, lse, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_far_away_queries_see_their_nearest_keys(dtype):
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(6)
    keys, values = tokens(f, 600, rng)
    queries = 1e3 * np.eye(3)
    result = attend(f, 1e-3, queries, keys, values, None, dtype)  # f / (2 eps) = 5e8
    if dtype == np.float64:
        assert_equals_dense(result, f, 1e-3, queries, keys, values)
    nearest = values[np.argmax(keys @ np.eye(3), axis=0)]
    np.testing.assert_allclose(result[0], nearest, atol=1e-6)


def test_one_token_and_copies_of_it_give_its_value():
    f, x, value = PSEUDOMETRICS["squared"], np.array([[0.1, 0.2, 0.3]]), np.array([[1 / 3, -7.0]])
    for copies in (1, 5, 600):
        mean, lse = attend(f, 1e-3, x, x.repeat(copies, 0), value.repeat(copies, 0), None, np.float64)
        np.testing.assert_allclose(mean, value, rtol=1e-15)
        assert lse == pytest.approx(np.log(copies), abs=1e-15)


@pytest.mark.parametrize("columns", [0, 1, 3, 4, 5, 1000])
def test_any_number_of_value_columns(columns):
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(7)
    (keys, values), queries = tokens(f, 600, rng, columns), tokens(f, 9, rng)[0]
    result = attend(f, 0.5, queries, keys, values, None, np.float64)
    assert_equals_dense(result, f, 0.5, queries, keys, values)
    mean, lse = attend(f, 0.5, queries, keys, None, None, np.float64)
    assert mean.shape == (9, 0)
    np.testing.assert_allclose(lse, result[1], rtol=1e-14)


def test_antipodes_are_pi_apart():
    f = PSEUDOMETRICS["angle"]
    angle = np.pi - np.array([0.0, 1e-12, 1e-8, 1e-3])
    keys = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    for k in range(4):
        lse = attend(f, 0.5, np.eye(3)[:1], keys[k : k + 1], None, None, np.float64)[1]
        assert -lse[0] == pytest.approx(angle[k] ** 2, abs=5e-15)


def test_single_precision_sees_neither_the_origin_nor_a_common_bias():
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(8)
    keys, values = tokens(f, 600, rng)
    keys += 1e6
    mean, lse = attend(f, 0.1, keys[:9], keys, values, np.full(600, 1e6 + 1 / 3), np.float32)
    result = mean, lse - (1e6 + 1 / 3)
    assert_equals_dense(result, f, 0.1, keys[:9], keys, values, None, np.float32)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_bias_of_minus_infinity_takes_a_key_out(dtype):
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(9)
    (keys, values), queries = tokens(f, 1200, rng), tokens(f, 9, rng)[0]
    bias = np.where(np.arange(1200) < 700, -np.inf, 0.0)  # a whole tile before the first key that counts
    mean, lse = attend(f, 0.1, queries, keys, values, bias, dtype)
    assert_equals_dense((mean, lse), f, 0.1, queries, keys[700:], values[700:], None, dtype)


def test_pairs_beyond_the_range_weigh_nothing_and_a_query_with_no_others_is_refused():
    f = PSEUDOMETRICS["squared"]
    keys, values = np.array([[0.0, 0, 0], [1e200, 0, 0]]), np.array([[1.0], [2.0]])
    mean, lse = attend(f, 1.0, keys[:1], keys, values, None, np.float64)
    assert (mean, lse) == (1, 0)
    with pytest.raises(ValueError, match="query 1 beyond the range of float64"):
        attend(f, 1.0, -keys, keys, values, None, np.float64)
    with pytest.raises(ValueError, match="query 0 beyond the range of float32.*use dtype='float64'"):
        attend(f, 1e-39, 1 + keys[:1], keys[:1], values[:1], None, np.float32)
    with pytest.raises(ValueError, match="values overflow"):
        attend(f, 1.0, keys[:1], keys[:1], np.array([[1e39]]), None, np.float32)
    for epsilon in (1.0, 1e300):
        with pytest.raises(ValueError, match="query 0 and at least one key.*bias of -inf"):
            attend(f, epsilon, keys[:1], keys, values, np.full(2, -np.inf), np.float64)


def test_nan_of_a_callable_is_named():
    f = af.PseudoMetric(lambda x, y: np.where(x[..., 0] * y[..., 0] > 0.5, np.nan, 1.0), dim=1)
    keys = np.zeros((5000, 1))
    keys[4321] = 1
    queries = np.zeros((300, 1))
    queries[299] = 1
    with pytest.raises(ValueError, match="query 299 and key 4321"):
        attend(f, 1.0, queries, keys, None, None, np.float64)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_number_of_threads_changes_no_bit(dtype, two_threads):
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(10)
    keys, values = tokens(f, 1501, rng, columns=5)
    assert keys.size * len(keys) > 2 * engine.SHARE
    results = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        results.append(attend(f, 0.1, keys, keys, values, None, dtype))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_callers_in_several_threads_do_not_meet():
    f, rng = PSEUDOMETRICS["squared"], np.random.default_rng(11)
    keys, values = tokens(f, 1000, rng)
    epsilons = np.geomspace(0.1, 1, 8)
    alone = [attend(f, epsilon, keys, keys, values, None, np.float64)[0] for epsilon in epsilons]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda e: attend(f, e, keys, keys, values, None, np.float64)[0], epsilons))
    np.testing.assert_array_equal(together, alone)


def _log_sum_exp(keys):
    return attend(PSEUDOMETRICS["squared"], 0.1, keys, keys, None, None, np.float64)[1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_computes_on():
    keys = tokens(PSEUDOMETRICS["squared"], 1000, np.random.default_rng(12))[0]
    here = _log_sum_exp(keys)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply_async(_log_sum_exp, (keys,)).get(timeout=60), here)


def test_no_array_of_all_pairs_is_made():
    f, rng = PSEUDOMETRICS["general"], np.random.default_rng(13)
    keys, values = tokens(f, 6000, rng)
    attend(f, 0.1, keys[:2], keys[:2], values[:2], None, np.float64)
    for f, megabytes in ((PSEUDOMETRICS["squared"], 3), (f, 140)):  # all pairs: 288; a piece of 256 x 4096 x 3: 25
        tracemalloc.start()
        attend(f, 0.1, keys, keys, values, None, np.float64)
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
        tracemalloc.stop()


def test_few_compilations_serve_every_call():
    engine.gaussian.cache_clear()  # what other tests called for is not counted
    f, before = PSEUDOMETRICS["squared"], engine.gaussian.cache_info().currsize
    x = np.random.default_rng(14).standard_normal((20, 6))[:, ::2]
    frozen = np.array(x[:, :1])
    frozen.flags.writeable = False
    for dtype in (np.float64, np.float32):
        for values in (None, x, frozen, np.asfortranarray(x)):
            attend(f, 1, x, x, values, frozen[:, 0], dtype)
        attend(PSEUDOMETRICS["general"], 1.0, x, x, frozen, None, dtype)
        attend(af.PowerDistance(af.Euclidean(1), 3), 1.0, frozen, frozen, frozen, None, dtype)
    assert len(tiles.absorb.signatures) == 2  # one for each dtype, whatever the call
    assert sum(len(engine.gaussian(reduction, 3, 3).signatures) for reduction in (0, 2)) == 2  # by squares or products
    assert engine.gaussian.cache_info().currsize <= before + 4  # by squares and products, with one column and with three


@pytest.mark.parametrize(
    "function, exact, low, high, units",
    [
        (arithmetic.exp2, lambda x: mpmath.power(2, x), -1020.0, 0.0, 2),
        (arithmetic.exp2, lambda x: mpmath.power(2, x), -1.0, 0.0, 2),
        (arithmetic.exp2, lambda x: mpmath.power(2, x), -1e-9, 1000.0, 2),
        (arithmetic.log1p, mpmath.log1p, 1e-20, 1e20, 3),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_elementary_functions_are_good_to_units_of_rounding(function, exact, low, high, units, dtype):
    rng = np.random.default_rng(15)
    if low < 0:
        far = 1.0 if dtype == np.float64 else 0.12
        x = rng.uniform(max(low, far * -1020), min(high, far * 1000), 2000)
    else:
        x = np.exp(rng.uniform(np.log(low), np.log(high), 2000))
    for number in x.astype(dtype):
        true = exact(float(number))
        assert abs(function(number) - true) <= units * np.finfo(dtype).eps * abs(true)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_angles_and_powers_are_good_to_units_of_rounding(dtype):
    rng, unit = np.random.default_rng(16), np.finfo(dtype).eps
    for angle in np.append(rng.uniform(0, np.pi, 500), np.geomspace(1e-15, 1, 50)):
        r, s = dtype(4 * np.sin(angle / 2) ** 2), dtype(4 * np.cos(angle / 2) ** 2)
        assert abs(arithmetic.angle_of(r, s) - angle) <= 5 * unit * angle
    for x in np.exp(rng.uniform(-20, 20, 500)).astype(dtype):
        true = float(x) ** 0.75
        assert abs(arithmetic.power(x, dtype(0.75)) - true) <= 3 * unit * true * max(1, abs(np.log(true)))
    assert arithmetic.power(dtype(0), dtype(0.01)) == 0
    tiny = np.finfo(dtype).tiny
    assert arithmetic.exp2(dtype(-1e30)) == arithmetic.exp2(dtype(np.nan)) == arithmetic.exp2(np.log2(tiny) - dtype(1)) == 0
    for x in np.linspace(np.log2(tiny) - 1, np.log2(tiny), 1000, dtype=dtype):  # what is no normal number any more
        assert 0 <= arithmetic.exp2(x) <= tiny


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the names of registers are those of x86-64")
def test_the_loop_over_keys_runs_on_wide_vectors():
    kernel = engine.gaussian(0, 2, 1)
    fresh = numba.njit(**{k: v for k, v in kernel.targetoptions.items() if k != "nopython"})(
        kernel.py_func
    )  # numba does not show code that was cached
    keys, tokens, sums = np.zeros((2, 20)), np.zeros(20), np.zeros((20, 1))
    ranges = np.zeros(20, np.int64), np.full(20, 20)
    fresh(0, 20, ranges, 1.0, np.ones(2), np.zeros((20, 2)), keys, keys[:1], tokens, tokens, np.zeros(20), sums)
    (code,) = fresh.inspect_asm().values()
    blocks = re.split(r"\n(?=\.LBB)", code)
    # eleven of the polynomial, two of the distance and the bias, one of the mean: all packed, none scalar in that loop
    widest = max(len(re.findall(r"vfn?madd\w+pd\s.*%[yz]mm", block)) for block in blocks)
    assert widest >= 13


def test_a_key_far_less_far_than_all_before_keeps_its_digits():
    far = 1e12  # of the first piece of keys, beside which the others' f would be rounded to 1e-4
    f = af.PseudoMetric(lambda x, y: (x[..., 0] - y[..., 0]) ** 2 + far * (y[..., 0] > 5), dim=1)
    rng = np.random.default_rng(17)
    keys = np.concatenate([np.full((logits.COLUMNS, 1), 9.0), rng.uniform(0, 1, (300, 1))])
    values, queries = rng.standard_normal((len(keys), 2)), rng.uniform(0, 1, (9, 1))
    mean, lse = attend(f, 0.1, queries, keys, values, None, np.float64)
    near = af.SquaredDistance(af.Euclidean(1))
    assert_equals_dense((mean, lse), near, 0.1, queries, keys[logits.COLUMNS :], values[logits.COLUMNS :])
