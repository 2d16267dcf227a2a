"""The predicted spectrum of random tokens: against closed forms, differences of the layer itself, and measured sets."""

import numpy as np
import pytest
from scipy.linalg import eigh

import attnflow as af
from attnflow.attention.infinite import bind_density
from attnflow.checks import AccuracyWarning

CIRCLE = af.Circle()
F = af.SquaredDistance(CIRCLE)
P = af.VonMises(1.0)
LOPSIDED = af.Density(CIRCLE, lambda x: 0.8 * np.cos(x[..., 0] - 0.4) + 0.4 * np.sin(2 * x[..., 0]))
ALL = ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn"]


def measured(layer, density, k, n_tokens, seeds):
    """The k largest eigenvalues of sets of tokens as rates, (seeds, k)."""
    rates = []
    for seed in range(seeds):
        weights = layer.weights(density.sample(n_tokens, rng=seed))
        values = eigh(np.sqrt(weights * weights.T), eigvals_only=True, subset_by_index=[n_tokens - k, n_tokens - 1])
        rates.append((values[::-1] - 1) / layer.time_step)
    return np.array(rates)


def first_order_bias(normalization, k):
    """bias / tau at eps -> 0, the second order in tau taken off."""
    coarse, fine = (
        af.predicted_rates(layer, P, k, 10**6).bias / layer.time_step
        for layer in (af.Attention(F, eps, normalization) for eps in (0.02, 0.01))
    )
    return 2 * fine - coarse


def test_bias_of_softmax_is_that_of_the_first_order_operator():
    spectrum = af.limit(af.Attention(F, 0.1), P).spectrum(5, 129)
    points = spectrum.grid.points
    p, waves = P.pdf(points), np.fft.fftfreq(129, 1 / 129)

    def laplacian(f, power=1):
        return np.fft.ifft((-(waves**2)) ** power * np.fft.fft(f)).real

    errors = []
    for rate, phi in zip(*spectrum):
        B = (laplacian(p * phi, 2) - phi * laplacian(p, 2)) / (4 * p) - laplacian(p) / p * rate * phi / 2
        errors.append(p**2 * 2 * B)
    E = spectrum.eigenfunctions @ np.transpose(errors) * spectrum.grid.weights[0]
    # this limit's eigenvalues are pairs, which E tells apart
    expected = np.array([np.linalg.eigvals(E[pair, pair]) for pair in (slice(1, 3), slice(3, 5))])
    expected = np.append(0, -np.sort(-expected, axis=1))
    assert af.predicted_rates(af.Attention(F, 0.1), P, 2, 1000).limit[1] == pytest.approx(-1.6473653985, abs=1e-9)
    np.testing.assert_allclose(first_order_bias("softmax", 5), expected, rtol=2e-3, atol=1e-9)


def test_bias_of_sinkhorn_is_that_of_an_exponential():
    rates = af.limit(af.Attention(F, 0.1, "sinkhorn"), P).spectrum(4).eigenvalues
    np.testing.assert_allclose(first_order_bias("sinkhorn", 4), rates**2 / 2, rtol=2e-3, atol=1e-9)


