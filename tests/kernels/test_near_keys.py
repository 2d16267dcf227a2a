"""Weights that choose their keys: every engine against the definition written here, row by row, for each pseudo-metric."""

import numba
import numpy as np
import pytest
from pseudometrics import of_each_kind
from scipy.optimize import brentq

import attnflow as af
from attnflow.kernels import near
from attnflow.kernels.near import compiled, select, thresholds

RNG = np.random.default_rng(5)
FLAT, UNIT = RNG.normal(size=(211, 3)), RNG.normal(size=(211, 3))
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
PSEUDOMETRICS = of_each_kind(FLAT, UNIT) | {
    "one-way": (af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1) * (1.5 + np.sin(y[..., 0])), 3), FLAT),
}
CELLED = ["squared", "wrapped", "power", "log", "mahalanobis"]
PLACES = [(name, "numba") for name in PSEUDOMETRICS] + [(name, "cells") for name in CELLED]
LAWS = [af.TopK(9), af.Sparse(), af.Sparse(alpha=1.5), af.Sparse(alpha=3.0), af.Perplexity(12.5)]
EPSILON = 0.3


def chosen_by_definition(rule, row, epsilon=EPSILON):
    """The weights of one row of f, as the docstrings of the rules say."""
    g = (row - row.min()) / (2 * epsilon)
    if isinstance(rule, af.TopK):
        weights = np.zeros(len(row))
        nearest = np.argsort(row, kind="stable")[: rule.k]
        weights[nearest] = np.exp(-g[nearest])
    elif isinstance(rule, af.Sparse):
        weigh = lambda T: np.maximum(T - (rule.alpha - 1) * g, 0) ** (1 / (rule.alpha - 1))  # noqa: E731
        weights = weigh(brentq(lambda T: weigh(T).sum() - 1, 0, 1, xtol=1e-16, rtol=1e-15))
    else:
        softmax = lambda beta: np.exp(-beta * g) / np.exp(-beta * g).sum()  # noqa: E731
        entropy = lambda beta: -(softmax(beta) @ np.log(np.maximum(softmax(beta), 1e-300)))  # noqa: E731
        low, high = np.log(1e-3 / g.max()), np.log(700 / g[g > 0].min())
        excess = lambda log_beta: entropy(np.exp(log_beta)) - np.log(rule.target)  # noqa: E731
        weights = softmax(np.exp(brentq(excess, low, high, xtol=1e-15, rtol=1e-15)))
    return weights / weights.sum()


def defined(f, rule, tokens, queries=None):
    return np.stack([chosen_by_definition(rule, row) for row in f(tokens if queries is None else queries, tokens)])


def error_of(engine, name, rule):
    f, tokens = PSEUDOMETRICS[name]
    layer = af.Attention(f, EPSILON, rule, backend=engine)
    assert layer.bind(tokens).stats["engine"] == engine
    return np.abs(layer.weights(tokens) - defined(f, rule, tokens)).max()


@pytest.mark.parametrize("rule", LAWS, ids=str)
@pytest.mark.parametrize("name, engine", [("squared", "reference"), ("one-way", "reference"), *PLACES])
def test_weights_equal_their_definition(name, engine, rule):
    assert error_of(engine, name, rule) < 1e-11


@pytest.mark.parametrize("engine", ["numba", "cells"])
@pytest.mark.parametrize("rule", LAWS, ids=str)
def test_a_perturbed_kernel_is_noticed(monkeypatch, rule, engine):
    """A threshold of f that is off by 1e-9 of itself, or a temperature; and a list that lacks its last key."""
    kernel = {af.TopK: "nearest", af.Sparse: "entmax", af.Perplexity: "calibrated"}[type(rule)]
    honest = getattr(thresholds, kernel)

    def off(*arguments):
        honest(*arguments)
        numbers = arguments[-3]
        if kernel == "nearest":
            numbers[:, 2] -= 1  # the last of ties
            numbers[:, 0] = numbers[:, 1] * (1 - 1e-9)
        else:
            numbers[:, 1] *= 1 + 1e-9

    monkeypatch.setattr(thresholds, kernel, off)
    assert error_of(engine, "squared", rule) > 1e-11


