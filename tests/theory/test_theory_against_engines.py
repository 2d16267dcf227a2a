"""The derived formulas against layers that were run and equations that were solved."""

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow import theory
from attnflow.attention import bind_density

d = sympy.Symbol("d")
x0, x1 = theory.coordinates(2)
y0, y1 = theory.coordinates(2, "y")
CIRCLE = af.Circle()
AT = np.array([[0.3], [0.9], [2.5]])


def two_waves(x):
    return np.cos(x[..., 0]) + np.sin(2 * x[..., 0])


TWO_WAVES = sympy.cos(x0) + sympy.sin(2 * x0)


def one_layer(f, epsilon, density, values, points, normalization="softmax", grid=None):
    bound, nodes = bind_density(af.Attention(f, epsilon, normalization, backend="reference"), density, grid)
    assert bound.stats["engine"] == "reference"
    return bound.attend(values(nodes.points)[:, None], points).mean[:, 0]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_moments_are_those_of_the_pseudometrics(dim):
    space = af.Euclidean(dim)
    for h, f in ((d**3, af.PowerDistance(space, 3.0)), (sympy.log(1 + d**2), af.LogDistance(space))):
        derived = theory.moments(h, dim)
        m2, m4 = (float(moment(epsilon=0.04)) for moment in (derived.second, derived.fourth))
        assert f.moments(0.04, dim) == pytest.approx((m2, m4), rel=1e-12)


@pytest.mark.parametrize(
    "q, normalization, residual",
    [(3, "softmax", 1.0), (2, "sinkhorn", 0.5), (3, af.DensityCorrected(0.3), 0.5)],
    ids=str,
)
def test_predicted_bias_of_many_layers_starts_as_derived(q, normalization, residual):
    """a tau (t R H + (t^2 / 2)(L R + R L) H) + O(t^3) after the time t."""
    name, alpha = (normalization, None) if isinstance(normalization, str) else ("density-corrected", 0.3)
    t = 0.002
    layer = theory.layer(theory.isotropic_kernel(1), name, sympy.exp(sympy.cos(x0)), alpha)
    moments = theory.moments(d**q, 1)
    values = {"m2": float(moments.second(epsilon=0.01)), "m4": float(moments.fourth(epsilon=0.01))}
    R, L = layer.defect(residual), layer.limit
    first, second = (F(TWO_WAVES).substitute(**values)(AT) for F in (R, L @ R + R @ L))
    engine = af.Attention(af.PowerDistance(CIRCLE, float(q)), 0.01, normalization, residual)
    assert engine.time_step == pytest.approx(residual * values["m2"] / 2)
    predicted = af.predicted_bias(engine, af.VonMises(1.0), two_waves, t)(AT)[:, 0]
    assert predicted == pytest.approx(engine.time_step * (t * first + t**2 / 2 * second), rel=1e-3)


def test_a_density_corrected_layer_on_the_torus_has_the_derived_bias():
    log_p, H = sympy.cos(x0) + sympy.sin(x0 - x1) / 2, sympy.cos(x0) + sympy.sin(x0 + x1)
    compiled = [sympy.lambdify([x0, x1], F) for F in (log_p, H)]
    shape, values = (lambda x, F=F: F(x[..., 0], x[..., 1]) for F in compiled)
    torus, points = af.Torus([2 * np.pi] * 2), np.array([[0.3, 0.8], [2.5, 1.1]])
    f = af.SquaredDistance(torus)
    derived = theory.layer(theory.isotropic_kernel(2, d**2), "density-corrected", sympy.exp(log_p), 0.3)
    L, B = derived.limit(H)(points), derived.bias(H)(points)
    left = []
    for e in (0.16, 0.08):
        new = one_layer(f, e, af.Density(torus, shape), values, points, af.DensityCorrected(0.3), 48)
        left.append(np.linalg.norm((new - values(points)) / (e / 2) - L - e * B))
    assert np.log2(left[0] / left[1]) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(
    "h, f, share",
    [(d**2, af.SquaredDistance(af.Sphere(2)), 1), (4 * sympy.sin(d / 2) ** 2, af.DotProduct(), 0.5)],
    ids=["geodesic", "chord"],
)
def test_layers_on_the_sphere_have_the_derived_bias(h, f, share):
    """exp(x.y / (2 e)) is exp(-chord^2 / (2 eps)) with e = eps / 2. Extrapolated from two eps."""
    density = af.VonMisesFisher(np.array([0.0, 0.0, 1.0]), 1.0)
    place = np.array([[1.1, 0.4], [2.0, 1.0]])
    theta, phi = place.T
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    values = lambda x: x[..., 0] + x[..., 2] ** 2  # noqa: E731
    H = sympy.sin(x0) * sympy.cos(x1) + sympy.cos(x0) ** 2
    kernel = theory.isotropic_kernel(sympy.diag(1, sympy.sin(x0) ** 2), h)
    derived = theory.layer(kernel, density=sympy.exp(sympy.cos(x0)))
    bias = []
    for epsilon in (0.1, 0.05):
        rate = (one_layer(f, share * epsilon, density, values, points) - values(points)) / (epsilon / 2)
        bias.append((rate - derived.limit(H)(place)) / epsilon)
    assert 2 * bias[1] - bias[0] == pytest.approx(derived.bias(H)(place), rel=0.03)


