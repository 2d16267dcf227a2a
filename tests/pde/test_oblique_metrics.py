"""Metrics with off-diagonal entries, in two and three dimensions: orders, the maximum principle, mass, walls."""

import numpy as np
import pytest

import attnflow as af
from attnflow.pde.grids import transfer

G = np.array([[2.0, 0.5], [0.5, 1.0]])
K = np.array([1.0, 2.0])
LENGTHS = 2 * np.pi


def constant(space_bounds, periodic, tensor=G):
    return af.Chart(lambda x: np.broadcast_to(tensor, (*x.shape, len(tensor))), space_bounds, periodic)


def wave(x):
    return np.cos(x @ K)


def waving(strength, periodic=True):
    """A metric whose off-diagonal entry changes sign, of dominance `strength` / 0.9 at most."""

    def metric(x):
        cross = strength * np.cos(x[..., 0] - x[..., 1])
        a, b = 1.0 + 0.1 * np.cos(x[..., 0]), 1.0 + 0.1 * np.sin(x[..., 1])
        return np.linalg.inv(np.stack([np.stack([a, cross], -1), np.stack([cross, b], -1)], -2))

    space = af.Chart(metric, [(0, LENGTHS)] * 2, periodic=periodic)
    return af.DriftDiffusion(af.Density(space, lambda x: 0.5 * np.cos(x[..., 0]) + 0.3 * np.sin(x[..., 1])))


