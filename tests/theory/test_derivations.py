"""What computer algebra derives is what the papers state: every constant, exponent and sign, symbol by symbol."""

import dataclasses

import numpy as np
import pytest
import sympy
from scipy.special import ive

from attnflow import theory

HALF = sympy.Rational(1, 2)
d, q, alpha = sympy.symbols("d q alpha", real=True)
x = theory.coordinates(2)
ell = {n: sympy.Function("ell")(*x[:n]) for n in (1, 2)}
NORMALISATIONS = {"softmax": 2, "density-corrected": 2 * (1 - alpha), "sinkhorn": 1, "column": 0}
FLAT = {n: theory.isotropic_kernel(n) for n in (1, 2)}  # any isotropic similarity, by its m2 and m4
SPHERE = sympy.diag(1, sympy.sin(x[0]) ** 2)


def times(F, n):
    return theory.Operator({(0,) * n: F}, x[:n])


def laplacian(n):
    return theory.drift_diffusion(n, drift=0)


@pytest.mark.parametrize(
    "h, value",
    [(d ** sympy.Rational(3, 2), 0.0391029172), (d**4, 0.0892062058), (sympy.log(1 + d**2), 0.0625)],
)
def test_second_moments(h, value):
    assert theory.moments(h, dim=2).second(epsilon=0.05) == pytest.approx(value, abs=6e-11)


def test_moments_of_a_power_are_gamma_functions_and_of_a_logarithm_end():
    e, n = 2 * theory.EPSILON, sympy.Symbol("n", positive=True)
    power, positive = theory.moments(d**q), sympy.Symbol("q", positive=True)
    second = e ** (2 / positive) * sympy.gamma((n + 2) / positive) / (n * sympy.gamma(n / positive))
    fourth = 3 * e ** (4 / positive) * sympy.gamma((n + 4) / positive) / (n * (n + 2) * sympy.gamma(n / positive))
    assert sympy.gammasimp(power.second.expression / second).equals(1)
    assert sympy.gammasimp(power.fourth.expression / fourth).equals(1)
    tails = theory.moments(sympy.log(1 + d**2))
    assert sympy.simplify(tails.second.expression - e / (2 - (n + 2) * e)) == 0
    assert sympy.simplify(tails.fourth.expression - 3 * e**2 / ((2 - (n + 2) * e) * (2 - (n + 4) * e))) == 0
    assert [condition.subs({n: 2, theory.EPSILON: 0.2}) == sympy.true for condition in tails.finite] == [True, False]


@pytest.mark.parametrize("normalization, n", [*((name, 1) for name in NORMALISATIONS), ("softmax", 2), ("sinkhorn", 2)])
def test_limit_and_bias_of_each_normalisation(normalization, n):
    """B = (m4 / (12 m2^2)) r^-1 [Delta^2, r] - (Delta r / (2 r)) L - k grad V . grad; r = p^(c/2), c the drift."""
    layer = theory.layer(FLAT[n], normalization)
    drift = sympy.S.One * NORMALISATIONS[normalization]
    L = theory.drift_diffusion(n, drift=drift)
    assert layer.limit.equals(L)
    m2, m4 = sympy.symbols("m2 m4", positive=True)
    log_r, delta = drift / 2 * ell[n], laplacian(n)

    def relative_laplacian(w):  # Delta e^w / e^w
        return sum(sympy.diff(w, v, 2) + sympy.diff(w, v) ** 2 for v in x[:n])

    bilaplacian = (delta @ delta).conjugate(log_r)
    commutator = bilaplacian - times(bilaplacian.coefficients.get((0,) * n, sympy.S.Zero), n)
    V, k = relative_laplacian(ell[n]), 1 - drift / 2
    if normalization == "sinkhorn":
        V, k = relative_laplacian(log_r), HALF
    units = [(1,)] if n == 1 else [(1, 0), (0, 1)]
    along = theory.Operator({a: k * sympy.diff(V, v) for a, v in zip(units, x)}, x[:n])
    B = m4 / (12 * m2**2) * commutator - HALF * relative_laplacian(log_r) * L - along
    assert layer.bias.equals(B)
    if n == 1:
        assert layer.defect(HALF).equals(4 * B - HALF * (L @ L))
        assert not layer.defect(1).equals(4 * B - HALF * (L @ L))


