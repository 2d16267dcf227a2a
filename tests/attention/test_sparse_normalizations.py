"""TopK, Sparse, Perplexity and Screening as layers: what they promise of themselves, in whichever units and on any tokens."""

import pickle

import numpy as np
import pytest

import attnflow as af
from attnflow import checks
from attnflow.attention import selected

RNG = np.random.default_rng(3)
CIRCLE, P = af.Circle(), af.VonMises(1.0)
ON_CIRCLE, FLAT = af.SquaredDistance(CIRCLE), af.SquaredDistance(af.Euclidean(2))
TOKENS, PLANE = P.sample(240, rng=0), RNG.normal(size=(240, 2))
ONE_WAY = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(axis=-1) * (1.5 + np.sin(y[..., 0])), 2)
RULES = [af.TopK(9), af.Sparse(), af.Sparse(0.1), af.Sparse(0.1, alpha=1.5), af.Perplexity(12.5)]
ENGINES = ["reference", "numba", "cells"]


def perplexities(S):
    return np.exp(-(S * np.log(np.where(S > 0, S, 1))).sum(axis=1))


@pytest.mark.parametrize("target", [1.01, 30.0, 239.5])
@pytest.mark.parametrize("f", [FLAT, ONE_WAY, af.PowerDistance(af.Euclidean(2), 1.0), af.DotProduct()], ids=repr)
def test_each_row_has_the_target_perplexity(f, target):
    S = af.Attention(f, 1.0, af.Perplexity(target)).weights(PLANE)
    np.testing.assert_allclose(perplexities(S), target, rtol=1e-8)


def test_perplexity_is_kept_where_it_cannot_be_met():
    """Rows with fewer keys weigh them alike; copies beyond the target share the row."""
    apart = af.PseudoMetric(lambda x, y: np.where(np.abs(x - y)[..., 0] < 1, ((x - y) ** 2)[..., 0], np.inf), 1)
    tokens = np.concatenate([np.linspace(0, 0.9, 4), np.linspace(10, 10.9, 30)])[:, None]
    S = af.Attention(apart, 1.0, af.Perplexity(6.0)).weights(tokens)
    np.testing.assert_allclose(S[:4, :4], 0.25, atol=1e-15)
    np.testing.assert_allclose(perplexities(S[4:]), 6, rtol=1e-8)
    tokens = np.concatenate([np.zeros(10), np.linspace(1, 2, 30)])[:, None]
    S = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1.0, af.Perplexity(6.0)).weights(tokens)
    np.testing.assert_allclose(S[:10, :10], 0.1, atol=1e-15)


@pytest.mark.parametrize("alpha", [2.0, 1.5])
@pytest.mark.parametrize("size, dim, fraction", [(300, 1, 0.1), (999, 2, 0.03), (1000, 3, 0.5), (3000, 2, 0.01)])
def test_a_target_fraction_is_met(size, dim, fraction, alpha):
    tokens = RNG.normal(size=(size, dim))
    for f in (af.SquaredDistance(af.Euclidean(dim)), af.PowerDistance(af.Euclidean(dim), 1.0)):
        layer = af.Attention(f, 1e-7, af.Sparse(fraction, alpha))
        share = (layer.weights(tokens) > 0).mean()
        assert abs(share - fraction) <= (10 / size**2 if size <= 1000 else 1 / size) * (1 + 1e-9)
        plain = af.Attention(f, layer.bind(tokens).stats["epsilon"], af.Sparse(alpha=alpha))
        np.testing.assert_allclose(plain.weights(tokens), layer.weights(tokens), atol=1e-12)


@pytest.mark.parametrize("fraction", [1 / 50, 1.0])
def test_the_least_and_the_largest_fraction(fraction):
    S = af.Attention(FLAT, 1.0, af.Sparse(fraction)).weights(PLANE[:50])
    assert (S > 0).mean() == fraction


def test_a_fraction_that_equal_tokens_cannot_meet_warns():
    with pytest.warns(checks.AccuracyWarning, match="fraction = 0.5 of the weights can not be met"):
        S = af.Attention(FLAT, 1.0, af.Sparse(0.5)).weights(np.ones((20, 2)))
    np.testing.assert_allclose(S, 1 / 20, atol=1e-15)


