"""How the pairwise sum runs on a CUDA device: tokens go there once, kernels sum, what can't be vouched for is redone.

`launch` chooses the kernels and `cuda/` holds them. Everything runs on the caller's current stream in memory of
its own, and sums in a fixed order: callers on several streams don't meet, and a device repeats its bits.

Where cuFINUFFT is installed, large sums of wide Gaussians in float64 are its work (see `nufft_engine`): one caller at a time on
the default stream, and equal to rounding from call to call, not to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib import util

import numpy as np

from ...similarity import PseudoMetric
from ..nufft_engine import certified as nufft
from ..rules import nothing_to_see, reach_of
from ..scaling import centred
from . import launch as cuda

SPARSE = 2**22  # pairs from which on neighbours are looked for
FULL_CELLS = 4096  # keys that a query of a sweep meets, above which more queries share them
MANY, PAIRS = 2**30, 50  # pairs worth a plan of cuFINUFFT, and met while it does a unit of work; guesses, not measured


def unavailable() -> str | None:
    """What is missing for this engine to run here, or None."""
    try:
        import cupy

        cupy.cuda.nvrtc.getVersion()
        count = cupy.cuda.runtime.getDeviceCount()
    except (ImportError, RuntimeError) as error:  # CuPy's errors of driver and device are RuntimeErrors
        reason = str(error).strip().partition("\n")[0]
        return f"needs a CUDA device, its driver and a CuPy with NVRTC ({reason or type(error).__name__})"
    return None if count else "needs a CUDA device, and the driver finds none"


def plan(f: PseudoMetric, epsilon: float, queries: np.ndarray | None, keys: np.ndarray, dtype: type, rtol: float) -> Callable:
    """See `attnflow.kernels.plan`. Where tokens or values are CuPy arrays, so are the results.

    Pairs are computed in `dtype`, tiles of them added up in float64; the error of a weight is that of the CPU engine
    (`numba_engine.plan`). Above 8 feature dimensions distances are |u|^2 + |v|^2 - 2 u.v, centred, where that costs
    no more than `rtol`. Keys far away are left out where all that a query's sums thereby miss is below `rtol`.

    Raises
    ------
    RuntimeError
        If there is no CuPy, driver or device.
    ValueError
        From the sums: if a user's f can't be evaluated on CuPy arrays or is NaN, or if all that a query sees is
        beyond the range of `dtype`.
    """
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(f"backend 'cupy' {reason}")
    if f.pair.reduction == "additive":
        raise ValueError(f"f must be made of distances or inner products on a graphics card, got {f!r}; use backend='numba'")
    return Run(f, epsilon, queries, keys, np.dtype(dtype), rtol)


class Run:
    """Sums of fixed tokens. `stats` tells which kernel the last of them took, over how many pairs."""

    def __init__(self, f, epsilon, queries, keys, dtype, rtol):
        import cupy as cp

        from . import neighbours, sums

        self.cp, self.cells, self.sums = cp, neighbours, sums
        self.f, self.epsilon, self.dtype, self.rtol, self.pair = f, epsilon, dtype, rtol, f.pair
        self.stats, self._sweep = {}, (None, None)
        self.on_device = isinstance(keys, cp.ndarray)
        v = self._features(f.key_features, keys)
        u = self._features(f.query_features, keys if queries is None else queries)
        # only where both maps give the same points is each query among the keys
        self.own = queries is None and bool((u == v).all())
        self.u, self.v = v if self.own else u, v
        transform, scale, exponent, self.offset = cuda.rule(f.pair, epsilon)
        if f.pair.reduction != "general":
            v = self._cast(v)
            u = v if self.own else self._cast(u)
        self.tokens = sums.Tokens(f.pair, dtype, u, v, transform, scale, exponent)
        cp.cuda.get_current_stream().synchronize()  # sums may run on other streams

    def __call__(self, values=None, key_bias=None):
        cp = self.cp
        on_device = self.on_device or isinstance(values, cp.ndarray)
        values = cp.zeros((len(self.v), 0)) if values is None else cp.asarray(values, dtype=np.float64)
        bias, highest, spread, finite_spread = self._bias(key_bias)
        shift = highest + self.offset
        with np.errstate(all="ignore"):  # what overflows shows in the result
            if self.pair.reduction == "general" or self._is_high or values.shape[1] > cuda.FUSED_COLUMNS:
                self.stats = {"kernel": "blocks", "pairs": len(self.u) * len(self.v)}
                mean, lse = self.sums.blocks(self.tokens, values, bias, self.rtol)
            else:
                mean, lse = self._fused(values, bias, spread, finite_spread)
        self._refuse_overflow(mean, lse)
        return (mean, lse + shift) if on_device else (cp.asnumpy(mean), cp.asnumpy(lse + shift))

    @property
    def _is_high(self):
        return self.v.shape[1] > cuda.LOW_DIMENSION

    def _features(self, features, tokens):
        """Features (N, m) on the device, float64; by NumPy where their map doesn't take CuPy arrays."""
        cp = self.cp
        if isinstance(tokens, cp.ndarray):
            try:
                return cp.asarray(features(tokens), dtype=np.float64)
            except TypeError:
                tokens = cp.asnumpy(tokens)
        return cp.asarray(features(tokens), dtype=np.float64)

    def _cast(self, x):
        """Features in the type of the pairs, seen from where that loses least."""
        cp, pair = self.cp, self.pair
        if pair.reduction in ("squared", "wrapped") and not pair.geodesic:
            # single precision and |u|^2 + |v|^2 - 2 u.v lose what lies far from the origin; differences don't
            x = centred(pair, x, self.v, cp) if self.dtype == np.float32 or self._is_high else x
        return cp.ascontiguousarray(x.astype(self.dtype))

    def _bias(self, key_bias):
        """Biases less the largest, in units of log 2; the largest; their spread, with and without those of -inf."""
        cp = self.cp
        if key_bias is None:
            return cp.zeros(len(self.v)), 0.0, 0.0, 0.0
        bias = cp.asarray(key_bias, dtype=np.float64)
        highest = float(bias.max())
        highest = highest if np.isfinite(highest) else 0.0
        bias = bias - highest
        finite = cp.where(cp.isfinite(bias), bias, 0.0)
        return bias / np.log(2), highest, -float(bias.min()), -float(finite.min())

    def _fused(self, values, bias, spread, finite_spread):
        cp, tokens, sums = self.cp, self.tokens, self.sums
        subtracted = cuda.subtraction(self.pair, self.dtype.itemsize, self.own, spread)
        # what is left out of a query's sum of weights is at most N exp(-cutoff); twice that moves its mean
        needed = np.log(2 * len(self.v) / self.rtol)
        cutoff = 4 * np.ceil((needed + min(finite_spread, needed)) / 4)  # in steps: similar biases share a sweep
        sweep = self._neighbours(cutoff)
        pairs = len(self.u) * len(self.v) if sweep is None else sweep.pairs
        if pairs > MANY and self._transforms is not None and pairs > PAIRS * self._transforms.work:
            mean, lse = self._transforms(values, bias * np.log(2))
            self.stats = {"kernel": "cufinufft", **self._transforms.stats}
            return mean, lse
        if sweep is None:
            self.stats = {"kernel": "fused", "pairs": len(self.u) * len(self.v)}
            return sums.fused(tokens, values, bias, subtracted)
        q, k = sweep.queries, sweep.keys
        near = replace(tokens, queries=tokens.queries[q], keys=tokens.keys[k])
        mean, lse = cp.empty((len(self.u), values.shape[1])), cp.empty(len(self.u))
        mean[q], lse[q] = sums.fused(near, values[k], bias[k], subtracted, sweep)
        redone = cp.flatnonzero(~(lse >= needed - cutoff))
        if len(redone):
            lonely = replace(tokens, queries=tokens.queries[redone])
            mean[redone], lse[redone] = sums.fused(lonely, values, bias, subtracted)
        pairs = sweep.pairs + len(redone) * len(self.v)
        self.stats = {"kernel": "cells", "pairs": pairs, "redone": len(redone)}
        return mean, lse

    @cached_property
    def _transforms(self):
        """The sums by cuFINUFFT, or None: not installed, another precision, no Gaussian, or too many modes."""
        if self.dtype != np.float64 or util.find_spec("cufinufft") is None:
            return None
        try:
            v = nufft.coordinates(self.f, self.v)
            u = v if self.own else nufft.coordinates(self.f, self.u)
            return nufft.NufftSums(self.pair, self.epsilon, u, v, self.rtol, self._some, self.cp)
        except ValueError:
            return None

    def _some(self, rows):
        """A run for some of the queries, over all keys."""
        tokens = replace(self.tokens, queries=self.tokens.queries[rows])
        return lambda values, bias: self.sums.fused(tokens, values, bias / np.log(2), cuda.RUNNING)

    def _neighbours(self, cutoff):
        """The sweep of the last call if its cutoff was this one, a new sweep, or None if it would save little."""
        held, sweep = self._sweep  # read once: another thread may bring another one
        if held != cutoff:
            sweep = self._new_sweep(cutoff)
            self.cp.cuda.get_current_stream().synchronize()
            self._sweep = cutoff, sweep
        return sweep

    def _new_sweep(self, cutoff):
        cells, pair, everything = self.cells, self.pair, len(self.u) * len(self.v)
        distance_like = pair.reduction in ("squared", "wrapped") and not pair.geodesic
        if self.v.shape[1] > 3 or not distance_like or everything < SPARSE:
            return None
        distance = float(reach_of(pair, self.epsilon, cutoff))
        if not cells.looks_sparse(pair, self.v, distance):
            return None
        sweep = cells.sweep(pair, self.u, self.v, distance, self.sums.CELL_THREADS)
        if sweep.pairs > FULL_CELLS * len(self.u):
            sweep = cells.sweep(pair, self.u, self.v, distance, 4 * self.sums.CELL_THREADS)
        return sweep if sweep.pairs < everything / 4 else None

    def _refuse_overflow(self, mean, lse):
        cp = self.cp
        lost = ~((cp.abs(lse) < np.finfo(self.dtype).max / 2) & cp.isfinite(mean).all(axis=1))
        if bool(lost.any()):
            query = int(lost.argmax())
            if self.pair.reduction == "general" and self.sums.sees_nothing(self.pair, self.u[query : query + 1], self.v):
                raise nothing_to_see(query)
            raise ValueError(
                f"epsilon takes query {query} beyond the range of {self.dtype}: "
                "logits or values overflow" + ("; use dtype='float64'" if self.dtype == np.float32 else "")
            )