def test_keys_lost_from_lists_are_noticed(monkeypatch):
    honest = compiled.within_cells

    def loses(*arguments):
        honest(*arguments)
        arguments[-1][::50] = np.inf

    monkeypatch.setattr(compiled, "within_cells", loses)
    assert not error_of("cells", "squared", af.Sparse()) < 1e-11


@pytest.mark.parametrize("engine", ["reference", "numba", "cells"])
@pytest.mark.parametrize("rule", LAWS, ids=str)
def test_queries_off_the_tokens_and_the_transpose(rule, engine):
    f, tokens = PSEUDOMETRICS["wrapped"]
    layer = af.Attention(f, EPSILON, rule, backend=engine)
    queries = np.concatenate([tokens[:7] + 0.1, 40 + tokens[:2], tokens[:1]])
    S, values = defined(f, rule, tokens, queries), np.cos(tokens)
    np.testing.assert_allclose(layer(tokens, values, queries), S @ values, atol=1e-11)
    A, v = layer.operator(tokens), RNG.normal(size=(len(tokens), 2))
    np.testing.assert_allclose(A.H @ v, defined(f, rule, tokens).T @ v, atol=1e-11)


@pytest.mark.parametrize("name", ["lattice", "ring", "right angles"])
@pytest.mark.parametrize("engine", ["reference", "numba", "cells"])
def test_ties_go_by_the_number_of_the_key(name, engine):
    """What is equal in exact arithmetic is equal, in whichever order and however an engine rounds; copies too."""
    side = np.arange(9.0)
    if name == "right angles":
        turns = np.pi / 4 * np.arange(40)
        f, tokens = af.DotProduct(), 0.37 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        steps = np.round((turns[:, None] - turns) / (np.pi / 4)) % 8
        exact = np.minimum(steps, 8 - steps)  # in the order of -cos
    elif name == "ring":
        f, tokens = af.SquaredDistance(af.Circle()), (2 * np.pi / 60) * RNG.permutation(np.arange(60.0))[:, None]
        steps = np.round((tokens - tokens.T) / (2 * np.pi / 60)) % 60
        exact = np.minimum(steps, 60 - steps) ** 2
    else:
        f = af.SquaredDistance(af.Euclidean(2))
        whole = RNG.permutation(np.concatenate([np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), [[3.0, 3.0]] * 4]))
        tokens = 0.1 * whole
        exact = ((whole[:, None] - whole) ** 2).sum(axis=-1)
    if engine == "cells" and name == "right angles":
        pytest.skip("no distance")
    for k in (1, 3, 4, 7, 20):
        kept = np.zeros_like(exact)
        np.put_along_axis(kept, np.argsort(np.round(exact, 9), axis=1, kind="stable")[:, :k], 1 / k, axis=1)
        S = af.Attention(f, 1e9, af.TopK(k), backend=engine).weights(tokens)
        np.testing.assert_allclose(S, kept, atol=1e-8)


@pytest.mark.parametrize("engine", ["numba", "cells"])
@pytest.mark.parametrize("rule", LAWS, ids=str)
def test_rows_widen_until_they_see_enough(rule, engine):
    """Pairs of tokens far apart, in an order that a regular sample sees one side of."""
    f = af.SquaredDistance(af.Euclidean(1))
    tokens = np.repeat(10.0 ** np.arange(-3, 7, 0.5), 12)[:, None] * (1 + 1e-3 * RNG.random((240, 1)))
    tokens[::2] *= -1
    layer = af.Attention(f, 1e4, rule, backend=engine)
    S = np.stack([chosen_by_definition(rule, row, 1e4) for row in f(tokens, tokens)])
    np.testing.assert_allclose(layer.weights(tokens), S, atol=1e-11)


