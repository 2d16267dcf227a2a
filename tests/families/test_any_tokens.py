"""Units, copies, far tokens, one token: whatever comes to a family, or is refused by name."""

import numpy as np
import pytest
from family_tokens import D2, EPS, OTHERS, N, X, agree

import attnflow as af
from attnflow import families

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
