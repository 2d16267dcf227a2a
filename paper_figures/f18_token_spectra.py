"""Eigenvalues of a layer on random tokens: the equation's, with a bias, a mean of few tokens and a noise known beforehand.

A layer on N tokens is a matrix. Its eigenvalues lambda, as rates (lambda - 1) / tau, are those of the limit equation up to

    bias of the temperature,  (lambda(A) - 1) / tau - limit,  A the layer on infinitely many tokens, O(eps),
    mean and noise of few tokens,  O(1 / N) and O(N^(-1/2)),  perturbation theory of second order around A,

the formulas at the head of `attnflow.continuum.rates`. Equal rates, and rates that N tokens mix, repel each other: theirs
are the moments of the ordered eigenvalues of a small Gaussian matrix. All of them are computed before a token is drawn.

Here: a torus, log p = cos x + cos(y) / 2 + 3 cos(x - 2y) / 10 up to a constant, eps = 0.1, the nine rates that follow
the constant's; the limit has drift 2 grad log p under softmax, grad log p under Sinkhorn. Constants say how many times
each predicted part is added.

Source: Singer 2006 and Coifman & Lafon 2006 (graph Laplacians and their limit); bias, mean and noise derived for this package.
"""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 3
TITLE = "Random tokens have the equation's spectrum, with the bias and the noise predicted before they are drawn"
LONG = True
CONSTANTS = {"bias": 1.0, "mean": 1.0, "noise": 1.0}
WRONG = {"bias": 0.0, "mean": 1.0, "noise": 1.0}

NAMES = ("softmax", "Sinkhorn")
_TORUS = af.Torus([2 * np.pi, 2 * np.pi])
_P = af.Density(_TORUS, lambda x: np.cos(x[..., 0]) + 0.5 * np.cos(x[..., 1]) + 0.3 * np.cos(x[..., 0] - 2 * x[..., 1]))
_LAYERS = [af.Attention(af.SquaredDistance(_TORUS), 0.1, name.lower(), rtol=1e-6) for name in NAMES]


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Predicted rates; then those of many sets of few tokens, and of few sets of many (fewer where NUFFT is missing)."""
    k, cases = (6, [(4_000, 12)]) if quick else (10, [(10_000, 60), (100_000, 8)])
    if not quick and not af.backends()["nufft"].startswith("available"):
        cases = [(10_000, 20), (20_000, 4)]
    predicted = [[af.predicted_rates(layer, _P, k, size) for layer in _LAYERS] for size, _ in cases]
    data = {"size": np.array([size for size, _ in cases]), "limit": np.array([one.limit[1:] for one in predicted[0]])}
    for part in ("bias", "mean", "noise"):
        data[part] = np.array([[getattr(one, part)[1:] for one in row] for row in predicted])
    for j, (size, sets) in enumerate(cases):
        data[f"rates_{j}"] = np.empty((len(_LAYERS), sets, k - 1))
        for seed, i in track(list(np.ndindex(sets, len(_LAYERS))), progress, unit="set"):
            tokens = _P.sample(size, np.random.default_rng([size, seed]))
            data[f"rates_{j}"][i, seed] = _LAYERS[i].spectrum(tokens, k).rates[1:]
    return data


def _shift(data, constants, j: int) -> np.ndarray:
    """What size[j] tokens are predicted to add to the equation's rates on average, (normalisations, ranks)."""
    return constants["bias"] * data["bias"][j] + constants["mean"] * data["mean"][j]


def _deviations(data, constants, j: int) -> np.ndarray:
    """Measured less predicted rates, in predicted standard deviations: (normalisations, sets, ranks)."""
    predicted = data["limit"] + _shift(data, constants, j)
    return (data[f"rates_{j}"] - predicted[:, None]) / (constants["noise"] * data["noise"][j][:, None])


def check(data, constants) -> list[Check]:
    """Deviations over the noise: their size, the largest; and their size from the equation itself, the bias left out.

    Tolerances of sizes are four standard errors of as many independent normal numbers.
    """
    checks = []
    for i, name in enumerate(NAMES):
        for j, size in enumerate(data["size"]):
            z = _deviations(data, constants, j)[i]
            bare = _deviations(data, {**constants, "bias": 0.0, "mean": 0.0}, j)[i]
            shift = (_shift(data, constants, j) / (constants["noise"] * data["noise"][j]))[i]
            tolerance, case = 4 / np.sqrt(2 * z.size), f"{name}, {size} tokens"
            checks += [
                Check(f"{case}: rms deviation, in noises", 1.0, _rms(z), tolerance),
                Check(f"{case}: largest deviation, in noises", 0.0, np.abs(z).max(), 4.0),
                Check(f"{case}: rms from the equation, in noises", np.hypot(1, _rms(shift)), _rms(bare), 2 * tolerance),
            ]
    return checks


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def draw(figure, data, constants) -> None:
    """The rates; what tokens add to the equation's; what is left, in units of the predicted noise."""
    left, middle, right = figure.subplots(1, 3)
    last = len(data["size"]) - 1
    size, rates, limit, shift = data["size"][last], data[f"rates_{last}"], data["limit"], _shift(data, constants, last)
    noise, ranks = constants["noise"] * data["noise"][last], np.arange(1, limit.shape[1] + 1)
    looks = list(zip(NAMES, (style.INK, style.ACCENT), "os", (-0.19, 0.19)))
    bars = {"width": 0.34, "alpha": 0.35, "linewidth": 0}
    for i, (name, colour, marker, aside) in enumerate(looks):
        x = ranks + aside
        left.hlines(limit[i], x - 0.17, x + 0.17, color=colour, label=f"equation, {name}")
        left.plot(x, rates[i, 0], marker, color=colour, fillstyle="none", label="tokens")
        middle.bar(x, 4 * noise[i], bottom=shift[i] - 2 * noise[i], color=colour, label=f"predicted ± 2 noises, {name}", **bars)
        middle.hlines(shift[i], x - 0.17, x + 0.17, color=colour)
        for step, row in zip(np.linspace(-0.12, 0.12, rates.shape[1]), rates[i] - limit[i]):
            middle.plot(x + step, row, marker, color=colour, markersize=1.8)
    left.legend(frameon=False)
    style.finish(left, "", "rank of the rate", "rate (λ − 1) / τ  (1/time)")
    left.set_title(f"a  {size} tokens, one set", loc="left")
    middle.use_sticky_edges = False  # of bars
    middle.legend(frameon=False, loc="upper left")
    style.finish(middle, "", "rank of the rate", "tokens' rate − equation's  (1/time)")
    middle.set_title(f"b  what {rates.shape[1]} sets of them add to the equation", loc="left")
    right.axhspan(-1, 1, color="0.9", linewidth=0, label="predicted: 0 ± 1")
    for j, filled in zip(range(last + 1), ("none", "full")):
        z = _deviations(data, constants, j)
        for i, (name, colour, marker, aside) in enumerate(looks):
            x = ranks + aside + 0.17 * (j - 0.5)
            look = {"fmt": marker, "color": colour, "fillstyle": filled, "markersize": 3, "elinewidth": 0.8}
            label = f"{name}, {z.shape[1]} × {data['size'][j]} tokens"
            right.errorbar(x, z[i].mean(axis=0), z[i].std(axis=0, ddof=1), label=label, **look)
    right.set_ylim(-1.9, 3.9)
    right.legend(frameon=False, loc="upper left")
    style.finish(right, "", "rank of the rate", "(measured − predicted) / noise")
    right.set_title("c  what is left: mean ± standard deviation", loc="left")
    for ax in (left, middle, right):
        ax.set_xticks(ranks)
