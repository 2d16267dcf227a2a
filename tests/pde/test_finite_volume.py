"""What the finite-volume operator guarantees on any grid, and the orders at which its errors fall."""

import numpy as np
import pytest
import sympy

import attnflow as af
from attnflow.pde import DriftDiffusion, Heat
from attnflow.pde.volumes.rational import exponential_poles

B = 0.5
SLOPE = af.Density(af.Box([(0, np.pi)]), lambda x: B * x[..., 0])
WALLS = {"no-flux": "no-flux", "dirichlet": ("dirichlet", 0.0)}


def initial(name, x):
    if name == "no-flux":
        return np.exp(-B * x) * (np.cos(x) + B * np.sin(x))
    return np.exp(-B * x) * np.sin(x)


def solve_on(name, cells):
    return DriftDiffusion(SLOPE).solve(lambda x: initial(name, x[:, 0]), 0.5, grid=cells, boundary=WALLS[name])


def rms(values):
    return np.sqrt(np.mean(values**2))


def equations():
    x0 = sympy.Symbol("x0")
    wavy = af.Chart(sympy.diag(1 + x0**2, 2 + sympy.sin(x0)), [(0, 1), (0, 2)], periodic=(False, True))
    return [
        DriftDiffusion(af.VonMises(3.0)),
        DriftDiffusion(SLOPE, drift=1.0),
        DriftDiffusion(af.Gaussian([0.0, 1.0], np.diag([1.0, 2.0]))),
        DriftDiffusion(af.Density(wavy, lambda x: np.sin(3 * x[..., 0]) + np.cos(np.pi * x[..., 1]))),
    ]


@pytest.mark.filterwarnings("ignore:grid is too coarse")  # the guarantees hold on any grid
@pytest.mark.parametrize("pde", equations())
def test_operator_has_no_new_extrema_and_is_symmetric_in_the_conserved_weight(pde):
    shape = (9, 12)[: pde.space.dim]
    L = pde.operator(shape).toarray()
    off_diagonal = L - np.diag(np.diag(L))
    assert off_diagonal.min() == 0.0
    assert np.abs(L.sum(axis=1)).max() < 1e-13 * np.abs(L).max()
    grid = pde.solve(lambda x: np.ones(len(x)), 0.0, grid=shape, method="finite-volume").grid
    flow = np.exp(pde.log_weight(grid.points))[:, None] * L
    assert np.allclose(flow, flow.T, rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:grid is too coarse")
@pytest.mark.parametrize("pde", equations())
def test_mass_is_conserved_and_extrema_never_grow(pde):
    def initial(x):
        return np.stack([np.cos(x[:, 0]), x[:, 0] > 0.5], axis=1)

    solution = pde.solve(initial, [0, 0.01, 0.3, 7.0], grid=15, method="finite-volume")
    weight = np.exp(pde.log_weight(solution.grid.points))
    mass = np.einsum("i,tic->tc", weight / weight.sum(), solution.y.reshape(4, -1, 2))
    assert np.abs(mass - mass[0]).max() < 1e-14
    flat = solution.y.reshape(4, -1, 2)
    assert (np.diff(flat.max(axis=1), axis=0) <= 1e-11).all() and (np.diff(flat.min(axis=1), axis=0) >= -1e-11).all()


@pytest.mark.parametrize("name", WALLS)
def test_error_falls_as_the_square_of_the_spacing(name):
    sizes, errors = np.array([20, 40, 80]), []
    for cells in sizes:
        solution = solve_on(name, int(cells))
        exact = np.exp(-0.5 * (B**2 + 1)) * initial(name, solution.grid.points)
        errors.append(rms(solution.y[0] - exact))
        assert solution.stats["estimated_error"] == pytest.approx(errors[-1] / rms(exact) * np.exp(-0.625), rel=0.5)
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name, order", [("no-flux", 4), ("dirichlet", 3)])
def test_the_second_term_of_the_error_has_the_order_that_is_extrapolated(name, order):
    sizes, errors = np.array([9, 18, 36]), []
    for cells in sizes:
        coarse, fine = solve_on(name, int(cells)), solve_on(name, 3 * int(cells))
        exact = np.exp(-0.5 * (B**2 + 1)) * initial(name, coarse.grid.points)
        errors.append(rms((9 * fine.y[0, 1::3] - coarse.y[0]) / 8 - exact))
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(order, abs=0.3)


def test_rational_exponential_is_good_to_1e_13_on_the_whole_negative_axis():
    z = -np.concatenate([[0.0], np.logspace(-6, 8, 500)])
    poles, residues = exponential_poles()
    rational = sum(2 * np.real(residue / (z - pole)) for pole, residue in zip(poles, residues))
    assert len(poles) == 7
    assert np.abs(rational - np.exp(z)).max() < 1e-13


def test_heat_modes_of_a_rectangle():
    solution = Heat(af.Box([(0, np.pi), (0, 1)])).solve(lambda x: np.cos(x[:, 0]) * np.cos(np.pi * x[:, 1]), t=0.1, rtol=1e-5)
    points = np.random.default_rng(0).uniform(0, 1, (30, 2))
    exact = np.exp(-0.1 * (1 + np.pi**2)) * np.cos(points[:, 0]) * np.cos(np.pi * points[:, 1])
    assert np.abs(solution.at(points)[:, 0] - exact).max() < 1e-5


@pytest.mark.parametrize("space, nodes", [(af.Circle(1.0), [0, 0.25]), (af.Box([(0, 1)]), [0.125, 0.375])])
def test_array_initial_values_sit_on_the_documented_nodes(space, nodes):
    values = np.array([1.0, 2.0, 4.0, 3.0])
    solution = Heat(space).solve(values, t=0.0, grid=4)
    assert np.allclose(solution.y[0, :, 0], values, rtol=1e-14)
    assert solution.grid.axes[0].nodes[:2].tolist() == nodes
