"""The predicted bias where queries choose their keys, against infinite-token layers summed exactly on the circle."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import beta, roots_jacobi

import attnflow as af
from attnflow.continuum import bias_extrapolated

CIRCLE, N, EVERY = af.Circle(), 1e4, 12
P = af.Density(CIRCLE, lambda x: np.cos(x[..., 0] - 0.5) / 2)
F = af.SquaredDistance(CIRCLE)
NODES = 2 * np.pi * np.arange(96) / 96
X = NODES[::EVERY][:, None]


def waves(x):
    return np.sin(x[..., 0]) + 0.5 * np.cos(2 * x[..., 0])


def p(x):
    return P.pdf(x.reshape(-1, 1)).reshape(x.shape)


def along(distance):
    """Steps along the circle, and what they change by."""
    return distance, np.ones_like(distance)


def ball_layer(power, known, steps_to=along):
    """Weights (R^2 - u^2)^power within R, known(R) times the integral of (1 - u^2 / R^2)^power p being 1: A, and R.

    `steps_to` has the steps to signed distances (96, m), and their slopes.
    """
    u, w = roots_jacobi(24, power, power)

    def weighed(R):
        steps, slopes = steps_to(R[:, None] * u)
        return steps, p(NODES[:, None] + steps) * slopes * w

    sums = lambda R: known(R) * R * weighed(R)[1].sum(axis=1) - 1  # noqa: E731
    low, high = np.full(96, 1e-3), np.full(96, 3.0)
    for _ in range(50):  # halved
        middle = (low + high) / 2
        low, high = np.where(sums(middle) < 0, middle, low), np.where(sums(middle) < 0, high, middle)
    return averages(*weighed(low)), low


def averages(steps, weights):
    """Rows of weights at the nodes plus steps, for features held by the nodes (96, 96)."""
    angle = NODES[:, None, None] + steps[..., None] - NODES
    with np.errstate(all="ignore"):
        dirichlet = np.where(abs(np.sin(angle / 2)) < 1e-13, 1.0, np.sin(48 * angle) / np.tan(angle / 2) / 96)
    return np.einsum("ij,ijk->ik", weights / weights.sum(axis=1, keepdims=True), dirichlet)


def nearest(scale, steps_to=along):
    return ball_layer(0, lambda R: 1 / (0.1 * np.sqrt(scale)), steps_to)[0]


def entmax(power, epsilon, steps_to=along):
    return ball_layer(power, lambda R: N * (R**2 / (2 * epsilon * power)) ** power, steps_to)


def measured(layer_at, layer, residual, t):
    """error / scale of runs at several scales of m2, extrapolated to scale 0."""
    exact, errors, scales = af.limit(layer, P, N).solve(waves, t, rtol=1e-10).at(X)[:, 0], [], []
    for count in (8, 16, 32):
        scales.append(t / residual / count)
        step, H = residual * (layer_at(scales[-1]) - np.eye(96)), waves(NODES[:, None])
        for _ in range(count):
            H = H + step @ H
        errors.append((H[::EVERY] - exact) / scales[-1])
    return np.linalg.solve(np.vander(scales), errors)[-1]


@pytest.mark.parametrize("residual", [1.0, 0.5])
@pytest.mark.parametrize(
    "rule, epsilon, layer_at",
    [
        (af.TopK(1000), 1e9, nearest),
        (af.Sparse(), 100.0, lambda scale: entmax(1.0, 100 * scale**1.5)[0]),
        (af.Sparse(alpha=1.5), 4.0, lambda scale: entmax(2.0, 4 * scale**1.25)[0]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_layers_of_chosen_keys_have_the_predicted_bias(rule, epsilon, layer_at, residual):
    layer = af.Attention(F, epsilon, rule, residual)
    found = af.predicted_bias(layer, P, waves, 4.0, N)(X)[:, 0]
    wanted = measured(layer_at, layer, residual, 4.0)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def loop(x):
    """A knotted way through space, its speed not constant."""
    return np.stack([1.3 * np.cos(x[..., 0]), np.sin(x[..., 0]), 0.3 * np.sin(2 * x[..., 0])], axis=-1)


def speed(x):
    return np.stack([-1.3 * np.sin(x[..., 0]), np.cos(x[..., 0]), 0.6 * np.cos(2 * x[..., 0])], axis=-1)


def along_chords(chord):
    """By Newton's method: |loop(x + s) - loop(x)| = |chord|."""
    here, steps = NODES[:, None, None], chord / np.linalg.norm(speed(NODES[:, None]), axis=-1)[:, None]
    for _ in range(8):
        there = here + steps[..., None]
        gap = loop(there) - loop(here)
        found = np.copysign(np.linalg.norm(gap, axis=-1), steps)
        slopes = found / (gap * speed(there)).sum(axis=-1)
        steps = steps - (found - chord) * slopes
    assert np.abs(found - chord).max() < 1e-8
    return steps, slopes


