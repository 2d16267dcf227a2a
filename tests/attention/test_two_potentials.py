"""Sinkhorn with two potentials: rows and columns of any positive similarity sum to one, by few sweeps."""

import pickle
import warnings

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow.attention import bound as binding
from attnflow.attention.infinite import bind_density
from attnflow.checks import ConvergenceWarning
from attnflow.continuum.nodes import bind_nodes, weights_and_response

TWO = af.Sinkhorn(potentials=2)
P, CIRCLE, PLANE = af.VonMises(1.0), af.Circle(), af.Euclidean(2)
RING = P.sample(120, rng=0)
CLOUD = np.random.default_rng(0).normal(size=(90, 5))
(X0, Y0), THIRD = sympy.symbols("x0 y0"), sympy.Rational(1, 3)
LEANING = af.PseudoMetric(2 * (1 - sympy.cos(Y0 - X0)) * (1 + THIRD * sympy.sin(Y0 - X0) * (1 + sympy.cos(X0))), 1)
HEAD = af.DotProduct(*np.random.default_rng(1).normal(size=(2, 2, 5)))
DISPLACED = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(axis=-1) + x[..., 0] * np.tanh(y[..., 1]) + y[..., 2], 5)


def alternated(f, epsilon, tokens, log_mass=0.0, queries=None):
    """The weights by their definition: rows, columns, rows, ... until nothing changes."""
    log_k = -f(tokens, tokens) / (2 * epsilon) + np.zeros(len(tokens))
    log_v = np.zeros(len(tokens))
    for _ in range(10**4):
        log_u = -np.logaddexp.reduce(log_k + log_v + log_mass, axis=1)
        before, log_v = log_v, -np.logaddexp.reduce(log_k.T + log_u + log_mass, axis=1)
        if np.abs(log_v - before).max() < 1e-14 * (1 + np.abs(log_v).max()):
            break
    log_k = log_k if queries is None else -f(queries, tokens) / (2 * epsilon)
    logits = log_k + log_v + log_mass
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])


CASES = [
    pytest.param(LEANING, 0.1, RING, id="leaning"),
    pytest.param(LEANING, 0.03, RING[:50], id="leaning, sharp"),
    pytest.param(HEAD, 0.7, CLOUD, id="head"),
    pytest.param(af.DotProduct(np.random.default_rng(2).normal(size=(5, 5))), 0.5, CLOUD, id="dot product"),
    pytest.param(DISPLACED, 0.7, CLOUD[:40], id="displaced"),
    pytest.param(HEAD, 0.7, CLOUD[:2], id="two tokens"),
    pytest.param(HEAD, 0.7, CLOUD[:1], id="one token"),
]


@pytest.mark.parametrize("f, epsilon, tokens", CASES)
def test_weights_are_those_of_alternating_scaling(f, epsilon, tokens):
    layer = af.Attention(f, epsilon, TWO, rtol=1e-14)
    weights = layer.weights(tokens)
    np.testing.assert_allclose(weights, alternated(f, epsilon, tokens), atol=1e-11)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-13)
    H = np.cos(tokens)
    np.testing.assert_allclose(layer(tokens, H), weights @ H, atol=1e-12)
    np.testing.assert_allclose(layer(tokens, H).sum(axis=0), H.sum(axis=0), atol=1e-11)


def test_queries_see_the_tokens_potential():
    queries = np.random.default_rng(3).normal(size=(7, 5))
    layer = af.Attention(HEAD, 0.7, TWO)
    np.testing.assert_allclose(layer.weights(CLOUD, queries), alternated(HEAD, 0.7, CLOUD, queries=queries), atol=1e-11)
    np.testing.assert_allclose(layer(CLOUD, CLOUD, queries), layer.weights(CLOUD, queries) @ CLOUD, atol=1e-12)


