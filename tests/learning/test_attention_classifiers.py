"""Attention classifiers trained by PyTorch: scikit-learn's contract, the network's own weights, its memory, what moons give."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.utils.estimator_checks import parametrize_with_checks

import attnflow as af
from attnflow.checks import AccuracyWarning, ConvergenceWarning
from attnflow.learning import L2Attention, MetricAttention, SelfAttention, propagation

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.optional

from attnflow.learning.networks import PropagationNetwork  # noqa: E402

X, Y = make_moons(120, noise=0.2, random_state=0)
FRESH = np.random.default_rng(1).normal(size=(30, 2))
QUICK = {"epochs": 60, "learning_rate": 0.03, "random_state": 0}
MODELS = {
    "self": SelfAttention(blocks=2, **QUICK),
    "l2": L2Attention(blocks=2, **QUICK),
    "metric": MetricAttention(blocks=2, **QUICK),
    "lipschitz": MetricAttention(lipschitz=0.5, **QUICK),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param].fit(X, Y)


@parametrize_with_checks(
    [kind(epochs=25, learning_rate=0.1, random_state=0) for kind in (SelfAttention, L2Attention, MetricAttention)]
)
def test_they_are_classifiers_of_scikit_learn(estimator, check):
    check(estimator)


def network_of(model, dtype=torch.float32):
    """The trained network, as PyTorch's modules."""
    classes, width = model.parameters_["output.weight"].shape
    network = PropagationNetwork(model.n_features_in_, classes, width, model.blocks, model._attention)
    network.load_state_dict({name: torch.tensor(value) for name, value in model.parameters_.items()})
    return network.to(dtype)


def dense_weights(block, h, seen=None):
    """softmax of the logits of the paper, pair by pair."""
    if hasattr(block, "key"):
        logits = block.query(h) @ block.key(h).T / h.shape[1] ** 0.5
    else:
        image = block.phi(h)
        logits = -((image[:, None] - image) ** 2).sum(dim=-1) / h.shape[1] ** 0.5
    return torch.softmax(logits if seen is None else logits.masked_fill(~seen, -torch.inf), dim=1)


def dense_scores(network, x, seen=None):
    h = network.input(x)
    for block in network.blocks:
        h = h + dense_weights(block, h, seen) @ block.value(h)
    return network.output(h)


def some_edges(size, rng):
    """Each to itself and five others, in any order."""
    others = np.column_stack([np.repeat(np.arange(size), 5), rng.integers(0, size, 5 * size)])
    edges = np.concatenate([np.column_stack([np.arange(size)] * 2), others])
    return rng.permutation(np.unique(edges, axis=0))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("attention", ["self", "l2", "metric"])
