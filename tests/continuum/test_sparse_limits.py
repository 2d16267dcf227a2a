"""Layers that choose their keys against their limits: one layer's generator, many layers, infinitely many tokens, shares."""

import numpy as np
import pytest
from scipy.optimize import brentq

import attnflow as af

CIRCLE, TORUS = af.Circle(), af.Torus([2 * np.pi, 2 * np.pi])
F = af.SquaredDistance(CIRCLE)
P = af.Density(CIRCLE, lambda x: np.cos(x[..., 0]) / 2)
PRODUCT = af.Density(TORUS, lambda x: (np.cos(x[..., 0]) + np.cos(x[..., 1])) / 2)


def wave(x):
    return np.sin(x[..., 0]) + 0.5 * np.cos(2 * x[..., 0])


def waves(x):
    return np.sin(x[..., 0]) + np.cos(x[..., 1] - x[..., 0])


def laplacian_and_gradient(x):
    """Of `wave` or `waves` at points (M, n)."""
    a = x[:, 0]
    if x.shape[1] == 1:
        return -np.sin(a) - 2 * np.cos(2 * a), np.stack([np.cos(a) - np.sin(2 * a)], axis=1)
    both = np.sin(x[:, 1] - a)
    return -np.sin(a) - 2 * np.cos(x[:, 1] - a), np.stack([np.cos(a) + both, -both], axis=1)


def quantiles(size):
    """Tokens at the quantiles of p proportional to exp(cos(th) / 2): almost no noise."""
    fine = np.linspace(0, 2 * np.pi, 100_001)
    p = np.exp(np.cos(fine) / 2)
    cumulative = np.append(0, np.cumsum((p[1:] + p[:-1]) / 2))
    return np.interp((np.arange(size) + 0.5) / size, cumulative / cumulative[-1], fine)[:, None]


