"""Scaling the metric: g / m^2 speeds diffusion by m^2; a metric learned from labels slows exchange between classes.

With g / m^2 in place of g lengths are m times shorter and L is m^2 times larger, at the same time step. A metric that
stretches the gap between two classes by J leaves g = J^2 dx^2, the density p = q / J, and in one dimension

    L H = (J / q^2) d/dx (q^2 / J^3 dH/dx) = p^-2 div_g (p^2 grad_g H),

Theorem 4's heat flow: the gap is a resistance that grows with J^3 while the classes keep their capacity. Here: tokens
on a circle in two classes, q a mixture of two von Mises densities; s(x) in (-1, 1) is a logistic regression of the
labels on sin x, and f = |phi(x) - phi(y)|^2 with phi = (cos x, sin x, k s(x)) has J^2 = 1 + k^2 s'^2. Left: the slowest
rate of layers on a circle. Middle: the slowest rate with the learned metric. Right: how far apart random tokens of the
two classes are in their features, which start as their labels (bars: standard errors over seeds).

Source: Ruan & Zhang 2024, Theorems 3 and 4 and the reading of learned metrics there.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.linalg import eig, eigvals

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Halving lengths speeds diffusion fourfold; a metric learned from labels slows exchange between classes"
CONSTANTS = {"drift": 2.0, "scaling": 2.0}  # L = p^-drift div(p^drift grad); the power of m
WRONG = {"drift": 1.0, "scaling": 2.0}
PANELS = 3

_KAPPA = 2.0
_STRETCHES = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
_SHOWN = (0, 2, 4)  # of the stretches, for random tokens
_NODES = np.arange(160) * 2 * np.pi / 160
_TIMES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Slowest rates over m and over k; labels of random tokens exchanged in time."""
    speeds = np.array([0.7, 1.0, 1.4, 2.0, 2.8])
    circle = af.VonMises(1.0)
    speed = [_slowest(af.SquaredMap(partial(_circle, m)), circle, 0.004, 580) for m in speeds]

    classes = [af.VonMises(_KAPPA, loc) for loc in (np.pi / 2, -np.pi / 2)]
    both = af.Mixture(classes, [0.5, 0.5])
    tokens, labels = _labelled(classes, 20000, 99)
    weight, offset = _logistic(np.sin(tokens[:, 0]), labels)
    maps = [af.SquaredMap(partial(_learned, k, weight, offset)) for k in _STRETCHES]
    exchange = [_slowest(f, both, 0.02, 800) for f in track(maps, progress, len(maps))]

    seeds, size = (3, 800) if quick else (10, 2000)
    apart = np.empty((len(_SHOWN), seeds, len(_TIMES)))
    for i, k in enumerate(track(_SHOWN, progress, len(_SHOWN))):
        layer = af.Attention(maps[k], 0.02)
        for seed in range(seeds):
            tokens, labels = _labelled(classes, size, seed)
            run = af.propagate(layer, tokens, labels, round(_TIMES[-1] / layer.time_step), save_every=25)
            kept = run.y[np.searchsorted(run.t, _TIMES - 1e-9), :, 0]
            apart[i, seed] = kept[:, labels > 0].mean(axis=1) - kept[:, labels < 0].mean(axis=1)
    return {
        "m": speeds, "speed": np.array(speed), "fit": np.array([weight, offset]),
        "exchange": np.array(exchange), "apart": apart,
    }  # fmt: skip


def _circle(m: float, x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.cos(x), np.sin(x)], axis=-1) / m


def _learned(k: float, weight: float, offset: float, x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.cos(x), np.sin(x), k * np.tanh((weight * np.sin(x) + offset) / 2)], axis=-1)


