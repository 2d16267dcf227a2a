"""Metric tensors on coordinates, on other spaces, and by pull-back: volumes known in closed form."""

import subprocess
import sys

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow.geometry import Reexpressed, Remetrised

X0, X1 = sympy.symbols("x0 x1", real=True)
RING = sympy.diag(1, (2 + sympy.cos(X0)) ** 2)
SQUARE = [(0, 2 * np.pi)] * 2


def ring_in_space(x):
    radius = 2 + np.cos(x[..., 0])
    return np.stack([radius * np.cos(x[..., 1]), radius * np.sin(x[..., 1]), np.sin(x[..., 0])], axis=-1)


def ellipsoid(x):
    """The metric that x -> (x0, x1, 2 x2) pulls back to the sphere."""
    return np.broadcast_to(np.diag([1.0, 1.0, 4.0]), (len(x), 3, 3))


def hyperbolic(x):
    return np.eye(2) / x[..., 1, None, None] ** 2


def test_ring_has_the_volume_of_pappus():
    assert af.Chart(RING, SQUARE, periodic=True).volume == pytest.approx(8 * np.pi**2, rel=1e-12)


def test_pullback_of_the_ring_has_its_metric():
    ring = af.Chart(RING, SQUARE, periodic=True)
    pulled = af.Chart.pullback(ring_in_space, SQUARE, periodic=True)
    x = ring.probe_points()
    np.testing.assert_allclose(pulled.metric(x), ring.metric(x), atol=1e-10)


def test_pullback_stays_inside_its_walls():
    seen = []

    def phi(x):
        seen.append(x)
        return x**3

    g = af.Chart.pullback(phi, [(1, 2)]).metric(np.array([[1.0], [1.5], [2.0]]))
    np.testing.assert_allclose(g[:, 0, 0], [9.0, 9 * 1.5**4, 144.0], rtol=1e-9)
    assert min(x.min() for x in seen) >= 1 and max(x.max() for x in seen) <= 2


def test_remetrised_sphere_has_the_area_of_the_ellipsoid():
    e = np.sqrt(0.75)
    space = Remetrised(af.Sphere(2), ellipsoid)
    assert space.volume == pytest.approx(2 * np.pi * (1 + 2 / e * np.arcsin(e)), rel=1e-12)
    assert space.volume_element(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])) == pytest.approx([1.0, 2.0])
    np.testing.assert_allclose(space.metric(np.array([0.0, 1.0, 0.0])), np.diag([1.0, 0.0, 4.0]))


@pytest.mark.parametrize(
    "density, metric",
    [
        (af.VonMises(1.0), lambda x: (2 + np.sin(x))[..., None]),
        (af.Gaussian([1.0, 2.0], np.eye(2)), lambda x: np.eye(2) * (1 + x[..., 0] ** 2)[..., None, None]),
        (af.Density(af.Box([(0, 1)]), lambda x: x[..., 0]), lambda x: (1 + x)[..., None]),
        (af.VonMisesFisher([0.0, 0.6, 0.8], 2.0), ellipsoid),
        (af.Uniform(af.Chart(RING, SQUARE, True)), lambda x: np.eye(2) * np.ones((len(x), 1, 1))),
    ],
    ids=["circle", "plane", "box", "sphere", "chart"],
)
def test_reexpressed_density_has_mass_one_in_the_new_volume(density, metric):
    space = Remetrised(density.space, metric)
    again = Reexpressed(density, space)
    grid = again.grid(128)
    mass = grid.weights @ (again.pdf(grid.points) * space.volume_element(grid.points))
    assert mass == pytest.approx(1, abs=1e-11)


def test_reexpressed_score_is_tangential_and_exact_on_the_sphere():
    p = Reexpressed(af.Uniform(af.Sphere(2)), Remetrised(af.Sphere(2), ellipsoid))
    x = af.Sphere(2).probe_points()
    z = x[:, 2]
    # the area ratio is sqrt(4 - 3 z^2), so grad log p = 3 z / (4 - 3 z^2) grad z
    exact = (3 * z / (4 - 3 * z**2))[:, None] * (np.array([0, 0, 1.0]) - z[:, None] * x)
    np.testing.assert_allclose(p.score(x), exact, atol=1e-10)


