"""Squares of random tokens are fitted with the variance that they have, and intervals hold what they say."""

import numpy as np
import pytest
from scipy import stats

from attnflow.studies.fits import fit_squares, fit_values
from validation.study_intervals import run


def test_one_mean_has_students_interval_of_the_relative_spread():
    squares = np.array([1.0, 2.0, 3.0, 6.0])
    value, low, high = fit_squares(np.ones((4, 1)), squares, "seeds")
    half = stats.t.ppf(0.975, 3) * np.std(squares / 3, ddof=1) / 2
    assert (value, low, high) == pytest.approx((np.log(3), np.log(3) - half, np.log(3) + half), rel=1e-9)


def test_a_slope_between_two_sizes_is_that_of_their_means():
    columns = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    value, low, high = fit_squares(columns, np.array([1.0, 3.0, 10.0, 30.0]), "sizes")
    assert value == pytest.approx(np.log(10) / 2, rel=1e-9)
    # all four are half off their mean: variance 4 (1/4) / 2 of each, over the sum of squares 4 of the columns about 1
    assert high - value == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(0.5 / 4), rel=1e-9)


def test_slope_intervals_cover_the_truth_as_often_as_they_say_and_are_narrower():
    """Sums of correlated chi-squares, (sum l)^2 / sum l^2 = 3.1 degrees of freedom, 1.5 at the other temperature."""
    seeds, rng = 10, np.random.default_rng(0)
    sizes = np.tile(np.repeat([100.0, 300.0, 1000.0], seeds), 2)
    warm = np.repeat([True, False], 3 * seeds)
    columns = np.column_stack([np.log(sizes), warm, ~warm])
    modes = np.where(warm[:, None], [1.0, 0.25, 0.0, 0.0], [1.0, 0.5, 0.5, 0.2])
    groups, inside, widths = np.arange(6).repeat(seeds), np.zeros(2), np.zeros(2)
    for _ in range(400):
        squares = (modes * rng.chisquare(1, modes.shape)).sum(axis=1) / sizes
        means = np.array([squares[groups == k].mean() for k in range(6)])
        for k, (value, low, high) in enumerate(
            (fit_squares(columns, squares, "sizes"), fit_values(columns[::seeds], np.log(means), "sizes"))
        ):
            inside[k] += low < -1 < high
            widths[k] += high - low
    assert 0.92 < inside[0] / 400 < 0.98
    assert widths[0] < 0.88 * widths[1]  # through logarithms of means: 2 degrees of freedom are left for their variance


def test_fits_that_have_no_answer_are_refused():
    with pytest.raises(ValueError, match="sizes must be more for this fit: 2 points, 2 unknowns"):
        fit_squares(np.eye(2), np.ones(2), "sizes")
    with pytest.raises(ValueError, match="two sizes of one at least"):
        fit_squares(np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]] * 2), np.ones(4), "sizes")
    with pytest.raises(ValueError, match="exact to round-off"):
        fit_squares(np.ones((3, 1)), np.full(3, 1e-28), "seeds")


@pytest.mark.slow
def test_intervals_of_repeated_studies_hold_what_they_should():
    report = run(30, {"softmax": ("softmax", 6)})
    assert report.holds, report.markdown()


@pytest.mark.parametrize(
    "squares, fault", [([0.0, 0.0, 1e-4, 1e-4], "no power law"), ([np.nan, 1e-3, 1e-4, 1e-4], "not finite")]
)
def test_deviations_without_a_law_are_refused(squares, fault):
    columns = np.stack([np.log([100.0, 100.0, 1000.0, 1000.0]), np.ones(4)], axis=1)
    with pytest.raises(ValueError, match=fault):
        fit_squares(columns, np.array(squares), "sizes")
