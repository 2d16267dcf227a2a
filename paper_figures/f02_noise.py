"""Too small an eps and few tokens make noise, too large an eps makes bias: the best eps falls as N^(-1/(3 + n/2)).

For N independent tokens of density p, (A H - H) / tau at a point misses L H by s B H in the mean (s = eps) and
scatters with the variance V s^-(1 + n/2) / N, V = 2 |grad H|^2 / (p (4 pi)^(n/2)), to leading order in s and 1/N:

    RMS^2 = (s B H)^2 + V s^-(1 + n/2) / N,    least at s* = [(1 + n/2) V / (2 N (B H)^2)]^(1 / (3 + n/2)),
    B H = [Delta^2(p H) - H Delta^2 p] / (4 p) - (Delta p / p) L H / 2,    L H = Delta H + 2 grad log p . grad H.

Here: softmax, p proportional to exp(sum_i cos x_i) and H = sum_i cos x_i on the circle (n = 1) and the torus (n = 2),
at x_i = pi / 2 and its mirror images, which all have the same p, L H and B H; every eps meets the same tokens.

Source: Ruan & Zhang 2024, Theorem 3 (the limit); Singer 2006 (the two orders); the constants derived for this package.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import curve_fit
from scipy.special import i0

import attnflow as af
from attnflow.kernels import attend
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Bias meets noise where predicted: the best temperature falls as N to the power −1/(3 + n/2)"
LONG = True
CONSTANTS = {"power": 1.0, "drift": 2.0}  # power of p in V
WRONG = {"power": 0.5, "drift": 2.0}
PANELS = 2

_MODES, _NODE = 64, 16  # the point is at this node in every coordinate
_REPRESENTED, _SMALL = 50, 0.08  # N p (4 pi s)^(n/2) from which, s up to which the leading orders hold to a few percent


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Mean and variance over independent tokens of (A H - H) / tau at the point, for n = 1, 2, each N and eps."""
    sizes = np.array([1000, 10_000, 100_000] if quick else [1000, 10_000, 100_000, 1_000_000])
    draws = np.array([1200, 240, 80] if quick else [600, 300, 160, 64])
    epsilons = np.stack([np.geomspace(low, 0.6, 9 if quick else 13) for low in (0.01, 0.02)])
    mean, variance = np.empty((2, 2, len(sizes), epsilons.shape[1]))
    samples = np.stack([2 * draws, 4 * (draws // 2)])
    for n, k in track(jobs := [(n, k) for n in (1, 2) for k in range(len(sizes))], progress, len(jobs)):
        f = af.SquaredDistance(af.Torus([2 * np.pi] * n))
        there = np.array(list(product((0.5 * np.pi, 1.5 * np.pi), repeat=n)))
        rates = np.empty((samples[n - 1, k] // len(there), len(there), epsilons.shape[1]))
        rng = np.random.default_rng([n, k])
        for rate in rates:
            tokens = af.VonMises(1.0).sample(n * sizes[k], rng).reshape(-1, n)
            H = np.cos(tokens).sum(axis=1, keepdims=True)
            for j, epsilon in enumerate(epsilons[n - 1]):  # softmax has no key bias: the sum is all of the layer
                layer = attend(f, epsilon, there, tokens, H, backend="numba").mean
                rate[:, j] = (layer[:, 0] - np.cos(there).sum(axis=1)) / (epsilon / 2)
        flat = rates.reshape(samples[n - 1, k], -1)
        mean[n - 1, k], variance[n - 1, k] = flat.mean(axis=0), flat.var(axis=0, ddof=1)
    return {"size": sizes, "samples": samples, "epsilon": epsilons, "mean": mean, "variance": variance}


def _predicted(n: int, constants) -> tuple[float, float, float]:
    """L H, B H and V at the point, derivatives by Fourier modes."""
    x = np.stack(np.meshgrid(*[2 * np.pi * np.arange(_MODES) / _MODES] * n, indexing="ij"))
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(_MODES, 1 / _MODES)] * n, indexing="ij"))
    H = np.cos(x).sum(axis=0)
    p = np.exp(H) / (2 * np.pi * i0(1.0)) ** n

    def laplacian(field: np.ndarray, times: int = 1) -> np.ndarray:
        return np.fft.ifftn((-np.sum(k**2, axis=0)) ** times * np.fft.fftn(field)).real

    across = laplacian(p * H) - p * laplacian(H) - H * laplacian(p)  # 2 grad p . grad H
    L = laplacian(H) + constants["drift"] / 2 * across / p
    B = (laplacian(p * H, 2) - H * laplacian(p, 2)) / (4 * p) - laplacian(p) / p * L / 2
    V = 2 * np.sum(np.sin(x) ** 2, axis=0) / (p ** constants["power"] * (4 * np.pi) ** (n / 2))
    return tuple(field[(_NODE,) * n] for field in (L, B, V))


def _least(n: int, size: np.ndarray, constants) -> tuple[np.ndarray, np.ndarray]:
    """The best eps for each N, and the error there."""
    (_, BH, V), order = _predicted(n, constants), 1 + n / 2
    s = (order * V / (2 * size * BH**2)) ** (1 / (2 + order))
    return s, np.hypot(s * BH, np.sqrt(V * s**-order / size))


def _errors(data, n: int, LH: float) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the error for each N and eps, and its standard error."""
    bias, variance, samples = data["mean"][n - 1] - LH, data["variance"][n - 1], data["samples"][n - 1][:, None]
    rms = np.sqrt(bias**2 + variance)
    return rms, np.sqrt((2 * variance**2 + 4 * bias**2 * variance) / samples) / (2 * rms)


def _best(data, n: int, LH: float) -> tuple[np.ndarray, np.ndarray]:
    """The best eps for each N as measured, and the error there: where bias and noise, each fitted, add up to the least.

    Both are powers of eps with a bend: log |bias| a cubic in log eps, the same for every N, whose weighted mean it is
    fitted to; log variance a parabola for each N. No exponent is put in.
    """
    x, variance = np.log(data["epsilon"][n - 1]), data["variance"][n - 1]
    weights = data["samples"][n - 1][:, None] / variance
    bias, error = np.average(data["mean"][n - 1] - LH, axis=0, weights=weights), weights.sum(axis=0) ** -0.5
    sign = np.sign(bias[-1])
    seen = sign * bias > 3 * error
    start = np.polyfit(x[seen], np.log(np.abs(bias[seen])), 3, w=np.abs(bias / error)[seen])
    curve, _ = curve_fit(lambda at, *c: sign * np.exp(np.polyval(c, at)), x, bias, start, error)
    fine = np.linspace(x[0], x[-1], 4000)
    noise = np.stack([np.polyval(np.polyfit(x, np.log(row), 2), fine) for row in variance])
    square = np.logaddexp(noise, 2 * np.polyval(curve, fine))
    return np.exp(fine[square.argmin(axis=1)]), np.exp(square.min(axis=1) / 2)


def check(data, constants) -> list[Check]:
    """The exponent of the best eps; noise and least error against their predictions."""
    checks, size = [], data["size"]
    for n in (1, 2):
        LH, BH, V = _predicted(n, constants)
        epsilons, (rms, _) = data["epsilon"][n - 1], _errors(data, n, LH)
        order = 1 + n / 2
        slope = np.polyfit(np.log(size), np.log(_best(data, n, LH)[0]), 1)[0]
        # a third of what tells n = 1 from n = 2; 0.005 is the standard error of few draws, 0.004 what finite N leaves
        checks.append(Check(f"n = {n}: exponent of the best ε in N", -1 / (2 + order), slope, 0.015))
        # the smallest eps at which the leading order in 1/N holds; 400 samples and more: 7 % standard error
        tokens = size[:, None] * (2 * np.pi * i0(1.0)) ** -n * (4 * np.pi * epsilons) ** (n / 2)
        first = np.argmax(tokens > _REPRESENTED, axis=1)
        ratios = data["variance"][n - 1][np.arange(len(size)), first] * size * epsilons[first] ** order / V
        weights = data["samples"][n - 1] * (epsilons[first] < _SMALL)
        ratio = weights @ ratios / weights.sum()
        checks.append(Check(f"n = {n}: variance over the predicted, small ε", 1.0, ratio, 0.2))
        least = _least(n, size, constants)[1][-1]  # 128 samples and more: 6 % standard error
        checks.append(Check.relative(f"n = {n}: least error, N = {size[-1]:.0e}", least, rms[-1].min(), 0.15))
    return checks


def draw(figure, data, constants) -> None:
    """RMS error over eps for each N: predicted as lines, the predicted best eps joined by another."""
    size = data["size"]
    for n, ax in zip((1, 2), figure.subplots(1, 2)):
        LH, BH, V = _predicted(n, constants)
        epsilons, (rms, bars) = data["epsilon"][n - 1], _errors(data, n, LH)
        s, order = np.geomspace(epsilons[0], epsilons[-1], 200), 1 + n / 2
        for N, row, bar, colour, marker in zip(size, rms, bars, style.shades(len(size)), style.MARKERS):
            ax.plot(s, np.hypot(s * BH, np.sqrt(V * s**-order / N)), color=colour)
            exponent = int(round(np.log10(N)))
            ax.errorbar(epsilons, row, 2 * bar, fmt=marker, color=colour, label=f"N = $10^{exponent}$")
        ax.plot(*_least(n, np.geomspace(size[0], size[-1], 50), constants), "--", color=style.ACCENT)
        ax.plot(*_best(data, n, LH), "*", color=style.ACCENT, markersize=8, label="best ε")
        ax.set(xscale="log", yscale="log", ylim=(0.3 * rms.min(), None))
        style.plain_log(ax.xaxis)
        style.finish(ax, f"({'ab'[n - 1]}) n = {n}", "temperature ε (length²)", "RMS of (AH − H)/τ − LH  (1/length²)")
        ax.legend(frameon=False, title="lines: predicted", loc="lower right")
