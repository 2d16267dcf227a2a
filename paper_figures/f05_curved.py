"""On curved spaces the limit does not tell chords from arcs, but the bias does: B + L/2 and B - ((n-1)/6) L on S^n.

For infinitely many tokens with density p and the similarity exp(-f / (2 eps)), s = eps = 2 tau,

    (A H - H) / tau = L H + s B_f H + O(s^2),    L H = Delta_g H + 2 <grad log p, grad H>,

whether f is the squared geodesic distance of g or the squared distance of the space around. On the unit sphere S^n

    chords: B_f = B + L/2,    arcs: B_f = B - ((n-1)/6) L,
    B H = [Delta^2(p H) - H Delta^2 p] / (4 p) - (Delta p / (2 p)) L H.

Here: S^2 and S^3, p proportional to 1 + 0.6 z, H = x, where Delta x = -n x, Delta(x z) = -2 (n+1) x z and
<grad x, grad z> = -x z; and a torus of revolution with radii 2 and 1 and chords, p proportional to
exp((cos u + cos v) / 2), H = cos u + sin v, its bias derived from the embedding by computer algebra.

Source: Ruan & Zhang 2024, Theorem 3 (the limit); Coifman & Lafon 2006 (chords); the biases derived for this package.
"""

from __future__ import annotations

import numpy as np
import sympy
from scipy.linalg import null_space

import attnflow as af
from attnflow import theory
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Chords and arcs have the same limit; the predicted multiples of L separate their biases"
CONSTANTS = {"drift": 2.0, "chord": 1 / 2, "arc": -1 / 6}  # shifts of B in units of L, (n - 1) L
WRONG = {"drift": 2.0, "chord": 0.0, "arc": -1 / 6}

SERIES = (("S²", 2, "chord"), ("S²", 2, "arc"), ("S³", 3, "chord"), ("S³", 3, "arc"), ("torus", 2, "chord"))
_TILT = 0.6
_X, _Z = 0.6, 0.5  # the point on the spheres; its other coordinates share what is left
_U, _V, _RADIUS = 0.7, 1.1, 2.0  # the point on the torus, and the larger radius


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """(A H - H) / tau at one point of each space over eps; the bias operator of the torus, by computer algebra."""
    epsilons = np.geomspace(0.002, 0.016, 5 if quick else 9)
    rates = np.empty((len(SERIES), len(epsilons)))
    for i in track(range(len(SERIES)), progress, len(SERIES)):
        name, n, kind = SERIES[i]
        for j, epsilon in enumerate(epsilons):
            rates[i, j] = _torus_rate(epsilon) if name == "torus" else _sphere_rate(n, kind, epsilon)
    return {"epsilon": epsilons, "rate": rates, "torus_bias": _torus_bias()}


def _sphere_rate(n: int, kind: str, epsilon: float) -> float:
    """The layer on nodes in polar coordinates about the point, out to ten widths."""
    f = af.SquaredDistance(af.Sphere(n)) if kind == "arc" else af.SquaredMap(lambda x: x)
    layer = af.Attention(f, epsilon, backend="reference")
    rest = np.sqrt((1 - _X**2 - _Z**2) / (n - 1))
    there = np.array([[_X, *[rest] * (n - 1), _Z]])
    node, weight = np.polynomial.legendre.leggauss(100)
    reach = 10 * np.sqrt(epsilon)
    r, directions = reach * (node + 1) / 2, af.Sphere(n - 1).grid(12)
    omega = directions.points @ null_space(there).T
    points = (np.cos(r)[:, None, None] * there + np.sin(r)[:, None, None] * omega).reshape(-1, n + 1)
    mass = np.outer(weight * np.sin(r) ** (n - 1), directions.weights).ravel() * (1 + _TILT * points[:, -1])
    return float((layer.bind(points, np.log(mass)).attend(points[:, :1], there).mean[0, 0] - _X) / layer.time_step)


