"""Theorem 3: one layer is the identity plus tau L, and what is left is s B.

For infinitely many tokens with density p and the Gaussian similarity of variance s = eps (tau = s / 2),

    (A H - H) / tau = L H + s B H + O(s^2),     L H = Delta H + c <grad log p, grad H>,

with the drift c = 2, 1 and 2 (1 - alpha) for softmax, Sinkhorn and density-corrected layers, and each its own B:
with r = p^(c / 2), B H = [Delta^2 (r H) - H Delta^2 r] / (4 r) - (Delta r / r) L H / 2 - k grad V . grad H, where
V = Delta p / p, k = alpha for density correction and V = Delta r / r, k = 1/2 for Sinkhorn. Here: the circle,
p proportional to exp(cos x), H = cos x, at one point, with grad log p and Delta log p known in closed form.

The proof of Theorem 3 in the paper's appendix loses a factor on its way and ends with c = 1 for softmax. The intercepts
here decide for the 2 of its statement: with 1 they miss by hundreds of per cent.

Source: Ruan & Zhang 2024, Theorem 3 (the limit); Singer 2006 (softmax bias at uniform p); B derived for this package.
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style

from . import Check

TITLE = "One layer is one time step: what is left falls linearly in ε, with the predicted constant"
CONSTANTS = {"drift": np.array([2.0, 1.0, 1.0, 0.0])}
WRONG = {"drift": np.array([1.0, 1.0, 1.0, 0.0])}

NAMES = ("softmax", "Sinkhorn", "α = 1/2", "α = 1")
_LAYERS = ("softmax", "sinkhorn", af.DensityCorrected(0.5), af.DensityCorrected(1.0))
_BIASES = (-1.77127307, -0.27787245, 0.15582282, 1.51430076)  # B H at the point, by symbols
_X = 18 * 2 * np.pi / 128


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """(A H - H) / tau at one point, for each normalisation and eps."""
    epsilons = np.geomspace(1.25e-4, 2e-3, 5 if quick else 9)
    density, f = af.VonMises(1.0), af.SquaredDistance(af.Circle())
    rates = np.empty((len(_LAYERS), len(epsilons)))
    for i, normalization in enumerate(_LAYERS):
        for j, epsilon in enumerate(epsilons):
            layer = af.Attention(f, epsilon, normalization)
            bound, nodes = bind_density(layer, density)
            H = np.cos(nodes.points)
            there = np.array([[_X]])
            rates[i, j] = (bound.attend(H, there).mean[0, 0] - np.cos(_X)) / layer.time_step
    return {"epsilon": epsilons, "rate": rates}


def _limit(drift: np.ndarray) -> np.ndarray:
    return -np.cos(_X) + drift * np.sin(_X) ** 2  # H'' + c (log p)' H'


def check(data, constants) -> list[Check]:
    """Slope, constant and intercept of |(A H - H) / tau - L H| over eps."""
    checks = []
    for name, rate, limit, bias in zip(NAMES, data["rate"], _limit(constants["drift"]), _BIASES):
        left = rate - limit
        slope = np.polyfit(np.log(data["epsilon"]), np.log(np.abs(left)), 1)[0]
        constant = np.polyfit(data["epsilon"], left / data["epsilon"], 1)[1]
        checks.append(Check(f"{name}: order in ε of what one layer leaves", 1.0, slope, 0.03))
        checks.append(Check.relative(f"{name}: its constant B H", bias, constant, 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """What is left, over eps: |s B H| as lines, measured as points."""
    ax = figure.subplots()
    s = data["epsilon"]
    for name, rate, limit, bias, colour, marker in zip(
        NAMES, data["rate"], _limit(constants["drift"]), _BIASES, style.shades(4), style.MARKERS
    ):
        ax.plot(s, np.abs(bias) * s, color=colour)
        ax.plot(s, np.abs(rate - limit), marker, color=colour, label=name)
    ax.set(xscale="log", yscale="log")
    style.finish(ax, "", "temperature ε (length²)", "|(AH − H)/τ − LH|  (1/length²)")
    ax.legend(title="lines: |ε BH|", frameon=False)
