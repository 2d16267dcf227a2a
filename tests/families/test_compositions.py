"""Compositions against their definitions, entry by entry, against layers, scikit-learn and reference numbers."""

import numpy as np
import pytest
from family_tokens import D2, EPS, OTHERS, K, N, X, agree, one_by_one, perplexities
from scipy.optimize import brentq

import attnflow as af
from attnflow import families

# ---- reference numbers ----


@pytest.mark.parametrize(
    "make, number",
    [
        (lambda: families.rows(families.exponential(-D2, 2 * EPS)), 0.214452857381),
        (lambda: families.two_sided(families.exponential(-D2, 2 * EPS)), 0.048135144275),
        (lambda: families.diffusion_map(X, EPS), 0.210965554843),
        (lambda: families.laplacian_eigenmap(X, EPS), 0.275081097468),
        (lambda: families.sne(X, 6), 0.298125581539),
        (lambda: families.tsne(X, 6), 0.007465984525),
        (lambda: families.student(X), 0.001784248754),
    ],
    ids="rows two_sided diffusion_map laplacian_eigenmap sne P Q".split(),
)
def test_reference_entry(make, number):
    assert make()[12, 36] == pytest.approx(number, abs=6e-13)


def test_reference_eigenvalues_of_the_diffusion_map():
    values = np.sort(np.linalg.eigvals(families.diffusion_map(X, EPS)).real)[::-1]
    assert values[:4] == pytest.approx([1, 0.95907694, 0.90488447, 0.85364654], abs=6e-9)


def test_reference_centre():
    found = families.fuzzy_c_means(X, X[[0, 13, 27]], 2)
    assert found.centres[0] == pytest.approx([-0.151440142, 1.002714248, -0.085466429], abs=1.5e-9)


# ---- steps and compositions are their definitions ----


def test_steps_are_their_definitions():
    M = np.random.default_rng(0).random((N, N))  # asymmetric
    sigma = np.linspace(0.5, 2, N)
    agree(families.rows(M), one_by_one(lambda i, j: M[i, j] / sum(M[i])))
    agree(families.columns(M), one_by_one(lambda i, j: M[i, j] / sum(M[:, j])))
    agree(families.two_sided(M), one_by_one(lambda i, j: M[i, j] / (sum(M[i]) * sum(M[j]))))
    agree(families.overall(M), M / M.sum())
    agree(families.inflate(M, 1.7), one_by_one(lambda i, j: M[i, j] ** 1.7))
    agree(families.exponential(-M, sigma), one_by_one(lambda i, j: np.exp(-M[i, j] / sigma[i])))
    agree(families.exponential(-M, 0.7), np.exp(-M / 0.7))


def test_gaussian_families_are_their_definitions():
    q = K.sum(axis=1)
    corrected = one_by_one(lambda i, j: K[i, j] / (q[i] * q[j]))
    agree(families.diffusion_map(X, EPS), one_by_one(lambda i, j: corrected[i, j] / sum(corrected[i])))
    agree(families.laplacian_eigenmap(X, EPS), one_by_one(lambda i, j: (i != j) * K[i, j] / (sum(K[i]) - K[i, i])))
    total = sum(1 / (1 + D2[i, j]) for i in range(N) for j in range(N) if i != j)
    agree(families.student(X), one_by_one(lambda i, j: (i != j) / (1 + D2[i, j]) / total))


def test_layers_are_the_same_matrices():
    f = af.SquaredDistance(af.Euclidean(3))
    layer = af.Attention(f, EPS, af.DensityCorrected(1.0))
    agree(families.diffusion_map(X, EPS), layer.weights(X))
    agree(families.rows(families.exponential(-f(X, X), 2 * EPS)), af.Attention(f, EPS).weights(X))


def test_laplacian_eigenmap_has_the_spectrum_of_the_normalised_laplacian():
    manifold = pytest.importorskip("sklearn.manifold")
    affinity = np.where(OTHERS, K, 0.0)
    vectors = manifold.spectral_embedding(affinity, n_components=3, drop_first=False, random_state=0)
    W = families.laplacian_eigenmap(X, EPS)
    values = np.sort(np.linalg.eigvals(W).real)[::-1][:3]
    np.testing.assert_allclose(W @ vectors, vectors * values, atol=1e-9 * np.abs(vectors).max())


# ---- calibrated temperatures ----


@pytest.mark.parametrize("perplexity", [1.0001, 2, 6, 20, 38, 39 - 1e-6])
@pytest.mark.parametrize("unit", [1.0, 1e-150, 1e150])
def test_every_row_of_sne_has_the_perplexity(perplexity, unit):
    S = families.sne(unit * X, perplexity)
    np.testing.assert_allclose(perplexities(S), perplexity, rtol=1e-8)
    np.testing.assert_allclose(S.sum(axis=1), 1, rtol=1e-14)
    assert (np.diagonal(S) == 0).all()


