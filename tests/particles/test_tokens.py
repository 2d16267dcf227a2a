"""Finite tokens: propagation, clustering, flows, and what interrupts them."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import attnflow as af

LINE = af.Euclidean(1)
GAUSS = af.Gaussian([0.0], [[1.0]])


def line_layer(normalization="softmax", **options):
    return af.Attention(af.SquaredDistance(LINE), 0.1, normalization, **options)


@pytest.mark.parametrize(
    "normalization, kappa",
    [("softmax", 0.9090909091), ("sinkhorn", 0.9512492197), (af.DensityCorrected(0.5), 0.9482758621), ("column", 0.9909909910)],
    ids=str,
)
def test_gaussian_tokens_contract_by_kappa(normalization, kappa):
    # least-squares slope of A x against x over 6000 tokens; the O(1/N) bias and the noise stay below 0.4%
    slopes = []
    for seed in range(2):
        x = GAUSS.sample(6000, rng=seed)
        x = (x - x.mean()) / x.std()  # the closed form's variance is the tokens' own
        slopes.append(float(np.sum(x * line_layer(normalization)(x)) / np.sum(x * x)))
    assert np.mean(slopes) == pytest.approx(kappa, rel=0.004)


@pytest.mark.parametrize(
    "normalization, variances",
    [("softmax", [0.8264462810, 0.6576629928, 0.2056881452]), ("sinkhorn", [0.9048750780, 0.8102481564, 0.5306710536])],
)
def test_gaussian_tokens_lose_variance_layer_by_layer(normalization, variances):
    # tokens at the quantiles: the clustering would amplify the noise of random ones (backward heat)
    x = norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None]
    run = af.evolve(line_layer(normalization), x / x.std(), layers=5)
    np.testing.assert_allclose(run.y[[1, 2, 5]].var(axis=(1, 2)), variances, rtol=0.004)


def test_the_flow_of_gaussian_tokens_obeys_its_conserved_quantity():
    # Sigma + s ln Sigma falls by 2 s per unit of time, for infinitely many tokens
    for t, literal in zip([1.0, 2.0, 5.0], [0.8198619328, 0.6440048952, 0.1745528003]):
        assert brentq(lambda v: v + 0.1 * np.log(v) - 1 + 0.2 * t, 1e-3, 1) == pytest.approx(literal, abs=1e-10)
    x = GAUSS.sample(2000, rng=0)
    run = af.evolve_continuous(line_layer(), (x - x.mean()) / x.std(), [1.0, 2.0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(run.y.var(axis=(1, 2)), [0.8198619328, 0.6440048952], rtol=0.02)
    np.testing.assert_array_equal(run.layers, run.t)


@pytest.mark.parametrize("method", ["RK45", "DOP853", "LSODA"])
def test_equiangular_tokens_follow_their_ode(method):
    # 8 tokens with equal inner products rho, beta = 4: literal rho(1, 2, 4, 8) from rho(0) = 0
    run = af.evolve_continuous(
        af.Attention(af.DotProduct(), 1 / 8.0), np.eye(8), [1.0, 2.0, 4.0, 8.0], method, 1e-10, 1e-12, constrain="sphere"
    )
    rho = [y[0] @ y[1] for y in run.y]
    np.testing.assert_allclose(rho, [0.0383792759, 0.0936521340, 0.3316838380, 0.9979261246], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(run.y, axis=-1), 1, atol=1e-14)


def test_small_residual_steps_are_the_flow_to_first_order():
    x = np.random.default_rng(0).normal(size=(12, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    V = np.array([[0.5, 0.3, 0.0], [-0.3, 1.0, 0.2], [0.1, 0.0, -0.5]])
    for constrain in (None, "sphere"):
        flow = af.evolve_continuous(af.Attention(af.DotProduct(), 0.25), x, 1.0, value_matrix=V, constrain=constrain).y[-1]
        errors = []
        for steps in (20, 40, 80):
            layer = af.Attention(af.DotProduct(), 0.25, residual=1 / steps)
            errors.append(np.abs(af.evolve(layer, x, steps, V, constrain).y[-1] - flow).max())
        order = np.polyfit(np.log([20, 40, 80]), np.log(errors), 1)[0]
        assert order == pytest.approx(-1, abs=0.1)


def test_plain_layers_on_the_sphere_normalise_the_mean():
    x = af.Uniform(af.Sphere(2)).sample(20, rng=0)
    layer = af.Attention(af.DotProduct(), 0.1)
    mean = layer(x)
    run = af.evolve(layer, x, 1, constrain="sphere")
    np.testing.assert_allclose(run.y[1], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-15)


def test_clustering_raises_the_interaction_energy():
    x = af.Uniform(af.Sphere(2)).sample(30, rng=1)
    run = af.evolve(af.Attention(af.DotProduct(), 1 / 8.0), x, 30, constrain="sphere")
    energy = [np.exp(4 * y @ y.T).mean() / 8 for y in run.y]
    assert (np.diff(energy) > -1e-12).all() and energy[-1] > 1.5 * energy[0]


def test_isolated_and_vanishing_tokens_are_reported():
    with pytest.warns(af.checks.IsolatedTokensWarning, match="3 of 3"):
        run = af.evolve(af.Attention(af.SquaredDistance(LINE), 1e-4), [[0.0], [1.0], [2.0]], 2)
    assert run.stats["isolated"] == 3
    run = af.evolve(af.Attention(af.DotProduct(), 1e20), [[1.0, 0.0], [-1.0, 0.0]], 2, constrain="sphere")
    assert run.status == -1 and "its attended mean vanishes" in run.message and np.isfinite(run.y).all()
    start = af.evolve_continuous(line_layer(), [[0.5]], 0.0)
    np.testing.assert_array_equal(start.y, [[[0.5]]])


def test_negative_value_matrix_spreads_tokens():
    x = GAUSS.sample(300, rng=0)
    assert af.evolve(line_layer(), x, 1, [[-1.0]]).y[1].var() > x.var() > af.evolve(line_layer(), x, 1).y[1].var()


def test_propagation_keeps_what_save_every_asks_for():
    x = GAUSS.sample(50, rng=0)
    run = af.propagate(line_layer(residual=0.5), x, x[:, 0], 7, save_every=3)
    np.testing.assert_array_equal(run.layers, [0, 3, 6, 7])
    np.testing.assert_allclose(run.t, run.layers * 0.025)
    assert run.y.shape == (4, 50, 1)
    layer, h = line_layer(residual=0.5), x
    for _ in range(7):
        h = layer(x, h)
    np.testing.assert_array_equal(run.y[-1], h)


def test_an_interrupted_run_returns_its_layers(monkeypatch):
    x, calls = GAUSS.sample(50, rng=0), []
    real = af.attention.BoundLayer.step

    def step(self, values):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(af.attention.BoundLayer, "step", step)
    run = af.propagate(line_layer(), x, x, 10)
    assert run.status == 1 and "interrupted after 3 of 10" in run.message and len(run.y) == 4


def averaging():
    """A layer whose weights are all equal, however far away tokens are: x - mean grows by (1 + a) with V = -1."""
    return af.Attention(af.PseudoMetric(lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1]), 1), 1.0)


@pytest.mark.parametrize("save_every", [1, 90])
def test_tokens_that_grow_beyond_numbers_leave_the_layers_that_were_done(save_every):
    run = af.evolve(averaging(), [[-1.0], [1.0]], 2000, value_matrix=[[-1.0]], save_every=save_every)
    assert run.status == -1 and "fewer layers" in run.message
    last = run.layers[-1]
    assert 1000 < last < 1024 and f"after {last} of 2000" in run.message
    np.testing.assert_array_equal(run.y[:, 1, 0], 2.0**run.layers)


@pytest.mark.parametrize("method", ["RK45", pytest.param("LSODA", marks=pytest.mark.slow)])
def test_a_flow_that_grows_beyond_numbers_says_how_far_it_came(method):
    run = af.evolve_continuous(averaging(), [[-1.0], [1.0]], [1.0, 5.0, 5000.0], method, 1e-3, value_matrix=[[-1.0]])
    assert run.status == -1 and "fewer layers" in run.message
    assert run.t[:2].tolist() == [1.0, 5.0] and 300 < run.t[2] < 720
    np.testing.assert_allclose(np.log(run.y[:, 1, 0]), run.t, rtol=1e-2)  # dx/dt = x


def test_an_interrupted_flow_returns_how_far_it_came(monkeypatch):
    calls, real = [], af.attention.BoundLayer.attend

    def attend(self, values):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(af.attention.BoundLayer, "attend", attend)
    run = af.evolve_continuous(line_layer(), GAUSS.sample(20, rng=0), [0.01, 100.0])
    assert run.status == 1 and "interrupted" in run.message and run.t[0] == 0.01 < run.t[-1] < 100 and len(run.t) == 2


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda x: af.evolve(line_layer(), x, 10**12, save_every=10**12), "layers must end within 30 days.* 1.00e.12 layers"),
        (lambda x: af.evolve(line_layer(), x, 10**10), "layers must fit into memory.* bytes"),
        (lambda x: af.propagate(line_layer(), x, x, 10**12), "layers must fit into memory.* bytes"),
        (lambda x: af.propagate(line_layer("column"), x, x, 10**14, save_every=10**14), "layers must end within 30 days"),
        (lambda x: af.propagate(line_layer(), x, x, 10**18, save_every=10**18), "layers must end within 30 days"),
        (lambda x: af.evolve_continuous(line_layer(), x, 1e300), "t must end within 30 days"),
        (lambda x: af.evolve_continuous(line_layer(), x, 1e30, "DOP853", value_matrix=[[1e-3]]), "t must end within 30 days"),
        (lambda x: af.evolve_continuous(line_layer(), x, 0.1, value_matrix=[[1e300]]), "t must end within 30 days"),
        (lambda x: af.langevin(GAUSS, x, 1e308, 10), "t must end within 30 days"),
        (lambda x: af.feynman_kac(GAUSS, np.cos, x, 1e308, 10), "t must end within 30 days"),
        (lambda x: af.langevin(GAUSS, x, 1e300, 10), "t must end within 30 days"),
        (lambda x: af.langevin(GAUSS, x, 1.0, 10, steps=10**13), "steps must end within 30 days"),
        (lambda x: af.langevin(GAUSS, x, 1.0, 10**13), "paths must fit into memory"),
        (lambda x: af.feynman_kac(GAUSS, np.cos, x, 1.0, 10**15), "paths must end within 30 days"),
        (lambda x: af.feynman_kac(GAUSS, np.cos, x, 1e300, 10), "t must end within 30 days"),
    ],
)
def test_what_cannot_fit_or_end_is_refused_at_once(build, message, monkeypatch):
    monkeypatch.setattr(af.capacity, "available", lambda: 2**33)
    with pytest.raises(ValueError, match=message):
        build(GAUSS.sample(5, rng=0))


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda x: af.evolve(af.Attention(af.SquaredDistance(af.Circle()), 0.1), x, 1),
            "tokens must live on Euclidean or Sphere",
        ),
        (lambda x: af.evolve(line_layer(), x, 1, constrain="ball"), "constrain must be None or 'sphere'"),
        (lambda x: af.evolve(line_layer(), x, 1, np.eye(2)), "value_matrix must have shape"),
        (lambda x: af.evolve(af.Attention(af.DotProduct(), 0.1), 2 * np.eye(3), 1, constrain="sphere"), "tokens must"),
        (lambda x: af.evolve(af.Attention(af.SquaredDistance(af.Sphere(2)), 0.1), np.eye(3), 1), "constrain must be 'sphere'"),
        (lambda x: af.evolve_continuous(line_layer(), x, -1.0), "t must be a time"),
        (lambda x: af.evolve_continuous(line_layer(), x, 1.0, "Euler"), "method must be one of"),
        (lambda x: af.evolve_continuous(line_layer(residual=0.5), x, 1.0), "layer must have residual = 1"),
        (lambda x: af.propagate("layer", x, x, 1), "layer must be an attnflow.Attention"),
        (lambda x: af.propagate(line_layer(), x, x, 3, save_every=0), "save_every must be at least 1"),
    ],
)
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(GAUSS.sample(5, rng=0))