@pytest.mark.parametrize("epsilon, most", [(0.1, 20), (0.01, 55)])
def test_few_sweeps_where_alternation_takes_thousands(epsilon, most):
    """A sweep of the alternation leaves the square of the second singular value: 14 / (tau gap) of them to 1e-12."""
    tokens = P.sample(400, rng=1)
    layer = af.Attention(LEANING, epsilon, TWO)
    stats = layer.bind(tokens).stats
    slowest = np.linalg.svd(layer.weights(tokens), compute_uv=False)[1] ** 2
    assert stats["sinkhorn_sweeps"] <= most < 0.15 * np.log(1e-12) / np.log(slowest)
    assert stats["sinkhorn_gap"] <= 1e-12
    assert np.abs(np.log(layer.weights(tokens).sum(axis=0))).max() == pytest.approx(stats["sinkhorn_gap"], abs=1e-14)


def test_clusters_that_hardly_see_each_other_are_balanced():
    """8 apart at eps = 1: what they exchange is 1e-13 of themselves, more one way than the other."""
    tokens = np.random.default_rng(0).normal(size=(60, 1)) + np.repeat([0.0, 8.0], 30)[:, None]
    f = af.PseudoMetric((X0 - Y0) ** 2 * (1 + sympy.tanh(Y0 - X0) * 3 / 10), 1)
    layer = af.Attention(f, 1.0, TWO)
    stats = layer.bind(tokens).stats
    assert stats["sinkhorn_gap"] <= 1e-12 and stats["sinkhorn_sweeps"] < 60
    np.testing.assert_allclose(layer.weights(tokens).sum(axis=0), 1, atol=2e-12)
    with pytest.warns(af.checks.IsolatedTokensWarning):
        alone = af.Attention(f, 1e-14, TWO)
        np.testing.assert_allclose(alone(tokens, tokens), tokens, atol=1e-12)


def test_sweeps_that_were_not_enough_are_told():
    with pytest.warns(af.checks.ConvergenceWarning, match="^Sinkhorn stopped after 4 sweeps with column sums off by"):
        stats = af.Attention(LEANING, 0.02, af.Sinkhorn(max_iter=4, potentials=2)).bind(RING).stats
    assert stats["sinkhorn_sweeps"] == 4 and stats["sinkhorn_gap"] > 1e-6


def test_a_past_that_misleads_is_forgotten(monkeypatch):
    """With one iterate remembered as if it were of another problem, the iteration starts anew and converges."""
    from attnflow.attention import sinkhorn

    combined, calls = sinkhorn._combined, []

    def misled(images, residuals):
        calls.append(len(images))
        return combined(images, residuals) + (3.0 * RING[:, 0] if len(calls) == 6 else 0.0)

    monkeypatch.setattr(sinkhorn, "_combined", misled)
    stats = af.Attention(LEANING, 0.1, TWO).bind(RING).stats
    assert calls[5:7] == [6, 1] and stats["sinkhorn_gap"] <= 1e-12


def test_the_second_plan_is_made_once(monkeypatch):
    made, plan = [], binding.plan
    monkeypatch.setattr(binding, "plan", lambda *arguments, **more: made.append(1) or plan(*arguments, **more))
    af.Attention(LEANING, 0.1, TWO).bind(RING)
    assert len(made) == 2


@pytest.mark.parametrize("f", [af.SquaredDistance(CIRCLE), af.PowerDistance(CIRCLE, 1.0)], ids=repr)
def test_for_symmetric_f_they_are_one(f):
    one, two = (af.Attention(f, 0.05, af.Sinkhorn(potentials=k)) for k in (1, 2))
    np.testing.assert_allclose(two.weights(RING), one.weights(RING), atol=1e-11)
    np.testing.assert_allclose(two.bind(RING).key_bias, one.bind(RING).key_bias, atol=1e-9)
    np.testing.assert_allclose(two.bind(RING).conserved_weight(), np.full(120, 1 / 120), atol=1e-13)
    bounds = [bind_density(layer, P)[0] for layer in (one, two)]
    np.testing.assert_allclose(bounds[1].key_bias, bounds[0].key_bias, atol=1e-9)
    assert af.limit(two, P) == af.limit(one, P)


