"""The anatomy of every head of a model, as a table and a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .. import checks, display, files
from ..progress import track
from .bert import WEIGHTS, hidden_states
from .head_anatomy import Anatomy, anatomy
from .pretrained import read_heads


@dataclass(frozen=True)
class Survey:
    """What `survey` found.

    Attributes
    ----------
    heads : dict
        (layer, head) -> Anatomy.
    states : list over layers of lists over sentences of (tokens, n) arrays
        See `hidden_states`.
    """

    heads: dict[tuple[int, int], Anatomy]
    states: list[list[np.ndarray]] = field(repr=False)

    __repr__ = display.of_fields

    def summary(self) -> str:
        """A line for each head, and what the one nearest to a metric does."""
        lines = [
            f"{len(self.heads)} heads on {sum(map(len, self.states[0]))} tokens of {len(self.states[0])} texts; "
            "shares of what the logits of a token differ by",
            "  head   key  metric  repelling  antisymmetric  perplexity  local in",
        ]
        for (layer, head), one in self.heads.items():
            key, metric, repelling, antisymmetric = one.shares.values()
            lines.append(
                f"{f'{layer}.{head}':>6}  {key:.2f}  {metric:6.2f}  {repelling:9.2f}  {antisymmetric:13.2f}"
                f"  {one.perplexity:10.1f}  {one.local_directions:8d}"
            )
        (layer, head), nearest = min(self.heads.items(), key=lambda item: item[1].distance)
        return "\n".join([*lines, f"nearest to a metric is {layer}.{head}. {nearest.verdict}"])

    def to_csv(self, path: str | os.PathLike) -> None:
        """A row for each head: its numbers and the verdict."""
        with files.whole(path, "w") as file:
            writer = csv.writer(file)
            writer.writerow(["layer", "head", *next(iter(self.heads.values())).numbers, "verdict"])
            writer.writerows([*place, *one.numbers.values(), one.verdict] for place, one in self.heads.items())

    def plot(self, ax=None):
        """The shares of every head, and which are local somewhere; returns the Axes."""
        from ..plotting.heads import plot_shares

        shares = {place: one.shares for place, one in self.heads.items()}
        return plot_shares(shares, {place: one.local_directions for place, one in self.heads.items()}, ax)


def survey(folder: str | os.PathLike, sentences: Sequence[str], progress: bool = False) -> Survey:
    """Take every head of a BERT-type model apart, on the tokens of all sentences together.

    Raises as `hidden_states`, and where the tokens are too many for `anatomy`.
    """
    states = hidden_states(folder, sentences)
    model = read_heads(checks.path(folder, "folder") / WEIGHTS)
    assert model.heads is not None  # hidden_states needed them
    places = [(layer, head) for layer in model.stems for head in range(model.heads)]
    tokens = [np.concatenate(state) for state in states]
    found = {}
    for layer, head in track(places, progress, unit="head"):
        try:
            found[layer, head] = anatomy(model.head(layer, head), tokens[layer])
        except ValueError as error:
            raise ValueError(f"head {layer}.{head} of {os.fspath(folder)!r} can not be taken apart: {error}") from None
    return Survey(found, states)
