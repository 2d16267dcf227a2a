"""Compositions against their definitions, entry by entry, against layers, scikit-learn and reference numbers."""

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq

import attnflow as af
from attnflow import families

X = np.sin(0.37 * np.arange(1, 121) ** 1.7).reshape(40, 3) * [1, 1.3, 0.6]
N, EPS = len(X), 0.2
D2 = np.array([[np.sum((x - y) ** 2) for y in X] for x in X])
K = np.exp(-D2 / (2 * EPS))
OTHERS = ~np.eye(N, dtype=bool)


def one_by_one(entry):
    return np.array([[entry(i, j) for j in range(N)] for i in range(N)])


def agree(measured, meant):
    np.testing.assert_allclose(measured, meant, rtol=1e-12, atol=1e-12)


def perplexities(S):
    return np.exp(-np.sum(S * np.log(np.where(S > 0, S, 1)), axis=1))


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


# ---- whatever comes ----

OF_TOKENS = {
    "diffusion_map": lambda x, unit=1.0: families.diffusion_map(x, EPS * unit * unit),
    "laplacian_eigenmap": lambda x, unit=1.0: families.laplacian_eigenmap(x, EPS * unit * unit),
    "sne": lambda x, unit=1.0: families.sne(x, 6),
    "tsne": lambda x, unit=1.0: families.tsne(x, 6),
    "umap": lambda x, unit=1.0: families.umap(x, 8),
    "nearest": lambda x, unit=1.0: families.nearest(x, 8),
    "fuzzy_c_means": lambda x, unit=1.0: families.fuzzy_c_means(x, x[[0, 13, 27]], 2).weights,
    "mean_shift": lambda x, unit=1.0: families.mean_shift(x, EPS * unit * unit).modes / unit,
}


@pytest.mark.parametrize("name", OF_TOKENS)
@pytest.mark.parametrize("unit", [2.0**-500, 2.0**500])  # their squares are no numbers
def test_units_do_not_matter(name, unit):
    make = OF_TOKENS[name]
    assert np.array_equal(make(unit * X, unit), make(X))


@pytest.mark.parametrize("name", OF_TOKENS)
def test_integers_lists_and_single_precision_are_the_same_numbers(name):
    whole = np.round(100 * X).astype(int)
    meant = OF_TOKENS[name](0.01 * 100 * whole, 100.0)
    for tokens in (whole, whole.astype(np.float32)):
        assert np.array_equal(OF_TOKENS[name](tokens, 100.0), meant)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_the_order_of_tokens_and_a_distant_origin_do_not_matter(name):
    order, rest = np.arange(N), np.setdiff1d(np.arange(N), [0, 13, 27])  # where centres start
    order[rest] = np.random.default_rng(0).permutation(rest)
    meant, turned = OF_TOKENS[name](X), OF_TOKENS[name](2.0**20 + X[order]) - 2.0**20 * (name == "mean_shift")
    if name == "fuzzy_c_means":
        meant = meant[:, order]
    else:
        meant = meant[order] if name == "mean_shift" else meant[np.ix_(order, order)]
    np.testing.assert_allclose(turned, meant, atol=2e-8)  # 2^20 rounds tokens to 1e-10


def test_students_unit_of_length_is_its_own():
    Q = families.student(1e200 * X)  # the 1 does not count
    agree(Q, np.where(OTHERS, 1 / np.where(OTHERS, D2, 1), 0) / np.sum(1 / D2[OTHERS]))
    agree(families.student(1e-200 * X), OTHERS / (N * (N - 1)))


@pytest.mark.parametrize("epsilon", [1e-320, 1e-3])
def test_a_token_far_from_all_others_goes_to_the_nearest(epsilon):
    tokens = np.array([[0.0], [1.0], [1e3], [1e10]])
    W = families.laplacian_eigenmap(tokens, epsilon)
    assert np.array_equal(W, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    with pytest.warns(af.checks.IsolatedTokensWarning, match="4 of 4 tokens attend only to themselves"):
        agree(families.diffusion_map(tokens, epsilon), np.eye(4))
    agree(families.mean_shift(tokens, epsilon).modes, tokens)


def test_an_endless_temperature_makes_all_tokens_alike():
    agree(families.diffusion_map(X, 1e308), np.full((N, N), 1 / N))
    found = families.mean_shift(X, 1e308)
    agree(found.modes, np.tile(X.mean(axis=0), (N, 1)))
    assert (found.labels == 0).all()


@pytest.mark.parametrize("make", [families.diffusion_map, families.mean_shift], ids=["matrix", "shift"])
def test_one_token_is_alone(make):
    assert make([[3.0, 4.0]], 0.1)[0].ravel()[0] in (1.0, 3.0)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: families.rows([[1, 2], [0, 0]]), "M must have a positive, finite sum in row 1, got 0"),
        (lambda: families.columns([[1, 0], [2, 0]]), "M must have a positive, finite sum in column 1, got 0"),
        (lambda: families.overall(np.full((2, 2), 1e308)), "M must have a positive, finite sum, got inf"),
        (lambda: families.two_sided(np.ones((2, 3))), "M must be a square matrix"),
        (lambda: families.two_sided(np.full((2, 2), 1e-320)), "M must have results within the range"),
        (lambda: families.inflate([[1, -2]], 2), r"M must have no negative entries, got -2.0 at index \(0, 1\)"),
        (lambda: families.exponential([[0, 710]], 1), r"M must have results within .* got inf at index \(0, 1\)"),
        (lambda: families.exponential([[0, 1]], [-1.0]), "sigma must be positive, got -1.0 in row 0"),
        (lambda: families.markov_clustering([[1, 0], [0, 0]], 2), "matrix must have a positive, finite sum in row 1"),
        (lambda: families.sne(X[:2], 1.5), "tokens must be at least 3, got 2"),
        (lambda: families.umap(X, N + 1), "neighbors must be at most the number of tokens 40, got 41"),
        (lambda: families.nearest(X, 0), "k must be at least 1, got 0"),
        (lambda: families.fuzzy_c_means(X, X[:2, :2], 2), "centres must have 3 columns"),
        (lambda: families.fuzzy_c_means(X, X[:2], 1), "m must be above 1, got 1"),
        (lambda: families.rows(np.broadcast_to(1.0, (2**14, 2**13))), "M must make at most 67108864 dense entries"),
        (lambda: families.nearest(np.zeros((2**14, 1)), 2), "tokens must make at most 67108864 dense entries"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_second_call_gives_the_same_bits_and_changes_nothing(name):
    tokens = X.copy()
    assert np.array_equal(OF_TOKENS[name](tokens), OF_TOKENS[name](tokens))
    assert np.array_equal(tokens, X)
