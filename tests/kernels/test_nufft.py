"""Gaussian sums by non-uniform FFT against the definition: every row within rtol, or left to another engine."""

import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("finufft")

import attnflow as af
from attnflow.checks import AccuracyWarning
from attnflow.kernels import cells_engine
from attnflow.kernels import reference_engine as reference
from attnflow.kernels.costs import Request
from attnflow.kernels.nufft_engine import certified as nufft
from attnflow.kernels.nufft_engine import series as gauss_sums

pytestmark = pytest.mark.optional

PERIODS = [1.0, 2.0, 1.5]
FLAT = {dim: af.SquaredDistance(af.Euclidean(dim)) for dim in (1, 2, 3)}
WRAPPED = {dim: af.SquaredDistance(af.Torus(PERIODS[:dim])) for dim in (1, 2, 3)}


def error(plan, f, epsilon, queries, keys, values=None, bias=None):
    """Largest error of a row: of means relative to the largest value, of log-sum-exps absolute."""
    mean, log_sum_exp = plan(values, bias)
    exact = reference.plan(f, epsilon, queries, keys, np.float64, 0.0)(values, bias)
    scale = 1.0 if values is None else np.abs(values).max()
    return max(np.abs(mean - exact[0]).max(initial=0.0) / scale, np.abs(log_sum_exp - exact[1]).max())


def cloud(kind, dim, rng, period=None, count=300):
    x = rng.uniform(-1, 1, (count, dim))
    if kind == "clustered":
        x = np.sign(x) + 0.01 * rng.standard_normal((count, dim))
    if kind == "duplicated":
        x[count // 3 :] = x[rng.integers(0, count // 3, count - count // 3)]
    if kind == "far-flung":
        x[:5] *= 10.0 ** np.arange(5)[:, None] if dim == 1 else 5.0
    return x if period is None else x - period * np.round(x / period)  # as exact as they will be


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["random", "clustered", "duplicated", "far-flung"]),
    dim=st.sampled_from([1, 2, 3]),
    torus=st.booleans(),
    decade=st.floats(-8, 4),
    digits=st.integers(3, 12),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 2**16),
)
def test_every_row_is_within_rtol(kind, dim, torus, decade, digits, spread, seed):
    rng, f, epsilon, rtol = np.random.default_rng(seed), (WRAPPED if torus else FLAT)[dim], 10.0**decade, 10.0**-digits
    keys, values = cloud(kind, dim, rng, f.pair.period), rng.standard_normal((300, 3)) + [0.0, 100.0, 0.0]
    bias = spread * np.log(10) * rng.uniform(-1, 0, 300)
    bias[7] = -np.inf
    try:
        modes = nufft.modes(f, epsilon, keys, rtol)
        assume(np.prod(modes) < 2**17)
        plan = nufft.plan(f, epsilon, None, keys, np.float64, rtol)
    except ValueError as refusal:
        assert "for backend 'nufft'" in str(refusal) or "backend 'nufft' reaches" in str(refusal)
        assume(False)
    assert plan.stats["modes"] == modes
    assert error(plan, f, epsilon, None, keys, values, bias) <= rtol


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("rtol", [1e-3, 1e-9, 1e-12])
def test_tokens_that_see_each_other_need_no_other_engine(dim, rtol):
    rng = np.random.default_rng(dim)
    for f, epsilon in (FLAT[dim], 0.05), (WRAPPED[dim], 0.002):
        keys = rng.uniform(-1, 1, (800, dim))
        plan = nufft.plan(f, epsilon, None, keys, np.float64, rtol)
        assert error(plan, f, epsilon, None, keys, rng.standard_normal((800, 2))) <= rtol
        assert plan.stats["rows_by_another_engine"] == 0


@pytest.mark.parametrize(
    "f",
    [
        af.Mahalanobis([[2.0, 0.5], [0.5, 1.0]]),
        af.SquaredMap(lambda x: np.stack([x[..., 0], x[..., 1], x[..., 0] ** 2], axis=-1)),
        af.SquaredDistance(af.Box([[-1.0, 1.0], [-1.0, 1.0]])),
    ],
    ids=lambda f: type(f).__name__,
)
def test_distances_of_features_are_gaussians_too(f):
    rng = np.random.default_rng(1)
    keys, queries = rng.uniform(-1, 1, (400, 2)), rng.uniform(-1, 1, (50, 2))
    plan = nufft.plan(f, 0.1, queries, keys, np.float64, 1e-10)
    assert error(plan, f, 0.1, queries, keys, rng.standard_normal((400, 2))) <= 1e-10