def test_predictions_for_symmetric_f_are_one_potentials():
    start, x = lambda x: np.cos(x[..., 0]), np.linspace(0, 6, 9)[:, None]
    one, two = (af.Attention(af.SquaredDistance(CIRCLE), 0.05, af.Sinkhorn(potentials=k)) for k in (1, 2))
    biases = [af.predicted_bias(layer, P, start, 0.3)(x) for layer in (one, two)]
    np.testing.assert_allclose(*biases, atol=1e-3 * np.abs(biases).max())
    np.testing.assert_allclose(*(af.predicted_noise(layer, P, start, 0.3, 500)(x) for layer in (one, two)), rtol=1e-7)
    bound, _, mass = bind_nodes(one, P)
    A, eta = weights_and_response(bound, mass)
    np.testing.assert_allclose(TWO.response(A, None, mass), eta, atol=1e-8 * np.abs(eta).max())
    centred = eta - (eta @ mass)[:, None]
    expected = one.normalization.second_response(A, centred, mass)
    np.testing.assert_allclose(TWO.second_response(A, centred, mass), expected, atol=1e-8 * np.abs(expected).max())
    assert af.predicted_rates(two, P, 3, 1000).mean == pytest.approx(af.predicted_rates(one, P, 3, 1000).mean, rel=1e-6)


def test_responses_are_the_derivatives_of_the_key_weights():
    """First and second order, by giving a node more mass and less."""
    layer = af.Attention(LEANING, 0.2, TWO, rtol=1e-15)
    bound, grid, mass = bind_nodes(layer, P)
    mass = mass / mass.sum()
    A, eta = weights_and_response(bound, mass)
    np.testing.assert_allclose(mass @ eta, -0.5, atol=1e-12)
    centred = eta - (eta @ mass)[:, None]
    base, step = bound.key_bias - np.log(mass), 1e-4
    second = np.zeros(len(mass))
    for z, share in enumerate(mass):
        moved = []
        for t in (step * share, -step * share):
            other = (1 - t) * mass + t * np.eye(len(mass))[z]
            ratio = np.exp(layer.bind(grid.points, np.log(other)).key_bias - np.log(other) - base)
            moved.append(ratio / (mass @ ratio))
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step * share), centred[:, z], atol=2e-5)
        second += share * (moved[0] + moved[1] - 2) / (2 * (step * share) ** 2)
    predicted = layer.normalization.second_response(A, centred, mass)
    assert np.ptp(predicted) > 0.1
    np.testing.assert_allclose(second - mass @ second, predicted - mass @ predicted, atol=1e-3 * np.ptp(predicted))


def test_sums_are_conserved_through_many_layers_and_in_the_limit_of_many_tokens():
    layer = af.Attention(LEANING, 0.05, TWO, residual=0.7)
    run = af.propagate(layer, RING, np.cos(3 * RING), 40)
    np.testing.assert_allclose(run.y.sum(axis=1), np.cos(3 * RING).sum(), atol=1e-10)
    assert run.stats["method"] == "iteration"  # polynomials are for symmetric ones
    dense = alternated(LEANING, 0.05, RING)
    step = 0.3 * np.eye(len(RING)) + 0.7 * dense
    np.testing.assert_allclose(run.y[-1], np.linalg.matrix_power(step, 40) @ np.cos(3 * RING), atol=1e-10)
    many = af.propagate(layer, P, lambda x: np.cos(3 * x[..., 0]), 20)
    mass = P.pdf(many.grid.points) * many.grid.weights
    np.testing.assert_allclose(np.einsum("i,tic->tc", mass, many.y), np.tile(mass @ many.y[0], (21, 1)), atol=1e-11)
    bound, _ = bind_density(layer, P)
    np.testing.assert_allclose(bound.conserved_weight(), mass, atol=1e-14)
    with pytest.raises(ValueError, match="^f must be symmetric for a conserved weight of Softmax"):
        af.Attention(LEANING, 0.05).bind(RING).conserved_weight()


