"""Few tokens are wrong by other than the leading noise: the next order in 1/N says by how much, and where it ends.

Features of N random tokens of density p miss those of infinitely many, at the tokens and in the mean square, by

    E |H_N - h|^2 = V / N + W / N^2 + O(N^-3),     W = |F + E(x, x)|^2 + (next order of the variance)

averaged over p: V the noise of the delta method, F / N and E(x, x) / N the mean that random sums and a token's own weight make.
Both come from the layers' power series along a change of p (`attnflow.continuum.next_order`). A query averages over

    N_eff = N p (4 pi eps)^(1/2)

tokens; where it does so over ten, and where W / N less the mean's share is below half of V, the next order holds to a few per
cent. Column's V nearly vanishes (its limit has no drift): there the next order is most of the error long before N_eff is 10. So
an error that falls as N^(-1/2) falls faster at first: by the power -1/2 - W / (2 N V), nearly.

Here: the circle, (a) p proportional to exp(0.8 cos(x - 0.4) + 0.4 sin 2x), H0 = sin x + 0.3 cos 2x, eps = 0.2, four layers;
(b) the built-in study's: p proportional to exp(cos x), H0 = cos x, t = 1/2, softmax.

Source: derived for this package (the delta method to the next order).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

import attnflow as af
from attnflow.continuum.infinite import infinite_layers
from attnflow.continuum.next_order import next_order
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Beyond the leading noise: the next order in 1/N says what few tokens get wrong, and where it ends"
CONSTANTS = {"power": 2.0}  # of 1/N
WRONG = {"power": 1.5}
PANELS = 2

NAMES = ("softmax", "α = ½", "Sinkhorn", "column")
EPSILONS = (0.2, 0.0625, 0.02)
_RULES = ("softmax", af.DensityCorrected(0.5), af.Sinkhorn(tol=1e-6), "column")
_FEWEST, _MOST = 10.0, 0.5  # N_eff, and the share of V that the next order of the variance may have
_F = af.SquaredDistance(af.Circle())


def _waves(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0])


def _cos(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0])


class _Case(NamedTuple):
    """Layers on tokens of a density until t, and how many sets of N tokens there are for each N."""

    rule: object
    epsilon: float
    density: af.Density
    initial: object
    t: float
    sizes: np.ndarray
    sets: np.ndarray


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """(cases, sizes): mean square over sets of tokens, its standard error; (cases,): V, mean square of F + E, W."""
    bent = af.Density(_F.space, lambda x: 0.8 * np.cos(x[..., 0] - 0.4) + 0.4 * np.sin(2 * x[..., 0]))
    few = np.array([25, 50, 100, 200, 400] if quick else [25, 50, 100, 200, 400, 800])
    many = np.array([250, 500, 1000] if quick else [250, 500, 1000, 2000])
    sets = np.full(len(few), 50 if quick else 200), np.array([50, 30, 15] if quick else [250, 150, 60, 20])
    cases = [_Case(rule, 0.2, bent, _waves, 0.4, few, sets[0]) for rule in _RULES]
    cases += [_Case("softmax", eps, af.VonMises(1.0), _cos, 0.5, many, sets[1]) for eps in EPSILONS]
    data = {"few": few, "many": many}
    found = [_run(case, k) for k, case in enumerate(track(cases, progress, unit="case"))]
    for name, part in (("few", found[: len(_RULES)]), ("many", found[len(_RULES) :])):
        for key, values in zip(("square", "error", "V", "mean", "W", "n_eff"), zip(*part)):
            data[f"{name}_{key}"] = np.array(values)
    return data


def _run(case: _Case, stream: int) -> tuple:
    layer = af.Attention(_F, case.epsilon, case.rule)
    layers = round(case.t / layer.time_step)
    infinite = infinite_layers(layer, case.density, case.initial, case.t)
    order = next_order(layer, case.density, case.initial, case.t, 1e9)
    assert order is not None
    V, mean = (float(order.mass @ field) for field in (order.variance[:, 0], (order.mean + order.own)[:, 0] ** 2))
    unit = order.size[0] ** 2

    def square(job: tuple[int, int]) -> float:
        tokens = case.density.sample(job[0], rng=np.random.default_rng([*job, stream]))
        own = af.Attention(_F, case.epsilon, case.rule)
        run = af.propagate(own, tokens, case.initial, layers, save_every=layers)
        return float(np.mean((run.y[-1] - infinite.at(tokens)) ** 2))

    with ThreadPoolExecutor(2) as pool:
        squares = [
            np.array(list(pool.map(square, [(int(n), k) for k in range(count)]))) for n, count in zip(case.sizes, case.sets)
        ]
    measured = [s.mean() for s in squares], [s.std(ddof=1) / np.sqrt(len(s)) for s in squares]
    n_eff = case.density.pdf(infinite.grid.points).min() * np.sqrt(4 * np.pi * case.epsilon)
    return *measured, V * unit, mean * unit, (mean + float(order.second[0])) * unit, n_eff


def _predicted(data, name: str, k: int, size: np.ndarray, constants) -> np.ndarray:
    """The mean square for each N."""
    return data[f"{name}_V"][k] / size + data[f"{name}_W"][k] / size ** constants["power"]


def _inside(data, name: str, k: int, size: np.ndarray) -> np.ndarray:
    """Where the next order holds."""
    second = abs(data[f"{name}_W"][k] - data[f"{name}_mean"][k])
    return (data[f"{name}_n_eff"][k] * size >= _FEWEST) & (second <= _MOST * size * data[f"{name}_V"][k])


def check(data, constants) -> list[Check]:
    """Root mean squares over the predicted where the next order holds, and the power of N by which they fall."""
    checks = []
    for name, labels in (("few", NAMES), ("many", [f"softmax, ε = {eps:g}" for eps in EPSILONS])):
        for k, label in enumerate(labels):
            size, square, weights = _seen(data, name, k)
            ratios = square / _predicted(data, name, k, size, constants)
            ratio, error = np.sqrt(weights @ ratios / weights.sum()), 0.5 / np.sqrt(weights.sum())
            checks.append(Check(f"{label}: root mean square over the predicted", 1.0, float(ratio), 0.02 + 3 * float(error)))
    slopes, expected, errors = [], [], []
    for k in range(len(EPSILONS)):
        size, square, weights = _seen(data, "many", k)
        x = np.log(size) - weights @ np.log(size) / weights.sum()
        fit = weights * x / (weights @ x**2) / 2
        slopes.append(fit @ np.log(square))
        expected.append(fit @ np.log(_predicted(data, "many", k, size, constants)))
        errors.append(0.5 / np.sqrt(weights @ x**2))
    tolerance = 0.01 + 3 * float(np.linalg.norm(errors)) / len(errors)
    checks.append(Check("power of N, mean over ε", float(np.mean(expected)), float(np.mean(slopes)), tolerance))
    return checks


def _seen(data, name: str, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes where the next order holds, mean squares there, and their weights, one over the relative error squared."""
    inside = _inside(data, name, k, data[name])
    square, error = data[f"{name}_square"][k][inside], data[f"{name}_error"][k][inside]
    return data[name][inside], square, (square / error) ** 2


