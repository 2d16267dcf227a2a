"""Operator and spectrum of a layer: the dense matrix's, the limit equation's, and honest about what is not known."""

import numpy as np
import pytest

import attnflow as af
from attnflow.attention import BoundLayer
from attnflow.attention.eigenpairs import largest_symmetric

CIRCLE, PLANE, TORUS = af.Circle(), af.Euclidean(2), af.Torus([1.0, 1.0])
RULES = ["softmax", "column", "sinkhorn", af.DensityCorrected(0.5), af.DensityCorrected(1.0)]
SQUARE = af.Uniform(TORUS).sample(1200, rng=0)
CLOUD = np.random.default_rng(0).uniform(-1, 1, size=(900, 2))
LEANING = af.DotProduct([[1.0, 0.9], [-0.9, 0.8]])
TURNING = af.PseudoMetric(lambda x, y: (x[..., 0] - y[..., 0] - 0.2) ** 2 + (x[..., 1] - y[..., 1]) ** 2, 2)


def dense(layer, tokens):
    return (1 - layer.residual) * np.eye(len(tokens)) + layer.residual * layer.weights(tokens)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("residual", [1.0, 0.4])
def test_operator_and_generator_are_the_layer_and_its_transpose(rule, residual):
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05, rule, residual)
    tokens = af.VonMises(1.0).sample(150, rng=1)
    operator, A, H = layer.operator(tokens), dense(layer, tokens), np.random.default_rng(0).normal(size=(150, 3))
    np.testing.assert_allclose(operator @ H, layer(tokens, H), atol=1e-14)
    np.testing.assert_allclose(operator @ H[:, 0], A @ H[:, 0], atol=1e-13)
    np.testing.assert_allclose(operator.T @ H, A.T @ H, atol=1e-12)
    np.testing.assert_allclose(operator.H @ (H + 2j * H[::-1]), A.T @ (H + 2j * H[::-1]), atol=1e-12)
    np.testing.assert_allclose(layer.generator(tokens) @ H, (A @ H - H) / layer.time_step, atol=1e-11)


def test_many_columns_are_one_call_of_the_engine(monkeypatch):
    layer, widths, attend = af.Attention(af.SquaredDistance(TORUS), 0.01), [], BoundLayer.attend
    monkeypatch.setattr(BoundLayer, "attend", lambda *a: widths.append(a[1].shape[1]) or attend(*a))
    layer.operator(SQUARE) @ np.ones((1200, 7))
    assert widths == [7]


@pytest.mark.parametrize("f", [LEANING, TURNING], ids=["dot product", "displaced"])
@pytest.mark.parametrize("rule", ["softmax", "column", af.DensityCorrected(0.5)], ids=str)
def test_the_transpose_of_an_asymmetric_layer(f, rule):
    layer, v = af.Attention(f, 0.3, rule, 0.7), CLOUD[:200, :1]
    np.testing.assert_allclose(layer.operator(CLOUD[:200]).T @ v, dense(layer, CLOUD[:200]).T @ v, atol=1e-13)


@pytest.mark.parametrize("count", [300, 1200], ids=["dense", "iterated"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_symmetric_spectra_are_those_of_the_dense_matrix(rule, count):
    layer, tokens = af.Attention(af.SquaredDistance(TORUS), 0.01, rule, 0.6), SQUARE[:count]
    spectrum, A = layer.spectrum(tokens, 7), dense(layer, tokens)
    eigenvalues, vectors = spectrum
    expected = np.sort(np.linalg.eigvals(A).real)[::-1][:7]
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-11)
    assert (
        np.linalg.norm(vectors @ A.T - vectors * eigenvalues[:, None], axis=1) < 1e-9 * np.linalg.norm(vectors, axis=1)
    ).all()
    np.testing.assert_allclose(vectors[0], 1, atol=1e-11)
    np.testing.assert_allclose(vectors * spectrum.weight @ vectors.T, np.eye(7), atol=1e-9)
    assert eigenvalues.dtype == vectors.dtype == float and spectrum.residuals.max() < 1e-9


@pytest.mark.parametrize("count", [300, 900], ids=["dense", "iterated"])
@pytest.mark.parametrize("rule", ["softmax", "column", af.DensityCorrected(1.0)], ids=str)
def test_asymmetric_spectra_are_complex_and_conjugates_stay_together(rule, count):
    layer, tokens = af.Attention(LEANING, 0.05, rule, 0.6), CLOUD[:count]
    spectrum, A = layer.spectrum(tokens, 7), dense(layer, tokens)
    eigenvalues, vectors = spectrum
    expected = np.linalg.eigvals(A)
    expected = expected[np.lexsort((-expected.imag, -expected.real.round(11)))][:7]
    assert (expected.imag != 0).sum() >= 2
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-9)
    assert (
        np.linalg.norm(vectors @ A.T - vectors * eigenvalues[:, None], axis=1) < 1e-8 * np.linalg.norm(vectors, axis=1)
    ).all()
    np.testing.assert_allclose((np.abs(vectors) ** 2).mean(axis=1), 1)
    np.testing.assert_allclose(vectors[0], 1, atol=1e-10)
    np.testing.assert_array_equal(layer.spectrum(tokens, 7).eigenvectors, vectors)
    with pytest.raises(ValueError, match="^f must be symmetric"):
        spectrum.metastable_sets()


