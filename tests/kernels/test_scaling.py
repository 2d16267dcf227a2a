"""Units of length, temperature and values do not matter: powers of two change no bit, other factors only roundings."""

import numpy as np
import pytest

import attnflow as af
from attnflow.kernels import attend, plan

PLANE, RNG = af.Euclidean(2), np.random.default_rng(0)
X, V = RNG.normal(size=(40, 2)), RNG.normal(size=(40, 3))
CASES = {  # f where lengths are s times as long, and its degree
    "squared": (lambda s: af.SquaredDistance(PLANE), 2),
    "wrapped": (lambda s: af.SquaredDistance(af.Torus([8.0 * s, 9.0 * s])), 2),
    "distance": (lambda s: af.PowerDistance(PLANE, 1.0), 1),
    "power 1.5": (lambda s: af.PowerDistance(PLANE, 1.5), 1.5),
    "mahalanobis": (lambda s: af.Mahalanobis([[2.0, 0.5], [0.5, 1.0]]), 2),
    "dot product": (lambda s: af.DotProduct([[1.0, 0.3], [-0.2, 1.0]]), 2),
    "cosine": (lambda s: af.Cosine(), 0),
    "your own": (lambda s: af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1), 2), 1),
}
TAKES = {"nufft": ["squared", "wrapped", "mahalanobis", "cosine"]}
TAKES["cells"] = [*TAKES["nufft"], "distance", "power 1.5"]


def layer(name, engine, scale=1.0, dtype="float64"):
    make, degree = CASES[name]
    return af.Attention(make(scale), 0.1 * scale**degree, backend=engine, dtype=dtype)


@pytest.mark.parametrize("engine", ["reference", "numba", "cells", "nufft"])
@pytest.mark.parametrize("name", CASES)
def test_a_power_of_two_in_the_unit_of_length_or_of_values_changes_no_bit(name, engine):
    if name not in TAKES.get(engine, CASES):
        pytest.skip("not this engine's")
    if engine == "nufft":
        pytest.importorskip("finufft")
    for dtype in ("float64", "float32"):
        expected = layer(name, engine, dtype=dtype)(X, V, X[:5] / 2)
        for k in (66, -76, 400, -400):
            got = layer(name, engine, 2.0**k, dtype)(X * 2.0**k, V * 2.0 ** (2 * k), X[:5] / 2 * 2.0**k)
            np.testing.assert_array_equal(got, expected * 2.0 ** (2 * k))


@pytest.mark.parametrize("scale", [3e17, 1e20, 7e-23])
@pytest.mark.parametrize("name", ["squared", "distance", "dot product", "your own", "wrapped"])
def test_single_precision_computes_in_any_unit_of_length(name, scale):
    expected = layer(name, "reference")(X, V)
    np.testing.assert_allclose(layer(name, "numba", scale, "float32")(X * scale, V), expected, atol=3e-5)


@pytest.mark.parametrize("engine", ["reference", "numba", "cells", "auto"])
@pytest.mark.parametrize(
    "f", [af.SquaredDistance(PLANE), af.PowerDistance(PLANE, 0.7), af.SquaredDistance(af.Torus([9.0, 9.0]))], ids=repr
)
def test_at_the_least_temperature_every_token_keeps_its_value(f, engine):
    values = np.array([0.0, 1e-300, 1.0, -2.0, 1e150, 0.0])[:, None]
    tokens = np.arange(12.0).reshape(6, 2) % 7
    for epsilon in (1e-310, 5e-324, 1e-200):
        with pytest.warns(af.checks.IsolatedTokensWarning):
            np.testing.assert_array_equal(af.Attention(f, epsilon, backend=engine)(tokens, values), values)


def test_the_least_temperature_on_a_sphere():
    angle = np.arange(5.0)
    tokens = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for dtype in ("float64", "float32"):
        run = af.Attention(af.SquaredDistance(af.Sphere(1)), 1e-310, backend="numba", dtype=dtype)
        with pytest.warns(af.checks.IsolatedTokensWarning):
            np.testing.assert_array_equal(run(tokens, angle)[:, 0], angle)


def test_a_logarithm_of_distances_has_a_unit_and_refuses_what_it_can_not_tell():
    f = af.LogDistance(PLANE)
    with pytest.raises(ValueError, match="^tokens must have squared distances within the range of float32"):
        af.Attention(f, 0.1, dtype="float32")(X * 1e20, V)
    with pytest.raises(ValueError, match="^tokens must have squared distances within the range of float64"):
        af.Attention(f, 0.1, backend="numba")(X * 1e160, V)
    with pytest.raises(ValueError, match="^epsilon must be at least 1e-31 for log"):
        af.Attention(f, 1e-40, dtype="float32")(X, V)
    # far below its unit it is the squared distance
    for s in (1e-25, 1e-120):
        expected = af.Attention(af.SquaredDistance(PLANE), 0.1)(X, V)
        np.testing.assert_allclose(af.Attention(f, 0.1 * s * s)(X * s, V), expected, atol=1e-12)


