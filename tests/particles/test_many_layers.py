"""Thousands of layers by Chebyshev polynomials: exact spectra, the number of terms, honest bounds, interruption."""

import math

import numpy as np
import pytest

import attnflow as af
from attnflow import capacity
from attnflow.particles.polynomials import expand_powers, sum_powers
from attnflow.particles.spectrum import lower_end

PLANE, CIRCLE, GAUSS = af.Euclidean(2), af.Circle(), af.Gaussian([0.0], [[1.0]])
RNG = np.random.default_rng(0)
CLOUD, FEATURES = RNG.normal(size=(120, 2)), RNG.normal(size=(120, 2))


def reference_layer(f, epsilon, normalization="softmax", **options):
    return af.Attention(f, epsilon, normalization, backend="reference", **options)


def layer_by_layer(layer, tokens, values, count):
    bound, h, kept = layer.bind(tokens), values, [values]
    for k in range(1, count[-1] + 1):
        h = bound.step(h)
        if k in count:
            kept.append(h)
    return np.stack(kept)


def lowest_eigenvalue(layer, tokens):
    return np.linalg.eigvals(layer.weights(tokens)).real.min()


@pytest.mark.parametrize("lower, terms", [(0.0, 458), (-0.05, 469), (-1.0, 647)])
def test_ten_thousand_layers_take_some_five_hundred_terms(lower, terms):
    coefficients = expand_powers(np.array([10_000]), (1 - lower) / 2)[:, 0]
    left = np.cumsum(coefficients[::-1])[::-1]  # with this term and all later ones
    assert (left > 1e-10).sum() == terms


def test_coefficients_are_those_of_the_power():
    exact = [math.comb(400, 200 - k) / 4**200 * (1 + (k > 0)) for k in range(200)]
    coefficients = expand_powers(np.array([0, 200, 1000]), 0.5)
    np.testing.assert_allclose(coefficients[:90, 1], exact[:90], rtol=1e-13)
    np.testing.assert_array_equal(coefficients[:3, 0], [1.0, 0.0, 0.0])
    x = np.linspace(-1, 1, 7)
    for move in (1e-20, 0.03, 0.7, 1.0):  # 1: only even or only odd distances
        powers = np.array([1, 2, 37, 301, 3000])
        coefficients = expand_powers(powers, move)
        values = np.polynomial.chebyshev.chebval(x, coefficients)
        np.testing.assert_allclose(values, (1 - move + move * x) ** powers[:, None], atol=1e-13)
        assert (coefficients >= 0).all()


@pytest.mark.parametrize("residual", [1.0, 0.3])
@pytest.mark.parametrize("epsilon", [0.02, 6.0])  # at the second the nearest images make the spectrum negative
def test_equal_steps_on_the_circle_are_solved_by_the_fft(epsilon, residual):
    size, count = 90, np.array([0, 4000, 8000, 10_000])
    x = 2 * np.pi * np.arange(size) / size
    row = np.exp(-(np.minimum(x, 2 * np.pi - x) ** 2) / (2 * epsilon))
    eigenvalues = np.fft.fft(row / row.sum()).real
    assert (eigenvalues.min() < -1e-3) == (epsilon == 6.0)
    start = np.cos(x) + RNG.normal(size=size)
    exact = np.fft.ifft((1 - residual + residual * eigenvalues) ** count[:, None] * np.fft.fft(start)).real

    layer = reference_layer(af.SquaredDistance(CIRCLE), epsilon, residual=residual)
    run = af.propagate(layer, x[:, None], start, 10_000, save_every=4000)
    error, deviation = np.abs(run.y[..., 0] - exact).max(), np.abs(start - start.mean()).max()
    assert run.stats["method"] == "chebyshev" and run.stats["engine"] == "reference"
    assert run.stats["applications"] < 10_000 / 12
    assert run.stats["interval"][0] < eigenvalues.min()
    assert error < run.stats["error_bound"] * deviation < 1e-9
    np.testing.assert_array_equal(run.layers, count)


