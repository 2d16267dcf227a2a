"""One law for attention that chooses its keys: how far a layer diffuses where tokens are dense or rare.

Weights (T - f / (2 eps))_+^m, summing to one, f = d^2, T of each query: m = 0 are the k nearest, m = 1 is sparsemax, m = 2
entmax-1.5, m = infinity softmax. A query at x, in n dimensions among N p(x) tokens per volume, sees a ball of radius R,

    N p B_m R^(n + 2m) = (2 eps m)^m,     B_m = pi^(n/2) Gamma(m + 1) / Gamma(m + 1 + n/2)     (m = 0: N p B_0 R^n = k),

and one layer is a step of dH/dt = a (Delta H + 2 grad log p . grad H) with the mobility

    a(x) = m2(x) / 2,     m2 = R^2 / (n + 2m + 2),     proportional to p^(-2 / (n + 2m));

rows of fixed perplexity, P = N p (2 pi e m2)^(n/2), have p^(-2/n). Here m2 is measured on random tokens, as the mean squared
distance per coordinate to what a token attends to. Temperatures are such that all laws agree at one density.

A law answers to a denser crowd by its exponent, so a count of tokens that is off by a share is an m2 off by exponent times
that share: the class of a share w of N tokens has the noise |exponent| sqrt((1 - w) / (w N)), and an exponent fitted to
classes |exponent| / sqrt(N Var log p). Of next order are one over the number of keys (for softmax m2 is lower by the share
(2^(n/2) - 1/2) / (N p (4 pi eps)^(n/2)), and the k nearest at the same m2 are about as many), and m2 over the square of the
length on which the density varies, here 1.

Source: Ting, Huang & Jordan 2011 (m = 0); the law, its noise and the perplexity's exponent derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gamma

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "One law for sparse attention: mobility falls as density to the power 2/(n + 2m), from top-k to softmax"
CONSTANTS = {"numerator": 2.0, "per_power": 2.0}
WRONG = {"numerator": 2.0, "per_power": 1.0}

POWERS = (0.0, 0.5, 1.0, 2.0, np.inf)
NAMES = ("top-k (m = 0)", "entmax-3 (m = ½)", "sparsemax (m = 1)", "entmax-1.5 (m = 2)", "softmax (m = ∞)", "fixed perplexity")
_DIMS = (1, 2)
_CLASSES = 24  # of equal mass, by density
_SPACES = {1: af.Circle(), 2: af.Torus([2 * np.pi, 2 * np.pi])}
_P = {n: af.Density(space, lambda x: np.cos(x).sum(axis=-1)) for n, space in _SPACES.items()}


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """m2 in classes of tokens of about one density, (dimensions, sets, laws, classes)."""
    sizes, nearest, sets = ((10_000, 30_000), (200, 100), 2) if quick else ((40_000, 80_000), (400, 200), 4)
    shape = len(_DIMS), sets
    data = {"size": np.array(sizes), "k": np.array(nearest), "meeting": np.array([_meeting(n) for n in _DIMS])}
    data |= {"log_p": np.empty((*shape, _CLASSES)), "spread": np.empty((*shape, _CLASSES))}
    data["m2"] = np.empty((*shape, len(NAMES), _CLASSES))
    cases = [(d, seed, law) for d, seed in np.ndindex(shape) for law in range(len(NAMES))]
    for d, seed, law in track(cases, progress, unit="layer"):
        n, size = _DIMS[d], sizes[d]
        tokens = _P[n].sample(size, np.random.default_rng([n, seed]))
        log_p = _P[n].log_pdf(tokens)
        classes = np.array_split(np.argsort(log_p), _CLASSES)
        m2 = _second_moment(_layers(n, size, nearest[d])[law], tokens)
        for c, members in enumerate(classes):
            data["log_p"][d, seed, c], data["spread"][d, seed, c] = log_p[members].mean(), log_p[members].var()
            data["m2"][d, seed, law, c] = m2[members].mean()
    return data


def _meeting(n: int) -> float:
    """log p at which all laws agree: its mean over the tokens."""
    grid = _P[n].grid(64)
    return float(grid.weights @ (_P[n].pdf(grid.points) * _P[n].log_pdf(grid.points)))


def _agreed(n: int, size: float, k: float, meeting: float) -> float:
    """m2 of the k nearest there."""
    return float((k / (size * np.exp(meeting) * _ball(n, 0.0))) ** (2 / n) / (n + 2))


def _ball(n: int, m: float) -> float:
    """B_m."""
    return np.pi ** (n / 2) * gamma(m + 1) / gamma(m + 1 + n / 2)


def _layers(n: int, size: int, k: int) -> list[af.Attention]:
    """The laws, each with the temperature or count at which it has the agreed m2 at the density where they meet."""
    meeting = _meeting(n)
    s, around = _agreed(n, size, k, meeting), size * np.exp(meeting)
    rules: list[tuple] = [(1e9, af.TopK(k))]  # so hot that weights are alike
    for m in POWERS[1:-1]:
        R = np.sqrt((n + 2 * m + 2) * s)
        rules.append(((around * _ball(n, m) * R ** (n + 2 * m)) ** (1 / m) / (2 * m), af.Sparse(alpha=1 + 1 / m)))
    rules += [(s, "softmax"), (1.0, af.Perplexity(around * (2 * np.pi * np.e * s) ** (n / 2)))]
    return [af.Attention(af.SquaredDistance(_SPACES[n]), epsilon, rule, rtol=1e-8) for epsilon, rule in rules]


def _second_moment(layer: af.Attention, tokens: np.ndarray) -> np.ndarray:
    """Mean squared distance per coordinate to what tokens attend to (N,): d^2 = 5/2 - 8/3 cos d + 1/6 cos 2d + O(d^6)."""
    waves = np.concatenate([np.exp(1j * tokens), np.exp(2j * tokens)], axis=1)
    mean = layer(tokens, np.concatenate([waves.real, waves.imag], axis=1))
    half = waves.shape[1]
    cosines = (waves.conj() * (mean[:, :half] + 1j * mean[:, half:])).real
    once, twice = np.split(cosines, 2, axis=1)
    return (5 / 2 - 8 / 3 * once + twice / 6).mean(axis=1)


def _exponents(n: int, constants) -> np.ndarray:
    """Of p in m2, for every law."""
    powers = np.array(POWERS)
    return -constants["numerator"] / np.append(n + constants["per_power"] * powers, n) + 0.0  # no -0


def _measured(data, d: int) -> np.ndarray:
    """Fitted exponents (sets, laws)."""
    x = data["log_p"][d] - data["log_p"][d].mean(axis=-1, keepdims=True)
    return np.einsum("sc,slc->sl", x, np.log(data["m2"][d])) / (x**2).sum(axis=-1)[:, None]


def _residuals(data, d: int, constants) -> np.ndarray:
    """log of measured over predicted m2, (sets, laws, classes)."""
    n, exponents = _DIMS[d], _exponents(_DIMS[d], constants)[:, None]
    s = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
    log_p, spread = (data[name][d][:, None] for name in ("log_p", "spread"))
    return np.log(data["m2"][d] / s) - exponents * (log_p - data["meeting"][d]) - exponents**2 * spread / 2


def _noise(data, d: int, constants) -> np.ndarray:
    """Predicted standard errors of an exponent fitted to one set of tokens, for every law."""
    return np.abs(_exponents(_DIMS[d], constants)) / np.sqrt(data["size"][d] * data["log_p"][d].var(axis=-1).mean())


def check(data, constants) -> list[Check]:
    """Exponents, factors before them, and the noise of the classes.

    Tolerances of exponents are four predicted standard errors; factors have no error to this order. What is left out comes
    on top: m2, and twice softmax's share at k keys, since tokens are rarer than where the laws meet. Of the noise: four
    standard errors of as many independent normal numbers.
    """
    checks, sets = [], data["m2"].shape[1]
    for d, n in enumerate(_DIMS):
        m2 = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
        beyond = m2 + 2 * (2 ** (n / 2) - 0.5) / data["k"][d]
        exponents, noise = _exponents(n, constants), _noise(data, d, constants) / np.sqrt(sets)
        residuals = _residuals(data, d, constants)
        for law, name in enumerate(NAMES):
            measured = _measured(data, d)[:, law].mean()
            checks.append(Check(f"n = {n}, {name}: exponent", exponents[law], measured, 4 * noise[law] + beyond))
        for law, name in enumerate(NAMES):
            factor = np.exp(residuals[:, law].mean())
            checks.append(Check(f"n = {n}, {name}: measured over predicted m2", 1.0, factor, beyond))
        moving = np.abs(exponents) > 0
        apart = (residuals - residuals.mean(axis=0))[:, moving] / np.abs(exponents[moving, None])
        z = apart * np.sqrt(data["size"][d] / (_CLASSES - 1) * sets / (sets - 1))
        size = 4 / np.sqrt(2 * (sets - 1) * (_CLASSES - 1))
        checks.append(Check(f"n = {n}: rms of a class from set to set, in predicted noises", 1.0, np.sqrt(np.mean(z**2)), size))
    return checks


def draw(figure, data, constants) -> None:
    """m2 over density for one and two dimensions; the exponents over m."""
    *both, right = figure.subplots(1, 3)
    looks = list(zip(NAMES, [*style.shades(len(POWERS)), style.ACCENT], style.MARKERS))
    for d, (n, ax) in enumerate(zip(_DIMS, both)):
        log_p, m2 = data["log_p"][d].mean(axis=0), data["m2"][d].mean(axis=0)
        s = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
        line = np.linspace(log_p.min(), log_p.max(), 50)
        for law, (name, colour, marker) in enumerate(looks):
            predicted = s * np.exp(_exponents(n, constants)[law] * (line - data["meeting"][d]))
            last = law == len(NAMES) - 1
            ax.plot(np.exp(line), predicted, "--" if last else "-", color=colour)
            points = {"markersize": 6 if last else 3.5, "zorder": 3, "fillstyle": "none" if last else "full", "label": name}
            ax.plot(np.exp(log_p[::2]), m2[law, ::2], marker, color=colour, **points)
        style.log_scale(ax)
        style.plain_log(ax.xaxis)
        style.finish(ax, "", f"density p (1/length{'' if n == 1 else '²'})", "m₂, twice the mobility (length²)")
        ax.set_title(f"{'ab'[d]}  n = {n}, {data['size'][d]} tokens; lines: the law", loc="left")
    both[1].legend(frameon=False, loc="upper right")

    places = np.array([*(np.array(POWERS[:-1]) / (1 + np.array(POWERS[:-1]))), 1.0, 1.3])
    fine = np.linspace(0, 1 - 1e-9, 200)
    for d, (n, colour, marker) in enumerate(zip(_DIMS, (style.INK, style.ACCENT), "os")):
        right.plot(fine, constants["numerator"] / (n + constants["per_power"] * fine / (1 - fine)), color=colour)
        right.hlines(-_exponents(n, constants)[-1], 1.22, 1.38, color=colour)
        measured, noise = -_measured(data, d), _noise(data, d, constants)
        error = 2 * noise / np.sqrt(len(measured))
        right.errorbar(places, measured.mean(axis=0), error, fmt=marker, color=colour, fillstyle="none", label=f"n = {n}")
    right.set_xticks(places, ["0", "½", "1", "2", "∞", "fixed\nperplexity"])
    right.set_ylim(-0.1, 2.3)
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.62, 1.0))
    style.finish(right, "", "power m of the weights", "exponent of 1/p in the mobility")
    right.set_title("c  lines: 2/(n + 2m); bars: 2 predicted errors", loc="left")