@pytest.mark.parametrize("rule, drift", [("softmax", 2.0), ("sinkhorn", 1.0), (af.DensityCorrected(1.0), 0.0)], ids=str)
def test_rates_approach_those_of_the_limit_equation(rule, drift):
    density, epsilon = af.VonMises(1.0), 0.02
    layer = af.Attention(af.SquaredDistance(CIRCLE), epsilon, rule)
    quantiles = np.interp((np.arange(2000) + 0.5) / 2000, *_cumulative(density))[:, None]  # no noise
    rates, expected = layer.spectrum(quantiles, 4).rates, af.DriftDiffusion(density, drift).spectrum(4)[0]
    assert abs(rates[0]) < 1e-11  # rounding of one, over the time step
    # the eigenvalue of one layer is exp(-tau l) up to tau^2: its rate is off by at most tau l / 2 and the bias of the layer
    np.testing.assert_allclose(rates[1:], expected[1:], rtol=0.06)


def _cumulative(density):
    x = np.linspace(-np.pi, np.pi, 20001)
    return np.cumsum(density.pdf(x[:, None])) * (x[1] - x[0]), x


def test_a_ring_has_the_eigenvalues_of_its_circulant():
    x = np.linspace(0, 2 * np.pi, 800, endpoint=False)[:, None]
    spectrum = af.Attention(af.SquaredDistance(CIRCLE), 0.05).spectrum(x, 5)
    np.testing.assert_allclose(spectrum.eigenvalues, np.exp(-0.025 * np.array([0, 1, 1, 4, 4])), rtol=1e-10)
    assert spectrum.gap == pytest.approx(-np.expm1(-0.025) / 0.025)


def test_eigenvectors_extend_off_the_tokens():
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05, "sinkhorn", residual=0.5)
    x = np.linspace(0, 2 * np.pi, 800, endpoint=False)[:, None]
    spectrum = layer.spectrum(x, 3)
    np.testing.assert_allclose(spectrum.at(x[::7]), spectrum.eigenvectors[:, ::7], atol=1e-8)
    q = np.linspace(0.1, 6, 40)
    wave = np.linalg.lstsq(np.concatenate([np.cos(x), np.sin(x)], 1), spectrum.eigenvectors[1], rcond=None)[0]
    np.testing.assert_allclose(spectrum.at(q[:, None])[1], wave @ [np.cos(q), np.sin(q)], atol=1e-8)
    complex_one = af.Attention(LEANING, 0.05).spectrum(CLOUD, 5)
    np.testing.assert_allclose(complex_one.at(CLOUD[:20]), complex_one.eigenvectors[:, :20], atol=1e-8)
    with pytest.raises(ValueError, match="^k must be at most 3 to extend all eigenvectors to queries: eigenvalue 3"):
        af.Attention(af.SquaredDistance(PLANE), 1e3).spectrum(CLOUD, 5).at(CLOUD)


def test_slow_sets_are_the_clusters():
    tokens = np.concatenate([CLOUD[:300], CLOUD[300:600] + [3, 0], CLOUD[600:] + [0, 3]])
    labels = af.Attention(af.SquaredDistance(PLANE), 0.1).spectrum(tokens, 6).metastable_sets()
    assert [len(set(labels[k : k + 300])) for k in (0, 300, 600)] == [1, 1, 1] and len(set(labels)) == 3
    with pytest.raises(ValueError, match="^count must be at most the 2"):
        af.Attention(af.SquaredDistance(PLANE), 0.1).spectrum(tokens, 2).metastable_sets(3)


@pytest.mark.parametrize("parts, k", [(3, 6), (6, 8), (6, 4)])
def test_sets_that_do_not_attend_to_each_other_are_counted(parts, k):
    x = np.random.default_rng(0).normal(size=600)
    apart = af.PseudoMetric(lambda x, y: np.where(x[..., 1] == y[..., 1], (x[..., 0] - y[..., 0]) ** 2, np.inf), 2)
    with pytest.warns(af.checks.IsolatedTokensWarning, match=f"eigenvalue 1 comes {min(parts, k)} times"):
        layer, tokens = af.Attention(apart, 0.3), np.column_stack([x, np.arange(600) % parts])
        spectrum = layer.spectrum(tokens, k)
    expected = np.sort(np.linalg.eigvals(layer.weights(tokens)).real)[::-1][:k]
    np.testing.assert_allclose(spectrum.eigenvalues, expected, atol=1e-10)


