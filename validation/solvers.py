"""One problem, three solvers that share nothing: layers of attention, the equation on a grid, the mean over paths.

A torus mapped into four dimensions, so that its metric has off-diagonal entries and is curved,

    phi(x, y) = (cos x, sin x, r cos a, r sin a),    r = 1 + sin(x) / 5,  a = y + 0.3 sin x,

with metric-attention f = |phi(x) - phi(y)|^2 on tokens of density q in the coordinates. Layers of infinitely many
tokens are extrapolated in eps; the equation, their limit, has its estimated error; paths, in the metric worked out by
hand, have standard errors.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

import attnflow as af
from attnflow.particles import feynman_kac
from attnflow.plotting import style

from . import Claim, Report

TIME = 0.24
STEPS = (0.04, 0.02, 0.01)  # tau of one layer, each half of the one before
PATHS, POINTS = 20_000, 12
SURE = 1e-3  # chance of a false alarm in a test of standard errors
TORUS = af.Torus([2 * np.pi] * 2)


def phi(x: np.ndarray) -> np.ndarray:
    """Points (..., 2) -> (..., 4)."""
    radius, angle = 1 + 0.2 * np.sin(x[..., 0]), x[..., 1] + 0.3 * np.sin(x[..., 0])
    columns = np.cos(x[..., 0]), np.sin(x[..., 0]), radius * np.cos(angle), radius * np.sin(angle)
    return np.stack(columns, axis=-1)


def metric(x: np.ndarray) -> np.ndarray:
    """J'J of phi by hand, (..., 2, 2): what the paths are told."""
    radius, slope, twist = 1 + 0.2 * np.sin(x[..., 0]), 0.2 * np.cos(x[..., 0]), 0.3 * np.cos(x[..., 0])
    g = np.empty((*x.shape, 2))
    g[..., 0, 0] = 1 + slope**2 + (radius * twist) ** 2
    g[..., 0, 1] = g[..., 1, 0] = radius**2 * twist
    g[..., 1, 1] = radius**2
    return g


def log_q(x: np.ndarray) -> np.ndarray:
    """Of the tokens, in the coordinates, up to a constant."""
    return 0.6 * np.sin(x[..., 0]) + 0.5 * np.cos(x[..., 0] - x[..., 1]) - 0.3 * np.cos(2 * x[..., 1])


def log_p(x: np.ndarray) -> np.ndarray:
    """The same per volume of g: log q - log sqrt(det g), det g = r^2 (1 + r'^2)."""
    return log_q(x) - np.log(1 + 0.2 * np.sin(x[..., 0])) - 0.5 * np.log1p((0.2 * np.cos(x[..., 0])) ** 2)


def initial(x: np.ndarray) -> np.ndarray:
    """H0 at points (N, 2)."""
    return np.sin(x[:, 0] + x[:, 1]) + 0.5 * np.cos(2 * x[:, 1] - x[:, 0])


def curve(s: np.ndarray) -> np.ndarray:
    """A closed curve on the torus, (N,) -> (N, 2), on which the solutions are compared."""
    return np.stack([s, 2 * s + 0.4 + 0.5 * np.sin(s)], axis=-1) % (2 * np.pi)


