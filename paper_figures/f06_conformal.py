"""Theorem 4: drift-diffusion is heat flow in a conformal metric with a heat capacity, in every dimension but two.

With w = p^a, a = 4 / (n - 2), and the metric gbar = w g, the generator of softmax layers is

    L H = Delta_g H + 2 <grad log p, grad H>_g = w Delta_gbar H,     heat capacity 1 / w.

Any exponent a gives w Delta_gbar H = Delta_g H + a (n - 2) / 2 <grad log p, grad H>, so that a drift of factor
2 - a (n - 2) / 2 is left: none at one exponent for n = 1 and n = 3, all of it for n = 2, whatever a is. Left: that
factor, measured with (A H - H) / tau of infinite-token layers on flat tori, extrapolated to eps = 0, and with the
Laplacian of gbar by its definition. Right: a circle with two clusters as a rod of length int sqrt(w) dx; where
tokens are rare it has hardly any capacity, and the temperature becomes a straight line between the clusters.

Source: Ruan & Zhang 2024, Theorem 4; dimension two excluded by the derivation in `attnflow.theory.conformal_form`.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Attention is heat flow with a heat capacity, in every dimension but two"
CONSTANTS = {"drift": 2.0}  # a = 2 drift / (n - 2)
WRONG = {"drift": 1.0}
PANELS = 2

_EXPONENTS = np.arange(-8.0, 9.0, 2.0)
_NODES = {1: 512, 2: 128, 3: 52}
_MODES = {1: 64, 2: 48, 3: 32}  # of the Laplacians, by Fourier
_ROD = 128
_TIMES = (0.0, 0.05, 0.4, 2.0)


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """The drift that each exponent leaves, for n = 1, 2, 3; features on a circle with two clusters."""
    data = {"exponent": _EXPONENTS, "left": np.array([_drift_left(n, quick) for n in track((1, 2, 3), progress, 3)])}
    data["solvers"] = np.array([_disagreement(n, quick) for n in (1, 3)])

    density, f = af.Density(af.Circle(), _log_clusters), af.SquaredDistance(af.Circle())
    grid = 2 * _ROD
    runs = []
    for step in (0.005, 0.0025):  # layers of half the time step, to extrapolate what is linear in it
        layers = [round(t / step) for t in _TIMES]
        layer = af.Attention(f, 2 * step, backend="reference")
        run = af.propagate(layer, density, _start, layers[-1], grid=grid)
        runs.append(run.y[layers, :: grid // _ROD, 0])
    return data | {"rod": 2 * runs[1] - runs[0]}


def _log_p(x: np.ndarray) -> np.ndarray:
    n = x.shape[-1]
    return 0.6 * np.cos(x).sum(-1) + 0.3 * np.sin(x[..., 0] + x[..., -1]) / n


def _features(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) + np.cos(x[..., -1] + 0.5)


def _log_clusters(x: np.ndarray) -> np.ndarray:
    return -0.6 * np.cos(2 * x[..., 0])


def _start(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) ** 3


def _drift_left(n: int, quick: bool) -> np.ndarray:
    """For each exponent, (A H - H) / tau - w Delta_gbar H in multiples of <grad log p, grad H>, by least squares."""
    torus, m = af.Torus([2 * np.pi] * n), _MODES[n]
    density, axes = af.Density(torus, _log_p), np.arange(m) * 2 * np.pi / m
    x = np.stack(np.meshgrid(*[axes] * n, indexing="ij"), axis=-1)
    rows = np.random.default_rng(0).choice(m**n, 20 if quick else 60, replace=False)
    queries, H, log_p = x.reshape(-1, n)[rows], _features(x), _log_p(x)
    rates, epsilons = [], np.array([1.0, 1.3, 1.7, 2.2]) * 4 * (2 * np.pi / _NODES[n]) ** 2
    for epsilon in epsilons:
        layer = af.Attention(af.SquaredDistance(torus), epsilon, backend="reference")  # few queries: the definition
        bound, nodes = bind_density(layer, density, _NODES[n], largest=2**18)
        mean = bound.attend(_features(nodes.points)[:, None], queries).mean[:, 0]
        rates.append((mean - H.ravel()[rows]) / bound.layer.time_step)
    rate = np.polyfit(epsilons, np.array(rates), 3)[-1]  # at eps = 0
    along = sum(_derivative(log_p, k) * _derivative(H, k) for k in range(n)).ravel()[rows]
    return np.array([(rate - _laplacian(H, log_p, a).ravel()[rows]) @ along / (along @ along) for a in _EXPONENTS])


def _laplacian(H: np.ndarray, log_p: np.ndarray, exponent: float) -> np.ndarray:
    """w Delta_gbar H = w det^(-1/2) d_i (det^(1/2) gbar^ij d_j H) with gbar = w I, w = p^exponent, by Fourier."""
    n, w = H.ndim, np.exp(exponent * log_p)
    root_det = w ** (n / 2)
    return w / root_det * sum(_derivative(root_det / w * _derivative(H, k), k) for k in range(n))


def _derivative(values: np.ndarray, axis: int) -> np.ndarray:
    m = values.shape[axis]
    waves = 1j * np.fft.fftfreq(m, 1 / m)
    waves[m // 2] = 0
    shape = [-1 if k == axis else 1 for k in range(values.ndim)]
    return np.fft.ifft(waves.reshape(shape) * np.fft.fft(values, axis=axis), axis=axis).real


def _disagreement(n: int, quick: bool) -> float:
    """Largest difference between the two forms of the equation, each discretised by itself, at t = 0.3."""
    density = af.Density(af.Torus([2 * np.pi] * n), _log_p)
    x = np.random.default_rng(1).uniform(0, 2 * np.pi, (50, n))
    heat, drift = af.ConformalHeat(density), af.DriftDiffusion(density)
    return np.abs(np.subtract(*(form.solve(_features, 0.3, rtol=1e-6).at(x) for form in (heat, drift)))).max()


def _rod(drift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length s, heat capacity C and temperature of C dH/dt = d^2 H / ds^2 at the times, w = p^(2 drift / (1 - 2))."""
    x = np.arange(_ROD) * 2 * np.pi / _ROD
    w = np.exp(-2 * drift * _log_clusters(x[:, None]))
    D = np.stack([_derivative(row, 0) for row in np.eye(_ROD)], axis=1)
    along = D / np.sqrt(w)[:, None]  # d/ds, ds = sqrt(w) dx
    generator = w[:, None] * (along @ along)
    H = np.array([expm(t * generator) @ _start(x[:, None]) for t in _TIMES])
    length = np.cumsum(np.sqrt(w)) * 2 * np.pi / _ROD
    return length - length[0], 1 / w, H


