"""Budgets between walls: plans that are run have the asked error, under every normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

import attnflow as af

from . import Claim, Report

SEEDS = 24
NORMALIZATIONS = {
    "softmax": "softmax",
    "alpha = 1/2": af.DensityCorrected(0.5),
    "sinkhorn": "sinkhorn",
    "column": "column",
}
LEAST, MOST = 0.7, 1.1  # of the asked error


@dataclass(frozen=True)
class Problem:
    """Tokens between walls of no flux, a start, a time, and errors that are asked for."""

    name: str
    density: af.Density
    initial: Callable
    t: float
    errors: tuple[float, ...]


_INTERVAL, _BOX = af.Box([[0.0, 1.0]]), af.Box([[0.0, 1.0], [0.0, 1.5]])
PROBLEMS = (
    Problem(
        "half a Gaussian",
        af.Density(_INTERVAL, lambda x: -((x[..., 0] - 0.3) ** 2) / 0.32),
        lambda x: np.cos(np.pi * x[..., 0]) + 0.4 * np.cos(2 * np.pi * x[..., 0]),
        0.06,
        (0.1, 0.05, 0.03),
    ),
    Problem("a slope", af.Density(_INTERVAL, lambda x: 1.2 * x[..., 0]), lambda x: x[..., 0] ** 2, 0.1, (0.1, 0.05, 0.02)),
    Problem(
        "a box",
        af.Density(_BOX, lambda x: 0.8 * x[..., 0] - 0.5 * x[..., 1]),
        lambda x: np.cos(np.pi * x[..., 0]) + 0.5 * np.cos(np.pi * x[..., 1] / 1.5),
        0.05,
        (0.1,),
    ),
)


def run(problems: tuple[Problem, ...] = PROBLEMS, seeds: int = SEEDS) -> Report:
    """Root mean square over token sets of the error that `compare` prints, over the asked one."""
    rows, ratios = [], []
    for problem in problems:
        f = af.SquaredDistance(problem.density.space)
        for error in problem.errors:
            for name, normalization in NORMALIZATIONS.items():
                plan = af.error_budget(f, problem.density, problem.initial, problem.t, error, normalization)
                ratio, spread = _achieved(plan, seeds, f"{problem.name}, {name}, {error:g}")
                ratios.append((ratio, spread))
                rows.append(
                    [problem.name, name, f"{error:g}", f"{plan.epsilon:.3g}", str(plan.layers), str(plan.n_tokens)]
                    + [f"{plan.predicted.n_eff:.0f}", plan.predicted.regime, f"{ratio:.3f} ± {spread:.3f}"]
                )
    within = all(LEAST - 2 * spread < ratio < MOST + 2 * spread for ratio, spread in ratios)
    values = [ratio for ratio, _ in ratios]
    found = f"{min(values):.3f} to {max(values):.3f}, mean {np.mean(values):.3f}"
    what = f"{len(rows)} plans between walls: achieved over asked error, two standard errors aside"
    claims = [Claim(what, found, f"{LEAST:g} to {MOST:g}", within)]
    text = (
        f"{seeds} sets of the planned number of random tokens per row, through the planned layers; ratio: root mean square of the\n"
        "error that compare prints over the asked one, ± one standard error. The bias at walls is of order sqrt(eps) under softmax,\n"
        "less under alpha = 1/2 and Sinkhorn: their plans are warmer."
    )
    columns = ["problem", "normalisation", "asked", "eps", "layers", "N", "N_eff", "regime", "achieved / asked"]
    return Report("Error budgets between walls: achieved over asked", text, columns, rows, claims)


def _achieved(plan: af.ErrorBudget, seeds: int, label: str) -> tuple[float, float]:
    """Achieved over asked, and its standard error."""
    equation, squares = af.limit(plan.layer, plan.density).solve(plan.initial, plan.t), []
    for seed in tqdm(range(seeds), label, leave=False):
        tokens = plan.density.sample(plan.n_tokens, rng=seed)
        run = af.propagate(plan.layer, tokens, plan.initial, plan.layers, save_every=plan.layers)
        squares.append(af.compare(run, equation).error[-1] ** 2)
    ratio = float(np.sqrt(np.mean(squares))) / plan.error
    return ratio, ratio * float(np.std(squares, ddof=1) / np.mean(squares) / (2 * np.sqrt(seeds)))
