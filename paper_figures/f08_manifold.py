"""Theorem 6: where f(x, .) is smallest on a whole manifold, a layer averages over it, with a known weight.

    A H(x) = integral H q det(Hess f on the normal space)^(-1/2) / integral q det(...)^(-1/2) + O(eps),

both integrals along the manifold, q the density of tokens. Left and middle: tokens in the plane, Gaussian, and
f = (|u|^2 - 1)^2 (1/2 + |u - c|^2) with u = y - x: the unit circle around x, whose normal Hessian is
8 (1/2 + |u - c|^2). Right: f = <x, y>^2 on the sphere S^2, tokens spread evenly: x attends to the great circle
across it. That average is the Funk transform, which multiplies a harmonic of degree l by P_l(0), here followed by a
step of the heat equation, a_l = P_l(0) (1 - eps l (l + 1) / 2) + O(eps^2).

Source: Ruan & Zhang 2024, Theorem 6; the Funk transform's eigenvalues: Funk 1913.
"""

from __future__ import annotations

import numpy as np
from scipy.special import eval_legendre

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Where a pseudo-metric is smallest on a circle, a layer is the weighted average over that circle"
CONSTANTS = {"density": 1.0, "determinant": -0.5}  # the powers of q and of det Hess f in the weight
WRONG = {"density": 1.0, "determinant": 0.0}
PANELS = 3

_CENTRE = np.array([0.8, 0.0])
_MEAN, _PRECISION = np.array([0.3, -0.2]), np.array([[1.1, -0.6], [-0.6, 1.4]])
_ANGLES = np.arange(24) * 2 * np.pi / 24
_NARROW = 40.0  # concentration of the bumps that look at one angle
_DEGREES = (2, 4, 6)
_ALONG = np.arange(256) * 2 * np.pi / 256


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """A H on a line in the plane, A of bumps around the circle of one point; A of zonal harmonics on the sphere."""
    density = af.Density(af.Box([(-3.6, 3.6), (-1.6, 1.6)]), _log_q)
    x = np.column_stack([np.linspace(-2, 2, 25), np.zeros(25)])
    epsilons = 0.0025 * 2.0 ** np.arange(6)
    grid = (540, 240) if quick else (720, 320)
    plane = [_attend(_f, eps, density, _features, x, grid) for eps in track(epsilons, progress, len(epsilons))]
    bumps = _attend(_f, epsilons[0], density, _bumps, np.zeros((1, 2)), grid)

    pole, tokens = np.array([[0.0, 0.0, 1.0]]), af.Uniform(af.Sphere(2))
    sphere = [_attend(_across, eps / 4, tokens, _harmonics, pole, (192, 32)) for eps in epsilons]
    return {
        "x": x, "epsilon": epsilons, "plane": np.array(plane)[..., 0],
        "bumps": bumps[0], "sphere": np.array(sphere)[:, 0],
    }  # fmt: skip


