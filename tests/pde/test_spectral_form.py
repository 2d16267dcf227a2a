"""Spectral matrices and spectra against known eigenvalues."""

import numpy as np
import pytest

import attnflow as af
from attnflow.pde import DriftDiffusion, Heat, chebyshev
from attnflow.pde.grids import node_grid
from attnflow.pde.nodes.operator import spectral_matrix, symmetric_form
from attnflow.pde.propagator import eigenpairs

VON_MISES = [-2.39819200632760, -5.24051706548912, -10.1740608680591, -17.1524814264963]


def test_spectral_matrix_is_the_operator_to_round_off():
    pde = DriftDiffusion(af.VonMises(1.5))
    grid = pde.space.grid(41)
    x, L = grid.points[:, 0], spectral_matrix(pde.generator, grid)
    assert np.abs(L @ np.cos(x) - (3 * np.sin(x) ** 2 - np.cos(x))).max() < 1e-11
    assert np.abs(L.sum(axis=1)).max() < 1e-11
    assert np.abs(np.exp(3 * np.cos(x)) @ L).max() < 1e-10


@pytest.mark.parametrize("periodic", [True, False])
def test_fields_on_two_axes_evolve_as_eigenvectors_do(periodic):
    space = af.Torus([2.0, 3.0]) if periodic else af.Box([(0, 2.0), (0, 3.0)])
    pde = DriftDiffusion(af.Density(space, lambda x: np.cos(np.pi * x[..., 0]) * np.cos(2 * np.pi / 3 * x[..., 1])))
    form = symmetric_form(pde.generator, node_grid(pde.space, (9, 11)), (None, None))
    start, times = np.random.default_rng(0).standard_normal((2, 9, 11)), np.array([0.0, 0.01, 0.3])
    values, vectors = eigenpairs(form)
    amplitudes = start.reshape(2, -1) @ vectors
    expected = (np.exp(times[:, None, None] * values) * amplitudes) @ vectors.T
    weights = chebyshev.coefficients(times, form.bound, 1e-14)
    found = [chebyshev.propagate_plane(*form.plane(2 / form.bound), field, weights) for field in start]
    assert np.abs(np.stack(found, axis=1).reshape(3, 2, -1) - expected).max() < 1e-12
    by_calls = chebyshev.propagate(form.doubled(2 / form.bound), start, weights)
    assert np.abs(np.stack(by_calls).reshape(3, 2, -1) - expected).max() < 1e-12


@pytest.mark.parametrize("cells", [9, 15])
def test_mass_is_conserved_even_where_the_grid_is_too_coarse(cells):
    pde = DriftDiffusion(af.VonMises(1.5))
    solution = pde.solve(lambda x: np.sin(x[:, 0]) + np.cos(2 * x[:, 0]), [0, 0.5, 40.0], grid=cells)
    mass = solution.y[..., 0] @ np.exp(3 * np.cos(solution.grid.points[:, 0]))
    assert np.abs(mass / mass[0] - 1).max() < 1e-13


@pytest.mark.parametrize("cells", [16, 17])
def test_a_given_grid_is_kept_and_its_error_is_estimated(cells):
    pde = DriftDiffusion(af.VonMises(1.5))
    solution = pde.solve(lambda x: np.sin(x[:, 0]) + np.cos(2 * x[:, 0]), 0.5, grid=cells)
    error = solution.at(np.array([[np.pi / 2]]))[0, 0] - 0.64223766233036
    assert solution.y.shape == (1, cells, 1)
    assert 1e-8 < abs(error) < 3 * solution.stats["estimated_error"] < 1e-4


def test_von_mises_eigenvalues_are_double():
    eigenvalues, eigenfunctions = spectrum = DriftDiffusion(af.VonMises(1.5)).spectrum(9)
    assert eigenvalues == pytest.approx(np.append(0, np.repeat(VON_MISES, 2)), abs=1e-10)
    weight = np.exp(2 * af.VonMises(1.5).log_pdf(spectrum.grid.points)) * spectrum.grid.weights
    assert np.allclose(np.einsum("i,ki,li->kl", weight, eigenfunctions, eigenfunctions), np.eye(9), atol=1e-12)


def test_finite_volumes_find_the_same_eigenvalues_when_the_density_spans_many_orders():
    top, first, second = DriftDiffusion(af.VonMises(30.0)).spectrum(3).eigenvalues
    assert abs(top) < 1e-8 and first == pytest.approx(second, rel=1e-9)
    assert first == pytest.approx(-60, abs=1)  # Ornstein-Uhlenbeck, with curvature corrections of order one