def test_a_gaussian_sinkhorn_layer_has_no_first_order_error():
    gaussian = theory.isotropic_kernel(2, d**2)
    layer = theory.layer(gaussian, "sinkhorn")
    assert layer.defect().equals(0 * layer.limit)
    assert layer.bias.equals(HALF**2 * (layer.limit @ layer.limit))
    assert not theory.layer(gaussian).defect().equals(0 * layer.limit)


@pytest.mark.parametrize(
    "normalization, power, values",
    [("softmax", None, [-1.8296622327, -1.77127307]), ("sinkhorn", None, [-0.30230908, -0.27787245]),
     ("density-corrected", 1, [1.53184459, 1.51430076]), ("density-corrected", HALF, [0.13715658, 0.15582282])],
)  # fmt: skip
def test_bias_numbers_on_the_circle(normalization, power, values):
    cos = sympy.cos(x[0])
    layer = theory.layer(theory.isotropic_kernel(1, d**2), normalization, sympy.exp(cos), power)
    assert layer.bias(cos)([[0.9], [18 * 2 * np.pi / 128]]) == pytest.approx(values, abs=5e-9)
    if normalization == "softmax":
        assert layer.limit(cos)([[0.9]])[0] == pytest.approx(0.6055921264, abs=5e-11)


def test_two_ways_to_the_sphere_meet():
    """The chord of S^2 as any f, expanded in coordinates; and as a function of the angle, by spherical means."""
    theta, phi = x
    f = theory.squared_map([sympy.sin(theta) * sympy.cos(phi), sympy.sin(theta) * sympy.sin(phi), sympy.cos(theta)], 2)
    in_coordinates = theory.local_kernel(f, 2)
    assert in_coordinates.metric == SPHERE and in_coordinates.symmetric
    q_of_p = sympy.exp(ell[2]) * sympy.sin(theta)
    chord, geodesic = (theory.isotropic_kernel(SPHERE, h) for h in (4 * sympy.sin(d / 2) ** 2, d**2))
    one, two = theory.layer(in_coordinates, density=q_of_p), theory.layer(chord)
    assert one.limit.equals(two.limit) and one.bias.equals(two.bias)
    apart = two.bias - theory.layer(geodesic).bias
    assert apart.equals(sympy.Rational(2, 3) * theory.drift_diffusion(SPHERE))  # 1/2 + (n - 1)/6
    assert theory.layer(geodesic).limit.equals(theory.drift_diffusion(SPHERE))


def test_curvature_shifts_the_bias_by_a_multiple_of_the_limit():
    """G = 1 + (eps/2) Delta + eps^2 (Delta^2/8 + k Delta): B + 2 k L, k = -(n-1)/12 geodesic, 1/4 chordal, any n."""
    Delta, n = sympy.Symbol("Delta"), sympy.Symbol("n", positive=True)
    for h, k in ((d**2, -(n - 1) / 12), (4 * sympy.sin(d / 2) ** 2, sympy.Rational(1, 4))):
        first, second = theory.radial_expansion(h, K=1)
        assert first == theory.EPSILON * Delta / 2
        assert sympy.simplify(second - theory.EPSILON**2 * (Delta**2 / 8 + k * Delta)) == 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_chordal_layers_damp_harmonics_as_bessel_ratios(n):
    """a_k = I_(k+n/2-1/2)(beta) / I_(n/2-1/2)(beta), beta = 1/eps, is G at Delta = -k (k + n - 1) to O(eps^3)."""
    k = np.array([3, 4])  # on S^2 the first two are polynomials in eps
    errors = []
    for epsilon in (0.02, 0.01):
        G = 1 + sum(theory.radial_expansion(2 - 2 * sympy.cos(d), n=sympy.Integer(n), K=1))
        predicted = sympy.lambdify(sorted(G.free_symbols, key=str), G)(-k * (k + n - 1), epsilon)
        errors.append(predicted - ive(k + n / 2 - 0.5, 1 / epsilon) / ive(n / 2 - 0.5, 1 / epsilon))
    assert np.log2(np.divide(*errors)) == pytest.approx(3, abs=0.2)


