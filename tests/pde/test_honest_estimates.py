"""What the estimated error says on data that are rough, narrow, or on lines; each once fooled an earlier version."""

import warnings

import numpy as np
import pytest

import attnflow as af
from attnflow.checks import AccuracyWarning

X = np.linspace(0, 2 * np.pi, 600, endpoint=False)[:, None]


def arc(a, b):
    return lambda x: (np.mod(x[:, 0] - a, 2 * np.pi) < b - a).astype(float)


def heated_arc(a, b, t):
    k = np.arange(1, 400)[:, None]
    waves = np.sin(k * (X[:, 0] - a)) - np.sin(k * (X[:, 0] - b))
    return (b - a) / (2 * np.pi) + np.sum(np.exp(-(k**2) * t) / (np.pi * k) * waves, axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_steps_err_no_more_than_estimated(seed):
    a, width = np.random.default_rng(seed).uniform([0, 0.3], [6, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        run = af.Heat(af.Circle()).solve(arc(a, a + width), 0.1, rtol=1e-3)
    error = np.sqrt(np.mean((run.at(X)[:, 0] - heated_arc(a, a + width, 0.1)) ** 2) / (width / (2 * np.pi)))
    assert error < 2 * run.stats["estimated_error"]


def test_steps_stay_between_their_values_on_chosen_grids_too():
    run = af.Heat(af.Box([(0, 1), (0, 1)])).solve(
        lambda x: ((x[:, 0] < 0.37) & (x[:, 1] < 0.4)).astype(float), [1e-3, 0.02], rtol=0.05
    )
    assert run.stats["monotone"] and run.y.min() >= -1e-12 and run.y.max() <= 1 + 1e-12


def test_what_the_steps_in_time_leave_is_in_the_estimate():
    """exp(-t |k|^2) cos k.x in a constant skew metric, whose nodes are exact."""
    g = np.array([[1, 0.98], [0.98, 1]])
    space = af.Chart(lambda x: np.broadcast_to(g, (*x.shape, 2)).copy(), [(0, 2 * np.pi)] * 2, periodic=True)
    solution = af.Heat(space).solve(lambda x: np.cos(x[:, 0] - x[:, 1]), 0.01, rtol=1e-5)
    x = solution.grid.points
    error = solution.y[-1].ravel() - np.exp(-1.0) * np.cos(x[:, 0] - x[:, 1])
    assert solution.stats["integrator"] == "chebyshev"
    assert np.sqrt(2 * np.mean(error**2)) < 3 * solution.stats["estimated_error"] < 3e-5


def test_something_narrow_between_the_nodes_is_found():
    run = af.Heat(af.Circle()).solve(arc(0.515, 0.595), 0.05, rtol=0.1)
    exact = heated_arc(0.515, 0.595, 0.05)
    assert np.abs(run.at(X)[:, 0] - exact).max() < 0.1 * exact.max()


@pytest.mark.parametrize("drift", [0.0, 0.5, 2.0])
def test_dense_output_on_a_line_is_the_solution(drift):
    pde, x = af.DriftDiffusion(af.Gaussian(0.0, 1.0), drift), np.linspace(-2, 2, 9)[:, None]
    run = pde.solve(lambda x: np.cos(x[:, 0]), [0.5, 1.0])
    k = np.exp(-drift * 0.3)  # dX = -drift X dt + sqrt(2) dW
    exact = np.exp(-((1 - k**2) / (2 * drift) if drift else 0.3)) * np.cos(k * x[:, 0])
    assert np.abs(run.at(x, 0.3)[:, 0] - exact).max() < 1e-7
    if drift == 0:
        with pytest.raises(ValueError, match="t must be at most 1"):
            run.at(x, 2.0)


def test_heads_of_different_reach_share_one_grid():
    heads = af.Heads([af.DriftDiffusion(af.Gaussian(0.0, v)) for v in (1.0, 4.0)], [0.5, 0.5])
    x = np.linspace(-2, 2, 9)[:, None]
    run = heads.solve(lambda x: x[:, 0] ** 2, 0.5, rtol=1e-5)
    assert run.at(x)[:, 0] == pytest.approx(x[:, 0] ** 2 * np.exp(-1.25) + 0.8 * (1 - np.exp(-1.25)), abs=1e-4)
    with pytest.raises(ValueError, match="same coordinates"):
        af.Heads([af.Heat(af.Torus([1.0])), af.Heat(af.Box([(0, 1)]))], [0.5, 0.5])


@pytest.mark.parametrize("drift", [0.5, 0.05])
def test_a_weight_wider_than_the_tokens_has_its_whole_spectrum(drift):
    spectrum = af.DriftDiffusion(af.Gaussian(0.0, 1.0), drift).spectrum(4)
    assert spectrum.eigenvalues == pytest.approx(-drift * np.arange(4), abs=1e-8)


def test_a_line_that_pushes_outwards_is_refused():
    with pytest.raises(ValueError, match="drift must not be negative on a line"):
        af.DriftDiffusion(af.Gaussian(0.0, 1.0), -1.0).solve(lambda x: x[:, 0], 0.1)


def test_winds_along_oblique_walls_are_of_second_order():
    space = af.Chart(lambda x: np.broadcast_to([[1, 0.6], [0.6, 1]], (*x.shape, 2)), [(0, 1), (0, 1)])
    pde = af.General(af.Uniform(space), lambda x: np.stack([1 + x[:, 1], -2 * x[:, 0]], axis=1))
    points = np.random.default_rng(0).uniform(0.02, 0.98, (100, 2))
    fields = [pde.solve(lambda x: np.cos(3 * x[:, 0]) * x[:, 1], 0.02, grid=n, method="Radau").at(points) for n in (8, 16, 32)]
    changes = [np.sqrt(np.mean((b - a) ** 2)) for a, b in zip(fields, fields[1:])]
    assert np.log2(changes[0] / changes[1]) > 1.7


def test_extrapolated_means_are_conserved():
    p = af.Density(af.Box([(0, 1), (0, 1)]), lambda x: 3 * x[..., 0] - 2 * x[..., 1] ** 2)
    run = af.DriftDiffusion(p).solve(lambda x: np.cos(3 * x[:, 0]), [0.0, 0.05, 0.5], rtol=1e-3)
    assert run.stats["extrapolated"] and np.ptp(run.stats["mean"]) < 1e-13


@pytest.mark.parametrize("rtol", [1e-3, 1e-4])
def test_the_estimate_of_the_finer_spectral_solution_holds_where_convergence_is_only_algebraic(rtol):
    def bent(x):  # four continuous derivatives
        return np.abs(np.sin(x[..., 0])) ** 5

    pde = af.DriftDiffusion(af.Density(af.Circle(), lambda x: np.cos(x[..., 0])))
    x = np.linspace(0, 2 * np.pi, 501)[:, None]
    exact = pde.solve(bent, 1e-3, grid=501, method="spectral").at(x)
    solution = pde.solve(bent, 1e-3, rtol=rtol)
    error = np.sqrt(np.mean((solution.at(x) - exact) ** 2) / np.mean(exact**2))
    assert solution.stats["method"] == "spectral"
    assert 1e-9 < error < 2 * solution.stats["estimated_error"] < 2 * rtol
