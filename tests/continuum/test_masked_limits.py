"""The limits on a radius graph and behind a causal mask: constants against quadrature, tokens against the equation."""

import warnings

import numpy as np
import pytest

import attnflow as af
from attnflow.checks import AccuracyWarning

CIRCLE, LINE = af.Circle(), af.Euclidean(1)
P = af.VonMises(0.5)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
GAUSS = af.Density(LINE, lambda x: -(x[..., 0] ** 2) / 1.2 + 0.2 * np.sin(x[..., 0]))
A1, A2, PROJECTION = np.array([1.0, 0.5]), np.array([-0.7, 1.2]), np.array([[0.8], [0.6]])
SIMILARITIES = {
    "additive tanh": af.Additive(A1, A2, PROJECTION, "tanh"),
    "additive leaky": af.Additive(A1, A2, PROJECTION),
    "additive callable": af.Additive(A1, A2, PROJECTION, np.sin, np.cos),
    "your own": af.PseudoMetric(lambda x, y: np.exp(0.3 * x[..., 0]) * np.cos(y[..., 0] + 0.4), 1),
    "dot product": af.DotProduct(),
    "squared": af.SquaredDistance(LINE),
    "power": af.PowerDistance(LINE, 3.0),
}
EDGES = [[0, 0]]  # any: a limit asks for the radius only


def limit_on_edges(f, density, radius, normalization="softmax", epsilon=0.5):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        return af.limit(af.Attention(f, epsilon, normalization, mask=EDGES), density, radius=radius)


def generator_ratio(f, normalization, alpha, radius, x=0.4, epsilon=0.5):
    """One layer's move of sin(1.3 x) + x^2 with infinitely many tokens on the line, over that of its limit."""
    K = lambda a, b: np.exp(-f(np.ravel(a)[:, None], np.ravel(b)[:, None]) / (2 * epsilon))  # noqa: E731
    p, H = lambda x: GAUSS.pdf(x[:, None]), lambda x: np.sin(1.3 * x) + x**2  # noqa: E731
    y = x + radius * NODES
    around = [point + radius * NODES for point in y]
    sums = [K(z, point)[:, 0] if normalization == "column" else K(point, z)[0] for point, z in zip(y, around)]
    sums = np.array([WEIGHTS @ (k * p(z)) for k, z in zip(sums, around)])
    weights = WEIGHTS * K(x, y)[0] * p(y) * sums**-alpha
    moved = weights @ H(y) / weights.sum() - H(x)
    equation, point = limit_on_edges(f, GAUSS, radius, normalization, epsilon), np.array([[x]])
    slope, bend = 1.3 * np.cos(1.3 * x) + 2 * x, 2 - 1.69 * np.sin(1.3 * x)
    rate = equation.mobility(point)[0] * (bend + equation.drift * GAUSS.score(point)[0, 0] * slope)
    if isinstance(equation, af.General):
        rate += equation.velocity(point)[0, 0] * slope
    return moved / rate


@pytest.mark.parametrize("normalization, alpha", [("softmax", 0), (af.DensityCorrected(0.25), 0.25), ("column", 1)], ids=str)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_layer_on_a_radius_graph_has_its_limit_to_second_order_in_the_radius(name, normalization, alpha):
    ratios = [generator_ratio(SIMILARITIES[name], normalization, alpha, radius) for radius in (0.1, 0.05, 0.025)]
    errors = np.abs(np.array(ratios) - 1)
    assert errors[-1] < 2e-3
    assert errors[-1] < 1e-4 or np.log2(errors[0] / errors[-1]) / 2 == pytest.approx(2, abs=0.25)


def test_the_extra_drift_of_graph_attention_in_the_plane():
    """(sigma'(u) / eps) P'a2 with u = (a1 + a2)'Px, by quadrature over a disc of infinitely many tokens."""
    rng = np.random.default_rng(4)
    a1, a2, projection = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(3, 2))
    density, x, eps = af.Gaussian([0.2, 0.0], [[1.0, 0.3], [0.3, 0.6]]), np.array([[0.3, -0.2]]), 0.7
    f = af.Additive(a1, a2, projection, "tanh")
    H = lambda x: np.sin(x[:, 0]) * np.cos(0.7 * x[:, 1])  # noqa: E731
    grad = np.array([np.cos(0.3) * np.cos(-0.14), 0.7 * np.sin(0.3) * np.sin(0.14)])
    drift = 2 * density.score(x)[0] + (1 - np.tanh(projection @ x[0] @ (a1 + a2)) ** 2) / eps * (a2 @ projection)
    angle, ratios = np.arange(64) * 2 * np.pi / 64, []
    for radius in (0.1, 0.05, 0.025):
        s, ws = radius * (NODES + 1) / 2, WEIGHTS * radius / 2
        y = x + (s[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)).reshape(-1, 2)
        weights = np.repeat(ws * s, 64) * np.exp(-f(x, y)[0] / (2 * eps)) * density.pdf(y)
        expected = radius**2 / 8 * (-1.49 * H(x)[0] + drift @ grad)
        ratios.append((weights @ H(y) / weights.sum() - H(x)[0]) / expected)
        equation = limit_on_edges(f, density, radius, epsilon=eps)
        c = equation.velocity(x)[0] / equation.mobility(x)[0]
        np.testing.assert_allclose(c, drift - 2 * density.score(x)[0], rtol=1e-10)
    errors = np.abs(np.array(ratios) - 1)
    assert errors[-1] < 1e-3 and np.log2(errors[0] / errors[-1]) / 2 == pytest.approx(2, abs=0.1)


