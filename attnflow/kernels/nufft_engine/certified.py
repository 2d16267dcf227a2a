"""How Gaussian attention is summed by non-uniform FFT at any temperature, and why no row is wrong.

Numerators and denominators are real, so two of them share a complex transform: with one value column, w_j (1 + i v_j).
Values are first moved and scaled to [-1, 1] by their middle and half range, which a weighted mean follows exactly.

**Certificate.** The error of a sum at x is at most E = near D(x) + (far max D + leak W), with D(x) the sum of the
weights under a wider Gaussian and W of all weights; see `series`. D costs one small FFT of the modes that are there
already, looked up at the node nearest to x. The denominator S(x) is off by E, the scaled numerator by E, so that a row
with 2 E <= rtol S has a log-sum-exp and a mean within rtol. Every other row (a query far from all keys, a
token that a large bias elsewhere drowns) is summed by another engine. FINUFFT's part in E was measured, not proven:
the first call of a plan therefore sums its least certain rows directly as well.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ... import checks
from ...similarity import PseudoMetric
from ...similarity.pairs import Pair
from .. import cells_engine, numba_engine
from ..costs import Request, threads
from ..threads import in_threads
from .series import FINEST, GaussSums, Series, box, parts_of, reach, torus, work

_PREPARED, _BEGUN = (1.3e6, 55), 3.5e5  # what comes before the sums, in all and per token; per application
PROBES = 4  # rows summed directly to check the certificate
FEW = 64  # rows that the dense engine sums before cells have sorted the keys; rows without a certificate see few keys
PIECE = 2**15  # rows at a time: they stay in the second-level cache
_FEW_ROWS = 0.01  # a share that is not reckoned with
LOOSEST = 1e-2  # errors of errors are neglected
Corners = tuple[np.ndarray, np.ndarray]  # the least and the largest of each coordinate (m,)
_PARENTS: list = []  # plans of a process that this one was forked from


def plan(f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float) -> NufftSums:
    """See `attnflow.kernels.plan`; all is float64: positions in float32 would move tokens by 1e-7 of their extent.

    Raises
    ------
    ValueError
        If the similarity is not a Gaussian of a flat distance in at most 3 dimensions; if on a torus epsilon is so
        large that images count; if the grid of modes would be too large; if rtol is below what rounding allows.
    """
    u = v = coordinates(f, f.key_features(keys))
    if queries is not None or not f.symmetric:
        u = coordinates(f, f.query_features(keys if queries is None else queries))
    queries = keys if queries is None else queries

    def other(rows: np.ndarray) -> Callable:
        engine = numba_engine if len(rows) <= FEW else cells_engine
        run = engine.plan(f, epsilon, queries[rows], keys, np.float64, rtol)
        run.rows = rows
        return run

    return NufftSums(f.pair, epsilon, u, v, rtol, other)


def predict(request: Request) -> float:
    """Pairs it takes: a token's share of spreading, w^n nodes for w digits, and two Fourier transforms of the fine grid.

    Rows without a certificate are the cells engine's.

    Raises
    ------
    ValueError
        As `plan`.
    """
    f, epsilon = request.scaled
    series = _series_of(f, epsilon, request.keys, request.rtol)
    counts = series.modes
    request.facts["modes"] = " x ".join(map(str, counts))
    sums = counts, (request.size + request.count) / 2, max(request.rtol / 64, FINEST)
    step = work(*sums) / min(threads(), parts_of(*sums))
    # what FINUFFT's rounding leaves of a certificate: see above; a period is about modes widths long
    left = 6 * (request.rtol / 64 + 1.1e-16 * max(counts) * 0.7) * 2.5 ** (len(counts) / 2)
    transforms = -(-(request.columns + 1) // 2) + (request.applications - 1) * -(-request.columns // 2)
    pairs = _PREPARED[0] + _PREPARED[1] * request.tokens + transforms * (_BEGUN + step)
    share = 1.0 if left > request.rtol else 0.0 if f.pair.period is None else _below(series, request.rtol)
    return pairs + (share * cells_engine.predict(request) if share else 0.0)


def _below(series: Series, rtol: float) -> float:
    """About which share of rows on a torus have so few weights that what images add is more than a certificate allows.

    Their weights are the mean's times p over its mean; tokens with less than a part of that are about its square of all.
    """
    mean = np.prod(np.sqrt(2 * np.pi * series.epsilon) / series.period)
    share = min(1.0, 2 * series.leak / (min(rtol, LOOSEST) * float(mean))) ** 2
    return share if share > _FEW_ROWS else 0.0


def modes(f: PseudoMetric, epsilon: float, keys: np.ndarray, rtol: float) -> tuple[int, ...]:
    """Fourier modes per axis for queries among the keys; the FFTs run on twice as many. Refuses what `plan` refuses.

    Examples
    --------
    >>> import attnflow as af
    >>> modes(af.SquaredDistance(af.Torus([1.0, 2.0])), 1e-3, [[0.0, 0.0], [0.5, 1.0]], 1e-9)
    (69, 137)
    """
    return _series_of(f, epsilon, keys, rtol).modes


def _series_of(f: PseudoMetric, epsilon: float, keys, rtol: float) -> Series:
    v = coordinates(f, f.key_features(np.asarray(keys, dtype=float)))
    return _series(f.pair.period, epsilon, v, v, rtol)[0]


class _Certified(NamedTuple):
    """2 E / S of every target, and the rows where that is above rtol or S is not known."""

    relative: np.ndarray
    left: np.ndarray


@dataclass
class _Kept:
    """What belongs to a key bias: sums of weights by a transform of their own with the rows certified by them and their
    logarithms, and certified rows that rounding would not change."""

    bias: np.ndarray
    alone: tuple[np.ndarray | None, _Certified, np.ndarray] | None = None
    sure: _Certified | None = None


class NufftSums:
    """The primitive for queries and keys with fixed coordinates (m, M) and (m, N); see `plan`.

    `other` plans another engine for some rows. Coordinates, and all other arrays, are of the namespace `xp`. `work` is
    what both transforms cost, see `series.work`. `stats` tells of the last call how many ``rows_by_another_engine``
    there were, and the plan's ``modes`` and ``tol``.
    What a key bias fixes (denominators, certified rows) is kept and used again as long as the bias stays equal, where
    that changes no bit.
    """

    def __init__(self, pair: Pair, epsilon: float, u: np.ndarray, v: np.ndarray, rtol: float, other: Callable, xp=np) -> None:
        self._rtol, self._another, self._xp = min(rtol, LOOSEST), other, xp
        self._rows, self._size = u.shape[1], v.shape[1]
        self._series, within = _series(pair.period, epsilon, u, v, self._rtol, xp)
        self._tol = max(self._rtol / 64, FINEST)
        best = 2 * self._series.near(self._tol)
        if best > self._rtol:
            raise ValueError(
                f"rtol={rtol:.3g} is below what backend 'nufft' reaches for these tokens, {best:.2g}; "
                "use backend='numba', or 'cells' for small epsilon"
            )
        self._key_order = spatial_order(v, xp)
        self._order = self._key_order if u is v else within[spatial_order(u[:, within], xp)]
        self._u, self._v, self._process = u, v, os.getpid()
        self._transform()
        self.work = work(self._series.modes, (self._rows + self._size) / 2, self._tol)
        self._locks: dict[int, threading.Lock] = {}  # of a process: FINUFFT's plans hold their working memory
        self._kept: _Kept | None = None
        self._other: tuple | None = None
        self._probed = False
        self.stats = {"modes": self._series.modes, "tol": self._tol, "rows_by_another_engine": 0}
        self._settle()

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See `attnflow.kernels.plan`."""
        bias = self._xp.zeros(self._size) if key_bias is None else self._xp.asarray(key_bias, dtype=float)
        values = self._xp.empty((self._size, 0)) if values is None else values
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._process != os.getpid():
                self._begin_again()
            result = self._attend(values, bias)
            self._settle()
        return result

    def _begin_again(self):
        """In a forked process: another thread may have been in the middle of the parent's plans and of what they kept."""
        _PARENTS.append(self._sums)  # not freed: a lock that freeing takes may have been held
        self._kept = self._other = None
        self._transform()
        self._process = os.getpid()

    def _transform(self):
        self._sums = None  # without a query in reach of the keys there is nothing to transform
        if len(self._order):
            sources, targets = self._v[:, self._key_order], None if self._u is self._v else self._u[:, self._order]
            self._sums = GaussSums(self._series, targets, sources, self._tol, self._xp)

    def _attend(self, values, bias):
        """Columns share transforms in pairs, the last of an odd number with the weights: a pair rounds as a whole, so
        that which columns are together must not depend on earlier calls."""
        xp, columns = self._xp, values.shape[1]
        kept = self._kept if self._kept is not None and bool(xp.array_equal(bias, self._kept.bias)) else _Kept(bias.copy())
        middle, half = _range(values)
        mean = xp.zeros((self._rows, columns))
        whole = columns - columns % 2
        weighed = (None, *range(whole, columns))  # None: the weights themselves
        highest = float(bias.max())
        shift = highest if np.isfinite(highest) else 0.0
        weights, strengths = xp.empty(self._size), xp.zeros(self._size, dtype=complex)

        def weigh(some):
            weights[some] = xp.exp(bias[self._key_order[some]] - shift)

        def multiply(some):
            strengths.imag[some] = 0.0
            for k, part in zip(pair, (strengths.real, strengths.imag)):
                part[some] = weights[some]
                if k is not None:
                    part[some] *= _scaled(values[self._key_order[some], k], middle[k], half[k])

        def divide(some):
            for k, part in zip(pair, (sums.real, sums.imag)):
                if k is not None:
                    mean[self._order[some], k] = middle[k] + half[k] * (part[some] / denominators[some])

        self._in_pieces(weigh, self._size)
        denominators, certified, log_sum_exp = None, _Certified(xp.empty(0), xp.arange(self._rows)), None
        if len(weighed) == 1 and kept.alone is not None:
            denominators, certified, log_sum_exp = kept.alone
        for pair in [weighed, *((k, k + 1) for k in range(0, whole, 2))] if self._sums else []:
            if pair is weighed and denominators is not None:
                continue
            self._in_pieces(multiply, self._size)
            coefficients = self._sums.modes(strengths)
            sums = self._sums.at_targets(coefficients)
            if pair is weighed:
                denominators = sums.real.copy()
                certified = kept.sure or self._certify(kept, denominators, coefficients, float(weights.sum()))
            self._in_pieces(divide, len(self._order))  # rows without a certificate are replaced
        self.stats["rows_by_another_engine"] = len(certified.left)
        if log_sum_exp is None:
            log_sum_exp = self._logarithm(denominators, shift)
            kept.alone = (denominators, certified, log_sum_exp) if len(weighed) == 1 else kept.alone
        log_sum_exp = log_sum_exp.copy()
        self._replace(mean, log_sum_exp, values, bias, certified)
        self._kept = kept
        return mean, log_sum_exp

    def _certify(self, kept, denominators, coefficients, total):
        """Which rows are not within rtol; kept if other roundings of the sums would not change that."""
        xp, around, series = self._xp, self._sums.around(coefficients), self._series
        near, everywhere = series.near(self._tol), series.far * float(around.max()) + series.leak * total
        relative = xp.empty(len(self._order))

        def certify(some):
            error = near * around[self._sums.nearest[some]] + everywhere
            sums = denominators[some]
            relative[some] = xp.where(sums > 0, 2 * error / sums, np.inf)

        self._in_pieces(certify, len(self._order))
        certain = xp.zeros(self._rows, dtype=bool)
        certain[self._order] = relative <= self._rtol
        certified = _Certified(relative, xp.flatnonzero(~certain))
        if not bool(((relative > 0.8 * self._rtol) & (relative < 1.25 * self._rtol)).any()):
            kept.sure = certified
        return certified

    def _logarithm(self, denominators, shift):
        log_sum_exp = self._xp.full(self._rows, -np.inf)

        def take(some):
            log_sum_exp[self._order[some]] = self._xp.log(denominators[some]) + shift

        if self._sums:
            self._in_pieces(take, len(self._order))
        return log_sum_exp

    def _in_pieces(self, work, count):
        """work(slice) for all of range(count), by all threads; a device has its own."""

        def quiet(first, last):
            with np.errstate(all="ignore"):
                work(slice(first, last))

        if self._xp is np:
            in_threads(quiet, count, PIECE)
        else:
            quiet(0, count)

    def _settle(self):
        """What is kept for later calls is there before they can come, on other streams of a device."""
        if self._xp is not np:
            self._xp.cuda.get_current_stream().synchronize()

    def _replace(self, mean, log_sum_exp, values, bias, certified):
        """Sum the rows without a certificate by another engine, and once per plan the least certain of the others."""
        if not self._probed and self._sums is not None:
            rows = self._least_certain(certified.relative)
            if len(rows):
                self._compare(mean[rows], log_sum_exp[rows], *self._another(rows)(values, bias), values)
        left = certified.left
        if len(left) == 0:
            return
        if self._other is None or not bool(self._xp.array_equal(left, self._other[0])):
            self._other = left, self._another(left)
        mean[left], log_sum_exp[left] = self._other[1](values, bias)

    def _least_certain(self, relative):
        certainty = self._xp.where(relative <= self._rtol, -relative, np.inf)
        least = self._xp.argpartition(certainty, min(PROBES, len(certainty)) - 1)[:PROBES]
        return self._order[least[self._xp.isfinite(certainty[least])]]

    def _compare(self, mean, log_sum_exp, direct_mean, direct, values):
        self._probed = self._probed or len(direct) > 0
        scale = max(_largest(values), np.finfo(float).tiny)
        off = max(_largest(mean - direct_mean) / scale, _largest(log_sum_exp - direct))
        if off > 2 * self._rtol:  # each engine has its own error
            checks.warn(
                f"backend 'nufft' is off by {off:.2g} for rtol={self._rtol:.3g}: FINUFFT is less accurate than it was "
                "when this was written; use backend='numba', and tell us",
                checks.AccuracyWarning,
            )