def test_scores_and_their_gradient_are_those_of_dense_weights(attention, graph):
    torch.manual_seed(0)
    network = PropagationNetwork(2, 3, 7, 2, attention, 0.9 if attention == "metric" else None).double()
    x = torch.tensor(FRESH + 10, dtype=torch.float64)
    edges = torch.tensor(some_edges(len(x), np.random.default_rng(0))) if graph else None
    seen = torch.zeros(len(x), len(x), dtype=torch.bool) if graph else None
    if graph:
        seen[edges[:, 0], edges[:, 1]] = True
    scores, dense = network(x, edges), dense_scores(network, x, seen)
    torch.testing.assert_close(scores, dense, rtol=0, atol=1e-12)
    cotangent = torch.randn_like(scores)
    pulled, expected = (torch.autograd.grad((s * cotangent).sum(), [*network.parameters()]) for s in (scores, dense))
    for ours, theirs in zip(pulled, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    apart = 1e3 * x  # whose similarities underflow
    torch.testing.assert_close(network(apart, edges), dense_scores(network, apart, seen), rtol=1e-9, atol=0)


def test_what_is_exported_has_the_weights_and_scores_of_the_network(model):
    network, x = network_of(model), torch.tensor(X, dtype=torch.float32)
    weights = dense_weights(network.blocks[0], network.input(x)).detach().numpy()
    np.testing.assert_allclose(model.attention(X), weights, atol=1e-6)
    layer = af.Attention(model.pseudometric_, model.epsilon_)
    np.testing.assert_allclose(layer.weights(X, FRESH), model.attention(FRESH), rtol=1e-9)
    expected = torch.softmax(network(x), dim=1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_history_is_of_the_parameters_before_each_step(name):
    before, after = (clone(MODELS[name]).set_params(epochs=epochs).fit(X, Y) for epochs in (7, 8))
    p = before.predict_proba(X)[np.arange(len(X)), Y]
    assert after.history_["loss"][-1] == pytest.approx(-np.log(p).mean(), rel=1e-5)
    assert after.history_["accuracy"][-1] == pytest.approx(before.score(X, Y), rel=1e-6)
    assert [len(values) for values in after.history_.values()] == [after.n_iter_] * 2 == [8, 8]


def test_a_prediction_does_not_see_the_others_predicted(model):
    together = model.predict_proba(FRESH)
    np.testing.assert_allclose(np.vstack([model.predict_proba(x[None]) for x in FRESH]), together, rtol=1e-12)


@pytest.mark.parametrize("name", ["l2", "metric", "lipschitz"])
def test_the_jacobian_of_the_learned_map_is_exact(name):
    f, step = MODELS[name].fit(X, Y).pseudometric_, 1e-3
    shifts = step * np.eye(2)
    near, far = (np.stack([f.phi(FRESH + s * e) - f.phi(FRESH - s * e) for e in shifts], axis=-1) for s in (1, 2))
    np.testing.assert_allclose(f.jacobian(FRESH), (8 * near - far) / (12 * step), rtol=0, atol=1e-9)
    np.testing.assert_allclose(f.phi(FRESH[0]), f.phi(FRESH)[0], rtol=1e-14)


def test_a_bounded_branch_makes_the_map_injective():
    model = MetricAttention(lipschitz=0.3, epochs=40, learning_rate=0.1, random_state=0).fit(X, Y)
    norms = [np.linalg.norm(model.parameters_[f"blocks.0.{part}.weight"], 2) for part in ("hidden", "outer")]
    assert np.prod(norms) == pytest.approx(0.3, rel=1e-5)  # as large as it may be after such steps
    h = model.states_[0]
    phi = model.pseudometric_.phi(X)
    moved, apart = (np.linalg.norm(a[:, None] - a, axis=-1)[np.triu_indices(len(X), 1)] for a in (phi, h))
    assert (moved >= (1 - 0.3) * apart - 1e-6).all()
    free = MetricAttention(epochs=40, learning_rate=0.1, random_state=0).fit(X, Y)
    assert np.prod([np.linalg.norm(free.parameters_[f"blocks.0.{p}.weight"], 2) for p in ("hidden", "outer")]) > 1


def test_within_the_bound_nothing_is_changed():
    free, bounded = (MetricAttention(width=1, lipschitz=c, epochs=3, random_state=0).fit(X, Y) for c in (None, 0.99))
    assert all((value == bounded.parameters_[name]).all() for name, value in free.parameters_.items())


@pytest.mark.parametrize("kind", [SelfAttention, L2Attention, MetricAttention])
def test_weight_decay_is_added_to_the_gradient(kind):
    """Where it is all there is of it, Adam's first step is the learning rate towards zero."""
    model = kind(weight_decay=1e6, learning_rate=1e-3, epochs=1, random_state=0).fit(X, Y)
    start = propagation.initial(propagation.shapes(kind._attention, 2, 2, 10, 1), np.random.RandomState(0))
    for name, value in start.items():
        np.testing.assert_allclose(model.parameters_[name], value - 1e-3 * np.sign(value), rtol=0, atol=1e-6)


@pytest.mark.parametrize("graph", [False, True])
def test_a_seed_gives_the_same_bits_again(graph):
    edges = some_edges(len(X), np.random.default_rng(0)) if graph else None
    first, again, other = (MetricAttention(**QUICK | {"random_state": seed}).fit(X, Y, edges) for seed in (0, 0, 1))
    for name, value in first.parameters_.items():
        np.testing.assert_array_equal(value, again.parameters_[name])
        assert (value != other.parameters_[name]).any()


def test_moons_are_told_apart_by_a_metric_and_not_by_inner_products():
    """400 tokens and 600 epochs at the paper's rate; nobody can do better than .9707."""
    (train, labels), (test, truth) = (make_moons(size, noise=0.2, random_state=seed) for size, seed in ((400, 1), (4000, 2)))
    metric, self_attention = (
        kind(random_state=1).fit(train, labels).score(test, truth) for kind in (MetricAttention, SelfAttention)
    )
    assert metric > 0.955 and self_attention < 0.9


def test_training_at_ten_thousand_tokens_holds_no_matrix_of_pairs():
    code = """
import resource, torch
from attnflow.learning.networks import PropagationNetwork
torch.set_num_threads(1)
network = PropagationNetwork(2, 2, 10, 1, "metric")
def step(size):
    network(torch.randn(size, 2)).square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = step(100)
print(step(10_000) - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown * 1024 < 1e8  # the weights alone would take 4e8 in float32


def test_training_stops_where_the_loss_stalls():
    model = MetricAttention(**QUICK | {"epochs": 500, "tol": 1e-3, "n_iter_no_change": 5}).fit(X, Y)
    loss = model.history_["loss"]
    assert model.n_iter_ == len(loss) < 500
    lowest = np.minimum.accumulate(loss)
    stalled = loss[1:] >= lowest[:-1] - 1e-3
    assert stalled[-5:].all() and not any(stalled[k : k + 5].all() for k in range(len(stalled) - 5))


def test_an_interrupted_training_keeps_what_it_learned(monkeypatch):
    original, calls = torch.nn.functional.cross_entropy, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after 20 of 60 epochs"):
        model = MetricAttention(**QUICK).fit(X, Y)
    monkeypatch.undo()
    whole = MetricAttention(**QUICK | {"epochs": 20}).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(FRESH), whole.predict_proba(FRESH))


@pytest.mark.parametrize("kind", [SelfAttention, L2Attention, MetricAttention])
def test_on_edges_tokens_see_their_neighbours_alone(kind):
    rng = np.random.default_rng(3)
    edges = some_edges(len(X), rng)
    model = kind(**QUICK).fit(X, Y, edges=np.concatenate([edges, edges[::3]]))  # twice is once
    once = kind(**QUICK).fit(X, Y, edges=edges)
    assert all((value == once.parameters_[name]).all() for name, value in model.parameters_.items())
    network = network_of(model)
    seen = torch.zeros(len(X), len(X), dtype=torch.bool)
    seen[edges[:, 0], edges[:, 1]] = True
    expected = torch.softmax(dense_scores(network, torch.tensor(X, dtype=torch.float32), seen), dim=1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X, edges=edges), expected, atol=1e-5)
    assert ((model.attention(X, edges) > 0) == seen.numpy()).all()
    fresh = some_edges(len(FRESH), rng)  # another graph: two parts of a union don't see each other
    union = np.concatenate([edges, len(X) + fresh])
    apart = model.predict_proba(FRESH, edges=fresh)
    np.testing.assert_allclose(model.predict_proba(np.vstack([X, FRESH]), edges=union)[len(X) :], apart, rtol=1e-12)
    assert model.score(FRESH, model.predict(FRESH, fresh), edges=fresh) == 1.0


def test_a_rate_that_loses_the_loss_is_named():
    with pytest.raises(ValueError, match="^learning_rate must keep the loss finite"):
        MetricAttention(**QUICK).fit(1e38 * X, Y)


def test_tokens_that_float32_blurs_are_reported():
    with pytest.warns(AccuracyWarning, match="^X has entries up to 1e\\+06 but a spread of .*: subtract the mean"):
        MetricAttention(**QUICK | {"epochs": 1}).fit(X / 100 + 1e6, Y)