def draw(figure, data, constants) -> None:
    """Over the leading order, against N_eff; and against N, with the leading order dashed."""
    left, right = figure.subplots(1, 2)
    size = np.geomspace(data["few"][0], data["few"][-1], 200)
    for k, (rule, colour, marker) in enumerate(zip(NAMES, style.shades(len(NAMES)), style.MARKERS)):
        _points(left, data, "few", k, data["few_n_eff"][k], colour, marker, rule, True)
        leading = data["few_V"][k] / size
        left.plot(size * data["few_n_eff"][k], np.sqrt(_predicted(data, "few", k, size, constants) / leading), color=colour)
    left.axvspan(size[0] * data["few_n_eff"][0] / 1.2, _FEWEST, color="0.93", zorder=0)
    left.set(xscale="log", ylim=(0.8, 1.6), xlim=(size[0] * data["few_n_eff"][0] / 1.2, None))
    left.text(0.02, 0.96, "outside", transform=left.transAxes, va="top", color="0.4")
    style.plain_log(left.xaxis)
    style.finish(
        left,
        "(a) four normalisations, ε = 0.2",
        "tokens a query averages over, $N_\\mathrm{eff}$",
        "error over the leading order  (–)",
    )
    left.legend(frameon=False, title="lines: next order", loc="upper right")
    size = np.geomspace(data["many"][0], data["many"][-1], 50)
    for k, (eps, colour, marker) in enumerate(zip(EPSILONS, style.shades(len(EPSILONS)), style.MARKERS)):
        _points(right, data, "many", k, 1.0, colour, marker, f"ε = {eps:g}", False)
        right.plot(size, np.sqrt(_predicted(data, "many", k, size, constants)), color=colour)
        right.plot(size, np.sqrt(data["many_V"][k] / size), ":", color=colour)
    right.set(xscale="log", yscale="log")
    for axis in (right.xaxis, right.yaxis):
        style.plain_log(axis)
    style.finish(right, "(b) the built-in study", "tokens N", "error beside N = ∞  (feature)")
    right.legend(frameon=False, title="dotted: leading order", loc="upper right")


def _points(ax, data, name: str, k: int, scale, colour, marker, label: str, over_leading: bool) -> None:
    """Root mean squares with two standard errors; hollow where the next order is not expected to hold."""
    size, square, error = data[name], data[f"{name}_square"][k], data[f"{name}_error"][k]
    root = np.sqrt(square)
    bars = error / root
    if over_leading:
        leading = np.sqrt(data[f"{name}_V"][k] / size)
        root, bars = root / leading, bars / leading
    inside = _inside(data, name, k, size)
    for part, face in ((inside, colour), (~inside, "none")):
        ax.errorbar(
            size[part] * scale, root[part], bars[part], fmt=marker, color=colour, markerfacecolor=face,
            label=label if face != "none" else None,
        )  # fmt: skip
