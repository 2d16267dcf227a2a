"""Key biases of more tokens than memory holds: from a first pass over the sums, on disk as everything else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import capacity
from ..attention import Attention, Column, DensityCorrected, Screening, Softmax, Unnormalized
from ..attention.names import name_of
from .rows import Npy, Rows, Sliced
from .sums import InMemory, Sums, Surveyed, kernel_of, make, survey


def refuse(layer: Attention) -> None:
    """ValueError for a layer that does not compose from sums over shards of its keys."""
    rule, name = layer.normalization, name_of(layer.normalization)
    if rule.selects or isinstance(rule, Screening):
        raise ValueError(
            f"layer must weigh all keys in shards, got normalization {name!r}: a choice among all keys is not made of choices "
            "among some; take the layer itself"
        )
    if isinstance(rule, Unnormalized):
        raise ValueError(f"layer must divide by its row sums in shards, got normalization {name!r}; take the layer itself")
    if layer.mask is not None:
        raise ValueError(f"layer must have no mask in shards, got {layer.mask!r}: its engines know tokens by their numbers")


def key_bias(
    layer: Attention, keys: Surveyed, sums: Sums | None, folder: Path, block: int, client: Any
) -> tuple[Rows | None, dict[str, Any]]:
    """The bias of every key, a column, or None where it is 0; and what its computation tells.

    Softmax, column and density correction are b_j = -alpha log(sum over the row, or column, of j): one pass. Of other rules
    vectors over all tokens are in memory.
    """
    rule, size = layer.normalization, keys.rows.size
    if isinstance(rule, Softmax):
        return None, {}
    if rule.needs_symmetry and not layer.f.is_symmetric(keys.sample):
        raise ValueError(f"normalization {name_of(rule)!r} needs a symmetric f, got {type(layer.f).__name__}; use 'column'")

    @cache
    def rows() -> Sums:
        return sums or make(kernel_of(layer, keys, keys), keys, keys, _folder(folder, "bias"), block, client)

    @cache
    def columns() -> Sums:
        if layer.f.symmetric:
            return rows()
        f = layer.f.transposed()
        again = survey(f, keys.rows, "tokens", block, client)
        return make(kernel_of(layer, again, again, f), again, again, _folder(folder, "transposed"), block, client)

    if isinstance(rule, (Column, DensityCorrected)):
        bias = Npy.create(folder / "bias.npy", (size, 1))
        for first, _, found in (columns() if isinstance(rule, Column) else rows()).blocks(None, None):
            bias.write(first, -rule.alpha * found.log_sum_exp[:, None])
        return bias, {}
    capacity.fits(8 * 6 * size, "tokens")

    def log_sum(bias: np.ndarray, transposed: bool = False) -> np.ndarray:
        return InMemory(columns() if transposed else rows())(None, bias).log_sum_exp

    vector, stats = rule.key_bias(log_sum, size, layer.rtol)
    return Sliced(vector), stats


def _folder(folder: Path, name: str) -> Path:
    inside = folder / name
    inside.mkdir()
    return inside
