"""Theorem 5: attention of a general pseudo-metric looks at the place y*(x) where f(x, .) is smallest.

With C the Hessian and D the third derivatives of f(x, .) at y*, q the density of tokens in the same coordinates,

    A H(x) = H + eps [C^-1 : Hess H + 2 (C^-1 grad log q) . grad H - C^-1_ij D_jkl C^-1_kl d_i H] + O(eps^2)   at y*.

Left and middle: a torus, with f = a(y - s(x)) asymmetric, displaced by s(x) - x, and skew (D is not zero); infinitely
many tokens. Right: f = -x'Wy on the sphere S^2 is smallest at W'x / |W'x|, and with tokens spread evenly a layer is
exactly A x = a_1(|W'x| / (2 eps)) W'x / |W'x|, a_1(z) = coth z - 1/z, not only for small eps.

Source: Ruan & Zhang 2024, Theorem 5; the sphere by the Funk-Hecke formula.
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "An asymmetric pseudo-metric displaces attention to its own minimum; the first order is as predicted"
CONSTANTS = {"drift": 2.0, "skew": 1.0}  # the factors of grad log q and of D
WRONG = {"drift": 1.0, "skew": 1.0}
PANELS = 3

_C = np.array([[2.0, 0.6], [0.6, 2.0]])
_D = np.zeros((2, 2, 2))
_D[0, 0, 0], _D[1, 1, 1] = 1.5, -0.9
_W = np.array([[1.5, 0.8, 0.0], [-0.6, 1.0, 0.4], [0.3, -0.2, 0.8]])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """A H on a line across the torus, A x on the sphere: for each eps, of infinitely many tokens."""
    f, density = af.PseudoMetric(_f, 2), af.Density(af.Torus([2 * np.pi] * 2), _log_q)
    x = np.column_stack([np.linspace(0, 2 * np.pi, 33), np.full(33, 1.0)])
    epsilons = np.geomspace(0.01 if quick else 0.005, 0.32, 7)
    torus = [_attend(f, eps, density, _features, x, 96 if quick else 128) for eps in track(epsilons, progress, 7)]

    tokens, inverse = af.Uniform(af.Sphere(2)), np.geomspace(0.5, 20, 9)
    points = tokens.sample(12, rng=0)
    sphere = [_attend(af.DotProduct(_W), 1 / b, tokens, lambda y: y, points, (48, 96)) for b in inverse]
    return {
        "x": x, "epsilon": epsilons, "torus": np.array(torus)[..., 0],
        "points": points, "inverse": inverse, "sphere": np.array(sphere),
    }  # fmt: skip


def _f(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = np.moveaxis(y - _place(x), -1, 0)
    skew = [np.sin(w) - np.sin(2 * w) / 2 for w in (u, v)]  # third derivative 3 at 0
    return 4 - 2 * np.cos(u) - 2 * np.cos(v) + 0.6 * np.sin(u) * np.sin(v) + 0.5 * skew[0] - 0.3 * skew[1]


def _place(x: np.ndarray) -> np.ndarray:
    x0, x1 = np.moveaxis(x, -1, 0)
    return np.stack([x0 + 0.9 + 0.3 * np.sin(x1), x1 - 0.4 + 0.2 * np.sin(x0)], axis=-1)


def _log_q(y: np.ndarray) -> np.ndarray:
    return 0.5 * np.cos(y[..., 0]) + 0.4 * np.sin(y[..., 1]) + 0.2 * np.cos(y[..., 0] - y[..., 1])


def _features(y: np.ndarray) -> np.ndarray:
    return np.cos(y[..., 0]) + 0.5 * np.sin(2 * y[..., 0] + y[..., 1])


def _attend(f, epsilon, density, features, points, grid) -> np.ndarray:
    nodes = density.grid(grid)
    H = features(nodes.points)
    log_mass = density.log_pdf(nodes.points) + np.log(nodes.weights)
    # few queries: the plain definition takes less time than compiling this f
    bound = af.Attention(f, epsilon, backend="reference").bind(nodes.points, log_mass)
    return bound.attend(H.reshape(len(H), -1), points).mean


def _expansion(x: np.ndarray, drift: float, skew: float) -> tuple[np.ndarray, np.ndarray]:
    """Zeroth and first order of A H at points x: H and its derivatives at y*, by hand."""
    y = _place(x)
    y0, both, apart = y[:, 0], 2 * y[:, 0] + y[:, 1], np.sin(y[:, 0] - y[:, 1])
    gradient = np.column_stack([-np.sin(y0) + np.cos(both), 0.5 * np.cos(both)])
    wave = -0.5 * np.sin(both)
    hessian = np.stack([-np.cos(y0) + 4 * wave, 2 * wave, 2 * wave, wave], axis=-1).reshape(-1, 2, 2)
    score = np.column_stack([-0.5 * np.sin(y0) - 0.2 * apart, 0.4 * np.cos(y[:, 1]) + 0.2 * apart])
    inverse = np.linalg.inv(_C)
    velocity = drift * score @ inverse - skew * inverse @ np.einsum("jkl,kl->j", _D, inverse)
    return _features(y), np.einsum("ij,mij->m", inverse, hessian) + np.sum(velocity * gradient, axis=1)


def _errors(data, constants) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The root mean square over the line of A H less the zeroth, less both orders, and that of the first order."""
    zeroth, first = _expansion(data["x"], constants["drift"], constants["skew"])
    left = data["torus"] - zeroth
    return _rms(left), _rms(left - data["epsilon"][:, None] * first), _rms(first)


