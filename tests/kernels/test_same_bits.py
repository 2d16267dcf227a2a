"""The same call gives the same bits: cold or warm, alone or beside others, on any number of threads, after a fork."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

import attnflow as af
from attnflow.kernels import plan
from attnflow.kernels.nufft_engine import series as gauss_sums

RNG = np.random.default_rng(0)
X, V = RNG.normal(size=(400, 2)), RNG.normal(size=(400, 3))
VALUES = [V[:, :1], V[:, :2], V, None]
BIASES = [None, RNG.normal(size=400), 40 * RNG.normal(size=400)]
FLAT = af.SquaredDistance(af.Euclidean(2))
ENGINES = ["reference", "numba", "cells", pytest.param("nufft", marks=pytest.mark.optional)]


def made(engine, epsilon=0.05, f=FLAT, rtol=1e-10):
    if engine == "nufft":
        pytest.importorskip("finufft")
    return plan(f, epsilon, None, X, engine, "float64", rtol)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_no_call_depends_on_those_before_it_or_beside_it(engine):
    calls = [(values, bias) for values in VALUES for bias in BIASES]
    cold = [made(engine)(*call) for call in calls]
    run = made(engine)
    for order in (range(len(calls)), reversed(range(len(calls))), 2 * [5], 2 * [2]):
        assert all(same(run(*calls[k]), cold[k]) for k in order)
    run = made(engine)
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(lambda call: run(*call), calls), cold))


@pytest.mark.slow
def test_a_glance_at_fine_cells_finds_the_same_again_and_is_right():
    rng = np.random.default_rng(1)
    keys, values = 4 * rng.random((8000, 1)), rng.normal(size=(8000, 1))
    bias = np.where(keys[:, 0] < 0.5, -30.0, 0.0)
    run = plan(af.SquaredDistance(af.Euclidean(1)), 1e-3, None, keys, "cells", "float64", 1e-9)
    assert run.run.fine
    cold = run(values, bias)
    assert run.run.stats == {"widened": 0, "dense": 0}  # all were told how deep to look
    run(values[::-1].copy(), None)
    assert same(run(values, bias), cold)
    exact = plan(af.SquaredDistance(af.Euclidean(1)), 1e-3, None, keys, "reference")(values, bias)
    assert max(np.abs(cold.mean - exact.mean).max() / np.abs(values).max(), np.abs(cold[1] - exact[1]).max()) < 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_called_twice_or_propagated_twice_repeats_its_bits(engine):
    if engine == "nufft":
        pytest.importorskip("finufft")
    for normalization in ("softmax", af.DensityCorrected(1.0)):
        layer = af.Attention(FLAT, 0.3, normalization, backend=engine)
        once = layer(X, V)
        runs = [af.propagate(layer, X, V[:, :2], layers, layers) for layers in (3, 3, 300, 300)]
        assert runs[2].stats["method"] == "chebyshev"
        layer(X, V[:, :1])
        np.testing.assert_array_equal(layer(X, V), once)
        np.testing.assert_array_equal(runs[0].y, runs[1].y)
        np.testing.assert_array_equal(runs[2].y, runs[3].y)
        np.testing.assert_array_equal(af.propagate(layer, X, V[:, :2], 300, 300).y, runs[2].y)


@pytest.mark.optional
@pytest.mark.parametrize("parts", [1, 2])
def test_threads_change_no_bit_of_a_transform(parts, monkeypatch):
    pytest.importorskip("finufft")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    rng, before = np.random.default_rng(2), numba.get_num_threads()
    keys, values = rng.random((30_000, 2)), rng.normal(size=(30_000, 1))
    monkeypatch.setattr(gauss_sums, "ALONE", 0.0 if parts == 2 else 1e300)
    results = []
    try:
        for threads in (1, 2, 2):
            numba.set_num_threads(threads)
            run = plan(FLAT, 0.01, None, keys, "nufft", "float64", 1e-9)
            assert len(run.run._sums._forward) == parts
            results += [run(values), run(values)]
    finally:
        numba.set_num_threads(before)
    assert all(same(result, results[0]) for result in results)
    exact = plan(FLAT, 0.01, keys[:50], keys, "numba")(values)
    assert np.abs(results[0].mean[:50] - exact.mean).max() < 1e-9 * np.abs(values).max()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_and_all_around_it_can_be_pickled(engine):
    run = made(engine)
    copy = pickle.loads(pickle.dumps(run))
    assert copy.engine == engine and same(copy(V, BIASES[1]), run(V, BIASES[1]))
    layer = af.Attention(FLAT, 0.1, "sinkhorn", backend=engine)
    bound = layer.bind(X)
    for other in (pickle.loads(pickle.dumps(layer)).bind(X), pickle.loads(pickle.dumps(bound))):
        np.testing.assert_array_equal(other.step(V), bound.step(V))
        np.testing.assert_array_equal(other.conserved_weight(), bound.conserved_weight())


@pytest.mark.optional
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_is_inside_a_transform_computes_on():
    run, stop = made("nufft"), threading.Event()
    expected, inside = run(V, BIASES[1]), run.run._locks[os.getpid()]

    def busy():
        while not stop.is_set():
            run(V, BIASES[1])
            made("nufft")

    other = threading.Thread(target=busy)
    other.start()
    try:
        for _ in range(5):
            while not inside.locked():
                pass
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = 0 if same(run(V, BIASES[1]), expected) else 2
                finally:
                    os._exit(code)
            waiting = threading.Timer(20, os.kill, (child, 9))
            waiting.start()
            _, status = os.waitpid(child, 0)
            waiting.cancel()
            assert status == 0
    finally:
        stop.set()
        other.join()