def _f(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u = y - x
    return (np.sum(u**2, axis=-1) - 1) ** 2 * _steepness(u)


def _steepness(u: np.ndarray) -> np.ndarray:
    return 0.5 + np.sum((u - _CENTRE) ** 2, axis=-1)


def _across(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum(x * y, axis=-1) ** 2


def _log_q(y: np.ndarray) -> np.ndarray:
    return -0.5 * np.einsum("...i,ij,...j->...", y - _MEAN, _PRECISION, y - _MEAN)


def _features(y: np.ndarray) -> np.ndarray:
    return np.sin(1.5 * y[..., 0]) + 0.5 * y[..., 1]


def _bumps(y: np.ndarray, angles: np.ndarray = _ANGLES) -> np.ndarray:
    """For each angle, a narrow bump of the direction of y, with mean 1 over the circle."""
    away = np.arctan2(y[..., 1], y[..., 0])[..., None] - angles
    return np.exp(_NARROW * (np.cos(away) - 1)) / np.mean(np.exp(_NARROW * (np.cos(_ALONG) - 1)))


def _harmonics(y: np.ndarray) -> np.ndarray:
    return np.stack([eval_legendre(degree, y[..., 2]) for degree in _DEGREES], axis=-1)


def _attend(f, epsilon, density, features, points, grid) -> np.ndarray:
    nodes = density.grid(grid)
    H = features(nodes.points)
    log_mass = density.log_pdf(nodes.points) + np.log(nodes.weights)
    # few queries: the plain definition takes less time than compiling this f
    layer = af.Attention(af.PseudoMetric(f, points.shape[1]), epsilon, backend="reference")
    return layer.bind(nodes.points, log_mass).attend(H.reshape(len(H), -1), points).mean


def _average(features, x: np.ndarray, density: float, determinant: float) -> np.ndarray:
    """The predicted average of the features over the unit circles around points x (M, 2)."""
    u = np.column_stack([np.cos(_ALONG), np.sin(_ALONG)])
    y = x[:, None] + u
    weight = np.exp(density * _log_q(y)) * (8 * _steepness(u)) ** determinant
    return np.einsum("ma,ma...->m...", weight / weight.sum(axis=1, keepdims=True), features(y))


def check(data, constants) -> list[Check]:
    """The limit of eps = 0 and the order of what is left; weight by angle; eigenvalues of the Funk transform."""
    eps, zeroth = data["epsilon"], _average(_features, data["x"], **constants)
    at_zero = np.polyfit(eps, data["plane"], 5)[-1]
    order = np.polyfit(np.log(eps[:3]), np.log(_rms(data["plane"] - zeroth)[:3]), 1)[0]
    weight = _average(_bumps, np.zeros((1, 2)), **constants)[0]
    off = np.abs(data["bumps"] - weight).max() / weight.max()
    checks = [
        Check("plane, ε → 0: A H less the average, rms over its own", 0.0, _rms(at_zero - zeroth) / _rms(zeroth), 1e-3),
        Check("plane: order in ε of what the average leaves", 1.0, order, 0.05),
        Check("plane: weight by angle at ε = 0.0025, off by (over its largest)", 0.0, off, 0.01),
    ]
    for degree, measured in zip(_DEGREES, data["sphere"].T):
        slope, value = np.polyfit(eps / 4, measured, 5)[-2:]
        funk, step = _funk(degree)
        checks.append(Check.relative(f"sphere: eigenvalue of degree {degree}, ε → 0", funk, value, 0.01))
        checks.append(Check.relative(f"sphere: slope in ε of degree {degree}", step, slope, 0.01))
    return checks


def _rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=-1))


def _funk(degree: int) -> tuple[float, float]:
    """P_l(0), and the slope in eps there."""
    value = eval_legendre(degree, 0.0)
    return value, -value * degree * (degree + 1) / 2


def draw(figure, data, constants) -> None:
    """Weight by angle; A H along the line; eigenvalues on the sphere."""
    left, middle, right = figure.subplots(1, 3)
    turn, here = np.linspace(0, 2 * np.pi, 121), np.zeros((1, 2))
    weight = _average(lambda y: _bumps(y, turn), here, **constants)[0]
    plain = _average(lambda y: _bumps(y, turn), here, constants["density"], 0.0)[0]
    left.plot(turn, plain, color="0.6", linestyle=":", label="q alone")
    left.plot(turn, weight, color=style.INK, label="q det(Hess f)$^{-1/2}$")
    left.plot(_ANGLES, data["bumps"], "o", color=style.ACCENT, label=f"attention, ε = {data['epsilon'][0]:g}")
    left.set_xticks(np.arange(5) * np.pi / 2, ["0", "π/2", "π", "3π/2", "2π"])
    style.finish(left, "", "direction of y − x (angle)", "weight (1 = even)")
    left.legend(loc="upper center", frameon=False)

    line = np.column_stack([np.linspace(-2, 2, 101), np.zeros(101)])
    middle.plot(line[:, 0], _features(line), color="0.6", linestyle=":", label="H(x)")
    middle.plot(line[:, 0], _average(_features, line, **constants), color=style.INK, label="weighted average, ε → 0")
    for k, colour, marker in zip((0, 3, 5), style.shades(3), style.MARKERS):
        eps = data["epsilon"][k]
        middle.plot(data["x"][:, 0], data["plane"][k], marker, color=colour, markersize=3, label=f"A H, ε = {eps:g}")
    style.finish(middle, "", "place x₀ in the plane (length)", "feature after one layer (unit of H)")
    middle.legend(frameon=False)

    eps = data["epsilon"] / 4
    for degree, measured, colour, marker in zip(_DEGREES, data["sphere"].T, style.shades(3), style.MARKERS):
        funk, step = _funk(degree)
        right.plot(np.r_[0, eps], funk + step * np.r_[0, eps], color=colour)
        right.plot(eps, measured, marker, color=colour, label=f"degree {degree}")
    style.finish(right, "", "temperature ε (unit of f)", "eigenvalue of the layer (pure number)")
    right.legend(title="lines: P$_l$(0) (1 − ε l(l + 1)/2)", loc="upper right", frameon=False)
    right.set_ylim(top=0.95)
