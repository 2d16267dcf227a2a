"""Grids integrate, differentiate and interpolate at the order each kind of axis promises."""

import numpy as np
import pytest

from attnflow.grid import Axis, Grid


def field(grid, function):
    return function(grid.points).reshape(*grid.shape, -1)


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize(
    "kind, function, low, high, exact",
    [
        ("fourier", lambda x: np.exp(np.cos(x)), 0.0, 2 * np.pi, 7.954926521012845),
        ("gauss", np.exp, -1.0, 2.0, np.exp(2) - np.exp(-1)),
        ("colatitude", lambda x: np.cos(x) ** 4, 0.0, np.pi, 0.4),
    ],
)
def test_spectral_axes_integrate_to_their_accuracy(kind, function, low, high, exact, size):
    axis = Axis(kind, size, low, high)
    tolerance = 2e-7 if kind == "fourier" else 1e-12
    assert axis.weights @ function(axis.nodes) == pytest.approx(exact, rel=tolerance)


def test_cells_integrate_to_second_order():
    errors = [abs(a.weights @ np.exp(a.nodes) - (np.e - 1)) for a in (Axis("cells", n, 0.0, 1.0) for n in (20, 40, 80))]
    assert np.polyfit(np.log([20, 40, 80]), np.log(errors), 1)[0] == pytest.approx(-2, abs=0.01)


@pytest.mark.parametrize("size", [15, 16])
def test_fourier_derivative_is_exact_below_the_nyquist_mode(size):
    axis = Axis("fourier", size, 0.0, np.pi)
    D = axis.derivative()
    np.testing.assert_allclose(D @ np.sin(6 * axis.nodes), 6 * np.cos(6 * axis.nodes), atol=1e-12)
    np.testing.assert_allclose(D, -D.T, atol=1e-13)


@pytest.mark.parametrize("size", [15, 16])
def test_fourier_axis_interpolates_trigonometric_polynomials(size):
    grid = Grid((Axis("fourier", size, 0.0, 2 * np.pi), Axis("fourier", size, 0.0, 1.0)))
    x = np.random.default_rng(0).uniform(-3, 9, (50, 2))

    def function(x):
        return np.cos(5 * x[:, :1]) * np.sin(2 * np.pi * 3 * x[:, 1:])

    np.testing.assert_allclose(grid.interpolate(field(grid, function), x), function(x), atol=1e-12)


def test_gauss_axis_interpolates_polynomials_and_hits_its_nodes():
    grid = Grid((Axis("gauss", 6, -1.0, 3.0),))
    x = np.concatenate([np.linspace(-1, 3, 17)[:, None], grid.points])
    np.testing.assert_allclose(grid.interpolate(field(grid, lambda x: x**5), x), x**5, atol=1e-10)


def test_cells_interpolate_to_sixth_order_up_to_the_walls():
    x = np.linspace(0, 1, 301)[:, None]
    sizes, errors = [20, 40, 80], []
    for size in sizes:
        grid = Grid((Axis("cells", size, 0.0, 1.0), Axis("cells", 4, 0.0, 1.0)))
        values = grid.interpolate(field(grid, lambda x: np.sin(5 * x[:, :1])), np.hstack([x, x]))
        errors.append(np.abs(values - np.sin(5 * x)).max())
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-6, abs=0.1)


@pytest.mark.parametrize("shape", [(10, 20), (11, 18)])
def test_sphere_grid_interpolates_harmonics_over_the_poles(shape):
    grid = Grid((Axis("colatitude", shape[0], 0.0, np.pi), Axis("fourier", shape[1], 0.0, 2 * np.pi)), sphere=True)
    x = np.random.default_rng(0).normal(size=(50, 3))
    x = np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True), [[0, 0, 1.0], [0, 0, -1.0]]])

    def harmonic(x):
        return np.stack([x[:, 0] * x[:, 2] ** 3, x[:, 1] * x[:, 0] + x[:, 2]], axis=-1)

    np.testing.assert_allclose(grid.interpolate(field(grid, harmonic), x), harmonic(x), atol=1e-13)


def test_the_last_axis_runs_fastest():
    grid = Grid((Axis("cells", 2, 0.0, 2.0), Axis("cells", 3, 0.0, 3.0)))
    assert grid.points[:4].tolist() == [[0.5, 0.5], [0.5, 1.5], [0.5, 2.5], [1.5, 0.5]]
    assert grid.weights.sum() == pytest.approx(6.0) and grid.size == 6


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("chebyshev", 4, 0.0, 1.0), ValueError, "kind must be one of"),
        (("cells", 0, 0.0, 1.0), ValueError, "size must be at least 1"),
        (("cells", 4, 1.0, 0.0), ValueError, "low must be less than high"),
        (("cells", 4, 0.0, np.inf), ValueError, "high must be finite"),
    ],
)
def test_bad_axes_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Axis(*arguments)


def test_only_fourier_axes_differentiate():
    with pytest.raises(ValueError, match="must be of kind 'fourier'"):
        Axis("cells", 4, 0.0, 1.0).derivative()
