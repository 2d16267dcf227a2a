"""What is refused, and whether the message names the argument, what came and what was expected."""

import numpy as np
import pytest

import attnflow as af
from attnflow import checks


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: checks.positive(0.0, "epsilon"), ValueError, "epsilon must be positive and finite, got 0.0"),
        (lambda: checks.positive(np.inf, "epsilon"), ValueError, "epsilon must be finite, got inf"),
        (lambda: checks.positive(True, "epsilon"), TypeError, "epsilon must be a real number, got bool True"),
        (lambda: checks.real(1j, "t"), TypeError, "t must be a real number"),
        (lambda: checks.nonnegative(-1, "kappa"), ValueError, "kappa must be at least 0 and finite, got -1.0"),
        (lambda: checks.fraction(1.5, "residual"), ValueError, r"residual must be in \(0, 1\], got 1.5"),
        (lambda: checks.integer(2.0, "layers"), TypeError, "layers must be an integer, got float 2.0"),
        (lambda: checks.integer(0, "n", least=1), ValueError, "n must be at least 1, got 0"),
        (lambda: checks.choice("RK5", "method", ["RK45", "Euler"]), ValueError, "one of 'Euler', 'RK45', got str"),
        (lambda: checks.array(["a"], "values"), TypeError, "values must be an array of real numbers"),
        (lambda: checks.array([1 + 1j], "values"), TypeError, "values must be an array of real numbers"),
        (lambda: checks.array([[1, np.nan]], "values"), ValueError, r"finite, got nan at index \(0, 1\)"),
        (lambda: checks.array(np.ones((2, 3)), "W", (None, 2)), ValueError, r"W must have shape \(any, 2\), got"),
        (lambda: checks.points(np.ones(3), "tokens"), ValueError, r"add an axis: tokens\[:, None\]"),
        (lambda: checks.points(np.ones((3, 1)), "tokens", 2), ValueError, "tokens must have 2 columns"),
        (lambda: checks.points(np.ones((0, 2)), "tokens"), ValueError, "at least one point"),
        (lambda: checks.coordinates(np.ones((4, 3)), "x", 2), ValueError, r"x must have shape \(..., 2\), got"),
        (lambda: checks.features(np.ones((2, 1)), "values", 3), ValueError, r"shape \(3,\) or \(3, c\)"),
        (lambda: checks.evaluate(3, np.ones((2, 1)), "initial"), TypeError, "initial must be callable"),
        (lambda: checks.scalar_field(np.sin, np.ones((2, 1)), "log_pdf"), ValueError, r"as in x\[..., 0\]"),
        (
            lambda: checks.scalar_field(lambda x: x[..., 0] * np.inf, np.ones((2, 1)), "log_pdf"),
            ValueError,
            r"log_pdf must be finite or -inf, got inf at x = \[1.\]",
        ),
        (lambda: checks.spd(np.ones((2, 3)), "G"), ValueError, "G must be a square matrix"),
        (lambda: checks.spd([[1, 1], [0, 1]], "G"), ValueError, "G must be symmetric positive definite"),
        (lambda: checks.spd([[1, 1], [1, 1]], "G"), ValueError, "G must be symmetric positive definite"),
        (
            lambda: checks.spd([[[1.0]], [[-1.0]]], "metric", where=np.array([[5.0], [7.0]])),
            ValueError,
            r"got \[\[-1.0\]\] at x = \[7.\]",
        ),
        (lambda: checks.generator("seed"), TypeError, "rng must be a numpy Generator"),
        (lambda: checks.output_times([0.0, 0.0]), ValueError, "increasing times"),
        (lambda: checks.output_times(-1.0), ValueError, "t must be a time >= 0"),
        (lambda: checks.output_times([]), ValueError, "t must be a time >= 0"),
    ],
)
def test_refusals_say_what_came_and_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_single_precision_is_kept_and_integers_become_double():
    assert checks.array(np.ones(2, dtype=np.float32), "x").dtype == np.float32
    assert checks.array([1, 2], "x").dtype == np.float64


def test_one_dimensional_features_are_one_column():
    assert checks.features([1.0, 2.0], "values", 2).shape == (2, 1)
    assert checks.evaluate(lambda x: x[..., 0], np.ones((3, 2)), "values").shape == (3, 1)


def test_minus_infinity_passes_as_the_logarithm_of_zero():
    assert checks.scalar_field(lambda x: x[..., 0] - np.inf, np.ones((2, 1)), "log_pdf").tolist() == [-np.inf] * 2


def test_warnings_point_at_the_line_outside_the_package():
    """However deep inside they arise: the file named is the one that called."""
    p = af.Density(af.Box([(0, 1)]), lambda x: 100.0 * x[..., 0])
    layer, square = af.Attention(af.SquaredDistance(af.Circle()), 1e-7), af.Box([(0, 1), (0, 1)])
    calls = [
        lambda: af.DriftDiffusion(p).solve(lambda x: x[:, 0], 0.1, grid=8, method="finite-volume"),
        lambda: af.Heat(af.Box([(0, 1)])).solve(lambda x: abs(x[:, 0] - 0.3), 0.1, rtol=1e-14),
        lambda: af.DriftDiffusion(af.Density(square, lambda x: 10 * np.cos(6.283 * x).sum(-1))).spectrum(3, grid=(7, 6)),
        lambda: af.Density(square, lambda x: np.where(abs(x[..., 0] - 0.3) < 0.2, 5.0, 0.0)).log_pdf(np.zeros((1, 2))),
        lambda: af.propagate(layer, np.linspace(0, 6, 5)[:, None], np.ones((5, 1)), 2),
        lambda: af.feynman_kac(af.Gaussian(0.0, 1.0), lambda x: np.exp(9 * x[:, 0]), np.zeros((1, 1)), 1.0, 50, rng=0),
    ]
    for call in calls:
        with pytest.warns(checks.AttnflowWarning) as caught:
            call()
        assert {w.filename for w in caught if issubclass(w.category, checks.AttnflowWarning)} == {__file__}


@pytest.mark.parametrize(
    "value", [np.ma.masked, [0.5, np.ma.masked], [[np.ma.array(1.0, mask=True)]], np.ma.array([0.5], mask=[True])]
)
def test_masked_entries_are_refused_before_numpy_makes_them_nan(value, recwarn):
    with pytest.raises(ValueError, match="orders must have no masked entries"):
        checks.array(value, "orders")
    assert not len(recwarn)
