"""Tokens that are their own values run the heat equation backwards, which only a finite temperature survives.

With the Gaussian similarity of variance s, tokens of density rho move with v = A x - x = s grad log(G rho) per
layer, G the Gaussian of variance s. As s -> 0 this is d rho/dt = -s Delta rho, backward heat: it takes a Gaussian's
variance to Sigma0 - 2 s t, zero at t = Sigma0 / (2 s), and lets waves of number k grow as exp(s k^2 t) however large k
is. At finite s

    Sigma + s ln Sigma = Sigma0 + s ln Sigma0 - 2 s t,   so   Sigma = s W((Sigma0 / s) exp((Sigma0 - 2 s t) / s)),

W Lambert's function: positive for all times, following the formal limit until Sigma is about s. And waves on uniform
tokens grow at s k^2 exp(-s k^2 / 2): fastest, at 2 / e per layer whatever s is, where k = sqrt(2 / s). Clusters start
there, 4.4 sqrt(s) apart. Two numbers decide: the speed 1 of s grad log (1/2 for Sinkhorn) and the 1/2 of s k^2 / 2.

Source: Sander et al. 2022 (the formal limit); the Gaussian's flow and the growth rates derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.special import lambertw
from scipy.stats import norm

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Moving tokens: a finite temperature cures backward heat, and chooses where clusters start"
CONSTANTS = {"speed": 1.0, "smoothing": 0.5}
WRONG = {"speed": 0.5, "smoothing": 0.5}  # the speed of Sinkhorn layers
PANELS = 2

_WINDOW, _MARGIN = 40.0, 30.0  # in sqrt(s): waves are read where the ends of the tokens are not felt


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Variance (s, t) of tokens at a Gaussian's quantiles; growth rates of twelve waves on a row of tokens."""
    s = np.array([0.1, 0.2, 0.4])
    share = np.linspace(0, 1.2, 13)  # of the time at which the formal variance is zero
    count = 1000 if quick else 2000
    tokens = norm.ppf((np.arange(count) + 0.5) / count)[:, None]
    tokens /= tokens.std()
    variance = np.empty((len(s), len(share)))
    for row, epsilon in zip(variance, track(s, progress, len(s))):
        flow = af.evolve_continuous(_layer(epsilon), tokens, share / (2 * epsilon), rtol=1e-6)
        row[:] = flow.y.var(axis=1)[:, 0]
    return {"s": s, "share": share, "variance": variance, **_waves(0.1 if quick else 0.05)}


def _layer(s: float) -> af.Attention:
    return af.Attention(af.SquaredDistance(af.Euclidean(1)), s)


def _waves(spacing: float) -> dict[str, np.ndarray]:
    """All waves at once, small: half the difference of two flows with opposite displacements is linear in them."""
    number = 2 * np.pi / _WINDOW * np.array([2, 4, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18])
    row = np.arange(-_MARGIN, _WINDOW + _MARGIN, spacing)
    displaced = 1e-4 * np.sin(np.outer(row, number) + np.arange(len(number))).sum(axis=1)
    there, back = (
        af.evolve_continuous(_layer(1.0), (row + sign * displaced)[:, None], [0.0, 2.0], atol=1e-12).y[..., 0]
        for sign in (1, -1)
    )
    inside = (row > -1e-9) & (row < _WINDOW - 1e-9)
    amplitude = np.abs((there - back)[:, inside] @ np.exp(-1j * np.outer(row[inside], number)))
    return {"number": number, "growth": np.log(amplitude[1] / amplitude[0]) / 2}


def _variance(s, t, constants):
    """Sigma' = -2 speed s Sigma / (Sigma + b), b = 2 smoothing s, from Sigma = 1."""
    b = 2 * constants["smoothing"] * s
    return b * lambertw(np.exp((1 - 2 * constants["speed"] * s * t) / b) / b).real


def _growth(k, constants):
    return constants["speed"] * k**2 * np.exp(-constants["smoothing"] * k**2)


def check(data, constants) -> list[Check]:
    """What is left where the formal limit ends, layers to a variance of 0.3, every wave's rate, the fastest wave."""
    checks, s, k = [], data["s"], data["number"]
    for variance, eps in zip(data["variance"], s):
        t = data["share"] / (2 * eps)
        end = np.argmin(np.abs(data["share"] - 1))
        predicted, claim = _variance(eps, t[end], constants), f"s = {eps:g}: variance where backward heat has none left"
        checks.append(Check.relative(claim, predicted, variance[end], 0.01))
        lasted = np.interp(-np.log(0.3), -np.log(variance), t)
        dense = np.linspace(0, 2 * t[-1], 20000)
        predicted = np.interp(-np.log(0.3), -np.log(_variance(eps, dense, constants)), dense)
        checks.append(Check.relative(f"s = {eps:g}: layers until the variance is 0.3", predicted, lasted, 0.01))
    off = np.abs(data["growth"] / _growth(k, constants) - 1).max()
    checks.append(Check("waves: largest relative error of the growth rates", 0.0, off, 1e-3))
    near = np.abs(k - np.sqrt(2)) < 0.5
    parabola = np.polyfit(np.log(k[near]), data["growth"][near], 4)
    turning = np.roots(np.polyder(parabola))
    fastest = turning[np.argmin(np.abs(turning - np.log(np.sqrt(2))))].real
    number = constants["smoothing"] ** -0.5
    checks.append(Check.relative("√s × number of the fastest wave", number, np.exp(fastest), 0.01))
    highest = constants["speed"] / constants["smoothing"] / np.e
    checks.append(Check.relative("its growth rate per layer", highest, np.polyval(parabola, fastest), 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """Left: the variance over time, in units of the formal end. Right: growth rate over wave number."""
    left, right = figure.subplots(1, 2)
    share = np.linspace(0, data["share"][-1], 200)
    formal = {"color": style.ACCENT, "linestyle": "--", "label": "formal limit s → 0"}
    left.plot(share, np.where(share <= 1, 1 - constants["speed"] * share, np.nan), **formal)
    for eps, variance, colour, marker in zip(data["s"], data["variance"], style.shades(3), style.MARKERS):
        left.plot(share, _variance(eps, share / (2 * eps), constants), color=colour)
        left.plot(data["share"], variance, marker, color=colour, label=f"s = {eps:g} Σ₀")
    style.finish(left, "", "time t, in Σ₀/(2s) layers", "variance of the tokens, Σ/Σ₀")
    left.legend(frameon=False)
    k = np.linspace(0, 3.1, 200)
    right.plot(k, constants["speed"] * k**2, **formal)
    right.plot(k, _growth(k, constants), color=style.INK, label="s k² exp(−s k²/2)")
    right.plot(data["number"], data["growth"], "o", color=style.INK, label="tokens in a row")
    right.axvline(constants["smoothing"] ** -0.5, color="0.6", linewidth=0.8)
    beside = {"xytext": (4, 0), "textcoords": "offset points", "fontsize": 6.5}
    right.annotate("clusters start\n4.4 √s apart", (constants["smoothing"] ** -0.5, 0.12), **beside)
    right.set(ylim=(0, 1.4))
    style.finish(right, "", "wave number k √s", "growth rate per layer")
    right.legend(frameon=False, loc="upper right")
