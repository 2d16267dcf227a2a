"""At a wall attention is wrong by sqrt(eps): by how much, in one layer, over many, and in every eigenvalue.

A token at the distance delta from a wall sees its neighbours on one side only. With s = eps, u = delta / sqrt(s), nu
the inward normal, and phi, Phi the standard normal density and distribution,

    A H - H = sqrt(s) (phi(u) / Phi(u)) dH/dnu + O(s).

Over many layers this acts like mass m sqrt(s) per wall, missing or in excess, in the weight p^c that layers conserve:

    lambda_k -> lambda_k [1 - m sqrt(s) (boundary integral of p^c phi_k^2) / (integral of p^c phi_k^2)]

for the no-flux eigenpairs, with m = integral (Phi - 1) du = -1 / sqrt(2 pi) for softmax; with density correction
alpha = 1, m = integral (w - 1) du, w = (1 / Phi) integral_0^infinity phi(u - v) / Phi(v) dv, and c = 0. So layers
converge only as sqrt(eps). Sinkhorn conserves p itself: m = 0; what is left is O(eps) in a layer of width sqrt(eps),
that is of order 5/4 in L2. Here: [0, pi], p uniform, H = cos x + cos 2x to t = 1/2; for eigenvalues also p
proportional to exp(x), with eigenfunctions e^(-x c / 2) (cos x + (c / 2) sin x) and lambda = 1 + c^2 / 4.

Source: Coifman & Lafon 2006, section 2 (no flux at walls); mass, shift and orders derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "At walls softmax attention is wrong by √ε, with the predicted constants; Sinkhorn by ε^(5/4)"
CONSTANTS = {"missing": 1 / np.sqrt(2 * np.pi), "sinkhorn_order": 1.25}
WRONG = {"missing": 1 / np.sqrt(np.pi), "sinkhorn_order": 1.25}

NAMES = ("softmax", "α = 1", "Sinkhorn")
_LAYERS = ("softmax", af.DensityCorrected(1.0), "sinkhorn")
_DRIFT = (2.0, 0.0, 1.0)
_BOX = af.Box([(0, np.pi)])
_F = af.SquaredDistance(_BOX)
_UNIFORM, _TILTED = af.Uniform(_BOX), af.Density(_BOX, lambda x: x[..., 0])
_DISTANCES = np.linspace(0, 3, 13)  # from the wall, in kernel widths
_T = 0.5


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """One layer next to the wall; errors at t = 1/2; first eigenvalues."""
    near = np.array([0.04, 0.01, 0.0025])
    profile = []
    for epsilon in near:
        bound, nodes = bind_density(af.Attention(_F, epsilon), _UNIFORM)
        there = np.sqrt(epsilon) * _DISTANCES[:, None]
        profile.append((bound.attend(np.sin(nodes.points), there).mean - np.sin(there))[:, 0] / np.sqrt(epsilon))
    layers = np.array([100, 400, 800, 1600, 3200] if quick else [50, 100, 200, 400, 800, 1600, 3200])
    errors = [[_error(normalization, count) for count in layers] for normalization in track(_LAYERS, progress)]
    widths = np.array([0.03, 0.045, 0.06, 0.08] if quick else [0.02, 0.03, 0.045, 0.06, 0.08, 0.1])
    cases = [("softmax", _UNIFORM), *[(normalization, _TILTED) for normalization in _LAYERS]]
    rates = [[_first_rate(normalization, p, width) for width in widths] for normalization, p in track(cases, progress)]
    return {
        "near": near, "profile": np.array(profile), "layers": layers, "error": np.array(errors),
        "width": widths, "rate": np.array(rates),
    }  # fmt: skip


def _error(normalization, count: int) -> float:
    """Relative L2 error of `count` layers at t = 1/2."""
    layer = af.Attention(_F, 2 * _T / count, normalization)
    run = af.propagate(layer, _UNIFORM, lambda x: np.cos(x[..., 0]) + np.cos(2 * x[..., 0]), count, save_every=count)
    x, weights = run.grid.points[:, 0], run.grid.weights
    exact = np.exp(-_T) * np.cos(x) + np.exp(-4 * _T) * np.cos(2 * x)
    return float(np.sqrt(weights @ (run.y[-1, :, 0] - exact) ** 2 / (weights @ exact**2)))


def _first_rate(normalization, density: af.Density, width: float) -> float:
    """-log(a) / tau of the second eigenvalue a of a layer."""
    layer = af.Attention(_F, width**2, normalization)
    bound, nodes = bind_density(layer, density)
    A = bound.attend(np.eye(len(nodes.points))).mean
    root = np.sqrt(bound.conserved_weight())
    symmetric = root[:, None] * A / root
    return -np.log(np.linalg.eigvalsh((symmetric + symmetric.T) / 2)[-2]) / layer.time_step


def check(data, constants) -> list[Check]:
    """The layer's value at the wall; orders and constants of the error; shifts of the eigenvalues."""
    mass = _mass(constants)
    width = np.sqrt(2 * _T / data["layers"])
    wall = np.polyfit(data["near"], data["profile"][:, 0], 1)[1]
    checks = [Check.relative("one layer at the wall, over √ε dH/dν: √(2/π)", 2 * norm.pdf(0), wall, 0.01)]
    for name, m, error in zip(NAMES[:2], mass, data["error"]):
        constant = np.polyfit(width, error / width, 2)[-1]
        checks.append(Check.relative(f"{name}: error over √ε at t = 1/2", abs(m) * _sensitivity(), constant, 0.01))
    fine = slice(-4, None)
    orders = [np.polyfit(2 * np.log(width[fine]), np.log(error[fine]), 1)[0] for error in data["error"]]
    checks.append(Check("softmax: order of the error in ε", 0.5, orders[0], 0.03))
    checks.append(Check("Sinkhorn: order of the error in ε", constants["sinkhorn_order"], orders[2], 0.03))
    for name, predicted, exact, rate in _shifts(data, mass):
        constant = np.polyfit(data["width"], (rate / exact - 1) / data["width"], 2)[-1]
        tolerance = max(0.01 * abs(predicted), 0.002)  # Sinkhorn's prediction is 0
        checks.append(Check(f"{name}: shift of the first eigenvalue, over √ε", predicted, constant, tolerance))
    return checks


