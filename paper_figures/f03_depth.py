"""Many layers follow the equation: the error is first order in the time step, and second for Sinkhorn's plain layers.

With A the layer of infinitely many tokens, tau = eps / 2 and residual step a, layers H <- H + a (A H - H) until
t = layers * a * tau end where e^(t L) H does, L = Delta + c grad log p . grad, up to

    error / (a tau)  ->  | integral_0^t e^((t-u) L) ((2/a) B - L^2/2) e^(u L) H du |,

c = 2 for softmax and 2 (1 - alpha) with density correction, both with r = p^(c/2), V = Delta p / p and
B H = [Delta^2 (r H) - H Delta^2 r] / (4 r) - (Delta r / r) L H / 2 - (1 - c/2) grad V . grad H. For Sinkhorn, c = 1,
B = L^2 / 4: at a = 1 nothing is left in first order. There A = r^-1 e^phi e^(tau Delta) e^phi r with r = sqrt p is a
symmetric splitting of e^(tau L) whose potential phi = -tau U / 2 + tau^3 w, U = Delta r / r, keeps constants, so

    A = e^(tau L) + tau^3 r^-1 (C + 2 w) r,    C = [Delta, [U, Delta]] / 12 - [U, [U, Delta]] / 24,    2 w = -(C r) / r,

and error / tau^2 tends to the same integral over this operator. Here: the circle, p proportional to exp(1.5 cos x),
H = sin x + cos 2x, t = 1/2.

Source: Ruan & Zhang 2024, Theorem 3 (the limit); Sander et al. 2022 (Sinkhorn's drift); Strang 1968 (splitting);
the constants derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm

import attnflow as af
from attnflow.grid import Axis
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Layers solve the equation to first order in their time step, Sinkhorn's to second, as predicted"
CONSTANTS = {"time_step": 0.5, "drift": np.array([2.0, 2.0, 1.0, 1.0, 1.0])}  # tau in units of eps; c of each series
WRONG = {"time_step": 1.0, "drift": CONSTANTS["drift"]}

SERIES = (("softmax", 1.0), ("softmax", 0.5), ("α = 1/2", 1.0), ("Sinkhorn", 0.5), ("Sinkhorn", 1.0))
_RULES = {"softmax": "softmax", "α = 1/2": af.DensityCorrected(0.5), "Sinkhorn": "sinkhorn"}
_AXIS = Axis("fourier", 65, 0.0, 2 * np.pi)
_KAPPA, _T = 1.5, 0.5


def _initial(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) + np.cos(2 * x[..., 0])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Features on the circle after as many layers as t takes, for each layer and eps."""
    steps = np.array([80, 160, 320] if quick else [80, 113, 160, 226, 320, 453, 640])
    density, f = af.VonMises(_KAPPA), af.SquaredDistance(af.Circle())
    epsilons = 2 * _T / steps
    features, layers = np.empty((len(SERIES), len(steps), _AXIS.size)), np.empty((len(SERIES), len(steps)), dtype=int)
    jobs = [(i, j) for i in range(len(SERIES)) for j in range(len(steps))]
    for i, j in track(jobs, progress, len(jobs)):
        name, residual = SERIES[i]
        layer = af.Attention(f, epsilons[j], _RULES[name], residual)
        layers[i, j] = round(steps[j] / residual)
        run = af.propagate(layer, density, _initial, layers[i, j], save_every=layers[i, j])
        features[i, j] = run.at(_AXIS.nodes[:, None])[:, 0]
    return {"epsilon": epsilons, "layers": layers, "features": features}


def _compare(data, constants) -> list[tuple[int, np.ndarray, np.ndarray, float]]:
    """Per series: order, step a tau, relative error in L2, and predicted error / step^order."""
    D, initial = _AXIS.derivative(), _initial(_AXIS.nodes[:, None])
    result = []
    for (name, a), drift, layers, features in zip(SERIES, constants["drift"], data["layers"], data["features"]):
        L = D @ D - drift * _KAPPA * np.sin(_AXIS.nodes)[:, None] * D
        order, left = _left_over(name, a, drift, L, D)
        step = a * constants["time_step"] * data["epsilon"]
        # e^[[L, E], [0, L]] holds the integral of e^((t-u) L) E e^(u L) in its corner (Van Loan 1978)
        both = expm(_T * np.block([[L, left], [np.zeros_like(L), L]]))
        end = both[: len(L), : len(L)] @ initial
        size = np.linalg.norm(end)
        # layers that do not end at t are compared with the equation where they do
        ends = [end if np.isclose(t, _T) else expm(t * L) @ initial for t in layers * step]
        error = np.linalg.norm(features - ends, axis=1) / size
        result.append((order, step, error, np.linalg.norm(both[: len(L), len(L) :] @ initial) / size))
    return result


def _left_over(name: str, a: float, drift: float, L: np.ndarray, D: np.ndarray) -> tuple[int, np.ndarray]:
    """k and E in: one step is e^(step L) + step^(k+1) E."""
    laplacian, p = D @ D, np.exp(_KAPPA * np.cos(_AXIS.nodes))
    r = p ** (drift / 2)
    U = laplacian @ r / r
    if name == "Sinkhorn" and a == 1:
        once = U[:, None] * laplacian - laplacian * U  # [U, Delta]
        C = (laplacian @ once - once @ laplacian) / 12 - (U[:, None] * once - once * U) / 24
        return 2, (C - np.diag(C @ r / r)) / r[:, None] * r
    if name == "Sinkhorn":
        B = L @ L / 4
    else:
        fourth = laplacian @ laplacian
        B = (fourth * r - np.diag(fourth @ r)) / (4 * r[:, None]) - U[:, None] * L / 2
        B -= (1 - drift / 2) * (D @ (laplacian @ p / p))[:, None] * D
    return 1, 2 / a * B - L @ L / 2


def check(data, constants) -> list[Check]:
    """Order in the time step, and the constant: error / step^order, extrapolated to step 0."""
    checks = []
    for (name, a), (order, step, error, predicted) in zip(SERIES, _compare(data, constants)):
        slope = np.polyfit(np.log(step), np.log(error), 1)[0]
        constant = np.polyfit(step, error / step**order, 2)[-1]
        power = "τ²" if order == 2 else "(aτ)"
        checks.append(Check(f"{name}, a = {a:g}: order in the time step", order, slope, 0.05 if order == 2 else 0.03))
        checks.append(Check.relative(f"{name}, a = {a:g}: error/{power} as τ → 0", predicted, constant, 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """Relative error at t over the time step: predicted as lines, measured as points."""
    ax = figure.subplots()
    colours = dict(zip(_RULES, style.shades(3)))
    for (name, a), marker, (order, step, error, predicted) in zip(SERIES, style.MARKERS, _compare(data, constants)):
        ax.plot(step, predicted * step**order, color=colours[name], linestyle="-" if a == 1 else "--")
        face = colours[name] if a == 1 else "white"
        ax.plot(step, error, marker, color=colours[name], markerfacecolor=face, label=f"{name}, a = {a:g}")
    ax.set(xscale="log", yscale="log")
    style.plain_log(ax.xaxis)
    style.finish(ax, "", "time step aτ (length²)", "relative L² error at t = 1/2")
    ax.legend(title="lines: predicted", frameon=False)