@pytest.mark.parametrize("distance", [0.5, 4.0, 6.0, 8.0, 20.0, 1000.0])
def test_a_query_far_from_all_keys_is_right(distance):
    rng = np.random.default_rng(2)
    keys = rng.standard_normal((500, 2)) * 0.3
    queries = np.array([[0.1, 0.0], [1.0 + distance, 0.0], [0.0, 0.2]])
    plan = nufft.plan(FLAT[2], 0.25, queries, keys, np.float64, 1e-9)
    assert error(plan, FLAT[2], 0.25, queries, keys, rng.standard_normal((500, 1))) <= 1e-9
    assert plan.stats["rows_by_another_engine"] == (distance > 1)


def test_queries_that_leave_the_keys_are_right_all_the_way():
    rng = np.random.default_rng(3)
    keys, values = np.c_[rng.uniform(0, 1, 300), rng.uniform(0, 0.2, 300)], rng.standard_normal((300, 1))
    queries = np.c_[np.linspace(1, 2.2, 60), np.full(60, 0.1)]
    for some in queries, queries * [-1, 1] + [1, 0]:
        plan = nufft.plan(FLAT[2], 0.01, some, keys, np.float64, 1e-6)
        assert error(plan, FLAT[2], 0.01, some, keys, values) <= 1e-6
        assert 20 < plan.stats["rows_by_another_engine"] < 60


def test_many_queries_far_from_all_keys_are_right():
    rng = np.random.default_rng(3)
    keys, queries = rng.standard_normal((300, 2)), rng.uniform(50, 60, (2 * nufft.FEW, 2))
    plan = nufft.plan(FLAT[2], 1.0, queries, keys, np.float64, 1e-9)
    assert error(plan, FLAT[2], 1.0, queries, keys, rng.standard_normal((300, 1))) <= 1e-9
    assert plan.stats["rows_by_another_engine"] == len(queries)


def test_tokens_that_a_bias_drowns_are_left_to_another_engine():
    rng = np.random.default_rng(4)
    keys = rng.uniform(-1, 1, (500, 2))
    plan = nufft.plan(FLAT[2], 1e-3, None, keys, np.float64, 1e-9)
    bias = np.zeros(500)
    bias[100] = 30 * np.log(10)
    assert error(plan, FLAT[2], 1e-3, None, keys, rng.standard_normal((500, 2)), bias) <= 1e-9
    drowned = plan.stats["rows_by_another_engine"]
    assert 250 < drowned < 500
    for _ in range(2):  # the second time from what was kept
        assert error(plan, FLAT[2], 1e-3, None, keys, None, bias) <= 1e-9
    assert error(plan, FLAT[2], 1e-3, None, keys, rng.standard_normal((500, 2))) <= 1e-9
    assert plan.stats["rows_by_another_engine"] == 0
    for _ in range(2):
        with pytest.raises(ValueError, match="every key has a bias of -inf"):
            plan(None, np.full(500, -np.inf))


def test_one_plan_serves_other_values_and_biases_and_notices_a_bias_changed_in_place():
    rng = np.random.default_rng(5)
    keys, bias = rng.uniform(-1, 1, (600, 1)), rng.standard_normal(600)
    plan = nufft.plan(FLAT[1], 0.01, None, keys, np.float64, 1e-11)
    for columns in (0, 1, 2, 5):
        assert error(plan, FLAT[1], 0.01, None, keys, rng.standard_normal((600, columns + 1)), bias) <= 1e-11
        assert error(plan, FLAT[1], 0.01, None, keys, None, bias) <= 1e-11
        bias += rng.standard_normal(600)


def test_what_is_known_saves_the_denominators(monkeypatch):
    rng = np.random.default_rng(6)
    keys, values = rng.uniform(-1, 1, (600, 2)), rng.standard_normal((600, 2))
    transforms = []
    modes = gauss_sums.GaussSums.modes
    monkeypatch.setattr(gauss_sums.GaussSums, "modes", lambda self, w: transforms.append(w) or modes(self, w))
    plan = nufft.plan(FLAT[2], 0.05, None, keys, np.float64, 1e-11)
    first, _ = plan(values[:, :1], None)
    assert len(transforms) == 1  # with the column
    both, log_sum_exp = plan(values, None)
    assert len(transforms) == 3
    again, same = plan(values, None)
    assert len(transforms) == 4 and np.array_equal(same, log_sum_exp) and np.array_equal(again, both)
    np.testing.assert_allclose(both[:, :1], first, atol=1e-12)
    assert error(plan, FLAT[2], 0.05, None, keys, values) <= 1e-11