def coordinates(f: PseudoMetric, features: np.ndarray) -> np.ndarray:
    """Features (N, m) as (m, N), folded on a torus; refused where the similarity is no Gaussian of their distance."""
    pair, dim = f.pair, features.shape[1]
    if pair.reduction not in ("squared", "wrapped") or pair.transform != "identity" or pair.geodesic:
        raise ValueError(
            f"f must be a squared distance on flat space or a torus for backend 'nufft', got {f!r}: its similarity is "
            "not a Gaussian; use backend='numba'"
        )
    if dim > 3:
        raise ValueError(f"f must have at most 3 features for backend 'nufft', got {dim}; use backend='numba'")
    x = features.T.copy(order="C")
    if pair.period is not None:
        for coordinate, period in zip(x, pair.period):
            coordinate -= period * (coordinate / period).round()
    return x


def _series(period, epsilon, u, v, rtol, xp=np) -> tuple[Series, np.ndarray]:
    """The Fourier series, and the queries in its reach: others are too far for any certificate."""
    keys, within = _corners(v), xp.arange(u.shape[1])
    queries = keys
    if u is not v and period is None:
        within = xp.flatnonzero(in_reach(u, keys, margin(epsilon, len(v), v.shape[1], rtol), xp))
        queries = _corners(u[:, within] if len(within) else v)
    return series_between(period, epsilon, queries, keys, v.shape[1], rtol), within


