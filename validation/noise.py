"""Random tokens against the predicted noise: every normalisation, three (N, eps), one layer and twenty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm.auto import tqdm

import attnflow as af

from . import Claim, Report

SEEDS, DEPTHS = 500, (1, 20)
PAIRS = [(1000, 0.05), (1000, 0.08), (1500, 0.04)]
NORMALIZATIONS = {
    "softmax": "softmax",
    "alpha = 1/2": af.DensityCorrected(0.5),
    "alpha = 1": af.DensityCorrected(1.0),
    "sinkhorn": af.Sinkhorn(tol=1e-6),
}
POINTS = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]


def run() -> Report:
    """Standard deviation over seeds of the features, p-weighted over the circle, over the predicted one."""
    density, f = af.VonMises(1.0), af.SquaredDistance(af.Circle())
    weight = density.pdf(POINTS) / density.pdf(POINTS).sum()
    rows, ratios = [], {}
    for name, normalization in NORMALIZATIONS.items():
        for n_tokens, epsilon in PAIRS:
            layer = af.Attention(f, epsilon, normalization)
            spread = _samples(layer, density, n_tokens, f"{name}, N = {n_tokens}").std(axis=0, ddof=1)
            for depth, deviation in zip(DEPTHS, spread):
                predict = af.predicted_noise(layer, density, _cos, depth * layer.time_step, n_tokens)
                measured, predicted = (
                    float(np.sqrt(weight @ np.square(field))) for field in (deviation, predict(POINTS)[:, 0])
                )
                ratios[name, depth] = ratios.get((name, depth), []) + [measured / predicted]
                numbers = f"{measured:.5f}", f"{predicted:.5f}", f"{measured / predicted:.3f}"
                rows.append([name, str(n_tokens), f"{epsilon:g}", str(depth), *numbers])
    claims = []
    for (name, depth), values in ratios.items():
        allowed = 0.15 if (name, depth) == ("alpha = 1", 20) else 0.05
        worst = max(values, key=lambda ratio: abs(ratio - 1))
        held = bool(abs(worst - 1) < allowed)
        claims.append(
            Claim(f"{name}, {depth} layer(s): worst ratio to the prediction", f"{worst:.3f}", f"1 +- {allowed:g}", held)
        )
    text = (
        f"Circle, p proportional to exp(cos x), H0 = cos x, {SEEDS} sets of N random tokens per row.\n"
        "Standard deviation over the sets, p-weighted root mean square over the circle."
    )
    columns = ["normalisation", "N", "eps", "layers", "measured", "predicted", "ratio"]
    return Report("Noise: random tokens against the prediction", text, columns, rows, claims)


def _cos(x: np.ndarray) -> np.ndarray:
    return np.cos(x[..., 0])


def _samples(layer: af.Attention, density: af.Density, n_tokens: int, label: str) -> np.ndarray:
    """(seeds, depths, points) features; two threads, since the engine leaves Python to others while it sums."""

    def features(seed: int) -> list[np.ndarray]:
        own = af.Attention(layer.f, layer.epsilon, layer.normalization)
        tokens = density.sample(n_tokens, rng=seed + 1000 * n_tokens)
        run = af.propagate(own, tokens, _cos, max(DEPTHS) - 1)
        return [own(tokens, run.y[depth - 1], queries=POINTS)[:, 0] for depth in DEPTHS]

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(tqdm(pool.map(features, range(SEEDS)), label, SEEDS, leave=False)))
