"""On curved metrics too, layers of infinitely many tokens miss their equation by the predicted constant times the time step.

Plain softmax layers A H = H + tau L H + tau^2 E H + ..., tau = eps / 2, run to the time t deviate from dH/dt = L H by

    tau integral_0^t e^((t-u) L) (E - L^2 / 2) e^(u L) H du + O(tau^2),

E being what the similarity, the density and the curvature make it. On the round S^2, with the geodesic Gaussian,

    E H = [Delta^2 (p H) - H Delta^2 p] / (2 p) - (Delta p / p) L H - L H / 3;

for other metrics no E is written down: the first order is extrapolated from layers at several temperatures. Here: the
sphere; three squared maps, a torus of revolution (curved both ways), a corrugated torus in five dimensions and a closed
curve whose speed varies by two; and the hyperbolic plane, which no map into flat space gives: the points
(x, sqrt(1 + |x|^2)) of the hyperboloid, f = 2 (cosh d - 1), tokens a Gaussian in x. Relative p-weighted L2.

Source: Ruan & Zhang 2024, Theorem 3 (the limit); the first order derived for this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sympy as sp

import attnflow as af
from attnflow.norms import column_norms
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Curved metrics: layers miss their equation by the predicted constant times the time step"
LONG = True
CONSTANTS = {"time_step": 0.5}  # tau over eps
WRONG = {"time_step": 1.0}

_EPSILON = 0.01


class _Case(NamedTuple):
    name: str
    f: af.PseudoMetric
    density: af.Density
    initial: Callable
    t: float
    layers: tuple[int, ...]


def _cases(quick: bool) -> list[_Case]:
    def ring(x: np.ndarray) -> np.ndarray:
        radius = 2 + np.cos(x[..., 1])
        return np.stack([radius * np.cos(x[..., 0]), radius * np.sin(x[..., 0]), np.sin(x[..., 1])], axis=-1)

    def curve(x: np.ndarray) -> np.ndarray:
        return np.concatenate([(1.6 + 0.3 * np.cos(2 * x)) * np.cos(x), 0.8 * np.sin(x)], axis=-1)

    def corrugated(x: np.ndarray) -> np.ndarray:
        c, s = np.cos(x), np.sin(x)
        return np.concatenate([c, s, 0.6 * c[..., :1] * c[..., 1:]], axis=-1)

    a, b, c, d = sp.symbols("x0 x1 y0 y1")
    cosh = sp.sqrt(1 + a**2 + b**2) * sp.sqrt(1 + c**2 + d**2) - a * c - b * d
    sphere, torus = af.Sphere(2), af.Torus([2 * np.pi] * 2)
    cases = [
        _Case("sphere", af.SquaredDistance(sphere), af.VonMisesFisher([0.0, 0.0, 1.0], 1.5),
              lambda x: x[..., 2] + x[..., 0] ** 2, 0.3, (8, 12, 16, 24)),
        _Case("torus of revolution", af.SquaredMap(ring), af.Density(torus, lambda x: 0.4 * np.sin(x[..., 1])),
              lambda x: np.sin(x[..., 1]) + np.cos(x[..., 0]), 0.5, (8, 12, 16, 24)),
        _Case("corrugated torus", af.SquaredMap(corrugated), af.Density(torus, lambda x: 0.5 * np.cos(x[..., 0] - x[..., 1])),
              lambda x: np.sin(x[..., 0]), 0.4, (6, 9, 12, 18)),
        _Case("curve of varying speed", af.SquaredMap(curve), af.Density(af.Circle(), lambda x: np.cos(x[..., 0] - 0.5)),
              lambda x: np.sin(x[..., 0]) + np.cos(2 * x[..., 0]), 0.2, (20, 40, 80, 160)),
        _Case("hyperbolic plane", af.PseudoMetric(2 * (cosh - 1), 2), af.Gaussian([0.0, 0.0], np.eye(2) / 4),
              lambda x: x[..., 0] + x[..., 1] ** 2, 0.15, (3, 4, 6, 8)),
    ]  # fmt: skip
    return [case for k, case in enumerate(cases) if not quick or k in (0, 3)]


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """eps, relative error, and the predicted error over tau, of each space."""
    rows = [_measured(case) for case in track(_cases(quick), progress, unit="space")]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _measured(case: _Case) -> dict:
    density, errors, epsilons = case.density, [], 2 * case.t / np.array(case.layers)
    layer = af.Attention(case.f, _EPSILON)
    equation = af.limit(layer, density).solve(case.initial, case.t, rtol=1e-7 if all(density.space.periodic) else 1e-5)
    for count, epsilon in zip(case.layers, epsilons):
        run = af.propagate(af.Attention(case.f, epsilon), density, case.initial, count, save_every=count)
        points = run.grid.points
        mass = density.pdf(points) * density.space.volume_element(points) * run.grid.weights
        exact = equation.at(points)
        errors.append(column_norms(mass, run.y[-1].reshape(exact.shape) - exact)[0] / column_norms(mass, exact)[0])
    bias = af.predicted_bias(layer, density, case.initial, case.t)(points) / layer.time_step
    constant = column_norms(mass, bias)[0] / column_norms(mass, exact)[0]
    return {"name": case.name, "epsilon": epsilons, "error": np.array(errors), "constant": constant}


def _intercept(data, k: int) -> float:
    """Measured error over eps as eps -> 0."""
    epsilon, error = data["epsilon"][k], data["error"][k]
    return float(np.polyfit(epsilon, error / epsilon, 3)[-1])


def check(data, constants) -> list[Check]:
    """Measured errors over eps, extrapolated to eps = 0, against the predicted constant."""
    return [
        Check.relative(
            f"{name}: error over ε as ε → 0", constants["time_step"] * data["constant"][k], _intercept(data, k), 0.003
        )
        for k, name in enumerate(data["name"])
    ]


def draw(figure, data, constants) -> None:
    """Error over eps against eps: predicted at 0 as lines."""
    ax = figure.subplots()
    colours, ends = style.shades(len(data["name"])), np.array([data["epsilon"].min() / 1.5, data["epsilon"].max() * 1.5])
    for k, (name, colour, marker) in enumerate(zip(data["name"], colours, style.MARKERS)):
        ax.plot(ends, [constants["time_step"] * data["constant"][k]] * 2, color=colour)
        ax.plot(data["epsilon"][k], data["error"][k] / data["epsilon"][k], marker, color=colour, label=str(name))
    ax.set(xscale="log", yscale="log", xlim=ends)
    ax.set_yticks([0.2, 0.5, 1, 2], labels=["0.2", "0.5", "1", "2"])
    ax.legend(frameon=False, title="lines: predicted, ε → 0", loc="center left", bbox_to_anchor=(0.0, 0.68))
    style.finish(ax, "", "temperature ε (length²)", "relative L² error over ε (1/length²)")
