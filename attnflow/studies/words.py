"""Layers from the words of a command: a normalisation with its number, heads on parts of the columns, a mask from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks, files
from ..attention import Attention, MultiHead, Perplexity, Sparse, epsilon_for_perplexity
from ..attention.names import normalization as as_normalization
from ..attention.sparse import Selective
from ..geometry import Euclidean
from ..similarity import Cosine, DotProduct, PseudoMetric, SquaredDistance, SquaredMap

# of all columns, and of some of them
PSEUDOMETRICS: dict[str, tuple[Callable, Callable]] = {
    "squared-distance": (lambda columns: SquaredDistance(Euclidean(columns)), lambda some, columns: SquaredMap(_Part(some))),
    "cosine": (lambda columns: Cosine(), lambda some, columns: SquaredMap(_Part(some, Cosine().query_features))),
    "dot-product": (lambda columns: DotProduct(), lambda some, columns: DotProduct(*[np.eye(columns)[some]] * 2)),
}
_TARGET = 30.0  # tokens that the median token attends to, where epsilon is "auto"


def read_epsilons(text: str) -> list[float] | None:
    """Temperatures separated by commas; None for "auto"."""
    if text == "auto":
        return None
    try:
        return [checks.positive(float(number), "epsilon") for number in text.split(",")]
    except ValueError as error:
        if str(error).startswith("epsilon"):
            raise
        raise ValueError(f"epsilon must be a number or 'auto', or numbers separated by commas, got {text[:40]!r}") from None


def read_mask(mask: Any) -> Any:
    """What a layer takes as its mask: None, "causal", or labels or edges, those of an .npy file by its name."""
    if not isinstance(mask, str) or mask == "causal":
        return mask
    try:
        return files.read_array(mask, "mask")
    except FileNotFoundError:
        raise ValueError(f"mask must be 'causal' or an .npy file, but there is none at {mask!r}") from None


def kept_mask(mask: Any) -> Any:
    """A mask that `read_mask` has read, as JSON that it reads again: labels by numbers, edges as they are.

    Examples
    --------
    >>> kept_mask(np.array(["b", "a", "b"])), kept_mask("causal")
    ([1, 0, 1], 'causal')
    """
    if not isinstance(mask, np.ndarray):
        return mask
    return (np.unique(mask, return_inverse=True)[1] if mask.ndim == 1 else mask).tolist()


def make_layer(
    tokens: np.ndarray,
    pseudometric: str = "squared-distance",
    epsilon: str = "auto",
    normalization: str = "softmax",
    heads: int | None = None,
    mask: str | Sequence | np.ndarray | None = None,
) -> tuple[Attention | MultiHead, list[str]]:
    """The layer that a command asks for, and how its temperatures were found, in words.

    Several heads are averaged. Asked for by their number, they divide the columns of the tokens among them; by several
    temperatures alone, each sees all columns. "auto" takes the temperature at which the median token attends to 30 others,
    for every head; normalisations that choose a temperature of their own take none.

    Parameters
    ----------
    tokens : (N, n) array
    pseudometric : {"squared-distance", "cosine", "dot-product"}
    epsilon : str
        See `read_epsilons`: one temperature, or one for each head.
    normalization : str
        See `attnflow.attention.names`.
    heads : int, optional
    mask : str, labels (N,) or edges (E, 2), optional
        See `read_mask`.

    Raises
    ------
    ValueError
        Naming the argument, and what does not fit so many tokens or columns.

    Examples
    --------
    >>> tokens = np.random.default_rng(0).normal(size=(100, 4))
    >>> layer, notes = make_layer(tokens, epsilon="0.5", heads=2)
    >>> layer(tokens).shape, notes
    ((100, 4), [])
    """
    rule, epsilons, seen = as_normalization(normalization), read_epsilons(epsilon), read_mask(mask)
    metrics = _metrics(pseudometric, tokens.shape[1], heads, 1 if epsilons is None else len(epsilons))
    notes = []
    if isinstance(rule, Perplexity) or (isinstance(rule, Sparse) and rule.fraction is not None):
        if epsilons is not None:
            raise ValueError(f"epsilon must be left out for {normalization}, which chooses it, got {epsilon[:40]!r}")
        epsilons = [1.0]
    elif epsilons is None:
        epsilons = [_calibrated(f, tokens) for f in metrics]
        plainly = "" if normalization == "softmax" and mask is None else " under softmax without a mask"
        notes = [
            f"{f'head {k + 1}: ' if len(metrics) > 1 else ''}epsilon = {number:.4g}: "
            f"the median token then attends to {_target(tokens):.3g} tokens (perplexity{plainly})"
            for k, number in enumerate(epsilons)
        ]
    if len(epsilons) < len(metrics):
        epsilons = epsilons * len(metrics)
    layers = [Attention(f, number, rule, mask=seen) for f, number in zip(metrics, epsilons)]
    if isinstance(rule, Selective):
        rule.check_size(len(tokens))
    if layers[0].mask is not None:
        layers[0].mask.of(len(tokens))
    return layers[0] if len(layers) == 1 else MultiHead(layers), notes


def _metrics(name: str, columns: int, heads: int | None, temperatures: int) -> list[PseudoMetric]:
    """One for each head."""
    whole, part = PSEUDOMETRICS[checks.choice(name, "pseudometric", PSEUDOMETRICS)]
    if heads is None or heads == 1 == temperatures:
        return [whole(columns)] * temperatures
    if heads < 1 or columns % heads:
        raise ValueError(f"heads must divide the {columns} columns of the tokens, got {heads}")
    if temperatures not in (1, heads):
        raise ValueError(f"epsilon must be one number, or one for each of {heads} heads, got {temperatures}")
    width = columns // heads
    return [part(slice(first, first + width), columns) for first in range(0, columns, width)]


@dataclass(frozen=True, repr=False)
class _Part:
    """Some columns of the points, or what a pseudo-metric makes of them."""

    columns: slice
    features: Callable = np.asarray

    def __repr__(self) -> str:
        return f"columns {self.columns.start} to {self.columns.stop - 1}"

    @property
    def __name__(self) -> str:
        return repr(self)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.features(x[..., self.columns])


def _calibrated(f: PseudoMetric, tokens: np.ndarray) -> float:
    if len(tokens) < 4:
        raise ValueError(f"tokens must be at least 4 to choose epsilon, got {len(tokens)}; give --epsilon")
    return epsilon_for_perplexity(f, tokens, _target(tokens))


def _target(tokens: np.ndarray) -> float:
    return min(_TARGET, len(tokens) / 3)
