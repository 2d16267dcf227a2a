"""Whatever function h of the distance compares tokens, a layer is a time step of half its second moment.

For exp(-h(d) / (2 eps)), e = 2 eps, on an n-dimensional space, with m2 and m4 the second and fourth moments per
coordinate of the similarity,

    A H - H = (m2 / 2) (L H + E H) + O(m2^3),    L H = Delta H + 2 grad log p . grad H,
    E H = m4 / (12 m2) [Delta^2(p H) - H Delta^2 p] / p - (m2 / 2) (Delta p / p) L H,

    d^q:           m2 = e^(2/q) Gamma((n+2)/q) / (n Gamma(n/q)),   m4 = 3 e^(4/q) Gamma((n+4)/q) / (n (n+2) Gamma(n/q)),
    log(1 + d^2):  m2 = e / (2 - (n+2) e),                         m4 = 3 e m2 / (2 - (n+4) e).

(a) Two-dimensional torus, p proportional to exp(cos x + 0.7 cos y + 0.5 cos(x - y)), H = sin x cos y + cos(2x - y), at
one point. (b) Circle, p proportional to exp(cos x), H = cos x + sin 2x at one point, layer by layer.

Source: Ruan & Zhang 2024, Theorem 3 and section 2; Coifman & Lafon 2006 (the moments); E derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import gamma

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Any function h of the distance: layers × m₂/2 is the time, and all features fall on one curve"
CONSTANTS = {"dim": np.array([2.0, 1.0]), "drift": 2.0}  # n in the moments of (a) and (b)
WRONG = {"dim": np.array([1.0, 1.0]), "drift": 2.0}
PANELS = 2

POWERS = (1.0, 1.5, 2.0, 4.0, np.nan)  # NaN: log(1 + d^2)
NAMES = ("d", "d^1.5", "d^2", "d^4", "log(1 + d^2)")
_MODES, _PLACE = 64, (11, 23)  # (a) is at this node of 64 x 64
_X, _T = 0.9, 0.5  # (b)


def _torus_density(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0]) + 0.7 * np.cos(x[..., 1]) + 0.5 * np.cos(x[..., 0] - x[..., 1])


def _on_torus(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) * np.cos(x[..., 1]) + np.cos(2 * x[..., 0] - x[..., 1])


def _on_circle(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0]) + np.sin(2 * x[..., 0])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """A H - H at a point of the torus over e; features at a point of the circle over layers, for each h."""
    torus, circle = af.Torus([2 * np.pi, 2 * np.pi]), af.Circle()
    on_torus, on_circle = af.Density(torus, _torus_density), af.VonMises(1.0)
    widths = np.geomspace(0.008, 0.06, 6)
    finer = 0.01 * 2.0 ** np.arange(3)  # second moments in (b): the last ones are compared, the rest are drawn
    drawn = np.array([0.060, 0.052, 0.044, 0.036, 0.028])
    e, change = np.empty((len(POWERS), len(widths))), np.empty((len(POWERS), len(widths)))
    e_circle = np.empty((len(POWERS), len(finer) + 1))
    layers = np.empty_like(e_circle, dtype=int)
    features = np.full((len(POWERS), len(finer) + 1, 201), np.nan)
    for i in track(range(len(POWERS)), progress, len(POWERS)):
        side = (1 if quick else 2) * (1024 if POWERS[i] == 1 else 512)  # d has a kink at 0
        f = _similarity(torus, POWERS[i])
        there = 2 * np.pi * np.array([_PLACE]) / _MODES
        for j, m2 in enumerate(widths):
            e[i, j] = _temperature(f, m2)
            layer = af.Attention(f, e[i, j] / 2, backend="numba")
            bound, nodes = bind_density(layer, on_torus, grid=side)
            change[i, j] = (bound.attend(_on_torus(nodes.points)[:, None], there).mean - _on_torus(there))[0, 0]
        f, there = _similarity(circle, POWERS[i]), np.array([[_X]])
        for j, m2 in enumerate([*finer, drawn[i]]):
            e_circle[i, j] = _temperature(f, m2)
            layer = af.Attention(f, e_circle[i, j] / 2, backend="numba")
            bound, nodes = bind_density(layer, on_circle, grid=side)
            H, layers[i, j] = _on_circle(nodes.points)[:, None], round(_T / layer.time_step)
            features[i, j, 0] = _on_circle(there)[0]
            for k in range(1, layers[i, j] + 1):
                if k == layers[i, j] or j == len(finer):
                    features[i, j, k] = bound.attend(H, there).mean[0, 0]
                H = bound.step(H)
    return {"e": e, "change": change, "e_circle": e_circle, "layers": layers, "features": features}


def _similarity(space: af.Torus, q: float) -> af.PseudoMetric:
    return af.LogDistance(space) if np.isnan(q) else af.PowerDistance(space, q)


def _temperature(f: af.PseudoMetric, m2: float) -> float:
    """e at which the second moment is about m2; the claim is tested wherever that is."""
    return brentq(lambda e: f.second_moment(e / 2, f.dim) - m2, 1e-8, 0.3)


def _moments(q: float, e: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    if np.isnan(q):
        m2 = e / (2 - (n + 2) * e)
        return m2, 3 * e * m2 / (2 - (n + 4) * e)
    m2 = e ** (2 / q) * gamma((n + 2) / q) / (n * gamma(n / q))
    return m2, 3 * e ** (4 / q) * gamma((n + 4) / q) / (n * (n + 2) * gamma(n / q))


def _limit(drift: float) -> tuple[float, float, float]:
    """L H, [Delta^2(p H) - H Delta^2 p] / p and Delta p / p in (a), by Fourier modes."""
    side = 2 * np.pi * np.arange(_MODES) / _MODES
    x = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1)
    p, H = np.exp(_torus_density(x)), _on_torus(x)
    k = np.fft.fftfreq(_MODES, 1 / _MODES)
    squares = k[:, None] ** 2 + k**2

    def laplacian(field: np.ndarray, times: int = 1) -> np.ndarray:
        return np.fft.ifft2((-squares) ** times * np.fft.fft2(field)).real

    across = laplacian(p * H) - p * laplacian(H) - H * laplacian(p)  # 2 grad p . grad H
    fields = (
        laplacian(H) + drift / 2 * across / p,
        (laplacian(p * H, 2) - H * laplacian(p, 2)) / p,
        laplacian(p) / p,
    )
    return tuple(field[_PLACE] for field in fields)


def _equation(times: np.ndarray, drift: float) -> np.ndarray:
    """H of the limit equation at the point of (b), at any times."""
    ordered, back = np.unique(times, return_inverse=True)
    solution = af.DriftDiffusion(af.VonMises(1.0), drift).solve(_on_circle, ordered)
    return solution.at(np.array([[_X]]), ordered)[:, 0, 0][back.reshape(np.shape(times))]


def _predicted(e: np.ndarray, constants) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each h, m2 over e in (a), and k in 2 (A H - H) / L H = m2 (1 + k m2 + ...), led by its value at e = 0."""
    LH, fourth, curvature = _limit(constants["drift"])
    result = []
    for q, row in zip(POWERS, e):
        m2, m4 = _moments(q, np.concatenate([[1e-6], row]), constants["dim"][0])
        result.append((m2[1:], m4 / m2**2 / 12 * fourth / LH - curvature / 2))
    return result


