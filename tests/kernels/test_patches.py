"""Near keys of many features: maps of the plane, clusters in any dimension, bounds for every row, and the plan's word."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.kernels import cells_engine, choose, plan, reference_engine
from attnflow.kernels.cells_engine import patches
from attnflow.kernels.numba_engine import TILE

A, B = np.random.default_rng(0).standard_normal((2, 2, 4))


def surface(x):
    """Ten columns."""
    return np.concatenate([x, np.tanh(x @ A), np.sin(x @ B)], axis=-1)


MAPS = {
    "surface": (af.SquaredMap(surface), 2),
    "fold": (af.SquaredMap(lambda x: np.concatenate([x[..., :1] ** 2, x[..., 1:], surface(x)[..., 2:8] ** 2], axis=-1)), 2),
    "space": (af.SquaredDistance(af.Euclidean(5)), 5),
    "root": (af.PowerDistance(af.Euclidean(4), 1.0), 4),
    "log": (af.LogDistance(af.Euclidean(4)), 4),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(MAPS)),
    size=st.integers(1, 1500),
    decade=st.floats(-4, 2),
    digits=st.floats(2, 12),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
    asking=st.sampled_from(["tokens", "near", "far"]),
    seed=st.integers(0, 2**16),
)
def test_every_row_is_within_rtol(name, size, decade, digits, spread, asking, seed):
    (f, dim), rng, epsilon, rtol = MAPS[name], np.random.default_rng(seed), 10**decade, 10**-digits
    keys, values = rng.uniform(-1, 1, (size, dim)), rng.standard_normal((size, 2)) + [0.0, 100.0]
    keys[: size // 3] *= 0.01
    queries = {"tokens": None, "near": rng.uniform(-1, 1, (90, dim)), "far": 3 * rng.uniform(-1, 1, (90, dim))}[asking]
    bias = spread * np.log(10) * rng.uniform(-1, 0, size)
    bias[rng.integers(0, size, size // 50)] = -np.inf
    run = cells_engine.plan(f, epsilon, queries, keys, np.float64, rtol)
    assert isinstance(run, patches.Patches)
    found, expected = run(values, bias), reference_engine.plan(f, epsilon, queries, keys, np.float64, 0.0)(values, bias)
    rounding = 1e-13 + 1e-15 * np.abs(expected[1])
    assert np.abs(found[0] - expected[0]).max() <= (rtol + 1e3 * rounding.max()) * np.abs(values).max()
    assert (np.abs(found[1] - expected[1]) <= rtol + 10 * rounding).all()


def test_far_tiles_are_left_out_and_a_lost_one_is_noticed(monkeypatch):
    f, rng = MAPS["surface"][0], np.random.default_rng(1)
    x = rng.uniform(-1, 1, (20 * TILE, 2))
    run = cells_engine.plan(f, 1e-3, None, x, np.float64, 1e-12)
    values = rng.standard_normal((len(x), 1))
    whole = plan(f, 1e-3, None, x, "numba")(values).mean
    starts, tiles = run.near(36.0)
    assert len(tiles) < 0.3 * (len(starts) - 1) * 20  # of all
    np.testing.assert_allclose(run(values, None)[0], whole, rtol=0, atol=1e-12)
    assert run.stats == {"dense": 0}
    near = run.near
    run.near = lambda depth: (near(depth)[0], np.zeros_like(near(depth)[1]))  # the same tile again and again
    assert np.abs(run(values, None)[0] - whole).max() > 1e-6


@pytest.mark.parametrize("size", [1, 63, 64, 257, 2500])
def test_patches_hold_every_token_once_and_lie_together(size):
    x = np.random.default_rng(2).uniform(-1, 1, (size, 3)) @ np.random.default_rng(3).standard_normal((3, 7))
    order = patches.arrange(x)
    assert sorted(order) == list(range(size))
    centres, radii = patches.balls(x[order], TILE)
    for k, (centre, radius) in enumerate(zip(centres, radii)):
        assert np.linalg.norm(x[order[k * TILE : (k + 1) * TILE]] - centre, axis=1).max() <= radius * (1 + 1e-15)
    if size == 2500:
        assert np.median(radii) < 0.7 * patches.balls(x, size)[1][0]


def test_the_plan_says_which_and_why():
    f, x = MAPS["surface"][0], np.random.default_rng(4).uniform(-1, 1, (20_000, 2))
    near, far = (choose(f, epsilon, None, x) for epsilon in (1e-4, 1.0))
    assert near.engine == "cells" and near.facts["keys within reach"] < 3000
    assert far.engine == "numba" and far.facts["keys within reach"] == 20_000
    layer = af.Attention(f, 1e-4)
    assert str(layer.plan(x)).startswith("cells")
    assert layer.bind(x).stats["engine"] == "cells"


def test_memory_grows_with_the_tokens():
    f, x = MAPS["surface"][0], np.random.default_rng(5).uniform(-1, 1, (30_000, 2))
    cells_engine.plan(f, 1e-4, None, x[:600], np.float64, 1e-12)(x[:600], None)
    tracemalloc.start()
    cells_engine.plan(f, 1e-4, None, x, np.float64, 1e-12)(x, None)
    assert tracemalloc.get_traced_memory()[1] < 60e6  # all pairs: 7.2e9
    tracemalloc.stop()
