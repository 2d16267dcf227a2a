"""What every argument accepts: numbers and arrays of any type that holds them; and how short a refusal is."""

from fractions import Fraction

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow import checks

CIRCLE, LINE, P = af.Circle(), af.Euclidean(1), af.VonMises(1.0)
F = af.SquaredDistance(CIRCLE)
LAYER = af.Attention(F, 0.1)
TOKENS = np.linspace(0.1, 6.0, 6)[:, None]
START = lambda x: np.cos(x[..., 0])  # noqa: E731


@pytest.mark.parametrize(
    "read",
    [
        np.float64,
        np.float32,
        np.array,
        lambda v: np.array(v, dtype=np.float32),
        Fraction,
        lambda v: np.ma.array(v),
        sympy.Float,
    ],
    ids=["numpy", "single", "0-d", "0-d single", "fraction", "unmasked", "sympy"],
)
def test_a_lone_number_may_come_in_any_type_that_holds_one(read):
    assert af.Attention(F, read(0.5), residual=read(0.5)).time_step == 0.125
    assert af.Circle(read(2.0)).lengths == (2.0,)
    assert af.DriftDiffusion(P, read(1.0)).drift == 1.0
    assert af.Heat(CIRCLE).solve(START, read(0.5)).t.tolist() == [0.5]
    assert af.Sinkhorn(read(0.25)) == af.Sinkhorn(0.25)
    assert type(af.DensityCorrected(read(0.5)).alpha) is float


@pytest.mark.parametrize("read", [np.int8, np.uint64, np.array, sympy.Integer, lambda v: np.ma.array(v)])
def test_a_count_may_come_in_any_integer_type(read):
    assert af.Euclidean(read(2)) == af.Euclidean(2)
    assert len(P.sample(read(4), rng=read(0))) == 4
    assert af.propagate(LAYER, TOKENS, TOKENS, read(2)).layers.tolist() == [0, 1, 2]
    assert LINE.grid(read(3), [(0, 1)]).shape == (3,)


def frames():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(TOKENS), pandas.Series(TOKENS[:, 0])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "tokens, values",
    [
        (lambda: TOKENS.tolist(), lambda: TOKENS[:, 0].tolist()),
        (lambda: tuple(map(tuple, TOKENS)), lambda: TOKENS),
        (lambda: np.ma.array(TOKENS), lambda: np.ma.array(TOKENS, mask=False)),
        (lambda: TOKENS.astype(">f8"), lambda: TOKENS.astype(np.longdouble)),
        (lambda: frames()[0], lambda: frames()[1]),
        (lambda: np.asmatrix(TOKENS), lambda: np.asmatrix(TOKENS)),
    ],
    ids=["lists", "tuples", "unmasked", "formats", "pandas", "matrix"],
)
def test_arrays_may_come_from_anywhere(tokens, values):
    expected = LAYER(TOKENS, TOKENS)
    assert np.allclose(LAYER(tokens(), values()), expected, rtol=1e-13)
    assert np.array_equal(P.pdf(tokens()), P.pdf(TOKENS))


def test_memory_maps_and_single_precision_are_arrays(tmp_path):
    np.save(tmp_path / "x.npy", TOKENS.astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.allclose(LAYER(x, x), LAYER(TOKENS, TOKENS), atol=1e-6)


def test_indicators_are_features():
    inside = lambda x: x[..., 0] > 3  # noqa: E731
    assert np.allclose(LAYER(TOKENS, inside(TOKENS)), LAYER(TOKENS, inside(TOKENS).astype(float)), rtol=1e-13)
    assert af.propagate(LAYER, TOKENS, inside, 1).y.max() == 1.0
    differ = af.PseudoMetric(lambda x, y: x[..., 0] != y[..., 0], 1)
    assert np.array_equal(differ(TOKENS, TOKENS), 1 - np.eye(len(TOKENS)))


def test_a_refused_integer_of_any_length_is_abbreviated():
    with pytest.raises(ValueError, match=r"^n must be at most \d+, got 1e5000, about$"):
        P.sample(10**5000)
    with pytest.raises(ValueError, match=r"^epsilon must be finite, got int 1e400, about, beyond the range"):
        af.Attention(F, 10**400)


def test_the_dimension_of_a_message_does_not_grow_with_the_data():
    G = np.eye(256)
    G[0, 1] = 1.0
    with pytest.raises(ValueError, match="G must be symmetric positive definite") as caught:
        af.Mahalanobis(G)
    assert len(str(caught.value)) < 200
    wide = af.Box([(0, 1)] * 500)
    with pytest.raises(ValueError, match="tokens must lie in Box") as caught:
        af.Attention(af.SquaredDistance(wide), 1.0)(np.full((2, 500), 2.0))
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="log_pdf must be finite or -inf, got nan at x = ") as caught:
        checks.scalar_field(lambda x: x[..., 0] * np.nan, np.ones((1, 500)), "log_pdf")
    assert len(str(caught.value)) < 200