@pytest.mark.parametrize("engine", ["reference", "numba", "cells", "nufft"])
def test_every_column_of_values_has_a_unit_of_its_own(engine):
    if engine == "nufft":
        pytest.importorskip("finufft")
    f, bias = af.SquaredDistance(PLANE), np.where(np.arange(40) < 30, -500.0, 0.0)
    expected = attend(f, 0.5, X, X, V, bias, "reference").mean
    scale = np.array([1e300, 1.0, 1e-290])
    got = attend(f, 0.5, X, X, V * scale, bias, engine).mean / scale
    np.testing.assert_allclose(got, expected, atol=1e-11)
    largest = np.full((40, 1), np.finfo(float).max)
    np.testing.assert_array_equal(attend(f, 0.5, X, X, largest, None, engine).mean, largest)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", ["reference", "numba", "cells"])
def test_biases_beyond_all_bounds_take_keys_out_or_leave_only_them(engine, dtype):
    f, rest = af.SquaredDistance(PLANE), np.arange(40) >= 15
    for level in (1e300, 1e5):
        low, high = np.where(rest, 0.0, -level), np.where(rest, level, 0.0)
        expected = attend(f, 0.5, X, X[rest], V[rest], None, "reference")
        for bias in (low, high):
            mean, log_sum_exp = attend(f, 0.5, X, X, V, bias, engine, dtype, 1e-12 if dtype == "float64" else 1e-5)
            np.testing.assert_allclose(mean, expected.mean, atol=3e-5 if dtype == "float32" else 1e-11)
            np.testing.assert_allclose(log_sum_exp, expected.log_sum_exp + bias.max(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_constant_in_f_changes_nothing(dtype):
    def plus(constant, scale=1.0):
        return af.PseudoMetric(lambda x, y: scale * np.rint(64 * np.abs(x - y).sum(axis=-1)) / 64 + constant, 2)

    tokens = np.rint(64 * X) / 64  # f and f + constant are then exact
    expected = af.Attention(plus(0.0), 0.2, backend="numba", dtype=dtype)(tokens, V)
    for constant in (1e6, -(2.0**40), 3.0):
        got = af.Attention(plus(constant), 0.2, backend="numba", dtype=dtype)(tokens, V)
        np.testing.assert_array_equal(got, expected)
        got = af.Attention(plus(constant * 2.0**900, 2.0**900), 0.2 * 2.0**900, backend="numba", dtype=dtype)(tokens, V)
        np.testing.assert_array_equal(got, expected)
    mean = np.broadcast_to(V.mean(axis=0), V.shape)
    for constant in (1e300, -1e300):  # in whose last digit all of f is lost
        for engine in ("numba", "reference"):
            np.testing.assert_allclose(af.Attention(plus(constant), 1.0, backend=engine)(tokens, V), mean, atol=1e-14)


def test_a_constant_in_f_is_not_rounded_by_the_temperature():
    """With f exact, the weights of any engine are those without the constant."""
    tokens = np.rint(64 * X) / 64

    def plus(constant):
        return af.PseudoMetric(lambda x, y: np.rint(64 * ((x - y) ** 2).sum(axis=-1)) / 64 + constant, 2)

    for engine in ("reference", "numba"):
        plain, shifted = (af.Attention(plus(constant), 0.1, backend=engine) for constant in (0.0, 2.0**45))
        np.testing.assert_allclose(shifted(tokens, V), plain(tokens, V), rtol=0, atol=1e-14)
        np.testing.assert_allclose(shifted.weights(tokens), plain.weights(tokens), rtol=0, atol=1e-15)


@pytest.mark.parametrize("side, epsilon", [(1e5, 0.02), (2 * np.pi, 1e-7)])
def test_single_precision_does_not_see_the_seam_of_a_torus(side, epsilon):
    width = 3 * np.sqrt(epsilon)
    near = width * RNG.normal(size=(200, 1))
    values = RNG.normal(size=(200, 1))
    f = af.SquaredDistance(af.Torus([side]))
    expected = af.Attention(f, epsilon, backend="reference")(near, values)
    for tokens in (near, near % side, near - 0.3 * side):
        run = af.Attention(f, epsilon, dtype="float32", backend="numba")
        np.testing.assert_allclose(run(tokens, values), expected, rtol=0, atol=1e-5)
        assert run.bind(tokens).stats["engine"] == "numba"


@pytest.mark.parametrize("engine", ["reference", "numba", "cells", "nufft"])
def test_whole_turns_on_a_torus_change_nothing(engine):
    if engine == "nufft":
        pytest.importorskip("finufft")
    sides = np.array([0.75, 2.0])
    near = np.rint(2**20 * RNG.random((150, 2)) * sides) / 2**20
    turns = np.stack([RNG.integers(-(2**30), 2**30, 150), RNG.integers(-(2**28), 2**28, 150)], axis=1)
    run = af.Attention(af.SquaredDistance(af.Torus(sides)), 2e-3, backend=engine)
    values = RNG.normal(size=(150, 2))
    np.testing.assert_allclose(run(near + turns * sides, values), run(near, values), atol=1e-13)
    assert np.isfinite(run(near + 1e300, values)).all()


def test_zeros_have_no_unit_that_others_would_be_lost_in():
    f = af.PowerDistance(af.Euclidean(1), 1.0)
    for queries, keys in (([[0.5e-150]], [[0.0]]), ([[0.0]], [[0.5e-150]])):
        for dtype in ("float64", "float32"):
            lse = plan(f, 3.2e-151, np.array(queries), np.array(keys), "numba", dtype)(None).log_sum_exp
            assert lse[0] == pytest.approx(-0.78125, rel=1e-6)
