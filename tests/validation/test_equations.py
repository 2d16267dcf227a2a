"""Small parts of the validations of equations, integrators, solvers and walls; and that they notice a wrong solver."""

from dataclasses import replace

import numpy as np
import pytest

from attnflow.pde import DriftDiffusion
from validation import boundaries, equations, exact, steppers


def test_a_closed_form_solves_its_own_equation_between_skew_walls():
    # dH/dt - Delta H by differences in time and space: independent of any solver
    case, h = exact.skew(channel=True), 1e-3
    inverse = np.linalg.inv(case.pde.space.metric(np.zeros((1, 2)))[0])
    x = np.random.default_rng(0).uniform(0.5, 2.5, (5, 2))
    laplacian = 0.0
    for a, b in np.ndindex(2, 2):
        u, v = h * np.eye(2)[a], h * np.eye(2)[b]
        pairs = case.initial(x + u + v) - case.initial(x + u - v) - case.initial(x - u + v) + case.initial(x - u - v)
        laplacian = laplacian + inverse[a, b] * pairs / (4 * h**2)
    rate = np.log(case.exact(x) / case.initial(x)) / case.t
    np.testing.assert_allclose(laplacian, rate * case.initial(x), atol=1e-5)


def test_the_schroedinger_form_knows_the_two_torus():
    values = exact.torus().exact(np.pi * np.array([[0, 0], [0.5, 0], [0, 0.5], [1, 1]]))[:, 0]
    known = [0.53797857874327, 0.55911782726059, 0.40535835076568, -0.26474250701675]
    assert values == pytest.approx(known, abs=1e-12)


def test_equations_hold_on_a_line_a_circle_and_between_walls():
    cases = [exact.line, exact.circle, exact.forward, lambda: exact.walls("dirichlet", 1.0)]
    report = equations.run(cases, tolerances=(1e-4, 1e-6))
    assert report.holds, report.markdown()
    assert len(report.rows) == len(cases) and {len(row) for row in report.rows} == {len(report.columns)}


def test_a_wrong_drift_fails_its_claims():
    case = exact.circle()
    report = equations.run([lambda: replace(case, pde=DriftDiffusion(case.pde.density, 1.99))], tolerances=(1e-4,))
    assert not report.holds
    assert not any(claim.holds for claim in report.claims), report.markdown()


def test_integrators_hold_on_a_clamped_box():
    report = steppers.run([steppers.settings()[2]])
    assert report.holds, report.markdown()


def test_an_integrator_with_the_wrong_clock_fails():
    setting = steppers.settings()[2]
    late = replace(setting, times=(0.05, 0.5001))
    assert np.abs(late.exact() - setting.exact()).max() > 1e-5


@pytest.mark.parametrize("name, order, allowed", [("softmax", 0.5, 0.05), ("sinkhorn", 1.3, 0.1)])
def test_layers_at_a_wall_approach_no_flux_at_their_order(name, order, allowed):
    errors = [boundaries.wall_error(name, tau) for tau in (0.01, 0.005)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=allowed)


def test_softmax_eigenvalues_shift_as_predicted_at_a_wall():
    assert boundaries.eigenvalue_shifts(0.00125) == pytest.approx([1, 1, 1], abs=0.03)