def product_quantiles(side):
    axis = quantiles(side)[:, 0]
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def slope_and_rest(change, layer, density, tokens, points):
    """Least squares of one layer's change over the limit's (m2 / 2)(Delta H + 2 grad log p . grad H), and what it leaves."""
    laplacian, gradient = laplacian_and_gradient(points)
    mobility = af.limit(layer, density, n_tokens=tokens).mobility(points)
    expected = mobility * (laplacian + 2 * (density.score(points) * gradient).sum(axis=1))
    slope = change @ expected / (expected @ expected)
    return slope, np.linalg.norm(change - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "rule, epsilon",
    [
        (af.TopK(501), 1e9),
        (af.TopK(501), 0.002),
        (af.Sparse(), 2.0),
        (af.Sparse(alpha=1.5), 0.3),
        (af.Sparse(0.02), 1.0),
        pytest.param(af.Perplexity(200), 1.0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_one_layer_over_its_limit_on_the_circle(rule, epsilon):
    tokens, layer = quantiles(20_000), af.Attention(F, epsilon, rule)
    H = wave(tokens)
    slope = slope_and_rest(layer(tokens, H)[:, 0] - H, layer, P, 20_000, tokens)[0]
    assert slope == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("rule, epsilon", [(af.TopK(121), 1e9), (af.Sparse(), 0.5)], ids=str)
def test_one_layer_over_its_limit_on_the_torus(rule, epsilon):
    tokens, layer = product_quantiles(200), af.Attention(af.SquaredDistance(TORUS), epsilon, rule)
    H = waves(tokens)
    slope = slope_and_rest(layer(tokens, H)[:, 0] - H, layer, PRODUCT, len(tokens), tokens)[0]
    assert slope == pytest.approx(1, abs=0.015)


@pytest.mark.slow
def test_sixty_layers_over_the_equation():
    tokens, layer = quantiles(20_000), af.Attention(F, 1e9, af.TopK(801))
    run = af.propagate(layer, tokens, wave, 60, save_every=60)
    equation = af.limit(layer, P, n_tokens=20_000).solve(wave, 60 * layer.time_step)
    here, there = run.y[-1][:, 0], equation.at(tokens)[:, 0]
    assert np.linalg.norm(here - there) < 0.01 * np.linalg.norm(there)


@pytest.mark.parametrize(
    "rule, epsilon, sizes",
    [
        pytest.param(af.TopK(10), 1e9, (100, 400), marks=pytest.mark.slow),
        pytest.param(af.TopK(10), 60.0, (100, 400), marks=pytest.mark.slow),
        pytest.param(af.Sparse(), 300.0, (50, 200), marks=pytest.mark.slow),
        pytest.param(af.Sparse(alpha=1.5), 300.0, (50, 200), marks=pytest.mark.slow),
        (af.Perplexity(8), 1.0, (100, 400)),
    ],
    ids=str,
)
def test_infinitely_many_tokens_approach_the_limit_with_the_square_of_their_reach(rule, epsilon, sizes):
    """Four times the tokens see a quarter of the radius; the temperature goes with its square."""
    slopes, rests = [], []
    for tokens in sizes:
        layer = af.Attention(F, epsilon / tokens**2, rule)
        run = af.propagate(layer, P, wave, 1, n_tokens=tokens)
        slope, rest = slope_and_rest((run.y[1] - run.y[0])[:, 0], layer, P, tokens, run.grid.points)
        slopes.append(slope)
        rests.append(rest)
    assert (16 * slopes[1] - slopes[0]) / 15 == pytest.approx(1, abs=1e-3)
    assert np.log2(rests[0] / rests[1]) == pytest.approx(4, abs=0.2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the quadrature:attnflow.checks.AccuracyWarning")
def test_a_share_of_infinitely_many_tokens_needs_no_number():
    rests = []
    for fraction in (0.2, 0.1):
        layer = af.Attention(F, 1.0, af.Sparse(fraction))
        run = af.propagate(layer, P, wave, 1)
        rests.append(slope_and_rest((run.y[1] - run.y[0])[:, 0], layer, P, 1000, run.grid.points)[1])
    assert rests[1] < 0.02 and rests[0] / rests[1] == pytest.approx(4, rel=0.1)


def test_the_predicted_share_of_weights():
    """Of 0.0784, whatever N, for an epsilon that grows with N."""
    layer = lambda epsilon: af.Attention(F, epsilon, af.Sparse())  # noqa: E731
    for size in (2000, 20_000):
        epsilon = brentq(lambda e: af.predicted_fraction(layer(e), P, size) - 0.0784, 1e-3, 1e3)
        assert epsilon == pytest.approx(size * 1.308299e-3, rel=1e-6)
        share = layer(epsilon).bind(quantiles(size)).stats["keys_per_query"] / size
        assert share == pytest.approx(0.0784, abs=1e-5)
        sampled = layer(epsilon).bind(P.sample(size, rng=0)).stats["keys_per_query"] / size
        assert sampled == pytest.approx(0.0784, rel=0.02)


@pytest.mark.parametrize("dim, alpha, exponent", [(1, 2.0, 2.0), (2, 2.0, 2.0), (1, 1.5, 2.0), (2, 1.5, 1.0)])
def test_the_predicted_share_is_what_a_search_finds(dim, alpha, exponent):
    """A layer at the temperature found for a share is predicted to have it, at uniform density."""
    space = af.Torus([1.0] * dim)
    tokens = af.Uniform(space).sample(3000, rng=0)
    layer = af.Attention(af.PowerDistance(space, exponent), 1.0, af.Sparse(0.05, alpha))
    epsilon = layer.bind(tokens).stats["epsilon"]
    plain = af.Attention(layer.f, epsilon, af.Sparse(alpha=alpha))
    assert af.predicted_fraction(plain, af.Uniform(space), 3000) == pytest.approx(0.05, rel=0.03)


def test_the_closed_forms_are_literal_numbers():
    """Uniform circle, N = 1000 (N p = 159.154943), k = 20: r = 0.0628318531, r^2 / 3; sparsemax at eps = 1: R = 0.2112363,
    R^2 / 5; perplexity 20: (20 / (N p))^2 / (2 pi e)."""
    uniform = af.Uniform(CIRCLE)
    for rule, epsilon, m2 in (
        (af.TopK(20), 1e9, 0.0013159473),
        (af.Sparse(), 1.0, 0.0089236819),
        (af.Sparse(alpha=1.5), 1.0, 0.0555405800),
        (af.Perplexity(20), 1.0, 0.0009245819),
    ):
        layer = af.Attention(F, epsilon, rule)
        mobility = af.limit(layer, uniform, n_tokens=1000).mobility(np.array([[0.3]]))
        np.testing.assert_allclose(2 * mobility, m2, rtol=1e-6)
    assert layer.time_step == 1.0 and af.Attention(F, 1.0, af.TopK(3), residual=0.25).time_step == 0.25


@pytest.mark.parametrize(
    "rule, exponent",
    [(af.TopK(20), -2), (af.Sparse(), -2 / 3), (af.Sparse(alpha=1.5), -2 / 5), (af.Perplexity(20), -2)],
    ids=str,
)
def test_mobility_is_a_power_of_the_density(rule, exponent):
    points = np.array([[0.0], [np.pi]])
    mobility = af.limit(af.Attention(F, 1e9, rule), P, n_tokens=1000).mobility(points)
    assert np.log(mobility[0] / mobility[1]) == pytest.approx(exponent * 1.0, rel=1e-6)


def test_limits_say_how_many_tokens_they_need():
    layer = af.Attention(F, 0.1, af.TopK(20))
    with pytest.raises(ValueError, match="n_tokens must be given for the limit of TopK"):
        af.limit(layer, P)
    with pytest.raises(ValueError, match="n_tokens must be given for TopK"):
        af.propagate(layer, P, wave, 1)
    with pytest.raises(ValueError, match="k must be below the number of tokens 20"):
        af.limit(layer, P, n_tokens=20)
    with pytest.raises(ValueError, match="n_tokens must be None"):
        af.propagate(af.Attention(F, 0.1), P, wave, 1, n_tokens=100)
    with pytest.raises(ValueError, match="n_tokens must be None when tokens are given"):
        af.propagate(layer, quantiles(50), wave, 1, n_tokens=100)
    with pytest.raises(ValueError, match="layer must have normalization Sparse"):
        af.predicted_fraction(layer, P, 100)
