"""The forward equation on a line for densities wider than p^(drift/2), that of the tokens first: masses, errors in L1."""

import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import attnflow as af

GAUSS = af.Gaussian(0.0, 1.0)


def normal(mean, var):
    return lambda x: np.exp(-((x[:, 0] - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)


def ornstein_uhlenbeck(mean, var, sigma2, t, drift=2.0):
    """Of dX = -drift X / sigma^2 dt + sqrt(2) dW, whose invariant law p^drift has the variance sigma^2 / drift."""
    decay = np.exp(-drift * t / sigma2)
    return normal(mean * decay, var * decay**2 + sigma2 / drift * (1 - decay**2))


@pytest.mark.parametrize(
    "mean, var, sigma2, drift", [(0.0, 1.0, 1.0, 2.0), (0.6, 0.5, 0.5, 2.0), (1.0, 4.0, 1.0, 2.0), (0.5, 3.0, 1.0, 1.0)]
)
def test_walkers_spread_as_wide_as_the_tokens_stay_gaussian(mean, var, sigma2, drift):
    pde = af.FokkerPlanck(af.Gaussian(0.0, sigma2), drift)
    run = pde.solve(normal(mean, var), [0.0, 0.05, 0.3, 50.0])
    assert run.stats["norm"] == "L1" and run.stats["estimated_error"] < 1e-8
    for t, rho in zip(run.t, run.y[..., 0]):
        error = np.abs(rho - ornstein_uhlenbeck(mean, var, sigma2, t, drift)(run.grid.points)) @ run.grid.weights
        assert error < min(1e-9, run.stats["estimated_error"])
    assert np.array(run.stats["mass"]) == pytest.approx(1.0, abs=2e-15 * len(run.grid.points))
    assert np.ptp(run.stats["mass"]) < 1e-14
    x = np.linspace(-2, 2, 9)[:, None]
    between = run.at(x, 0.123)[:, 0] - ornstein_uhlenbeck(mean, var, sigma2, 0.123, drift)(x)
    assert np.abs(between).max() < 1e-8 and (np.abs(between)[:, None] < run.error(x) + 1e-9).all()


def test_cells_that_are_given_are_of_second_order_and_say_how_far_off():
    errors = []
    for cells in (200, 400, 800):
        run = af.FokkerPlanck(GAUSS).solve(GAUSS.pdf, 0.3, grid=cells)
        exact = ornstein_uhlenbeck(0.0, 1.0, 1.0, 0.3)(run.grid.points)
        errors.append(np.abs(run.y[0, :, 0] - exact) @ run.grid.weights)
        assert run.y.shape == (1, cells, 1) and 0.8 < run.stats["estimated_error"] / errors[-1] < 1.25
        assert run.y.min() >= 0
    assert -np.polyfit(np.log([200, 400, 800]), np.log(errors), 1)[0] == pytest.approx(2, abs=0.03)


def test_two_wells_exchange_their_walkers_as_the_backward_equation_says():
    """The integral of rho(t) H0 is that of rho(0) H(t)."""
    wells = af.Mixture([af.Gaussian(-1.0, 0.3), af.Gaussian(1.5, 0.4)], [0.3, 0.7])

    def H0(x):
        return np.tanh(x[:, 0])

    run, backward = af.FokkerPlanck(wells).solve(wells.pdf, 0.5), af.DriftDiffusion(wells).solve(H0, 0.5, rtol=1e-9)
    x, w = run.grid.points, run.grid.weights
    inside = (np.abs(x[:, 0]) < 6) * w  # where the backward solution is known
    assert inside @ (run.y[0, :, 0] * H0(x)) == pytest.approx(inside @ (wells.pdf(x) * backward.at(x)[:, 0]), abs=1e-7)


def test_steps_are_solved_without_extrapolation_and_columns_keep_their_masses():
    def both(x):
        return np.stack([normal(0.0, 2.0)(x), (np.abs(x[:, 0]) < 9) / 18], axis=1)

    run = af.FokkerPlanck(GAUSS).solve(both, [0.0, 0.2], rtol=5e-3)
    cdf = norm.cdf
    decay, x = np.exp(-0.4), run.grid.points[:, 0]
    width = np.sqrt((1 - decay**2) / 2)
    exact = (cdf((x + 9 * decay) / width) - cdf((x - 9 * decay) / width)) / (18 * decay)
    assert np.abs(run.y[1, :, 1] - exact) @ run.grid.weights < run.stats["estimated_error"] < 5e-3
    assert np.ptp(run.stats["mass"], axis=0).max() < 1e-13


def test_half_a_line_reflects_and_absorbs():
    half = af.Chart(lambda x: np.ones((*x.shape, 1)), [(0.0, np.inf)])
    p = af.Density(half, lambda x: -(x[..., 0] ** 2) / 2)
    start = normal(0.0, 1.0)
    run = af.FokkerPlanck(p).solve(start, [0.0, 0.3])
    x = np.linspace(0, 3, 7)[:, None]
    assert run.at(x)[:, 0] == pytest.approx(ornstein_uhlenbeck(0.0, 1.0, 1.0, 0.3)(x), abs=1e-8)

    def odd(x):
        return x[:, 0] * start(x)

    absorbed = af.FokkerPlanck(p).solve(odd, [0.0, 0.3], boundary=("dirichlet", 0.0))
    decay = np.exp(-0.6)
    var = decay**2 + 0.5 * (1 - decay**2)  # d/dm of the Gaussian solutions at m = 0
    assert absorbed.at(x)[:, 0] == pytest.approx(decay * x[:, 0] / var * normal(0.0, var)(x), abs=1e-8)
    assert absorbed.stats["mass"][1][0] < 0.9 * absorbed.stats["mass"][0][0]


def test_walls_that_absorb_a_part_do_so_at_their_rate():
    """rho = cos k (x - pi/2) with k tan(k pi/2) = b loses its mass at the rate k^2."""

    k = brentq(lambda k: k * np.sin(k * np.pi / 2) - 0.8 * np.cos(k * np.pi / 2), 0.1, 1)
    run = af.FokkerPlanck(af.Uniform(af.Box([(0, np.pi)]))).solve(
        lambda x: np.cos(k * (x[:, 0] - np.pi / 2)), [0.0, 0.7], boundary=("robin", 0.8, 0.0)
    )
    mass = np.array(run.stats["mass"])[:, 0]
    assert mass[1] / mass[0] == pytest.approx(np.exp(-0.7 * k**2), rel=1e-8)


@pytest.mark.parametrize("mean, var", [(20.0, 0.01), (60.0, 1.0), (-15.0, 1.0)])
def test_mass_far_beyond_the_invariant_density_is_found(mean, var):
    def start(x):
        return 0.8 * normal(0.0, 0.3)(x) + 0.2 * normal(mean, var)(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        run = af.FokkerPlanck(GAUSS).solve(start, [0.0, 0.3], rtol=1e-4)
    x = run.grid.points
    exact = 0.8 * ornstein_uhlenbeck(0.0, 0.3, 1.0, 0.3)(x) + 0.2 * ornstein_uhlenbeck(mean, var, 1.0, 0.3)(x)
    assert run.stats["norm"] == "L1" and np.array(run.stats["mass"]) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(run.y[1, :, 0] - exact) @ run.grid.weights < max(run.stats["estimated_error"], 1e-9)


@pytest.mark.parametrize("mean, rtol", [(10.0, 1e-8), (20.0, 1e-6)])
def test_far_starts_whose_steps_are_many_know_their_errors(mean, rtol):
    run = af.FokkerPlanck(GAUSS).solve(normal(mean, 1.0), 0.3, rtol=rtol)
    exact = ornstein_uhlenbeck(mean, 1.0, 1.0, 0.3)(run.grid.points)
    assert np.abs(run.y[0, :, 0] - exact) @ run.grid.weights < run.stats["estimated_error"] < rtol


def test_the_mass_behind_a_wall_is_the_integral_of_the_first_density():
    half = af.Chart(lambda x: np.ones((*x.shape, 1)), [(0.0, np.inf)])
    p = af.Density(half, lambda x: -(x[..., 0] ** 2) / 2)
    run = af.FokkerPlanck(p, drift=1.0).solve(lambda x: np.exp(-(x[:, 0] ** 2) / 4) * (1 + x[:, 0]), [0.0, 50.0])
    mass = np.sqrt(np.pi) + 2
    assert np.array(run.stats["mass"]) == pytest.approx(mass, rel=run.stats["estimated_error"])
    settled = mass * np.sqrt(2 / np.pi) * np.exp(-(run.grid.points[:, 0] ** 2) / 2)
    assert np.abs(run.y[1, :, 0] - settled) @ run.grid.weights < mass * run.stats["estimated_error"]


def test_a_given_grid_whose_half_is_too_steep_is_compared_with_its_double():
    with pytest.warns(af.checks.AccuracyWarning, match="grid is too coarse for p"):
        run = af.FokkerPlanck(GAUSS).solve(normal(9.0, 1.0), 0.3, grid=7)
    assert run.y.shape == (1, 7, 1) and run.stats["estimated_error"] > 0.1


@pytest.mark.parametrize(
    "density, initial, options, error, message",
    [
        (GAUSS, lambda x: 1 / (1 + x[:, 0] ** 2), {}, ValueError, "initial must fall off to nothing on a line"),
        (
            af.Gaussian([0.0, 0.0], np.eye(2)),
            af.Gaussian([0.0, 0.0], np.eye(2)).pdf,
            {},
            ValueError,
            "initial must fall off faster",
        ),
        (GAUSS, GAUSS.pdf, {"source": lambda x, t, rho: rho}, NotImplementedError, "source must be None"),
        (GAUSS, GAUSS.pdf, {"method": "chebyshev"}, ValueError, "method must be one of 'auto', 'finite-volume', 'rational'"),
        (GAUSS, GAUSS.pdf, {"rtol": 0.0}, ValueError, "rtol must be positive"),
        (GAUSS, GAUSS.pdf, {"grid": 2}, ValueError, "grid must be at least 3"),
        (GAUSS, GAUSS.pdf, {"boundary": "no-flux"}, ValueError, "boundary must be None"),
    ],
)
def test_what_is_refused(density, initial, options, error, message):
    with pytest.raises(error, match=message):
        af.FokkerPlanck(density).solve(initial, 0.1, **options)


def test_a_density_that_is_carried_in_from_too_far_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("attnflow.pde.masses._FINEST", 1024)
    far = af.Gaussian(60.0, 0.5)
    with pytest.raises(ValueError, match="initial must begin nearer to where p.drift has its mass: it is carried inwards"):
        af.FokkerPlanck(af.Gaussian(0.0, 1.0)).solve(far.pdf, 0.1)
