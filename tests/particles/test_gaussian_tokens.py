"""The law of Gaussian tokens, layer by layer: literal numbers, quadrature nodes that move, a causal mask, what is refused."""

import numpy as np
import pytest
import sympy

import attnflow as af

MEAN, COV = np.array([0.3, -0.2]), np.array([[1.0, 0.3], [0.3, 0.5]])
TOKENS = af.GaussianTokens(MEAN, COV)
V = np.array([[0.3, -1.0], [1.0, 0.3]])
Q, K = np.array([[1.0, 0.2], [0.1, 0.8]]), np.array([[0.7, -0.3], [0.4, 1.1]])
B = np.array([[0.4, 0.2], [-0.3, 0.5]])
RECTANGULAR = af.PseudoMetric(lambda x, y: np.sum((x @ Q.T - y @ K.T) ** 2, axis=-1), 2)
PLANE, LINE = af.SquaredDistance(af.Euclidean(2)), af.SquaredDistance(af.Euclidean(1))


@pytest.mark.parametrize(
    "f, epsilon, mean, cov",
    [
        (af.DotProduct(B), 0.5, (0.3152, -0.0723), (0.8072, -0.0008, 0.1661)),
        (RECTANGULAR, 1 / 1.2, (0.3041, -0.2139), (1.1434, 0.1540, 0.4213)),
    ],
    ids=["dot product", "rectangular"],
)
def test_four_layers_with_a_turning_value_matrix(f, epsilon, mean, cov):
    run = TOKENS.evolve(af.Attention(f, epsilon, residual=0.2), 4, V)
    assert run.status == 0 and run.mean.shape == (5, 2) and run.cov.shape == (5, 2, 2)
    np.testing.assert_allclose(run.mean[-1], mean, atol=5e-5)
    np.testing.assert_allclose(run.cov[-1][[0, 0, 1], [0, 1, 1]], cov, atol=5e-5)


@pytest.mark.parametrize(
    "rule, variances",
    [
        ("softmax", (0.8264462810, 0.6576629928, 0.2056881452)),
        ("sinkhorn", (0.9048750780, 0.8102481564, 0.5306710536)),
        (af.DensityCorrected(0.5), (0.9482758621**2,)),
        ("column", (0.9909909910**2,)),
    ],
    ids=str,
)
def test_variances_on_the_line(rule, variances):
    run = af.GaussianTokens([0.7], [[1.0]]).evolve(af.Attention(LINE, 0.1, rule), 5)
    np.testing.assert_allclose(run.cov[[1, 2, 5][: len(variances)], 0, 0], variances, rtol=2e-10)
    np.testing.assert_allclose(run.mean, 0.7, rtol=1e-14)


SKEWED = af.DotProduct(B, bias=[0.2, -0.1])
HEADS = af.MultiHead(
    [
        af.Attention(SKEWED, 0.7),
        af.Attention(PLANE, 0.6, "sinkhorn"),
        af.Attention(af.Mahalanobis([[2.0, 0.4], [0.4, 1.0]]), 0.8),
    ],
    [V, ([[0.5], [0.2]], [[1.0, -0.3]]), 0.2],
    residual=0.4,
)


@pytest.mark.parametrize(
    "layer, value_matrix",
    [
        (af.Attention(SKEWED, 0.7, residual=0.5), V),
        (af.Attention(RECTANGULAR, 0.8, "column", residual=0.5), V),
        (af.Attention(RECTANGULAR, 0.8, af.DensityCorrected(0.7)), None),
        (af.Attention(PLANE, 0.5, "sinkhorn"), V),
        (af.Attention(af.DotProduct(B + B.T), 0.5, "sinkhorn"), None),
        (af.Attention(SKEWED, 0.5, af.Sinkhorn(potentials=2), residual=0.7), V),
        (HEADS, None),
    ],
    ids=["dot", "column", "alpha", "sinkhorn", "sinkhorn of dot", "two potentials", "heads"],
)
def test_nodes_that_move_with_their_masses_have_the_law(layer, value_matrix):
    nodes = af.Gaussian(MEAN, COV).grid(44)
    x, mass = nodes.points, af.Gaussian(MEAN, COV).pdf(nodes.points) * nodes.weights
    turned = np.eye(2) if value_matrix is None else value_matrix
    run = TOKENS.evolve(layer, 2, value_matrix)
    for mean, cov in zip(run.mean[1:], run.cov[1:]):
        x = x + layer.residual * (layer.bind(x, np.log(mass)).attend(x).mean - x) @ turned.T
        np.testing.assert_allclose(mass @ x, mean, atol=2e-8)
        np.testing.assert_allclose((x.T * mass) @ x - np.outer(mean, mean), cov, atol=2e-8)


