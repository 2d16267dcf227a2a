"""On the uniform sphere a layer knows every harmonic: what it keeps of degree k is a ratio of Bessel functions.

For infinitely many uniform tokens on S^(d-1) with similarity exp(beta <x, y>), harmonics of degree k are multiplied by

    a_k = I_nu(beta) / I_nu0(beta) = exp(-lambda tau'),   nu0 = d/2 - 1,  nu = k + nu0,  lambda = k (k + d - 2),

the Funk-Hecke formula. With tau = 1 / (2 beta) from |x - y|^2 = 2 - 2 <x, y>, Hankel's expansion of log I_nu gives

    tau' = 1 / (2 beta) + 1 / (4 beta^2) + (13 - 2 nu^2 - 2 nu0^2) / (48 beta^3) + O(beta^-4),

so that tau alone is off by beta^-2, the same for every harmonic, and tau + tau^2 (chordal distance) by beta^-3.

Source: Rigollet 2025 (attention on the sphere); the time step to third order derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.special import eval_gegenbauer, ive

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "On the sphere, a layer's time step 1/(2β) is off by β⁻²; with the correction 1/(4β²), by β⁻³"
CONSTANTS = {"first": 0.5, "second": 0.25}
WRONG = {"first": 0.5, "second": 0.125}
PANELS = 2

_CASES = ((2, 1), (2, 3), (3, 1), (3, 3))  # d, k of the right panel


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """What one layer leaves of the zonal harmonics, at their pole: kept (2, betas, k) for d = 2 and 3."""
    beta, degree = np.geomspace(5, 640, 8)[1 if quick else 0 :: 2 if quick else 1], np.arange(1, 11)
    kept = np.empty((2, len(beta), len(degree)))
    for i, j in track(list(np.ndindex(kept.shape[:2])), progress):
        d = i + 2
        pole = np.eye(d)[-1:]
        layer = af.Attention(af.DotProduct(), 1 / (2 * beta[j]))
        bound, nodes = bind_density(layer, af.Uniform(af.Sphere(d - 1)), resolution=3.0, largest=2**18)
        kept[i, j] = bound.attend(_zonal(d, degree, nodes.points[:, -1]), pole).mean[0]
    return {"beta": beta, "degree": degree, "kept": kept}


def _zonal(d: int, degree: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Harmonics of <x, pole>, 1 at the pole: Chebyshev on S^1, Legendre on S^2, (points, degrees)."""
    if d == 2:
        return np.cos(degree * np.arccos(np.clip(height, -1, 1))[:, None])
    return eval_gegenbauer(degree, 0.5, height[:, None])


def _kept(d: int, k: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return ive(k + d / 2 - 1, beta) / ive(d / 2 - 1, beta)


def _third(d: int, k: int) -> float:
    return (13 - 2 * (k + d / 2 - 1) ** 2 - 2 * (d / 2 - 1) ** 2) / 48


def _gaps(data, constants, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """tau' as measured, minus 1 / (2 beta), and minus 1 / (4 beta^2) too."""
    beta = data["beta"]
    time = -np.log(data["kept"][d - 2, :, k - 1]) / (k * (k + d - 2))
    raw = time - constants["first"] / beta
    return raw, raw - constants["second"] / beta**2


def check(data, constants) -> list[Check]:
    """The harmonics themselves, and orders and constants of both time steps (intercepts of a parabola in 1 / beta)."""
    beta, checks = data["beta"], []
    for i, d in enumerate((2, 3)):
        off = np.abs(data["kept"][i] - _kept(d, data["degree"], beta[:, None])).max()
        checks.append(Check(f"S^{d - 1}: largest |a_k - Bessel ratio|, k to 10", 0.0, off, 1e-10))
    for d, k in _CASES:
        raw, corrected = _gaps(data, constants, d, k)
        for name, gap, order, constant in (
            ("1/(2β)", raw, 2, constants["second"]),
            ("1/(2β) + 1/(4β²)", corrected, 3, _third(d, k)),
        ):
            slope = -np.polyfit(np.log(beta[-2:]), np.log(np.abs(gap[-2:])), 1)[0]
            checks.append(Check(f"S^{d - 1}, k = {k}: order in 1/β of what {name} leaves", order, slope, 0.03))
            intercept = np.polyfit(1 / beta[-3:], (gap * beta**order)[-3:], 2)[-1]
            checks.append(Check.relative(f"S^{d - 1}, k = {k}: its constant", constant, intercept, 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """Left: a_k over k, with both time steps. Right: what they leave."""
    left, right = figure.subplots(1, 2)
    beta, shades = data["beta"], style.shades(4)
    k = np.linspace(0, 10.5, 200)
    time = lambda b, second: constants["first"] / b + second / b**2  # noqa: E731
    for j, colour, marker in zip((0, len(beta) // 4, len(beta) // 2), shades[1:], style.MARKERS):
        left.plot(k, _kept(3, k, beta[j]), color=colour)
        left.plot(k, np.exp(-k * (k + 1) * time(beta[j], 0.0)), ":", color=colour)
        left.plot(data["degree"], data["kept"][1, j], marker, color=colour, label=f"β = {beta[j]:.0f}")
    left.plot([], [], color=style.INK, label="Bessel ratio")
    left.plot([], [], ":", color=style.INK, label="exp(−λ/(2β))")
    style.finish(left, "", "degree k of the harmonic, on S²", "factor $a_k$ per layer")
    left.legend(frameon=False)
    b = np.geomspace(beta[0], beta[-1], 100)
    right.plot(b, constants["second"] / b**2, color=style.INK)
    right.plot([], [], "o", color=style.INK, fillstyle="none", label="time step 1/(2β)")
    right.plot([], [], "o", color=style.INK, label="1/(2β) + 1/(4β²):")
    for (d, k), colour, marker in zip(_CASES, shades, style.MARKERS):
        raw, corrected = _gaps(data, constants, d, k)
        exact = -np.log(_kept(d, k, b)) / (k * (k + d - 2)) - time(b, constants["second"])
        right.plot(b, np.abs(exact), color=colour)
        right.plot(beta, np.abs(raw), marker, color=style.INK, fillstyle="none")
        right.plot(beta, np.abs(corrected), marker, color=colour, label=f"S{'¹²'[d - 2]}, k = {k}")
    right.set(xscale="log", yscale="log")
    style.plain_ticks(right.xaxis, beta)
    style.finish(right, "", "inverse temperature β", "|τ′ − time step|  (length²)")
    right.legend(frameon=False, loc="lower left")
