"""The bias of order sqrt(eps) at walls: a wall's mass, series of the interval, measured layers, and what is not known."""

import numpy as np
import pytest

import attnflow as af
from attnflow.attention.names import normalization as as_rule

LINE = af.Box([(0.0, np.pi)])
X = np.array([[0.6], [0.98], [1.36], [1.74], [2.12], [2.5]])


def two_waves(x):
    return np.cos(x[..., 0]) + np.cos(2 * x[..., 0])


@pytest.mark.parametrize(
    "alpha, mass", [(0.0, -0.398942), (0.25, -0.220454), (0.5, -0.013204), (0.75, 0.228976), (1.0, 0.513787)]
)
def test_the_mass_of_a_wall(alpha, mass):
    assert af.DensityCorrected(alpha).wall_mass() == pytest.approx(mass, abs=1e-6)


def test_the_mass_of_a_wall_is_zero_where_columns_sum_to_one():
    assert as_rule("softmax").wall_mass() == pytest.approx(-1 / np.sqrt(2 * np.pi), abs=1e-12)
    assert as_rule("column").wall_mass() == af.DensityCorrected(1.0).wall_mass()
    assert as_rule("sinkhorn").wall_mass() == 0


def test_bias_of_a_uniform_interval_is_its_series_in_cosines():
    t, j, total = 0.5, np.arange(20_000.0), 0.0
    for k in (1, 2):
        apart = np.where(j == k, 1.0, j**2 - k**2)
        integral = np.where(j == k, t * np.exp(-(k**2) * t), (np.exp(-(k**2) * t) - np.exp(-(j**2) * t)) / apart)
        walls = (1 + (-1.0) ** (j + k)) / np.pi * np.where(j == 0, 1, 2)
        total = total + np.cos(X * j) @ (walls * k**2 * integral)
    layer = af.Attention(af.SquaredDistance(LINE), 0.01)
    bias = af.predicted_bias(layer, af.Uniform(LINE), two_waves, t)(X)[:, 0]
    np.testing.assert_allclose(bias / (-0.1 / np.sqrt(2 * np.pi)), total, rtol=1e-4)


@pytest.mark.parametrize("normalization, residual", [("softmax", 1.0), ("softmax", 0.4), ("column", 1.0)])
def test_layers_on_an_interval_have_the_predicted_bias(normalization, residual):
    density, errors = af.Density(LINE, lambda x: 0.6 * x[..., 0]), []
    equation = af.limit(af.Attention(af.SquaredDistance(LINE), 0.1, normalization), density)
    exact = equation.solve(two_waves, 0.3, rtol=1e-8).at(X)
    for depth in (48, 96, 192):
        layer = af.Attention(af.SquaredDistance(LINE), 0.6 / depth / residual, normalization, residual)
        measured = af.propagate(layer, density, two_waves, depth, save_every=depth).at(X) - exact
        errors.append(measured / np.sqrt(layer.epsilon))
    once = [(np.sqrt(2) * b - a) / (np.sqrt(2) - 1) for a, b in zip(errors, errors[1:])]
    predicted = af.predicted_bias(layer, density, two_waves, 0.3)(X) / np.sqrt(layer.epsilon)
    np.testing.assert_allclose(2 * once[1] - once[0], predicted, rtol=0.03, atol=0.01 * np.abs(predicted).max())


def test_a_longer_unit_of_length_is_a_slower_equation():
    # Mahalanobis on a box: the similarity of the box stretched by sqrt(G) per axis, each wall's mass with it
    G = np.diag([4.0, 1.0])
    box, wide = af.Box([(0, 1), (0, 2)]), af.Box([(0, 2), (0, 2)])
    start = lambda x: np.cos(np.pi * x[..., 0]) + np.cos(np.pi * x[..., 1] / 2)  # noqa: E731
    log_p = lambda x: 0.5 * x[..., 0] - 0.3 * x[..., 1]  # noqa: E731
    x = np.array([[0.2, 0.3], [0.7, 1.9]])
    one = af.predicted_bias(af.Attention(af.Mahalanobis(G), 0.01), af.Density(box, log_p), start, 0.2)(x)
    stretched = af.Density(wide, lambda x: log_p(x / [2, 1]))
    layer = af.Attention(af.SquaredDistance(wide), 0.01)
    other = af.predicted_bias(layer, stretched, lambda x: start(x / [2, 1]), 0.2)(x * [2, 1])
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_walls_along_which_features_vary_alone_do_not_matter():
    # a layer on a box of independent coordinates is one per coordinate: cos x never sees the walls across y
    box, wave = af.Box([(0, np.pi), (0, 3.0)]), lambda x: np.cos(x[..., 0])
    x = np.array([[0.3, 0.0], [0.6, 1.4], [2.0, 2.8]])
    one = af.predicted_bias(af.Attention(af.SquaredDistance(LINE), 0.01), af.Uniform(LINE), wave, 0.4)(x[:, :1])
    two = af.predicted_bias(af.Attention(af.SquaredDistance(box), 0.01), af.Uniform(box), wave, 0.4)(x)
    np.testing.assert_allclose(two, one, rtol=1e-3)