def _rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=-1))


def _on_sphere(data) -> tuple[np.ndarray, np.ndarray]:
    """W'x / |W'x| and a_1(|W'x| / (2 eps)) for every point and eps."""
    looked = data["points"] @ _W
    length = np.linalg.norm(looked, axis=1)
    z = np.outer(data["inverse"] / 2, length)
    return looked / length[:, None], 1 / np.tanh(z) - 1 / z


def check(data, constants) -> list[Check]:
    """Zeroth order, first order, what is left of both; direction and length on the sphere."""
    eps, few = data["epsilon"], slice(0, 4)  # few: where the third order is small
    zeroth, first = _expansion(data["x"], constants["drift"], constants["skew"])
    by_power = np.polyfit(eps, data["torus"], 5)  # its last rows: the slope at eps = 0, and the limit
    without, with_first, size = _errors(data, constants)
    direction, length = _on_sphere(data)
    measured = np.linalg.norm(data["sphere"], axis=-1)
    cosine = np.sum(data["sphere"] * direction, axis=-1) / measured
    return [
        Check("torus, ε → 0: A H − H(y*), rms over its own", 0.0, _rms(by_power[-1] - zeroth) / _rms(zeroth), 1e-3),
        Check.relative("torus: first order along the predicted one", 1.0, by_power[-2] @ first / (first @ first), 0.01),
        Check("torus: first order across the predicted one", 0.0, _rms(by_power[-2] - first) / size, 0.02),
        Check("torus: order in ε of what zeroth and first leave", 2.0, _slope(eps[few], with_first[few]), 0.05),
        Check("sphere: least cosine of A x and W'x", 1.0, cosine.min(), 1e-10),
        Check("sphere: |A x| against coth z − 1/z, largest difference", 0.0, np.abs(measured - length).max(), 1e-10),
    ]


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def draw(figure, data, constants) -> None:
    """A H along the line; errors over eps; |A x| on the sphere."""
    left, middle, right = figure.subplots(1, 3)
    eps, x = data["epsilon"], data["x"]
    zeroth, first = _expansion(x, constants["drift"], constants["skew"])
    left.plot(x[:, 0], _features(x), color="0.6", linestyle=":", label="H(x)")
    left.plot(x[:, 0], zeroth, color=style.INK, label="H(y*), ε → 0")
    for k, colour, marker in zip((0, 3, 5), style.shades(3), style.MARKERS):
        left.plot(x[:, 0], zeroth + eps[k] * first, color=colour)
        left.plot(x[:, 0], data["torus"][k], marker, color=colour, markersize=3, label=f"A H, ε = {eps[k]:.2g}")
    style.finish(left, "", "place x₀ on the torus (length)", "feature after one layer (unit of H)")
    left.legend(frameon=False)

    without, with_first, size = _errors(data, constants)
    middle.plot(eps, size * eps, color=style.INK, label="predicted first order")
    middle.plot(eps, with_first[0] * (eps / eps[0]) ** 2, color=style.ACCENT, label="slope 2")
    middle.plot(eps, without, "o", color=style.INK, label="A H − H(y*)")
    middle.plot(eps, with_first, "s", color=style.ACCENT, label="… less its first order")
    style.log_scale(middle)
    style.finish(middle, "", "temperature ε (unit of f)", "root mean square over the line (unit of H)")
    middle.legend(frameon=False)

    _, length = _on_sphere(data)
    z = np.geomspace(0.1, 20, 200)
    right.plot(z, 1 / np.tanh(z) - 1 / z, color=style.INK, label="coth z − 1/z")
    looked = np.outer(data["inverse"] / 2, np.linalg.norm(data["points"] @ _W, axis=1))
    measured = np.linalg.norm(data["sphere"], axis=-1)
    right.plot(looked.ravel(), measured.ravel(), "o", color=style.ACCENT, markersize=3, label="|A x|, 12 points")
    right.set_xscale("log")
    style.finish(right, "", "z = |W′x|/(2ε) (pure number)", "length of A x, along W′x (radius)")
    right.legend(frameon=False)
