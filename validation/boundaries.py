"""At walls attention converges to the no-flux problem only as sqrt(eps), Sinkhorn attention faster.

A layer at a wall averages over half a Gaussian: one layer is off by sqrt(s) (phi(u) / Phi(u)) dH/dnu, u = distance /
sqrt(s), s = eps for f = d^2, and over many layers the eigenvalues of softmax attention shift by the factor

    1 + sqrt(s / (2 pi)) (integral over the walls of p^2 phi_k^2) / (integral of p^2 phi_k^2).
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style

from . import Claim, Report

STEPS = (0.01, 0.005, 0.0025, 0.00125)  # tau of one layer, eps = 2 tau
HORIZON = 0.5
# relative L2 errors known beforehand, to the digits given
KNOWN = {
    "softmax": (0.0875, 0.0619, 0.0437, 0.0308),
    "alpha = 1": (0.0940, 0.0706, 0.0518, 0.0375),
    "sinkhorn": (0.00135, 0.00056, 0.00023, 0.000095),
}
NORMALIZATIONS = {"softmax": "softmax", "alpha = 1": af.DensityCorrected(1.0), "sinkhorn": "sinkhorn"}
SHIFT = 0.03  # of eigenvalues, as eps -> 0
SLOPES = {"softmax": (0.5, 0.05), "sinkhorn": (1.3, 0.1)}
MODES = (1, 2, 3)
_BOX = af.Box([(0.0, np.pi)])


def run(steps: tuple[float, ...] = STEPS) -> Report:
    """Relative L2 errors of infinitely many tokens at t = 0.5, their slopes in eps, and softmax's eigenvalues."""
    rows, claims, errors = [], [], {}
    for name in NORMALIZATIONS:
        errors[name] = np.array([wall_error(name, tau) for tau in steps])
        for tau, error, known in zip(steps, errors[name], KNOWN[name]):
            rows.append([name, f"{tau:g}", f"{2 * tau:g}", f"{error:.6f}", f"{known:g}", ""])
        digits = [10.0 ** np.floor(np.log10(known) - (1 if name == "sinkhorn" else 2)) for known in KNOWN[name]]
        gap = max(abs(e - k) / d for e, k, d in zip(errors[name], KNOWN[name], digits))
        claims.append(
            Claim(f"{name}: errors less the known ones", f"{gap:.2f}", "at most 0.5 of their last digit", bool(gap <= 0.5))
        )
        if name in SLOPES:
            order, allowed = SLOPES[name]
            found = _slope(steps, errors[name])
            held = bool(abs(found - order) <= allowed)
            claims.append(Claim(f"{name}: order in eps", f"{found:.3f}", f"{order:g} +- {allowed:g}", held))
    shifts = np.array([eigenvalue_shifts(tau) for tau in steps])
    for tau, shift in zip(steps, shifts):
        for k, ratio in zip(MODES, shift):
            rows.append([f"softmax, eigenvalue {k}", f"{tau:g}", f"{2 * tau:g}", "", "", f"{ratio:.4f}"])
    # the next term is of order s = eps, sqrt(eps) relative to this one
    limits = np.polynomial.polynomial.polyfit(np.sqrt(steps), shifts, 2)[0] if len(steps) > 2 else shifts[-1]
    for k, ratio in zip(MODES, limits):
        held = bool(abs(ratio - 1) < SHIFT)
        claims.append(
            Claim(f"softmax, eigenvalue {k}: shift over prediction as eps -> 0", f"{ratio:.3f}", f"1 +- {SHIFT:g}", held)
        )
    text = (
        "Uniform tokens on [0, pi], f = d^2, infinitely many; H0 = cos x + cos 2x; relative L2 error at\n"
        f"t = {HORIZON:g} against the no-flux solution. Shift: eigenvalue of the layers / eigenvalue of the\n"
        "equation - 1, over 4 sqrt(eps / (2 pi)) / pi."
    )
    columns = ["layers", "tau", "eps", "error", "known", "shift / predicted"]
    title = "Walls: softmax attention meets the no-flux problem as sqrt(eps) only"
    return Report(title, text, columns, rows, claims, lambda ax: _draw(ax, steps, errors))


def wall_error(name: str, tau: float) -> float:
    """Relative L2 error of round(t / tau) layers of infinitely many tokens."""
    layer = af.Attention(af.SquaredDistance(_BOX), 2 * tau, NORMALIZATIONS[name])
    layers = round(HORIZON / layer.time_step)
    run = af.propagate(layer, af.Uniform(_BOX), lambda x: _modes(x, 0.0), layers, save_every=layers)
    exact = _modes(run.grid.points, layers * layer.time_step)
    gap = run.y[-1, :, 0] - exact
    return float(np.sqrt(run.grid.weights @ gap**2 / (run.grid.weights @ exact**2)))


def eigenvalue_shifts(tau: float) -> list[float]:
    """Of the modes cos k x, from the softmax layer as a matrix on its quadrature nodes, over the prediction."""
    layer = af.Attention(af.SquaredDistance(_BOX), 2 * tau)
    bound, nodes = bind_density(layer, af.Uniform(_BOX))
    matrix = bound.step(np.eye(nodes.size))
    rates = np.log(np.sort(np.linalg.eigvals(matrix).real)[::-1][: 1 + max(MODES)]) / layer.time_step
    predicted = np.sqrt(layer.epsilon / (2 * np.pi)) * 2 / (np.pi / 2)  # two walls, where cos^2 = 1; its integral
    return [float((-rates[k] / k**2 - 1) / predicted) for k in MODES]


def _modes(x: np.ndarray, t: float) -> np.ndarray:
    return np.exp(-t) * np.cos(x[:, 0]) + np.exp(-4 * t) * np.cos(2 * x[:, 0])


def _slope(steps, errors) -> float:
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def _draw(ax, steps: tuple[float, ...], errors: dict[str, np.ndarray]) -> None:
    """Errors against eps with the line sqrt(eps) through softmax's last."""
    eps = 2 * np.array(steps)
    for (name, values), color, marker in zip(errors.items(), (style.ACCENT, style.INK, "0.5"), style.MARKERS):
        ax.plot(eps, values, color=color, marker=marker, markersize=5, linestyle="none", label=name, zorder=3)
    line = errors["softmax"][-1] * np.sqrt(eps / eps[-1])
    ax.plot(eps, line, color=style.ACCENT, linewidth=0.9, label="sqrt(eps)")
    line = errors["sinkhorn"][-1] * (eps / eps[-1]) ** 1.3
    ax.plot(eps, line, color="0.5", linewidth=0.9, linestyle="--", label="eps^1.3")
    ax.set(xscale="log", yscale="log")
    style.plain_ticks(ax.xaxis, eps)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="center right", bbox_to_anchor=(1.0, 0.58))
    title = "Softmax meets a no-flux wall as sqrt(eps), Sinkhorn faster"
    style.finish(ax, title, "temperature eps (length$^2$)", "relative L2 error")
