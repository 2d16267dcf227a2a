"""Parts of surfaces: attentions over the vertices of meshes, along their edges and without them.

Caps, tubes, bulges and necks of random surfaces (`validation.surfaces`) are told apart by what a vertex sees and no
rotation changes. Tested on other surfaces: with edges a vertex attends to its neighbours on its own surface, without
to all vertices that were learned from.
"""

from __future__ import annotations

from functools import partial

import numpy as np

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
from .surfaces import PARTS, RINGS, SECTORS, join, random_surface

TRAIN, TEST, GOAL = 4, 20, 0.9
LEARNED = METHODS[:3]
WITH, WITHOUT = "along edges", "all pairs"
NEIGHBOURS = 7
NEAREST = f"{NEIGHBOURS} nearest neighbours", "", ""


def run(repeats: int = 10, epochs: int = EPOCHS, test: int = TEST, jobs: int = -1) -> Report:
    """Three attentions of one block at three learning rates, along edges and between all pairs.

    Parameters
    ----------
    repeats, epochs, test, jobs : int
        Sets of surfaces, epochs of Adam, surfaces tested on, processes (-1: all cores).

    Returns
    -------
    Report
    """
    from sklearn.neighbors import KNeighborsClassifier

    entries = attentions(epochs, WITH, methods=LEARNED, edges=True) + attentions(epochs, WITHOUT, methods=LEARNED)
    entries.append(Entry(NEAREST, lambda random_state: KNeighborsClassifier(NEIGHBOURS)))
    fits = run_repeats(entries, partial(surfaces, test=test), repeats, jobs)

    along, between = best(fits, None, WITH), best(fits, None, WITHOUT)
    gain = paired(fits[along], fits[between])
    top = max(along, between, key=lambda cells: mean(fits[cells]))
    accuracy = mean(fits[top])
    claims = [Claim("accuracy of the best attention", f"{accuracy:.4f}", f"at least {GOAL:g}", bool(accuracy >= GOAL))]
    names = [f"the best {cells[2]} ({', '.join(cells[:2])})" for cells in (along, between)]
    text = (
        f"{', '.join(PARTS)}: the parts of {TRAIN} surfaces of {RINGS * SECTORS + 2} vertices to learn from, of {test} others to be tested on,\n"
        f"{repeats} repeats, {epochs} epochs, one block.\n{LEGEND}\n\n"
        f"{metric_against_self(fits, WITH)}\n{metric_against_self(fits, WITHOUT)}\n"
        f"Edges: {said(*names, gain)};\n{said('the best of all', NEAREST[0], paired(fits[top], fits[NEAREST]))}."
    )
    shown = {method: (method, PAPER, WITH) for method in LEARNED}
    columns = ["attention", "learning rate", "keys", *COLUMNS]
    title = "Parts of surfaces: attentions over the vertices of meshes"
    return Report(
        title, text, columns, rows(entries, fits), claims, lambda ax: draw_losses(ax, fits, shown, f"Parts of surfaces, {WITH}")
    )


def surfaces(repeat: int, test: int) -> Task:
    """Vertices of one repeat, features in units of their deviation among those that are learned from."""
    rng = np.random.default_rng(repeat)
    (tokens, labels, edges), (others, answers, their_edges) = (
        join([random_surface(rng) for _ in range(count)]) for count in (TRAIN, test)
    )
    centre, scale = tokens.mean(axis=0), tokens.std(axis=0)
    return Task((tokens - centre) / scale, labels, (others - centre) / scale, answers, edges, their_edges)