def series_between(period, epsilon: float, queries: Corners, keys: Corners, count: int, rtol: float) -> Series:
    """The Fourier series for queries and `count` keys, each between two corners; on a torus, between any."""
    level = _level(rtol, count)
    if period is not None:
        period = np.asarray(period, dtype=float)
        images = _images(period, epsilon, min(rtol, LOOSEST))
        series = torus(epsilon, period, level)
        return replace(series, leak=series.leak + images)
    (low, high), (lowest, highest) = keys, queries
    return box(epsilon, low, high, np.maximum(high - lowest, highest - low), level)


def margin(epsilon: float, dim: int, count: int, rtol: float) -> float:
    """How far from the corners of `count` keys a query may lie to have a certificate."""
    return reach(epsilon, dim, _level(rtol, count))


def in_reach(u, keys: Corners, width: float, xp=np):
    """Which queries (m, M) lie within a margin of the corners of the keys: (M,)."""
    inside = xp.ones(u.shape[1], dtype=bool)
    for row, least, most in zip(u, *keys):
        inside &= (row >= least - width) & (row <= most + width)
    return inside


def _level(rtol: float, count: int) -> float:
    """What the series leaves out: it costs a token that sees no one but itself an eighth of rtol."""
    return min(rtol, LOOSEST) / (16 * count)


