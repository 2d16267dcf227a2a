"""Whole rows of f, where something is to be chosen from them: by the arithmetic of the tiles, distances by squares."""

from __future__ import annotations

import numpy as np

from ...compilation import cached_njit
from ...similarity import PseudoMetric
from ..rules import as_products
from ..threads import in_threads
from . import tiles
from .arithmetic import CONTRACT
from .blocks import ROWS
from .layout import cast, panels_of_keys
from .logits import rule_of
from .tiles import TILE, _arrange, _reduce, _square_of_angle, apply_transform


class FRows:
    """f of some queries with all keys in float64, by features u (M, m) and v (N, m)."""

    def __init__(self, f: PseudoMetric, u: np.ndarray, v: np.ndarray) -> None:
        self._f, self._u, self._v = f, u, v
        self.compiled = f.pair.reduction != "general"
        if self.compiled:
            u, v = as_products(f.pair, u, v)
            dtype = np.dtype(np.float64)
            self._rule = rule_of(f.pair, 1.0, u.shape[1], dtype)
            self._keys, self._queries = panels_of_keys(f.pair, 1.0, v, dtype, 0.0), cast(u, dtype)

    def __call__(self, rows: np.ndarray, out: np.ndarray) -> None:
        """f of the queries at these rows into the first rows of `out` (., N)."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.compiled:
                out[: len(rows)] = self._f.evaluate(self._u[rows], self._v, (int(rows[0]), 0))
                return
            (codes, (parameter, _), sides) = self._rule
            panels, centres, _, _ = self._keys
            some = self._queries[rows]
            in_threads(
                lambda a, b: f_rows(a, b, codes, parameter, sides, some, panels, centres, len(self._v), out),
                len(some),
                4 * ROWS,
            )


@cached_njit((*tiles.SHARED, tiles.__file__), fastmath=CONTRACT, error_model="numpy")
def f_rows(first, last, codes, parameter, sides, queries, panels, centres, size, out):
    """f of some queries with `size` keys; see `tiles.absorb`."""
    reduction, geodesic, transform = codes
    weights, none = np.zeros(ROWS * TILE, out.dtype), np.zeros(TILE, out.dtype)
    opposite = np.zeros(weights.size if geodesic else 0, out.dtype)
    left, own = np.zeros(ROWS * panels.shape[1], out.dtype), np.zeros(ROWS, out.dtype)
    for block in range(first, last, ROWS):
        count = min(ROWS, last - block)
        _arrange(queries, block, count, centres[0], False, left, own)
        for start in range(0, size, TILE):
            stop = min(start + TILE, size)
            _reduce(reduction, False, left, count, panels, start, stop, sides, none, 0, own, weights)
            if geodesic:
                left[:] = -left
                _reduce(reduction, False, left, count, panels, start, stop, sides, none, 0, own, opposite)
                left[:] = -left
            for k in range(count):
                row = weights[k * TILE : k * TILE + stop - start]
                if geodesic:
                    _square_of_angle(row, opposite[k * TILE : k * TILE + stop - start])
                apply_transform(transform, parameter, row)
                out[block + k, start:stop] = row
