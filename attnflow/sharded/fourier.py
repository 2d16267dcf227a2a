"""Gaussians out of core: shards of keys add up to one Fourier series, which is then evaluated at blocks of queries.

As in the engine `nufft`, whose series, certificate and error bound these are; only the sums over keys are cut. A row
without a certificate is summed over all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import Attended
from ..kernels.nufft_engine.certified import LOOSEST, Corners, coordinates, in_reach, margin, series_between, spatial_order
from ..kernels.nufft_engine.series import FINEST, GaussSums, Series
from .merging import merge
from .pairs import Block, Kernel, partial, pieces
from .rows import Piece, Rows, load, spans
from .tasks import each


@dataclass(frozen=True)
class Scale:
    """Units of a sum: the largest bias, and for each column the middle and half of its range."""

    top: float
    middle: np.ndarray
    half: np.ndarray

    def columns(self, values: np.ndarray | None) -> list[np.ndarray | None]:
        """None for the weights alone, then each column in [-1, 1]."""
        scaled = [] if values is None else list(((values - self.middle) / np.where(self.half > 0, self.half, 1.0)).T)
        return [None, *scaled]


def spread(
    kernel: Kernel, series: Series, tol: float, scale: Scale, keys: Piece, values: Piece | None, bias: Piece | None
) -> tuple[list[np.ndarray], float]:
    """Fourier coefficients of a shard of keys, two columns in each array, the first of all the weights; and the weights' sum: a task."""
    x = coordinates(kernel.f, kernel.f.key_features(load(keys)))
    order = spatial_order(x, np)
    weights = np.ones(x.shape[1]) if bias is None else np.exp(load(bias)[:, 0] - scale.top)
    columns = [weights if v is None else weights * v for v in scale.columns(None if values is None else load(values))]
    sums = GaussSums(series, x[:, :0], x[:, order], tol)
    strengths = (_paired(columns[k : k + 2])[order] for k in range(0, len(columns), 2))
    return [sums.modes(pair) for pair in strengths], float(weights.sum())


def gather(
    kernel: Kernel,
    series: Series,
    tol: float,
    scale: Scale,
    queries: Piece,
    keys: Corners,
    width: float,
    modes: list,
    total: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, log-sum-exps and rows without a certificate of some queries, those within a width of the keys' corners: a task."""
    f, rtol = kernel.f, min(kernel.rtol, LOOSEST)
    u = coordinates(f, f.query_features(load(queries)))
    within = np.arange(u.shape[1])
    if f.pair.period is None:
        within = np.flatnonzero(in_reach(u, keys, width))
    mean, log_sum_exp = np.zeros((u.shape[1], len(scale.middle))), np.full(u.shape[1], -np.inf)
    certain = np.zeros(u.shape[1], bool)
    if len(within):
        within = within[spatial_order(u[:, within], np)]
        sums = GaussSums(series, u[:, within], u[:, :0], tol)
        parts = [part for pair in modes for found in [sums.at_targets(pair)] for part in (found.real, found.imag)]
        around = sums.around(modes[0])
        error = series.near(tol) * around[sums.nearest] + series.far * float(around.max()) + series.leak * total
        with np.errstate(all="ignore"):  # rows that are summed anew
            certain[within] = 2 * error <= rtol * parts[0]
            log_sum_exp[within] = np.log(parts[0]) + scale.top
            for k, part in enumerate(parts[1 : 1 + len(scale.middle)]):
                middle, half = scale.middle[k], scale.half[k]
                mean[within, k] = np.clip(middle + half * (part / parts[0]), middle - half, middle + half)
    return mean, log_sum_exp, np.flatnonzero(~certain)


def _paired(columns: list[np.ndarray]) -> np.ndarray:
    pair = np.zeros(len(columns[0]), complex)
    pair.real = columns[0]
    if len(columns) == 2:
        pair.imag = columns[1]
    return pair


class Fourier:
    """Sums of Gaussians for blocks of queries; see `Sums`. Corners are of all features."""

    def __init__(
        self, kernel: Kernel, queries: Rows, keys: Rows, corners: tuple[Corners, Corners], block: int, client: Any = None
    ) -> None:
        self.kernel, self.queries, self.keys, self.block, self.client = kernel, queries, keys, block, client
        f, rtol = kernel.f, min(kernel.rtol, LOOSEST)
        for ends in corners:
            coordinates(f, np.array(ends))  # refuses what is no Gaussian
        (lowest, highest), (low, high) = corners
        self.width = margin(kernel.epsilon, len(low), keys.size, rtol)
        near = np.maximum(lowest, low - self.width), np.minimum(highest, high + self.width)
        self.corners = low, high
        self.series = series_between(f.pair.period, kernel.epsilon, near, self.corners, keys.size, rtol)
        self.tol = max(rtol / 64, FINEST)
        best = 2 * self.series.near(self.tol)
        if best > rtol:
            raise ValueError(
                f"rtol={kernel.rtol:.3g} is below what backend 'nufft' reaches for these tokens, {best:.2g}; use a larger one, "
                "or backend='cells'"
            )
        self.stats: dict[str, Any] = {"modes": self.series.modes, "rows_by_another_engine": 0}

    def blocks(self, values: Rows | None, bias: Rows | None) -> Iterator[Block]:
        """What every block of queries sees, in order."""
        scale = self._scale(values, bias)
        context = self.kernel, self.series, self.tol, scale
        shards = list(spans(self.keys.size, self.block))
        modes: list[np.ndarray] = []
        total = 0.0
        for found, weight in each(
            self.client, spread, ((*context, *pieces(shard, self.keys, values, bias)) for shard in shards)
        ):
            total += weight
            if not modes:
                modes = found
                continue
            for sum_of_all, part in zip(modes, found):
                sum_of_all += part
        calls = (
            (*context, self.queries.piece(*some), self.corners, self.width, modes, total)
            for some in spans(self.queries.size, self.block)
        )
        self.stats["rows_by_another_engine"] = 0
        for (first, last), (mean, log_sum_exp, left) in zip(
            spans(self.queries.size, self.block), each(self.client, gather, calls)
        ):
            if len(left):
                self.stats["rows_by_another_engine"] += len(left)
                rows = self.queries.read(first, last)[left]
                kernel = Kernel(self.kernel.f, self.kernel.epsilon, "numba", "float64", self.kernel.rtol)
                where = f", of {len(left)} among queries {first} to {last - 1}"
                seen = ((kernel, where, rows, *pieces(shard, self.keys, values, bias)) for shard in shards)
                mean[left], log_sum_exp[left] = kernel.check(merge(each(self.client, partial, seen)), first + left)
            yield first, last, Attended(mean, log_sum_exp)

    def _scale(self, values: Rows | None, bias: Rows | None) -> Scale:
        shards = (pieces(shard, values, bias) for shard in spans(self.keys.size, self.block))
        lows, highs, tops = zip(*each(self.client, ends, shards))
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        return Scale(max(tops), high / 2 + low / 2, high / 2 - low / 2)


def ends(values: Piece | None, bias: Piece | None) -> tuple[np.ndarray, np.ndarray, float]:
    """The least and the largest of each column of a shard's values, and its largest bias: a task."""
    columns = np.empty((0, 1)) if values is None else load(values).T
    low, high = (np.array([end(column) for column in columns]) for end in (np.min, np.max))
    return low, high, 0.0 if bias is None else float(load(bias).max())
