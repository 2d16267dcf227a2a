"""What is the same almost everywhere, of initial values, equations and walls: the peak between all usual points is found, or told."""

import warnings

import numpy as np
import pytest

import attnflow as af
from attnflow.grid import Axis, Grid
from attnflow.resolution import narrow_peaks

CIRCLE, TORUS = af.Circle(), af.Torus((2 * np.pi, 2 * np.pi))
SQUARE = af.Heat(af.Box([(0, 1), (0, 1)]))


def peak(x, centre, width, spread=0.0):
    """A Gaussian's heat kernel on the circle, after the time spread / 2."""
    images = x[..., None] - centre + 2 * np.pi * np.arange(-30, 31)
    now = width**2 + spread
    return width / np.sqrt(now) * np.exp(-(images**2) / (2 * now)).sum(axis=-1)


def solved(pde, initial, t, source=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        return pde.solve(initial, t, source=source)


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


def weight(x):
    """Of integral 2 pi + sqrt(2 pi), to which a spot of width 1e-3 brings the second part."""
    return 1 + 1000 * np.exp(-(((x[..., 0] - 2.0123) / 1e-3) ** 2) / 2)


NARROW = {
    "mobility": af.DriftDiffusion(af.Uniform(CIRCLE), mobility=lambda x: 1 / weight(x)),
    "density": af.DriftDiffusion(af.Density(CIRCLE, lambda x: np.log(weight(x)) / 2)),
    "metric": af.Heat(af.Chart(lambda x: weight(x)[..., None, None] ** 2, [(0, 2 * np.pi)], periodic=True)),
    "head": af.Heads([af.DriftDiffusion(af.Uniform(CIRCLE), mobility=lambda x: 1 / weight(x))], [1.0]),
}


@pytest.mark.parametrize("name", ["mobility", "density", "metric"])
def test_a_spot_of_the_equation_holds_its_share_of_the_weight(name):
    run = solved(NARROW[name], lambda x: np.sin(x[..., 0]), 60.0)
    share = np.sqrt(2 * np.pi) / (2 * np.pi + np.sqrt(2 * np.pi))
    assert run.at([[0.5], [4.0]])[:, 0] == pytest.approx(share * np.sin(2.0123), rel=1e-5)


@pytest.mark.parametrize("name", [*NARROW, "velocity"])
def test_given_grids_tell_of_spots_of_the_equation_they_miss(name):
    wind = af.General(af.Uniform(CIRCLE), lambda x: 300 * np.exp(-(((x - 2.0123) / 1e-3) ** 2) / 2))
    run = NARROW.get(name, wind).solve(lambda x: np.sin(x[..., 0]), 0.1, grid=24)
    assert run.stats["estimated_error"] > 0.1


def test_a_spot_of_the_metric_is_in_the_spectrum():
    length = 2 * np.pi + np.sqrt(2 * np.pi)
    with pytest.warns(af.checks.AccuracyWarning, match="good to"):
        found = NARROW["metric"].spectrum(3)
    assert found.gap == pytest.approx((2 * np.pi / length) ** 2, rel=min(3 * found.estimated_error, 1e-3))


def test_a_speck_of_the_mobility_too_faint_to_matter_costs_nothing():
    pde = af.DriftDiffusion(af.Uniform(CIRCLE), mobility=lambda x: 1 + 1e-13 * (abs(x[..., 0] - 2.0123) < 1e-3))
    run = pde.solve(lambda x: np.sin(x[..., 0]), 0.5)
    assert run.stats["method"] == "spectral" and run.stats["estimated_error"] < 1e-9


def spot(x, width=1e-4):
    return np.exp(-(((x[..., 1] - 0.51234) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))


@pytest.mark.parametrize(
    "side", [("neumann", spot), ("dirichlet", spot), ("robin", spot, 0.0), ("neumann", lambda x, t: np.sin(t) * spot(x))]
)
def test_no_spot_of_a_wall_is_passed_over_in_silence(side):
    def start(x):
        return 1 + 0 * x[..., 0]

    run = SQUARE.solve(start, 1e-3, grid=16, boundary=[(side, "no-flux"), "no-flux"])
    assert run.stats["estimated_error"] > 0.1
    if len(side) == 3:
        with pytest.warns(af.checks.AccuracyWarning, match="does not see a narrow peak of boundary's coefficient b"):
            SQUARE.solve(start, 1e-3, rtol=1e-2, boundary=[(side, "no-flux"), "no-flux"])


def test_what_comes_in_through_a_spot_of_a_wall_is_all_there():
    sides = [(("neumann", lambda x: spot(x, 0.02)), "no-flux"), "no-flux"]
    run = SQUARE.solve(lambda x: 0 * x[..., 0], 0.01, rtol=1e-2, boundary=sides)
    assert run.stats["mean"][0][0] == pytest.approx(0.01, rel=1e-3)


def test_a_wave_along_a_wall_is_no_constant():
    """cos k y falls off from the wall as exp(-k x) / k; on 8, 16 and 32 cells it is none."""
    k = 64 * np.pi
    sides = [(("neumann", lambda x: np.cos(k * x[..., 1])), "no-flux"), "no-flux"]
    run = SQUARE.solve(lambda x: 0 * x[..., 0], 1.0, rtol=1e-3, boundary=sides)
    assert run.at([[0.0, 0.5]]).item() == pytest.approx(1 / k, rel=1e-3)


@pytest.mark.parametrize(
    "source",
    [
        lambda x, t, H: spot(x)[:, None] + 0 * H,
        lambda x, t, H: spot(x)[:, None] * H,
        lambda x, t, H: t * spot(x)[:, None] + 0 * H,
        lambda x, t, H: t * spot(x)[:, None] - H**2,
    ],
)
def test_given_grids_tell_of_spots_of_the_source_they_miss(source):
    run = SQUARE.solve(lambda x: 1 + 0 * x[..., 0], 0.01, grid=12, source=source)
    assert run.stats["estimated_error"] > 0.1


def test_a_spot_of_a_source_adds_up():
    run = solved(
        af.Heat(CIRCLE), lambda x: 0 * x[..., 0], 20.0, lambda x, t, H: np.exp(-(((x - 2.0123) / 1e-4) ** 2) / 2) + 0 * H
    )
    assert run.stats["mean"][-1][0] == pytest.approx(20 * 1e-4 / np.sqrt(2 * np.pi), rel=1e-6)


def test_a_node_on_the_top_of_a_peak_has_not_seen_it():
    """Points to look at are on its slopes as well."""
    grid = Grid((Axis("cells", 8, 0.0, 1.0),))
    points = narrow_peaks(lambda x: peak(x[:, 0], 0.3123, 1e-3), grid, np.zeros((16, 1)))
    heights = peak(points[:, 0], 0.3123, 1e-3)
    assert heights.max() > 0.999 and np.mean(heights < 0.75) > 0.3
