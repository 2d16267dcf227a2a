"""Error bars from one set of tokens, without their density, hold the infinite-token value as often as they say.

To first order a feature differs from its infinite-token value by the mean of its influence function over the tokens. Its
values are the responses I_j of the feature to the mass of each token, through the weights, the key bias and all layers:

    standard error^2 = sum_j I_j^2.

Here: p proportional to exp(.6 cos(x - .4) + .3 sin 2x) on the circle, H0 = sin x + .3 cos 2x, five layers, every
normalisation that is a key bias; fresh tokens for each set, and the infinite-token value by quadrature. A set counts by the
share of its queries that lie within the interval: the features of one set move together.

Source: derived for this package; the infinitesimal jackknife is Jaeckel 1972.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "One set of tokens tells its own error: intervals cover what they promise, whatever the normalisation"
CONSTANTS = {"standard_error": 1.0}  # in roots of the sum of squared responses
WRONG = {"standard_error": 0.8}
PANELS = 2

_DENSITY = af.Density(af.Circle(), lambda x: 0.6 * np.cos(x[..., 0] - 0.4) + 0.3 * np.sin(2 * x[..., 0]))
_RULES = {"softmax": "softmax", "α = 1/2": af.DensityCorrected(0.5), "column": "column", "Sinkhorn": "sinkhorn"}
_EPSILON, _LAYERS = 0.1, 5
_QUERIES = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]
_EVERYWHERE = np.linspace(0, 2 * np.pi, 81)[:, None]
_NOMINAL = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])


def _initial(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0])


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Deviations over root sums of squares (rules, sets, queries); one set with its errors, and the infinite-token curve."""
    sets, tokens = (80, 500) if quick else (150, 1000)
    layers = [_layer(rule) for rule in _RULES.values()]
    infinite = [af.propagate(layer, _DENSITY, _initial, _LAYERS).at(_QUERIES) for layer in layers]
    scores = np.empty((len(layers), sets, len(_QUERIES)))
    for k in track(range(sets), progress, sets, "set"):
        x = _DENSITY.sample(tokens, rng=k)
        for layer, value, score in zip(layers, infinite, scores):
            bars = af.error_bars(layer, x, _initial, _LAYERS, _QUERIES)
            score[k] = ((bars.features - value) / bars.noise)[:, 0]
    one = af.error_bars(layers[0], _DENSITY.sample(tokens, rng=0), _initial, _LAYERS, _EVERYWHERE)
    curve = af.propagate(layers[0], _DENSITY, _initial, _LAYERS).at(_EVERYWHERE)
    return {
        "scores": scores,
        "tokens": np.array(tokens),
        "features": one.features[:, 0],
        "noise": one.noise[:, 0],
        "curve": curve[:, 0],
    }


def _layer(rule) -> af.Attention:
    return af.Attention(af.SquaredDistance(af.Circle()), _EPSILON, rule, rtol=1e-8)


def _coverage(data, nominal: float, constants) -> tuple[np.ndarray, np.ndarray]:
    """Of each rule, and its standard error over the sets."""
    inside = np.abs(data["scores"]) < ndtri((1 + nominal) / 2) * constants["standard_error"]
    shares = inside.mean(axis=2)
    return shares.mean(axis=1), shares.std(axis=1, ddof=1) / np.sqrt(shares.shape[1])


def check(data, constants) -> list[Check]:
    """Coverage of nominal 95 % for each rule, and of 50 and 80 % for all together."""
    checks = [
        Check(f"{name}: coverage of nominal 95 %", 0.95, float(share), 0.03)
        for name, share in zip(_RULES, _coverage(data, 0.95, constants)[0])
    ]
    for nominal in (0.5, 0.8):  # 4 standard errors of the quick run
        share = _coverage(data, nominal, constants)[0].mean()
        checks.append(Check(f"coverage of nominal {nominal:.0%}, all", nominal, float(share), 0.06))
    return checks


def draw(figure, data, constants) -> None:
    """One set with its intervals beside the infinite-token curve; measured over nominal coverage."""
    left, right = figure.subplots(1, 2)
    x, half = _EVERYWHERE[:, 0], ndtri(0.975) * constants["standard_error"] * data["noise"]
    band = (data["features"] - half, data["features"] + half)
    left.fill_between(x, *band, color=style.ACCENT, alpha=0.25, linewidth=0, label="95 %, from the set alone")
    left.plot(x, data["features"], color=style.ACCENT, label=f"one set, N = {data['tokens']}")
    left.plot(x, data["curve"], "--", color=style.INK, label="N = ∞")
    left.margins(y=0.2)
    left.legend(frameon=False, loc="upper right")
    style.finish(left, f"a  softmax, {_LAYERS} layers, ε = {_EPSILON:g}", "position x (rad)", "feature H")

    right.plot([40, 100], [40, 100], color=style.INK, label="as promised")
    measured = [_coverage(data, nominal, constants) for nominal in _NOMINAL]
    for k, (name, marker, colour) in enumerate(zip(_RULES, style.MARKERS, style.shades(len(_RULES)))):
        shares, errors = (100 * np.array([one[part][k] for one in measured]) for part in (0, 1))
        right.errorbar(100 * _NOMINAL + (k - 1.5) * 0.5, shares, 2 * errors, fmt=marker, color=colour, label=name)
    right.set(xlim=(45, 101.5), ylim=(40, 102))
    right.legend(frameon=False, loc="upper left")
    style.finish(right, f"b  {data['scores'].shape[1]} sets", "nominal coverage (%)", "measured coverage (%)")
