"""An error is asked for; temperature and number of tokens are planned for it; the runs then have it, at next to the least cost.

A plan of l layers and N tokens has the predicted error

    relative^2 = b^2 + A / N + M^2 / N^2,

with b the bias, A the noise and what the mean of order 1/N makes together with the bias, M that mean, and takes a predicted
time. Here six plans, none of them adjusted: errors of many token sets against the equation, in root mean square, over the
asked error; the same with a quarter of the tokens, over what b, A and M say of them where M^2 / N^2 is less than half of A / N
(else 1 / N^3 counts too); and the time of each plan over that of
the best among other numbers of layers, each with the tokens that it needs, predicted one by one.

Source: derived for this package, from the bias, noise and mean that figures 1 to 3 and 22 measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track
from attnflow.studies.planning import Parts, Search

from . import Check

TITLE = "Asked for an error, the planned temperature and tokens deliver it, at next to the least cost"
LONG = True
CONSTANTS = {"noise": 1.0}  # power of 1 / N in the squared error of leading order
WRONG = {"noise": 2.0}
PANELS = 2

_LOW, _HIGH, _DEARER = 0.7, 1.1, 1.5  # of the asked error, of the least cost
_BEYOND = 0.05  # of an error with a quarter of the tokens, that later terms of the series may be
_QUICK = 2  # problems
_TRIED = {1: (3.0, 9), 2: (2.0, 5)}  # how many times the plan's layers, and as many times fewer; numbers of layers between


class Problem(NamedTuple):
    """What is asked."""

    name: str
    f: af.PseudoMetric
    density: af.Density
    initial: Callable
    t: float
    error: float
    normalization: object
    seeds: int


def _ellipse(x: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(x[..., 0]), np.sin(x[..., 0]), 0.5 * np.sin(x[..., 0] + 0.3)], axis=-1)


_CIRCLE, _TORUS, _SPHERE = af.Circle(), af.Torus([2 * np.pi, 2 * np.pi]), af.Sphere(2)
PROBLEMS = (
    Problem(
        "line, α = ½",
        af.SquaredDistance(af.Euclidean(1)),
        af.Mixture([af.Gaussian(-1.0, 0.5), af.Gaussian(1.0, 0.8)], [0.4, 0.6]),
        lambda x: np.tanh(x[..., 0]),
        0.3,
        0.02,
        af.DensityCorrected(0.5),
        150,
    ),
    Problem(
        "map of a circle, column",
        af.SquaredMap(_ellipse),
        af.Density(_CIRCLE, lambda x: 0.5 * np.sin(2 * x[..., 0])),
        lambda x: np.cos(x[..., 0] - 1.0),
        0.4,
        0.03,
        "column",
        150,
    ),
    Problem(
        "circle, Sinkhorn",
        af.SquaredDistance(_CIRCLE),
        af.Density(_CIRCLE, lambda x: 0.7 * np.sin(x[..., 0]) + 0.3 * np.cos(3 * x[..., 0])),
        lambda x: np.sin(2 * x[..., 0]) + 0.5 * np.cos(x[..., 0]),
        0.2,
        0.005,
        "sinkhorn",
        24,
    ),
    Problem(
        "torus, softmax",
        af.SquaredDistance(_TORUS),
        af.Density(_TORUS, lambda x: 0.5 * np.cos(x[..., 0]) + 0.3 * np.sin(x[..., 1])),
        lambda x: np.cos(x[..., 0] + x[..., 1]) + 0.5 * np.sin(x[..., 0]),
        0.25,
        0.05,
        "softmax",
        60,
    ),
    Problem(
        "sphere, α = ½",
        af.SquaredDistance(_SPHERE),
        af.VonMisesFisher([0.0, 0.6, 0.8], 0.8),
        lambda x: x[..., 2] + x[..., 0],
        0.2,
        0.03,
        af.DensityCorrected(0.5),
        60,
    ),
    Problem(
        "plane, Mahalanobis, softmax",
        af.Mahalanobis([[1.5, 0.0], [0.0, 0.7]]),
        af.Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.8]]),
        lambda x: np.sin(x[..., 0] + x[..., 1]),
        0.3,
        0.1,
        "softmax",
        100,
    ),
)


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """For each problem the plan, root mean square errors of it and of a quarter of its tokens, and the costs around it."""
    problems = PROBLEMS[: _QUICK if quick else None]
    names = "asked", "layers", "size", "seconds", "bias", "linear", "mean"
    data = {name: np.empty(len(problems)) for name in names}
    data["rms"], data["bar"] = np.empty((2, 2, len(problems)))
    data["tried"], data["cost"] = np.full((2, len(problems), _TRIED[1][1]), np.nan)
    for k, problem in enumerate(track(problems, progress, unit="problem")):
        f, density, initial, t, error, normalization, seeds = problem[1:]
        plan = af.error_budget(f, density, initial, t, error, normalization)
        parts = Parts.of(plan.predicted, plan.n_tokens)
        for name, value in zip(names, (error, plan.layers, plan.n_tokens, plan.seconds, *parts)):
            data[name][k] = value
        for j, size in enumerate((plan.n_tokens, plan.n_tokens // 4)):
            squares = _errors(problem, plan.layer, plan.layers, size, seeds // 4 if quick else seeds) ** 2
            data["rms"][j, k] = np.sqrt(squares.mean())
            data["bar"][j, k] = squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * data["rms"][j, k])
        for j, (layers, cost) in enumerate(_costs(problem, plan)):
            data["tried"][k, j], data["cost"][k, j] = layers, cost
    return data


def _errors(problem: Problem, layer: af.Attention, layers: int, size: int, seeds: int) -> np.ndarray:
    """What `compare` measures, for each of the seeds."""
    equation = af.limit(layer, problem.density).solve(problem.initial, problem.t)
    errors = np.empty(seeds)
    for seed in range(seeds):
        tokens = problem.density.sample(size, np.random.default_rng([seed, size]))
        run = af.propagate(layer, tokens, problem.initial(tokens), layers, save_every=layers)
        errors[seed] = af.compare(run, equation).error[-1]
    return errors


def _costs(problem: Problem, plan: af.ErrorBudget) -> list[tuple[int, float]]:
    """Numbers of layers around the plan's, and the seconds of a run with the tokens that meet the same error."""
    search, tried = Search(*problem[1:-1]), []
    times, count = _TRIED[problem.density.space.dim]
    for layers in np.unique(
        np.rint(np.geomspace(max(plan.layers / times, 1), times * plan.layers, count)).astype(int)
    ).tolist():
        try:
            found, _ = search.predicted(layers, plan.n_tokens)
        except ValueError:  # nothing is known of its mean
            continue
        size = Parts.of(found, plan.n_tokens).tokens(plan.predicted.relative)
        tried.append((layers, search.seconds(layers, size)))
    return tried


