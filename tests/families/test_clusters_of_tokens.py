"""Fuzzy c-means, Markov clustering and mean shift: fixed points, limits, labels, and how they end."""

import itertools

import numpy as np
import pytest
from family_tokens import EPS, N, X, agree
from scipy.optimize import brentq

import attnflow as af
from attnflow import families

# ---- fuzzy c-means ----


@pytest.mark.parametrize("m", [1.2, 2.0, 7.0])
def test_centres_are_a_fixed_point_of_the_definition(m):
    centres, weights = families.fuzzy_c_means(X, X[[0, 13, 27]], m)
    d = np.sqrt(((centres[:, None] - X) ** 2).sum(-1))
    u = np.array([[1 / sum((d[i, k] / d[j, k]) ** (2 / (m - 1)) for j in range(3)) for k in range(N)] for i in range(3)])
    w = u**m / (u**m).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(w @ X, centres, atol=3e-9)
    np.testing.assert_allclose(weights, w, atol=1e-7)
    agree(weights @ X, centres)


def test_it_is_k_means_as_m_falls_to_one():
    cluster = pytest.importorskip("sklearn.cluster")
    theirs = cluster.KMeans(3, init=X[[0, 13, 27]], n_init=1, tol=0).fit(X).cluster_centers_
    for m in (1.001, 1 + 1e-9, np.nextafter(1, 2)):
        np.testing.assert_allclose(families.fuzzy_c_means(X, X[[0, 13, 27]], m).centres, theirs, atol=1e-6)


def test_weights_tend_to_their_limit_as_m_grows():
    """(C u)^m -> exp(mean_c log d_c^2 - log d^2): what differs by 1/m is not lost beside 1."""
    centres, weights = families.fuzzy_c_means(X, 0.9 * X[[0, 13, 27]] + 0.05, 1e12)
    logarithm = -np.log(((centres[:, None] - X) ** 2).sum(-1))
    w = np.exp(logarithm - logarithm.mean(axis=0))
    np.testing.assert_allclose(weights, w / w.sum(axis=1, keepdims=True), rtol=1e-8)


def test_a_token_on_coinciding_centres_is_shared():
    tokens = np.array([[0.0], [4.0], [5.0]])
    found = families.fuzzy_c_means(tokens, [[0.0], [0.0], [4.5]], 2.0)
    assert np.array_equal(found.centres[0], found.centres[1])
    with pytest.raises(ValueError, match="centres must each have a part in some token, got none for centre 1"):
        families.fuzzy_c_means(np.ones((4, 2)), [[1.0, 1.0], [2.0, 2.0]], 2.0)


def test_a_centre_that_is_nowhere_the_nearest_still_moves():
    """Its memberships are below 1e-300: it goes where they are largest."""
    found = families.fuzzy_c_means(X, [*X[[0, 13]], [1e3, 0, 0]], 1.001)
    farthest = np.linalg.norm(found.centres[:2, None] - X, axis=-1).min(axis=0)
    assert np.isfinite(found.centres).all()
    assert np.abs(found.centres[2]).max() < np.abs(X).max() and farthest.max() > 0
    agree(found.weights.sum(axis=1), np.ones(3))


def test_many_tokens_have_few_centres():
    tokens = np.r_[np.linspace(0, 1, 10_001), np.linspace(5, 6, 10_001)][:, None]
    found = families.fuzzy_c_means(tokens, [[0.0], [6.0]], 1.01)
    assert found.centres.ravel() == pytest.approx([0.5, 5.5], abs=1e-9)


# ---- Markov clustering ----


def cliques(sizes, bridges=()):
    M = np.zeros((sum(sizes),) * 2)
    start = 0
    for size in sizes:
        M[start : start + size, start : start + size] = 1
        start += size
    for i, j in bridges:
        M[i, j] = M[j, i] = 1
    return M


def test_markov_clustering_is_its_iteration():
    M = cliques([4, 5, 3], [(0, 4), (8, 9)]) + 0.01
    walk = np.array([[M[i, j] / sum(M[i]) for j in range(12)] for i in range(12)])
    for _ in range(100):
        power = (walk @ walk) ** 1.8
        walk = np.array([[power[i, j] / sum(power[i]) for j in range(12)] for i in range(12)])
    found = families.markov_clustering(M, 1.8)
    np.testing.assert_allclose(found.matrix, walk, atol=1e-8)
    assert found.labels.tolist() == [0] * 4 + [1] * 5 + [2] * 3