def leaning(u, v):
    return 2 * (1 - sympy.cos(v - u)) * (1 + sympy.sin(v - u) * sympy.cos(u) / 3)


def test_an_asymmetric_pseudometric_has_the_derived_limit_and_bias():
    derived = theory.layer(theory.local_kernel(leaning(x0, y0), 1), density=sympy.exp(sympy.cos(x0)))
    engine, density = af.PseudoMetric(leaning(x0, y0), 1), af.VonMises(1.0)
    L, B = derived.limit(TWO_WAVES)(AT), derived.bias(TWO_WAVES)(AT)
    rates = [(one_layer(engine, e, density, two_waves, AT) - two_waves(AT)) / (e / 2) for e in (0.004, 0.002)]
    left = [np.linalg.norm(rate - L - e * B) for rate, e in zip(rates, (0.004, 0.002))]
    assert np.log2(left[0] / left[1]) == pytest.approx(2, abs=0.1)
    t = 1e-3
    solved = af.limit(af.Attention(engine, 0.01), density).solve(two_waves, t, rtol=1e-9).at(AT)[:, 0]
    series = t * L + t**2 / 2 * (derived.limit @ derived.limit)(TWO_WAVES)(AT)
    assert solved - two_waves(AT) == pytest.approx(series, rel=1e-4)


