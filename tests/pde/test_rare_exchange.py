"""The slowest rates between wells, which may be as small as numbers get. Right values by mpmath: on the circle inverse
iteration on the Fourier coefficients, with up to 400 digits; on the line iterated integrals on Gauss's nodes, 40 digits."""

import pickle
import warnings

import numpy as np
import pytest
from scipy import integrate

import attnflow as af
from attnflow.pde import ConformalHeat, DriftDiffusion
from attnflow.pde.volumes.chain import chain_eigenpairs

LINE = af.Euclidean(1)
CIRCLE = {
    1.5: 0.16756954636600942,
    5.5: 2.2235413856972976e-4,
    12: 1.1287326203422747e-9,
    40.5: 6.8049868564740734e-34,
    100.25: 2.1374323920989911e-85,
    200.5: 3.5927283108949128e-172,
    300: 2.0230644086819085e-258,
}
QUARTIC = {
    5: 0.0555228127314545105,
    12.5: 8.11607544361926897e-5,
    40: 3.03058752602658221e-16,
    120: 1.65158091059905085e-50,
    300: 2.77751945729202688e-128,
}


def wells(c, count=2, loc=0.0):
    return af.Density(af.Circle(), lambda x: c * np.cos(count * (x[..., 0] - loc)))


def quartic(h, dim=1):
    return af.Density(af.Euclidean(dim), lambda x: -h * (x[..., 0] ** 2 - 1) ** 2 - (x[..., 1:] ** 2).sum(axis=-1) / 2)


@pytest.mark.parametrize("c", CIRCLE)
@pytest.mark.parametrize("loc", [0.0, 0.7])
def test_two_wells_on_a_circle_exchange_at_the_rate_of_mpmath(c, loc):
    spectrum = DriftDiffusion(wells(c, 2, loc), 1.0).spectrum(3)
    assert spectrum.gap == pytest.approx(CIRCLE[c], rel=1e-10)
    assert abs(spectrum.gap / CIRCLE[c] - 1) <= spectrum.estimated_error < 1e-6  # of all three


@pytest.mark.parametrize("h", QUARTIC)
def test_two_wells_on_a_line_exchange_at_the_rate_of_mpmath(h):
    spectrum = DriftDiffusion(quartic(h), 1.0).spectrum(3)
    assert abs(spectrum.gap / QUARTIC[h] - 1) <= spectrum.estimated_error < 1e-9


def test_the_unit_circle_in_the_plane_and_the_interval_have_the_same_wells():
    """Of even functions on the circle, no-flux walls where they are symmetric make an interval."""
    unit = af.Density(af.Sphere(1), lambda x: 20.25 * (x[..., 0] ** 2 - x[..., 1] ** 2))
    box = af.Density(af.Box([(0, np.pi)]), lambda x: 40.5 * np.cos(2 * x[..., 0]))
    gaps = [DriftDiffusion(unit, 2.0).spectrum(2).gap, DriftDiffusion(box, 1.0).spectrum(2).gap]
    assert gaps == pytest.approx([CIRCLE[40.5]] * 2, rel=1e-9)


def test_a_chart_of_the_line_has_the_rates_of_the_line():
    """x = sinh s, with the metric cosh^2 s and a mobility of 3."""
    chart = af.Chart(lambda s: np.cosh(s)[..., None] ** 2, [(-1.5, 1.5)])
    p = af.Density(chart, lambda s: -40 * (np.sinh(s[..., 0]) ** 2 - 1) ** 2)
    three = lambda s: np.full(len(s), 3.0)  # noqa: E731
    assert DriftDiffusion(p, 1.0, mobility=three).spectrum(2).gap == pytest.approx(3 * QUARTIC[40], rel=1e-9)


def test_escape_through_a_wall_has_the_rate_of_kramers_integrals():
    """1 / rate = int_0^1 dy / w(y) int_y^1 w, up to the rate over that of relaxation: absorbed at 0, reflected at 1."""
    p = af.Density(af.Box([(0, 1)]), lambda x: 60 * x[..., 0])
    rate = 60**2 / (np.exp(60.0) - 1 - 60)
    spectrum = DriftDiffusion(p, 1.0).spectrum(2, boundary=[(("dirichlet", 0.0), "no-flux")])
    assert -spectrum.eigenvalues[0] == spectrum.gap == pytest.approx(rate, rel=1e-9)
    assert spectrum.eigenvalues[1] < -900


