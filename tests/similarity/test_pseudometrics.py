"""Pseudo-metrics against literal numbers: values, induced metrics, moments, defects."""

import numpy as np
import pytest
import sympy
from scipy.integrate import quad

import attnflow as af

X, Y = np.array([[0.5, -1.0]]), np.array([[1.5, 1.0], [0.5, -1.0]])  # |x - y|^2 = 5, 0
SPHERE_X, SPHERE_Y = np.array([[1.0, 0.0, 0.0]]), np.array([[0.6, 0.8, 0.0], [-1.0, 0.0, 0.0]])
PLANE = af.Euclidean(2)
CLOUD = np.random.default_rng(0).normal(size=(60, 3))


@pytest.mark.parametrize(
    "f, x, y, expected",
    [
        (af.SquaredDistance(PLANE), X, Y, [5.0, 0.0]),
        (af.SquaredDistance(af.Torus([2.0, 2.0])), X, Y, [1.0, 0.0]),  # nearest image: (1, 0) apart
        (af.SquaredDistance(af.Sphere(2)), SPHERE_X, SPHERE_Y, [np.arccos(0.6) ** 2, np.pi**2]),
        (af.PowerDistance(PLANE, 3.0), X, Y, [5**1.5, 0.0]),
        (af.PowerDistance(af.Sphere(2), 1.0), SPHERE_X, SPHERE_Y, [np.arccos(0.6), np.pi]),
        (af.LogDistance(PLANE), X, Y, [np.log(6.0), 0.0]),
        (af.Mahalanobis([[2.0, 0.5], [0.5, 1.0]]), X, Y, [2 + 4 + 2 * 0.5 * 2, 0.0]),
        (af.SquaredMap(lambda x: x**3), X, Y, [(3.375 - 0.125) ** 2 + 4.0, 0.0]),
        (af.DotProduct(), X, Y, [0.25, -1.25]),
        (af.DotProduct([[0.0, 1.0], [0.0, 0.0]]), X, Y, [-0.5, 0.5]),  # x'Wy = x0 y1
        (af.Cosine(), X, Y, [1 + 0.25 / (np.sqrt(1.25) * np.sqrt(3.25)), 0.0]),
        (af.PseudoMetric(lambda x, y: np.abs(x - y).sum(-1), 2), X, Y, [3.0, 0.0]),
        (af.PseudoMetric(sympy.Symbol("x0") - 2 * sympy.Symbol("y1"), 2), X, Y, [-1.5, 2.5]),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, af.PseudoMetric) else "",
)
def test_each_formula_gives_its_literal_number(f, x, y, expected):
    np.testing.assert_allclose(f(x, y), [expected], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(f.transposed()(y, x), f(x, y).T, rtol=0, atol=0)
    np.testing.assert_allclose(f.diagonal(y), np.diag(f(y, y)), rtol=1e-15, atol=1e-15)


def test_second_moments_are_those_of_the_theory():
    e = 0.1  # eps = e / 2
    assert af.SquaredDistance(PLANE).second_moment(e / 2, 2) == pytest.approx(0.05, rel=1e-15)
    assert af.PowerDistance(PLANE, 1.5).second_moment(e / 2, 2) == pytest.approx(0.0391029172, rel=1e-9)
    assert af.PowerDistance(PLANE, 4.0).second_moment(e / 2, 2) == pytest.approx(0.0892062058, rel=1e-9)
    assert af.LogDistance(PLANE).second_moment(e / 2, 2) == pytest.approx(0.0625, rel=1e-14)
    assert af.PowerDistance(PLANE, 1.0).second_moment(e / 2, 2) == pytest.approx(3 * e**2, rel=1e-14)
    assert af.Attention(af.SquaredDistance(PLANE), 0.2, residual=0.5).time_step == pytest.approx(0.05)


@pytest.mark.parametrize(
    "f, h",
    [
        (af.PowerDistance(af.Euclidean(3), 1.5), lambda d: d**1.5),
        (af.PowerDistance(af.Euclidean(1), 4.0), lambda d: d**4),
        (af.LogDistance(af.Euclidean(2)), lambda d: np.log1p(d**2)),
        (af.SquaredDistance(af.Euclidean(2)), lambda d: d**2),
    ],
)
def test_moments_agree_with_integrals(f, h):
    eps, n = 0.04, f.dim
    mass, second, fourth = (
        quad(lambda d: d ** (n - 1 + k) * np.exp(-h(d) / (2 * eps)), 0, np.inf, epsabs=0, epsrel=1e-11)[0] for k in (0, 2, 4)
    )
    m2, m4 = f.moments(eps, n)
    assert m2 == pytest.approx(second / mass / n, rel=1e-8)
    assert m4 == pytest.approx(3 * fourth / mass / (n * (n + 2)), rel=1e-8)


def test_induced_metrics():
    x = np.array([[0.3, -0.2], [1.0, 0.5]])
    G = np.array([[2.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(af.Mahalanobis(G).metric(x), [G, G])
    phi = lambda x: np.stack([np.exp(x[..., 0]), x[..., 0] + x[..., 1] ** 3, x[..., 1]], axis=-1)  # noqa: E731
    J = np.array([[[np.exp(a), 0], [1, 3 * b**2], [0, 1]] for a, b in x])
    expected = np.swapaxes(J, 1, 2) @ J
    np.testing.assert_allclose(af.SquaredMap(phi).metric(x), expected, rtol=1e-9)
    own = af.PseudoMetric(lambda x, y: np.sum((phi(x) - phi(y)) ** 2, axis=-1), 2)
    np.testing.assert_allclose(own.metric(x), expected, rtol=1e-6)
    unit = np.array([[0.6, 0.8]])
    np.testing.assert_allclose(af.DotProduct().metric(unit), [np.eye(2) / 2])


def test_a_minimum_elsewhere_has_no_metric():
    shifted = af.PseudoMetric(lambda x, y: np.sum((x + 0.1 - y) ** 2, axis=-1), 1)
    with pytest.raises(ValueError, match="f must be smallest at y = x"):
        shifted.metric(np.array([[0.0]]))
    with pytest.raises(ValueError, match="x'Wx must be constant"):
        af.DotProduct().metric(np.array([[1.0, 0.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match="W must be symmetric positive definite"):
        af.DotProduct([[1.0, 2.0], [0.0, 1.0]]).metric(np.array([[1.0, 0.0]]))


def test_defects_see_what_is_wrong():
    tokens = af.Gaussian([0.0, 0.0], np.eye(2)).sample(60, rng=1)
    squared = af.SquaredDistance(PLANE).defects(tokens)
    assert squared.pop("folding") == pytest.approx(1.0, abs=1e-12) and max(squared.values()) < 1e-12
    assert af.PowerDistance(PLANE, 4.0).defects(tokens)["indefiniteness"] > 0.01
    skew = af.DotProduct([[1.0, 1.0], [0.0, 1.0]]).defects(tokens)
    assert skew["asymmetry"] > 0.1 and skew["negativity"] > 0.1


TURNED = np.array([[2.0, 0.5], [-0.3, 1.0]])
LINE = np.linspace(-1.0, 1.0, 41)[:, None]
ANGLES = np.linspace(0.0, 1.5 * np.pi, 60)[:, None]
SKEW = np.array([[0.0, 1.0], [-1.0, 0.0]])


@pytest.mark.parametrize(
    "f, tokens, expected",
    [
        (af.SquaredMap(lambda x: x @ TURNED.T + 3.0), CLOUD[:, :2], 1.0),
        (af.Mahalanobis(np.diag([1.0, 1e8])), CLOUD[:, :2], 1.0),
        (af.SquaredMap(lambda x: x**2), LINE + 0.05, 0.0),  # x and -x become one point: a pair of tokens does
        (af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1)), ANGLES, np.sqrt(2) / (1.5 * np.pi)),
        (af.PseudoMetric(lambda x, y: 2 - 2 * np.cos((x - y)[..., 0]), 1), ANGLES, np.sqrt(2) / (1.5 * np.pi)),
        # what x or y alone adds, or an antisymmetric part, is no fold
        (af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(-1) + 3 + np.einsum("...i,ij,...j", x - y, SKEW, x - y), 2), CLOUD[:, :2], 1.0),
        (af.SquaredDistance(af.Circle()), ANGLES, 1.0),  # along the shortest way
        (af.LogDistance(af.Euclidean(1)), 3 * LINE, np.sqrt(np.log(37)) / 6),
        (af.DotProduct(), np.concatenate([np.cos(ANGLES), np.sin(ANGLES)], axis=-1), 1.0),  # chords, through the disk
        (af.PowerDistance(PLANE, 3.0), CLOUD[:, :2], np.nan),
        (af.DotProduct(), CLOUD, np.nan),
        (af.Cosine(), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.nan),  # the line meets zero
        (af.SquaredDistance(PLANE), np.ones((5, 2)), np.nan),  # no pair
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, af.PseudoMetric) else "",
)  # fmt: skip
def test_folding_is_the_shortest_chord_over_length(f, tokens, expected):
    assert f.defects(tokens)["folding"] == pytest.approx(expected, rel=2e-3, abs=1e-12, nan_ok=True)


def test_a_residual_map_bounded_by_c_never_folds_beyond_its_bound():
    # |phi(x) - phi(y)| lies between (1 - c)|x - y| and (1 + c)|x - y|, and lengths do too
    rng, x = np.random.default_rng(0), 3 * CLOUD[:, :2]
    V, W = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(2))
    for c, folds in ((0.9, False), (12.0, True)):
        number = af.SquaredMap(lambda x: x + c * np.tanh(x @ W.T) @ V.T).defects(x)["folding"]  # noqa: B023
        assert (number < (1 - c) / (1 + c) if c < 1 else number < 0.2) == folds


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.PowerDistance(PLANE, -1.0), "q must be positive"),
        (lambda: af.SquaredDistance("circle"), "space must be an attnflow space"),
        (lambda: af.SquaredDistance(af.Chart(lambda x: np.ones((*x.shape, 1)), [(0, 1)])), "closed form.*SquaredMap"),
        (lambda: af.Mahalanobis([[1.0, 2.0], [2.0, 1.0]]), "G must be symmetric positive definite"),
        (lambda: af.PseudoMetric("x0 - y0", 1), "f must be a sympy expression or a callable"),
        (lambda: af.PseudoMetric(sympy.Symbol("z"), 1), "f must be an expression in"),
        (lambda: af.DotProduct([[1.0, 2.0]]), "W must be a square matrix"),
        (lambda: af.Cosine()([[0.0, 0.0]], [[1.0, 0.0]]), "zero vectors"),
        (lambda: af.SquaredDistance(PLANE)([[np.nan, 0.0]], X), "x must be finite"),
        (lambda: af.SquaredDistance(PLANE)(np.zeros(3), X), "x must have shape .*x\\[:, None\\]"),
        (lambda: af.PseudoMetric(lambda x, y: x - y, 1)(np.ones((2, 1)), np.ones((2, 1))), "f must return shape"),
        (lambda: af.LogDistance(PLANE).second_moment(0.3, 2), "epsilon must be below"),
        (lambda: af.SquaredMap(3), "phi must be callable"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def _lowest_eigenvalue(f, points):
    """Of exp(-f / (2 eps)) over a range of eps, in units of the largest."""
    spectra = [np.linalg.eigvalsh(np.exp(-f(points, points) / (2 * eps))) for eps in np.geomspace(0.05, 50.0, 13)]
    return min(spectrum[0] / spectrum[-1] for spectrum in spectra)


DIAMOND = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
UNIT = CLOUD / np.linalg.norm(CLOUD, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "f, points, definite",
    [
        (af.SquaredDistance(af.Euclidean(3)), CLOUD, True),
        (af.PowerDistance(af.Euclidean(3), 0.5), CLOUD, True),
        (af.LogDistance(af.Euclidean(3)), CLOUD, True),
        (af.Mahalanobis(np.diag([1.0, 3.0, 0.2])), CLOUD, True),
        (af.SquaredMap(np.tanh), CLOUD, True),
        (af.DotProduct(), CLOUD, True),
        (af.DotProduct([[1.0, 1.0], [1.0, 1.0]]), CLOUD[:, :2], True),
        (af.Cosine(), CLOUD, True),
        (af.PowerDistance(af.Sphere(2), 1.0), UNIT, True),
        (af.PowerDistance(af.Euclidean(2), 2.5), DIAMOND, False),
        (af.SquaredDistance(af.Circle()), np.linspace(0, 2 * np.pi, 20, endpoint=False)[:, None], False),
        (af.LogDistance(af.Circle()), np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None], False),
        (af.SquaredDistance(af.Sphere(1)), DIAMOND, False),
        (af.PowerDistance(af.Sphere(1), 1.5), DIAMOND, False),
        (af.DotProduct([[1.0, 0.0], [0.0, -1.0]]), CLOUD[:, :2], False),
    ],
    ids=lambda v: str(getattr(v, "pair", "")) if isinstance(v, af.PseudoMetric) else "",
)
def test_only_what_is_positive_definite_says_so(f, points, definite):
    # where nothing is promised, these points show why
    assert f.positive_definite is definite
    assert (_lowest_eigenvalue(f, points) > -1e-12) is np.bool_(definite)