def test_sne_is_exponential_in_the_squared_distance():
    S = families.sne(X, 6)
    for i in range(N):
        j = np.flatnonzero(OTHERS[i])
        weight = lambda t, d=D2[i, j]: np.exp(-d / np.exp(t)) / np.exp(-d / np.exp(t)).sum()  # noqa: E731
        log_sigma = brentq(lambda t, w=weight: perplexities(w(t)[None])[0] - 6, -3, 5, xtol=1e-14)
        agree(S[i, j], weight(log_sigma))


def test_tsne_is_that_of_scikit_learn():
    internals = pytest.importorskip("sklearn.manifold._t_sne")
    distance = pytest.importorskip("scipy.spatial.distance")
    theirs = distance.squareform(internals._joint_probabilities(D2.copy(), 6.0, 0))  # ours without its early stop
    ours = families.tsne(X, 6)
    assert ours.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(ours[OTHERS], theirs[OTHERS], rtol=2e-4, atol=2e-4 * ours.max())


@pytest.mark.parametrize("neighbors", [2, 3, 8, N])
def test_umap_is_its_definition(neighbors):
    a = np.zeros((N, N))
    for i in range(N):
        near = [j for j in sorted(range(N), key=lambda j: D2[i, j]) if j != i][: neighbors - 1]
        gap = np.sqrt(D2[i, near]) - np.sqrt(D2[i, near]).min()
        if neighbors == 2:
            a[i, near] = 1
        else:
            sigma = brentq(lambda s, g=gap: np.exp(-g / s).sum() - np.log2(neighbors), 1e-3, 1e3, xtol=1e-15)
            a[i, near] = np.exp(-gap / sigma)
    agree(families.umap(X, neighbors), one_by_one(lambda i, j: a[i, j] + a[j, i] - a[i, j] * a[j, i]))


def test_a_coinciding_token_is_umaps_nearest_other_at_distance_zero():
    tokens = np.array([[0.0], [0.0], [1.0], [3.0], [7.0]])
    weights = families.umap(tokens, 4)  # log2(4) = 2 = 1 + exp(-1/s) + exp(-3/s) for the first two
    s = brentq(lambda s: np.exp(-1 / s) + np.exp(-3 / s) - 1, 0.1, 10)
    assert weights[0, 1] == 1
    a02, a20 = np.exp(-1 / s), 1.0  # the first two are nearest to the third, a tie: no sigma but the smallest
    assert weights[0, 2] == pytest.approx(a02 + a20 - a02 * a20)


def test_ties_that_umap_cannot_tell_apart_are_reported():
    with pytest.warns(af.checks.AccuracyWarning, match="5 of 5 tokens cannot attend to 2 neighbours, but to 3"):
        weights = families.umap(np.ones((5, 2)), 4)
    assert set(weights.ravel()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "tokens, perplexity, says",
    [
        (X, N - 1, "between 1 and the number of other tokens 39, got 39"),
        (X, 1, "between 1"),
        (np.ones((5, 2)), 2.0, "at least 4, the number of others nearest to token 0"),
        ([[0.0], [5.0], [5.0], [5.0], [9.0]], 1.5, "at least 3, the number of others nearest to token 0"),
        (
            [[0.2], [0.3], [0.4], [7.0], [9.0]],
            1.5,
            "at least 2, the number of others nearest to token 1",
        ),  # equal but for rounding
    ],
)
def test_a_perplexity_out_of_reach_is_refused(tokens, perplexity, says):
    with pytest.raises(ValueError, match=f"perplexity must be {says}"):
        families.sne(tokens, perplexity)


def test_a_perplexity_as_large_as_the_ties_is_reached():
    tokens = np.array([[0.0], [0.0], [0.0], [1.0], [3.0]])
    S = families.sne(tokens, 3.0)
    np.testing.assert_allclose(perplexities(S), 3, rtol=1e-8)
    assert S[3, :3] == pytest.approx(np.full(3, 1 / 3))


# ---- neighbours ----


@pytest.mark.parametrize("k", [1, 5, N])
def test_nearest_is_that_of_scikit_learn(k):
    neighbors = pytest.importorskip("sklearn.neighbors")
    agree(families.nearest(X, k), neighbors.kneighbors_graph(X, k, include_self=True).toarray() / k)


def test_a_token_is_its_own_first_neighbour_whoever_coincides():
    assert np.array_equal(families.nearest(np.zeros((4, 1)), 1), np.eye(4))
    assert np.array_equal(families.nearest([[1], [1], [1]], 2), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])
