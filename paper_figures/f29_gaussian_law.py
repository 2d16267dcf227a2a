"""Gaussian tokens with values that turn stay Gaussian: mean and covariance of every layer are known, for many tokens at once.

Tokens of the law N(a, S) attend with exp(-f / (2 eps)), f quadratic in both; what a query x attends to is M x + b, and the layer
x <- x + r V (A x - x) makes of the law

    J = 1 + r V (M - 1),    a <- a + r V (M a + b - a),    S <- J S J',

with M, b of the new law in the next layer:

    softmax of x'B'y:       M = S B,  b = a
    softmax of |Q x - K y|^2 / (2 eps):    M = P^-1 K'Q / eps,  b = P^-1 S^-1 a,  P = S^-1 + K'K / eps
    Sinkhorn of |x - y|^2 / (2 eps):    M = S^(1/2) U diag(k) U' S^(-1/2) with S = U diag(s) U',
                                        k = ((eps^2 + 4 s^2)^(1/2) - eps) / (2 s),  b = a - M a

Left: one standard deviation about the mean after 0, 2, ... layers, lines predicted, points of random tokens. Right: the
variance along the first axis, layer by layer, in all three; bars are standard errors over sets of tokens, which are near
1 / N off on average.

Source: Castin, Ablin, Carrillo & Peyre 2025 (softmax); derived for this package (Sinkhorn).
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Gaussian tokens with turning values have the predicted mean and covariance after every layer"
CONSTANTS = {"temperature": 2.0}  # c of exp(-f / (c eps))
WRONG = {"temperature": 1.0}
PANELS = 2

NAMES = ("dot product", "|Qx − Ky|²", "Sinkhorn")
_MEAN, _COV = np.array([0.3, -0.2]), np.array([[1.0, 0.3], [0.3, 0.5]])
_V = np.array([[0.3, -1.0], [1.0, 0.3]])
_B = np.array([[0.4, 0.2], [-0.3, 0.5]])
_Q, _K = np.array([[1.0, 0.2], [0.1, 0.8]]), np.array([[0.7, -0.3], [0.4, 1.1]])
_DEPTH, _RESIDUAL = 8, 0.2
_EPSILON = (0.5, 1 / 1.2, 0.5)
_ANGLES = np.linspace(0, 2 * np.pi, 100)


def _rectangular(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum((x @ _Q.T - y @ _K.T) ** 2, axis=-1)


def _layers(temperature: float = 2.0) -> list[af.Attention]:
    fs = (af.DotProduct(_B), af.PseudoMetric(_rectangular, 2), af.SquaredDistance(af.Euclidean(2)))
    rules = ("softmax", "softmax", "sinkhorn")
    return [af.Attention(f, eps * temperature / 2, rule, _RESIDUAL, rtol=1e-10) for f, eps, rule in zip(fs, _EPSILON, rules)]


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Means and covariances by layer of sets of random tokens, and of nodes that stand for infinitely many."""
    sets, size = (4, 300) if quick else (16, 1000)
    density = af.Gaussian(_MEAN, _COV)
    nodes = density.grid(32)
    data = {name: [] for name in ("mean", "cov", "nodes_mean", "nodes_cov")}
    for layer in track(_layers(), progress, 3):
        runs = [af.evolve(layer, _tokens(size, seed), _DEPTH, _V).y for seed in range(sets)]
        data["mean"].append([run.mean(axis=1) for run in runs])
        data["cov"].append([[np.cov(y.T, bias=True) for y in run] for run in runs])
        means, covs = _infinitely_many(layer, nodes.points, density.pdf(nodes.points) * nodes.weights)
        data["nodes_mean"].append(means)
        data["nodes_cov"].append(covs)
    return {"tokens": size, **data}


def _tokens(size: int, seed: int) -> np.ndarray:
    """Random ones whose own mean and covariance are those of the law: the start is no source of noise."""
    z = np.random.default_rng(seed).normal(size=(size, 2))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / size)).T
    return _MEAN + z @ np.linalg.cholesky(_COV).T


def _infinitely_many(layer: af.Attention, x: np.ndarray, mass: np.ndarray) -> tuple[list, list]:
    means, covs = [], []
    for k in range(_DEPTH + 1):
        if k:
            x = x + _RESIDUAL * (layer.bind(x, np.log(mass)).attend(x).mean - x) @ _V.T
        means.append(mass @ x)
        covs.append((x.T * mass) @ x - np.outer(means[-1], means[-1]))
    return means, covs


def _law(constants) -> list:
    tokens = af.GaussianTokens(_MEAN, _COV)
    return [tokens.evolve(layer, _DEPTH, _V) for layer in _layers(constants["temperature"])]


def check(data, constants) -> list[Check]:
    """Nodes to nine digits; random tokens within four standard errors and what N tokens are off on average."""
    checks = []
    for k, (name, law) in enumerate(zip(NAMES, _law(constants))):
        off = np.abs(data["nodes_cov"][k] - law.cov).max()
        checks.append(Check(f"{name}: covariances of {_DEPTH} layers, N = ∞, largest error", 0.0, off, 1e-9))
        off = np.abs(data["nodes_mean"][k] - law.mean).max()
        checks.append(Check(f"{name}: means of {_DEPTH} layers, N = ∞, largest error", 0.0, off, 1e-9))
        for i, j in ((0, 0), (0, 1), (1, 1)):
            found, slack = _statistics(data["cov"][k][:, _DEPTH, i, j])
            tolerance = 4 * slack + 10 / data["tokens"] * np.trace(law.cov[_DEPTH]) / 2
            checks.append(
                Check(f"{name}: S{i + 1}{j + 1} after {_DEPTH} layers, random tokens", law.cov[_DEPTH, i, j], found, tolerance)
            )
    return checks


def _statistics(values: np.ndarray) -> tuple[float, float]:
    """Mean over sets of tokens, and its standard error."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _ellipse(mean: np.ndarray, cov: np.ndarray, angles: np.ndarray = _ANGLES) -> np.ndarray:
    return mean[:, None] + np.linalg.cholesky(cov) @ np.stack([np.cos(angles), np.sin(angles)])


def draw(figure, data, constants) -> None:
    """Ellipses of the dot product; a variance over layers in all three."""
    left, right = figure.subplots(1, 2)
    laws, some = _law(constants), np.arange(0, _DEPTH + 1, 2)
    for layer, colour, marker in zip(some, style.shades(len(some)), style.MARKERS):
        left.plot(*_ellipse(laws[0].mean[layer], laws[0].cov[layer]), color=colour)
        measured = data["mean"][0][:, layer].mean(axis=0), data["cov"][0][:, layer].mean(axis=0)
        left.plot(*_ellipse(*measured, _ANGLES[::9]), marker, color=colour, markersize=3, label=f"{layer} layers")
    left.set_ylim(-1.45, 0.65)
    style.finish(left, "", "x₁ (dot product)", "x₂")
    left.legend(frameon=False, loc="lower center", ncols=3)
    layers = np.arange(_DEPTH + 1)
    for k, (name, law, colour, marker) in enumerate(zip(NAMES, laws, style.shades(3), style.MARKERS)):
        found, slack = _statistics(data["cov"][k][:, :, 0, 0])
        right.plot(layers, law.cov[:, 0, 0], color=colour)
        right.errorbar(layers, found, slack, fmt=marker, color=colour, capsize=2, label=name)
    style.finish(right, "", f"layers, step {_RESIDUAL:g}", f"variance S₁₁, {int(data['tokens'])} tokens")
    right.legend(frameon=False, title="lines: N = ∞")