def test_two_potentials_of_an_asymmetric_f_on_edges_are_refused():
    """f = g(y) is scaled away there: the limit has no drift by it, and other f keep what no key weight can undo."""
    layer = af.Attention(
        af.PseudoMetric(lambda x, y: np.sin(y[..., 0]) + 0 * x[..., 0], 1), 0.5, af.Sinkhorn(potentials=2), mask=EDGES
    )
    with pytest.raises(ValueError, match="^f must be symmetric for the limit of Sinkhorn"):
        af.limit(layer, P, radius=0.05)


def at_quantiles(size):
    """Tokens that are as evenly spread over P as can be: almost no noise."""
    fine = np.linspace(0, 2 * np.pi, 200_001)
    mass = np.append(0, np.cumsum(P.pdf(0.5 * (fine[1:] + fine[:-1])[:, None])))
    return np.interp((np.arange(size) + 0.5) / size, mass / mass[-1], fine)[:, None]


def near(tokens, radius):
    size = len(tokens)
    angle = tokens[:, 0]
    ahead = np.searchsorted(np.r_[angle, angle + 2 * np.pi], angle + radius) - np.arange(size)
    queries = np.repeat(np.arange(size), ahead)
    keys = (queries + np.arange(len(queries)) - np.repeat(np.cumsum(ahead) - ahead, ahead)) % size
    other = queries != keys
    return np.r_[np.c_[queries, keys], np.c_[keys, queries][other]]


OWN = af.PseudoMetric(lambda x, y: np.cos(x[..., 0] - 0.3) * 0.4 - 0.6 * np.sin(y[..., 0] - 0.5), 1)
SAME = af.PseudoMetric(lambda x, y: 0.5 * np.cos(x[..., 0] + y[..., 0]), 1)


@pytest.mark.parametrize(
    "f, normalization",
    [(OWN, "softmax"), (OWN, "column"), (SAME, "sinkhorn"), (SAME, af.DensityCorrected(0.75)), (af.SquaredDistance(CIRCLE), "softmax")],
    ids=["own softmax", "own column", "sinkhorn", "alpha", "squared"],
)  # fmt: skip
def test_tokens_on_a_graph_follow_the_equation(f, normalization):
    tokens, radius = at_quantiles(3000), 0.15
    layer = af.Attention(f, 0.5, normalization, mask=near(tokens, radius))
    assert layer.bind(tokens).stats["engine"] == "graph"
    initial = lambda x: np.sin(x[..., 0]) + 0.4 * np.cos(2 * x[..., 0])  # noqa: E731
    run = af.propagate(layer, tokens, initial, 100, save_every=100)
    equation = limit_on_edges(f, P, radius, normalization)
    assert isinstance(equation, af.General) == (f is OWN or (f is SAME and normalization != "sinkhorn"))
    moved, start = equation.solve(initial, run.t[-1], rtol=1e-6).at(tokens)[:, 0], initial(tokens)
    slope = (moved - start) @ (run.y[-1][:, 0] - start) / ((moved - start) @ (moved - start))
    assert slope == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(run.y[-1][:, 0] - moved) < 0.02 * np.linalg.norm(moved - start)


def test_a_wide_ball_is_cut_by_the_similarity_itself():
    """SquaredDistance beyond its width sees what it sees without edges: m2 = eps; far within it the ball, r^2 / (n + 2)."""
    for radius, m2 in ((5.0, 0.1), (0.01, 0.01**2 / 3)):
        equation = af.limit(af.Attention(af.SquaredDistance(LINE), 0.1, mask=EDGES), GAUSS, radius=radius)
        assert 2 * equation.mobility(np.zeros((1, 1)))[0] == pytest.approx(m2, rel=1e-3)
    with pytest.warns(AccuracyWarning, match="^the similarity varies across edges of length 1"):
        af.limit(af.Attention(af.PowerDistance(LINE, 3.0), 0.1, mask=EDGES), GAUSS, radius=1.0)