@pytest.mark.parametrize("boundary, expected", [(None, [0, 1, 4, 9]), (("dirichlet", 0.0), [1, 4, 9, 16])])
def test_eigenvalues_between_walls(boundary, expected):
    b = 0.5
    pde = DriftDiffusion(af.Density(af.Box([(0, np.pi)]), lambda x: b * x[..., 0]))
    shift = b**2 * (np.array(expected) > 0)
    assert pde.spectrum(4, boundary=boundary).eigenvalues == pytest.approx(-shift - expected, abs=1e-8)


def test_gaussian_tokens_have_hermite_eigenfunctions_out_to_the_tails():
    density = af.Gaussian(0.2, 0.49)
    eigenvalues, eigenfunctions = spectrum = DriftDiffusion(density).spectrum(4)
    assert eigenvalues == pytest.approx(-2 * np.arange(4) / 0.49, abs=1e-8)
    z = (spectrum.grid.points[:, 0] - 0.2) / 0.7 * np.sqrt(2)
    ratio = eigenfunctions[3] / (z**3 - 3 * z)
    far = (np.abs(z) > 2.5) & (np.abs(z) < 8)  # the cut is at 9.8
    assert np.ptp(np.abs(ratio[far])) < 1e-3 * np.abs(ratio[far]).mean()


def test_heat_eigenvalues_of_a_square():
    eigenvalues, _ = Heat(af.Torus([2 * np.pi] * 2)).spectrum(9)
    assert eigenvalues == pytest.approx([0] + [-1] * 4 + [-2] * 4, abs=1e-10)


def test_spectrum_of_a_given_grid_is_that_of_its_operator():
    pde = DriftDiffusion(af.Density(af.Box([(0, 1)]), lambda x: np.sin(5 * x[..., 0])))
    eigenvalues, eigenfunctions = pde.spectrum(3, grid=12)
    L = pde.operator(12).toarray()
    assert np.allclose(eigenfunctions @ L.T, eigenvalues[:, None] * eigenfunctions, atol=1e-9)


def test_gap_and_metastable_sets_of_two_wells():
    wells = af.Density(af.Circle(), lambda x: 2 * np.cos(2 * x[..., 0]))
    spectrum = DriftDiffusion(wells).spectrum(5)
    assert spectrum.gap == pytest.approx(-spectrum.eigenvalues[1], rel=1e-12) and spectrum.gap < 0.1 * -spectrum.eigenvalues[2]
    labels, x = spectrum.metastable_sets(), spectrum.grid.points[:, 0]
    right = np.abs(np.mod(x + np.pi, 2 * np.pi) - np.pi) < np.pi / 2
    edge = np.abs(np.cos(x)) < 0.1
    assert len(np.unique(labels)) == 2 and len(np.unique(labels[right & ~edge])) == len(np.unique(labels[~right & ~edge])) == 1


def test_three_wells_in_the_plane_are_three_sets():
    centres = [[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]]
    p = af.Mixture([af.Gaussian(c, 0.3 * np.eye(2)) for c in centres], [0.3, 0.3, 0.4])
    with pytest.warns(af.checks.AccuracyWarning, match="good to 0.2"):  # the wells' rates; the sets are clear
        spectrum = DriftDiffusion(p).spectrum(5, grid=(60, 60))
    labels = spectrum.metastable_sets()
    nearest = np.argmin(np.linalg.norm(spectrum.grid.points[:, None] - np.array(centres), axis=2), axis=1).reshape(60, 60)
    heavy = p.pdf(spectrum.grid.points).reshape(60, 60) > 0.02
    pairs = {(a, b) for a, b in zip(labels[heavy], nearest[heavy])}
    assert len(pairs) == 3 and len({a for a, _ in pairs}) == 3
    with pytest.raises(ValueError, match="count must be at most"):
        spectrum.metastable_sets(6)


def test_spectrum_between_walls_of_an_oblique_metric_is_the_same_by_cells():
    G = np.array([[1.5, 0.4], [0.4, 1.0]])
    space = af.Chart(lambda x: np.broadcast_to(G, (*x.shape, 2)), [(0, 2 * np.pi), (0, 2.0)], periodic=(True, False))
    pde = DriftDiffusion(af.Density(space, lambda x: 0.3 * np.cos(x[..., 0]) + 0.2 * x[..., 1]))
    nodes, cells = pde.spectrum(4), pde.spectrum(4, grid=(64, 32))
    assert nodes.estimated_error < 1e-9
    assert nodes.eigenvalues == pytest.approx(cells.eigenvalues, rel=3 * cells.estimated_error, abs=1e-9)