def test_masses_are_those_of_the_definition():
    log_mass = np.sin(RING[:, 0])
    bound = af.Attention(LEANING, 0.1, TWO).bind(RING, log_mass)
    weights = bound.attend(np.eye(120)).mean
    np.testing.assert_allclose(weights, alternated(LEANING, 0.1, RING, log_mass), atol=1e-11)
    np.testing.assert_allclose(np.exp(log_mass) @ weights, np.exp(log_mass), atol=1e-11)


def test_operator_adjoint_and_spectrum():
    layer = af.Attention(LEANING, 0.1, TWO, 0.6)
    A = 0.4 * np.eye(120) + 0.6 * layer.weights(RING)
    operator, H = layer.operator(RING), np.random.default_rng(0).normal(size=(120, 2))
    np.testing.assert_allclose(operator @ H, A @ H, atol=1e-12)
    np.testing.assert_allclose(operator.T @ H, A.T @ H, atol=1e-12)
    np.testing.assert_allclose(operator.T @ np.ones(120), 1, atol=1e-11)
    eigenvalues = layer.spectrum(RING, 5).eigenvalues
    expected = np.linalg.eigvals(A)
    expected = expected[np.lexsort((-expected.imag, -expected.real.round(11)))][:5]
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-9)


def test_float32_is_as_good_as_its_arithmetic():
    single, double = (af.Attention(HEAD, 0.7, TWO, dtype=dtype) for dtype in ("float32", "float64"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(single(CLOUD), double(CLOUD), atol=3e-4)
    assert single.bind(CLOUD).stats["sinkhorn_gap"] < 1e-5


def test_a_mask_that_allows_no_such_weights_is_told():
    """The middle of a star sees and is seen by all others, who see nothing else: columns sum to 4, 1/4, ..., whatever v is."""
    spokes = [[0, j] for j in range(1, 5)]
    layer = af.Attention(af.SquaredDistance(PLANE), 1.0, TWO, mask=spokes + [edge[::-1] for edge in spokes])
    with pytest.warns(ConvergenceWarning, match="^Sinkhorn stopped after 1000 sweeps with column sums off by 1"):
        weights = layer.weights(CLOUD[:5, :2])
    assert weights.sum(axis=0)[0] == pytest.approx(4)


def test_it_is_known_by_its_parameters():
    assert repr(af.Sinkhorn()) == "Sinkhorn(tol=None, max_iter=1000)"  # as stores of studies have it
    assert repr(TWO) == "Sinkhorn(tol=None, max_iter=1000, potentials=2)"
    assert pickle.loads(pickle.dumps(TWO)) == TWO == af.Sinkhorn(potentials=2) != af.Sinkhorn()
    assert len({TWO, af.Sinkhorn(potentials=2), af.Sinkhorn()}) == 2
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.1, TWO)
    assert np.array_equal(pickle.loads(pickle.dumps(layer))(RING), layer(RING))


@pytest.mark.parametrize("potentials, message", [(0, "at least 1"), (3, "at most 2"), (1.5, "an integer")])
def test_other_numbers_of_potentials_are_refused(potentials, message):
    with pytest.raises((ValueError, TypeError), match=f"^potentials must be {message}"):
        af.Sinkhorn(potentials=potentials)


def test_one_potential_of_an_asymmetric_similarity_names_two():
    with pytest.raises(ValueError, match=r"'sinkhorn' needs a symmetric f.*use Sinkhorn\(potentials=2\)"):
        af.Attention(HEAD, 0.7, "sinkhorn").bind(CLOUD)
