"""Titles of studies say what the numbers say, and no line is drawn for what is not predicted."""

import itertools
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

import attnflow as af
from attnflow.plotting.tokens import plot_tokens
from attnflow.solution import Solution
from attnflow.studies.comparison import Comparison
from attnflow.studies.result import Prediction, StudyResult

EPSILONS, SIZES = (0.4, 0.2, 0.1), (100, 400)


@pytest.fixture(scope="module")
def study():
    f = af.SquaredDistance(af.Circle())
    return af.ConvergenceStudy(f, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 1.0, EPSILONS, [*SIZES, np.inf], 3)


def result(study, errors, deviations, bias, noise, unknown=None):
    """Cells with these errors at N = inf, and deviations by epsilon and size, which three seeds spread by 10 %."""
    common = {"layers": 5, "t": 1.0, "seconds": 0.1, "engine": "numba", "accuracy": 1e-9}
    cells = []
    for k, e in enumerate(EPSILONS):
        cells.append({"epsilon": e, "size": "inf", "seed": 0, "error": errors[k], "deviation": 0.0, **common})
        for j, n in enumerate(SIZES):
            for seed, factor in enumerate((0.9, 1.0, 1.1)):
                d = deviations[k][j] * factor
                off = {"error": float(np.hypot(errors[k], d)), "deviation": d}
                cells.append({"epsilon": e, "size": n, "seed": seed, **off, **common})
    prediction = Prediction(dict(zip(EPSILONS, bias)), dict(zip(EPSILONS, noise)), {}, {})
    object.__setattr__(prediction, "unknown", unknown or {})
    found = StudyResult(study, cells, "finished")
    found.__dict__["predicted"] = prediction
    return found


ERRORS, BIAS = [0.095, 0.049, 0.0249], [0.1, 0.05, 0.025]
NOISE = [1.0, 1.2, 1.5]
DEVIATIONS = [[k / np.sqrt(n) for n in SIZES] for k in NOISE]
NAN = [np.nan] * 3


def titles(found):
    return [ax.get_title(loc="left") for ax in found.plot()]


def lines(ax):
    """The predictions: drawn lines, not markers nor error bars."""
    return [line for line in ax.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]


def notes(ax):
    return " ".join(text.get_text() for text in ax.texts).replace("\n", " ")


def test_agreement_is_said_with_its_ratio(study):
    bias, noise = titles(result(study, ERRORS, DEVIATIONS, BIAS, NOISE))
    assert "0.025 to 0.095" in bias and "as predicted (ratio 0.95 to 1.00)" in bias
    assert "slope -0.50 in $N$" in noise and "as predicted (ratio 1.0" in noise


def test_disagreement_is_not_called_agreement(study):
    found = result(study, [0.8, 0.5, 0.3], 3 * np.array(DEVIATIONS), BIAS, NOISE)
    bias, noise = titles(found)
    assert "0.3 to 0.8" in bias and "8.00 to 12.00 times the predicted" in bias
    assert "as predicted" not in bias + noise and "\n3.01 times the predicted" in noise


def test_errors_that_do_not_fall_are_said_not_to(study):
    found = result(study, [0.1, 0.3, 0.2], DEVIATIONS, BIAS, NOISE)
    assert titles(found)[0] == r"Bias: the error does not fall with $\epsilon$ (0.1 to 0.3)"


def test_nothing_predicted_draws_no_line_and_says_why(study):
    why = {"bias": "walls slow convergence down", "noise": "a density is needed"}
    found = result(study, ERRORS, DEVIATIONS, NAN, NAN, why)
    for ax, kind in zip(found.plot(), ("bias", "noise")):
        assert "none predicted" in ax.get_title(loc="left") and "as predicted" not in ax.get_title(loc="left")
        assert lines(ax) == [] and f"no prediction: {why[kind]}" in notes(ax)


def test_a_prediction_of_round_off_is_not_drawn(study):
    found = result(study, [1e-4, 2e-5, 3e-6], DEVIATIONS, [1e-12, 3e-13, 2e-12], NOISE)
    left, right = found.plot()
    assert "none predicted" in left.get_title(loc="left") and "round-off next to the points" in notes(left)
    assert min(line.get_ydata().min() for line in lines(left)) > 1e-3  # those of finite N, which noise rules
    assert left.get_ylim()[0] > 1e-7 and len(lines(right)) == 3


