"""Layers whose tokens do not see all others: whole layers, their adjoints, many of them, and what is refused."""

import warnings

import numpy as np
import pytest
from scipy import sparse

import attnflow as af
from attnflow.attention import perplexity
from attnflow.checks import ConvergenceWarning, IsolatedTokensWarning

RNG = np.random.default_rng(5)
SIZE = 260
TOKENS, VALUES, COTANGENT = (RNG.normal(size=(SIZE, columns)) for columns in (2, 3, 2))
LABELS = RNG.integers(0, 6, SIZE)
ONE_WAY = sparse.csr_array(sparse.random_array((SIZE, SIZE), density=0.03, rng=1) + sparse.eye_array(SIZE))
BOTH_WAYS = ONE_WAY + ONE_WAY.T
MASKS = {
    "causal": "causal",
    "labels": LABELS,
    "names": [f"document {label}" for label in LABELS],
    "both ways": BOTH_WAYS,
    "one way": ONE_WAY,
    "list": np.c_[np.tile(np.arange(SIZE), 4), np.r_[np.arange(SIZE), RNG.integers(0, SIZE, 3 * SIZE)]],
}
SQUARED, SKEW = af.SquaredDistance(af.Euclidean(2)), af.DotProduct(np.array([[1.0, 0.4], [-0.3, 0.5]]))
OWN = af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1) + 0.2 * x[..., 0] * y[..., 1], 2)
NORMALIZATIONS = ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn"]


def seen_by_hand(mask):
    if isinstance(mask, str):
        return np.tri(SIZE, dtype=bool)
    if sparse.issparse(mask):
        return mask.toarray() != 0
    mask = np.asarray(mask)
    if mask.ndim == 1:
        return mask[:, None] == mask
    seen = np.zeros((SIZE, SIZE), bool)
    seen[mask[:, 0], mask[:, 1]] = True
    return seen


def weights_by_hand(f, mask, normalization, epsilon=0.8):
    K = np.exp(-f(TOKENS, TOKENS) / (2 * epsilon)) * seen_by_hand(mask)
    v = {"softmax": lambda: np.ones(SIZE), "column": lambda: 1 / K.sum(axis=0), "sinkhorn": lambda: scaling(K)}.get(
        normalization, lambda: K.sum(axis=1) ** -0.5
    )()
    return K * v / (K @ v)[:, None]