def test_density_on_the_hyperbolic_half_plane_is_normalised():
    chart = af.Chart(hyperbolic, [(-1, 1), (0, np.inf)])
    p = af.Density(chart, lambda x: 2 * np.log(x[..., 1]) - x[..., 1])  # mass 2 integral e^-y dy
    assert p.log_pdf(np.array([0.3, 1.0])) == pytest.approx(-1 - np.log(2), abs=1e-12)
    assert chart.has_boundary and not chart.flat


@pytest.mark.parametrize("bounds, wall", [((0, np.inf), True), ((-np.inf, 0), True), ((-np.inf, np.inf), False)])
def test_a_half_line_has_a_wall_and_a_line_has_none(bounds, wall):
    chart = af.Chart(identity, [bounds])
    assert chart.has_boundary == wall
    assert np.isfinite(chart.check(chart.probe_points())).all()


def test_a_chart_has_no_distance_and_names_the_remedy():
    with pytest.raises(ValueError, match=r"Chart\(.*has none.*Chart.pullback.*SquaredMap"):
        af.Chart(RING, SQUARE, True).distance(np.zeros(2), np.ones(2))


def identity(x):
    return np.broadcast_to(np.eye(x.shape[-1]), x.shape + x.shape[-1:])


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: af.Chart("x0", [(0, 1)]), TypeError, "callable on points .* or a sympy Matrix, got str"),
        (lambda: af.Chart(lambda x: np.eye(2), [(0, 1)] * 2), ValueError, "broadcast_to"),
        (lambda: af.Chart(lambda x: (x - 0.5)[..., None], [(0, 1)]), ValueError, r"positive definite.* at x = \[0\."),
        (lambda: af.Chart(lambda x: 1 + x[..., None], [(0, 1)], True), ValueError, "metric must be periodic in x0"),
        (lambda: af.Chart(identity, [(0, np.inf)], True), ValueError, "finite along a periodic axis"),
        (lambda: af.Chart(identity, [(0, 1)], [True, False]), ValueError, "one bool or one for each of 1 axes"),
        (lambda: af.Chart(identity, [(1, 0)]), ValueError, "low < high"),
        (lambda: af.Chart(RING, [(0, 1)]), ValueError, r"shape \(1, 1\)"),
        (lambda: af.Chart(sympy.Matrix([[sympy.Symbol("r")]]), [(0, 1)]), ValueError, r"symbols x0 .*\['r'\]"),
        (lambda: Remetrised(af.Sphere(2), lambda x: -ellipsoid(x)), ValueError, "positive definite"),
        (lambda: af.Chart.pullback(lambda x: x[..., :1] + 2 * x[..., 1:], [(0, 1)] * 2), ValueError, "full rank 2"),
        (
            lambda: af.Chart.pullback(lambda x: np.stack([x.sum(-1)] * 3, -1), [(0, 1)] * 2),
            ValueError,
            "full rank 2",
        ),
        (lambda: af.Chart.pullback(lambda x: x[..., 0], [(0, 1)]), ValueError, "phi must map points"),
        (
            lambda: af.Chart.pullback(np.sin, [(0, 1)], jacobian=lambda x: -np.cos(x)[..., None]),
            ValueError,
            "jacobian must be the derivative of phi",
        ),
    ],
)
def test_bad_charts_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_metric_is_checked_wherever_it_is_evaluated():
    chart = af.Chart(lambda x: np.where(x > 0.999, -1.0, 1.0)[..., None], [(0, 1)])
    with pytest.raises(ValueError, match=r"at x = \[0.9999\]"):
        chart.metric(np.array([[0.5], [0.9999]]))


def test_importing_the_package_imports_neither_sympy_nor_matplotlib():
    code = "import sys, attnflow.geometry; sys.exit('sympy' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