def test_the_slowest_rate_of_a_box_is_shifted_by_its_walls():
    # to first order by sqrt(s / (2 pi)) (wall integral of p^2 (l phi^2 - |slope along the wall|^2)) / (integral of p^2 phi^2)
    box, s, t = af.Box([(0, 2.0), (0, 1.5)]), 0.01, 0.3
    density = af.Density(box, lambda x: 0.6 * np.sin(2 * x[..., 0] + x[..., 1]))
    eigenvalues, mode = (spectrum := af.DriftDiffusion(density).spectrum(2)).eigenvalues, lambda x: spectrum.at(x)[1]
    layer, grid = af.Attention(af.SquaredDistance(box), s), box.grid(24)
    weights = density.pdf(grid.points) ** 2 * grid.weights * mode(grid.points)
    depth = round(t / layer.time_step)
    run = af.propagate(layer, density, mode, 2 * depth, save_every=depth)
    late, later = (weights @ run.at(grid.points, time)[:, 0] for time in run.t[1:])
    measured = np.log(late / later) / (run.t[2] - run.t[1]) + eigenvalues[1]
    bias = weights @ af.predicted_bias(layer, density, mode, t)(grid.points)[:, 0]
    predicted = -bias / (weights @ mode(grid.points)) / t * np.exp(-eigenvalues[1] * t)
    assert measured == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("alpha", [0.5, 0.6])
def test_where_the_mass_of_a_wall_nearly_vanishes_the_bias_is_that_of_the_layers(alpha):
    # 40 layers on nodes twice as dense, of weights x0 on the unit interval
    box = af.Box([(0, 1)])
    layer, density = (
        af.Attention(af.SquaredDistance(box), 5e-4, af.DensityCorrected(alpha)),
        af.Density(box, lambda x: x[..., 0]),
    )
    wave, x = lambda x: np.cos(np.pi * x[..., 0]), np.linspace(0.05, 0.95, 7)[:, None]
    t, depth = 40 * layer.time_step, 40
    run = af.propagate(layer, density, wave, depth, save_every=depth, grid=400)
    measured = run.at(x) - af.limit(layer, density).solve(wave, t).at(x)
    np.testing.assert_allclose(af.predicted_bias(layer, density, wave, t)(x), measured, atol=0.01 * np.abs(measured).max())


def test_sinkhorn_between_walls_has_the_bias_of_its_layers():
    # uniform tokens, t = .5, relative L2 at tau = .01, .005, .0025, .00125
    grid, t, errors = LINE.grid(200), 0.5, []
    exact = np.exp(-t) * np.cos(grid.points[:, 0]) + np.exp(-4 * t) * np.cos(2 * grid.points[:, 0])
    for tau in (0.01, 0.005, 0.0025, 0.00125):
        layer = af.Attention(af.SquaredDistance(LINE), 2 * tau, "sinkhorn")
        bias = af.predicted_bias(layer, af.Uniform(LINE), two_waves, t)(grid.points)[:, 0]
        errors.append(np.sqrt(grid.weights @ bias**2 / (grid.weights @ exact**2)))
    np.testing.assert_allclose(errors, [0.00134638, 0.0005575, 0.00023009, 0.00009508], rtol=1e-4)


def _tilted(x, y):
    return np.sinh(x - y)[..., 0] ** 2 * (1 + 0.1 * np.sin(y[..., 0]))


@pytest.mark.parametrize(
    "build",
    [
        lambda f: af.MultiHead([af.Attention(f, 0.02), af.Attention(f, 0.04, "sinkhorn")]),
        lambda f: af.Attention(af.PowerDistance(LINE, 4.0), 0.001),
        lambda f: af.Attention(af.PseudoMetric(_tilted, 1), 0.02),
    ],
)
def test_heads_powers_and_an_asymmetric_f_between_walls_have_the_bias_of_their_layers(build):
    layer, density = build(af.SquaredDistance(LINE)), af.Density(LINE, lambda x: 0.6 * x[..., 0])
    t, nodes = 20 * layer.time_step, 180
    run = af.propagate(layer, density, two_waves, 20, save_every=20, grid=nodes)
    wanted = run.at(X) - af.limit(layer, density).solve(two_waves, t, rtol=1e-9).at(X)
    bias = af.predicted_bias(layer, density, two_waves, t)(X)
    np.testing.assert_allclose(bias, wanted, atol=1e-5 * np.abs(wanted).max())