def run(steps: tuple[float, ...] = STEPS, paths: int = PATHS) -> Report:
    """The three solutions at 12 points, their stated errors, and whether they agree within those."""
    s = 2 * np.pi * (np.arange(POINTS) + 0.5) / POINTS
    points, f = curve(s), af.SquaredMap(phi)
    tokens = af.Density(TORUS, log_q)
    equation = af.limit(af.Attention(f, 2 * steps[-1]), tokens)
    solution = equation.solve(initial, TIME, rtol=1e-8)
    cells = equation.solve(initial, TIME, rtol=1e-5, method="finite-volume")
    field = solution.at(points)[:, 0]
    size = float(np.sqrt(np.mean(solution.y[-1] ** 2)))
    field_error = solution.stats["estimated_error"] * size

    rough = np.array([_layers(af.Attention(f, 2 * tau), tokens, points) for tau in steps])
    layers, layers_error = _extrapolated(rough)

    chart = af.Chart(metric, TORUS.bounds, periodic=True)
    walk = feynman_kac(af.Density(chart, log_p), initial, points, TIME, paths, rng=0)
    mean, deviation = walk.mean[0, :, 0], walk.standard_error[0, :, 0]

    rows = []
    for k, x in enumerate(points):
        z = (mean[k] - field[k]) / deviation[k]
        walked = f"{mean[k]:.5f}", f"{deviation[k]:.1e}", f"{z:+.2f}"
        layered = f"{layers[k]:.6f}", f"{layers_error[k]:.1e}"
        rows.append([f"({x[0]:.3f}, {x[1]:.3f})", f"{field[k]:.6f}", *layered, *walked])
    worst = float(np.max(np.abs(layers - field) / (layers_error + field_error)))
    scores = {
        "the equation": (mean - field) / deviation,
        "the layers": (mean - layers) / np.hypot(deviation, layers_error),
    }
    gap = float(np.abs(cells.at(points)[:, 0] - field).max() / size)
    claims = [
        Claim("layers less the equation, over the layers' stated error", f"{worst:.2f}", "at most 1", bool(worst <= 1)),
        Claim("finite volumes, asked for 1e-5, less the spectral solution", f"{gap:.0e}", "at most 3e-5", bool(gap <= 3e-5)),
    ]
    low, high = chi2.ppf([SURE / 2, 1 - SURE / 2], POINTS)
    for name, z in scores.items():
        total = float(z @ z)
        numbers, held = f"{total:.1f}, largest {np.abs(z).max():.2f}", bool(low <= total <= high)
        claims.append(Claim(f"paths and {name}: sum of {POINTS} squared z-scores", numbers, f"{low:.1f} to {high:.1f}", held))
    text = (
        f"H at t = {TIME:g} on a torus with a curved, off-diagonal metric.\n"
        f"Equation: {solution.stats['method']} method, grid {' x '.join(map(str, solution.stats['grid']))}, "
        f"estimated error {field_error:.0e}.\n"
        f"Layers: infinitely many tokens at eps = {', '.join(f'{2 * tau:g}' for tau in steps)}, extrapolated to 0; "
        "their error is the last correction.\n"
        f"Paths: {paths} from each point, {walk.stats['steps']} steps ({walk.stats['scheme']}), of whose weak error "
        f"{np.abs(walk.bias).max():.0e} was taken out."
    )
    columns = ["point", "equation", "layers", "error", "paths", "standard error", "z"]

    def draw(ax) -> None:
        line = np.linspace(0, 2 * np.pi, 241)
        smooth = line, solution.at(curve(line))[:, 0]
        _draw(ax, s, field, smooth, rough[-1], (layers, layers_error), (mean, deviation), steps)

    title = "Layers, equation and paths: three solutions of one problem"
    return Report(title, text, columns, rows, claims, draw)


def _layers(layer: af.Attention, tokens: af.Density, points: np.ndarray) -> np.ndarray:
    layers = round(TIME / layer.time_step)
    return af.propagate(layer, tokens, initial, layers, save_every=layers).at(points)[:, 0]


def _extrapolated(rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To eps = 0, removing eps, eps^2, ... from rows of halved eps; the last correction is the stated error."""
    for order in range(1, len(rough)):
        correction = np.diff(rough, axis=0) / (2**order - 1)
        rough = rough[1:] + correction
    return rough[-1], np.abs(correction[-1])


def _draw(ax, s, field, line, rough, layers, paths, steps) -> None:
    """Above, features along the curve; below, what the solutions differ by, each with its error bars."""
    figure = ax.figure
    ax.remove()
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(*line, color=style.INK, linewidth=1, label="equation")
    above.plot(s, rough, "s", color="0.6", markersize=5, mfc="none", label=f"layers, eps = {2 * steps[-1]:g}")
    above.errorbar(s, paths[0], 2 * paths[1], fmt="o", color=style.ACCENT, markersize=3, capsize=2, label="paths")
    above.legend(frameon=False, fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.02))
    below.axhline(0, color=style.INK, linewidth=1)
    below.errorbar(
        s - 0.05, 1e3 * (paths[0] - field), 2e3 * paths[1], fmt="o", color=style.ACCENT, markersize=3, capsize=2,
        label="paths, two standard errors",
    )  # fmt: skip
    below.errorbar(
        s + 0.05, 1e3 * (layers[0] - field), 1e3 * layers[1], fmt="s", color="0.45", markersize=3, capsize=2,
        label="layers, eps to 0",
    )  # fmt: skip
    low, high = below.get_ylim()
    below.set_ylim(low - 0.3 * (high - low), high)  # room for the legend
    below.legend(frameon=False, fontsize=7, ncols=2, loc="lower left")
    style.finish(above, "Layers, equation and paths agree within their stated errors", "", "H")
    style.finish(below, "", "position along a closed curve (radians)", "difference ($10^{-3}$)")
