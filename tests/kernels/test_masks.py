"""Sums under a mask: every reduction, ranges by the tiles and edges by the graph engine, against the dense definition."""

import sys
from types import ModuleType

import numba
import numpy as np
import pytest
import sympy
from scipy import sparse

import attnflow as af
from attnflow import kernels
from attnflow.kernels import Edges, Ranges, numba_engine
from attnflow.kernels.registry import ENGINES, Engine

RNG = np.random.default_rng(3)
X, Y = sympy.symbols("x0:3"), sympy.symbols("y0:3")
SKEW = np.array([[1.0, 0.3, 0.0], [-0.2, 1.0, 0.5], [0.0, 0.0, 1.0]])
ADDITIVE = RNG.normal(size=4), RNG.normal(size=4), RNG.normal(size=(4, 3))
PSEUDOMETRICS = {
    "squared": af.SquaredDistance(af.Euclidean(3)),
    "wrapped": af.SquaredDistance(af.Torus([2.0, 3.0, 4.0])),
    "sphere": af.SquaredDistance(af.Sphere(2)),
    "inner": af.DotProduct(SKEW),
    "mahalanobis": af.Mahalanobis(SKEW @ SKEW.T),
    "map": af.SquaredMap(lambda x: np.concatenate([x, np.sin(x)], axis=-1)),
    "log": af.LogDistance(af.Euclidean(3)),
    "expression": af.PseudoMetric(sum(2 - 2 * sympy.cos(a - b) for a, b in zip(X, Y)) + X[0] * Y[1], 3),
    "callable": af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1) + x[..., 0] * y[..., 1], 3),
    **{f"additive {name}": af.Additive(*ADDITIVE, name) for name in ("leaky_relu", "elu", "tanh")},
    "additive callable": af.Additive(*ADDITIVE, np.sin),
}


def causal(size):
    places = np.arange(size)
    return Ranges(places, np.zeros(size, int), places + 1, False)