def check(data, constants) -> list[Check]:
    """The exponent that leaves nothing, for n = 1 and 3; that none does for n = 2; temperatures along the rod."""
    checks, a = [], data["exponent"]
    for n in (1, 3):
        slope, intercept = np.polyfit(a, data["left"][n - 1], 1)
        predicted = 2 * constants["drift"] / (n - 2)
        claim = f"n = {n}: the exponent of p in the heat form"
        checks.append(Check.relative(claim, predicted, -intercept / slope, 0.01))
    least = np.abs(data["left"][1]).min()
    checks.append(Check.relative("n = 2: the least drift left by any exponent", constants["drift"], least, 0.01))
    for n, difference in zip((1, 3), data["solvers"]):
        # each is solved to 1e-6
        checks.append(Check(f"n = {n}: heat form against drift form, largest difference", 0.0, difference, 2e-6))
    _, _, H = _rod(constants["drift"])  # the extrapolated layers are off by tau^2 = 6e-6 times fourth derivatives
    off = np.abs(data["rod"] - H).max()
    return [*checks, Check("layers against the rod's temperature, largest difference", 0.0, off, 2e-4)]


def draw(figure, data, constants) -> None:
    """The drift left over the exponent; temperature along the rod over its heat capacity."""
    left, right = figure.subplots(1, 2)
    a = np.linspace(-9, 9, 181)
    for n, factors, colour, marker in zip((1, 2, 3), data["left"], style.shades(3), style.MARKERS):
        left.plot(a, np.abs(constants["drift"] - a * (n - 2) / 2), color=colour)
        left.plot(data["exponent"], np.abs(factors), marker, color=colour, label=f"n = {n}")
    style.finish(left, "", "exponent a of the metric p$^a$g", "drift left, in ⟨∇log p, ∇H⟩ (pure number)")
    left.legend(title="lines: |2 − a(n − 2)/2|", frameon=False)

    length, capacity, H = _rod(constants["drift"])
    heat = np.vstack([capacity, capacity]) / capacity.max()
    shading = right.pcolormesh(length, [-1.1, 1.1], heat, cmap="Greys", vmax=1.6, shading="nearest", rasterized=True)
    bar = dict(ticks=[0, 0.5, 1], boundaries=np.linspace(0, 1, 65))
    figure.colorbar(shading, ax=right, label="heat capacity 1/w, relative", **bar)
    shown = np.searchsorted(length, np.linspace(0, length[-1], 24))
    for t, line, points, colour, marker in zip(_TIMES, H, data["rod"], style.shades(4), style.MARKERS):
        right.plot(length, line, color=colour)
        right.plot(length[shown], points[shown], marker, color=colour, label=f"t = {t:g}", markersize=3)
    right.set_ylim(-1.1, 1.1)
    style.finish(right, "", "place along the rod, ∫√w dx (length)", "temperature H")
    right.legend(loc="lower center", bbox_to_anchor=(0.4, 0), frameon=False)
