"""Behind a causal mask position mixes at order one in each layer, content at order eps, and the first tokens win.

Token s N, 0 < s <= 1, sees those before it, and positions don't depend on x. With a residual step a and tau = eps / 2 one layer is

    H(x, s) <- (1 - a) H(x, s) + (a / s) integral_0^s (e^(tau L) H)(x, u) du,

which multiplies s^mu phi_k(x), L phi_k = -lambda_k phi_k, by

    (1 - a) + a e^(-tau lambda_k) / (1 + mu).

Here: softmax on a uniform circle, lambda_k = k^2. Noise at the last token: one layer averages as an unmasked one; later ones meet
the noise of few tokens far in front, and after l layers of no residual the variance is up to

    (binomial(2 l, l) - 1) / l^2    times that of l unmasked layers                 (predicted_noise, leading order in 1/N),

an overestimate once it rests on tokens that have nothing before them. With all weights equal (beta = 0) the influence of
position u on the last token after l layers is a density in u,

    sum_(k >= 1) binomial(l, k) (1 - a)^(l-k) a^k (-log u)^(k-1) / (k - 1)!,    and (1 - a)^l of its own.

Source: derived for this package.
"""

from __future__ import annotations

import warnings
from math import comb, factorial

import numpy as np

import attnflow as af
from attnflow.checks import AccuracyWarning
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "Behind a causal mask position mixes at order one per layer, content at order ε, and the first tokens win"
CONSTANTS = {"position": 1.0}  # the factor of mu in 1 / (1 + mu), and of -log u
WRONG = {"position": 0.8}

