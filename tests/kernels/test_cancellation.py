"""Squared distances by matrix products: where they are used, that they lose no more than asked, and what blocks hold."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.kernels import plan
from attnflow.kernels.numba_engine import blocks, layout, tiles

RTOL = {"float64": 1e-12, "float32": 1e-5}


def by_products(run):
    """Which tiles of keys are."""
    return run.run.keys[3]


def ready(x, epsilon, dtype="float64", f=None, queries=None, rtol=None):
    return plan(f or af.SquaredDistance(af.Euclidean(x.shape[1])), epsilon, queries, x, "numba", dtype, rtol or RTOL[dtype])


def by_squares(monkeypatch_context, *arguments, **options):
    monkeypatch_context.setattr(layout, "SHARE_OF_ALL", 0.0)
    monkeypatch_context.setattr(layout, "SHARE_OF_FEW", 0.0)
    return ready(*arguments, **options)


def exact(x, queries, values, epsilon):
    """The definition by differences, in float64, and each row's log-sum-exp."""
    f = np.array([((q - x) ** 2).sum(axis=1) for q in queries]) / (-2 * epsilon)
    top = f.max(axis=1, keepdims=True)
    w = np.exp(f - top)
    return w @ values / w.sum(axis=1, keepdims=True), top[:, 0] + np.log(w.sum(axis=1))


def test_products_take_heads_at_their_own_scale_and_tokens_anywhere():
    x = np.random.default_rng(0).standard_normal((600, 16))
    assert by_products(ready(x, 1.0)).all()
    assert by_products(ready(x + 1e6, 1.0)).all()
    assert by_products(ready(x[:, :2], 1.0)).all() and ready(x[:, :2], 1.0).run.lines.reduction == 2
    assert not by_products(ready(x, 1e-4)).any()  # |x|^2 / (2 eps) = 1e5, which 1e-12 does not bear
    assert by_products(ready(x, 1e-4, rtol=1e-9)).all()
    assert not by_products(ready(x, 1.0, f=af.PowerDistance(af.Euclidean(16), 1.0))).any()  # a root of what cancels


