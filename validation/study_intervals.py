"""Intervals of studies hold what they say: two hundred studies repeated with other tokens, slopes and constants in N.

What they should hold is known twice: from all repeats together, and predicted before any run, to the next order in 1/N.
Beside them the intervals of a least-squares fit through the logarithms of each cell group's mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

import attnflow as af
from attnflow.studies.fits import Estimate, fit_values
from attnflow.studies.result import StudyResult

from . import Claim, Report

REPEATS, NOMINAL = 200, 0.95
_CIRCLE = af.SquaredDistance(af.Circle())
EPSILONS, SIZES, TIME = (0.2, 0.1), (200, 400, 800), 0.2
CASES = {"softmax": ("softmax", 6), "sinkhorn, few seeds": ("sinkhorn", 3)}  # normalisation, seeds


def run(repeats: int = REPEATS, cases: dict = CASES) -> Report:
    """Coverage and width of the intervals of slope("size") and constant("size")."""
    rows, claims = [], []
    # of a share of repeats, three standard errors
    allowed = 3 * np.sqrt(NOMINAL * (1 - NOMINAL) / repeats)
    for name, (normalization, seeds) in cases.items():
        results = [_result(normalization, seeds, repeat) for repeat in tqdm(range(repeats), name, leave=False)]
        pooled = StudyResult(results[0].study, [cell for result in results for cell in result.cells], "")
        predicted = results[0].predicted.at_sizes
        found = {}
        for quantity, fit in QUANTITIES.items():
            truth = fit.of(pooled)
            intervals = [fit.of(result) for result in results]
            found[quantity] = _Found.of(intervals, truth.value)
            expected = predicted.get(fit.predicted, np.nan)
            held = _Found.of(intervals, expected).coverage
            numbers = f"{truth.value:.4f}", f"{expected:.4f}", f"{found[quantity].width:.4f}"
            rows.append([name, quantity, *numbers, f"{found[quantity].coverage:.3f}", f"{held:.3f}"])
            if fit.claimed:
                share, held = found[quantity].coverage, bool(abs(found[quantity].coverage - NOMINAL) < allowed)
                claims.append(
                    Claim(
                        f"{name}, {quantity}: intervals that hold it", f"{share:.1%}", f"{NOMINAL:.0%} +- {allowed:.1%}", held
                    )
                )
                apart = abs(truth.value - expected) / ((truth.high - truth.low) / 2)
                what = f"{name}, {quantity}: predicted less that of all repeats, over half its interval"
                claims.append(Claim(what, f"{apart:.2f}", "below 2", bool(apart < 2)))
        share = found["slope"].width / found["slope, group means"].width
        claims.append(Claim(f"{name}: width over that through group means", f"{share:.2f}", "below 1", bool(share < 1)))
    text = (
        f"Circle, p proportional to exp(cos x), H0 = cos x, t = {TIME:g}, eps in {EPSILONS}, N in {SIZES}, {repeats} studies each.\n"
        "All: from the cells of all repeats. Predicted: before any run. Coverage: share of the 95 % intervals that hold the\n"
        "value of all repeats, and the predicted one."
    )
    columns = ["study", "quantity", "all", "predicted", "width / 2", "coverage of all", "coverage of predicted"]
    return Report("Intervals of studies: how often they hold what they should", text, columns, rows, claims)


@dataclass(frozen=True)
class _Quantity:
    """How it is estimated, what is predicted of it, and whether its coverage is claimed."""

    of: Callable[[StudyResult], Estimate]
    predicted: str
    claimed: bool = True


@dataclass(frozen=True)
class _Found:
    """The share of intervals that hold a value, and half their mean width."""

    coverage: float
    width: float

    @classmethod
    def of(cls, intervals: list[Estimate], value: float) -> _Found:
        low, high = np.array([(interval.low, interval.high) for interval in intervals]).T
        return cls(float(np.mean((low < value) & (value < high))), float(np.mean(high - low) / 2))


def through_group_means(result: StudyResult) -> Estimate:
    """The slope by least squares through log root mean squares over seeds, all of one variance."""
    epsilons, sizes, deviations = np.array(result.noise()).T
    columns = np.column_stack([np.log(sizes), np.unique(epsilons) == epsilons[:, None]])
    return fit_values(columns, np.log(deviations), "sizes")


QUANTITIES = {
    "slope": _Quantity(lambda result: result.slope("size"), "slope"),
    "constant": _Quantity(lambda result: result.constant("size"), "constant"),
    "slope, group means": _Quantity(through_group_means, "slope", claimed=False),
}


def _result(normalization: str, seeds: int, repeat: int) -> StudyResult:
    """A small study; each repeat has tokens of its own."""
    p = af.VonMises(1.0)
    study = af.ConvergenceStudy(_CIRCLE, p, _cos, TIME, EPSILONS, SIZES, seeds, normalization, seed=repeat)
    return study.run(progress=False)


def _cos(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0])