def test_curvature_is_measured_and_must_be_constant():
    three = sympy.symbols("x0:3")
    stereographic = sympy.eye(2) / (1 + (x[0] ** 2 + x[1] ** 2) / 4) ** 2
    assert theory.constant_curvature(stereographic) == 1
    assert theory.constant_curvature(sympy.diag(1, sympy.sinh(x[0]) ** 2)) == -1
    s, t = (sympy.sin(angle) ** 2 for angle in three[:2])
    assert theory.constant_curvature(sympy.diag(1, s, s * t)) == 1
    with pytest.raises(ValueError, match="constant curvature"):
        theory.isotropic_kernel(sympy.diag(1, (2 + sympy.cos(x[0])) ** 2))


def test_the_conformal_metric_of_every_dimension_but_two():
    n, a = sympy.symbols("n alpha", positive=True)
    assert theory.conformal_form().exponent == 4 / (n - 2)
    assert sympy.simplify(theory.conformal_form(drift=2 * (1 - a)).exponent - 4 * (1 - a) / (n - 2)) == 0
    assert theory.conformal_form(3, drift=1).exponent == 2  # Sinkhorn: sqrt(p) in place of p
    three = theory.coordinates(3)
    u = sympy.Function("u")(*three)
    for metric, exponent in ((1, -4), (sympy.diag(1, u, sympy.exp(three[2])), 4)):
        dim = metric if metric == 1 else 3
        L = theory.drift_diffusion(metric)
        assert theory.conformal_operator(metric, theory.conformal_form(dim).exponent).equals(L)
        assert not theory.conformal_operator(metric, exponent + 1).equals(L)


def test_two_dimensions_are_excluded():
    """w Delta_(w g) = Delta_g for every positive w and every metric g: no drift can come of it."""
    assert theory.conformal_form(2).exponents == sympy.S.EmptySet
    with pytest.raises(ValueError, match="dimension 2"):
        _ = theory.conformal_form(2).exponent
    assert theory.conformal_form(2, drift=0).exponent == 0
    a, b, c = (sympy.Function(name)(*x) for name in "abc")
    metric = sympy.Matrix([[a, b], [b, c]])
    heat = theory.conformal_operator(metric, sympy.Symbol("k"))
    assert heat.equals(theory.drift_diffusion(metric, drift=0))
    assert not heat.equals(theory.drift_diffusion(metric))


@pytest.mark.parametrize("n", [1, 2])
def test_the_first_order_of_an_arbitrary_pseudometric(n):
    y = theory.coordinates(2, "y")[:n]
    f = theory.symbolic_f(n)
    derived = theory.displaced_limit(f, n, place=[0] * n).first_order
    at = dict.fromkeys(y, 0)
    C_inverse = sympy.hessian(f, y).subs(at).inv()
    D = [[[sympy.diff(f, a, b, c).subs(at) for c in y] for b in y] for a in y]
    log_q = sympy.Function("ell")(*y)
    axes = range(n)
    coefficients = {}
    for i in axes:
        unit = tuple(int(k == i) for k in axes)
        lean = sum(C_inverse[i, j] * D[j][k][m] * C_inverse[k, m] for j in axes for k in axes for m in axes)
        coefficients[unit] = sum(2 * C_inverse[i, j] * sympy.diff(log_q, y[j]) for j in axes) - lean
        for j in axes:
            both = tuple(int(k == i) + int(k == j) for k in axes)
            coefficients[both] = coefficients.get(both, 0) + C_inverse[i, j]
    stated = theory.Operator(coefficients, y)
    assert derived.equals(stated)
    assert not derived.equals(2 * stated)