_F, _STEPS, _MASKS = af.SquaredDistance(af.Circle()), (1.0, 0.5), ("causal", None)
_EPS, _POWERS, _MODES = 0.1, (0.0, 0.5, 1.0, 2.0, 3.0), (0, 1, 2, 3)
_P, _WARM, _N, _DEPTHS, _TRUSTED = af.VonMises(1.0), 0.08, 1000, (1, 2, 3, 4, 5), 3  # layers up to which 1/N is small
_LATE = 0.9  # positions of the last tokens
_EQUAL, _LAYERS, _EDGES = 4000, (2, 4, 8), np.geomspace(0.01, 1, 13)  # of influences


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Factors per layer; mean squares of the noise at the last tokens; influences."""
    sets, tokens, noisy = (6, 4000, 80) if quick else (12, 16_000, 400)
    exact = af.propagate(af.Attention(_F, _WARM), _P, _cos, max(_DEPTHS))
    bar = track(range(sets + noisy), progress, unit="set")
    factors = [_factors(tokens, seed) for seed, _ in zip(range(sets), bar)]
    squares = [_squares(exact, seed) for seed, _ in zip(range(noisy), bar)]
    predicted = [[_predicted(mask, depth) for depth in _DEPTHS] for mask in _MASKS]
    influence = [[_influence(a, layers) for layers in _LAYERS] for a in _STEPS]
    return {
        "factors": np.array(factors),
        "squares": np.array(squares),
        "predicted": np.array(predicted),
        "influence": np.array(influence),
    }


def _factors(size: int, seed: int) -> np.ndarray:
    """What each of two layers multiplies s^mu cos(k x) by, over the later half of the tokens: (steps, modes, powers)."""
    x = af.Uniform(af.Circle()).sample(size, np.random.default_rng([27, seed]))
    s, late = (np.arange(size) + 1) / size, slice(size // 2, None)
    start = np.stack([s**mu * np.cos(k * x[:, 0]) for k in _MODES for mu in _POWERS], axis=1)
    found = []
    for a in _STEPS:
        layer = af.Attention(_F, _EPS, residual=a, mask="causal")
        end = af.propagate(layer, x, start, 2, save_every=2).y[-1]
        found.append(np.sqrt((start[late] * end[late]).sum(axis=0) / (start[late] ** 2).sum(axis=0)))
    return np.reshape(found, (len(_STEPS), len(_MODES), len(_POWERS)))


def _cos(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0])


def _squares(exact: af.Solution, seed: int) -> np.ndarray:
    """Mean squared deviation of the late tokens from infinitely many, (masks, depths)."""
    x, late = _P.sample(_N, np.random.default_rng([72, seed])), slice(int(_LATE * _N), None)
    wanted = np.stack([exact.at(x[late], exact.t[depth])[:, 0] for depth in _DEPTHS])
    found = []
    for mask in _MASKS:
        run = af.propagate(af.Attention(_F, _WARM, mask=mask), x, _cos, max(_DEPTHS))
        found.append(((run.y[list(_DEPTHS), late, 0] - wanted) ** 2).mean(axis=1))
    return np.array(found)


def _predicted(mask: str | None, depth: int) -> tuple[float, bool]:
    """The same, predicted to leading order in 1/N; and whether a warning says that this order tells little."""
    layer, grid = af.Attention(_F, _WARM, mask=mask), _P.grid(256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AccuracyWarning)
        noise = af.predicted_noise(layer, _P, _cos, depth * layer.time_step, _N)
    square = float((_P.pdf(grid.points) * grid.weights) @ noise(grid.points)[:, 0] ** 2)
    return square * (np.log(1 / _LATE) / (1 - _LATE) if mask else 1.0), bool(caught)  # the mean of 1 / s


def _influence(a: float, layers: int) -> np.ndarray:
    """Of the positions between the edges on the last token, all weights equal, per position: (edges - 1,)."""
    tokens = np.zeros((_EQUAL, 1))
    tokens[:, 0] = 2 * np.pi * np.arange(_EQUAL) / _EQUAL
    A = af.Attention(_F, _EPS * 1e9, residual=a, mask="causal").operator(tokens)
    row = np.zeros(_EQUAL)
    row[-1] = 1.0
    for _ in range(layers):
        row = A.rmatvec(row)
    row[-1] -= (1 - a) ** layers
    ends = np.append(0, np.cumsum(row))[np.round(_EDGES * _EQUAL).astype(int)]
    return np.diff(ends) / np.diff(np.round(_EDGES * _EQUAL) / _EQUAL)


def _factor(constants, a: float, k, mu):
    """Predicted, per layer."""
    return 1 - a + a * np.exp(-_EPS / 2 * k**2) / (1 + constants["position"] * mu)


def _density(constants, a: float, layers: int, u: np.ndarray) -> np.ndarray:
    """Predicted influence of position u."""
    late = -constants["position"] * np.log(u)
    return sum(
        comb(layers, k) * (1 - a) ** (layers - k) * a**k * late ** (k - 1) / factorial(k - 1) for k in range(1, layers + 1)
    )


def _between_edges(constants, a: float, layers: int) -> np.ndarray:
    """Its mean between the edges."""
    fine = np.array([np.linspace(low, high, 101) for low, high in zip(_EDGES, _EDGES[1:])])
    middle = (fine[:, 1:] + fine[:, :-1]) / 2
    return _density(constants, a, layers, middle).mean(axis=1)


def check(data, constants) -> list[Check]:
    """Factors and influences to what finitely many tokens leave of them; noise as far as the leading order goes.

    Tolerances: of factors four standard errors of the sets, and 1/N for each token that sees itself, times some; of noise
    two standard errors and a tenth, the next order in 1/N; of influences the first and the last token of a bin.
    """
    checks, sets = [], len(data["factors"])
    mean, spread = data["factors"].mean(axis=0), data["factors"].std(axis=0, ddof=1) / np.sqrt(sets)
    for i, a in enumerate(_STEPS):
        for m, k in enumerate(_MODES):
            for j, mu in enumerate(_POWERS):
                claim = f"a = {a:g}, k = {k}, mu = {mu:g}: factor per layer"
                checks.append(Check(claim, _factor(constants, a, k, mu), mean[i, m, j], 4 * spread[i, m, j] + 0.002))
    squares = data["squares"].mean(axis=0)
    error = data["squares"].std(axis=0, ddof=1) / np.sqrt(len(data["squares"])) / squares
    for i, mask in enumerate(_MASKS):
        for j, depth in enumerate(_DEPTHS):
            if depth <= _TRUSTED:
                ratio = np.sqrt(squares[i, j] / data["predicted"][i, j, 0])
                claim = f"{mask or 'no mask'}, {depth} layers: measured over predicted noise"
                checks.append(Check(claim, 1.0, ratio, 2 * error[i, j] + 0.1))
    for i, a in enumerate(_STEPS):
        for j, layers in enumerate(_LAYERS):
            predicted = _between_edges(constants, a, layers)
            off = np.abs(data["influence"][i, j] / predicted - 1).max()
            checks.append(Check(f"a = {a:g}, {layers} layers: largest relative error of an influence", 0.0, off, 0.05))
    return checks


def draw(figure, data, constants) -> None:
    """Factors over the power of the position; noise over depth; influence over position."""
    left, middle, right = figure.subplots(1, 3)
    fine, sets = np.linspace(0, _POWERS[-1], 100), len(data["factors"])
    error = 2 * data["factors"].std(axis=0, ddof=1) / np.sqrt(sets)
    for i, (a, fill) in enumerate(zip(_STEPS, ("full", "none"))):
        for m, (k, colour) in enumerate(zip(_MODES, style.shades(len(_MODES)))):
            left.plot(fine, _factor(constants, a, k, fine), "-" if a == 1 else "--", color=colour)
            look = {"fmt": style.MARKERS[m], "color": colour, "fillstyle": fill}
            label = f"k = {k}" if a == 1 else None
            left.errorbar(_POWERS, data["factors"][:, i, m].mean(axis=0), error[i, m], label=label, **look)
    left.legend(frameon=False, ncols=2, loc="upper right")
    left.set_ylim(0, 1.25)
    style.finish(left, "", "power μ of the position", "factor per layer of s^μ cos kx")
    left.set_title("a  lines: predicted; full: a = 1, open: a = ½", loc="left")

    squares = data["squares"].mean(axis=0)
    bars = data["squares"].std(axis=0, ddof=1) / np.sqrt(len(data["squares"])) / np.sqrt(squares)
    for i, (mask, colour, marker) in enumerate(zip(_MASKS, (style.ACCENT, style.INK), "os")):
        middle.plot(_DEPTHS, np.sqrt(data["predicted"][i, :, 0]), color=colour)
        warned = data["predicted"][i, :, 1] > 0
        for some, fill in ((~warned, "full"), (warned, "none")):
            if some.any():
                label = ("causal" if mask else "no mask") if fill == "full" else "causal, with the warning"
                depths = np.array(_DEPTHS)[some]
                look = {"fmt": marker, "color": colour, "fillstyle": fill, "label": label}
                middle.errorbar(depths, np.sqrt(squares[i])[some], bars[i][some], **look)
    middle.set_xticks(_DEPTHS)
    middle.set_ylim(0, None)
    middle.legend(frameon=False, loc="upper left")
    style.finish(middle, "", "layers", "noise at the last tokens (rms)")
    middle.set_title(f"b  lines: predicted, leading order; N = {_N}", loc="left")

    u, centres = np.geomspace(_EDGES[0], 1, 200), np.sqrt(_EDGES[1:] * _EDGES[:-1])
    for j, (layers, colour) in enumerate(zip(_LAYERS, style.shades(len(_LAYERS)))):
        for i, (a, fill) in enumerate(zip(_STEPS, ("full", "none"))):
            right.plot(u, _density(constants, a, layers, u), "-" if a == 1 else "--", color=colour)
            label = f"{layers} layers" if a == 1 else None
            right.plot(centres, data["influence"][i, j], style.MARKERS[j], color=colour, fillstyle=fill, label=label)
    right.set(xscale="log", yscale="log", ylim=(1e-6, 60))
    style.plain_log(right.xaxis)
    right.legend(frameon=False, loc="lower left")
    style.finish(right, "", "position u", "influence density on the last token")
    right.set_title("c  equal weights; full: a = 1, open: a = ½", loc="left")
