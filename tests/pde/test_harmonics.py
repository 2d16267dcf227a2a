"""Spherical harmonics on S^2 against closed forms, finite volumes and their own symmetries."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import attnflow as af
from attnflow.geometry import Remetrised

SPHERE = af.Sphere(2)
POINTS = np.vstack([SPHERE.uniform(50, np.random.default_rng(0)), [[0, 0, 1.0], [0, 0, -1.0]]])
MU = np.array([0.0, 0.6, 0.8])
TOKENS = af.DriftDiffusion(af.VonMisesFisher(MU, 2.0))


def polynomials(x):
    x, y, z = x.T
    return np.stack([z, x, x * y, 3 * z**2 - 1, x * y * z, 5 * z**3 - 3 * z], axis=1)


def features(x):
    return np.stack([np.exp(x[:, 0]) * x[:, 1], np.cos(2 * x[:, 2] - x[:, 0])], axis=1)


def oblique():
    """A metric that is nowhere round, a density and a mobility, all smooth."""
    tensor = np.array([[1.0, 0.3, 0.0], [0.3, 1.6, 0.0], [0.0, 0.0, 0.7]])
    tilt = np.array([0.3, -0.5, 0.8])
    space = Remetrised(SPHERE, lambda x: tensor * (1 + 0.3 * (x @ tilt))[:, None, None])
    density = af.Density(space, lambda x: 0.8 * x[..., 0] * x[..., 1] + x[..., 2])
    return af.DriftDiffusion(density, mobility=lambda x: 1 + 0.2 * x[..., 1])


def masses(pde, solution):
    """Integrals of w H at each time, by a quadrature of their own."""
    grid = SPHERE.grid(80)
    weight = grid.weights * np.exp(pde.log_weight(grid.points))
    return np.stack([weight @ solution.at(grid.points, t) for t in solution.t])


def difference(pde, run, cells):
    """Weighted root mean square of the columns' gaps on the cells' grid, relative to the initial values."""
    grid = cells.grid
    weight = grid.weights * np.exp(pde.log_weight(grid.points))
    gap = run.at(grid.points) - cells.y[-1].reshape(grid.size, -1)
    return np.sqrt((weight @ gap**2 / (weight @ features(grid.points) ** 2)).max())


def test_harmonics_decay_at_their_rates_poles_included():
    run = af.Heat(SPHERE).solve(polynomials, [0.2, 0.5], rtol=1e-10)
    degrees = np.array([1, 1, 2, 2, 3, 3])
    for t in run.t:
        assert np.abs(run.at(POINTS, t) - polynomials(POINTS) * np.exp(-t * degrees * (degrees + 1))).max() < 1e-12
    assert run.stats["method"] == "spectral" and run.stats["degree"] < 12


def test_finite_volumes_agree_within_their_error():
    cells = TOKENS.solve(features, 0.2, rtol=1e-4, method="finite-volume")
    run = TOKENS.solve(features, 0.2)
    assert run.stats["method"] == "spectral" and run.stats["estimated_error"] < 1e-8
    assert difference(TOKENS, run, cells) < 3 * cells.stats["estimated_error"] < 1e-3


def test_finite_volumes_approach_in_an_oblique_metric():
    pde = oblique()
    run = pde.solve(features, 0.1, rtol=1e-7)
    coarse, fine = (pde.solve(features, 0.1, grid=(n, 2 * n)) for n in (20, 40))
    gaps = np.array([difference(pde, run, cells) for cells in (coarse, fine)])
    assert run.stats["method"] == "spectral"
    assert gaps[1] < 1.5 * fine.stats["estimated_error"] < 3e-3 and gaps[1] < gaps[0] / 3


@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_the_estimated_error_covers_the_error(rtol):
    for pde in (TOKENS, oblique()):
        run, exact = (pde.solve(features, 0.05, rtol=tol) for tol in (rtol, 1e-9))
        gap = np.abs(run.at(POINTS) - exact.at(POINTS)).max() / np.abs(exact.at(POINTS)).max()
        assert gap < 3 * run.stats["estimated_error"] <= 3 * rtol


@pytest.mark.parametrize("pde, rtol", [(TOKENS, 1e-10), (oblique(), 1e-9)], ids=["round", "oblique"])
def test_rotated_equations_have_the_rotated_solution(pde, rtol):
    Q = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    space = Remetrised(SPHERE, lambda x: Q @ pde.space.metric(x @ Q) @ Q.T)
    density = af.Density(space, lambda x: pde.density.log_pdf(x @ Q))
    rotated = af.DriftDiffusion(density, mobility=pde.mobility and (lambda x: pde.mobility(x @ Q)))
    here = pde.solve(features, 0.1, rtol=rtol)
    there = rotated.solve(lambda x: features(x @ Q), 0.1, rtol=rtol)
    assert np.abs(here.at(POINTS) - there.at(POINTS @ Q.T)).max() < 2e-11


def test_features_reach_the_mean_weighted_by_p_squared():
    run = TOKENS.solve(lambda x: x @ MU, 40.0)
    assert run.y == pytest.approx(0.750671150401682, abs=1e-12)  # coth 4 - 1/4


@pytest.mark.parametrize("pde", [TOKENS, oblique()], ids=["round", "oblique"])
def test_mass_is_conserved_and_constants_stay(pde):
    run = pde.solve(lambda x: np.column_stack([features(x), np.ones(len(x))]), [0.0, 0.1, 3.0], rtol=1e-7)
    mass = masses(pde, run)
    assert np.abs(mass / mass[0] - 1).max() < 1e-13
    assert np.abs(run.y[..., 2] - 1).max() < 1e-12
    assert np.ptp(run.stats["mean"], axis=0).max() < 1e-13


def test_mass_is_conserved_even_where_the_degree_is_too_low():
    run = TOKENS.solve(features, [0.0, 0.5, 40.0], grid=(5, 10), method="spectral")
    mass = masses(TOKENS, run)
    assert run.stats["estimated_error"] > 1e-3
    assert np.abs(mass / mass[0] - 1).max() < 1e-13


def test_eigenvalues_of_the_uniform_sphere():
    values, functions = spectrum = af.Heat(SPHERE).spectrum(25)
    assert values == pytest.approx(-np.repeat([0.0, 2, 6, 12, 20], [1, 3, 5, 7, 9]), rel=1e-12, abs=1e-12)
    weight, rows = spectrum.grid.weights, functions.reshape(25, -1)
    assert np.allclose((rows * weight) @ rows.T, np.eye(25), atol=1e-12)


def test_eigenvalues_of_concentrated_tokens():
    """Of Legendre expansions in z of the zonal functions and of those that go as cos(longitude)."""
    spectrum = TOKENS.spectrum(4)
    assert spectrum.eigenvalues == pytest.approx([0, -4.08984735894, -4.08984735894, -5.11855339074], abs=1e-9)
    assert spectrum.estimated_error < 1e-9


def test_attention_by_dot_products_runs_on_half_the_round_metric():
    p = af.VonMisesFisher(MU, 1.0)
    half = af.limit(af.Attention(af.DotProduct(), 0.05), p).solve(polynomials, 0.1)
    whole = af.DriftDiffusion(p).solve(polynomials, 0.2)
    assert np.abs(half.at(POINTS) - whole.at(POINTS)).max() < 1e-8
    assert half.stats["method"] == "spectral"


def test_a_given_grid_is_kept_and_its_error_is_estimated():
    exact = TOKENS.solve(features, 0.1).at(POINTS)
    run = TOKENS.solve(features, 0.1, grid=(9, 20), method="spectral")
    error = np.abs(run.at(POINTS) - exact).max() / np.abs(exact).max()
    assert run.y.shape == (1, 9, 20, 2) and run.stats["degree"] == 8
    assert 1e-6 < error < 10 * run.stats["estimated_error"] < 1e-2
    assert TOKENS.solve(features, 0.1, grid=(9, 20)).stats["method"] == "finite-volume"


def test_values_on_a_grid_are_as_good_as_the_function():
    shape = (16, 32)
    nodes = SPHERE.grid(shape).points
    of_values = TOKENS.solve(polynomials(nodes).reshape(*shape, -1), 0.1, grid=shape, method="spectral")
    of_function = TOKENS.solve(polynomials, 0.1, grid=shape, method="spectral")
    assert np.abs(of_values.y - of_function.y).max() < 1e-13


def test_any_time_can_be_asked_for_afterwards():
    run, other = TOKENS.solve(features, [0.3]), TOKENS.solve(features, [0.1])
    assert np.abs(run.at(POINTS, 0.1) - other.at(POINTS)).max() < 1e-8


def test_short_and_long_times_are_integrated_differently_and_alike():
    short, long = TOKENS.solve(features, 0.01, rtol=1e-9), TOKENS.solve(features, [0.01, 500.0], rtol=1e-9)
    assert (short.stats["integrator"], long.stats["integrator"]) == ("chebyshev", "eigenvectors")
    assert np.abs(short.at(POINTS) - long.at(POINTS, 0.01)).max() < 1e-9


def test_a_step_falls_back_to_finite_volumes():
    run = TOKENS.solve(lambda x: np.sign(x[:, 0]), 0.2, rtol=3e-2)
    assert run.stats["method"] == "finite-volume"


def test_tokens_too_concentrated_for_harmonics_are_refused_or_solved_otherwise():
    needle = af.DriftDiffusion(af.VonMisesFisher(MU, 20.0))
    with pytest.raises(ValueError, match="too much for harmonics"):
        needle.solve(features, 0.1, method="spectral")
    assert needle.solve(features, 0.01, rtol=3e-2).stats["method"] == "finite-volume"


def test_the_circle_of_unit_vectors_is_solved_by_fourier_modes():
    pde = af.DriftDiffusion(af.VonMisesFisher([1.0, 0.0], 1.5))
    run = pde.solve(lambda x: x[:, 1] + x[:, 0] ** 2 - x[:, 1] ** 2, 0.5, rtol=1e-10)
    exact = [0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043]
    points = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])
    assert np.abs(run.at(points)[:, 0] - exact).max() < 1e-12
    assert run.stats["method"] == "spectral" and len(run.stats["grid"]) == 1
    assert pde.spectrum(3).eigenvalues == pytest.approx([0, -2.39819200632760, -2.39819200632760], abs=1e-10)