@pytest.mark.parametrize(
    "rule, epsilon, layer_at",
    [
        (af.TopK(1000), 1e9, lambda scale: nearest(scale, along_chords)),
        (af.Sparse(), 100.0, lambda scale: entmax(1.0, 100 * scale**1.5, along_chords)[0]),
    ],
    ids=["topk", "sparse"],
)
def test_chords_of_a_learned_map_bend_what_queries_choose(rule, epsilon, layer_at):
    layer = af.Attention(af.SquaredMap(loop), epsilon, rule)
    found = af.predicted_bias(layer, P, waves, 4.0, N)(X)[:, 0]
    wanted = measured(layer_at, layer, 1.0, 4.0)
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def gaussian(scale):
    u, w = np.polynomial.hermite_e.hermegauss(60)
    steps = np.broadcast_to(np.sqrt(0.05 * scale) * u, (96, 60))
    return averages(steps, p(NODES[:, None] + steps) * w)


def test_heads_that_choose_their_keys_mix_with_one_that_sees_all():
    heads = [af.Attention(F, 1e9, af.TopK(1000)), af.Attention(F, 0.05)]
    layer = af.MultiHead(heads, [0.25, 0.75])
    assert layer.time_step == 1.0  # of its first head
    found = af.predicted_bias(layer, P, waves, 4.0, N)(X)[:, 0]
    wanted = measured(lambda scale: nearest(scale) / 4 + gaussian(scale) * 3 / 4, layer, 1.0, 4.0)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_a_share_of_the_weights_is_met_at_every_order():
    def layer_at(scale):
        def excess(log_epsilon):
            _, R = entmax(1.0, np.exp(log_epsilon))
            u, w = roots_jacobi(24, 0, 0)
            seen = R * (p(NODES[:, None] + R[:, None] * u) @ w)
            return p(NODES) @ seen * 2 * np.pi / 96 - 0.1 * np.sqrt(scale)

        return entmax(1.0, np.exp(brentq(excess, np.log(0.1), np.log(2000.0), xtol=1e-12)))[0]

    layer = af.Attention(F, 1.0, af.Sparse(0.1))
    found = af.predicted_bias(layer, P, waves, 8.0, N)(X)[:, 0]
    wanted = measured(layer_at, layer, 1.0, 8.0)
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "rule, epsilon, wanted",
    [
        (af.Perplexity(700), 1.0, [-1.00e-4, -4.7e-5, 5.8e-5, 9.76e-4, 1.422e-3, 4.67e-4, -7.69e-4, -5.77e-4]),
        (af.TopK(1000), 0.02, [-4.10e-4, -1.30e-4, 2.50e-4, 1.42e-4, 2.3e-5, -2e-6, -2.1e-5, -3.14e-4]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_rows_at_their_own_temperature_and_cut_gaussians(rule, epsilon, wanted):
    # summed by 80 Gauss nodes in 8.5 widths, and by 24 within the ball, at four scales
    found = af.predicted_bias(af.Attention(F, epsilon, rule), P, waves, 4.0, N)(X)[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("q", [4.0, *(pytest.param(q, marks=pytest.mark.slow) for q in (1.0, 2.0))])
def test_a_power_of_the_distance_on_a_uniform_plane(q):
    # entmax of d^q: log of the eigenvalue -m2 l / 2 + (m4 / 24 - m2^2 / 8) l^2 at the Laplacian's eigenvalue -l
    torus, n, m, epsilon, t, wave = af.Torus([2 * np.pi] * 2), 2, 1.0, 1.0, 4.0, 1.0
    tokens = N / (2 * np.pi) ** 2
    R = (q * (2 * epsilon * m) ** m / (tokens * n * np.pi * beta(n / q, m + 1))) ** (1 / (n + q * m))
    m2, m4 = (R**k * beta((n + k) / q, m + 1) / beta(n / q, m + 1) for k in (2, 4))
    m2, m4 = m2 / n, 3 * m4 / (n * (n + 2))
    layer = af.Attention(af.PowerDistance(torus, q), epsilon, af.Sparse())
    x = np.array([[0.4, 1.0]])
    found = af.predicted_bias(layer, af.Uniform(torus), lambda x: np.cos(x[..., 0]), t, N)(x)[0, 0]
    wanted = t * (m4 / 24 - m2**2 / 8) * wave**2 * np.exp(-m2 * wave * t / 2) * np.cos(0.4)
    assert found == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize(
    "density, n_tokens, error, message",
    [
        (P, None, ValueError, "n_tokens must be given for the predicted bias of TopK"),
        (af.Gaussian([0.0], [[1.0]]), 100, NotImplementedError, "density must live on a bounded space .* TopK"),
    ],
)
def test_what_is_not_known_of_chosen_keys_is_refused_by_name(density, n_tokens, error, message):
    layer = af.Attention(af.SquaredDistance(density.space), 1.0, af.TopK(5))
    with pytest.raises(error, match=message):
        af.predicted_bias(layer, density, waves, 0.1, n_tokens)


def test_a_bias_whose_leading_order_is_out_of_reach_is_refused(monkeypatch):
    monkeypatch.setattr(bias_extrapolated, "_MOST_PAIRS", 0.0)  # but for the first temperatures
    layer = af.Attention(af.SquaredMap(loop), 1e9, af.TopK(1000))
    with pytest.raises(ValueError, match=r"smoother, for a predicted bias of .*topk:1000.* need more than \d+ nodes"):
        af.predicted_bias(layer, P, waves, 4.0, N)
