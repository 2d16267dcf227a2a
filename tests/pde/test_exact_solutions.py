"""Solutions with closed forms or independently computed values, met through Solution.at."""

import numpy as np
import pytest
import sympy
from scipy.linalg import expm

import attnflow as af
from attnflow import checks
from attnflow.pde import DriftDiffusion, Heat

SKEWED_TORUS = af.Density(
    af.Torus([2 * np.pi] * 2),
    lambda x: np.cos(x[..., 0]) + 0.7 * np.cos(x[..., 1]) + 0.5 * np.cos(x[..., 0] - x[..., 1]),
)


def skewed_initial(x):
    return np.sin(x[:, 0]) * np.cos(x[:, 1]) + np.cos(2 * x[:, 0] - x[:, 1]) + 0.3 * np.sin(3 * x[:, 1])


def exponential_density(b):
    return af.Density(af.Box([(0, np.pi)]), lambda x: b * x[..., 0])


def mode(name, b, k, x):
    if name == "no-flux":
        return np.exp(-b * x) * (k * np.cos(k * x) + b * np.sin(k * x))
    return np.exp(-b * x) * np.sin(k * x)


def test_cosine_on_a_line_of_gaussian_tokens():
    solution = DriftDiffusion(af.Gaussian(0.2, 0.49)).solve(lambda x: np.cos(x[:, 0]), t=[0.05, 0.15], rtol=1e-9)
    exact = [0.902404523462279, 0.913296183755108, 0.873861343782559, 0.708552953230377]
    assert solution.at(np.array([[-0.5], [0.0], [0.4], [1.1]]))[:, 0] == pytest.approx(exact, abs=1e-9)
    assert solution.stats["method"] == "finite-volume"
    assert solution.stats["estimated_error"] < 1e-8


@pytest.mark.parametrize("method", ["spectral", "finite-volume"])
def test_circle_of_von_mises_tokens(method):
    pde = DriftDiffusion(af.VonMises(1.5))
    solution = pde.solve(lambda x: np.sin(x[:, 0]) + np.cos(2 * x[:, 0]), t=0.5, method=method, rtol=1e-9)
    exact = [0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043]
    error = solution.at(np.pi / 2 * np.arange(4.0)[:, None])[:, 0] - exact
    assert np.abs(error).max() < {"spectral": 1e-12, "finite-volume": 2e-9}[method]
    assert solution.stats["method"] == method


@pytest.mark.parametrize("b", [0.5, 2.0])
@pytest.mark.parametrize("name", ["no-flux", "dirichlet"])
def test_modes_between_walls_decay_at_their_rate(name, b):
    boundary = "no-flux" if name == "no-flux" else ("dirichlet", 0.0)
    solution = DriftDiffusion(exponential_density(b)).solve(lambda x: mode(name, b, 2, x[:, 0]), 0.3, boundary=boundary)
    x = np.linspace(0, np.pi, 50)
    assert np.abs(solution.at(x[:, None])[:, 0] - np.exp(-0.3 * (b**2 + 4)) * mode(name, b, 2, x)).max() < 1e-8


def test_two_torus():
    solution = DriftDiffusion(SKEWED_TORUS).solve(skewed_initial, t=0.25, rtol=1e-11)
    exact = [0.53797857874327, 0.55911782726059, 0.40535835076568, -0.26474250701675]
    points = np.pi * np.array([[0, 0], [0.5, 0], [0, 0.5], [1, 1]])
    assert solution.at(points)[:, 0] == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("drift, consensus", [(2.0, 0.6977746580), (1.0, 0.4463899659), (0.0, 0.0)])
@pytest.mark.parametrize("method", ["spectral", "finite-volume"])
def test_features_reach_consensus(drift, consensus, method):
    solution = DriftDiffusion(af.VonMises(1.0), drift).solve(lambda x: np.cos(x[:, 0]), t=200.0, method=method)
    assert solution.y == pytest.approx(consensus, abs=1e-9)


@pytest.mark.parametrize("kappa", [5, 50, 300])
def test_consensus_of_ever_more_concentrated_tokens(kappa):
    from scipy.special import ive

    solution = DriftDiffusion(af.VonMises(kappa)).solve(lambda x: np.cos(x[:, 0]), t=50.0, rtol=1e-9)
    assert solution.at(np.array([[0.0], [3.0]])) == pytest.approx(ive(1, 2 * kappa) / ive(0, 2 * kappa), abs=1e-9)


def test_constant_skew_metric_is_solved_exactly():
    G, k = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, 2.0])
    space = af.Chart(lambda x: np.broadcast_to(G, (*x.shape, 2)), [(0, 2 * np.pi)] * 2, periodic=True)
    solution = Heat(space).solve(lambda x: np.cos(x @ k), t=0.1, rtol=1e-11)
    points = np.random.default_rng(0).uniform(0, 2 * np.pi, (20, 2))
    exact = np.exp(-0.1 * k @ np.linalg.inv(G) @ k) * np.cos(points @ k)
    assert np.abs(solution.at(points)[:, 0] - exact).max() < 1e-12


