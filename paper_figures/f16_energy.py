"""Energy, entropy and perplexity: what layers can only lower, how fast, and what may rise.

Features on fixed tokens, dH/dt = L H = p^-c div(p^c grad H) with c = 2 for softmax:

    d/dt (1/2) integral p^c |grad H|^2 = -integral p^c (L H)^2,

so the Dirichlet energy weighted by p^c never rises. The plain one may: for log p = cos 2x and H = cos x on the circle
d/dt (1/2) integral |grad H|^2 = pi (c - 1) at the start, where the border between two crowds of tokens steepens.

Tokens that are their own values take the velocity (c / 2) eps grad log rho per layer, the heat equation backwards:
their entropy falls by (c / 2) eps integral |grad rho|^2 / rho per layer, with c = 2, 2 (1 - alpha) and 1 for softmax,
density-corrected and Sinkhorn layers. Meanwhile a token attends to more and more others. For Gaussian tokens of
variance S, where a layer multiplies tokens by kappa, the mean over the rows is at any eps

    log perplexity = log N + log(1 - kappa) / 2 + kappa (1 - kappa) / 2,      kappa = S / (S + eps)    (softmax)
    log perplexity = log N + log(1 - kappa^2) / 2,      kappa = (sqrt(eps^2 + 4 S^2) - eps) / (2 S)    (Sinkhorn)

Source: Ruan & Zhang 2024, Theorem 3 (L); Sander et al. 2022 (entropy); perplexity derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import circulant, expm
from scipy.special import ndtri

import attnflow as af
from attnflow.attention import bind_density
from attnflow.attention.perplexity import perplexity
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "The weighted energy of features and the entropy of tokens fall at the predicted rates; perplexity rises"
CONSTANTS = {"drift": np.array([2.0, 1.5, 1.0])}
WRONG = {"drift": np.array([1.0, 1.5, 1.0])}

NAMES = ("softmax", "α = 1/4", "Sinkhorn")
_LAYERS = ("softmax", af.DensityCorrected(0.25), "sinkhorn")
_NODES = 129  # odd: no Nyquist mode
_X = 2 * np.pi * np.arange(_NODES) / _NODES
_TIMES = np.linspace(0.0, 1.2, 13)
_CROWD = af.Mixture([af.Gaussian(-1.0, 0.25), af.Gaussian(1.2, 0.6)], [0.4, 0.6])
_EPSILON, _SIZE, _DEPTH = 0.1, 2000, 10  # of the Gaussian tokens whose perplexity we watch


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Features by time, and after one layer for some tau; entropy lost per layer; perplexity by layer."""
    taus = np.array([0.0025, 0.005, 0.01])
    wells, start = af.Density(af.Circle(), lambda x: np.cos(2 * x[..., 0])), lambda x: np.cos(x[..., 0])
    f = af.SquaredDistance(wells.space)
    once = [af.propagate(af.Attention(f, 2 * tau), wells, start, 1, grid=2 * _NODES).y[-1, ::2, 0] for tau in taus]
    fine = af.Attention(f, 2 * taus[0])
    every = round((_TIMES[1] - _TIMES[0]) / fine.time_step)
    run = af.propagate(fine, wells, start, every * (len(_TIMES) - 1), save_every=every, grid=2 * _NODES)
    epsilons = np.geomspace(0.004, 0.032, 4 if quick else 6)
    lost = [[_entropy_lost(normalization, eps) for eps in epsilons] for normalization in track(_LAYERS, progress)]
    tokens = ndtri((np.arange(_SIZE) + 0.5) / _SIZE)[:, None]
    rows = []
    for normalization in ("softmax", "sinkhorn"):
        layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), _EPSILON, normalization)
        moved = af.evolve(layer, tokens, _DEPTH).y
        rows.append([np.log(perplexity(layer.bind(now))).mean() for now in moved])
    return {
        "tau": taus, "once": np.array(once), "features": run.y[:, ::2, 0],
        "epsilon": epsilons, "lost": np.array(lost), "log_perplexity": np.array(rows),
    }  # fmt: skip


def _entropy_lost(normalization, epsilon: float) -> float:
    """-integral rho log T', where x -> T(x) is the layer: T' is the variance of a row of weights over eps."""
    bound, nodes = bind_density(af.Attention(af.SquaredDistance(_CROWD.space), epsilon, normalization), _CROWD)
    x = nodes.points
    mean, square = bound.attend(np.hstack([x, x**2])).mean.T
    return -float(nodes.weights * _CROWD.pdf(x) @ np.log((square - mean**2) / epsilon))


