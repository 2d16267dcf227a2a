"""What a study measured: slopes and constants with confidence intervals, next to the predicted ones."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import stats

from .. import checks, files
from ..continuum import predicted_bias, predicted_noise
from ..geometry import Euclidean, Sphere, Torus
from ..norms import norm
from ..similarity import Mahalanobis
from .cells import COLUMNS, equation_of
from .comparison import grid_weights
from .design import Design

_AXES = ("epsilon", "size")
_ROUND_OFF = 1e-10  # relative: a predicted bias below it is what its cancellation leaves


class Estimate(NamedTuple):
    """A value and its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What theory says before any run, as eps -> 0; NaN where it says nothing.

    Attributes
    ----------
    bias, noise : dict
        Per epsilon: relative L2 error of the infinite-token layer to first order in eps, and
        sqrt(N) times the relative L2 deviation of N tokens from it.
    slope, constant : dict
        By axis name, as in `StudyResult.slope` and `StudyResult.constant`.
    unknown : dict
        Why there is NaN, in words, by "bias" (and constant in "epsilon"), "noise" (and constant in "size"), "slope".
    """

    bias: dict[float, float]
    noise: dict[float, float]
    slope: dict[str, float]
    constant: dict[str, float]
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResult:
    """Finished cells of a study.

    Attributes
    ----------
    study : ConvergenceStudy
    cells : list of dict
        epsilon, size ("inf" or int), seed, layers, t, error, deviation, accuracy, seconds, engine.
    message : str
        "finished", or how far an interrupted run came.
    resumed : int
        How many cells came out of the store.
    """

    study: Design
    cells: list[dict]
    message: str
    resumed: int = 0

    def to_dataframe(self):
        """The cells as a pandas DataFrame, sizes as numbers (inf included)."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_dataframe needs pandas: pip install pandas, or read .cells or .to_csv(path)") from None
        return pandas.DataFrame(self.cells).assign(size=lambda table: table["size"].astype(float))

    def to_csv(self, path: str | os.PathLike) -> None:
        """The cells as a CSV file."""
        with files.whole(path, "w") as file:
            writer = csv.DictWriter(file, fieldnames=COLUMNS)
            writer.writeheader()
            writer.writerows(self.cells)

    def slope(self, axis: str) -> Estimate:
        """Order of convergence in "epsilon" or in "size", with its 95% interval.

        "epsilon": of the infinite-token layer's error, d log error / d log eps as eps -> 0; with four
        temperatures or more the next order is fitted along (log error = c + k log eps + d tau).
        The interval is that of the fit and of nothing else: it holds what the fitted form leaves over. The runs have no
        noise, so it is no confidence interval, and the next orders may move the slope by more.
        "size": of the root mean square deviation from the infinite-token layer, one slope common to all eps. Its interval
        is the noise's, of the slope over these sizes; the features' mean is off by O(1/N) too, which makes the slope of
        few tokens steeper than -1/2: -.556 in the built-in study.

        Raises
        ------
        ValueError
            If there are too few cells for the fit, or errors of round-off only.
        """
        if checks.choice(axis, "axis", _AXES) == "epsilon":
            epsilons, errors = self._resolved_bias()
            columns = [np.log(epsilons), np.ones_like(epsilons)]
            if len(epsilons) >= 4:
                columns.append([self.study.layer(e).time_step for e in epsilons])
            return _fit(np.stack(columns, axis=1), np.log(errors), "epsilons")
        table = self.noise()
        dummies = [[float(e == epsilon) for e in self.study.epsilons] for epsilon, _, _ in table]
        rows = np.array([[np.log(size), *dummy] for (_, size, _), dummy in zip(table, dummies)])
        rows = rows[:, (rows != 0).any(axis=0)]
        return _fit(rows, np.log([deviation for _, _, deviation in table]), "sizes")

    def constant(self, axis: str, epsilon: float | None = None) -> Estimate:
        """The factor in front of the power law, with its 95% interval.

        "epsilon": the limit of error / time_step as eps -> 0 (error / time_step^2 for Sinkhorn, whose first
        order vanishes), by a straight line in the time step. The interval is that of the fit, as in `slope`.
        "size": sqrt(N) times the deviation at one temperature (None: the largest), over all sizes and seeds.
        """
        if checks.choice(axis, "axis", _AXES) == "epsilon":
            if self.study.density.space.has_boundary:
                raise ValueError("walls leave no constant: the error is no power of the time step there")
            epsilons, errors = self._resolved_bias()
            tau = np.array([self.study.layer(e).time_step for e in epsilons])
            columns = np.stack([np.ones_like(tau), tau], axis=1)
            return _fit(columns, errors / tau**self._order, "epsilons")
        epsilon = max(self.study.epsilons) if epsilon is None else checks.positive(epsilon, "epsilon")
        squares = [c["size"] * c["deviation"] ** 2 for c in self.cells if c["size"] != "inf" and c["epsilon"] == epsilon]
        if len(squares) < 2:
            raise ValueError(f"epsilon must be one of {self.study.epsilons} with at least two finite cells, got {epsilon}")
        mean, error = np.mean(squares), stats.sem(squares) * stats.t.ppf(0.975, len(squares) - 1)
        return Estimate(*(float(np.sqrt(max(v, 0.0))) for v in (mean, mean - error, mean + error)))

    @cached_property
    def predicted(self) -> Prediction:
        """Predicted bias, noise, slopes and constants; computed when first asked for."""
        study = self.study
        bias: dict[float, float] = {}
        noise: dict[float, float] = {}
        unknown: dict[str, str] = {}
        grid = study.density.grid({1: 400, 2: 64, 3: 16}[study.density.space.dim])
        weights = grid_weights(grid, study.density)
        scale = norm(weights, equation_of(study).at(grid.points))

        def relative(predict: Callable, kind: str, epsilon: float, *extra) -> float:
            try:
                of_points = predict(study.layer(epsilon), study.density, study.initial, study.t, *extra)
            except (
                ValueError,
                NotImplementedError,
            ) as error:  # no prediction known here: say so by NaN, measured values stand alone
                unknown.setdefault(kind, str(error))
                return np.nan
            return norm(weights, of_points(grid.points)) / scale

        smallest, largest = min(study.epsilons), max(study.epsilons)
        finite = any(np.isfinite(study.sizes))
        for epsilon in study.epsilons:
            bias[epsilon] = relative(predicted_bias, "bias", epsilon)
            noise[epsilon] = relative(predicted_noise, "noise", epsilon, 1) if finite else np.nan
        # the ratio of moments is that of eps -> 0 a thousand times below
        first = relative(predicted_bias, "bias", smallest / 1000) / study.layer(smallest / 1000).time_step
        slope, vanishes = self._order * self._growth, None
        if self._order == 2:
            vanishes = "the first order vanishes, and the second is not known"
        elif max(bias.values()) < _ROUND_OFF:
            slope, vanishes = np.nan, "the first order vanishes to round-off"
            unknown["slope"] = vanishes
        if vanishes:  # what is left of a cancellation is no prediction
            bias, first, unknown["bias"] = dict.fromkeys(bias, np.nan), np.nan, vanishes
        if study.density.space.has_boundary:
            slope, unknown["slope"] = np.nan, "walls slow convergence down, for softmax to the square root of eps"
        if not finite:
            unknown["noise"] = "no size is finite"
        return Prediction(bias, noise, {"epsilon": slope, "size": -0.5}, {"epsilon": first, "size": noise[largest]}, unknown)

    def summary(self) -> str:
        """Measured against predicted, as a table; below it what is not predicted and why, and what the intervals are."""
        lines = [f"{'':34}{'measured':>12}   {'95% interval':<22}{'predicted':>10}"]
        names = {
            ("slope", "epsilon"): "slope in eps (bias, N = inf)",
            ("constant", "epsilon"): f"error / time step{'^2' * (self._order == 2)} (eps -> 0)",
            ("slope", "size"): "slope in N (noise)",
            ("constant", "size"): f"sqrt(N) x deviation (eps = {max(self.study.epsilons):g})",
        }
        for (kind, axis), name in names.items():
            predicted = getattr(self.predicted, kind)[axis]
            expected = f"{predicted:10.4f}" if np.isfinite(predicted) else f"{'-':>10}"
            try:
                value, low, high = getattr(self, kind)(axis)
                lines.append(f"{name:34}{value:12.4f}   [{low:.4f}, {high:.4f}]".ljust(71) + expected)
            except ValueError as error:  # too few cells for this one: the others still stand
                lines.append(f"{name:34}{'-':>12}   {str(error).partition(':')[0]}")
        titles = {"slope": "slope in eps", "bias": "error at N = inf", "noise": "deviation at finite N"}
        reasons: dict[str, list[str]] = {}
        for kind, why in self.predicted.unknown.items():
            reasons.setdefault(why, []).append(titles[kind])
        lines += [f"no prediction of the {' and the '.join(what)}: {why}" for why, what in reasons.items()]
        lines.append("intervals in eps are those of the fit, whose runs have no noise; in N those of the noise")
        return "\n".join(lines)

    def plot(self, axes=None):
        """Bias against eps and noise against N, predictions drawn before the points; returns the two Axes."""
        from ..plotting.studies import plot_study

        return plot_study(self, axes)

    @property
    def exact(self) -> bool:
        """Whether the infinite-token layer solves the equation as closely as can be told: all its errors are round-off."""
        infinite = [c for c in self.cells if c["size"] == "inf"]
        return bool(infinite) and all(c["error"] <= c["accuracy"] for c in infinite)

    @cached_property
    def _order(self) -> int:
        """Of the bias in the time step as eps -> 0.

        Plain Sinkhorn layers of a similarity that is, or becomes, a flat Gaussian have no first-order error:
        A = e^(tau L) + O(tau^3), and m4 / m2^2 -> 3.
        """
        f, space = self.study.f, self.study.density.space
        order = self.study.layer(self.study.epsilons[0]).normalization.order
        if order == 1:
            return 1
        if f.space is not None:  # a function of the distance; a curve is flat
            flat = isinstance(space, (Torus, Euclidean)) or (isinstance(space, Sphere) and space.dim == 1)
            return order if self._growth == 1 and flat else 1
        if not isinstance(space, Euclidean):
            return 1
        probe = space.probe_points()
        quadratic = Mahalanobis(f.metric(probe[:1])[0])(probe, probe)
        return order if np.abs(f(probe, probe) - quadratic).max() <= 1e-6 * quadratic.max() else 1

    @property
    def _growth(self) -> float:
        """k of tau ~ eps^k: similarities exp(-d^q / (2 eps)) are eps^(1/q) wide, all others eps^(1/2)."""
        pair = self.study.f.pair
        return 2 / pair.parameter if pair.transform == "power" else 1.0

    def bias(self) -> tuple[np.ndarray, np.ndarray]:
        """(epsilons, errors) of the infinite-token layer, eps decreasing."""
        rows = sorted(((c["epsilon"], c["error"]) for c in self.cells if c["size"] == "inf"), reverse=True)
        if not rows:
            return np.empty(0), np.empty(0)
        epsilons, errors = zip(*rows)
        return np.array(epsilons), np.array(errors)

    def _resolved_bias(self) -> tuple[np.ndarray, np.ndarray]:
        """`bias` where it is more than round-off, to fit."""
        if self.exact:
            raise ValueError("exact to round-off: the errors at N = inf are below their accuracy")
        above = {c["epsilon"] for c in self.cells if c["size"] == "inf" and c["error"] > c["accuracy"]}
        epsilons, errors = self.bias()
        kept = np.isin(epsilons, list(above))
        return epsilons[kept], errors[kept]

    def noise(self) -> list[tuple[float, int, float]]:
        """(epsilon, size, root mean square deviation over seeds)."""
        groups: dict[tuple[float, int], list[float]] = {}
        for c in self.cells:
            if c["size"] != "inf":
                groups.setdefault((c["epsilon"], c["size"]), []).append(c["deviation"])
        return [(e, n, float(np.sqrt(np.mean(np.square(d))))) for (e, n), d in sorted(groups.items())]


def _fit(columns: np.ndarray, target: np.ndarray, needs: str) -> Estimate:
    """First coefficient of a least-squares fit with its 95% Student interval."""
    freedom = len(target) - columns.shape[1]
    if freedom < 1:
        raise ValueError(f"{needs} must be more for this fit: {len(target)} points, {columns.shape[1]} unknowns")
    solution, *_ = np.linalg.lstsq(columns, target, rcond=None)
    residual = target - columns @ solution
    covariance = np.linalg.inv(columns.T @ columns) * (residual @ residual) / freedom
    half = stats.t.ppf(0.975, freedom) * np.sqrt(covariance[0, 0])
    return Estimate(float(solution[0]), float(solution[0] - half), float(solution[0] + half))