def test_finite_volumes_agree_with_fourier_on_a_curved_torus():
    x0 = sympy.Symbol("x0")
    ring = af.Chart(sympy.diag(1, (2 + sympy.cos(x0)) ** 2), [(0, 2 * np.pi)] * 2, periodic=True)
    pde = DriftDiffusion(af.Density(ring, lambda x: 0.5 * np.cos(x[..., 0] - x[..., 1])))
    spectral, cells = (
        pde.solve(lambda x: np.cos(x[:, 0]) * np.sin(x[:, 1]), 0.5, rtol=1e-4, method=method)
        for method in ("spectral", "finite-volume")
    )
    points = np.random.default_rng(0).uniform(0, 2 * np.pi, (20, 2))
    assert np.abs(spectral.at(points) - cells.at(points)).max() < 1e-5


def test_polar_coordinates_mix_a_wall_and_a_period():
    x0 = sympy.Symbol("x0")
    annulus = af.Chart(sympy.diag(1, x0**2), [(1, 2), (0, 2 * np.pi)], periodic=(False, True))
    clamped = [(("dirichlet", 0.0), ("dirichlet", lambda x: np.cos(x[:, 1]))), None]
    solution = Heat(annulus).solve(lambda x: 0 * x[:, 0], t=20.0, boundary=clamped, rtol=1e-5)
    points = np.random.default_rng(0).uniform(1, 2, (20, 2))
    harmonic = (points[:, 0] - 1 / points[:, 0]) / 1.5 * np.cos(points[:, 1])
    assert np.abs(solution.at(points)[:, 0] - harmonic).max() < 1e-5


def test_walls_with_different_values_per_column_reach_their_steady_state():
    walls = (("dirichlet", [1.0, 0.0]), ("dirichlet", [0.0, 1.0]))
    pde = DriftDiffusion(exponential_density(1.0))
    solution = pde.solve(lambda x: np.stack([np.ones(len(x)), x[:, 0]], axis=1), 60.0, boundary=walls)
    x = np.linspace(0, np.pi, 9)
    falling = (np.exp(-2 * x) - np.exp(-2 * np.pi)) / (1 - np.exp(-2 * np.pi))
    assert np.abs(solution.at(x[:, None]) - np.stack([falling, 1 - falling], axis=1)).max() < 1e-8


def test_without_drift_the_cut_of_a_line_stays_out_of_reach():
    solution = DriftDiffusion(af.Gaussian(0.0, 1.0), drift=0.0).solve(lambda x: np.cos(x[:, 0]), t=1.0)
    x = np.linspace(-5, 5, 30)
    assert np.abs(solution.at(x[:, None])[:, 0] - np.exp(-1) * np.cos(x)).max() < 1e-8


def test_a_linear_feature_of_correlated_gaussian_tokens():
    covariance = np.array([[0.5, 0.2], [0.2, 0.4]])
    solution = DriftDiffusion(af.Gaussian([0.0, 0.0], covariance)).solve(lambda x: x[:, 0], t=0.3, grid=60)
    points = 0.6 * np.random.default_rng(0).normal(size=(20, 2))
    exact = points @ expm(-0.6 * np.linalg.inv(covariance))[0]
    assert np.abs(solution.at(points)[:, 0] - exact).max() < 0.05
    assert 1e-4 < solution.stats["estimated_error"] < 0.05


def test_many_output_times_agree_with_one():
    pde = DriftDiffusion(af.Gaussian(0.2, 0.49))
    many = pde.solve(lambda x: np.cos(x[:, 0]), np.linspace(0, 0.15, 31), grid=200)
    one = pde.solve(lambda x: np.cos(x[:, 0]), 0.15, grid=200)
    middle = slice(50, 150)  # beyond, the weight is below 1e-9
    assert many.y.shape == (31, 200, 1)
    assert np.abs(many.y[-1, middle] - one.y[-1, middle]).max() < 1e-11
    assert np.array_equal(many.y[0, :, 0], np.cos(many.grid.points[:, 0]))


def test_step_like_features_fall_back_to_finite_volumes_and_say_how_accurate_they_are():
    pde = DriftDiffusion(af.VonMises(1.0))

    def step(x):
        return np.sign(np.sin(x[:, 0] - 0.3))

    with pytest.warns(checks.AccuracyWarning, match="estimated relative error"):
        solution = pde.solve(step, t=0.2, rtol=1e-7)
    assert solution.stats["method"] == "finite-volume"
    k = np.arange(1, 200, 2)  # the same with drift 0 has a series, sum 4 / (pi k) e^(-k^2 t) sin(k (x - 0.3))
    heat = Heat(af.Circle()).solve(step, t=0.2, rtol=1e-3)
    x = np.linspace(0, 6, 40)
    series = np.sin(np.outer(x - 0.3, k)) @ (4 / (np.pi * k) * np.exp(-0.2 * k**2))
    assert np.abs(heat.at(x[:, None])[:, 0] - series).max() < 5e-3
