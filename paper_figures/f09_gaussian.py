"""Gaussian tokens stay Gaussian: layer after layer their variance is known, for four normalisations.

Tokens from N(0, Sigma) under a Gaussian similarity of variance s: A x = kappa x exactly, so that tokens which are their
own values have the variance Sigma kappa^2 after the layer, with a new kappa for the next:

    softmax kappa = Sigma / (Sigma + s),
    Sinkhorn kappa = (sqrt(s^2 + 4 Sigma^2) - s) / (2 Sigma),
    density-corrected kappa = (1 / s) / (1 / s + 1 / Sigma - alpha / (Sigma + s)).

For small s the variance falls by c s per layer, c = 2, 1, 2 (1 - alpha) the drift of the limit equation: softmax
gathers tokens twice as fast as Sinkhorn. Left: infinitely many tokens, quadrature nodes that move with their masses,
and 1000 random ones, which stray in the tails (bars: one standard deviation over seeds). Right: one layer of
infinitely many.

Source: the products of Gaussians, derived for this package; the factor 2: Sander et al. 2022 (Sinkformers).
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Gaussian tokens shrink as predicted at every layer, twice as fast under softmax as under Sinkhorn"
CONSTANTS = {"second_moment": 1.0, "drift": np.array([2.0, 1.0, 1.0, 0.0])}  # m2 / eps; c for small eps
WRONG = {"second_moment": 2.0, "drift": np.array([2.0, 1.0, 1.0, 0.0])}
PANELS = 2

NAMES = ("softmax", "Sinkhorn", "α = 1/2", "α = 1")
_LAYERS = ("softmax", "sinkhorn", af.DensityCorrected(0.5), af.DensityCorrected(1.0))
_EPSILON, _DEPTH = 0.2, 6


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Variance by layer for each normalisation, of infinitely many and of random tokens; one layer for each eps."""
    line, gaussian = af.SquaredDistance(af.Euclidean(1)), af.Gaussian([0.0], [[1.0]])
    epsilons, seeds = np.geomspace(0.01, 1, 9), 6 if quick else 48
    data = {name: [] for name in ("variance", "random", "kappa")}
    for normalization in track(_LAYERS, progress, len(_LAYERS)):
        few = [af.Attention(line, eps, normalization, backend="reference") for eps in (_EPSILON, *epsilons)]
        data["variance"].append(_infinitely_many(few[0], gaussian))
        data["kappa"].append([_kappa(layer, gaussian) for layer in few[1:]])
        layer = af.Attention(line, _EPSILON, normalization, backend="numba")
        data["random"].append([_random(layer, gaussian, seed) for seed in range(seeds)])
    return {name: np.array(value) for name, value in data.items()} | {"epsilon": epsilons}


def _infinitely_many(layer: af.Attention, density: af.Density) -> list[float]:
    nodes = density.grid(200)
    x, log_mass = nodes.points, density.log_pdf(nodes.points) + np.log(nodes.weights)
    variance = [np.exp(log_mass) @ x[:, 0] ** 2]
    for _ in range(_DEPTH):
        x = layer.bind(x, log_mass).attend(x).mean
        variance.append(np.exp(log_mass) @ x[:, 0] ** 2)
    return variance


def _random(layer: af.Attention, density: af.Density, seed: int) -> np.ndarray:
    tokens = density.sample(1000, rng=seed)
    tokens = (tokens - tokens.mean()) / tokens.std()  # the start is no source of noise
    return af.evolve(layer, tokens, _DEPTH).y[..., 0].var(axis=1)


def _kappa(layer: af.Attention, density: af.Density) -> float:
    bound, nodes = bind_density(layer, density)
    return bound.attend(nodes.points, np.array([[1.0]])).mean[0, 0]