def test_more_copies_than_a_block_has_columns_are_found():
    top = np.repeat([1.0, 0.9, 0.8], [1, 7, 30])
    diagonal = np.concatenate([top, np.linspace(0, 0.7, 600)])
    values, vectors = largest_symmetric(lambda v: diagonal[:, None] * v, np.eye(len(diagonal))[0], 12, 1e-10)
    np.testing.assert_allclose(values, np.repeat([1.0, 0.9, 0.8], [1, 7, 4]), atol=1e-12)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(12), atol=1e-12)


def test_a_layer_of_low_rank_runs_out_of_directions_gracefully():
    layer = af.Attention(af.SquaredDistance(PLANE), 1e3)
    expected = np.sort(np.linalg.eigvals(layer.weights(CLOUD)).real)[::-1][:10]
    np.testing.assert_allclose(layer.spectrum(CLOUD, 10).eigenvalues, expected, atol=1e-11)


def test_few_calls_of_the_engine_are_enough(monkeypatch):
    calls, attend = [], BoundLayer.attend
    monkeypatch.setattr(BoundLayer, "attend", lambda *a: calls.append(1) or attend(*a))
    af.Attention(af.SquaredDistance(TORUS), 0.01).spectrum(SQUARE, 10)
    assert len(calls) <= 32  # of two columns each


def test_what_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr("attnflow.attention.eigenpairs._MOST", 20)
    with pytest.warns(af.checks.ConvergenceWarning, match="ask for fewer, or raise epsilon"):
        assert af.Attention(af.SquaredDistance(PLANE), 2e-3).spectrum(CLOUD, 12).residuals.max() > 1e-7
    ring = af.Uniform(af.Sphere(1)).sample(600, rng=0)
    with pytest.raises(RuntimeError, match="^0 of 13 eigenvalues converged"):
        af.Attention(af.DotProduct([[1, 0.01], [-0.01, 1]]), 1e-3).spectrum(ring, 12)


def test_weights_beyond_the_range_of_numbers_are_refused():
    with pytest.raises(ValueError, match="^epsilon must be larger for a spectrum on these tokens, got 0.01"):
        af.Attention(af.DotProduct(), 0.01).spectrum(10 * CLOUD, 3)


def test_float32_is_as_good_as_its_arithmetic():
    make = [af.Attention(af.SquaredDistance(TORUS), 0.01, dtype=dtype) for dtype in ("float64", "float32")]
    exact, single = (layer.spectrum(SQUARE, 5) for layer in make)
    np.testing.assert_allclose(single.eigenvalues, exact.eigenvalues, atol=1e-5)


def test_the_spectrum_says_what_it_is_of():
    spectrum = af.Attention(af.SquaredDistance(TORUS), 0.01).spectrum(SQUARE, 4)
    assert repr(spectrum) == f"LayerSpectrum(k=4 eigenvalues on 1200 tokens, gap {spectrum.gap:.4g})"
    alone = af.Attention(af.SquaredDistance(TORUS), 0.01).spectrum(SQUARE, 1)
    assert repr(alone) == "LayerSpectrum(k=1 eigenvalues on 1200 tokens)"
    with pytest.raises(ValueError, match="^k must be at least 2"):
        alone.gap


@pytest.mark.parametrize(
    "k, message", [(0, "k must be at least 1"), (1199, "k must be at most 1198"), (2.0, "k must be an int")]
)
def test_a_wrong_number_of_eigenvalues_is_refused_before_any_work(monkeypatch, k, message):
    monkeypatch.setattr(af.Attention, "bind", None)
    with pytest.raises((ValueError, TypeError), match=message):
        af.Attention(af.SquaredDistance(TORUS), 0.01).spectrum(SQUARE, k)


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"rtol": 1e-3}], ids=str)
def test_copies_are_found_at_any_accuracy(options):
    side = np.arange(9) * 2 * np.pi / 9
    lattice = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    layer = af.Attention(af.SquaredDistance(af.Torus([2 * np.pi] * 3)), 0.2, **options)
    values = layer.spectrum(lattice, 5).eigenvalues
    np.testing.assert_allclose(values, [1, *[0.90599] * 4], atol=1e-3 if "rtol" in options else 2e-5)


@pytest.mark.parametrize("k", [3, 4, 8])
def test_tokens_that_are_all_the_same_leave_nothing_but_the_mean(k):
    spectrum = af.Attention(af.SquaredDistance(PLANE), 0.1).spectrum(np.zeros((600, 2)), k)
    np.testing.assert_allclose(spectrum.eigenvalues, [1, *[0] * (k - 1)], atol=1e-12)