@pytest.mark.parametrize("constant", [0.0, 1 / 3, 1e-30])
def test_constant_values_stay_exactly_constant(constant):
    keys = np.random.default_rng(7).uniform(-1, 1, (400, 2))
    mean, _ = nufft.plan(FLAT[2], 0.05, None, keys, np.float64, 1e-3)(np.full((400, 1), constant), None)
    assert (mean == constant).all()


@pytest.mark.parametrize("dim, extent", [(1, 10.0), (1, 1e5), (2, 30.0), (3, 5.0)])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10, 1e-14])
def test_the_error_of_one_key_is_within_its_bound_at_every_distance(dim, extent, tol):
    rng = np.random.default_rng(8)
    for level in (1e-12, 1e-19):
        key = rng.uniform(-extent / 2, extent / 2, (dim, 1))
        way = rng.standard_normal((dim, 4000))
        points = np.clip(key + way / np.linalg.norm(way, axis=0) * rng.uniform(0, 9, 4000), -extent / 2, extent / 2)
        span = np.full(dim, extent)
        series = gauss_sums.box(1.0, -span / 2, span / 2, span, level)
        sums = gauss_sums.GaussSums(series, points, key, tol)
        modes = sums.modes(np.ones(1, dtype=complex))
        around = sums.around(modes)
        off = np.abs(sums.at_targets(modes) - np.exp(-((points - key) ** 2).sum(axis=0) / 2))
        bound = series.near(tol) * around[sums.nearest] + series.far * around.max() + series.leak
        assert (off <= bound).all()
        assert (off > bound / 1000).any()  # and not idle


def test_images_that_would_count_are_refused_with_the_bound():
    rng = np.random.default_rng(9)
    keys, values = rng.uniform(0, 1, (400, 1)), rng.standard_normal((400, 1))
    bound = r"all images.*= 3\.8e-06.*epsilon = 0.01 period\^2, at most about 0.005.*'numba'"
    with pytest.raises(ValueError, match=bound):
        nufft.plan(WRAPPED[1], 0.01, None, keys, np.float64, 1e-9)
    plan = nufft.plan(WRAPPED[1], 0.005, None, keys, np.float64, 1e-9)
    assert error(plan, WRAPPED[1], 0.005, None, keys, values) <= 1e-9
    with pytest.raises(ValueError, match="all images"):  # one short axis is enough
        nufft.plan(af.SquaredDistance(af.Torus([1.0, 0.5])), 0.005, None, rng.uniform(0, 0.5, (9, 2)), np.float64, 1e-9)


def test_a_lonely_token_opposite_to_all_others_feels_their_images_and_is_left_to_another_engine():
    keys = np.random.default_rng(9).uniform(0, 0.01, (400, 1))
    keys[7] = 0.505
    plan = nufft.plan(WRAPPED[1], 0.005, None, keys, np.float64, 1e-9)
    assert error(plan, WRAPPED[1], 0.005, None, keys, np.arange(400.0)[:, None]) <= 1e-9
    assert plan.stats["rows_by_another_engine"] == 1


def test_images_do_count_where_they_are_refused(monkeypatch):
    monkeypatch.setattr(nufft, "_images", lambda *_: 0.0)
    monkeypatch.setattr(nufft, "PROBES", 0)
    rng = np.random.default_rng(10)
    keys, values = rng.uniform(0, 1, (400, 1)), rng.standard_normal((400, 1))
    plan = nufft.plan(WRAPPED[1], 0.008, None, keys, np.float64, 1e-9)
    assert error(plan, WRAPPED[1], 0.008, None, keys, values) > 1e-9


def refused(match, f, epsilon, keys, rtol=1e-9):
    for function in (nufft.modes, lambda *a: nufft.plan(a[0], a[1], None, a[2], np.float64, a[3])):
        with pytest.raises(ValueError, match=match):
            function(f, epsilon, keys, rtol)


