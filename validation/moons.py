"""Two moons: attentions that learn their metric, at the source paper's setting and beyond it.

Ruan and Zhang (2024) compare self-attention with metric-attention on 400 tokens of two noisy half circles, and print
curves. Here are numbers, beside nearest neighbours, the most that any classifier can reach, and another optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from . import Claim, Report
from .repeats import (
    COLUMNS,
    DECAY,
    EPOCHS,
    LEGEND,
    METHODS,
    PAPER,
    Cells,
    Entry,
    Fit,
    Task,
    attentions,
    best,
    draw_losses,
    mean,
    metric_against_self,
    paired,
    rows,
    run_repeats,
    said,
)

NOISE, TRAIN, TEST, NEIGHBOURS, GOAL = 0.2, 400, 20_000, 9, 0.96
BLOCKS = ("1 block", "2 blocks")
LBFGS = "L2", "L-BFGS", BLOCKS[0]


def run(repeats: int = 10, test: int = TEST, epochs: int = EPOCHS, jobs: int = -1) -> Report:
    """Four attentions at three learning rates with one and two blocks, beside three other ways.

    Parameters
    ----------
    repeats, test, epochs, jobs : int
        Sets of tokens, test tokens in each, epochs of Adam, processes (-1: all cores).

    Returns
    -------
    Report
    """
    from sklearn.neighbors import KNeighborsClassifier

    from attnflow.learning import L2Attention

    entries = [entry for k, blocks in enumerate(BLOCKS) for entry in attentions(epochs, blocks, blocks=k + 1)]
    by_lbfgs = partial(L2Attention, solver="lbfgs", weight_decay=DECAY, epochs=epochs, n_iter_no_change=epochs)
    neighbours = f"{NEIGHBOURS} nearest neighbours", "", ""
    entries.append(Entry(LBFGS, by_lbfgs, ("self", PAPER, BLOCKS[0])))
    entries.append(Entry(neighbours, lambda random_state: KNeighborsClassifier(NEIGHBOURS)))
    fits = run_repeats(entries, partial(moons, test=test), repeats, jobs)

    most, top = bayes_accuracy(NOISE), best(fits)
    margin = 4 * np.sqrt(most * (1 - most) / (test * repeats))
    highest = max(map(mean, fits.values()))
    accuracy = mean(fits[top])
    claims = [
        Claim(f"accuracy of the best attention ({', '.join(top)})", f"{accuracy:.4f}", f"at least {GOAL:g}", bool(accuracy >= GOAL)),
        Claim(
            "highest accuracy", f"{highest:.4f}", f"at most the possible {most:.4f} and four standard errors of the test tokens, {margin:.4f}",
            bool(highest - most <= margin),
        ),
    ]  # fmt: skip
    text = (
        f"Noise {NOISE:g}, {TRAIN} tokens to learn from, {test} to be tested on, {repeats} repeats, {epochs} epochs.\n{LEGEND}\n"
        f"L-BFGS is compared with self-attention by Adam at {PAPER}.\n\n{_what_decides(fits)}"
    )
    table = rows(entries, fits)
    table.append(["best possible, by quadrature", "", "", f"{most:.4f}", *[""] * (len(COLUMNS) - 1)])
    columns = ["attention", "learning rate", "blocks", *COLUMNS]
    return Report("Two moons: attentions that learn their metric", text, columns, table, claims, lambda ax: _draw(ax, fits))


def moons(repeat: int, test: int) -> Task:
    """Tokens of one repeat, and others to be tested on."""
    from sklearn.datasets import make_moons

    learned, others = (
        make_moons(TRAIN, noise=NOISE, random_state=repeat),
        make_moons(test, noise=NOISE, random_state=1000 + repeat),
    )
    return Task(*learned, *others)


def bayes_accuracy(noise: float, spacing: float = 0.02) -> float:
    """The most that any classifier reaches on two moons: the integral of max(p_0, p_1) / 2.

    By squares, whose error falls as their area where the densities cross (3e-6 at 0.02 for noise 0.2).

    Parameters
    ----------
    noise : float
        Standard deviation of each coordinate.
    spacing : float
        Side of the squares.

    Returns
    -------
    float

    Examples
    --------
    >>> print(f"{bayes_accuracy(0.2):.4f}")
    0.9710
    """
    reach = 6 * noise
    x, y = (np.arange(low - reach, high + reach, spacing) for low, high in ((-1, 2), (-0.5, 1)))
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    return float(np.maximum(*moon_densities(points, noise)).sum() * spacing**2 / 2)


def moon_densities(points: np.ndarray, noise: float, nodes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """p_0 and p_1 at points (..., 2): the mean, by Gauss nodes, of normal densities about points of a half circle."""
    roots, weights = np.polynomial.legendre.leggauss(nodes)
    angle = np.pi * (roots + 1) / 2
    circle = np.stack([np.cos(angle), np.sin(angle)])

    def density(centre: np.ndarray) -> np.ndarray:
        x, y = (np.exp(-((points[..., k, None] - centre[k]) ** 2) / (2 * noise**2)) for k in range(2))
        return (x * y) @ weights / (4 * np.pi * noise**2)

    return density(circle), density(np.array([[1.0], [0.5]]) - circle)


def _what_decides(fits: Mapping[Cells, Sequence[Fit]]) -> str:
    """How much of what metric is ahead is the family of metrics, and how much the optimiser, in the numbers of this run."""
    paper = {method: (method, PAPER, BLOCKS[0]) for method in METHODS}
    top, by_lbfgs = best(fits, "L2", BLOCKS[0]), fits[LBFGS]
    gap, closed = (mean(fits[cells]) - mean(fits[paper["L2"]]) for cells in (paper["metric"], top))
    reached = sum(fit.accuracy >= GOAL for fit in by_lbfgs)
    names = f"L2 at its best ({top[1]})", f"L2 at {PAPER}", f"metric at {PAPER}"
    sentences = [metric_against_self(fits, blocks) for blocks in BLOCKS]
    sentences.append(
        f"What decides, one block: metric is ahead of L2 by {gap:+.4f} at {PAPER}; how L2 is trained is worth {closed:+.4f} of it:\n"
        f"{said(names[0], names[1], paired(fits[top], fits[paper['L2']]))}, while\n"
        f"{said(names[2], names[0], paired(fits[paper['metric']], fits[top]))}.\n"
        f"L-BFGS takes L2 to {GOAL:g} in {reached} of {len(by_lbfgs)} repeats, to {max(fit.accuracy for fit in by_lbfgs):.4f} at most: "
        + (
            "such weights are in the family,\nand whether they are found is the optimiser's doing."
            if reached
            else "none found such weights."
        )
    )
    return "\n".join(sentences)


def _draw(ax, fits: Mapping[Cells, Sequence[Fit]]) -> None:
    shown = {method: (method, PAPER, BLOCKS[0]) for method in METHODS} | {"L2 by L-BFGS": LBFGS}
    draw_losses(ax, fits, shown, f"Two moons, {BLOCKS[0]}")