def test_labels_are_the_same_whatever_the_order_of_tokens():
    M, order = cliques([4, 5, 3], [(0, 4), (8, 9)]), np.random.default_rng(1).permutation(12)
    labels = families.markov_clustering(M[np.ix_(order, order)], 2.0).labels
    true = np.repeat([0, 1, 2], [4, 5, 3])[order]
    assert len(set(zip(labels, true))) == 3
    assert list(dict.fromkeys(labels)) == [0, 1, 2]


def test_rounding_does_not_part_a_cluster():
    """All eight weights are 1/8 in the end, but for rounding."""
    found = families.markov_clustering(np.kron(np.ones((4, 4)) + np.eye(4), np.ones((2, 2))), 1.3)
    np.testing.assert_allclose(found.matrix, 1 / 8, rtol=1e-9)
    assert (found.labels == 0).all()


def test_no_inflation_leaves_what_nothing_connects():
    M = cliques([3, 2, 4], [(0, 3)])
    assert families.markov_clustering(M, 1.0).labels.tolist() == [0] * 5 + [1] * 4
    assert families.markov_clustering(np.eye(3), 2.0).labels.tolist() == [0, 1, 2]


def test_a_strong_inflation_does_not_lose_a_row():
    assert families.markov_clustering(cliques([300, 400]), 500.0).labels.tolist() == [0] * 300 + [1] * 400


def test_a_walk_round_an_odd_circle_is_reported():
    with pytest.warns(af.checks.ConvergenceWarning, match="weights still change by 1 after 10000 steps"):
        assert families.markov_clustering(np.roll(np.eye(3), 1, axis=1), 2.0).labels.tolist() == [0, 0, 0]


# ---- mean shift ----


def test_modes_are_where_the_gradient_of_the_density_vanishes():
    found = families.mean_shift(X, EPS)
    w = np.exp(-((found.modes[:, None] - X) ** 2).sum(-1) / (2 * EPS))
    step = w @ X / w.sum(axis=1, keepdims=True) - found.modes
    assert np.abs(step).max() < 1e-9 * np.sqrt(EPS)
    plain = X
    for _ in range(3000):
        w = np.exp(-((plain[:, None] - X) ** 2).sum(-1) / (2 * EPS))
        plain = w @ X / w.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.modes, plain, atol=1e-9)
    for a, b in itertools.combinations(range(N), 2):
        same = np.linalg.norm(found.modes[a] - found.modes[b]) < 0.01 * np.sqrt(EPS)
        assert same == (found.labels[a] == found.labels[b])


def test_two_tokens_have_the_mode_of_the_closed_form():
    """Of +-a the modes are +-x with x = a tanh(a x / epsilon), or 0 where epsilon >= a^2."""
    a, eps = 1.0, 0.8
    x = brentq(lambda x: x - a * np.tanh(a * x / eps), 0.1, 1, xtol=1e-15)
    found = families.mean_shift([[-a], [a]], eps)
    assert found.modes.ravel() == pytest.approx([-x, x], abs=1e-9)
    assert found.labels.tolist() == [0, 1]
    assert families.mean_shift([[-a], [a]], 1.2).labels.tolist() == [0, 0]


def test_a_slow_direction_is_not_mistaken_for_the_end():
    """Quick across, slow along: of +-(a, b) the mode is at 0, with rates b^2/eps and a^2/eps."""
    eps = 1.0
    corners = np.array(list(itertools.product([-0.995, 0.995], [-0.1, 0.1])))
    assert np.abs(families.mean_shift(corners, eps).modes).max() < 1e-9


def test_steps_that_are_lost_in_rounding_are_the_end():
    rng = np.random.default_rng(1)
    tokens = np.concatenate([1e-7 * rng.normal(size=(100, 2)) + place for place in ([0, 0], [1, 2], [3, -1])])
    assert set(families.mean_shift(tokens, 2e-14).labels[::100]) == {0, 1, 2}


def test_a_flat_top_is_reported():
    with pytest.warns(af.checks.ConvergenceWarning, match=r"2 of 2 tokens still move by .* sqrt\(epsilon\) after 10000 steps"):
        families.mean_shift([[-1.0], [1.0]], 1.0)
