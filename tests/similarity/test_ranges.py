"""Pseudo-metrics at the ends of their ranges: small angles, long vectors, masks, constants, what f may return."""

import pickle

import numpy as np
import pytest
import sympy

import attnflow as af

X, Y = np.array([[0.5, -1.0]]), np.array([[1.5, 1.0], [0.5, -1.0]])
PLANE = af.Euclidean(2)


@pytest.mark.parametrize("angle", [1e-3, 1e-7, 3e-12, 2.0])
@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1e155, 1e-160), (1e-310, 1e308), (3e-200, 7e100)])
def test_a_cosine_knows_small_angles_and_vectors_of_any_length(angle, lengths):
    x, y = lengths[0] * np.array([[1.0, 0.0]]), lengths[1] * np.array([[np.cos(angle), np.sin(angle)]])
    assert af.Cosine()(x, y)[0, 0] == pytest.approx(2 * np.sin(angle / 2) ** 2, rel=1e-15 / angle + 1e-11)
    assert af.Cosine()(x, x)[0, 0] == af.Cosine().diagonal(y)[0] == 0


def test_the_metric_of_a_cosine_falls_with_the_length_squared():
    for length in (1.0, 1e-100, 1e150):
        metric = af.Cosine().metric(np.array([[0.0, length]]))
        np.testing.assert_allclose(metric * length * length, [[[0.5, 0.0], [0.0, 0.0]]])


def test_an_infinite_f_is_symmetric_where_it_is_so_both_ways():
    x = np.stack([np.arange(20.0), np.repeat([0.0, 1.0], 10)], axis=1)
    blocks = af.PseudoMetric(lambda x, y: np.where(x[..., 1] == y[..., 1], (x[..., 0] - y[..., 0]) ** 2, np.inf), 2)
    causal = af.PseudoMetric(lambda x, y: np.where(x[..., 0] >= y[..., 0], (x[..., 0] - y[..., 0]) ** 2, np.inf), 2)
    nothing = af.PseudoMetric(lambda x, y: np.full((x + y).shape[:-1], np.inf), 2)
    assert blocks.is_symmetric(x) and nothing.is_symmetric(x) and not causal.is_symmetric(x)
    assert max(v for name, v in blocks.defects(x).items() if name != "folding") < 1e-12  # two clusters infinitely far apart
    # no detour leads where the direct way does not
    assert causal.defects(x)["asymmetry"] == np.inf and causal.defects(x)["triangle"] == 0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("constant", [0.0, 1e6])
def test_symmetry_is_judged_by_the_spread_of_f(scale, constant):
    x = np.random.default_rng(2).normal(size=(30, 1))
    for skew in (0.0, 1e-3):
        f = af.PseudoMetric(lambda x, y: scale * ((x + y - skew * y)[..., 0] + constant), 1)
        assert f.is_symmetric(x) is (skew == 0)


@pytest.mark.parametrize(
    "f",
    [
        af.SquaredDistance(af.Torus([1.0, 2.0])), af.PowerDistance(PLANE, 1.5), af.LogDistance(PLANE), af.Cosine(),
        af.Mahalanobis(np.eye(2)), af.DotProduct([[1.0, 2.0], [0.0, 1.0]]), af.SquaredMap(np.tanh),
        af.PseudoMetric(sympy.Symbol("x0") * sympy.exp(sympy.Symbol("y1")), 2),
    ],
    ids=lambda f: type(f).__name__,
)  # fmt: skip
def test_what_was_pickled_measures_the_same(f):
    for some in (f, f.transposed()):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(some))(X, Y), some(X, Y))


@pytest.mark.parametrize(
    "value, message",
    [
        (1j, "^f.* must be .*real numbers"), ("near", "^f.* must be .*real numbers"), (None, "^f.* must be .*real numbers"),
        (np.nan, "^f must be a number or inf, got nan for query 2 and key 1"),
        (-np.inf, "^f must be a number or inf, got -inf for query 2 and key 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("use", ["call", "numba", "reference", "is_symmetric"])
def test_what_f_returns_is_read_before_it_is_used(value, message, use):
    x = np.arange(4.0)[:, None]
    f = af.PseudoMetric(lambda x, y: np.where((x[..., 0] == 2) & (y[..., 0] == 1), value, 0 * (x + y)[..., 0]), 1)
    if use == "is_symmetric":  # looks at some of the tokens in an order of its own
        message = message.partition(" for")[0]
    with pytest.raises((ValueError, TypeError), match=message):
        f(x, x) if use == "call" else f.is_symmetric(x) if use == "is_symmetric" else af.Attention(f, 1.0, backend=use)(x)


def test_messages_about_matrices_are_short_and_empty_ones_are_refused():
    W = np.random.default_rng(3).normal(size=(256, 256))
    for use in (lambda: af.DotProduct(W).metric(W[:3]), lambda: af.Mahalanobis(W)):
        with pytest.raises(ValueError, match="must be symmetric positive definite") as refused:
            use()
        assert len(str(refused.value)) < 400
    for kind, name in ((af.DotProduct, "W"), (af.Mahalanobis, "G")):
        for empty in (np.empty((0, 0)), [], np.empty((0, 3))):
            with pytest.raises(ValueError, match=f"^{name} must"):
                kind(empty)


def test_products_beyond_the_range_name_the_tokens():
    for f in (af.DotProduct(1e200 * np.eye(2)), af.Mahalanobis(1e300 * np.eye(2))):
        for engine in ("reference", "numba"):
            with pytest.raises(ValueError, match="^tokens must be smaller"):
                af.Attention(f, 0.5, backend=engine)(np.full((3, 2), 1e200))