def _torus_rate(epsilon: float) -> float:
    def embed(x: np.ndarray) -> np.ndarray:
        around = _RADIUS + np.cos(x[..., 1])
        return np.stack([around * np.cos(x[..., 0]), around * np.sin(x[..., 0]), np.sin(x[..., 1])], axis=-1)

    u, v = theory.coordinates(2)
    space = af.Chart(sympy.diag((2 + sympy.cos(v)) ** 2, 1), [(0, 2 * np.pi)] * 2, periodic=True)
    density = af.Density(space, lambda x: np.cos(x).sum(axis=-1) / 2)
    layer = af.Attention(af.SquaredMap(embed), epsilon, backend="reference")
    width = np.sqrt(epsilon)
    grid = [int(3 * 2 * np.pi * radius / width) for radius in (_RADIUS + 1, 1.0)]
    bound, nodes = bind_density(layer, density, grid)
    H, here = np.cos(nodes.points[:, 0]) + np.sin(nodes.points[:, 1]), np.cos(_U) + np.sin(_V)
    return float((bound.attend(H[:, None], np.array([[_U, _V]])).mean[0, 0] - here) / layer.time_step)


def _torus_bias() -> float:
    u, v = theory.coordinates(2)
    around = 2 + sympy.cos(v)
    f = theory.squared_map([around * sympy.cos(u), around * sympy.sin(u), sympy.sin(v)], 2)
    # the density with respect to du dv: p times the area element
    layer = theory.layer(theory.local_kernel(f, 2), density=sympy.exp((sympy.cos(u) + sympy.cos(v)) / 2) * around)
    return float(layer.bias(sympy.cos(u) + sympy.sin(v))([[_U, _V]])[0])


def _predicted(data, constants) -> list[tuple[float, float]]:
    """L H and B_f H at the point, for each series."""
    result, drift = [], constants["drift"]
    for name, n, kind in SERIES:
        if name == "torus":
            around = _RADIUS + np.cos(_V)
            laplacian = -np.cos(_U) / around**2 - np.sin(_V) - np.sin(_V) / around * np.cos(_V)
            slopes = np.sin(_U) ** 2 / around**2 / 2 - np.sin(_V) * np.cos(_V) / 2
            result.append((laplacian + drift * slopes, float(data["torus_bias"])))
            continue
        p, product = 1 + _TILT * _Z, _TILT * _X * _Z
        L = -n * _X - drift * product / p
        B = (n**2 * _X + 4 * (n + 1) ** 2 * product - n**2 * product) / (4 * p) + n * _TILT * _Z / (2 * p) * L
        shift = constants["chord"] if kind == "chord" else constants["arc"] * (n - 1)
        result.append((L, B + shift * L))
    return result


def check(data, constants) -> list[Check]:
    """The limit, and the constant of what is left, for each space and distance."""
    checks, s = [], data["epsilon"]
    for (name, _, kind), rate, (LH, BH) in zip(SERIES, data["rate"], _predicted(data, constants)):
        start, slope = np.polyfit(s, rate, 3)[::-1][:2]
        checks.append(Check.relative(f"{name}, {kind}s: limit LH", LH, start, 0.001))
        checks.append(Check.relative(f"{name}, {kind}s: slope in ε, the bias", BH, slope, 0.01))
    return checks


def draw(figure, data, constants) -> None:
    """What one layer does over what the equation does, over eps: 1 + s B_f H / L H as lines."""
    ax = figure.subplots()
    s = np.linspace(0, data["epsilon"][-1], 2)
    colours = dict(zip(("torus", "S²", "S³"), style.shades(3)))
    predicted = _predicted(data, constants)
    for (name, _, kind), rate, (LH, BH), marker in zip(SERIES, data["rate"], predicted, style.MARKERS):
        ax.plot(s, 1 + s * BH / LH, color=colours[name], linestyle="-" if kind == "chord" else "--")
        face = colours[name] if kind == "chord" else "white"
        ax.plot(data["epsilon"], rate / LH, marker, color=colours[name], markerfacecolor=face, label=f"{name}, {kind}s")
    style.finish(ax, "", "temperature ε (length²)", "(AH − H) / (τ LH)")
    ax.legend(title="lines: 1 + ε B$_f$H / LH", frameon=False)