def test_a_symmetric_map_on_the_circle_has_the_derived_limit_and_bias():
    """f = |phi(x) - phi(y)|^2 with a metric that varies: the density is re-expressed, the bias is the chord's."""
    f = theory.squared_map([sympy.cos(x0), 2 * sympy.sin(x0)], 1)
    kernel, engine, density = theory.local_kernel(f, 1), af.PseudoMetric(f, 1), af.VonMises(1.0)
    assert kernel.symmetric
    for normalization in ("softmax", "sinkhorn", "column"):
        derived = theory.layer(kernel, normalization, sympy.exp(sympy.cos(x0)))
        L, B = derived.limit(TWO_WAVES)(AT), derived.bias(TWO_WAVES)(AT)
        left = []
        for e in (0.02, 0.01):
            new = one_layer(engine, e, density, two_waves, AT, normalization)
            left.append(np.linalg.norm((new - two_waves(AT)) / (e / 2) - L - e * B))
        assert np.log2(left[0] / left[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("normalization", ["column", "sinkhorn"])
def test_the_expansion_goes_on_to_any_order(normalization):
    """Up to A_3 of a Gaussian layer on the circle: what is left is O(eps^4)."""
    kernel = theory.local_kernel((x0 - y0) ** 2, 1, order=3)
    derived = theory.layer(kernel, normalization, sympy.exp(sympy.cos(x0)))
    left = []
    for e in (0.02, 0.01):
        new = one_layer(af.SquaredDistance(CIRCLE), e, af.VonMises(1.0), two_waves, AT, normalization)
        series = two_waves(AT) + sum(term(TWO_WAVES)(AT, epsilon=e) for term in derived.terms[1:])
        left.append(np.linalg.norm(new - series))
    assert np.log2(left[0] / left[1]) == pytest.approx(4, abs=0.1)


def attend_on_grid(f, epsilon, tokens, log_p, values, queries):
    """One softmax layer with tokens on a fine grid that stand for a density: its weights are the quadrature."""
    weighted = f + 2 * epsilon * -log_p
    dim = tokens.shape[1]
    layer = af.Attention(af.PseudoMetric(weighted, dim), epsilon, backend="reference")
    return layer(tokens, values=values(tokens), queries=queries)[:, 0]


def test_a_displaced_minimum_is_attended_to():
    """Theorem 5 on the plane, with cross terms, a third derivative and a density: the error is O(eps^2)."""
    u, v = y0 - x1, y1 - x0 / 2
    f = 2 * u**2 + u * v + v**2 + u**3 / 4 - u * v**2 / 3 + u**4 + v**4
    log_p = sympy.sin(x0) - x1 / 2
    derived = theory.displaced_limit(f, 2, sympy.exp(log_p), place=(x1, x0 / 2))
    queries = np.array([[0.4, -0.3], [-0.8, 0.5]])
    H = sympy.sin(x0) + x1**2
    axis = np.linspace(-2, 2, 321)
    tokens = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    on_y = log_p.subs({x0: y0, x1: y1}, simultaneous=True)
    values = lambda z: np.sin(z[:, 0]) + z[:, 1] ** 2  # noqa: E731
    errors = []
    for epsilon in (0.02, 0.01):
        measured = attend_on_grid(f, epsilon, tokens, on_y, values, queries)
        errors.append(measured - derived(H)(queries, epsilon=epsilon))
    assert np.log2(np.divide(*errors)) == pytest.approx(2, abs=0.25)
    assert np.abs(errors).max() < 0.01


def test_a_dot_product_on_the_circle_attends_to_the_image_direction():
    """f = -x'W y in angles: argmin +W'x / |W'x|, and the first order there."""
    W = np.array([[2.0, 0.3], [-0.4, 1.5]])
    a, b = sympy.Matrix([[sympy.cos(x0), sympy.sin(x0)]]) * sympy.Matrix(W).applyfunc(sympy.nsimplify)
    f = -(a * sympy.cos(y0) + b * sympy.sin(y0))
    derived = theory.displaced_limit(f, 1, sympy.S.One, place=[sympy.atan2(b, a)])
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    tokens, place = np.stack([np.cos(angle), np.sin(angle)], -1), np.array([[0.4], [2.0]])
    queries = np.stack([np.cos(place[:, 0]), np.sin(place[:, 0])], -1)
    errors = []
    for epsilon in (0.01, 0.005):
        layer = af.Attention(af.DotProduct(W), epsilon, backend="reference")
        measured = layer(tokens, values=np.sin(2 * angle), queries=queries)[:, 0]
        errors.append(measured - derived(sympy.sin(2 * x0))(place, epsilon=epsilon))
    image = queries @ W
    seen = [float(derived.place[0].subs(x0, p)) for p in place[:, 0]]
    assert np.sin(seen) == pytest.approx(image[:, 1] / np.linalg.norm(image, axis=1))
    assert np.log2(np.divide(*errors)) == pytest.approx(2, abs=0.1)


def test_the_average_over_a_manifold_of_minima():
    """Theorem 6: an ellipse that grows with x0, a Hessian across it that varies along it, and a density."""
    t, size = sympy.Symbol("t0"), 1 + x0**2 / 4
    f = (y0**2 / 4 + y1**2 - size) ** 2 * (3 + y0) * 2
    log_p = x1 / 2
    ellipse = [2 * sympy.sqrt(size) * sympy.cos(t), sympy.sqrt(size) * sympy.sin(t)]
    average = theory.manifold_average(f, 2, ellipse, [(-sympy.pi, sympy.pi)], sympy.exp(log_p))
    queries = np.array([[0.5, 0.0]])
    predicted = average(x0 + x1**2)(queries)
    axis = np.linspace(-2.9, 2.9, 451)
    tokens = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    values = lambda z: z[:, 0] + z[:, 1] ** 2  # noqa: E731
    errors = []
    for epsilon in (0.008, 0.004):
        measured = attend_on_grid(f, epsilon, tokens, log_p.subs(x1, y1), values, queries)
        errors.append(measured - predicted)
    assert np.log2(np.divide(*errors)) == pytest.approx(1, abs=0.15)
    assert abs(errors[1]) < 0.05


def test_heads_add_up():
    """Two heads of different temperature and normalisation, mixed by matrices whose sum is not 1."""
    mixing = [np.array([[0.5, 0.2], [0.0, 1.0]]), np.array([[0.4, 0.0], [-0.3, 0.1]])]
    p, density = sympy.exp(sympy.cos(x0)), af.VonMises(1.0)
    errors = []
    for scale in (0.01, 0.005):
        heads, new = [], 0.0
        for name, times, W in zip(("softmax", "sinkhorn"), (1, 2), mixing):
            heads.append(theory.layer(theory.isotropic_kernel(1, d**2 / times), name, p))
            layer = af.Attention(af.SquaredDistance(CIRCLE), scale * times, name, backend="reference")
            run = af.propagate(layer, density, lambda x: np.stack([two_waves(x), np.sin(x[..., 0])], -1), 1)
            new = new + run.at(AT) @ W
        derived = theory.head_sum(heads, [sympy.Matrix(W) for W in mixing])
        rows = derived([TWO_WAVES, sympy.sin(x0)])
        expected = [theory.Formula("H", entry, (x0,))(AT, epsilon=scale) for entry in rows]
        errors.append(np.abs(new - np.stack(expected, -1)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert np.allclose(np.array(derived.remainder, dtype=float), sum(mixing) - np.eye(2))


def test_gaussian_tokens_move_as_derived():
    """A x = kappa x for tokens N(0, 1): one layer of eps moves the token at x by eps times the derived velocity."""
    for name, kappa in (
        ("softmax", lambda s: 1 / (1 + s)),
        ("sinkhorn", lambda s: (np.sqrt(s**2 + 4) - s) / 2),
        ("column", lambda s: (1 / s) / (1 / s + 1 - 1 / (1 + s))),
    ):
        flow = theory.token_flow(theory.layer(theory.isotropic_kernel(1, d**2), name))
        velocity = theory.Formula("v", flow.velocity[0] + 0 * x0, (x0,))
        given = velocity.substitute(ell=-(x0**2) / 2) if velocity.expression else velocity
        per_epsilon = given.expression.subs(theory.EPSILON, 1).subs(x0, 1)
        assert (kappa(1e-6) - 1) / 1e-6 == pytest.approx(float(per_epsilon), abs=2e-6)