def test_the_walk_settles_in_the_square_of_the_density():
    c = sympy.Symbol("c", positive=True)
    assert theory.invariant_powers(1) == sympy.FiniteSet(2)
    assert theory.invariant_powers(2, drift=1) == sympy.FiniteSet(1)
    assert theory.invariant_powers(SPHERE, drift=c) == sympy.FiniteSet(c)
    walk = theory.process(theory.drift_diffusion(SPHERE))
    assert walk.generator().equals(theory.drift_diffusion(SPHERE))
    assert walk.covariance == 2 * SPHERE.inv()
    ito = sympy.cos(x[0]) / sympy.sin(x[0])  # the sphere's share
    assert walk.drift[0] == 2 * sympy.diff(ell[2], x[0]) + ito


@pytest.mark.parametrize(
    "normalization, share", [("softmax", 1), ("density-corrected", 1 - alpha), ("sinkhorn", HALF), ("column", 0)]
)
def test_tokens_obey_the_heat_equation_backwards(normalization, share):
    m2 = sympy.Symbol("m2", positive=True)
    n = 2 if normalization == "softmax" else 1
    flow = theory.token_flow(theory.layer(FLAT[n], normalization))
    assert sympy.expand(flow.spreading + share * m2) == 0
    assert sympy.expand(flow.velocity[0] - share * m2 * sympy.diff(ell[n], x[0])) == 0


@pytest.mark.parametrize("metric", [1, 2, SPHERE], ids=["line", "plane", "sphere"])
def test_identities_hold_and_their_halves_do_not(metric):
    found = {identity.name: identity for identity in theory.identities(metric)}
    assert set(found) == {"mass", "squares", "energy", "free energy", "entropy"}
    assert all(identity.holds for name, identity in found.items() if metric in (1, 2) or name != "energy")  # slow there
    if metric == 1:
        for name in ("squares", "energy", "free energy", "entropy"):
            assert not dataclasses.replace(found[name], closed=found[name].closed / 2).holds
        assert not dataclasses.replace(found["mass"], rate=found["mass"].rate * found["mass"].field).holds


def test_formulas_print_and_refuse():
    layer = theory.layer(FLAT[1])
    assert layer.limit._repr_latex_() == r"$\displaystyle L = \partial_{x_{0}}^{2} + 2 \ell_{x_{0}} \partial_{x_{0}}$"
    formula = layer.limit()
    assert formula.latex == r"L H = H_{x_{0} x_{0}} + 2 H_{x_{0}} \ell_{x_{0}}"
    with pytest.raises(ValueError, match="undetermined function, got"):
        formula([[0.0]])
    known = formula.substitute(H=sympy.sin(sympy.Symbol("x0")), ell=sympy.Symbol("b") * x[0])
    assert known([[0.0], [np.pi]], b=3.0) == pytest.approx([6.0, -6.0])
    with pytest.raises(ValueError, match=r"parameters must be \['b'\]"):
        known([[0.0]])
    with pytest.raises(TypeError, match="build the expression with sympy"):
        theory.local_kernel("(x0 - y0)**2", 1)
    with pytest.raises(ValueError, match="x1"):
        theory.layer(FLAT[1], density=sympy.exp(x[1]))
    with pytest.raises(ValueError, match="symmetric f"):
        y0 = theory.coordinates(1, "y")[0]
        theory.layer(theory.local_kernel((x[0] - y0) ** 2 * (1 + x[0] ** 2), 1), "sinkhorn")


@pytest.mark.parametrize("normalization, power", [("density-corrected", HALF), ("sinkhorn", None)])
def test_a_bent_plane_has_the_bias_of_the_plane(normalization, power):
    """phi(x) = (x0 + x1^2, x1) keeps areas: |phi(x) - phi(y)|^2 is the plane's distance in other coordinates."""
    bend = {x[0]: x[0] + x[1] ** 2}
    bent = theory.local_kernel(theory.squared_map([x[0].subs(bend), x[1]], 2), 2)
    p, H = sympy.exp(x[0] * x[1] - x[0] ** 2), x[0] ** 2 - x[1] ** 3
    plane = theory.layer(theory.isotropic_kernel(2, d**2), normalization, p, power).bias(H)
    mine = theory.layer(bent, normalization, p.subs(bend), power).bias(H.subs(bend))
    assert mine([[0.3, 0.2]]) == pytest.approx(plane([[0.34, 0.2]]), rel=1e-9)