@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("f, tokens, epsilon", [(ON_CIRCLE, TOKENS, 0.05), (FLAT, PLANE, 0.3)], ids=["circle", "plane"])
@pytest.mark.parametrize("fraction", [0.001, 0.3, 1.0])
def test_screening_keeps_the_keys_of_the_largest_column_sums(fraction, f, tokens, epsilon, engine):
    S = af.Attention(f, epsilon, "softmax", backend="reference").weights(tokens)
    kept = np.argsort(-S.sum(axis=0).round(12), kind="stable")[: max(round(fraction * len(tokens)), 1)]
    expected = np.zeros_like(S)
    expected[:, kept] = S[:, kept] / S[:, kept].sum(axis=1, keepdims=True)
    layer = af.Attention(f, epsilon, af.Screening(fraction), backend=engine)
    np.testing.assert_allclose(layer.weights(tokens), expected, atol=1e-11)
    values = np.cos(tokens)
    np.testing.assert_allclose(layer(tokens, values, tokens[:5] + 0.1).shape, (5, tokens.shape[1]))
    np.testing.assert_allclose(layer(tokens, values), expected @ values, atol=1e-11)


@pytest.mark.parametrize("engine", ["reference", "numba"])
def test_screening_of_an_asymmetric_f(engine):
    S = af.Attention(ONE_WAY, 0.3, "softmax", backend="reference").weights(PLANE)
    kept = np.argsort(-S.sum(axis=0), kind="stable")[:72]
    assert set(np.flatnonzero(af.Attention(ONE_WAY, 0.3, af.Screening(0.3), backend=engine).weights(PLANE)[0])) <= set(kept)


def test_screening_says_what_decided():
    ring = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]
    uneven = ring - 0.3 * np.sin(ring)  # almost no noise: Delta p / p decides
    for tokens, epsilon, why in ((ring, 0.1, "ties"), (uneven, 0.1, "region"), (P.sample(400, rng=1), 0.003, "random")):
        bound = af.Attention(ON_CIRCLE, epsilon, af.Screening(0.25)).bind(tokens)
        assert bound.stats["screening"] == why and bound.stats["kept"] == 100
        if why == "ties":
            assert np.isfinite(bound.key_bias[:100]).all()


def test_a_row_that_sees_fewer_keys_keeps_them_all():
    apart = af.PseudoMetric(lambda x, y: np.where(np.abs(x - y)[..., 0] < 1, ((x - y) ** 2)[..., 0], np.inf), 1)
    tokens = np.concatenate([np.linspace(0, 0.9, 4), np.linspace(10, 10.9, 30)])[:, None]
    for engine in ("reference", "numba"):
        S = af.Attention(apart, 1.0, af.TopK(7), backend=engine).weights(tokens)
        np.testing.assert_array_equal((S > 0).sum(axis=1), [4] * 4 + [7] * 30)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_units_do_not_matter(rule, engine):
    """Powers of two change no bit, up to the range of numbers."""
    plain = af.Attention(FLAT, 0.3, rule, backend=engine).weights(PLANE)
    for power in (-400, 400):
        scaled = af.Attention(FLAT, 0.3 * 4.0**power, rule, backend=engine).weights(PLANE * 2.0**power)
        np.testing.assert_allclose(
            scaled, plain, rtol=0, atol=1e-11 if isinstance(rule, af.Perplexity) or rule in RULES[2:4] else 0
        )


@pytest.mark.parametrize("rule", [af.TopK(239), af.Sparse(), af.Sparse(alpha=1.001), af.Sparse(alpha=50.0)], ids=str)
@pytest.mark.parametrize("epsilon", [1e-8, 1e-2, 1e4, 1e250])
def test_all_temperatures_and_powers(rule, epsilon):
    """From the nearest key alone to a plain average; alpha near 1 is softmax."""
    S, exact = (af.Attention(FLAT, epsilon, rule, backend=engine).weights(PLANE[:, :2]) for engine in ("numba", "reference"))
    np.testing.assert_allclose(S, exact, atol=1e-7 if "50" in str(rule) else 1e-11)
    np.testing.assert_allclose(S.sum(axis=1), 1, atol=1e-13)
    if epsilon == 1e-8:
        np.testing.assert_allclose(np.diagonal(S), 1, atol=1e-12)
    if "1.001" in str(rule):
        np.testing.assert_allclose(S, af.Attention(FLAT, epsilon).weights(PLANE), atol=3e-3)


def test_a_power_below_one_has_the_weight_that_the_others_leave():
    """alpha = 50, two keys apart by g: the second has 1 - ((T - f) / (2 eps m))^m of the first, at a T no number is fine for."""
    tokens, m = np.array([[0.0], [0.1]]), 1 / 49
    S = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.5, af.Sparse(alpha=50.0)).weights(tokens)
    first = (0.01 / m) ** m
    np.testing.assert_allclose(S, [[first, 1 - first], [1 - first, first]], atol=1e-12)