def _steps(data, constants) -> np.ndarray:
    return 2 * data["change"] / _limit(constants["drift"])[0]


def check(data, constants) -> list[Check]:
    """Second moments, the next order they leave, and features at one time, extrapolated to m2 = 0."""
    checks, n_circle = [], constants["dim"][1]
    predicted, steps = _predicted(data["e"], constants), _steps(data, constants)
    for name, (m2, next_order), step in zip(NAMES, predicted, steps):
        least, slope = np.polyfit(m2, step / m2, 3)[::-1][:2]
        checks.append(Check(f"h = {name}, n = 2: measured over predicted m₂, e → 0", 1.0, least, 0.01))
        checks.append(Check.relative(f"h = {name}, n = 2: and its slope in m₂, by m₄", next_order[0], slope, 0.01))
    end = _equation(np.array([_T]), constants["drift"])[0]
    for name, q, e, layers, features in zip(NAMES, POWERS, data["e_circle"], data["layers"], data["features"]):
        tau = _moments(q, e, n_circle)[0][:-1] / 2
        last = np.array([row[count] for row, count in zip(features, layers)])[:-1]
        left = last - _equation(layers[:-1] * tau, constants["drift"])
        measured = end + np.polyfit(tau, left, 2)[-1]
        checks.append(Check.relative(f"h = {name}: feature at t = 1/2, τ → 0", end, measured, 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """What one layer does, over e; features over layers times m2 / 2, and over layers in an inset."""
    left, right = figure.subplots(1, 2)
    inset = right.inset_axes([0.6, 0.56, 0.39, 0.43])
    t = np.linspace(0, 1.04 * _T, 60)
    predicted, steps = _predicted(data["e"], constants), _steps(data, constants)
    for i, (name, q, colour, marker) in enumerate(zip(NAMES, POWERS, style.shades(len(POWERS)), style.MARKERS)):
        e, (m2, next_order) = data["e"][i], predicted[i]
        label = f"$h = {name.replace('^1.5', '^{1.5}').replace('log', chr(92) + 'log')}$"
        left.plot(e, m2 * (1 + next_order[1:] * m2), color=colour)
        left.plot(e, steps[i], marker, color=colour, label=label)
        count = np.arange(data["layers"][i, -1] + 1)
        tau = _moments(q, data["e_circle"][i, -1], constants["dim"][1])[0] / 2
        features = data["features"][i, -1][count]
        right.plot(tau * count, features, marker, color=colour, markerfacecolor="none")
        inset.plot(count, features, marker, color=colour, markersize=1.5)
    right.plot(t, _equation(t, constants["drift"]), color=style.ACCENT, label="the equation")
    left.set(xscale="log", yscale="log", xlim=(1e-4, 0.2))
    style.plain_log(left.yaxis)
    style.finish(left, "(a) torus, n = 2", "e = 2ε (unit of h)", "2 (AH − H) / LH (length²)")
    left.legend(title="lines: predicted, m₂ and m₄", frameon=False)
    style.finish(right, "(b) circle, n = 1", "t = layers × m₂/2 (length²)", "feature H at x = 0.9")
    style.finish(inset, "", "layers", "H")
    inset.tick_params(labelsize=6)
    right.legend(frameon=False, loc="lower left")
