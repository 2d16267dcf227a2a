"""Spectra on lines, planes and space: harmonic oscillators in closed form, others as sums of one-dimensional ones."""

from itertools import product

import numpy as np
import pytest

import attnflow as af
from attnflow.pde import DriftDiffusion


def oscillator(cov, drift, k):
    """The k smallest sums of n_i drift / variance_i."""
    rates = drift / np.linalg.eigvalsh(cov)
    degrees = product(*[range(k if len(rates) < 3 else 21)] * len(rates))
    return -np.sort([rates @ n for n in degrees])[:k]


@pytest.mark.parametrize("drift", [0.5, 2.0])
@pytest.mark.parametrize("dim", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_twenty_modes_of_a_harmonic_oscillator_with_any_covariance(dim, drift):
    root = np.random.default_rng(dim).normal(size=(dim, dim)) + 0.3 * np.eye(dim)
    density = af.Gaussian(5.0 * np.arange(dim), root @ root.T)
    spectrum = DriftDiffusion(density, drift).spectrum(20)
    right = oscillator(density.cov, drift, 20)
    assert spectrum.eigenvalues[0] == 0
    error = np.abs(spectrum.eigenvalues[1:] / right[1:] - 1).max()
    assert error < 1e-11 and error <= spectrum.estimated_error < 1e-8


def test_tokens_in_space_have_spectra_without_a_grid():
    spectrum = DriftDiffusion(af.Gaussian(np.zeros(3), 0.25 * np.eye(3))).spectrum(10)
    assert spectrum.eigenvalues == pytest.approx(-8 * np.repeat([0, 1, 2], [1, 3, 6]), rel=1e-11, abs=1e-12)
    assert spectrum.eigenfunctions.shape == (10, *spectrum.grid.shape)
    weight = np.exp(DriftDiffusion(af.Gaussian(np.zeros(3), 0.25 * np.eye(3))).log_weight(spectrum.grid.points))
    rows = spectrum.eigenfunctions.reshape(10, -1)
    assert (rows * weight * spectrum.grid.weights) @ rows.T == pytest.approx(np.eye(10), abs=1e-7)
    assert DriftDiffusion(af.Gaussian(np.zeros(3), np.eye(3))).spectrum(1).eigenvalues == [0]


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_unit_of_length_changes_nothing(scale):
    cov = np.array([[1.0, 0.6], [0.6, 0.5]])
    near, far = (DriftDiffusion(af.Gaussian([3.0 * s, 0.0], s**2 * cov)).spectrum(6) for s in (1.0, scale))
    assert far.eigenvalues * scale**2 == pytest.approx(near.eigenvalues, rel=1e-9)


def test_a_well_turned_in_the_plane_is_a_sum_over_its_axes():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    wells = lambda x: -2 * (x**2 - 1) ** 2  # noqa: E731
    line = DriftDiffusion(af.Density(af.Euclidean(1), lambda x: wells(x[..., 0])), 1.0).spectrum(8).eigenvalues
    plane = af.Density(af.Euclidean(2), lambda x: wells((x @ turn)[..., 0]) - (x @ turn)[..., 1] ** 2)
    spectrum = DriftDiffusion(plane, 1.0).spectrum(6)
    right = -np.sort(-np.add.outer(line, -2.0 * np.arange(8)).ravel())[:6]
    error = np.abs(spectrum.eigenvalues[1:] / right[1:] - 1).max()
    assert error <= spectrum.estimated_error < 1e-8
    labels, along = spectrum.metastable_sets(2), (spectrum.grid.points @ turn)[:, 0].reshape(spectrum.grid.shape)
    assert len(np.unique(labels[along > 0.5])) == len(np.unique(labels[along < -0.5])) == 1
    assert labels[along > 0.5][0] != labels[along < -0.5][0]


@pytest.mark.slow
def test_a_mobility_and_a_mixture_agree_with_cells():
    p = af.Mixture([af.Gaussian([-1.0, 0.0], 0.5 * np.eye(2)), af.Gaussian([1.0, 0.5], 0.4 * np.eye(2))], [0.4, 0.6])
    pde = DriftDiffusion(p, 2.0, mobility=lambda x: 1.5 + 0.5 * np.tanh(x[:, 0]))
    free, cells = pde.spectrum(4), pde.spectrum(4, grid=(64, 64))
    assert free.estimated_error < 1e-6
    assert np.abs(cells.eigenvalues[1:] / free.eigenvalues[1:] - 1).max() <= cells.estimated_error < 0.05