def _labelled(classes, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([density.sample(size // 2, rng) for density in classes])
    return tokens, np.repeat([1.0, -1.0], size // 2)


def _logistic(feature: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weight and offset of largest likelihood, by Newton's method."""
    X, fit = np.column_stack([feature, np.ones_like(feature)]), np.zeros(2)
    for _ in range(12):
        chance = 1 / (1 + np.exp(-X @ fit))
        fit += np.linalg.solve(X.T * (chance * (1 - chance)) @ X, X.T @ ((labels + 1) / 2 - chance))
    return fit


def _slowest(f: af.PseudoMetric, density: af.Density, epsilon: float, grid: int) -> float:
    """The rate at which the slowest mode of infinite-token layers decays, in 1 / time, extrapolated to eps = 0."""
    rates = []
    for eps in (epsilon, epsilon / 2, epsilon / 4):
        bound, nodes = bind_density(af.Attention(f, eps, backend="reference"), density, grid)
        weights = bound.attend(np.eye(nodes.size)).mean
        root = np.sqrt(bound.conserved_weight())
        second = np.linalg.eigvalsh(root[:, None] * weights / root)[-2]
        rates.append(-np.log(second) / bound.layer.time_step)
    return (8 * rates[2] - 6 * rates[1] + rates[0]) / 3


def _generator(log_q: np.ndarray, J: np.ndarray, drift: float) -> np.ndarray:
    """(1 / (J p^c)) d/dx (p^c / J d/dx), p = q / J, at even nodes of the circle, by Fourier."""
    nodes, heavy = len(J), (np.exp(log_q) / J) ** drift
    waves = 1j * np.fft.fftfreq(nodes, 1 / nodes)
    waves[nodes // 2] = 0
    D = np.fft.ifft(waves[:, None] * np.fft.fft(np.eye(nodes), axis=0), axis=0).real
    return (D * (heavy / J)) @ D / (J * heavy)[:, None]


def _rate(generator: np.ndarray) -> float:
    return np.sort(-eigvals(generator).real)[2]  # after the constant, and the shortest wave, whose slope is 0


def _classes(data, k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x, log q up to a constant, and the learned stretch J."""
    x, (weight, offset) = _NODES, data["fit"]
    slope = weight * np.cos(x) / 2 / np.cosh((weight * np.sin(x) + offset) / 2) ** 2
    return x, np.log(np.cosh(_KAPPA * np.sin(x))), np.sqrt(1 + (k * slope) ** 2)


def _apart(data, k: float, drift: float, times: np.ndarray) -> np.ndarray:
    """Mean feature of one class less the other's; features start as labels, tanh(kappa sin x) on average."""
    x, log_q, J = _classes(data, k)
    labels, q = np.tanh(_KAPPA * np.sin(x)), np.exp(log_q) / np.exp(log_q).sum()
    rates, modes = eig(_generator(log_q, J, drift))
    amplitudes, seen = np.linalg.solve(modes, labels), 2 * (q * labels) @ modes
    return (np.exp(times[:, None] * rates) @ (seen * amplitudes)).real


def check(data, constants) -> list[Check]:
    """The power of m and the rate at m = 1; the slowest rate for each stretch; features kept apart."""
    drift, checks = constants["drift"], []
    power, level = np.polyfit(np.log(data["m"]), np.log(data["speed"]), 1)
    checks.append(Check("circle: power of m in the slowest rate", constants["scaling"], power, 0.03))
    plain = _rate(_generator(np.cos(_NODES), np.ones_like(_NODES), drift))
    checks.append(Check.relative("circle: slowest rate at m = 1", plain, np.exp(level), 0.01))
    predicted = [_rate(_generator(*_classes(data, k)[1:], drift)) for k in _STRETCHES]
    for k, rate, measured in zip(_STRETCHES, predicted, data["exchange"]):
        checks.append(Check.relative(f"two classes: slowest rate at stretch k = {k:g}", rate, measured, 0.01))
    slower, measured = predicted[0] / predicted[-1], data["exchange"][0] / data["exchange"][-1]
    checks.append(Check.relative("two classes: how much slower the learned metric makes it", slower, measured, 0.01))
    for k, runs in zip(_STRETCHES[list(_SHOWN)], data["apart"][..., -1]):
        kept, error = _apart(data, k, drift, _TIMES[-1:])[0], runs.std(ddof=1) / np.sqrt(len(runs))
        # random tokens: what is left of the difference of 2, within three standard errors
        checks.append(Check(f"tokens: classes apart at t = {_TIMES[-1]:g}, k = {k:g}", kept, runs.mean(), 3 * error))
    return checks


def draw(figure, data, constants) -> None:
    """Rate over m; rate over stretch; features of the classes over time."""
    left, middle, right = figure.subplots(1, 3)
    drift = constants["drift"]
    plain = _rate(_generator(np.cos(_NODES), np.ones_like(_NODES), drift))
    left.plot(data["m"], plain * data["m"] ** constants["scaling"], color=style.INK, label="m² × the equation at m = 1")
    left.plot(data["m"], data["speed"], "o", color=style.ACCENT, label="layers, metric g/m²")
    style.log_scale(left)
    style.plain_ticks(left.xaxis, data["m"])
    style.finish(left, "", "m (pure number)", "slowest rate (1/time)")
    left.legend(frameon=False)

    fine = np.linspace(0, _STRETCHES[-1], 26)
    rates = [_rate(_generator(*_classes(data, k)[1:], drift)) for k in fine]
    middle.plot(fine, rates, color=style.INK, label="equation")
    middle.plot(_STRETCHES, data["exchange"], "o", color=style.ACCENT, label="layers")
    middle.set_yscale("log")
    style.plain_log(middle.yaxis)
    style.finish(middle, "", "stretch k of the learned coordinate (length)", "exchange between classes (1/time)")
    middle.legend(frameon=False)

    times = np.linspace(0.02, _TIMES[-1], 40)
    for i, colour, marker in zip(range(len(_SHOWN)), style.shades(len(_SHOWN)), style.MARKERS):
        k, runs = _STRETCHES[_SHOWN[i]], data["apart"][i]
        right.plot(times, _apart(data, k, drift, times), color=colour)
        error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
        right.errorbar(_TIMES, runs.mean(axis=0), error, fmt=marker, color=colour, capsize=2, label=f"k = {k:g}")
    style.finish(right, "", "time, layers × ε/2 (length²)", "mean features of the classes, apart")
    right.set_ylim(0, 1.8)
    right.legend(frameon=False, title="lines: equation")
