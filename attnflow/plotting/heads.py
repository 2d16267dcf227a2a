"""Attention heads as pictures: in which directions one is local, and what every head of a model is made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import checks
from . import style

_KINDS = {"key": "follow keys alone", "metric": "are metric-like", "antisymmetric": "transport", "repelling": "repel"}
_COLORS = {"key": "0.88", "metric": style.ACCENT, "repelling": "0.6", "antisymmetric": style.INK}


def plot_eigenvalues(eigenvalues: np.ndarray, shares: Mapping[str, float], ax=None):
    """The eigenvalues of Sigma^(1/2) W_s Sigma^(1/2), with the line above which weights are local, and the shares.

    Parameters
    ----------
    eigenvalues : (k,) array
        Largest first.
    shares : mapping of str to float
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> shares = {"key": 0.1, "metric": 0.6, "repelling": 0.1, "antisymmetric": 0.2}
    >>> plot_eigenvalues(np.array([4.0, 1.5, 0.2, -0.1]), shares).get_title(loc="left")
    'Local in 2 of 4 directions'
    """
    eigenvalues = np.asarray(eigenvalues)
    if eigenvalues.size:  # a head that sees keys alone has none
        checks.array(eigenvalues, "eigenvalues", (None,))
    ax, places = style.new_axes(ax), np.arange(1, len(eigenvalues) + 1)
    for name, some in (("metric", eigenvalues > 0), ("repelling", eigenvalues < 0)):
        if some.any():
            ax.plot(
                places[some], eigenvalues[some], "o", markersize=3.5, color=_COLORS[name], label=f"{name} {shares[name]:.2f}"
            )
    for name in ("key", "antisymmetric"):
        ax.plot([], [], "s", color=_COLORS[name], label=f"{name} {shares[name]:.2f}")
    ax.axhline(1, color=style.INK, linewidth=0.8, linestyle="--")
    ax.annotate(
        "local above", (max(len(places), 1), 1), (0, 3), textcoords="offset points", ha="right", fontsize=8, color=style.INK
    )
    ax.legend(title="shares", fontsize=8, title_fontsize=8, frameon=False)
    count = int((eigenvalues > 1).sum())
    title = f"Local in {count or 'none'} of {len(eigenvalues)} directions"
    style.finish(ax, title, "direction", r"eigenvalue of $\Sigma^{1/2} W_s \Sigma^{1/2}$")
    return ax


def plot_shares(shares: Mapping[tuple[int, int], Mapping[str, float]], local: Mapping[tuple[int, int], int], ax=None):
    """What every head of a model is made of, a bar each, layer by layer; a dot above those that are local somewhere.

    Parameters
    ----------
    shares : mapping of (layer, head) to the shares of a head
    local : mapping of (layer, head) to the number of its local directions
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> shares = {(0, 0): {"key": 0.1, "metric": 0.6, "repelling": 0.1, "antisymmetric": 0.2}}
    >>> plot_shares(shares, {(0, 0): 2}).get_title(loc="left")
    'Of 1 heads 1 are metric-like'
    """
    ax, heads = style.new_axes(ax), list(shares)
    layers = sorted({layer for layer, _ in heads})
    places = np.arange(len(heads)) + np.array([layers.index(layer) for layer, _ in heads])  # a gap between layers
    bottom = np.zeros(len(heads))
    for name in ("metric", "antisymmetric", "repelling", "key"):
        height = np.array([shares[head][name] for head in heads])
        ax.bar(places, height, 0.9, bottom, color=_COLORS[name], label="key alone" if name == "key" else name)
        bottom += height
    marked = [place for place, head in zip(places, heads) if local[head]]
    ax.plot(marked, np.full(len(marked), 1.04), "v", markersize=3.5, color=style.ACCENT, label="local in a direction")
    middles = [np.mean([place for place, head in zip(places, heads) if head[0] == layer]) for layer in layers]
    ax.set_xticks(middles, [str(layer) for layer in layers])
    largest = [max(shares[head], key=shares[head].__getitem__) for head in heads]
    counts = sorted(((largest.count(name), words) for name, words in _KINDS.items() if name in largest), reverse=True)
    title = f"Of {len(heads)} heads {', '.join(f'{count} {words}' for count, words in counts)}"
    style.finish(ax, title, "layer, its heads side by side", "share of what logits differ by")
    ax.set_ylim(0, 1.1)
    ax.legend(fontsize=8, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16), columnspacing=1.0)
    return ax