def test_heavy_tails_and_few_tokens():
    tokens = np.sign(RNG.normal(size=(60, 1))) * RNG.pareto(0.1, size=(60, 1))
    for rule in (af.Sparse(), af.Sparse(alpha=1.5), af.Sparse(alpha=1.001), af.Perplexity(4.0), af.TopK(3)):
        for engine in ENGINES:
            S = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1e-3, rule, backend=engine).weights(tokens)
            exact = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1e-3, rule, backend="reference").weights(tokens)
            np.testing.assert_allclose(S, exact, atol=1e-11)
    for few in (1, 2, 3):
        layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.3, af.Sparse())
        np.testing.assert_allclose(layer.weights(tokens[:few]), np.eye(few) if few == 1 else layer.weights(tokens[:few]))
    assert af.Attention(FLAT, 0.3, af.TopK(1)).weights(PLANE).trace() == len(PLANE)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_constant_in_f_changes_nothing(rule):
    plain = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(axis=-1), 2)
    moved = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(axis=-1) - 1000, 2)
    S, other = (af.Attention(f, 0.3, rule).weights(PLANE) for f in (plain, moved))
    np.testing.assert_allclose(S, other, atol=1e-8)


@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
@pytest.mark.parametrize("rule", [*RULES, af.Screening(0.3)], ids=str)
def test_layers_that_choose_go_wherever_layers_go(rule, tmp_path):
    layer, half = (af.Attention(FLAT, 0.3, rule, residual=a) for a in (1.0, 0.5))
    S, H = layer.weights(PLANE), np.cos(PLANE)
    run = af.propagate(half, PLANE, H, 3)
    assert run.t[-1] == pytest.approx(3 * half.clock)
    np.testing.assert_allclose(run.y[3], np.linalg.matrix_power((np.eye(len(S)) + S) / 2, 3) @ H, atol=1e-12)
    run.save(tmp_path / "run")
    assert af.load(tmp_path / "run").stats == run.stats
    np.testing.assert_allclose(layer.generator(PLANE) @ H, (S @ H - H) / layer.clock, atol=1e-12)
    np.testing.assert_allclose(af.evolve(half, PLANE, 1).y[1], (PLANE + S @ PLANE) / 2, atol=1e-12)
    flow = af.evolve_continuous(layer, PLANE, 1e-3, rtol=1e-10)
    np.testing.assert_allclose((flow.y[-1] - PLANE) / 1e-3, S @ PLANE - PLANE, atol=0.02)
    eigenvalues, rows = layer.spectrum(PLANE, 4)
    np.testing.assert_allclose(rows @ S.T, eigenvalues[:, None] * rows, atol=1e-9)
    for copy in (pickle.loads(pickle.dumps(layer)), af.Attention(FLAT, 0.3, rule, dtype="float32")):
        np.testing.assert_allclose(copy(PLANE, H), S @ H, atol=1e-12 if copy.dtype == "float64" else 1e-4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer.bind(PLANE))).step(H), layer(PLANE, H))
    np.testing.assert_allclose(layer(PLANE.astype(np.float32), H), S @ H, atol=0.02)
    if rule.selects:
        with pytest.raises(ValueError, match="normalization must be a key bias to have a conserved weight"):
            layer.bind(PLANE).conserved_weight()


@pytest.mark.parametrize(
    "rule, message",
    [
        (af.TopK(240), "k must be below the number of tokens 240, got 240"),
        (af.Sparse(1 / 241), "fraction must be at least 1 / N = 0.00417"),
        (af.Perplexity(240), "target must be below the number of tokens 240, got 240"),
    ],
    ids=str,
)
def test_what_so_few_tokens_cannot_meet_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        af.Attention(FLAT, 0.3, rule).bind(PLANE)
    with pytest.raises(ValueError, match=message[:20]):
        af.propagate(af.Attention(ON_CIRCLE, 0.3, rule), P, lambda x: np.cos(x[..., 0]), 1, n_tokens=240)


def test_engines_that_choose_no_keys_are_refused():
    with pytest.raises(ValueError, match="f must be a growing function|backend 'cells'|flat"):
        af.Attention(af.DotProduct(), 0.3, af.TopK(3), backend="cells").bind(PLANE)
    with pytest.raises(ValueError, match="f must have up to 3 features for its near keys to be chosen in cells, got 5"):
        af.Attention(af.SquaredDistance(af.Euclidean(5)), 0.3, af.TopK(3), backend="cells").bind(RNG.normal(size=(20, 5)))


@pytest.mark.parametrize("alpha", [2.0, 1.5])
@pytest.mark.parametrize("space", [af.Circle(), af.Torus([1.0, 1.0])])
def test_a_search_for_a_share_starts_at_the_closed_form(space, alpha, monkeypatch):
    starts = []
    search = selected._search
    monkeypatch.setattr(selected, "_search", lambda *given: (starts.append(given[2]), search(*given))[1])
    layer = af.Attention(af.SquaredDistance(space), 1.0, af.Sparse(0.05, alpha))
    found = layer.bind(af.Uniform(space).sample(2000, rng=0)).stats["epsilon"]
    assert starts[0] == pytest.approx(found, rel=0.15)  # the noise of 512 probes
