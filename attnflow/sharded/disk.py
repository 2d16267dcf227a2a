"""What a layer has on disk while it runs, which is refused before any work where there is no room for it.

Of N tokens with n columns, M queries and c value columns, in bytes: cells sort the points (8 n + 4 a token; queries too,
where they are others or f is asymmetric), the values (8 c N), the bias (8 N) and what is found (8 (c + 1) M). The sums
of a key bias are the same, without values, where they are of another order; the bias is 8 N. Features between layers
are 8 c N, two of them, and the result is 8 c M.
"""

from __future__ import annotations

from pathlib import Path

from .. import capacity
from ..attention import Attention, Column, DensityCorrected, Softmax
from .rows import Rows


def needed(layer: Attention, engine: str, keys: Rows, queries: Rows | None, columns: int, layers: int) -> int:
    """Bytes in `scratch` at the most, but for some hundreds."""
    rule, size, turned = layer.normalization, keys.size, int(not layer.f.symmetric)
    asked, others = size if queries is None else queries.size, int(queries is not None)
    one_pass = isinstance(rule, (Column, DensityCorrected))  # of others the bias is in memory
    total = 8 * columns * size * min(layers - 1, 2) + 8 * size * one_pass
    if engine != "cells":
        return total
    point = 8 * keys.columns + 4
    total += point * (size + asked * max(others, turned)) + 8 * columns * size + 8 * (columns + 1) * asked
    if isinstance(rule, Softmax):
        return total
    orders = max(others, turned) if isinstance(rule, Column) else others if one_pass else others + turned
    return total + 8 * size + orders * size * (point * (1 + turned) + (8 if one_pass else 16))


def check_room(
    layer: Attention,
    engine: str,
    keys: Rows,
    queries: Rows | None,
    columns: int,
    layers: int,
    *,
    scratch: Path,
    out: Path | None,
) -> None:
    """ValueError naming the folder that has no room for what is written."""
    inside, result = needed(layer, engine, keys, queries, columns, layers), 8 * columns * (queries or keys).size
    if out is not None and out.parent.stat().st_dev == scratch.stat().st_dev:
        inside += result
    elif out is not None:
        capacity.stored(result, out.parent, "out")
    capacity.stored(inside, scratch, "scratch")
