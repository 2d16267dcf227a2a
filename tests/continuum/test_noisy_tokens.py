"""Noisy tokens on spheres: thresholds, branches, hysteresis, and that their states stand still under the layer itself."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import iv

import attnflow as af


def noisy(beta, dim=1, normalization="none", noise=1.0):
    return af.NoisyTokens(af.Attention(af.DotProduct(), 1 / (2 * beta), normalization), dim, noise)


@pytest.mark.parametrize(
    "normalization, dim, thresholds",
    [
        ("none", 1, (0.884707, 0.628679, 0.204929)),
        ("none", 2, (1.359141, 1.026291, 0.390515)),
        ("softmax", 1, (1.12010, 1.43313, 2.31609)),
        ("softmax", 2, (1.597264, 1.861107, 2.664282)),
    ],
)
def test_thresholds_and_where_the_branch_starts(normalization, dim, thresholds):
    for beta, literal in zip((1.0, 2.0, 4.0), thresholds):
        tokens = noisy(beta, dim, normalization)
        assert tokens.threshold == pytest.approx(literal, abs=6e-6)
        assert tokens.branch([1e-4]).coupling[0] == pytest.approx(tokens.threshold, rel=1e-7)
        assert noisy(beta, dim, normalization, noise=0.5).threshold == pytest.approx(tokens.threshold / 4, rel=1e-14)


def test_the_order_at_one_and_a_half_thresholds():
    tokens = noisy(1.0)
    states = tokens.states(1.5 * tokens.threshold)
    assert states.order[1] == pytest.approx(0.815, abs=5e-4)
    assert states.stable.tolist() == [False, True]
    assert tokens.states(0.9 * tokens.threshold).order.tolist() == [0.0] == tokens.states(-3.0).order.tolist()


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_the_branch_on_the_circle_leaves_with_the_curvature_of_the_expansion(beta):
    a, b = iv(1, beta) / iv(0, beta), iv(2, beta) / iv(0, beta)
    none = (1 - 2 * b / a) / (2 * (1 - b / a))
    softmax = (1 - a) / 2 * (1 + 2 * a - b * (1 - a) / (a - b))  # never negative: no jump
    for normalization, curvature in (("none", none), ("softmax", softmax)):
        tokens = noisy(beta, 1, normalization)
        R = np.array([0.02, 0.04])
        found = (tokens.branch(R).coupling / tokens.threshold - 1) / R**2
        assert (4 * found[0] - found[1]) / 3 == pytest.approx(curvature, abs=1e-5)


@pytest.mark.parametrize("dim, literal", [(1, 2.446918), (2, 1.816155), (3, 1.575257)])
def test_the_transition_of_usa_jumps_beyond_its_beta_and_that_of_softmax_never(dim, literal):
    d = dim + 1
    critical = brentq(lambda b: iv(d / 2 + 1, b) / iv(d / 2, b) - 1 / d, 0.1, 10)
    assert critical == pytest.approx(literal, abs=1e-6)
    below, above = noisy(critical - 0.01, dim), noisy(critical + 0.01, dim)
    R = [0.01]
    assert below.branch(R).coupling[0] > below.threshold and above.branch(R).coupling[0] < above.threshold
    assert below.hysteresis == (below.threshold, below.threshold) and above.hysteresis[0] < above.threshold
    for beta in (0.5, 4.0, 9.0):
        low, high = noisy(beta, dim, "softmax").hysteresis
        assert low == high


def test_beyond_it_three_states_where_there_is_hysteresis_and_stability_turns_at_the_fold():
    tokens = noisy(4.0)
    low, high = tokens.hysteresis
    assert low / high == pytest.approx(0.944397, abs=1e-5)
    states = tokens.states((low + high) / 2)
    assert states.stable.tolist() == [True, False, True] and (np.diff(states.order) > 0).all()
    assert tokens.states(0.999 * low).order.tolist() == [0.0]
    orders = np.arange(0.05, 0.95, 0.05)
    rising = tokens.branch(orders + 1e-4).coupling > tokens.branch(orders).coupling
    np.testing.assert_array_equal(tokens.branch(orders).stable, rising)


@pytest.mark.parametrize(
    "beta, dim, normalization", [(1.0, 1, "none"), (4.0, 1, "none"), (4.0, 2, "softmax"), (9.0, 1, "none")]
)
def test_states_at_the_coupling_of_a_state_hold_it(beta, dim, normalization):
    tokens = noisy(beta, dim, normalization)
    low, high = tokens.hysteresis
    orders, _ = tokens._branch
    couplings = tokens.branch(orders[1:]).coupling
    fold = [] if low == high else orders[1 + couplings.argmin()] + np.array([-1e-3, -1e-5, 0.0, 1e-5, 1e-3])
    for R in [1e-5, 1e-4, 3e-3, *np.arange(0.05, 1, 0.05).round(2), 0.995, *fold]:
        found = tokens.states(tokens.branch([R]).coupling[0]).order[1:]
        assert np.abs(found - R).min() < (1e-9 if 0.01 <= R and R not in fold else 1e-6)
        assert len(found) <= 2 and (np.diff(found) > 1e-9).all()
    for share in (1 - 1e-9, 1.0, 1 + 1e-9):  # one ordered state, and beside it that which leaves K#
        assert len(tokens.states(share * high).order) == 1 + (low < high or share > 1) + (share < 1 and low < high)


@pytest.mark.parametrize("normalization", ["none", "softmax"])
@pytest.mark.parametrize("dim", [1, 2])
def test_tokens_of_a_state_stand_still_under_the_layer(normalization, dim):
    # K P_x A x = (noise^2 / 2) grad log rho, A x of the layer on quadrature nodes
    noise, order = 0.7, 0.6
    tokens = noisy(2.0, dim, normalization, noise)
    density, coupling = tokens.density(order), tokens.branch([order]).coupling[0]
    nodes = density.grid({1: 200, 2: 40}[dim])
    mass = density.pdf(nodes.points) * nodes.weights
    assert mass @ nodes.points[:, -1] == pytest.approx(order, abs=1e-12)
    x = density.space.probe_points(20)
    target = tokens.layer.bind(nodes.points, np.log(mass)).attend(nodes.points, x).mean
    velocity = target - np.sum(target * x, axis=1, keepdims=True) * x
    np.testing.assert_allclose(coupling * velocity, noise**2 / 2 * density.score(x), atol=2e-6)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.NoisyTokens("layer", 1), "layer must be an attnflow.Attention"),
        (lambda: af.NoisyTokens(af.Attention(af.Cosine(), 0.5), 1), "layer must have f = DotProduct"),
        (lambda: af.NoisyTokens(af.Attention(af.DotProduct(np.eye(2)), 0.5), 1), "layer must have f = DotProduct"),
        (lambda: af.NoisyTokens(af.Attention(af.DotProduct(), 0.5, "sinkhorn"), 1), "normalization 'softmax' or 'none'"),
        (lambda: af.NoisyTokens(af.Attention(af.DotProduct(), 0.5, residual=0.5), 1), "layer must have residual 1"),
        (lambda: af.NoisyTokens(af.Attention(af.DotProduct(), 0.5, mask="causal"), 1), "mask"),
        (lambda: noisy(201.0), "layer must have epsilon at least 0.0025"),
        (lambda: noisy(1.0, dim=0), "dim must be at least 1"),
        (lambda: noisy(1.0, noise=0.0), "noise must be positive"),
        (lambda: noisy(1.0).branch([0.5, 1.0]), r"orders must be in \(0, 0.995\]"),
        (lambda: noisy(1.0).branch(0.5), "orders must have shape"),
        (lambda: noisy(1.0).density(0.0), "order must be in"),
        (lambda: noisy(1.0).states(1e3), "coupling must be at most"),
        (lambda: noisy(25.0, dim=7).hysteresis, "layer must have a larger epsilon"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