def test_what_fourier_series_cannot_do_is_refused_and_the_remedy_named():
    x = np.random.default_rng(11).uniform(-1, 1, (30, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for f in (af.PowerDistance(af.Euclidean(3), 1.5), af.LogDistance(af.Euclidean(3)), af.DotProduct()):
        refused("f must be a squared distance .*'numba'", f, 0.1, x)
    refused("f must be a squared distance", af.SquaredDistance(af.Sphere(2)), 0.1, unit)
    refused("at most 3 features .* got 4", af.SquaredDistance(af.Euclidean(4)), 0.1, np.c_[x, x[:, :1]])
    refused("too small for backend 'nufft'.*'cells'", FLAT[3], 1e-6, x)
    refused("too small for backend 'nufft'", FLAT[1], 1e-300, x[:, :1])
    refused("too small for backend 'nufft'", FLAT[2], 0.01, np.concatenate([x[:, :2], [[1e5, 1e5]]]))
    with pytest.raises(ValueError, match="rtol=1e-14 is below what backend 'nufft' reaches"):
        nufft.plan(FLAT[1], 0.1, None, x[:, :1], np.float64, 1e-14)


@pytest.mark.parametrize("what", ["a Gaussian too wide by a billionth", "a mode lost"])
def test_a_perturbed_transform_is_noticed_by_the_engine_itself(monkeypatch, what):
    coefficients = gauss_sums._coefficients

    def perturbed(variance, count, side):
        result = coefficients(variance * (1 + 1e-8 * what.startswith("a Gaussian")), count, side)
        result[count // 2 + 3] *= what.startswith("a Gaussian")
        return result

    monkeypatch.setattr(gauss_sums, "_coefficients", perturbed)
    keys = np.random.default_rng(12).uniform(-1, 1, (400, 2))
    plan = nufft.plan(FLAT[2], 0.05, None, keys, np.float64, 1e-10)
    with pytest.warns(AccuracyWarning, match="backend 'nufft' is off by"):
        plan(keys, None)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("normalization", ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn"], ids=str)
def test_layers_agree_with_the_reference(normalization, dtype):
    rng = np.random.default_rng(13)
    tokens, values, queries = rng.standard_normal((400, 2)), rng.standard_normal((400, 3)), rng.standard_normal((20, 2))
    exact = af.Attention(FLAT[2], 0.3, normalization, backend="reference")
    layer = af.Attention(FLAT[2], 0.3, normalization, backend="nufft", dtype=dtype)
    bound = layer.bind(tokens)
    assert bound.stats["engine"] == "nufft"
    # biases are within a few rtol, Sinkhorn's twice: each engine stops within its tolerance
    allowed = 10 * layer.rtol
    assert np.abs(bound.step(values) - exact(tokens, values)).max() <= allowed
    assert np.abs(layer(tokens, values, queries) - exact(tokens, values, queries)).max() <= allowed


def test_two_threads_and_two_callers_get_the_same_numbers(two_threads):
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(14)
    keys, values = rng.uniform(-1, 1, (2000, 2)), rng.standard_normal((2000, 4))
    numba.set_num_threads(1)
    alone, _ = nufft.plan(FLAT[2], 0.02, None, keys, np.float64, 1e-10)(values, None)
    numba.set_num_threads(2)
    plan = nufft.plan(FLAT[2], 0.02, None, keys, np.float64, 1e-10)
    with ThreadPoolExecutor(4) as pool:
        for mean, _ in pool.map(lambda k: plan(values, np.full(2000, float(k))), range(8)):
            np.testing.assert_allclose(mean, alone, atol=1e-10)


def test_rows_that_images_leave_to_another_engine_are_reckoned_with():
    torus = af.Torus([2 * np.pi, 2 * np.pi])
    f = af.SquaredDistance(torus)
    x = af.Density(torus, lambda x: 0.7 * np.cos(x[..., 0]) + 0.4 * np.sin(x[..., 1])).sample(3000, rng=0)
    shares = []
    for epsilon in (0.15, 0.148, 0.14):
        plan = nufft.plan(f, epsilon, None, x, np.float64, 1e-12)
        plan(None, None)
        shares.append(nufft._below(nufft._series_of(f, epsilon, x, 1e-12), 1e-12))
        assert shares[-1] == pytest.approx(plan.stats["rows_by_another_engine"] / len(x), abs=0.35)
    assert shares[0] > 0.5 > shares[1] > 0.1 > shares[2]  # measured .46, .22 and none
    request = Request(f, 0.15, None, x, "float64", 1e-12, 1, 1)
    assert nufft.predict(request) > shares[0] * cells_engine.predict(request)
