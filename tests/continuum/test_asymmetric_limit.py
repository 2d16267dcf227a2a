"""An asymmetric pseudo-metric leans: its limit has a velocity that is no gradient (Theorem 5)."""

import pickle
import warnings

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow import theory
from attnflow.attention.infinite import bind_density
from attnflow.continuum.velocity import invariant_part, velocity

LEAN = 0.4
TWO = af.Sinkhorn(potentials=2)
RULES = [("softmax", 2), ("column", 0), (af.DensityCorrected(0.3), 1.4), (af.DensityCorrected(1.0), 0), (TWO, 1)]
X, Y = sympy.symbols("x0 x1"), sympy.symbols("y0 y1")
CURVED = (2 + sympy.sin(X[0]) / 2 + sympy.sin(Y[0]) / 3 + sympy.sin(Y[0] - X[0]) * (1 + sympy.cos(X[0]) / 2) / 2) * (
    1 - sympy.cos(Y[0] - X[0])
)
LOG_Q = sympy.cos(X[0]) / 2 + sympy.sin(2 * X[0]) / 4
FEATURES = sympy.cos(X[0]) + sympy.sin(2 * X[0])


def leaning():
    x0, y0 = sympy.symbols("x0 y0")
    return af.PseudoMetric(2 * (1 - sympy.cos(y0 - x0)) * (1 + LEAN * sympy.sin(y0 - x0)), dim=1)


def features(x):
    return np.cos(x[..., 0]) + np.sin(2 * x[..., 0])


def on_points(expression, variables=X[:1]):
    function = sympy.lambdify(variables, expression, "numpy")
    return lambda x: np.broadcast_to(function(*np.moveaxis(x, -1, 0)), x.shape[:-1])


def test_the_velocity_is_minus_half_the_third_derivative():
    """f = d^2 + LEAN d^3 + ...: g = 1, D = 6 LEAN, c = -3 LEAN."""
    pde = af.limit(af.Attention(leaning(), 0.01), af.VonMises(1.0))
    assert isinstance(pde, af.General)
    assert pde.velocity(np.array([[0.3], [2.0]])) == pytest.approx(-3 * LEAN, abs=1e-5)


@pytest.mark.parametrize("rule", ["softmax", "column", TWO], ids=str)
def test_layers_converge_to_it_and_not_to_the_symmetric_equation(rule):
    errors, epsilons = [], (0.02, 0.01, 0.005)
    for epsilon in epsilons:
        layer = af.Attention(leaning(), epsilon, rule)
        run = af.propagate(layer, af.VonMises(1.0), features, round(0.3 / layer.time_step), save_every=10**6)
        pde = af.limit(layer, af.VonMises(1.0))
        errors.append(np.abs(run.y[-1] - pde.solve(features, run.t[-1], rtol=1e-6).at(run.grid.points)).max())
    assert np.polyfit(np.log(epsilons), np.log(errors), 1)[0] == pytest.approx(1, abs=0.05)
    without = af.DriftDiffusion(pde.density, pde.drift).solve(features, run.t[-1]).at(run.grid.points)
    assert np.abs(run.y[-1] - without).max() > 10 * errors[-1]


