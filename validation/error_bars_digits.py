"""Error bars on real tokens, the 1797 digits of scikit-learn, against random halves of them.

No density is known here, and none is needed: `attnflow.error_bars` takes the tokens alone. What it says is judged by
subsampling: to first order features of a random half of the tokens scatter with one standard error of all, since
1/(N/2) - 1/N = 1/N. Their mean lies off the features of all tokens by as much as these lie off the infinite-token value on
average, C/N: what a standard error does not hold. The tokens carry their labels as 10 columns of zeros and ones; features are asked for at
digits that were put aside.

Standard errors are of first order in 1/N. What the next order adds to the scatter is three times as much of halves as of
all, by the same counting, and most where normalisation leaves little of the first: at the lower perplexity claims are made
of softmax alone.
"""

from __future__ import annotations

from itertools import product

import numpy as np

import attnflow as af

from . import Claim, Report

ASIDE, LAYERS, HALVES = 25, 2, 50
PERPLEXITIES = (60, 300)
ALLOWED = (0.85, 1.15)
RULES = {"softmax": "softmax", "alpha = 1/2": af.DensityCorrected(0.5), "column": "column", "sinkhorn": "sinkhorn"}


def run() -> Report:
    """Relative standard errors and bias for each normalisation, and the scatter of random halves."""
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits))
    queries, tokens = digits[order[:ASIDE]], digits[order[ASIDE:]]
    values = np.eye(10)[labels[order[ASIDE:]]]
    halves = [rng.permutation(len(tokens))[: len(tokens) // 2] for _ in range(HALVES)]
    f = af.SquaredDistance(af.Euclidean(digits.shape[1]))
    rows, claims = [], []
    for perplexity, (name, rule) in product(PERPLEXITIES, RULES.items()):
        layer = af.Attention(f, af.epsilon_for_perplexity(f, tokens, perplexity), rule, rtol=1e-8)
        bars = af.error_bars(layer, tokens, values, LAYERS, queries)
        print(f"perplexity {perplexity}, {name}: {bars}")
        of_halves = np.stack([_features(layer, tokens[half], values[half], queries) for half in halves])
        size = np.sqrt(np.mean(bars.noise**2))
        ratio = float(np.sqrt(np.mean(of_halves.var(axis=0, ddof=1))) / size)
        mean = float(np.sqrt(np.mean((of_halves.mean(axis=0) - bars.features) ** 2)) / size)
        numbers = f"{bars.noise_share:.4f}", f"{bars.bias_share:.4f}", f"{ratio:.3f}", f"{mean:.3f}"
        rows.append([str(perplexity), f"{layer.epsilon:.4g}", name, *numbers])
        if name == "softmax" or perplexity == max(PERPLEXITIES):
            held = bool(ALLOWED[0] <= ratio <= ALLOWED[1])
            what = f"perplexity {perplexity}, {name}: scatter of random halves over the standard error"
            claims.append(Claim(what, f"{ratio:.3f}", f"{ALLOWED[0]:g} to {ALLOWED[1]:g}", held))
    text = (
        f"{len(tokens)} digits of 64 pixels, their labels as features, {LAYERS} layers, at {ASIDE} digits put aside.\n"
        f"Relative to the features' root mean square. Scatter: standard deviation of {HALVES} random halves, mean: of the "
        "halves less all, both over the\nstandard error, root mean squares."
    )
    columns = [
        "perplexity",
        "eps (grey levels^2)",
        "normalisation",
        "relative standard error",
        "relative bias",
        "scatter",
        "mean",
    ]
    return Report("Error bars on the digits", text, columns, rows, claims)


def _features(layer: af.Attention, tokens: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return layer(tokens, af.propagate(layer, tokens, values, LAYERS - 1).y[-1], queries)