def test_bias_is_exact_for_uniform_tokens_on_the_two_torus():
    torus, eps = af.Torus([2 * np.pi] * 2), 0.2
    predicted = af.predicted_rates(af.Attention(af.SquaredDistance(torus), eps), af.Uniform(torus), 6, 1000)
    squares = np.array([0, 1, 1, 1, 1, 2])
    np.testing.assert_allclose(predicted.limit, -squares, atol=1e-8)
    np.testing.assert_allclose(predicted.bias, np.expm1(-eps * squares / 2) / (eps / 2) + squares, atol=1e-8)
    assert list(predicted.block) == [0, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_eigenvalues_of_the_infinite_layer_are_those_of_gaussian_tokens(normalization):
    line, s = af.Euclidean(1), 0.2
    kappa = {
        "softmax": 1 / (1 + s),
        "sinkhorn": (np.sqrt(s**2 + 4) - s) / 2,
        af.DensityCorrected(0.5): (1 / s) / (1 / s + 1 - 0.5 / (1 + s)),
    }
    if normalization not in kappa:
        pytest.skip("no drift, so no discrete spectrum of the equation")
    layer = af.Attention(af.SquaredDistance(line), s, normalization)
    with pytest.warns(AccuracyWarning, match="tokens"):
        predicted = af.predicted_rates(layer, af.Gaussian(0.0, 1.0), 4, 100)
    np.testing.assert_allclose(predicted.limit + predicted.bias, (kappa[normalization] ** np.arange(4) - 1) / 0.1, atol=1e-9)


def differences(layer, density):
    """First and half the second derivatives of the second and third eigenvalue, as one more token falls on a node.

    (nodes, 2) each, and the nodes' masses. Tokens drawn from the nodes are multinomial: Var lambda = E[first^2] / N, and its
    mean shifts by E[second] / N.
    """
    bound, grid = bind_density(layer, density, None, None, 1.3)
    mass = density.pdf(grid.points) * grid.weights

    def eigenvalues(masses):
        A = layer.bind(grid.points, np.log(masses)).attend(np.eye(len(masses))).mean
        return np.linalg.eigvalsh(np.sqrt(A * A.T))[-2:-4:-1]

    still, first, second = eigenvalues(mass), [], []
    for z in range(len(mass)):
        direction, t = (np.arange(len(mass)) == z) - mass, 0.01 * mass[z]
        ahead, behind = eigenvalues(mass + t * direction), eigenvalues(mass - t * direction)
        first.append((ahead - behind) / (2 * t))
        second.append((ahead - 2 * still + behind) / (2 * t**2))
    return np.array(first), np.array(second), mass


@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_noise_and_mean_are_derivatives_of_the_eigenvalues_in_the_masses(normalization):
    layer, n = af.Attention(F, 0.1, normalization), 10**9  # so many that eigenvalues this far apart are not mixed
    first, second, mass = differences(layer, LOPSIDED)
    predicted = af.predicted_rates(layer, LOPSIDED, 3, n)
    assert list(predicted.block) == [0, 1, 2]
    np.testing.assert_allclose(predicted.noise[1:] * layer.time_step, np.sqrt(mass @ first**2 / n), rtol=1e-3)
    np.testing.assert_allclose(predicted.mean[1:] * layer.time_step, mass @ second / n, rtol=2e-3)


@pytest.mark.filterwarnings("ignore:100 tokens are too few")  # so that they mix them
@pytest.mark.parametrize("normalization", ALL, ids=str)
def test_of_a_pair_that_tokens_mix_so_are_those_of_the_mean_of_the_two(normalization):
    layer, n = af.Attention(F, 0.1, normalization), 100
    first, second, mass = (part.mean(axis=1) if part.ndim > 1 else part for part in differences(layer, P))
    predicted = af.predicted_rates(layer, P, 3, n)
    assert list(predicted.block) == [0, 1, 1]
    np.testing.assert_allclose(predicted.block_noise[1:] * layer.time_step, np.sqrt(mass @ first**2 / n), rtol=1e-3)
    np.testing.assert_allclose(predicted.mean[1:].mean() * layer.time_step, mass @ second / n, rtol=5e-3)


@pytest.mark.parametrize("normalization, share", [("softmax", 0), ("sinkhorn", 1)])
def test_a_pair_of_the_uniform_circle_splits_as_a_gaussian_matrix(normalization, share):
    # G = lambda_k (1 - a) / (1 + share a) [[cos, sin], [sin, -cos]](2 k z), a = exp(-2 eps k^2): a Rayleigh half-split
    eps, n, k = 0.08, 500, np.array([1, 1, 2, 2])
    a = np.exp(-2 * eps * k**2)
    split = np.exp(-eps * k**2 / 2) * (1 - a) / (1 + share * a) / np.sqrt(n) / (eps / 2)
    predicted = af.predicted_rates(af.Attention(F, eps, normalization), af.Uniform(CIRCLE), 5, n)
    assert list(predicted.block) == [0, 1, 1, 2, 2]
    np.testing.assert_allclose(predicted.noise[1:], split * np.sqrt(1 - np.pi / 4), rtol=0.02)
    np.testing.assert_allclose(-np.diff(predicted.mean)[[1, 3]], (split * np.sqrt(np.pi))[[0, 2]], rtol=0.02)
    np.testing.assert_allclose(predicted.block_noise, 0, atol=1e-7)


@pytest.mark.parametrize("normalization", ["softmax", pytest.param("sinkhorn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("density", [pytest.param(P, marks=pytest.mark.slow), LOPSIDED], ids=["pairs", "apart"])
def test_measured_sets_have_the_predicted_mean_and_noise(normalization, density):
    n, k, seeds = 400, 3, 150
    layer = af.Attention(F, 0.08, normalization)
    predicted, rates = af.predicted_rates(layer, density, k, n), measured(layer, density, 3, n, seeds)[:, 1:]
    assert list(predicted.block) == ([0, 1, 1] if density is P else [0, 1, 2])
    noise, shift = predicted.noise[1:], predicted.mean[1:]
    # a standard deviation of 150 sets is good to 6 %, to 15 % at 2.6 of its own; the next order in 1/N is some 5 % here
    np.testing.assert_allclose(rates.std(axis=0, ddof=1), noise, rtol=0.2)
    # of the mean: three standard errors, and of the shift the next order in 1/N
    assert (np.abs(rates.mean(axis=0) - predicted.rates[1:]) < 3 * noise / np.sqrt(seeds) + 0.1 * np.abs(shift)).all()
    if density is P and normalization == "softmax":  # Sinkhorn's is so small that its next order counts
        np.testing.assert_allclose(rates.mean(axis=1).std(ddof=1), predicted.block_noise[1], rtol=0.2)


def test_noise_falls_as_the_root_and_the_mean_as_the_number_of_tokens():
    layer = af.Attention(F, 0.1)
    few, many = (af.predicted_rates(layer, LOPSIDED, 2, n) for n in (1000, 4000))
    assert few.noise[1] / many.noise[1] == pytest.approx(2, rel=1e-9)
    assert few.mean[1] / many.mean[1] == pytest.approx(4, rel=1e-9)


def test_residual_steps_have_the_same_rates():
    plain, residual = (af.predicted_rates(af.Attention(F, 0.1, "sinkhorn", a), P, 4, 300) for a in (1.0, 0.3))
    for name in ("limit", "bias", "mean", "noise", "block_noise", "rates"):
        np.testing.assert_allclose(getattr(residual, name), getattr(plain, name), atol=1e-12)


def test_a_cusp_has_the_eigenvalues_of_its_fourier_coefficients():
    # exp(-d / e): 1 / (1 + e^2 k^2), less than e^(-pi / e) off by the images
    predicted = af.predicted_rates(af.Attention(af.PowerDistance(CIRCLE, 1), 0.05), af.Uniform(CIRCLE), 5, 1000)
    np.testing.assert_allclose(
        1 + (predicted.limit + predicted.bias) * 0.01, 1 / (1 + 0.01 * np.array([0, 1, 1, 4, 4])), atol=1e-12
    )


def test_what_can_not_be_predicted_is_refused():
    layer = af.Attention(F, 0.1)
    for k, n, match in (
        (0, 10, "k must be at least 1"),
        (1, 0, "n_tokens must be at least 1"),
        (11, 10, "k must be at most the 10"),
    ):
        with pytest.raises(ValueError, match=match):
            af.predicted_rates(layer, P, k, n)
    with pytest.raises(TypeError, match="k must be an integer"):
        af.predicted_rates(layer, P, 2.5, 10)
    with pytest.raises(ValueError, match="k must be at most 6. at epsilon"):
        af.predicted_rates(layer, P, 1000, 2000)
    box = af.Box([[0.0, 1.0]])
    with pytest.raises(ValueError, match="without boundary for predicted rates"):
        af.predicted_rates(af.Attention(af.SquaredDistance(box), 0.01), af.Uniform(box), 2, 10)
    with pytest.raises(ValueError, match="more than 3000"):
        af.predicted_rates(af.Attention(F, 1e-6), P, 2, 10)
    with pytest.raises(ValueError, match="f must be symmetric for predicted rates"):
        af.predicted_rates(
            af.Attention(af.DotProduct(np.array([[1.0, 0.5], [0.0, 1.0]])), 0.5), af.Gaussian([0.0, 0.0], np.eye(2)), 2, 10
        )


def test_the_result_prints_rates_with_their_noise():
    assert repr(af.predicted_rates(af.Attention(F, 0.05), P, 2, 1000)).startswith("PredictedRates(0 +- 0, -1.")


def test_too_few_tokens_for_the_leading_order_are_told():
    with pytest.warns(AccuracyWarning, match="300 tokens are too few for epsilon 0.001 to predict 3 of 4 rates"):
        af.predicted_rates(af.Attention(F, 1e-3), P, 4, 300)
    with pytest.warns(AccuracyWarning), pytest.raises(ValueError, match="k must be smaller.* are the same"):
        af.predicted_rates(af.Attention(F, 1e6), P, 4, 1000)


@pytest.mark.optional
@pytest.mark.slow
def test_two_hundred_thousand_tokens_on_a_torus_have_the_predicted_rates():
    pytest.importorskip("finufft")
    torus = af.Torus([2 * np.pi] * 2)
    density = af.Density(torus, lambda x: np.cos(x[..., 0]) + 0.5 * np.cos(x[..., 1]) + 0.3 * np.sin(x[..., 0] - x[..., 1]))
    layer = af.Attention(af.SquaredDistance(torus), 0.05)
    predicted = af.predicted_rates(layer, density, 8, 200_000)
    found = layer.spectrum(density.sample(200_000, rng=0), 8).rates
    off, without = ((found - expected)[1:] / predicted.noise[1:] for expected in (predicted.rates, predicted.limit))
    assert np.abs(off).max() < 3.5 and 0.4 < np.sqrt(np.mean(off**2)) < 1.7  # seven numbers of deviation one
    assert np.sqrt(np.mean(without**2)) > 4  # the bias is seen