def test_three_equal_wells_have_one_double_rate():
    """By the symmetry of the third part of a turn."""
    spectrum = DriftDiffusion(wells(30.0, 3), 1.0).spectrum(4)
    zero, first, second, fast = spectrum.eigenvalues
    assert zero == 0 and first == pytest.approx(second, rel=1e-9) and -1e-20 < first < 0 and fast < -100
    weight = np.exp(30 * np.cos(3 * spectrum.grid.points[:, 0]))
    overlaps = np.einsum("i,ki,li->kl", weight, spectrum.eigenfunctions[:3], spectrum.eigenfunctions[:3])
    assert overlaps / overlaps[0, 0] == pytest.approx(np.eye(3), abs=1e-9)
    labels, x = spectrum.metastable_sets(), spectrum.grid.points[:, 0]
    turns = x / (2 * np.pi / 3)
    well = np.where(abs(turns - np.round(turns)) < 0.499, np.round(turns) % 3, np.nan)  # a node may lie on a barrier's top
    assert len(np.unique(labels)) == 3 and all(len(np.unique(labels[well == i])) == 1 for i in range(3))


@pytest.mark.parametrize("m, rate", [(40, 0.6233030394773), (100, 0.6237712672652)])
def test_a_double_root_claims_no_more_digits_than_it_has(m, rate):
    """Rates by a system of Bessel functions, as in test_waves."""
    density = af.Density(af.Circle(), lambda x: 0.5 * np.cos(m * x[..., 0] + 0.4))
    spectrum = DriftDiffusion(density, 2.0).spectrum(3)
    assert abs(spectrum.gap / rate - 1) < spectrum.estimated_error < 1e-7


def test_unequal_wells_relax_as_one_step_between_them():
    """Between two minima H is constant, and its weighted mean is zero."""
    p = af.Density(LINE, lambda x: -30 * (x[..., 0] ** 2 - 1) ** 2 + 2 * x[..., 0])
    spectrum = DriftDiffusion(p, 1.0).spectrum(2)
    x, H = spectrum.grid.points[:, 0], spectrum.eigenfunctions[1]
    weight = np.exp(p.log_pdf(spectrum.grid.points))
    left, right = weight[x < 0].sum(), weight[x > 0].sum()
    heights = np.interp([-1, 1], x, H)
    assert heights[0] / heights[1] == pytest.approx(-right / left, rel=1e-5)