def blocks(size):
    """Labels, some of which only one token has."""
    labels = np.sort(RNG.integers(0, max(size // 40, 1), size))
    labels[: size // 10] = -1 - np.arange(size // 10)
    order = RNG.permutation(size)
    return Ranges(order, _first(labels), _last(labels), True)


def _first(labels):
    return np.array([np.flatnonzero(labels == label)[0] for label in labels])


def _last(labels):
    return np.array([np.flatnonzero(labels == label)[-1] + 1 for label in labels])


def graph(size):
    there = RNG.random((size, size)) < 5 / size
    there[np.arange(size), RNG.integers(0, size, size)] = True
    matrix = sparse.csr_array(there)
    return Edges(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))


MASKS = {
    "causal": causal,
    "anticausal": lambda size: causal(size).transposed(),
    "labels": blocks,
    "edges": graph,
    "back": lambda size: graph(size).transposed(),
}


def expected(f, tokens, values, bias, seen, epsilon=0.4):
    logits = np.where(seen, -f(tokens, tokens) / (2 * epsilon) + bias, -np.inf)
    top = np.where(seen.any(axis=1), logits.max(axis=1), 0.0)
    weights = np.exp(logits - top[:, None])
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(weights @ values / total[:, None]), top + np.log(total)


def gap(found, exact):
    """Largest difference, and whether those that see nobody are told."""
    (mean, lse), (exact_mean, exact_lse) = found, exact
    blind = exact_lse == -np.inf
    assert (lse[blind] == -np.inf).all() and (mean[blind] == 0).all()
    return max(
        np.abs(mean - exact_mean).max() / max(np.abs(exact_mean).max(), 1), np.abs(lse[~blind] - exact_lse[~blind]).max()
    )


def sample(name, size):
    tokens = RNG.normal(size=(size, 3))
    return tokens / np.linalg.norm(tokens, axis=1)[:, None] if name == "sphere" else tokens


BORDERS = [(name, size) for name in ("squared", "expression", "callable") for size in (1, 2, 255, 256, 700)]  # of tiles


@pytest.mark.parametrize("name, size", [*((name, 257) for name in PSEUDOMETRICS), *BORDERS])
def test_masked_sums_are_those_of_the_definition(name, size):
    f, tokens, bias = PSEUDOMETRICS[name], sample(name, size), 2 * RNG.normal(size=size)
    for kind, make in MASKS.items():
        mask, columns = make(size), 20 if kind == "labels" else 2
        values, engine = RNG.normal(size=(size, columns)), "graph" if isinstance(mask, Edges) else "numba"
        exact = expected(f, tokens, values, bias, mask.dense())
        for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-4)):
            plan = kernels.plan(f, 0.4, None, tokens, "auto", dtype, mask=mask)
            assert plan.engine == engine
            assert gap(plan(values, bias), exact) < tolerance, (kind, dtype)
        assert gap(kernels.plan(f, 0.4, None, tokens, "reference", mask=mask)(values, bias), exact) < 1e-12


@pytest.mark.parametrize("engine", ["numba", "reference"])
def test_what_nobody_sees_can_not_spoil_a_sum(engine):
    """A key of enormous bias, and one beyond the range of f: the shift of a row knows nothing of them."""
    tokens, values = RNG.normal(size=(600, 1)), RNG.normal(size=(600, 1))
    bias = np.r_[np.zeros(599), 1e3]
    tokens[-1] = 1e160
    f, mask = af.SquaredDistance(af.Euclidean(1)), causal(600)
    mean, lse = kernels.plan(f, 0.1, None, tokens, engine, mask=mask)(values, bias)
    exact, exact_lse = kernels.plan(f, 0.1, None, tokens[:-1], engine, mask=causal(599))(values[:-1], bias[:-1])
    np.testing.assert_allclose(mean[:-1], exact, rtol=0, atol=1e-11)  # a bias of 1e3 rounds to 1e-13
    np.testing.assert_allclose(lse[:-1], exact_lse, rtol=0, atol=1e-11)
    assert mean[-1] == values[-1]


def test_keys_taken_out_by_their_bias_leave_a_query_blind():
    bias = np.r_[np.full(3, -np.inf), np.zeros(297)]
    f, tokens = PSEUDOMETRICS["squared"], RNG.normal(size=(300, 3))
    with pytest.raises(ValueError, match="^f must be finite between query 0 and at least one key"):
        kernels.plan(f, 0.4, None, tokens, "numba", mask=causal(300))(tokens, bias)
    edges = np.arange(301), np.r_[0, np.arange(299)]
    with pytest.raises(ValueError, match="^f must be finite between query 0 and"):
        kernels.plan(f, 0.4, None, tokens, mask=Edges(*edges))(tokens, bias)


@pytest.mark.parametrize("kind", ["labels", "edges"])
def test_a_message_names_tokens_by_their_own_numbers(kind):
    size, labels = 400, np.arange(400) % 3
    order = np.argsort(labels, kind="stable")
    codes = labels[order]
    mask = Ranges(order, codes.searchsorted(codes), codes.searchsorted(codes, "right"), True)
    if kind == "edges":
        mask = Edges(np.arange(size + 1), np.roll(np.arange(size), 3))
    f = af.PseudoMetric(lambda x, y: np.where((x[..., 0] == 200) & (y[..., 0] == 197), np.nan, (x - y)[..., 0] ** 2), 1)
    with pytest.raises(ValueError, match="got nan for query 200 and key 197"):
        kernels.plan(f, 1.0, None, np.arange(size)[:, None] * 1.0, mask=mask)()


def test_only_tiles_that_are_seen_are_asked_of_python():
    asked = []

    def f(x, y):
        asked.append(np.broadcast_shapes(x.shape, y.shape))
        return (x - y)[..., 0] ** 2

    tokens = np.linspace(0, 1, 2048)[:, None]
    kernels.plan(af.PseudoMetric(f, 1), 1.0, None, tokens, mask=causal(2048))()
    assert sum(np.prod(shape[:2]) for shape in asked) <= 0.6 * 2048**2
    del asked[:]
    kernels.plan(af.PseudoMetric(f, 1), 1.0, None, tokens, mask=graph(2048))()
    assert sum(np.prod(shape[:-1]) for shape in asked) < 20 * 2048


@pytest.mark.parametrize("name", ["squared", "log", "expression", "additive tanh"])
def test_results_do_not_depend_on_the_number_of_threads(name, two_threads):
    f, tokens = PSEUDOMETRICS[name], sample(name, 9000)
    for mask in (causal(9000), Edges(np.arange(0, 90001, 10), np.tile(np.arange(0, 9000, 900), 9000))):
        results = []
        for threads in (1, 2):
            numba.set_num_threads(threads)
            results.append(kernels.plan(f, 0.4, None, tokens, mask=mask)(tokens[:, :2]))
        for one, two in zip(*results):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("mask, engine", [(causal(257), "numba"), (graph(257), "graph")], ids=["ranges", "edges"])
def test_a_perturbed_engine_is_noticed(monkeypatch, mask, engine):
    module = ModuleType("perturbed_engine")

    def plan(f, epsilon, queries, keys, dtype, rtol, mask):
        honest = kernels.load(engine)(f, epsilon, queries, keys, dtype, rtol, mask)
        return lambda values, bias: honest(values, bias + 1e-9 * (np.arange(len(keys)) == 100))

    module.plan = plan
    monkeypatch.setitem(sys.modules, "perturbed_engine", module)
    monkeypatch.setitem(ENGINES, "perturbed", Engine("perturbed_engine", masks=(type(mask),)))
    f, tokens, values, bias = PSEUDOMETRICS["squared"], sample("squared", 257), RNG.normal(size=(257, 2)), np.zeros(257)
    found = kernels.plan(f, 0.4, None, tokens, "perturbed", mask=mask)(values, bias)
    assert gap(found, expected(f, tokens, values, bias, mask.dense())) > 1e-12


@pytest.mark.parametrize("name", ["cells", "nufft", "cupy"])
def test_engines_without_masks_refuse_them_by_name(name):
    for mask, other in ((Ranges, "numba"), (Edges, "graph")):
        assert f"got {name!r}" in kernels.refusal(name, mask) and f"backend={other!r}" in kernels.refusal(name, mask)


def test_each_kind_of_mask_has_its_engine():
    f, tokens = PSEUDOMETRICS["squared"], sample("squared", 50)
    with pytest.raises(ValueError, match="^backend must take the layer's mask, got 'numba', .* use backend='graph'"):
        kernels.plan(f, 0.4, None, tokens, "numba", mask=graph(50))
    with pytest.raises(ValueError, match="^backend must take the layer's mask, got 'graph', .* use backend='numba'"):
        kernels.plan(f, 0.4, None, tokens, "graph", mask=causal(50))
    with pytest.raises(ValueError, match="got 'graph', which computes nothing but the edges of a mask"):
        kernels.plan(f, 0.4, None, tokens, "graph")
    choice = kernels.choose(f, 0.4, None, tokens, mask=graph(50))
    assert choice.engine == "graph" and "edges" in str(choice) and "numba" in choice.reasons
    assert af.backends()["graph"].startswith("available")


def test_transposed_masks_are_those_of_the_transposed_matrix():
    for make in MASKS.values():
        mask = make(60)
        np.testing.assert_array_equal(mask.transposed().dense(), mask.dense().T)
        assert mask.symmetric == (mask.dense() == mask.dense().T).all()
        np.testing.assert_array_equal(mask.dense([3, 50]), mask.dense()[[3, 50]])
        assert mask.pairs == mask.dense().sum()
        few = mask.dense().sum(axis=1) <= (1 if mask.symmetric or isinstance(mask, Edges) else 30)
        np.testing.assert_array_equal(mask.sociable, mask.dense().diagonal() & ~few)
        labels = sparse.csgraph.connected_components(mask.dense(), directed=False)
        assert mask.parts == labels[0]


def test_tiles_nobody_sees_are_not_computed(monkeypatch):
    """A causal sum takes about half of the time: measured where only pairs count."""
    monkeypatch.setattr("attnflow.kernels.numba_engine.dense.BEGUN", 0.0)
    assert numba_engine.predict(_request(causal(2000))) == pytest.approx(numba_engine.predict(_request(None)) / 2, rel=1e-2)


def _request(mask):
    from attnflow.kernels.costs import Request

    return Request(PSEUDOMETRICS["squared"], 0.4, None, np.zeros((2000, 3)), "float64", 1e-12, 1, 1, mask)