def _corners(x):
    """The least and the largest of each coordinate (m, N), on the host."""
    return tuple(np.array([float(end) for end in ends]) for ends in (x.min(axis=1), x.max(axis=1)))


def _largest(x):
    return float(abs(x).max()) if x.size else 0.0


def _images(period, epsilon, rtol):
    """How far the periodic Gaussian is from the one of the nearest image: exp(-period^2 / (8 eps)) per axis, half way.

    It must be within rtol of the mean weight of a token among tokens spread evenly, prod sqrt(2 pi eps) / period.
    """
    sides = period / np.sqrt(epsilon)
    images = 1.01 * np.exp(-(sides**2) / 8).sum()  # the images further on add less than a hundredth
    allowed = rtol / 2 * min(1.0, np.prod(np.sqrt(2 * np.pi) / sides))
    if images > allowed:
        raise ValueError(
            "epsilon is too large for backend 'nufft' on this torus: FFTs sum all images, which change "
            f"a weight by up to sum exp(-period^2 / (8 epsilon)) = {images:.2g}, and rtol={rtol:.3g} allows "
            f"{allowed:.2g} (epsilon = {1 / sides.min() ** 2:.3g} period^2, at most about "
            f"{1 / (8 * np.log(1.01 * len(sides) / allowed)):.2g}); use backend='numba'"
        )
    return float(images)


def spatial_order(x, xp):
    """Neighbours next to each other: FINUFFT is then 1.5 times faster. Cells row by row, sorted by radix.

    cuFINUFFT sorts by itself.
    """
    if xp is not np:
        return xp.arange(x.shape[1])
    count = {1: 2**16 - 1, 2: 2**8, 3: 40}[len(x)]
    cell = np.zeros(x.shape[1], dtype=np.uint16)
    for coordinate in x[::-1]:
        low, high = coordinate.min(initial=np.inf), coordinate.max(initial=-np.inf)
        cell *= count
        if high > low:
            cell += ((coordinate - low) * ((count - 1) / (high - low))).astype(np.uint16)
    return np.argsort(cell, kind="stable")


def _range(values):
    """Middle and half range of each column; a half range of 0 keeps constant values exactly."""
    ends = [(float(column.min()), float(column.max())) for column in values.T]
    return [high / 2 + low / 2 for low, high in ends], [high / 2 - low / 2 for low, high in ends]


def _scaled(column, middle, half):
    return (column - middle) / (half if half > 0 else 1.0)