@pytest.mark.filterwarnings("ignore:log_pdf is not smooth")
@pytest.mark.parametrize("mean, variance", [(10.0, 1e-4), (10.0, 0.01), (8.0, 1e-4)])
def test_a_narrow_well_far_from_a_wide_one_is_not_missed(mean, variance):
    """Both halves of p relax onto each other at the rate 4 / integral of 1 / p, the wells being as good as empty between."""
    p = af.Mixture([af.Gaussian(0.0, 1.0), af.Gaussian(mean, variance)], [0.5, 0.5])
    x = np.linspace(-1, mean + 0.2, 400_001)
    inverse = np.exp(-p.log_pdf(x[:, None]))
    barrier = integrate.trapezoid(np.where(inverse < 1e-3 * inverse.max(), 0, inverse), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        spectrum = DriftDiffusion(p, 1.0).spectrum(3)
    assert spectrum.gap == pytest.approx(4 / barrier, rel=0.02)


def test_an_ordinary_well_loses_nothing():
    """Ornstein-Uhlenbeck on the line in two hundred modes' range, and the double eigenvalues of von Mises tokens."""
    assert DriftDiffusion(af.Gaussian(0.3, 1e-6), 1.0).spectrum(20).eigenvalues == pytest.approx(
        -1e6 * np.arange(20), rel=1e-10
    )
    first, second = DriftDiffusion(af.VonMises(30.0)).spectrum(3).eigenvalues[1:]
    assert first == pytest.approx(second, rel=1e-10)


def test_rates_below_the_smallest_number_are_said_to_be():
    with pytest.warns(af.checks.AccuracyWarning, match="1 eigenvalues besides the constant's are below 1e-300"):
        spectrum = DriftDiffusion(wells(600.0), 1.0).spectrum(3)
    assert spectrum.gap == 0 and spectrum.eigenvalues[2] == pytest.approx(-4 * 600, rel=0.01)


def test_cells_of_any_number_have_their_own_eigenvalues():
    cells = DriftDiffusion(wells(3.0), 1.0).cells((40,), (None,))
    values, functions = chain_eigenpairs(cells, 6)
    dense = np.linalg.eigvalsh(cells.operator(symmetric=True).toarray())[::-1]
    assert values[0] == 0 and values[1:] == pytest.approx(dense[1:6], rel=1e-10)
    assert np.abs(cells.operator() @ functions.T - values * functions.T).max() < 1e-10


def test_the_range_is_wide_enough_for_many_functions():
    sizes = DriftDiffusion(quartic(1.0), 1.0).spectrum(40).eigenvalues
    assert sizes[:12] == pytest.approx(DriftDiffusion(quartic(1.0), 1.0).spectrum(12).eigenvalues, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("log_pdf", [lambda x: -np.logaddexp(x, -x)[..., 0], lambda x: (x / 3 - np.logaddexp(x, -x))[..., 0]])
def test_a_spectrum_that_is_not_discrete_is_not_given_digits(log_pdf):
    with pytest.warns(af.checks.AccuracyWarning, match="good to"):
        assert DriftDiffusion(af.Density(LINE, log_pdf), 1.0).spectrum(3).estimated_error > 0.01


@pytest.mark.parametrize("m", [512, pytest.param(500, marks=pytest.mark.slow)])
def test_a_weight_that_waves_between_the_nodes_slows_down_as_homogenisation_says(m):
    """For fast waves the rate falls by the means of w and 1 / w: I_0(c)^-2, up to O(1 / m^2)."""
    spectrum = DriftDiffusion(wells(0.5, m), 1.0).spectrum(3)
    assert spectrum.gap == pytest.approx(0.8842, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("m", [1024, 4096])
def test_a_weight_of_more_waves_than_cells_can_follow_is_warned_of(m):
    with pytest.warns(af.checks.AccuracyWarning, match="good to"):
        spectrum = DriftDiffusion(wells(0.5, m), 1.0).spectrum(3)
    assert abs(spectrum.gap - 0.8842) < 0.8842 * (spectrum.estimated_error + 1e-3)


@pytest.mark.parametrize("space", [pytest.param(af.Sphere(2), marks=pytest.mark.slow), af.Box([(-1, 1), (-1, 1)])])
def test_a_rate_lost_in_round_off_is_warned_of(space):
    p = af.Density(space, lambda x: 24 * x[..., 0] ** 2)
    with pytest.warns(af.checks.AccuracyWarning, match="eigenvalues are good to"):
        spectrum = DriftDiffusion(p).spectrum(2)
    assert spectrum.estimated_error > 1e-6


def test_a_given_grid_that_is_too_coarse_is_warned_of():
    pde = DriftDiffusion(af.Gaussian(np.zeros(3), np.eye(3)))
    with pytest.warns(af.checks.AccuracyWarning, match=r"good to 0.\d of themselves only on a grid of \[12, 12, 12\]"):
        spectrum = pde.spectrum(4, grid=12)
    assert np.abs(spectrum.eigenvalues[1:] / -2 - 1).max() <= spectrum.estimated_error


def test_the_gap_is_the_second_eigenvalue_and_the_constant_alone_has_none():
    with pytest.raises(ValueError, match="k must be at least 2"):
        _ = DriftDiffusion(wells(12.0), 1.0).spectrum(1).gap


@pytest.mark.parametrize("a, right", [(0.437, -11.095791678200092), (0.29, -13.114007739463961)])
def test_a_jump_of_the_weight_costs_the_digits_that_it_says(a, right):
    """w = 1 up to a and e from there to 1: sin(k a) cos(k (1 - a)) + e sin(k (1 - a)) cos(k a) = 0."""
    p = af.Density(af.Box([(0, 1)]), lambda x: np.where(x[..., 0] > a, 1.0, 0.0))
    with pytest.warns(af.checks.AccuracyWarning):
        spectrum = DriftDiffusion(p, 1.0).spectrum(3)
    assert abs(spectrum.gap / -right - 1) <= spectrum.estimated_error < 1e-3


def log_cosine(x):
    return np.cos(x[..., 0])


def test_a_spectrum_and_an_equation_can_be_pickled():
    box = af.Density(af.Box([(0, 2)]), log_cosine)
    for pde in (DriftDiffusion(box), ConformalHeat(box)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            spectrum = pickle.loads(pickle.dumps(pde)).spectrum(3)
        again = pickle.loads(pickle.dumps(spectrum))
        assert np.array_equal(again.eigenfunctions, spectrum.eigenfunctions) and again.gap == spectrum.gap
        assert (again.grid, again.estimated_error) == (spectrum.grid, spectrum.estimated_error)