@pytest.mark.parametrize("rule, drift", RULES, ids=str)
def test_the_generator_of_one_layer_becomes_the_limits(rule, drift):
    """Infinitely many tokens, extrapolated to eps = 0, in a metric and with a lean that vary: nothing is left but e-5 of L H.

    What is expected is Theorem 5 for the key density q / (q / sqrt g)^(1 - drift / 2), as `theory` derives it, and for two
    potentials C / q in place of the velocity c = (3 g' - D) / (2 g^2).
    """
    density = af.Density(af.Circle(), on_points(LOG_Q))
    f, epsilons = af.PseudoMetric(CURVED, 1), np.array([0.008, 0.004, 0.002, 0.001])
    measured = []
    for epsilon in epsilons:
        layer = af.Attention(f, epsilon, rule)
        bound, grid = bind_density(layer, density, 500)
        H = features(grid.points)[:, None]
        measured.append((bound.attend(H).mean - H)[:, 0] / layer.time_step)
    measured, x = np.linalg.solve(np.vander(epsilons, increasing=True), measured)[0], grid.points

    at_x = {Y[0]: X[0]}
    g, D = (sympy.diff(CURVED, Y[0], k).subs(at_x) for k in (2, 3))
    g = g / 2
    key = LOG_Q - (1 - sympy.Rational(drift) / 2) * (LOG_Q - sympy.log(g) / 2)
    first_order = theory.displaced_limit(CURVED, 1, sympy.exp(key), [X[0]]).first_order
    by_tau = 2 * first_order(FEATURES.subs(X[0], first_order.variables[0])).expression
    expected = on_points(by_tau.subs({symbol: X[0] for symbol in by_tau.free_symbols}))(x)
    c = (3 * sympy.diff(g, X[0]) - D) / (2 * g**2)
    if rule is TWO:
        q, around, across = (on_points(e)(x) for e in (sympy.exp(LOG_Q), g * c, g / sympy.exp(LOG_Q)))
        kept = around.mean() / across.mean() / q
        expected = expected + (kept - on_points(c)(x)) * on_points(sympy.diff(FEATURES, X[0]))(x)
    assert np.abs(measured - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(on_points(c)(x)).max() > 0.3

    pde = af.limit(layer, density)
    assert isinstance(pde, af.General) and pde.drift == pytest.approx(drift)
    assert pde.velocity(x)[:, 0] == pytest.approx(kept if rule is TWO else on_points(c)(x), abs=2e-6)


def partials(field, x, h=5e-3):
    """d field_i / dx_k at points by differences, (N, n, n), k last; all points in one call."""
    n = x.shape[1]
    moved = x[:, None, None] + h * np.arange(-2, 3)[:, None, None] * np.eye(n)
    values = field(moved.reshape(-1, n)).reshape(len(x), 5, n, n)
    return np.einsum("s,mski->mik", np.array([1, -8, 0, 8, -1]) / (12 * h), values)


D = [Y[0] - X[0], Y[1] - X[1]]
PLANAR = 2 * (1 - sympy.cos(D[0])) * (1 + sympy.sin(X[1]) / 5) + 2 * (1 - sympy.cos(D[1])) * (1 + sympy.cos(Y[0]) / 5)
PLANAR += sympy.sin(D[0]) * sympy.sin(D[1]) / 4 + (1 - sympy.cos(D[0])) * sympy.sin(D[1]) * (1 + sympy.cos(X[0])) / 2
PLANAR_LOG_Q = sympy.cos(X[0]) / 2 + sympy.sin(X[1] + X[0]) / 3
ON_TORUS = af.Density(af.Torus([2 * np.pi] * 2), on_points(PLANAR_LOG_Q, X))


@pytest.mark.slow
@pytest.mark.parametrize("rule, drift", [("column", 0), (TWO, 1)], ids=str)
def test_the_generator_of_one_layer_becomes_the_limits_in_the_plane(rule, drift):
    """As on the circle; what two potentials keep of c is what `limit` says."""
    H = sympy.sin(X[0]) * sympy.cos(X[1]) + sympy.cos(X[0])
    f, epsilons, measured = af.PseudoMetric(PLANAR, 2), np.array([0.12, 0.09, 0.06]), []
    for epsilon in epsilons:
        layer = af.Attention(f, epsilon, rule)
        bound, grid = bind_density(layer, ON_TORUS, 60)
        values = on_points(H, X)(grid.points)[:, None]
        measured.append((bound.attend(values).mean - values)[:, 0] / layer.time_step)
    measured, x = np.linalg.solve(np.vander(epsilons, increasing=True), measured)[0], grid.points
    C = sympy.hessian(PLANAR, Y).subs(dict(zip(Y, X)))
    key = PLANAR_LOG_Q - (1 - sympy.Rational(drift) / 2) * (PLANAR_LOG_Q - sympy.log(C.det()) / 2)
    first_order = theory.displaced_limit(PLANAR, 2, sympy.exp(key), X).first_order
    by_tau = 2 * first_order(H.subs(dict(zip(X, first_order.variables)), simultaneous=True)).expression
    expected = on_points(by_tau.subs({s: X[int(s.name[1])] for s in by_tau.free_symbols}), X)(x)
    slopes = np.stack([on_points(sympy.diff(H, s), X)(x) for s in X], axis=-1)
    gone = af.limit(layer, ON_TORUS).velocity(x) - velocity(f, ON_TORUS.space, x)
    expected = expected + np.sum(gone * slopes, axis=1)
    assert np.abs(measured - expected).max() < 1e-2 * np.abs(expected).max()
    assert rule == "column" or np.abs(np.sum(gone * slopes, axis=1)).max() > 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_what_two_potentials_keep_on_a_torus():
    """The rest is a gradient, in a metric with off-diagonal terms; p stays as it is."""
    layers = [af.Attention(af.PseudoMetric(PLANAR, 2), 0.05, rule) for rule in ("column", TWO)]
    whole, kept = (af.limit(layer, ON_TORUS) for layer in layers)
    x, space = np.random.default_rng(0).uniform(0, 2 * np.pi, (12, 2)), kept.density.space

    def flux(velocity):
        return lambda z: (kept.density.pdf(z) * space.volume_element(z))[:, None] * velocity(z)

    def rest(z):
        return np.einsum("mij,mj->mi", space.metric(z), whole.velocity(z) - kept.velocity(z))

    of_kept, of_whole, twist = partials(flux(kept.velocity), x), partials(flux(whole.velocity), x), partials(rest, x)
    assert np.abs(np.trace(of_kept, axis1=1, axis2=2)).max() < 1e-6 * np.abs(of_kept).max()
    assert np.abs(np.trace(of_whole, axis1=1, axis2=2)).max() > 1e-1 * np.abs(of_whole).max()
    assert np.abs(twist - twist.swapaxes(1, 2)).max() < 1e-5 * np.abs(twist).max()
    assert np.abs(pickle.loads(pickle.dumps(kept.velocity))(x) - kept.velocity(x)).max() == 0


SKEW = sympy.Matrix([[3 + sympy.sin(X[1]), sympy.cos(X[0])], [sympy.cos(X[0]), 2 + sympy.cos(X[1])]]) / 2
TURN = 2 * np.pi


@pytest.mark.parametrize(
    "space, stream",
    [
        (af.Chart(SKEW, [(0, TURN), (0, TURN)], periodic=True), lambda a, b: (np.sin(b), -np.sin(2 * a) / 2)),
        (
            af.Box([(0, np.pi), (0, np.pi)]),
            lambda a, b: (np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b)),
        ),
        (
            af.Chart(SKEW, [(0, np.pi), (0, TURN)], periodic=[False, True]),
            lambda a, b: (np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b) + 0.3),
        ),
        (af.Torus([TURN] * 3), lambda a, b, c: (np.sin(b), np.cos(c) + 0.2, np.sin(2 * a))),
    ],
    ids=["skew torus", "box", "tube", "three dimensions"],
)
def test_helmholtz_parts_are_told_apart(space, stream):
    """c = grad psi + w / q, w without divergence and without flux through walls: w / q is kept, to ten digits."""
    density = af.Density(space, lambda x: np.cos(x[..., 0]) / 2 + np.sin(x[..., 1] + x[..., 0]) / 3)

    def of_stream(x):
        q = density.pdf(x) * space.volume_element(x)
        return np.stack(np.broadcast_arrays(*stream(*x.T)), axis=-1) / q[:, None] / TURN**space.dim

    def of_gradient(x):  # psi = sin a cos b
        slopes = np.zeros_like(x)
        slopes[:, 0], slopes[:, 1] = np.cos(x[:, 0]) * np.cos(x[:, 1]), -np.sin(x[:, 0]) * np.sin(x[:, 1])
        return np.einsum("mij,mj->mi", np.linalg.inv(space.metric(x)), slopes)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = invariant_part(lambda x: of_gradient(x) + of_stream(x), density)
    x = np.random.default_rng(0).uniform(0.05, 3.1, (80, space.dim))
    assert np.abs(kept(x) - of_stream(x)).max() < 1e-9 * np.abs(of_stream(x)).max()


