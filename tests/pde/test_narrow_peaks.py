"""Initial values that are the same almost everywhere: the peak between all usual points is found, or told."""

import warnings

import numpy as np
import pytest

import attnflow as af

CIRCLE, TORUS = af.Circle(), af.Torus((2 * np.pi, 2 * np.pi))


def peak(x, centre, width, spread=0.0):
    """A Gaussian's heat kernel on the circle, after the time spread / 2."""
    images = x[..., None] - centre + 2 * np.pi * np.arange(-30, 31)
    now = width**2 + spread
    return width / np.sqrt(now) * np.exp(-(images**2) / (2 * now)).sum(axis=-1)


def solved(pde, initial, t):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        return pde.solve(initial, t)


@pytest.mark.parametrize("width, centre", [(3e-4, 2.3456), (1e-4, 1.0), (2e-5, 5.4321)])
@pytest.mark.parametrize("usual", [0.0, -1.0])
def test_a_narrow_peak_on_the_circle_spreads_as_it_must(width, centre, usual):
    t, x = 0.1, np.linspace(0, 2 * np.pi, 500, endpoint=False)[:, None]
    run = solved(af.Heat(CIRCLE), lambda x: usual + peak(x[:, 0], centre, width), t)
    right = usual + peak(x[:, 0], centre, width, 2 * t)
    error = np.sqrt(np.mean((run.at(x)[:, 0] - right) ** 2) / max(usual**2, width * np.sqrt(np.pi) / (2 * np.pi)))
    assert error < 3 * run.stats["estimated_error"]
    assert np.max(abs(run.at(x)[:, 0] - right)) < 0.02 * np.max(abs(right - usual))


def test_a_narrow_peak_is_seen_beside_a_wave_and_between_walls():
    t, x = 0.01, np.linspace(0, 1, 300)[:, None]
    both = lambda x: np.stack([np.cos(np.pi * x[:, 0]), np.exp(-((x[:, 0] - 0.37) ** 2) / 2e-8)], axis=1)  # noqa: E731
    run = solved(af.Heat(af.Box([(0, 1)])), both, t)
    spread = np.sqrt(1e-8 + 2 * t)
    right = 1e-4 / spread * sum(np.exp(-((x[:, 0] - c) ** 2) / (2 * spread**2)) for c in (0.37, -0.37, 1.63, 2.37))
    np.testing.assert_allclose(run.at(x)[:, 1], right, atol=1e-6 * right.max())
    np.testing.assert_allclose(run.at(x)[:, 0], np.exp(-(np.pi**2) * t) * np.cos(np.pi * x[:, 0]), atol=1e-6)


def test_a_step_that_no_usual_point_meets_keeps_its_mass():
    run = solved(af.Heat(CIRCLE), lambda x: (abs(x[:, 0] - 4.0) < 1e-4).astype(float), 10.0)
    assert abs(run.at(np.zeros((1, 1))).item() * np.pi / 1e-4 - 1) < 0.1


@pytest.mark.parametrize("width, claim", [(0.02, 0.05), (1e-3, 2.0)])
def test_a_peak_that_the_finest_cells_of_a_torus_miss_is_in_the_claim(width, claim):
    t, x = 0.1, np.random.default_rng(0).uniform(0, 2 * np.pi, (400, 2))
    initial = lambda x: peak(x[:, 0], 1.0, width) * peak(x[:, 1], 2.5, width)  # noqa: E731
    with pytest.warns(af.checks.AccuracyWarning, match="above rtol"):
        run = af.Heat(TORUS).solve(initial, t)
    right = peak(x[:, 0], 1.0, width, 2 * t) * peak(x[:, 1], 2.5, width, 2 * t)
    error = np.sqrt(np.mean((run.at(x)[:, 0] - right) ** 2)) / (width / np.sqrt(4 * np.pi))  # of the largest norm, the first
    assert error < 3 * run.stats["estimated_error"] <= 3 * claim


def test_given_grids_tell_of_peaks_they_miss():
    for grid in (100, 4097):
        for method in ("spectral", "finite-volume"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", af.checks.AccuracyWarning)
                run = af.Heat(CIRCLE).solve(lambda x: 2 + peak(x[:, 0], 1.2345, 5e-5), 0.1, grid=grid, method=method)
            assert run.stats["estimated_error"] > 0.1


def test_nothing_is_found_where_nothing_is():
    for initial in (np.ones_like, np.zeros_like):
        run = af.Heat(TORUS).solve(lambda x: initial(x[:, 0]), 0.1)
        assert run.stats["estimated_error"] < 1e-12 and np.ptp(run.y) < 1e-12