def test_bounds_that_hold_too_few_are_widened(monkeypatch):
    honest = near.sources._OfCells.guess
    monkeypatch.setattr(near.sources._OfCells, "guess", lambda self, rank: 1e-3 * honest(self, rank))
    for rule in LAWS:
        assert error_of("cells", "squared", rule) < 1e-11


@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
@pytest.mark.parametrize("engine", ["numba", "cells"])
@pytest.mark.parametrize("rule", LAWS, ids=str)
def test_weights_that_are_not_held_are_the_same_bits(monkeypatch, rule, engine):
    f, tokens = PSEUDOMETRICS["squared"]
    values, results = RNG.normal(size=(len(tokens), 3)), []
    for most, piece in ((select.HELD, select._PIECE), (0, select._PIECE), (0, 500)):
        monkeypatch.setattr(select, "HELD", most)
        monkeypatch.setattr(select, "_PIECE", piece)
        bound = af.Attention(f, EPSILON, rule, backend=engine).bind(tokens)
        assert bound.selection.held == (most > 0)
        results += [(bound.step(values), bound.weights(), bound.attend_transposed(values)) for _ in range(2)]
    for k, (step, weights, transposed) in enumerate(results):
        if k < 4:  # the same pieces
            np.testing.assert_array_equal(step, results[0][0])
            np.testing.assert_array_equal(weights, results[0][1])
        np.testing.assert_allclose(weights, results[0][1], atol=1e-14)
        np.testing.assert_allclose(step, results[0][0], atol=1e-13)
        np.testing.assert_allclose(transposed, results[0][2], atol=1e-13)


@pytest.mark.parametrize("engine", ["numba", "cells"])
@pytest.mark.parametrize("rule", [af.TopK(9), af.Sparse(alpha=1.5), af.Perplexity(12.5)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(two_threads, rule, engine):
    f, tokens = af.SquaredDistance(af.Torus([1.0, 1.0])), RNG.random((2000, 2))
    results = []
    for threads in (1, 2, 2):
        numba.set_num_threads(threads)
        bound = af.Attention(f, 0.01, rule, backend=engine).bind(tokens)
        results += [bound.step(tokens), bound.step(tokens)]
    assert all(np.array_equal(result, results[0]) for result in results)


def test_numbers_of_a_row_with_masses():
    """Nodes count by their mass: two of mass one are one of mass two, for every law that takes masses."""
    f, tokens = PSEUDOMETRICS["squared"]
    twice = np.concatenate([tokens, tokens[:50]])
    mass = np.where(np.arange(len(tokens)) < 50, 2.0, 1.0)
    for law in (near.Entmax(1.0, EPSILON, 20.0), near.Entmax(2.0, EPSILON, 20.0), near.Calibrated(12.5, 1e-12)):
        dense = near.DenseSelection(f, tokens, twice, law).weights
        dense[:, :50] += dense[:, len(tokens) :]
        for engine in ("numba", "cells"):
            S = near.Selection(near.source(f, None, tokens, engine), law, mass).matrix().toarray()
            np.testing.assert_allclose(S, dense[:, : len(tokens)], atol=1e-11)


@pytest.mark.parametrize("order", ["ascending", "falling and rising", "alike", "with infinities", "random"])
def test_the_key_at_a_place_is_found_without_sorting_whatever_the_order(order):
    t = np.linspace(-1, 1, 301)
    values = {
        "ascending": t,
        "falling and rising": np.abs(t),
        "alike": np.ones(301),
        "with infinities": np.where(t > 0.3, np.inf, -t),
        "random": np.random.default_rng(2).integers(0, 40, 301).astype(float),
    }[order]
    places = [0, 1, 150, 200, 299, 300]
    assert [thresholds.smallest(values.copy(), k) for k in places] == list(np.sort(values)[places])