def scaling(K):
    v = np.ones(SIZE)
    for _ in range(400):
        v = np.sqrt(v / (K @ v))
    return v


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("f", [SQUARED, SKEW, OWN], ids=["squared", "skew", "own"])
@pytest.mark.parametrize("name", MASKS)
def test_layers_are_those_of_the_definition_and_so_are_their_adjoints(name, f, normalization):
    mask = MASKS[name]
    if normalization == "sinkhorn" and (f is not SQUARED or name in ("causal", "one way", "list")):
        with pytest.raises(ValueError, match="symmetric f|^mask must go both ways for normalization 'sinkhorn'"):
            af.Attention(f, 0.8, normalization, mask=mask).bind(TOKENS)
        return
    layer, S = af.Attention(f, 0.8, normalization, 0.6, mask), weights_by_hand(f, mask, normalization)
    A = 0.4 * np.eye(SIZE) + 0.6 * S
    bound, operator = layer.bind(TOKENS), layer.operator(TOKENS)
    assert bound.stats["engine"] == ("graph" if name in ("both ways", "one way", "list") else "numba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IsolatedTokensWarning)
        np.testing.assert_allclose(layer(TOKENS, VALUES), A @ VALUES, atol=1e-11)
    np.testing.assert_allclose(layer.weights(TOKENS), S, atol=1e-11)
    np.testing.assert_allclose(operator.rmatmat(COTANGENT), A.T @ COTANGENT, atol=1e-11)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nan_to_num(S * np.log(S)).sum(axis=1)
    np.testing.assert_allclose(perplexity(bound), np.exp(entropy), rtol=1e-9)
    assert bound.self_adjoint == (f is SQUARED and name in ("labels", "names", "both ways"))
    assert bound.definite == (f is SQUARED and name in ("labels", "names"))
    if bound.self_adjoint:
        weight = bound.conserved_weight()
        np.testing.assert_allclose(weight @ (S @ VALUES), weight @ VALUES, atol=1e-11)


@pytest.mark.parametrize("name", MASKS)
def test_many_layers_are_polynomials_only_where_these_are_bounded(name):
    layer, A = af.Attention(SQUARED, 0.8, mask=MASKS[name]), weights_by_hand(SQUARED, MASKS[name], "softmax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IsolatedTokensWarning)
        run = af.propagate(layer, TOKENS, VALUES, 400, save_every=400)
    np.testing.assert_allclose(run.y[-1], np.linalg.matrix_power(A, 400) @ VALUES, atol=1e-10)
    both = name in ("labels", "names", "both ways")
    assert run.stats["method"] == ("chebyshev" if both else "iteration")
    if both:
        assert (run.stats["interval"][0] > -1e-10) == (name != "both ways")


@pytest.mark.parametrize("name", MASKS)
def test_spectra_are_those_of_the_dense_weights(name):
    layer, S = af.Attention(SQUARED, 0.8, mask=MASKS[name]), weights_by_hand(SQUARED, MASKS[name], "softmax")
    spectrum = layer.spectrum(TOKENS, 9)
    expected = np.sort(np.linalg.eigvals(S).real)[::-1][:9] if name != "causal" else np.sort(S.diagonal())[::-1][:9]
    np.testing.assert_allclose(np.sort(spectrum.eigenvalues.real)[::-1], expected, atol=1e-8)
    assert spectrum.residuals.max() < 1e-9


def test_a_causal_spectrum_that_is_off_is_told():
    """Iterations of a matrix this far from normal end at pseudo-eigenvalues, whose residuals are small."""
    layer, tokens = af.Attention(SQUARED, 3.0, mask="causal"), RNG.normal(size=(900, 2))
    with pytest.warns(ConvergenceWarning, match="^eigenvalues are off by up to"):
        spectrum = layer.spectrum(tokens, 20)
    own = layer.weights(tokens).diagonal()
    assert np.abs(spectrum.eigenvalues[:, None] - own).min(axis=1).max() > 1e-3
    assert spectrum.residuals.max() < 1e-9
    np.testing.assert_allclose(layer.spectrum(tokens, 3).eigenvalues, np.sort(own)[::-1][:3], atol=1e-7)


def test_only_tokens_that_could_see_others_are_isolated():
    tokens = np.arange(8.0)[:, None]
    line = af.SquaredDistance(af.Euclidean(1))
    near = np.r_[[[i, i] for i in range(8)], [[0, 1], [1, 0]]]
    for mask, alone in (
        ("causal", 4),
        ([0, 0, 1, 2, 3, 3, 4, 5], 4),
        (near, 2),
        (near[8:].tolist() + [[i, i] for i in range(2, 8)], 0),
    ):
        layer = af.Attention(line, 1e-3, mask=mask)
        if alone:
            with pytest.warns(IsolatedTokensWarning, match=f"^{alone} of 8 tokens"):
                layer(tokens)
        else:
            layer(tokens)


def test_the_content_of_a_mask_is_part_of_what_is_kept():
    layer = af.Attention(SQUARED, 0.8, mask=LABELS)
    first = layer(TOKENS, VALUES)
    layer.mask = af.Attention(SQUARED, 0.8, mask=LABELS % 2).mask
    assert np.abs(layer(TOKENS, VALUES) - first).max() > 0.01
    mine = LABELS.copy()
    layer = af.Attention(SQUARED, 0.8, mask=mine)
    mine[:] = 0  # what the user does to an array later on changes nothing
    np.testing.assert_array_equal(layer(TOKENS, VALUES), first)


def test_edges_listed_twice_count_once_and_zeros_and_values_do_not():
    twice = np.r_[MASKS["list"], MASKS["list"][::3]]
    once, again = (af.Attention(SQUARED, 0.8, mask=mask).weights(TOKENS) for mask in (MASKS["list"], twice))
    np.testing.assert_array_equal(once, again)
    stored = sparse.coo_array(ONE_WAY)
    with_zeros = sparse.coo_array(
        (np.r_[7.0 * stored.data, np.zeros(5)], (np.r_[stored.row, np.zeros(5, int)], np.r_[stored.col, np.arange(5)])),
        shape=stored.shape,
    )
    same, other = (af.Attention(SQUARED, 0.8, mask=mask).weights(TOKENS) for mask in (ONE_WAY, with_zeros))
    np.testing.assert_array_equal(same, other)
    rows, columns = np.r_[np.zeros(256, int), 1, 0], np.r_[np.ones(256, int), 1, 0]
    many = sparse.coo_array((np.ones(258, np.uint8), (rows, columns)), shape=(2, 2))
    assert (af.Attention(SQUARED, 0.8, mask=many).weights(TOKENS[:2])[0] > 0).all()  # 256 ones are no 0


def test_parity_runs_masked_layers_and_shows_refusals():
    for mask, ran in (("causal", {"reference", "numba"}), (BOTH_WAYS, {"reference", "graph"})):
        table = af.parity(af.Attention(SQUARED, 0.8, mask=mask), TOKENS, VALUES)
        assert {row.engine for row in table.rows if row.ran} == ran
        assert all(row.difference < 1e-12 for row in table.rows if row.ran)
        assert "use backend=" in next(row.note for row in table.rows if row.engine == "cells")


def test_tokens_move_under_a_mask():
    """Karagodin, Polyanskiy & Rigollet 2024: causal tokens on the sphere end in one cluster, at the first."""
    circle = RNG.normal(size=(30, 2))
    circle /= np.linalg.norm(circle, axis=1)[:, None]
    run = af.evolve(af.Attention(af.DotProduct(), 0.5, mask="causal"), circle, 300, constrain="sphere", save_every=300)
    np.testing.assert_allclose(run.y[-1], np.broadcast_to(circle[0], (30, 2)), atol=1e-6)


@pytest.mark.parametrize(
    "mask, message",
    [
        ("casual", "^mask must be one of 'causal', got str 'casual'"),
        (3, '^mask must be None, "causal", labels'),
        (np.ones((SIZE, SIZE), bool), r"^mask must have shape \(N,\), labels, or \(E, 2\), edges, got a dense array .* scipy.sparse"),
        (np.ones((2, 2), bool), "scipy.sparse"),
        (np.ones((3, 5)), r"^mask must have shape .* got shape \(3, 5\)"),
        ([[0, 1], [1]], r"^mask must have shape"),
        ([], "^mask must hold at least one"),
        (np.ma.masked_equal([1, 2], 2), "^mask must have no masked entries"),
        ([0.0, np.nan], "^mask must hold labels, got nan"),
        (np.array([2.0, np.nan, 2.0], object), "^mask must hold labels, got nan"),
        (np.array([[0, 1], [2**63, 0]], np.uint64), r"^mask must have edges between tokens from 0 on, got .* at index 1"),
        ([1, None], "^mask must hold labels that can be sorted"),
        ([[0.0, 1.0]], "^mask must hold edges of integers"),
        ([[0, 1], [1, -1]], r"^mask must have edges between tokens from 0 on, got \[1, -1\] at index 1"),
        ([[0, 1], [2, 1]], "^mask must have an edge from every token, got none from token 1"),
        (sparse.csr_array((4, 4)), "^mask must have an edge from every token, got none from token 0"),
        (sparse.csr_array(np.eye(3, 4)), "^mask must be a square sparse matrix"),
    ],
)  # fmt: skip
def test_a_bad_mask_is_refused_at_once(mask, message):
    with pytest.raises((ValueError, TypeError), match=message):
        af.Attention(SQUARED, 0.8, mask=mask)


@pytest.mark.parametrize(
    "mask, message",
    [
        (LABELS[1:], "^mask must hold one label for each of 260 tokens, got 259"),
        (sparse.eye_array(9), r"^mask must have shape \(260, 260\) for 260 tokens, got \(9, 9\)"),
        (
            np.c_[np.arange(300), np.arange(300)],
            "^mask must have edges between tokens below 260, the number of tokens, got 299",
        ),
        ([[0, 0], [1, 0]], "^mask must have an edge from every token, got none from token 2"),
    ],
)
def test_a_mask_of_other_tokens_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        af.Attention(SQUARED, 0.8, mask=mask).bind(TOKENS)


def test_what_a_mask_says_nothing_of_is_refused():
    flat = af.Attention(SQUARED, 0.8, mask="causal")
    for ask in (
        lambda: flat(TOKENS, None, TOKENS[:2]),
        lambda: flat.weights(TOKENS, TOKENS[:2]),
        lambda: flat.bind(TOKENS).attend(VALUES, TOKENS[:2]),
        lambda: flat.spectrum(TOKENS, 2).at(TOKENS[:2]),
    ):
        with pytest.raises(ValueError, match="^queries must be None under a mask"):
            ask()
    with pytest.raises(ValueError, match="^mask must go both ways for a conserved weight, got 'causal'"):
        flat.bind(TOKENS).conserved_weight()
    with pytest.raises(ValueError, match="^backend must take the layer's mask, got 'cells'"):
        af.Attention(SQUARED, 0.8, mask="causal", backend="cells")
    ring = af.Attention(af.SquaredDistance(af.Circle()), 0.1, mask="causal")
    labelled = af.Attention(af.SquaredDistance(af.Circle()), 0.1, mask=LABELS)
    p, start = af.VonMises(1.0), lambda x: np.cos(x[..., 0])
    for ask in (
        lambda: af.propagate(ring, p, start, 1),
        lambda: af.predicted_bias(ring, p, start, 0.5),
        lambda: af.predicted_noise(labelled, p, start, 0.5, 100),
        lambda: af.predicted_rates(ring, p, 2, 100),
        lambda: af.MeanField(flat, af.Gaussian([0.0, 0.0], np.eye(2))),
    ):
        with pytest.raises(ValueError, match="^layer must have no mask for "):
            ask()


def test_a_layer_says_what_its_mask_is():
    assert "mask='causal'" in repr(af.Attention(SQUARED, 0.8, mask="causal"))
    assert f"mask=<{len(set(LABELS))} labels of 260 tokens>" in repr(af.Attention(SQUARED, 0.8, mask=LABELS))
    assert "mask=<3 edges of 2 tokens>" in repr(af.Attention(SQUARED, 0.8, mask=[[0, 0], [1, 0], [1, 1]]))
    assert "mask" not in repr(af.Attention(SQUARED, 0.8))


@pytest.mark.parametrize("mask", [np.arange(30) % 7, np.argwhere(np.eye(30))], ids=["labels", "edges"])
def test_screening_leaves_each_token_a_key_that_it_sees_or_says_so(mask):
    tokens = np.linspace(0, 1, 30)[:, None]
    f = af.SquaredDistance(af.Euclidean(1))
    with pytest.raises(ValueError, match=r"^fraction must be larger .* token \d+ sees none"):
        af.Attention(f, 0.3, af.Screening(0.1), mask=mask)(tokens)
    np.testing.assert_allclose(af.Attention(f, 0.3, af.Screening(1.0), mask=mask).weights(tokens).sum(axis=1), 1)


def test_triangular_weights_are_not_doubly_stochastic():
    with pytest.raises(ValueError, match="^mask must go both ways for normalization 'sinkhorn', got 'causal'"):
        af.Attention(SQUARED, 0.8, af.Sinkhorn(potentials=2), mask="causal")