@pytest.mark.parametrize(
    "normalization, kappa",
    [("softmax", 1 / 1.1), ("sinkhorn", (np.sqrt(4.01) - 0.1) / 2), ("column", 10 / (11 - 1 / 1.1))],
    ids=str,
)
def test_gaussian_tokens_contract_by_a_power(normalization, kappa):
    layer = reference_layer(af.SquaredDistance(af.Euclidean(1)), 0.1, normalization, residual=0.01)
    run = af.propagate(layer, GAUSS, lambda x: x, 1500, save_every=600)
    inside = np.abs(run.y[0, :, 0]) < 2.5  # the nodes end at 9: farther out than so many layers are seen from here
    factors = (1 - 0.01 * (1 - kappa)) ** np.array([0, 600, 1200, 1500])
    assert run.stats["method"] == "chebyshev"
    np.testing.assert_allclose(run.y[:, inside], factors[:, None, None] * run.y[0, inside], atol=1e-9)


SPHERE = CLOUD[:, [0, 1, 0]] * [1, 1, 0.3] + FEATURES[:, [0, 0, 1]]
SPHERE /= np.linalg.norm(SPHERE, axis=1, keepdims=True)
QUARTIC = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(-1) ** 2, 2)


@pytest.mark.parametrize(
    "f, epsilon, normalization, residual, tokens, negative",
    [
        (af.SquaredDistance(PLANE), 0.2, "softmax", 1.0, CLOUD, False),
        (af.SquaredDistance(PLANE), 0.2, "sinkhorn", 0.5, CLOUD, False),
        (af.LogDistance(PLANE), 0.1, af.DensityCorrected(0.5), 1.0, CLOUD, False),
        (af.DotProduct(), 0.4, "column", 1.0, CLOUD, False),
        (af.DotProduct([[1.0, 0.2], [0.2, -1.0]]), 0.4, "softmax", 1.0, CLOUD, True),
        (af.SquaredDistance(af.Torus([2.0, 3.0])), 0.6, "column", 1.0, CLOUD, True),
        (af.SquaredDistance(af.Sphere(2)), 2.0, "sinkhorn", 1.0, SPHERE, True),
        (af.PowerDistance(PLANE, 4.0), 1.0, "softmax", 1.0, CLOUD, True),
        (af.PowerDistance(af.Circle(), 4.0), 1.0, "softmax", 1.0, CLOUD[:, :1], True),
        (QUARTIC, 1.0, af.DensityCorrected(1.0), 0.7, CLOUD, True),
    ],
    ids=lambda v: getattr(getattr(v, "pair", None), "transform", None),
)
def test_polynomials_equal_layer_by_layer(f, epsilon, normalization, residual, tokens, negative):
    layer = reference_layer(f, epsilon, normalization, residual=residual)
    run = af.propagate(layer, tokens, FEATURES, 640, save_every=30)
    one_by_one = layer_by_layer(layer, tokens, FEATURES, run.layers)
    error = np.abs(run.y - one_by_one).max(axis=(0, 1))
    weight = layer.bind(tokens).conserved_weight()
    mean = weight @ FEATURES
    bound = run.stats["error_bound"] * np.abs(FEATURES - mean).max(axis=0)
    lowest = lowest_eigenvalue(layer, tokens)
    assert run.stats["method"] == "chebyshev" and run.stats["applications"] < 640 / 2
    assert (lowest < -1e-4) == negative and run.stats["interval"][0] <= lowest + 1e-13
    assert (error < bound).all() and (bound < 1e-9).all() and (bound < 100 * error).all()
    np.testing.assert_allclose(weight @ run.y - mean, 0.0, atol=1e-13)


def test_infinitely_many_tokens_on_a_circle_reach_their_consensus():
    # p_a G p_a at eps = 0.2
    layer = reference_layer(af.SquaredDistance(CIRCLE), 0.2)
    run = af.propagate(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 2000, 2000)
    assert run.stats["method"] == "chebyshev" and run.stats["applications"] < 2000 / 6
    np.testing.assert_allclose(run.y[-1], 0.6740957435, atol=1e-10)


