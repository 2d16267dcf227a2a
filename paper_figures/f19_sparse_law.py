"""One law for attention that chooses its keys: how far a layer diffuses where tokens are dense or rare.

Weights (T - f / (2 eps))_+^m, summing to one, f = d^2, T of each query: m = 0 are the k nearest, m = 1 is sparsemax, m = 2
entmax-1.5, m = infinity softmax. A query at x, in n dimensions among N p(x) tokens per volume, sees a ball of radius R,

    N p B_m R^(n + 2m) = (2 eps m)^m,     B_m = pi^(n/2) Gamma(m + 1) / Gamma(m + 1 + n/2)     (m = 0: N p B_0 R^n = k),

and one layer is a step of dH/dt = a (Delta H + 2 grad log p . grad H) with the mobility

    a(x) = m2(x) / 2,     m2 = R^2 / (n + 2m + 2),     proportional to p^(-2 / (n + 2m));

rows of fixed perplexity, P = N p (2 pi e m2)^(n/2), have p^(-2/n). Here m2 is measured on random tokens, as the mean squared
distance per coordinate to what a token attends to. Temperatures are such that all laws agree at one density.

A law answers to a denser crowd by its exponent, so a count of tokens that is off by a share is an m2 off by exponent times
that share: the class of a share w of N tokens has the noise |exponent| sqrt((1 - w) / (w N)), and an exponent fitted to C
classes |exponent| / sqrt(N V), V = Var log p. Tokens near an edge between classes are seen from both, which adds at most

    sqrt(n m2) (range of log p) / (4 sqrt(pi) C N V^2)      (found for softmax; |grad log p|^2 <= n)

to the variance. Of next order in the number of tokens, with those that a query sees random and the query one of its own keys
(a = n/2 + m, K the weights' sum where the query's own is one, B the beta function),

    log m2 is off by  ((a + 1) / (a K)) (r (m + 1) / (2a) - 1),     r = B(2m + 1, n/2) / B(m + 1, n/2),

K = k for m = 0, else N p B_m R^n; for softmax ((1/2) 2^(-n/2) - 1) / (N p (2 pi eps)^(n/2)); and at a fixed perplexity, h = n/2,

    (2^-h (1/(2 h^2) + 1/(8 h) + 1/8) - 1/h) exp(h) / P.

And where the density bends log m2 is off by c m2(x) Delta p / p,

    c = ((n + 2) (a + 1) / (n (a + 2)) - 1) / 2 - 1 / (2a),     for softmax 1/n, at a fixed perplexity -1/n.

Source: Ting, Huang & Jordan 2011 (m = 0); the law, its noise and the perplexity's exponent derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, gamma

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "One law for sparse attention: mobility falls as density to the power 2/(n + 2m), from top-k to softmax"
LONG = True
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
    data |= {name: np.empty((*shape, _CLASSES)) for name in ("log_p", "spread", "bend")}
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
            data["bend"][d, seed, c] = (
                (np.sin(tokens[members]) ** 2 - np.cos(tokens[members])).sum(axis=1).mean()
            )  # Delta p / p
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


def _next_order(data, d: int) -> np.ndarray:
    """What log m2 is off by where tokens are finitely many and their density bends, (sets, laws, classes)."""
    n, size, half = _DIMS[d], data["size"][d], _DIMS[d] / 2
    s, apart = _agreed(n, size, data["k"][d], data["meeting"][d]), data["log_p"][d] - data["meeting"][d]
    there, bend = size * np.exp(data["meeting"][d]), s * data["bend"][d]
    shares = []
    for m in POWERS[:-1]:
        a, ratio = half + m, np.exp(betaln(2 * m + 1, half) - betaln(m + 1, half))
        keys = there * _ball(n, m) * ((n + 2 * m + 2) * s) ** half * np.exp(apart * m / a)
        c = ((n + 2) * (a + 1) / (n * (a + 2)) - 1) / 2 - 0.5 / a
        shares.append((a + 1) / (a * keys) * (ratio * (m + 1) / (2 * a) - 1) + c * bend * np.exp(-apart / a))
    around = there * (2 * np.pi * s) ** half
    shares.append((2**-half / 2 - 1) / (around * np.exp(apart)) + bend / n)
    few = (2**-half * (0.5 / half**2 + 0.125 / half + 0.125) - 1 / half) / around
    shares.append(few - bend / n * np.exp(-apart / half))
    return np.stack(shares, axis=1)


def _measured(data, d: int) -> np.ndarray:
    """Fitted exponents (sets, laws)."""
    x = data["log_p"][d] - data["log_p"][d].mean(axis=-1, keepdims=True)
    return np.einsum("sc,slc->sl", x, np.log(data["m2"][d]) - _next_order(data, d)) / (x**2).sum(axis=-1)[:, None]


def _residuals(data, d: int, constants) -> np.ndarray:
    """log of measured over predicted m2, (sets, laws, classes)."""
    n, exponents = _DIMS[d], _exponents(_DIMS[d], constants)[:, None]
    s = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
    log_p, spread = (data[name][d][:, None] for name in ("log_p", "spread"))
    first = exponents * (log_p - data["meeting"][d]) + exponents**2 * spread / 2
    return np.log(data["m2"][d] / s) - first - _next_order(data, d)


def _noise(data, d: int, constants) -> np.ndarray:
    """Predicted standard errors of an exponent fitted to one set of tokens, for every law."""
    n, log_p = _DIMS[d], data["log_p"][d].mean(axis=0)
    m2 = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
    edges = np.sqrt(n * m2 / np.pi) / 4 * np.ptp(log_p) / _CLASSES / log_p.var()
    return np.sqrt((_exponents(n, constants) ** 2 + edges) / (data["size"][d] * log_p.var()))


def check(data, constants) -> list[Check]:
    """Exponents, factors before them, and the noise of the classes.

    Tolerances are four predicted standard errors: of an exponent; of a factor, which has no noise of the first order, those of
    half the squares of its classes' noise; of the noise, those of as many independent normal numbers. What the next orders leave
    out is far below m2, which comes on top.
    """
    checks, sets = [], data["m2"].shape[1]
    for d, n in enumerate(_DIMS):
        m2 = _agreed(n, data["size"][d], data["k"][d], data["meeting"][d])
        exponents, noise = _exponents(n, constants), _noise(data, d, constants) / np.sqrt(sets)
        residuals = _residuals(data, d, constants)
        for law, name in enumerate(NAMES):
            measured = _measured(data, d)[:, law].mean()
            checks.append(Check(f"n = {n}, {name}: exponent", exponents[law], measured, 4 * noise[law] + m2))
        for law, name in enumerate(NAMES):
            factor = np.exp(residuals[:, law]).mean()
            squares = exponents[law] ** 2 * (_CLASSES - 1) / data["size"][d] / 2 * np.sqrt(2 / (_CLASSES * sets))
            checks.append(Check(f"n = {n}, {name}: measured over predicted m2", 1.0, factor, 4 * squares + m2))
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
