"""The predicted noise of random tokens: measured over hundreds of seeds, one layer and many."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import attnflow as af

P, F = af.VonMises(1.0), af.SquaredDistance(af.Circle())
POINTS = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]


def cos(x):
    return np.cos(x[..., 0])


def p_weighted(deviation):
    """Root mean square over the circle with weight p, (points,) or over all of (seeds, points)."""
    weight = P.pdf(POINTS) / P.pdf(POINTS).sum()
    return float(np.sqrt(np.mean(np.square(deviation) @ weight)))


def measured(layer, n_tokens, depths, seeds):
    """Standard deviation over seeds of the features of N tokens, p-weighted, at each depth."""

    def features(seed):
        own, plain = (af.Attention(F, layer.epsilon, layer.normalization, a) for a in (layer.residual, 1.0))
        tokens = P.sample(n_tokens, rng=seed + 1000 * n_tokens)
        run = af.propagate(own, tokens, cos, max(depths))
        a, at_points, found = layer.residual, cos(POINTS)[:, None], []
        for depth in range(1, max(depths) + 1):  # the points follow the tokens' layers
            if a == 1 and depth not in depths:
                continue
            at_points = (1 - a) * at_points + a * plain(tokens, run.y[depth - 1], queries=POINTS)
            found += [at_points[:, 0]] if depth in depths else []
        return found

    with ThreadPoolExecutor(2) as pool:
        samples = np.array(list(pool.map(features, range(seeds))))
    # around the mean over seeds: the mean itself is off by O(1/N), which is bias, not noise
    return [p_weighted(h.std(axis=0, ddof=1)) for h in np.moveaxis(samples, 1, 0)]


@pytest.mark.parametrize(
    "normalization, n_tokens, epsilon",
    [
        ("softmax", 400, 0.08),
        pytest.param("softmax", 600, 0.05, marks=pytest.mark.slow),
        pytest.param(af.DensityCorrected(0.5), 600, 0.05, marks=pytest.mark.slow),
        pytest.param(af.Sinkhorn(tol=1e-4), 400, 0.08, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_noise_is_as_predicted_at_one_layer_and_at_twenty(normalization, n_tokens, epsilon):
    layer, depths = af.Attention(F, epsilon, normalization), (1, 20)
    for value, depth in zip(measured(layer, n_tokens, depths, 500), depths):
        predicted = p_weighted(af.predicted_noise(layer, P, cos, depth * layer.time_step, n_tokens)(POINTS).T)
        assert value == pytest.approx(predicted, rel=0.05), depth


@pytest.mark.slow
def test_full_density_correction_is_noisier_at_depth_by_higher_orders():
    # the next order in 1/N is large for alpha = 1: 15% at N = 1000, 20 layers
    layer = af.Attention(F, 0.05, af.DensityCorrected(1.0))
    one, twenty = measured(layer, 1000, (1, 20), 500)
    predicted = [p_weighted(af.predicted_noise(layer, P, cos, d * layer.time_step, 1000)(POINTS).T) for d in (1, 20)]
    assert one == pytest.approx(predicted[0], rel=0.05)
    assert twenty == pytest.approx(predicted[1], rel=0.15)


@pytest.mark.parametrize("normalization", ["softmax", pytest.param("column", marks=pytest.mark.slow)])
def test_residual_steps_are_in_the_prediction(normalization):
    layer = af.Attention(F, 0.1, normalization, residual=0.4)
    (value,) = measured(layer, 500, (5,), 300)
    predicted = p_weighted(af.predicted_noise(layer, P, cos, 5 * layer.time_step, 500)(POINTS).T)
    assert value == pytest.approx(predicted, rel=0.1)


@pytest.mark.slow
def test_noise_falls_as_the_root_of_the_number_of_tokens():
    layer, sizes = af.Attention(F, 0.1), [200, 800, 3200]
    noise = [measured(layer, n, (1,), seeds)[0] for n, seeds in zip(sizes, (400, 200, 100))]
    assert np.polyfit(np.log(sizes), np.log(noise), 1)[0] == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_one_layer_agrees_with_the_small_eps_formula(alpha):
    # |grad H|^2 / (N p) [ (4 pi s)^(-1/2) s/2 - alpha (6 pi s)^(-1/2) 2s/3 + (alpha^2/4) (8 pi s)^(-1/2) s ]
    s, x = 1e-3, np.array([[0.9]])
    bracket = (
        (4 * np.pi * s) ** -0.5 * s / 2
        - alpha * (6 * np.pi * s) ** -0.5 * 2 * s / 3
        + alpha**2 / 4 * (8 * np.pi * s) ** -0.5 * s
    )
    expected = np.sqrt(np.sin(0.9) ** 2 / (1000 * P.pdf(x)[0]) * bracket)
    layer = af.Attention(F, s, af.DensityCorrected(alpha))
    assert af.predicted_noise(layer, P, cos, layer.time_step, 1000)(x)[0, 0] == pytest.approx(expected, rel=0.01)


def test_noise_on_the_two_torus_at_one_layer():
    torus = af.Torus([2 * np.pi, 2 * np.pi])
    layer, s = af.Attention(af.SquaredDistance(torus), 0.05), 0.05
    x = np.array([[0.9, 0.3]])
    predicted = af.predicted_noise(layer, af.Uniform(torus), cos, layer.time_step, 1000)(x)[0, 0]
    # softmax, leading order in s: s |grad H|^2 / (2 N_eff), N_eff = N p (4 pi s)^(n/2)
    leading = np.sqrt(s * np.sin(0.9) ** 2 / (2 * 1000 / (4 * np.pi**2) * 4 * np.pi * s))
    assert predicted == pytest.approx(leading, rel=0.1)