def test_mobility_of_a_general_equation_leaves_its_velocity_alone():
    pde = af.General(af.Uniform(CIRCLE), lambda x: np.full((len(x), 1), 0.5), mobility=lambda x: np.full(len(x), 0.3))
    H = pde.solve(lambda x: np.cos(x[:, 0]), t=1.0, rtol=1e-6)
    assert H.at(np.array([[0.2]]))[0, 0] == pytest.approx(np.exp(-0.3) * np.cos(0.7), abs=1e-6)


def evenly(size):
    """Golden-ratio tokens: every beginning of them is spread evenly over the circle."""
    return (2 * np.pi * ((np.arange(size) * (np.sqrt(5) - 1) / 2) % 1))[:, None]


@pytest.mark.parametrize("residual", [1.0, 0.5])
def test_a_power_of_the_position_decays_by_one_over_one_plus_it(residual):
    tokens, place = evenly(4000), (np.arange(4000) + 1.0) / 4000
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.1, residual=residual, mask="causal")
    for power in (1.0, 2.0):
        run = af.propagate(layer, tokens, place**power, 3)
        factors = (run.y[:, :, 0] / place**power)[:, 2000:].mean(axis=1)
        np.testing.assert_allclose(factors, (1 - residual + residual / (1 + power)) ** np.arange(4), rtol=0.03)


@pytest.mark.parametrize("normalization", ["softmax", af.DensityCorrected(0.25)], ids=str)
def test_features_without_a_position_follow_the_unmasked_limit(normalization):
    tokens, initial = evenly(6000), lambda x: np.cos(x[..., 0]) + 0.5 * np.sin(2 * x[..., 0])
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.1, normalization, mask="causal")
    with pytest.warns(AccuracyWarning, match="^a causal layer follows its limit only while the logarithm"):
        equation = af.limit(layer, af.Uniform(CIRCLE))
    move = layer(tokens, initial(tokens))[3000:, 0] - initial(tokens)[3000:]
    expected = equation.solve(initial, layer.time_step).at(tokens[3000:])[:, 0] - initial(tokens[3000:])
    assert move @ expected / (expected @ expected) == pytest.approx(1, abs=0.03)


def test_noise_at_a_position_is_that_of_the_tokens_before_it():
    density, initial, x = af.VonMises(1.0), lambda x: np.cos(x[..., 0]), np.array([[0.9]])
    f, places = af.SquaredDistance(CIRCLE), [99, 199, 399]
    causal, plain = af.Attention(f, 0.2, mask="causal"), af.Attention(f, 0.2)
    found = []
    for seed in range(300):
        tokens = density.sample(400, rng=seed)
        tokens[places] = x
        found.append(causal(tokens, initial(tokens))[places, 0])
    for place, deviation in zip(places, np.std(found, axis=0)):
        predicted = af.predicted_noise(plain, density, initial, plain.time_step, place + 1)(x)[0, 0]
        assert deviation / predicted == pytest.approx(1, abs=0.15)


def test_a_causal_limit_says_when_the_first_token_takes_over():
    """With equal weights a walk back from token i reaches token 1 after 1 + H_(i-1) steps on average."""
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05, residual=0.5, mask="causal")
    steps = [0.0, 2.0]  # from token 1, from token 2: T_i = 1 + mean of T_1 .. T_i
    for i in range(3, 51):
        steps.append((1 + sum(steps) / i) * i / (i - 1))
    with pytest.warns(AccuracyWarning, match=rf"log N is 3.9, and token 50 has it after about {steps[-1] / 0.5:.1f} layers"):
        af.limit(layer, P, n_tokens=50)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: af.limit(af.Attention(OWN, 0.5, mask=EDGES), P), "^radius must be given for a layer on edges"),
        (lambda: af.limit(af.Attention(OWN, 0.5, mask=EDGES), P, radius=-1.0), "^radius must be positive"),
        (lambda: af.limit(af.Attention(af.SquaredDistance(CIRCLE), 0.5), P, radius=1.0), "^radius must be None for a layer without"),
        (lambda: af.limit(af.Attention(af.SquaredDistance(CIRCLE), 0.5, mask=[0, 1]), P), '^mask must be None, "causal" or edges'),
        (lambda: af.limit(af.Attention(af.SquaredDistance(CIRCLE), 0.5, "column", mask="causal"), P), "^normalization must be 'softmax'"),
        (lambda: af.limit(af.Attention(af.SquaredDistance(CIRCLE), 0.5, mask="causal"), P, n_tokens=0), "^n_tokens must be at least 1"),
        (lambda: af.General(P, lambda x: 0 * x, mobility=lambda x: -np.ones(len(x))), "^mobility must be positive"),
    ],
)  # fmt: skip
def test_what_has_no_masked_limit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