def test_a_density_no_grid_holds_is_told():
    sharp = af.Density(af.Torus([TURN, TURN]), lambda x: 3 * np.tanh(40 * np.sin(x[..., 0] + x[..., 1])))
    with pytest.warns(af.checks.AccuracyWarning, match="^the velocity that keeps p is good to"):
        invariant_part(lambda x: np.stack([np.cos(x[:, 1]), np.sin(x[:, 0])], axis=1), sharp)
    with pytest.warns(af.checks.AccuracyWarning, match="^the velocity that keeps p is good to"):
        invariant_part(lambda x: np.sign(x - 1.2345), af.VonMises(1.0))


def test_a_circle_of_hardly_any_tokens_on_one_side_keeps_its_flux():
    """q below e^-700 there: C / q neither underflows nor overflows."""
    kept = invariant_part(lambda x: np.ones_like(x), af.VonMises(400.0))
    x = np.array([[np.pi], [np.pi - 0.1]])
    assert kept(x)[0, 0] == pytest.approx(TURN / np.sqrt(TURN / 400), rel=1e-2)  # all of the way is there
    assert kept(x)[1, 0] / kept(x)[0, 0] == pytest.approx(np.exp(-400 * (1 - np.cos(0.1))), rel=1e-9)


@pytest.mark.parametrize("density", [af.Gaussian(0.3, 0.8), af.Uniform(af.Box([(-1, 1)]))], ids=["line", "box"])
def test_between_ends_two_potentials_keep_nothing(density):
    f = af.PseudoMetric((X[0] - Y[0]) ** 2 * (1 + sympy.tanh(Y[0] - X[0]) / 2), 1)
    pde = af.limit(af.Attention(f, 0.01, TWO), density)
    assert type(pde) is af.DriftDiffusion and pde.drift == 1
    if isinstance(density, af.Gaussian):  # the first order of one layer has no velocity either
        rates = []
        for epsilon in (0.02, 0.01):
            layer = af.Attention(f, epsilon, TWO)
            bound, grid = bind_density(layer, density)
            mass, H = np.exp(bound.log_mass), grid.points
            speed = (bound.attend(H).mean - H + layer.time_step * (H - 0.3) / 0.8)[:, 0] / layer.time_step
            rates.append(np.sqrt(mass @ speed**2 / mass.sum()))
        assert rates[1] < 0.6 * rates[0] < 0.1


