"""In a box, walls shift rates by sqrt(eps), and what flows along a wall counts against what it holds.

Next to a wall a layer conserves p^c w(u), u the distance over sqrt(eps), in place of p^c. So the wall carries the mass
m sqrt(eps), m = integral_0^inf (w - 1) du, and the mobility along it of as much: no flux becomes

    d_nu H = -m sqrt(eps) d_nu^2 H,

and the eigenvalue -l of the no-flux mode phi moves to first order to

    -l + m sqrt(eps) (wall integral of p^c (l phi^2 - |grad phi along the wall|^2)) / (integral of p^c phi^2).

m = -1 / sqrt(2 pi) for softmax, -.013204 and .513787 with density correction 1/2 and 1, and 0 for Sinkhorn, which does
better. In a box of independent coordinates a wave across never sees the walls along it: without the second part of the
wall integral it would. Here: [0, 2] x [0, 1.5], p proportional to exp(.6 sin(2x + y)), the slowest mode; and the bias of
features on a line through the box.

Source: Coifman & Lafon 2006, section 2 (no flux at walls); mass, mobility and shift derived for this package.
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 2
TITLE = "Walls of a box shift rates by √ε times the predicted constants; Sinkhorn's by less"
CONSTANTS = {"along": 1.0}  # how what flows along a wall counts
WRONG = {"along": 0.0}

_BOX = af.Box([(0, 2.0), (0, 1.5)])
_F, _P = af.SquaredDistance(_BOX), af.Density(_BOX, lambda x: 0.6 * np.sin(2 * x[..., 0] + x[..., 1]))
_RULES = {"softmax": "softmax", "α = 1/2": af.DensityCorrected(0.5), "α = 1": "column", "Sinkhorn": "sinkhorn"}
_T, _LINE = 0.3, np.stack([np.linspace(0, 2, 41), np.full(41, 0.4)], axis=1)


def _start(x: np.ndarray) -> np.ndarray:
    return np.cos(np.pi / 2 * x[..., 0]) + np.cos(np.pi / 1.5 * x[..., 1])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Of each normalisation the slowest rate at several eps and its wall integrals; the bias on the line, softmax."""
    epsilons = np.array([0.04, 0.02, 0.01] if quick else [0.04, 0.02, 0.01, 0.005])
    rows = [_rates(rule, epsilons) for rule in track(_RULES.values(), progress, len(_RULES))]
    line, layer = [], af.Attention(_F, epsilons[0])
    exact = af.limit(layer, _P).solve(_start, _T, rtol=1e-7).at(_LINE)[:, 0]
    for epsilon in epsilons:
        depth = round(2 * _T / epsilon)
        run = af.propagate(af.Attention(_F, epsilon), _P, _start, depth, save_every=depth)
        line.append((run.at(_LINE)[:, 0] - exact) / np.sqrt(epsilon))
    predicted = af.predicted_bias(layer, _P, _start, _T)(_LINE)[:, 0] / np.sqrt(layer.epsilon)
    rates = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {"epsilon": epsilons, "line": np.array(line), "predicted": predicted, **rates}


def _rates(normalization, epsilons: np.ndarray) -> dict:
    equation = af.limit(af.Attention(_F, 0.01, normalization), _P)
    spectrum = equation.spectrum(2)
    size, grid = -spectrum.eigenvalues[1], _BOX.grid(24)
    weights = np.exp(equation.drift * _P.log_pdf(grid.points)) * grid.weights

    def mode(x: np.ndarray) -> np.ndarray:
        return spectrum.at(x)[1]

    rates = []
    for epsilon in epsilons:
        layer = af.Attention(_F, epsilon, normalization)
        depth = round(0.3 / layer.time_step)
        run = af.propagate(layer, _P, mode, 2 * depth, save_every=depth)
        late, later = (weights * mode(grid.points) @ run.at(grid.points, t)[:, 0] for t in run.t[1:])
        rates.append(np.log(late / later) / (run.t[2] - run.t[1]))
    held, flows, h = 0.0, 0.0, 1e-4
    x, w = np.polynomial.legendre.leggauss(40)
    for k, side in ((0, 1.5), (1, 2.0)):
        for end in _BOX.bounds[k]:
            points = np.full((40, 2), float(end))
            points[:, 1 - k] = side * (x + 1) / 2
            wall = side / 2 * w * np.exp(equation.drift * _P.log_pdf(points))
            ahead, behind = points + h * np.eye(2)[1 - k], points - h * np.eye(2)[1 - k]
            held += wall @ mode(points) ** 2
            flows += wall @ ((mode(ahead) - mode(behind)) / (2 * h)) ** 2
    whole = weights @ mode(grid.points) ** 2
    return {"size": size, "rate": np.array(rates), "held": held / whole, "flows": flows / whole}


_MASS = np.array([-1 / np.sqrt(2 * np.pi), -0.013204, 0.513787, 0.0])


def _shifts(data, constants) -> np.ndarray:
    """Of the rates over sqrt(eps), (4,)."""
    return -_MASS * (data["size"] * data["held"] - constants["along"] * data["flows"])


def check(data, constants) -> list[Check]:
    """Measured shifts over sqrt(eps) as eps -> 0, and the bias on the line."""
    width, checks = np.sqrt(data["epsilon"]), []
    for name, predicted, size, rate in zip(_RULES, _shifts(data, constants), data["size"], data["rate"]):
        measured = np.polyfit(width[-3:], (rate - size)[-3:] / width[-3:], 2)[-1]
        checks.append(Check(f"{name}: shift of the slowest rate over √ε", predicted, measured, 0.05 * abs(predicted) + 0.05))
    fit = _at_zero(data)
    off = np.linalg.norm(fit - data["predicted"]) / np.linalg.norm(data["predicted"])
    checks.append(Check("softmax: bias on the line over √ε, relative L2 from predicted_bias", 0.0, off, 0.05))
    return checks


def _at_zero(data) -> np.ndarray:
    """The measured bias on the line over sqrt(eps), extrapolated to eps = 0."""
    return np.polyfit(np.sqrt(data["epsilon"][-3:]), data["line"][-3:], 2)[-1]


def draw(figure, data, constants) -> None:
    """Rates over the kernel's width; the bias over sqrt(eps) along the line."""
    left, right = figure.subplots(1, 2)
    width, colours = np.sqrt(data["epsilon"]), style.shades(len(_RULES))
    w = np.linspace(0, 1.05 * width.max(), 50)
    for name, shift, size, rate, colour, marker in zip(
        _RULES, _shifts(data, constants), data["size"], data["rate"], colours, style.MARKERS
    ):
        left.plot(w, 1 + shift / size * w, color=colour)
        left.plot(width, rate / size, marker, color=colour, label=name)
    left.legend(frameon=False)
    style.finish(left, "", "kernel width √ε (length)", "slowest rate over its limit")
    left.set_title("a  lines: predicted to first order in √ε", loc="left")
    right.plot(_LINE[:, 0], data["predicted"], color=style.ACCENT, label="predicted")
    for epsilon, line, colour, marker in zip(data["epsilon"], data["line"], style.shades(len(width)), style.MARKERS):
        right.plot(_LINE[:, 0], line, marker, color=colour, markersize=2.5, label=f"ε = {epsilon:g}")
    right.plot(_LINE[:, 0], _at_zero(data), "--", color=style.INK, label="extrapolated to ε = 0")
    right.legend(frameon=False)
    style.finish(right, "", "x, at y = 0.4 (length)", "bias over √ε (1/length)")
    right.set_title(f"b  softmax features at t = {_T:g}", loc="left")