def test_clusters_far_apart_are_centred_tile_by_tile():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4 * tiles.TILE, 16)) + 1e4 * np.repeat(np.eye(4, 16), tiles.TILE, axis=0)
    assert by_products(ready(x, 1.0)).all()
    mixed = x[rng.permutation(len(x))]
    assert not by_products(ready(mixed, 1.0)).any()
    half = np.concatenate([x[: 2 * tiles.TILE], mixed])
    assert by_products(ready(half, 1.0)).tolist() == [True] * 2 + [False] * 4
    values = rng.standard_normal((len(half), 3))
    mean, lse = ready(half, 1.0)(values)
    some = np.linspace(0, len(half) - 1, 50).astype(int)
    expected = exact(half, half[some], values, 1.0)
    np.testing.assert_allclose(mean[some], expected[0], rtol=0, atol=2e-12)
    np.testing.assert_allclose(lse[some], expected[1], rtol=0, atol=2e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    dim=st.sampled_from([1, 2, 3, 4, 12, 40]),
    size=st.integers(1, 700),
    clusters=st.integers(1, 5),
    log_size=st.floats(-3, 3),
    log_offset=st.floats(-2, 3),
    log_margin=st.floats(-1, 1),
    sorted_=st.booleans(),
    dtype=st.sampled_from(sorted(RTOL)),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.slow
def test_products_lose_no_more_than_rtol(dim, size, clusters, log_size, log_offset, log_margin, sorted_, dtype, seed):
    rng = np.random.default_rng(seed)
    where = rng.integers(0, clusters, size)
    x = rng.standard_normal((clusters, dim))[np.sort(where) if sorted_ else where]
    radius = np.square(x - x.mean(axis=0)).sum(axis=1).max()
    # about where products are accurate enough, to either side; tokens of a cluster see each other
    epsilon = max(10**log_margin * (2 + np.sqrt(dim)) * np.finfo(dtype).eps / 2 * radius / RTOL[dtype], 1e-6)
    x = 10**log_size * (x + np.sqrt(epsilon / dim) * rng.standard_normal((size, dim)))
    x, epsilon = x + 10 ** (log_size + log_offset) * rng.standard_normal(dim), epsilon * 100**log_size
    values = rng.standard_normal((size, 2))
    with pytest.MonkeyPatch.context() as context:  # what float32 rounds away of the tokens is lost to squares, too
        squares, true = by_squares(context, x, epsilon, dtype)(values), by_squares(context, x, epsilon)(values)
    sizes = np.abs(values).max(), 1.0
    for found, by_differences, expected, size in zip(ready(x, epsilon, dtype)(values), squares, true, sizes):
        allowed = RTOL[dtype] * size + np.abs(by_differences - expected).max()
        assert np.abs(found - expected).max() <= allowed


@pytest.mark.parametrize("dtype", sorted(RTOL))
@pytest.mark.parametrize("transform", ["identity", "log1p", "inner"])
@pytest.mark.parametrize("dim, columns", [(12, 1), (16, 16), (17, 5), (64, 70)])
def test_products_and_panels_of_values_are_those_of_the_definition(dim, columns, transform, dtype):
    rng = np.random.default_rng(2)
    x, values = rng.standard_normal((tiles.TILE + 5, dim)) / np.sqrt(dim), rng.standard_normal((tiles.TILE + 5, columns))
    space = af.Euclidean(dim)
    f = {"identity": af.SquaredDistance(space), "log1p": af.LogDistance(space), "inner": af.DotProduct()}[transform]
    queries, bias = rng.standard_normal((blocks.ROWS + 1, dim)) / np.sqrt(dim), rng.standard_normal(len(x))
    engine, definition = (plan(f, 0.3, queries, x, name, dtype, RTOL[dtype]) for name in ("numba", "reference"))
    assert engine.engine == "numba" and by_products(engine).all() == (transform != "inner")
    for found, expected in zip(engine(values, bias), definition(values, bias)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=3 * RTOL[dtype] / (10 if dtype == "float64" else 2))


@pytest.mark.parametrize("dtype, epsilon, rtol", [("float32", 1e6, 1e-5), ("float64", 1e13, 1e-12), ("float64", 1e4, 1e-2)])
def test_a_logarithm_of_what_products_leave_below_zero_is_that_of_zero(dtype, epsilon, rtol):
    rng = np.random.default_rng(4)  # log(1 + r) of an r that is off by more than one
    radius = np.sqrt(0.9 * layout._most(af.LogDistance(af.Euclidean(2)).pair, epsilon, 2, dtype, rtol) / 2)
    x = 0.01 * rng.standard_normal((400, 2)) + np.repeat([radius, -radius], 200)[:, None]
    run, values = ready(x, epsilon, dtype, af.LogDistance(af.Euclidean(2)), rtol=rtol), rng.standard_normal((400, 2))
    assert by_products(run).all()
    for found, expected in zip(run(values), ready(x, epsilon, "float64", af.LogDistance(af.Euclidean(2)), rtol=1e-30)(values)):
        assert np.abs(found - expected).max() <= 3 * rtol


def test_a_centre_that_is_wrong_by_a_millionth_is_noticed():
    x = np.random.default_rng(3).standard_normal((300, 16))
    run, values = ready(x, 1.0), x[:, :1]
    before = run(values).mean
    panels, centres, lengths, which = run.run.keys
    run.run.keys = panels, centres + 1e-6, lengths, which
    assert np.abs(run(values).mean - before).max() > 1e-9


# a processor with narrow vectors gives the same: numba compiles for it here, with what this one has of them
_NARROW = """
import numpy as np, attnflow as af
from attnflow.kernels import plan
from attnflow.kernels.numba_engine import blocks
assert (blocks.VECTOR_BYTES, blocks.ROWS) == (16, 6), blocks.VECTOR_BYTES
x = np.random.default_rng(0).standard_normal((270, 14))
f = af.SquaredDistance(af.Euclidean(14))
here, there = (plan(f, 2.0, None, x, name)(x).mean for name in ("numba", "reference"))
print(abs(here - there).max())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="names a processor of x86-64")
def test_narrower_vectors_make_other_blocks_and_the_same_sums():
    environment = os.environ | {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", _NARROW], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1e-14