def test_a_symmetric_function_has_no_extra_velocity():
    """f = (phi(x) - phi(y))^2 seen as if it were asymmetric: the three terms of c cancel."""
    x0, y0 = sympy.symbols("x0 y0")
    f = af.PseudoMetric((x0 + sympy.sin(x0) / 2 - y0 - sympy.sin(y0) / 2) ** 2, dim=1)
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    assert np.abs(velocity(f, af.Euclidean(1), x)).max() < 1e-5
    assert np.abs(f.lean(x)).max() > 0.5


def tilted():
    """f(x, x) = cos x: rows do not see it, sums over them do."""
    return af.PseudoMetric(2 * (1 - sympy.cos(Y[0] - X[0])) + sympy.cos(X[0]), 1)


@pytest.mark.parametrize("rule", ["column", af.DensityCorrected(0.5)], ids=str)
def test_sums_that_blow_up_have_no_limit(rule):
    """Key weights of exp(cos(x) / (2 eps)) move the argmin: one layer's generator grows as 1 / eps."""
    with pytest.raises(ValueError, match=r"^f\(x, x\) must be constant for an asymmetric f .* 'column'|'densitycorrected'"):
        af.limit(af.Attention(tilted(), 0.01, rule), af.VonMises(1.0))
    speeds = []
    for epsilon in (0.02, 0.01):
        layer = af.Attention(tilted(), epsilon, rule)
        bound, grid = bind_density(layer, af.VonMises(1.0))
        H = np.sin(grid.points)
        speeds.append(np.abs(bound.attend(H).mean - H).max() / layer.time_step)
    assert speeds[1] > 1.8 * speeds[0] > 10


def test_what_f_has_of_x_alone_is_scaled_away():
    plain, tilt = (af.Attention(f, 0.02, TWO) for f in (af.PseudoMetric(2 * (1 - sympy.cos(Y[0] - X[0])), 1), tilted()))
    tokens = af.VonMises(1.0).sample(60, rng=0)
    np.testing.assert_allclose(tilt.weights(tokens), plain.weights(tokens), atol=1e-10)
    assert np.abs(af.limit(tilt, af.VonMises(1.0)).velocity(tokens)).max() < 1e-6


def test_other_limits_of_an_asymmetric_function_are_refused():
    with pytest.raises(ValueError, match=r"^f must be symmetric .* 'sinkhorn' .*; use Sinkhorn\(potentials=2\)$"):
        af.limit(af.Attention(leaning(), 0.01, "sinkhorn"), af.VonMises(1.0))
    plane = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(-1) + np.tanh(y[..., 0] - x[..., 0]) ** 3 / 4, 2)
    with pytest.raises(ValueError, match="^density must live on a torus, box or bounded chart of dimension at most 3"):
        af.limit(af.Attention(plane, 0.01, TWO), af.Gaussian([0, 0], np.eye(2)))
    on_sphere = af.PseudoMetric(lambda x, y: ((x - y) ** 2).sum(-1) * (1 + (y[..., 0] - x[..., 0]) / 4), 3)
    with pytest.raises(ValueError, match="^f must be symmetric .* 'column' on Sphere"):
        af.limit(af.Attention(on_sphere, 0.01, "column"), af.Uniform(af.Sphere(2)))