def _mass(constants) -> np.ndarray:
    """m of the three normalisations: what the weight they conserve has too much of, per wall and kernel width."""
    u, du = np.polynomial.legendre.leggauss(200)
    u, du = 6 * (u + 1), 6 * du
    weight = (norm.pdf(u[:, None] - u) @ (du / norm.cdf(u)) + norm.sf(12 - u)) / norm.cdf(u)  # sf: what lies beyond
    return np.array([-constants["missing"], du @ (weight - 1), -0.0])


def _sensitivity() -> float:
    """Relative L2 error over |m| sqrt(s), to first order.

    With the mass matrix M = 1 + m sqrt(s) B, B on the wall, dH/dt = -M^-1 K H; in modes cos jx with lambda_j = j^2,
    dH_j = m sqrt(s) sum_k (B_jk / M_j) lambda_k c_k (e^(-lambda_k t) - e^(-lambda_j t)) / (lambda_j - lambda_k).
    """
    j = np.arange(2001.0)
    lam, M = j**2, np.where(j == 0, np.pi, np.pi / 2)
    change = np.zeros_like(j)
    for k in (1, 2):
        gap = np.where(j == k, 1.0, lam - k**2)
        divided = np.where(j == k, _T * np.exp(-(k**2) * _T), (np.exp(-(k**2) * _T) - np.exp(-lam * _T)) / gap)
        change += (1 + (-1.0) ** (j + k)) / M * k**2 * divided
    size = np.pi / 2 * (np.exp(-2 * _T) + np.exp(-8 * _T))
    return float(np.sqrt(M @ change**2 / size))


def _shifts(data, mass):
    """Name, predicted shift over sqrt(eps), lambda without walls, and measured rates, of each case."""
    yield "softmax, p uniform", -mass[0] * 4 / np.pi, 1.0, data["rate"][0]
    for name, m, c, rate in zip(NAMES, mass, _DRIFT, data["rate"][1:]):
        b = c / 2  # boundary integral 2, integral pi (1 + b^2) / 2
        yield f"{name}, p ~ exp(x)", -m * 4 / (np.pi * (1 + b**2)), 1 + b**2, rate


def draw(figure, data, constants) -> None:
    """One layer next to the wall; the error over tau; eigenvalues over kernel width."""
    mass = _mass(constants)
    left, middle, right = figure.subplots(1, 3)
    u = np.linspace(0, 3, 200)
    left.plot(u, norm.pdf(u) / norm.cdf(u), color=style.INK, label=r"predicted, $\varphi(u)/\Phi(u)$")
    for epsilon, profile, colour, marker in zip(data["near"], data["profile"], style.shades(3), style.MARKERS):
        left.plot(_DISTANCES, profile, marker, color=colour, label=f"ε = {epsilon:g}")
    left.legend(frameon=False)
    style.finish(left, "", "distance from the wall, u = δ/√ε", "(AH − H) / (√ε ∂H/∂ν)")
    left.set_title("a  one softmax layer next to a wall", loc="left")
    tau = _T / data["layers"]
    for name, m, error, colour, marker in zip(NAMES, mass, data["error"], style.shades(3), style.MARKERS):
        if m:
            line = abs(m) * _sensitivity() * np.sqrt(2 * tau)
        else:
            line = error[-1] * (tau / tau[-1]) ** constants["sinkhorn_order"]
        middle.plot(tau, line, color=colour, linestyle="-" if m else "--")
        middle.plot(tau, error, marker, color=colour, label=name if m else f"{name} (dashed: slope 5/4)")
    middle.set(xscale="log", yscale="log")
    middle.legend(frameon=False)
    style.finish(middle, "", "time step τ (length²)", "relative L² error at t = 1/2")
    middle.set_title("b  many layers", loc="left")
    colours = [style.ACCENT, *style.shades(3)]
    width = np.linspace(0, 1.05 * data["width"].max(), 50)
    for (name, predicted, exact, rate), colour, marker in zip(_shifts(data, mass), colours, "D" + style.MARKERS):
        right.plot(width, 1 + predicted * width, color=colour)
        right.plot(data["width"], rate / exact, marker, color=colour, label=name)
    right.legend(frameon=False)
    style.finish(right, "", "kernel width √ε (length)", "first eigenvalue over its limit")
    right.set_title("c  eigenvalues", loc="left")
