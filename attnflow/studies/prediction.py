"""What theory says of a study before any run: error by error, and the slopes and constants that they tend to.

Each number is computed once: a study's store keeps it beside the cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from ..continuum import PredictedError, predicted_bias, predicted_error, predicted_noise
from ..continuum.bias_walls import has_wall_order
from ..geometry import Euclidean
from ..norms import norm
from ..particles.extrapolation import order as order_of_layer
from ..progress import track
from ..similarity import LogDistance
from .cells import equation_of
from .comparison import grid_weights
from .design import Design
from .recall import Recall

_ROUND_OFF = 1e-10  # relative: a predicted bias below it is what its cancellation leaves


class ErrorShares(NamedTuple):
    """The numbers of a `PredictedError`."""

    relative: float
    bias_share: float
    noise_share: float
    mean_share: float
    n_eff: float
    regime: str


@dataclass(frozen=True)
class Prediction:
    """What theory says before any run; NaN where it says nothing.

    Attributes
    ----------
    bias, noise : dict
        Per epsilon: relative L2 error of the infinite-token layer to leading order in eps, and
        sqrt(N) times the relative L2 deviation of N tokens from it to leading order in 1/N.
    slope, constant : dict
        By axis name, as in `StudyResult.slope` and `StudyResult.constant`, as eps -> 0 and N -> infinity.
    errors : dict
        Per (epsilon, size), size finite: the numbers of a `PredictedError`, to the next order in 1/N.
    at_sizes : dict
        "slope" and "constant" in "size" over the study's own sizes, by those.
    unknown : dict
        Why there is NaN, in words, by "bias" (and constant in "epsilon"), "noise" (and constant in "size"), "slope".
    """

    bias: dict[float, float]
    noise: dict[float, float]
    slope: dict[str, float]
    constant: dict[str, float]
    errors: dict[tuple[float, float], ErrorShares] = field(default_factory=dict)
    at_sizes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("slope", "constant"), np.nan))
    unknown: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        slopes = ", ".join(f"slope {value:.3g} in {axis}" for axis, value in self.slope.items())
        return f"Prediction({len(self.bias)} epsilons: {slopes})"

    def deviation(self, epsilon: float, size: float) -> float:
        """Relative L2 deviation of so many tokens from infinitely many: noise and mean, to the order that is known."""
        found = self.errors.get((epsilon, size))
        if found is None:
            return self.noise[epsilon] / np.sqrt(size)
        return float(np.hypot(found.noise_share, np.nan_to_num(found.mean_share)))

    def error(self, epsilon: float, size: float) -> float:
        """Relative L2 error of so many tokens against the equation."""
        found = self.errors.get((epsilon, size))
        return float(np.hypot(self.bias[epsilon], self.noise[epsilon] / np.sqrt(size))) if found is None else found.relative

    def holds(self, epsilon: float, size: float) -> bool:
        """Whether tokens are enough for the temperature, as far as is known."""
        found = self.errors.get((epsilon, size))
        return found is None or found.regime != "outside"


def predict(study: Design, store: str | os.PathLike | None = None, progress: bool = False) -> Prediction:
    """The prediction of a study of one normalisation; what the store does not have of it goes there."""
    with Recall(study, store) as recall:
        return _predict(study, recall, progress)


def _predict(study: Design, recall: Recall, progress: bool) -> Prediction:
    bias: dict[float, float] = {}
    noise: dict[float, float] = {}
    errors: dict[tuple[float, float], ErrorShares] = {}
    unknown: dict[str, str] = {}
    grid = study.density.grid({1: 400, 2: 64, 3: 16}[study.density.space.dim])
    weights = grid_weights(grid, study.density)
    scale = cache(lambda: norm(weights, equation_of(study).at(grid.points)))

    def known(kind: str, numbers: dict) -> dict | None:
        if "unknown" in numbers:  # said by NaN: measured values stand alone
            unknown.setdefault(kind, numbers["unknown"])
            return None
        return numbers

    def relative(kind: str, predict: Callable, epsilon: float, n_tokens: int | None = None) -> float:
        def norm_of(of_points: Callable) -> dict:
            return {"relative": float(norm(weights, of_points(grid.points)) / scale())}

        numbers = known(kind, recall(kind, predict, norm_of, epsilon, n_tokens))
        return np.nan if numbers is None else numbers["relative"]

    power, largest = order(study), max(study.epsilons)
    finite = [size for size in study.sizes if np.isfinite(size)]
    walls = study.density.space.has_boundary
    rooted = walls and has_wall_order(study.layer(largest), study.density)
    # to leading order a bias is a multiple of a power of the time step, but for log(1 + d^2), whose moments' ratio changes,
    # and where walls have another order: there it is not the leading one
    changes = isinstance(study.f, LogDistance) or walls and not rooted
    once = np.nan if changes else relative("bias", predicted_bias, largest)
    wanted = [(epsilon, size) for epsilon in study.epsilons for size in (None, *finite)]
    for epsilon, size in track(wanted, progress, unit="prediction"):
        if size is None:
            ratio = study.layer(epsilon).time_step / study.layer(largest).time_step
            own = relative("bias", predicted_bias, epsilon) if changes else once * ratio ** (0.5 if walls else power)
            bias[epsilon] = own
            noise[epsilon] = relative("noise", predicted_noise, epsilon, 1) if finite else np.nan
        else:
            numbers = known("noise", recall("error", predicted_error, _shares, epsilon, int(size)))
            if numbers is not None:
                errors[epsilon, size] = ErrorShares(**numbers)
    near = min(study.epsilons) / 1000 if changes else largest  # where the ratio is that of eps -> 0
    first = np.nan
    if not walls:
        first = (relative("bias", predicted_bias, near) if changes else once) / study.layer(near).time_step ** power
    slope = power * _growth(study)
    if walls:
        slope = slope / 2 if rooted else np.nan
        if np.isnan(slope):
            unknown["slope"] = "walls slow convergence down, for softmax to the square root of eps"
    elif max(bias.values()) < _ROUND_OFF:  # what is left of a cancellation is no prediction
        unknown["slope"] = unknown["bias"] = "the first order vanishes to round-off"
        slope, first, bias = np.nan, np.nan, dict.fromkeys(bias, np.nan)
    if not finite:
        unknown["noise"] = "no size is finite"
    slopes, constants = {"epsilon": slope, "size": -0.5}, {"epsilon": first, "size": noise[largest]}
    prediction = Prediction(bias, noise, slopes, constants, errors, unknown=unknown)
    prediction.at_sizes.update(_at_sizes(study, prediction))
    return prediction


def _shares(found: PredictedError) -> dict:
    return {name: value if isinstance(value := getattr(found, name), str) else float(value) for name in ErrorShares._fields}


def order(study: Design) -> int:
    """Of the bias in the time step as eps -> 0, without walls."""
    space = study.density.space
    if space.has_boundary or (study.f.space is None and not isinstance(space, Euclidean)):
        return 1
    return int(order_of_layer(study.layer(study.epsilons[0]), space.probe_points()))


def _growth(study: Design) -> float:
    """k of tau ~ eps^k: similarities exp(-d^q / (2 eps)) are eps^(1/q) wide, all others eps^(1/2)."""
    pair = study.f.pair
    return 2 / pair.parameter if pair.transform == "power" else 1.0


def _at_sizes(study: Design, prediction: Prediction) -> dict[str, float]:
    """The slope common to all temperatures, and the constant of the largest, of the predicted deviations."""
    if len({size for _, size in prediction.errors}) < 2:
        return {}
    epsilons, sizes = np.array(list(prediction.errors)).T
    squares = np.array([prediction.deviation(*cell) ** 2 for cell in prediction.errors])
    columns = np.column_stack([np.log(sizes), np.unique(epsilons) == epsilons[:, None]])
    slope = np.linalg.lstsq(columns, np.log(squares), rcond=None)[0][0] / 2
    at = epsilons == max(study.epsilons)
    return {"slope": float(slope), "constant": float(np.sqrt(np.mean((sizes * squares)[at])))}