def test_a_law_on_a_line_in_the_plane_stays_on_a_line():
    flat = af.GaussianTokens([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])
    for rule in ("softmax", "sinkhorn", "column"):  # on the diagonal a squared distance is twice that of a coordinate
        cov = flat.evolve(af.Attention(PLANE, 0.2, rule), 3).cov[-1]
        line = af.GaussianTokens([0.0], [[1.0]]).evolve(af.Attention(LINE, 0.1, rule), 3).cov[-1]
        np.testing.assert_allclose(cov, np.full((2, 2), line), atol=1e-14)


def test_behind_a_causal_mask_all_but_the_first_tokens_have_the_law():
    layer = af.Attention(LINE, 0.5, residual=0.5, mask="causal")
    exact = af.GaussianTokens([0.0], [[1.0]]).evolve(layer, 3).cov[:, 0, 0]
    late = []
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(2000, 1))
        late.append(af.evolve(layer, x, 3).y[:, 1000:, 0].var(axis=1))
    assert (np.abs(np.mean(late, axis=0) - exact) < 4 * np.std(late, axis=0) / np.sqrt(3) + 0.003).all()
    np.testing.assert_array_equal(
        exact, af.GaussianTokens([0.0], [[1.0]]).evolve(af.Attention(LINE, 0.5, residual=0.5), 3).cov[:, 0, 0]
    )


def test_a_law_that_grows_beyond_numbers_or_has_no_sums_says_how_far_it_came():
    run = TOKENS.evolve(af.Attention(af.DotProduct(), 0.5), 30)  # S <- S^3
    assert run.status == -1 and "fewer layers" in run.message and 4 < len(run.cov) < 30
    assert np.isfinite(run.cov).all() and f"after {len(run.cov) - 1} of 30" in run.message
    run = TOKENS.evolve(af.Attention(PLANE, 1.0, af.DensityCorrected(20.0)), 3)
    assert run.status == -1 and "no sum" in run.message and len(run.cov) == 1


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.GaussianTokens([0.0], [[-1.0]]), "cov must be symmetric positive semidefinite"),
        (lambda: af.GaussianTokens([0.0, 1.0], [[1.0]]), "cov must have shape"),
        (lambda: af.GaussianTokens(0.0, [[1.0]]), "mean must have shape"),
        (lambda: TOKENS.evolve("layer", 1), "layer must be an attnflow.Attention"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1), -1), "layers must be at least 0"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1), 1, [[1.0]]), "value_matrix must have shape"),
        (lambda: TOKENS.evolve(HEADS, 1, V), "value_matrix must be None for MultiHead"),
        (lambda: TOKENS.evolve(af.Attention(LINE, 0.1), 1), "mean must have 1 column"),
        (lambda: TOKENS.evolve(af.Attention(af.LogDistance(af.Euclidean(2)), 0.1), 1), "f must be quadratic"),
        (lambda: TOKENS.evolve(af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), 0.1), 1), "f must live on Euclidean"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1, af.TopK(3)), 1), "normalization must be softmax"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1, "none"), 1), "normalization must be softmax"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1, mask=[0, 1]), 1), "mask must be None, or causal with softmax"),
        (lambda: TOKENS.evolve(af.Attention(PLANE, 0.1, "column", mask="causal"), 1), "mask must be None, or causal with"),
        (lambda: TOKENS.evolve(af.Attention(SKEWED, 0.1, "sinkhorn"), 1), "f must be symmetric for Sinkhorn"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_f_has_to_be_quadratic_where_the_tokens_are():
    x, y = sympy.symbols("x0 y0")
    bent = af.PseudoMetric((x - y) ** 2 * (1 + sympy.exp(-((x - 60) ** 2))), 1)  # a square, but next to 60
    for mean, sd in (([60.0], 1.0), ([57.0], 3.0), ([30.0], 8.0)):
        with pytest.raises(ValueError, match="f must be quadratic"):
            af.GaussianTokens(mean, [[sd**2]]).evolve(af.Attention(bent, 0.5), 1)
    away = af.GaussianTokens([0.0], [[1.0]]).evolve(af.Attention(bent, 0.5), 1).cov[-1]
    far = af.GaussianTokens([1e5], [[1.0]]).evolve(af.Attention(af.PseudoMetric((x - y) ** 2, 1), 0.5), 1).cov[-1]
    assert away == pytest.approx(far, rel=1e-6)