def slope(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def test_order_is_two_and_four_after_richardson_where_the_metric_is_constant():
    pde, decay = af.Heat(constant([(0, LENGTHS)] * 2, True)), np.exp(-0.1 * K @ np.linalg.inv(G) @ K)
    sizes = np.array([16, 32, 64, 128])
    runs = [pde.solve(wave, 0.1, grid=int(n), method="finite-volume") for n in sizes]
    fields = [run.y[0, ..., 0] for run in runs]
    exact = [decay * wave(run.grid.points).reshape(run.grid.shape) for run in runs]
    assert slope(sizes, [np.abs(f - e).max() for f, e in zip(fields, exact)]) == pytest.approx(2, abs=0.1)
    better = [np.abs((4 * fine[::2, ::2] - coarse) / 3 - e).max() for coarse, fine, e in zip(fields, fields[1:], exact)]
    assert slope(sizes[:-1], better) == pytest.approx(4, abs=0.2)


def test_order_is_two_and_four_after_richardson_where_the_metric_changes_sign():
    pde = waving(0.5)
    reference = pde.solve(wave, 0.1, rtol=1e-10, method="spectral")
    sizes = np.array([32, 64, 128])
    runs = [pde.solve(wave, 0.1, grid=int(n), method="finite-volume") for n in sizes]
    assert all(run.stats["monotone"] for run in runs)
    errors = [run.y[0, ..., 0] - reference.at(run.grid.points).reshape(run.grid.shape) for run in runs]
    assert slope(sizes, [np.sqrt((e**2).mean()) for e in errors]) == pytest.approx(2, abs=0.1)
    better = [np.sqrt((((4 * fine[::2, ::2] - coarse) / 3) ** 2).mean()) for coarse, fine in zip(errors, errors[1:])]
    assert slope(sizes[:-1], better) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("walls", [None, ("dirichlet", lambda x: np.cos(x[:, 0]))], ids=["no-flux", "dirichlet"])
def test_fluxes_along_walls_are_of_second_order_too(walls):
    def metric(x):
        g = np.empty((*x.shape, 2))
        g[..., 0, 0], g[..., 1, 1] = 1.5 + 0.4 * np.sin(x[..., 0]), 1.2 + 0.3 * np.cos(x[..., 1])
        g[..., 0, 1] = g[..., 1, 0] = 0.4 + 0.2 * np.cos(x[..., 0] - x[..., 1])
        return g

    channel = af.Chart(metric, [(0, LENGTHS), (0, 2.0)], periodic=(True, False))
    pde = af.DriftDiffusion(af.Density(channel, lambda x: 0.5 * np.cos(x[..., 0]) - 0.3 * x[..., 1]))

    def initial(x):
        return np.cos(x[:, 0]) * (1 + np.sin(np.pi * x[:, 1] / 2) ** 4)

    reference = pde.solve(initial, 0.3, rtol=1e-7, method="spectral", boundary=walls)
    sizes, errors, runs = np.array([16, 32, 64]), [], []
    for n in sizes:
        run = pde.solve(initial, 0.3, grid=(2 * int(n), int(n)), method="finite-volume", boundary=walls)
        errors.append(run.y - reference.at(run.grid.points).reshape(run.y.shape))
        runs.append(run)
    assert slope(sizes, [np.abs(e).max() for e in errors]) == pytest.approx(2, abs=0.1)
    first = [(4 * transfer(f, b.grid, a.grid) - c) / 3 for c, f, a, b in zip(errors, errors[1:], runs, runs[1:])]
    assert np.abs(first[-1]).max() < 0.05 * np.abs(errors[-1]).max()  # what extrapolation must gain


@pytest.mark.parametrize("dim", [2, 3])
def test_steps_stay_between_their_values_and_mass_is_conserved_where_all_rates_are_positive(dim):
    if dim == 2:
        pde = waving(0.8)
    else:
        tensor = np.linalg.inv(np.array([[1.0, 0.4, -0.2], [0.4, 1.2, 0.3], [-0.2, 0.3, 1.1]]))
        pde = af.DriftDiffusion(af.Density(constant([(0, 1)] * 3, False, tensor), lambda x: np.sin(3 * x[..., 0])))
    run = pde.solve(lambda x: x[:, 0] > x[:, 1], [0.0, 1e-3, 0.02, 0.5], grid=18, method="finite-volume")
    assert run.stats["monotone"] and run.stats["integrator"] == "chebyshev"
    assert run.y.min() > -1e-13 and run.y.max() < 1 + 1e-13
    weight = np.exp(pde.log_weight(run.grid.points))
    mass = np.einsum("i,tic->tc", weight / weight.sum(), run.y.reshape(4, -1, 1))
    assert np.abs(mass - mass[0]).max() < 1e-14


def test_beyond_diagonal_dominance_the_scheme_says_so_and_stays_of_second_order():
    tensor = np.linalg.inv(np.array([[1.0, 1.5], [1.5, 4.0]]))
    pde = af.Heat(constant([(0, LENGTHS)] * 2, True, tensor))
    decay = np.exp(-0.1 * K @ np.linalg.inv(tensor) @ K)
    sizes, errors = np.array([32, 64, 128]), []
    for n in sizes:
        run = pde.solve(wave, 0.1, grid=int(n), method="finite-volume")
        errors.append(np.abs(run.y[0, ..., 0].ravel() - decay * wave(run.grid.points)).max())
        assert not run.stats["monotone"]
    assert slope(sizes, errors) == pytest.approx(2, abs=0.1)


def test_operator_is_symmetric_in_the_weight_and_its_rows_sum_to_zero():
    pde = waving(0.8, periodic=(True, True))
    L = pde.operator((9, 12)).toarray()
    grid = pde.solve(lambda x: np.ones(len(x)), 0.0, grid=(9, 12), method="finite-volume").grid
    flow = np.exp(pde.log_weight(grid.points))[:, None] * L
    assert np.abs(L.sum(axis=1)).max() < 1e-12 * np.abs(L).max()
    assert np.allclose(flow, flow.T, rtol=1e-9, atol=1e-12 * np.abs(flow).max())
    assert (np.count_nonzero(L, axis=1) <= 9).all()


def test_seven_points_are_enough_where_the_entry_keeps_its_sign():
    L = af.Heat(constant([(0, 1)] * 2, True)).operator(8).toarray()
    assert (np.count_nonzero(np.abs(L) > 1e-12, axis=1) == 7).all()


def test_an_oblique_metric_in_three_dimensions_is_solved_to_tolerance():
    tensor = np.array([[1.5, 0.3, 0.2], [0.3, 1.2, -0.25], [0.2, -0.25, 1.1]])
    k = np.array([1.0, -1.0, 1.0])
    pde = af.Heat(constant([(0, LENGTHS)] * 3, True, tensor))
    for method in ("spectral", "finite-volume"):
        run = pde.solve(lambda x: np.sin(x @ k), 0.2, rtol=1e-4, method=method)
        points = np.random.default_rng(0).uniform(0, LENGTHS, (30, 3))
        exact = np.exp(-0.2 * k @ np.linalg.inv(tensor) @ k) * np.sin(points @ k)
        assert np.abs(run.at(points)[:, 0] - exact).max() < 1e-4
