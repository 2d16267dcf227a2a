"""Layer norms are clocks: waves grow exponentially in depth under post-norm, as a power of it under pre-norm and peri-norm.

Uniform tokens on S^(d-1), weights exp(beta <x, y>): A x = a_1 x, and a wave of degree k, lambda = k (k + d - 2), lets a token
climb by lambda a_k / beta times its displacement. Layers of residual a multiply the displacement of directions by

    post  x <- N(x + a A x)         1 + a c_k / (1 + a a_1),          c_k = lambda a_k / beta
    pre   x <- x + a A N(x)         1 + a c_k / r,                    r = 1 + a a_1 l after layer l
    peri  x <- x + a N(A N(x))      1 + a c_k / (a_1 r),              r = 1 + a l

since the length r of tokens grows under pre-norm and peri-norm, by which directions slow down: displacements grow as the power
c_k / a_1 of r, the same for both, on the clocks a_1 a l and a l. a_k = I_k(beta) / I_0(beta) on the circle.

Left: a wave of degree 2 over depth. Right: how fast waves grow by degree, the rate of post-norm and the power of the other
two over the last half of the layers. Lines are predicted, points are 80 tokens on the circle.

Source: derived for this package; norms: Xiong et al. 2020, Kim et al. 2025.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ive

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Waves grow exponentially in depth under post-norm, as one power of it under pre- and peri-norm"
CONSTANTS = {"climb": 1.0}  # c_k in units of lambda a_k / beta
WRONG = {"climb": 1.01}
PANELS = 2

NORMS = ("post", "pre", "peri")
_BETA, _RESIDUAL, _TOKENS, _TINY = 4.0, 0.1, 80, 1e-9
_WAVES = np.arange(1, 9)


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Growth of each wave by layer: (norms, layers + 1, waves)."""
    depth, uniform = 200 if quick else 1000, 2 * np.pi * np.arange(_TOKENS) / _TOKENS
    displaced = _TINY * np.sin(np.outer(uniform, _WAVES) + _WAVES**2).sum(axis=1)
    layer = af.Attention(af.DotProduct(), 1 / (2 * _BETA), residual=_RESIDUAL, backend="reference")
    waves, grown = np.exp(-1j * np.outer(uniform, _WAVES)), []
    for norm in track(NORMS, progress, len(NORMS)):
        layers = 30 if norm == "post" else depth  # then waves are no longer small
        ahead, back = (
            af.evolve(layer, np.c_[np.cos(x), np.sin(x)], layers, norm=norm).y @ [1, 1j]
            for x in (uniform + displaced, uniform - displaced)
        )
        size = np.abs(np.angle(ahead / back) @ waves)
        grown.append(np.concatenate([size / size[0], np.full((depth - layers, len(_WAVES)), np.nan)]))
    return {"grown": grown}


def _predicted(norm: str, layers: np.ndarray, k, constants) -> np.ndarray:
    """Growth after `layers`, 0, 1, ..., of waves k."""
    a, first = ive(k, _BETA) / ive(0, _BETA), ive(1, _BETA) / ive(0, _BETA)
    climb = constants["climb"] * k**2 * a / _BETA
    r, r_of_mean = 1 + _RESIDUAL * layers, 1 + _RESIDUAL * first * layers
    length = {"post": np.full(len(layers), 1 + _RESIDUAL * first), "pre": r_of_mean, "peri": first * r}[norm]
    steps = np.log1p(_RESIDUAL * climb / length[:, None])
    return np.exp(np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps[1:], axis=0)]))


def _speed(norm: str, grown: np.ndarray) -> np.ndarray:
    """Of growth (layers + 1, waves): per layer under post-norm, else by powers of depth, over the last half."""
    logs = np.log(grown[np.isfinite(grown[:, 0])])
    last, half = len(logs) - 1, (len(logs) - 1) // 2
    return (logs[last] - logs[half]) / (last - half if norm == "post" else np.log(last / half))


def check(data, constants) -> list[Check]:
    """Growth at every depth; and the powers, which tend to one limit."""
    checks, layers = [], np.arange(data["grown"].shape[1])
    for norm, grown in zip(NORMS, data["grown"]):
        off = np.nanmax(np.abs(np.log(grown / _predicted(norm, layers, _WAVES, constants))))
        checks.append(Check(f"{norm}: growth of waves up to degree 8, largest relative error", 0.0, off, 1e-6))
        speed, predicted = (
            _speed(norm, grown),
            _speed(norm, _predicted(norm, layers, _WAVES, constants)[: np.isfinite(grown[:, 0]).sum()]),
        )
        checks.append(
            Check.relative(f"{norm}: {'rate' if norm == 'post' else 'power'} of degree 3", predicted[2], speed[2], 1e-5)
        )
    return checks


def draw(figure, data, constants) -> None:
    """A wave over depth; how fast, by degree."""
    left, right = figure.subplots(1, 2)
    layers, colours = np.arange(data["grown"].shape[1]), style.shades(3)
    shown = np.unique(np.geomspace(1, len(layers) - 1, 18).astype(int))
    for norm, grown, colour, marker in zip(NORMS, data["grown"], colours, style.MARKERS):
        left.plot(layers[1:], _predicted(norm, layers, _WAVES, constants)[1:, 1], color=colour)
        left.plot(shown, grown[shown, 1], marker, color=colour, label=f"{norm}-norm")
    left.set(xscale="log", yscale="log", ylim=(0.8, 3 * np.nanmax(data["grown"][1:, :, 1])))
    style.finish(left, "", f"layers of residual {_RESIDUAL:g}", "growth of a wave of degree 2")
    left.legend(frameon=False)
    for norm, grown, colour, marker in zip(NORMS, data["grown"], colours, style.MARKERS):
        known = np.isfinite(grown[:, 0]).sum()
        scale, label = (10.0, "post: 10 × rate per layer") if norm == "post" else (1.0, f"{norm}: power of depth")
        right.plot(_WAVES, scale * _speed(norm, _predicted(norm, layers, _WAVES, constants)[:known]), color=colour)
        right.plot(_WAVES, scale * _speed(norm, grown), marker, color=colour, label=label)
    style.finish(right, "", f"degree k of the wave, β = {_BETA:g}", "how fast it grows")
    right.legend(frameon=False)