def check(data, constants) -> list[Check]:
    """Rates of both energies at the start, no rise of the weighted one, entropy's constants, perplexity."""
    drift = constants["drift"]
    weight, L, _ = _flow(drift[0])
    H = np.cos(_X)
    lowered, steepening = -_mean(weight * (L @ H) ** 2), np.pi * (drift[0] - 1)
    weighted, plain = _energy(data["features"], weight), _energy(data["features"], 1.0)
    rise = max(0.0, np.diff(weighted).max() / weighted[0])
    checks = [
        Check.relative("rate of the weighted energy, first layer", lowered, _rate(data, weight), 0.01),
        Check("rate of the plain energy, first layer", steepening, _rate(data, 1.0), 0.01 * np.pi),
        Check("largest rise of the weighted energy over its start", 0.0, rise, 1e-9),
    ]
    exact = np.array([expm(t * L) @ H for t in _TIMES])
    for name, seen, meant in (("weighted", weighted, _energy(exact, weight)), ("plain", plain, _energy(exact, 1.0))):
        worst = np.abs(seen / meant - 1).max()  # layers are wrong by O(tau), tau = 0.0025
        checks.append(Check(f"{name} energy over time, largest relative error", 0.0, worst, 0.02))
    for name, c, lost in zip(NAMES, drift, data["lost"]):
        constant = np.polyfit(data["epsilon"], lost / data["epsilon"], 2)[-1]
        checks.append(Check.relative(f"{name}: entropy lost per layer and ε", c / 2 * _information(), constant, 0.01))
    for name, seen, meant in zip(("softmax", "Sinkhorn"), data["log_perplexity"], _log_perplexity()):
        # tokens at the quantiles have a variance smaller by 7e-4
        worst = np.abs(seen - meant).max()
        checks.append(Check(f"{name}: log perplexity over {_DEPTH} layers, largest error", 0.0, worst, 0.002))
    return checks


def _flow(drift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p^c at the nodes, L and d/dx as matrices on them."""
    k = np.arange(1, _NODES)
    d = circulant(np.concatenate([[0.0], np.where(k % 2, -1.0, 1.0) / (2 * np.sin(np.pi * k / _NODES))]))
    return np.exp(drift * np.cos(2 * _X)), d @ d + np.diag(-2 * drift * np.sin(2 * _X)) @ d, d


def _mean(field: np.ndarray) -> np.ndarray:
    """Integral over the circle."""
    return 2 * np.pi * np.mean(field, axis=-1)


def _energy(H: np.ndarray, weight) -> np.ndarray:
    return _mean(weight * (H @ _flow(0.0)[2].T) ** 2) / 2


def _rate(data, weight) -> float:
    """(E_1 - E_0) / tau at tau = 0."""
    rates = (_energy(data["once"], weight) - _energy(np.cos(_X), weight)) / data["tau"]
    return np.polyfit(data["tau"], rates, len(rates) - 1)[-1]


def _information() -> float:
    """integral |grad rho|^2 / rho of the crowd."""
    x = np.linspace(-7, 9, 4001)[:, None]
    return float(np.sum(_CROWD.pdf(x) * _CROWD.score(x)[:, 0] ** 2) * 16 / 4000)


def _log_perplexity() -> np.ndarray:
    rows = np.empty((2, _DEPTH + 1))
    for row, sinkhorn in zip(rows, (False, True)):
        S = 1.0
        for k in range(_DEPTH + 1):
            kappa = (np.hypot(_EPSILON, 2 * S) - _EPSILON) / (2 * S) if sinkhorn else S / (S + _EPSILON)
            row[k] = np.log1p(-(kappa**2)) / 2 if sinkhorn else np.log1p(-kappa) / 2 + kappa * (1 - kappa) / 2
            S *= kappa**2
    return np.log(_SIZE) + rows


def draw(figure, data, constants) -> None:
    """Both energies over time; entropy lost over eps; perplexity over layers."""
    drift = constants["drift"]
    left, middle, right = figure.subplots(1, 3)
    times = np.linspace(0, _TIMES[-1], 121)
    weight, L, _ = _flow(drift[0])
    flow, step = [np.cos(_X)], expm(times[1] * L)
    for _ in times[1:]:
        flow.append(step @ flow[-1])
    flow = np.array(flow)
    for name, w, colour, marker in (("plain", 1.0, style.ACCENT, "s"), ("weighted by $p^2$", weight, style.INK, "o")):
        scale = _energy(flow[0], w)
        left.plot(times, _energy(flow, w) / scale, color=colour)
        left.plot(_TIMES, _energy(data["features"], w) / scale, marker, color=colour, label=name)
    left.legend(frameon=False, title="Dirichlet energy (lines: predicted)", title_fontsize=6.5)
    left.set_ylim(0, None)
    style.finish(left, "", "time t (length²)", "energy over its start")
    left.set_title("a  features: only the weighted energy must fall", loc="left")
    for name, c, lost, colour, marker in zip(NAMES, drift, data["lost"], style.shades(3), style.MARKERS):
        middle.plot(data["epsilon"], c / 2 * _information() * data["epsilon"], color=colour)
        middle.plot(data["epsilon"], lost, marker, color=colour, label=name)
    middle.set(xscale="log", yscale="log")
    middle.legend(frameon=False)
    style.finish(middle, "", "temperature ε (length²)", "entropy lost in one layer (nats)")
    style.plain_log(middle.xaxis)
    style.plain_log(middle.yaxis)
    middle.set_title("b  tokens that move lose entropy", loc="left")
    layers = np.arange(_DEPTH + 1)
    colours = (style.shades(3)[0], style.shades(3)[2])
    for name, seen, meant, colour, marker in zip(
        ("softmax", "Sinkhorn"), data["log_perplexity"], _log_perplexity(), colours, "os"
    ):
        right.plot(layers, np.exp(meant), color=colour)
        right.plot(layers, np.exp(seen), marker, color=colour, label=name)
    right.legend(frameon=False)
    right.set_ylim(0, 1.05 * _SIZE)
    style.finish(right, "", "layers", f"perplexity of a row (of {_SIZE} tokens)")
    right.set_title("c  and attend to more and more others", loc="left")