def _predicted(data, share: float, constants) -> np.ndarray:
    """Of each problem the error with a share of its tokens."""
    plan = data["linear"] / data["size"]
    return np.sqrt(data["bias"] ** 2 + plan * share ** -constants["noise"] + (data["mean"] / data["size"] / share) ** 2)


def _told(data, share: float) -> np.ndarray:
    """Whether the series in 1 / N tells of a share of the tokens: its second term is less than half the first."""
    size = share * data["size"]
    return (data["mean"] / size) ** 2 < 0.5 * data["linear"] / size


def _least(data) -> np.ndarray:
    """Seconds of the best for each problem, the plan among them."""
    return np.minimum(np.nanmin(np.where(np.isfinite(data["cost"]), data["cost"], np.nan), axis=1), data["seconds"])


def check(data, constants) -> list[Check]:
    """Achieved over asked; a quarter of the tokens, to 5 % for later terms and three standard errors; cost over the least."""
    checks, quarter, told, least = [], _predicted(data, 0.25, constants), _told(data, 0.25), _least(data)
    middle, half = (_LOW + _HIGH) / 2, (_HIGH - _LOW) / 2
    for k, problem in enumerate(PROBLEMS[: len(data["asked"])]):
        achieved = data["rms"][0, k] / data["asked"][k]
        checks.append(Check(f"{problem.name}: achieved over asked {problem.error:g}", middle, achieved, half))
        if told[k]:
            within = _BEYOND * quarter[k] + 3 * data["bar"][1, k]
            checks.append(Check(f"{problem.name}: a quarter of the tokens", quarter[k], data["rms"][1, k], within))
        checks.append(Check(f"{problem.name}: time over the least", 1.0, data["seconds"][k] / least[k], _DEARER - 1))
    return checks


def draw(figure, data, constants) -> None:
    """Achieved over asked errors, and those of a quarter of the tokens; times around the plans."""
    left, right = figure.subplots(1, 2)
    left.axhspan(_LOW, _HIGH, color="0.9", linewidth=0)
    right.axhspan(1, _DEARER, color="0.9", linewidth=0)
    left.axhline(1, color=style.INK)
    quarter, told, least = _predicted(data, 0.25, constants), _told(data, 0.25), _least(data)
    for k, (problem, colour) in enumerate(zip(PROBLEMS[: len(data["asked"])], style.shades(len(PROBLEMS)))):
        for x, j, fill in ((data["asked"], 0, "full"), (quarter, 1, "none"))[: 1 + told[k]]:
            ratio, bar = data["rms"][j, k] / x[k], 2 * data["bar"][j, k] / x[k]
            look = {"color": colour, "fillstyle": fill, "label": problem.name if j == 0 else None}
            left.errorbar(x[k], ratio, bar, fmt=style.MARKERS[k], markersize=5, **look)
        right.plot(data["tried"][k] / data["layers"][k], data["cost"][k] / least[k], f"{style.MARKERS[k]}-", color=colour)
    right.plot(1, 1, "o", color=style.ACCENT, markersize=9, fillstyle="none", zorder=4, label="the plans")
    left.set(xscale="log", ylim=(0, 1.5))
    left.legend(frameon=False, loc="lower center", fontsize=6, ncols=2)
    style.plain_log(left.xaxis)
    style.finish(left, "", "asked error; hollow: predicted with N/4", "measured over it")
    left.set_title("a  bars: 2 standard errors; band: 0.7 to 1.1", loc="left")
    right.set(xscale="log", yscale="log", ylim=(0.8, 30))
    for axis in (right.xaxis, right.yaxis):
        style.plain_log(axis)
    style.finish(right, "", "layers over the plan's", "predicted time over the least")
    right.set_title("b  each depth with the tokens it needs; band: 1.5", loc="left")
    right.legend(frameon=False, loc="upper right")