def _kappas(Sigma: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Softmax, Sinkhorn, alpha = 1/2 and 1, for a variance of each: (4, ...)."""
    softmax, sinkhorn, half, full = Sigma
    return np.stack([
        softmax / (softmax + s),
        (np.sqrt(s**2 + 4 * sinkhorn**2) - s) / (2 * sinkhorn),
        1 / (1 + s / half - s / 2 / (half + s)),
        1 / (1 + s / full - s / (full + s)),
    ])  # fmt: skip


def _variances(s: float) -> np.ndarray:
    """By layer, from 1: (4, layers + 1)."""
    Sigma = [np.ones(4)]
    for _ in range(_DEPTH):
        Sigma.append(Sigma[-1] * _kappas(Sigma[-1], s) ** 2)
    return np.stack(Sigma, axis=1)


def check(data, constants) -> list[Check]:
    """Variances of infinitely many and of random tokens; kappa; the rates for small eps, and their ratio."""
    checks, s = [], constants["second_moment"] * data["epsilon"]
    variance = _variances(constants["second_moment"] * _EPSILON)
    random, kappas = data["random"].mean(axis=1), _kappas(np.ones((4, 1)), s)
    small = data["epsilon"] < 0.1
    limits = [np.polyfit(data["epsilon"][small], rate[small], 3)[-1] for rate in _rates(data)]
    for i, name in enumerate(NAMES):
        last = data["variance"][i, _DEPTH]
        checks.append(Check.relative(f"{name}: variance after {_DEPTH} layers, N = ∞", variance[i, _DEPTH], last, 1e-6))
        # 1000 tokens have some 500 neighbours each: a bias of the order of their inverse
        checks.append(Check.relative(f"{name}: variance after 1 layer, N = 1000", variance[i, 1], random[i, 1], 0.01))
        off = np.abs(data["kappa"][i] - kappas[i]).max()
        checks.append(Check(f"{name}: κ at every ε, largest difference", 0.0, off, 1e-9))
        limit = constants["drift"][i] * constants["second_moment"]
        checks.append(Check(f"{name}: variance lost per layer and ε, ε → 0", limit, limits[i], 0.01))
    ratio = constants["drift"][0] / constants["drift"][1]
    checks.append(Check.relative("softmax over Sinkhorn, ε → 0", ratio, limits[0] / limits[1], 0.01))
    return checks


def _rates(data) -> np.ndarray:
    return (1 - data["kappa"] ** 2) / data["epsilon"]


def draw(figure, data, constants) -> None:
    """Variance by layer; what one layer takes from it, over eps."""
    left, right = figure.subplots(1, 2)
    layers, variance = np.arange(_DEPTH + 1), _variances(constants["second_moment"] * _EPSILON)
    s = np.geomspace(0.01, 1, 100)
    rates = (1 - _kappas(np.ones((4, 1)), constants["second_moment"] * s) ** 2) / s
    for i, (name, colour, marker) in enumerate(zip(NAMES, style.shades(4), style.MARKERS)):
        left.plot(layers, variance[i], color=colour)
        left.plot(layers, data["variance"][i], marker, color=colour, label=name)
        mean, spread = data["random"][i].mean(axis=0), data["random"][i].std(axis=0, ddof=1)
        aside = layers[1:] + 0.15
        bars = left.errorbar(aside, mean[1:], spread[1:], fmt="none", color=colour, capsize=2, linewidth=0.9)
        right.plot(s, rates[i], color=colour)
        label = f"{name}: c = {constants['drift'][i]:g}"
        right.plot(data["epsilon"], _rates(data)[i], marker, color=colour, label=label)
    bars.set_label("N = 1000, beside")
    style.finish(left, "", f"layers, at ε = {_EPSILON:g}", "variance Σ (length²)")
    left.set_ylim(-0.03, 1.4)
    left.legend(frameon=False, ncols=2, loc="upper right", title="markers: N = ∞")
    right.set_xscale("log")
    right.set_ylim(-0.1, 2.75)
    style.finish(right, "", "temperature ε (length², Σ = 1)", "variance lost in a layer / ε")
    right.legend(frameon=False, ncols=2, loc="upper right", title="lines: closed forms, → c for ε → 0")
