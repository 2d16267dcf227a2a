"""Handwritten digits: attentions that learn their metric, beside the nearest neighbour, which learns nothing.

Half of the 1797 digits that come with scikit-learn, their 64 pixels scaled to [0, 1], are learned
from.
"""

from __future__ import annotations

from . import Claim, Report
from .repeats import (
    COLUMNS,
    EPOCHS,
    LEGEND,
    METHODS,
    PAPER,
    Entry,
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

NEAREST = "nearest neighbour", ""
TRAIN, GOAL = 0.5, 0.95
LEARNED = METHODS[:3]


def run(repeats: int = 10, epochs: int = EPOCHS, jobs: int = -1) -> Report:
    """Three attentions of one block at three learning rates.

    Parameters
    ----------
    repeats, epochs, jobs : int
        Stratified splits, epochs of Adam, processes (-1: all cores).

    Returns
    -------
    Report
    """
    from sklearn.neighbors import KNeighborsClassifier

    entries = attentions(epochs, methods=LEARNED)
    entries.append(Entry(NEAREST, lambda random_state: KNeighborsClassifier(1)))
    fits = run_repeats(entries, split, repeats, jobs)

    top = best(fits)
    lead = paired(fits[top], fits[NEAREST])
    names = f"the best attention ({', '.join(top)})", NEAREST[0]
    beaten = "Nothing learned here beats" if lead[0] <= lead[1] else "What is learned beats"
    accuracy = mean(fits[top])
    claims = [Claim("accuracy of the best attention", f"{accuracy:.4f}", f"at least {GOAL:g}", bool(accuracy >= GOAL))]
    text = (
        f"{TRAIN:.0%} of 1797 digits to learn from, the others to be tested on, {repeats} stratified splits, {epochs} epochs, one block.\n"
        f"{LEGEND}\n\n{metric_against_self(fits)}\n{beaten} the nearest neighbour: {said(*names, lead)}."
    )
    shown = {method: (method, PAPER) for method in LEARNED}
    columns = ["attention", "learning rate", *COLUMNS]
    title = "Digits: attentions that learn their metric"
    return Report(title, text, columns, rows(entries, fits), claims, lambda ax: draw_losses(ax, fits, shown, "Digits"))


def split(repeat: int) -> Task:
    """One stratified split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    tokens, others, labels, answers = train_test_split(
        pixels / 16, digits, train_size=TRAIN, stratify=digits, random_state=repeat
    )
    return Task(tokens, labels, others, answers)