def test_an_exact_case_says_so(study):
    found = result(study, [3e-15, 1e-15, 2e-13], DEVIATIONS, [1e-14, 1e-15, 1e-15], NOISE)
    left, _ = found.plot()
    assert left.get_title(loc="left") == "Bias: exact to round-off (errors below 1e-12)"
    assert notes(left) == "" and all(line.get_ydata().min() > 1e-3 for line in lines(left))


def test_an_interrupted_study_draws_what_it_has(study):
    found = result(study, ERRORS, DEVIATIONS, BIAS, NOISE)
    found.cells[:] = found.cells[:2]  # one of N = inf, one of a finite size
    bias, noise = titles(found)
    assert "as predicted (ratio 0.95)" in bias and "slope" not in noise
    found.cells.clear()
    assert titles(found) == [r"Bias: no cell of $N = \infty$ was finished", "Noise: no finite $N$ to see it at"]


def test_a_study_of_the_uniform_circle_is_exact():
    f = af.SquaredDistance(af.Circle())
    p, epsilons = af.Uniform(af.Circle()), [0.1, 0.05, 0.025]
    study = af.ConvergenceStudy(f, p, lambda x: np.cos(x[..., 0]), 0.4, epsilons, [np.inf])
    left, right = study.run(progress=False).plot()
    assert left.get_title(loc="left").startswith("Bias: exact to round-off") and lines(left) == []
    assert right.get_title(loc="left") == "Noise: no finite $N$ to see it at"


def test_a_comparison_says_how_far_apart():
    ax = Comparison(np.array([0.1, 0.2]), np.array([0.02, 0.013])).plot()
    assert ax.get_title(loc="left").endswith("at most 0.02")


@pytest.mark.parametrize(
    "spread, found",
    [([2.0, 1.0], "shrinks from 2 to 1"), ([1.0, 3.0], "grows from 1 to 3"), ([1.0, 1.001], "stays at 1")],
)
def test_the_spread_of_tokens_is_said_to_do_what_it_does(spread, found):
    points = np.random.default_rng(0).normal(size=(20, 2))
    run = Solution(t=np.array([0.0, 1.0]), y=np.stack([points, points]), layers=np.array([0, 1]), points=points)
    first, second, _ = plot_tokens(run, np.array(spread), np.full(20, 7.0))
    assert found in first.get_title(loc="left") and "attends to 7 tokens" in second.get_title(loc="left")
    run.status = 1
    assert plot_tokens(run, np.array(spread), np.full(20, 7.0))[0].get_title(loc="left").endswith("(interrupted)")


def test_the_title_of_curves_does_not_say_what_they_do():
    # features that are carried round do not relax towards a mean in the time that is shown
    pde = af.General(af.Uniform(af.Circle()), lambda x: np.full((len(x), 1), 5.0))
    ax = pde.solve(lambda x: np.cos(x[:, 0]), [0.0, 0.1], rtol=1e-4).plot()
    assert ax.get_title(loc="left") == "Features over time"


def test_points_beyond_the_prediction_are_hollow_and_not_judged(study):
    found = result(study, ERRORS, DEVIATIONS, BIAS, NOISE)
    for (e, noise), n in itertools.product(zip(EPSILONS, NOISE), SIZES):
        off = 0.3 if (e, n) == (0.1, 100) else 1.0  # few tokens, and a line that misses them
        share, regime = off * noise / np.sqrt(n), "outside" if off < 1 else "next order"
        found.predicted.errors[e, n] = SimpleNamespace(noise_share=share, mean_share=np.nan, relative=share, regime=regime)
    _, right = found.plot()
    assert "as predicted (ratio 1.0" in right.get_title(loc="left")
    hollow = [line for line in right.lines if len(line.get_xdata()) and line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[100]]
    assert "hollow" in right.get_legend().get_texts()[0].get_text()