def test_applications_are_counted_and_row_sums_kept(monkeypatch):
    calls, real = [], af.attention.BoundLayer.attend

    def attend(self, values, queries=None):
        calls.append(self.log_sum_exp is not None)
        return real(self, values, queries)

    monkeypatch.setattr(af.attention.BoundLayer, "attend", attend)
    layer = af.Attention(af.SquaredDistance(PLANE), 0.2)
    run = af.propagate(layer, CLOUD, FEATURES, 10_000, save_every=10_000)
    assert run.stats["engine"] == "numba" and run.stats["isolated"] == 0
    assert run.stats["applications"] == len(calls) - 1 < 10_000 / 18  # and once for the sums alone
    assert all(calls[2:])


@pytest.mark.parametrize("calls", [1, 3, 60, 90, 10_000])
def test_an_interrupted_run_returns_the_sums_that_are_complete(calls, monkeypatch):
    layer, count, real = reference_layer(af.SquaredDistance(PLANE), 0.2), [], af.attention.BoundLayer.attend
    whole = af.propagate(layer, CLOUD, FEATURES, 400, save_every=10)

    def attend(self, values, queries=None):
        count.append(1)
        if len(count) == calls:
            raise KeyboardInterrupt
        return real(self, values, queries)

    monkeypatch.setattr(af.attention.BoundLayer, "attend", attend)
    run = af.propagate(layer, CLOUD, FEATURES, 400, save_every=10)
    assert len(run.y) == len(run.layers) == {1: 1, 3: 1, 60: len(run.y), 90: len(run.y), 10_000: 41}[calls]
    np.testing.assert_array_equal(run.y, whole.y[: len(run.y)])
    if calls < 10_000:
        assert run.status == 1 and f"interrupted after {run.layers[-1]} of 400" in run.message
    if calls in (60, 90):
        # the walk of l steps is within 60 of the origin for l up to about 60^2 / 26
        assert (calls / 2) ** 2 / 26 < run.layers[-1] < calls**2 / 26


def test_where_polynomials_fail_and_layers_would_not_end_the_start_is_what_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr("attnflow.particles.many_layers._rounding", lambda *_: 1e9)
    monkeypatch.setattr(capacity, "DAYS", 1e-8)
    layer = reference_layer(af.SquaredDistance(PLANE), 0.2)
    run = af.propagate(layer, CLOUD, FEATURES, 400, 200, store=tmp_path / "run")
    assert run.status == -1 and "after 0 of 400 layers; they are here: layers must end within" in run.message
    assert af.load(tmp_path / "run").message == run.message
    np.testing.assert_array_equal(run.y, FEATURES[None])
    with pytest.raises(ValueError, match="^layers must end within"):
        af.error_bars(layer, CLOUD, FEATURES, 400)


def test_the_far_tails_of_a_density_are_as_accurate_as_its_middle():
    # p falls by e^-42: what is nothing in the weighted norm is large there, and more terms are taken
    layer = reference_layer(af.SquaredDistance(af.Euclidean(1)), 0.1)
    waves = lambda x: np.concatenate([np.sin(x), np.full_like(x, 0.1)], axis=1)  # noqa: E731
    run = af.propagate(layer, GAUSS, waves, 400, 200)
    bound, h = layer._last[1], run.y[0]
    for _ in range(400):
        h = bound.step(h)
    assert run.stats["method"] == "chebyshev" and run.stats["growth"] > 1000
    np.testing.assert_allclose(run.y[-1, :, 0], h[:, 0], atol=min(1e-10, run.stats["error_bound"]))
    np.testing.assert_allclose(run.y[-1, :, 1], 0.1, rtol=1e-14)


def test_sloppy_engines_truncate_no_less_and_report_their_own_error():
    exact = reference_layer(af.SquaredDistance(PLANE), 0.2)
    loose = reference_layer(af.SquaredDistance(PLANE), 0.2, rtol=1e-4)
    single = af.Attention(af.SquaredDistance(PLANE), 0.2, dtype="float32")
    one_by_one = layer_by_layer(exact, CLOUD, FEATURES, [640])[-1]
    for layer, least, most in ((loose, 1e-13, 1e-10), (single, 1e-9, 1e-3)):
        run = af.propagate(layer, CLOUD, FEATURES, 640, 640)
        assert run.stats["method"] == "chebyshev"
        assert least < np.abs(run.y[-1] - one_by_one).max() < run.stats["error_bound"] < most


def test_layer_by_layer_where_polynomials_promise_nothing():
    asymmetric = reference_layer(af.DotProduct([[1.0, 0.5], [0.0, 1.0]]), 0.4)
    few = reference_layer(af.SquaredDistance(PLANE), 0.2)
    for layer, layers in ((asymmetric, 500), (few, 40), (few, 0)):
        run = af.propagate(layer, CLOUD, FEATURES, layers, save_every=20)
        assert run.stats["method"] == "iteration" and run.stats["applications"] == layers
        assert "error_bound" not in run.stats


def test_where_polynomials_grow_the_layers_are_gone_through_one_by_one():
    # p falls by e^-42 to the ends: what is nothing in the weighted norm is 1e9 there
    layer = reference_layer(af.SquaredDistance(af.Euclidean(1)), 0.1)
    run = af.propagate(layer, GAUSS, lambda x: np.sin(3 * x), 400, 400)
    assert run.stats["method"] == "iteration" and 400 < run.stats["applications"] < 440
    assert np.abs(run.y[-1]).max() < 1
    operator = np.diag([0.3, -0.2])
    far = operator + 40 * np.eye(2)[::-1]  # a spectrum far outside [-1, 1]
    sums = sum_powers(lambda v: far @ v, np.ones((2, 1)), np.array([0, 300]), 0.5, np.full(2, 1e-10), 1e5)
    assert sums.finished == 1 and sums.applications < 10


def test_a_spectrum_down_to_minus_one_is_covered():
    layer = reference_layer(af.DotProduct([[0.0, 1.0], [1.0, 0.0]]), 0.01)
    tokens, values = np.repeat(np.eye(2), 20, axis=0), FEATURES[:40]  # two groups that only see each other
    run = af.propagate(layer, tokens, values, 401, 400)
    means = values.reshape(2, 20, 2).mean(axis=1)
    assert run.stats["method"] == "chebyshev" and run.stats["interval"] == [-1.0, 1.0]
    np.testing.assert_allclose(run.y[1], np.repeat(means, 20, axis=0), atol=1e-10)
    np.testing.assert_allclose(run.y[2], np.repeat(means[::-1], 20, axis=0), atol=1e-10)


@pytest.mark.parametrize("ends", [(-0.9, 1.0), (-0.3, 1.0), (0.2, 1.0)])
def test_lanczos_ends_below_the_spectrum_but_not_far_below(ends):
    size = 4000
    for seed in range(5):
        rng = np.random.default_rng(seed)
        spectrum = np.sort(rng.uniform(0.2, 1.0, size))
        spectrum[0], spectrum[-1] = ends
        weight = np.exp(rng.normal(size=size))
        permuted = rng.permutation(spectrum)[:, None]
        lower = lower_end(lambda v, d=permuted: d * v, weight, 48)
        assert lower <= spectrum[0] < lower + 0.12 * (1 - lower)
        assert lower_end(lambda v, d=permuted: d * v, weight, 0) == -1


def test_constants_stay_and_large_offsets_cost_only_their_own_rounding():
    layer = reference_layer(af.SquaredDistance(PLANE), 0.2)
    values = np.column_stack([np.full(120, 0.1), FEATURES, FEATURES[:, 0] + 2.0**20])
    run = af.propagate(layer, CLOUD, values, 1000, 1000)
    assert run.stats["method"] == "chebyshev"
    np.testing.assert_allclose(run.y[-1, :, 0], 0.1, rtol=1e-15)
    np.testing.assert_allclose(run.y[-1, :, 3] - 2.0**20, run.y[-1, :, 1], atol=2e-9)
