"""Finite-volume operators in time: all output times from one march, exactly in time or by solve_ivp's methods.

==================== ===================================================== ===============================
method               how                                                   when "auto" takes it
==================== ===================================================== ===============================
chebyshev            compiled stencil, all output times share the terms    two and three dimensions
rational             14 poles, a complex solve per conjugate pair          one dimension; steep densities,
                                                                           long times in two
BDF, Radau, LSODA,   scipy's solve_ivp on the semi-discrete system, with   walls that change in time, operators
RK45, RK23, DOP853   its sparse Jacobian                                   that are not self-adjoint, reactions
==================== ===================================================== ===============================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import integrate, sparse

from ... import capacity
from ...progress import track
from .. import chebyshev
from ..backends import namespace
from ..eigenvalues import SMALLEST
from ..grids import weighted_norm
from ..propagator import EPS, grown, told_growth
from .chain import Chain
from .operator import Cells
from .rational import DEGREE, Exponential, LineExponential
from .stencil import advance, apply

SOLVE_IVP = ("BDF", "Radau", "LSODA", "RK45", "RK23", "DOP853")
INTEGRATORS = ("chebyshev", "rational", *SOLVE_IVP)
_EXPLICIT = ("RK45", "RK23", "DOP853")
_LOST, _FOREVER = 1e15, 1e100  # times over 1 / bound, the time of the fastest mode
_ADVICE = ("; try 'auto'", "; the source may let features grow without bound there")  # without and with one
_ROUNDINGS = 8  # of a rate, until a solve is done
_NEGLIGIBLE = 1e-11  # of the largest norm
_CHUNK = 0.1  # seconds, roughly, between two looks at the keyboard and the progress bar
_STEEP = 100.0  # range of log w beyond which sqrt(w) H keeps no digit of H where w is least
_FAINT = 1e-8  # sqrt(w) over its maximum below which sqrt(w) H keeps too few digits of H: extrema still bound it


def march(
    cells: Cells,
    initial: np.ndarray,
    times: np.ndarray,
    tol: float,
    method: str = "auto",
    backend: str = "numpy",
    progress: bool = False,
) -> tuple[np.ndarray, dict]:
    """The fields at `times`, (T, *grid, c), from initial values (*grid, c), and what was done.

    When interrupted, fewer times come back: those that were finished. Where constants stay, only what features are off
    their weighted mean is marched, and what rounding errors and the rational exponential (1e-13) take from sum w H is
    given back evenly. Where features may grow, L less its largest eigenvalue is what is exponentiated; the statistics
    have it as `growth`, and as `round_off` the part of the largest norm that rounding errors of |L| t may take.
    """
    if method == "auto":
        method = "chebyshev" if backend == "cupy" else choose(cells, times, tol)
    if method not in SOLVE_IVP and not cells.symmetric:
        raise ValueError(
            f"method must be 'auto' or one of {', '.join(SOLVE_IVP)} where walls change in time, the operator is not "
            f"self-adjoint or the source not s(x) + r(x) H, got {method!r}"
        )
    if backend == "cupy" and method != "chebyshev":
        raise ValueError(f"backend must be 'numpy' for the integrator {method!r}, got 'cupy'; use method='chebyshev'")
    values = np.ascontiguousarray(initial.reshape(cells.grid.size, -1))
    run = _chebyshev if method == "chebyshev" else _rational if method == "rational" else _solve_ivp
    mean, gained = np.zeros((2, values.shape[1]))
    if cells.leak is None and cells.symmetric:
        mean = cells.mass @ values
        if cells.source is not None:
            gained = cells.mass @ cells.source
            cells = replace(cells, source=cells.source - gained)
    start = values - mean
    fields, stats = run(cells, start, times, tol, method, backend, progress)
    times = times[: len(fields)]
    if cells.leak is None and cells.symmetric:
        fields -= np.einsum("i,tic->tc", cells.mass, fields)[:, None]
    exact = method == "rational" and len(cells.grid.shape) == 1  # relative to every rate
    if len(fields) and cells.coupled is None and not exact:
        whole = [values[None], fields + (mean + times[:, None] * gained)[:, None]]
        scale = np.concatenate([weighted_norm(known, cells.mass) for known in whole]).max(axis=0)
        at = partial(run, cells, start, tol=tol, method=method, backend=backend, progress=False)
        lost = _lost(cells, fields, times, np.where(scale > 0, scale, 1.0), max(10 * tol, _NEGLIGIBLE), at)
        stats["round_off"] = float(lost.max())
    fields += (mean + times[:, None] * gained)[:, None]
    if len(fields) and times[0] == 0:
        fields[0] = values
    return fields.reshape(len(fields), *initial.shape), {"integrator": method, **stats}


def _lost(cells: Cells, fields: np.ndarray, times: np.ndarray, scale: np.ndarray, enough: float, at: Callable) -> np.ndarray:
    """What rounding errors of L may take by then from the norm of fields (T, n, c), relative to a scale (c,): (T, c).

    A mode's rate is off by a few EPS times the rates that it passes over. What has decayed, or come to rest, did so long
    before: fields are looked `at` when rounding errors have taken `enough`, and what has not changed since has not suffered.
    """
    norms = weighted_norm(fields, cells.mass)
    passed = np.einsum("i,tic->tc", _ROUNDINGS * cells.mass * cells.loss, fields**2) / np.where(norms > 0, norms, 1.0) ** 2
    off = EPS * times[:, None] * passed
    lost = np.minimum(np.expm1(np.minimum(off, 1.0)), 1.0) * norms / scale
    if ((lost > 10 * enough) | (off > 1)).any() and cells.symmetric and not cells.gains:
        there = at(times=times[-1:] * enough / off.max())[0]
        if len(there):
            changed = enough + 2 * weighted_norm(fields - there, cells.mass) / scale
            forgotten = changed + (norms / scale if cells.source is None else 0.0)  # what should have decayed may be left
            lost = np.where(off > 1, forgotten, np.minimum(lost, changed))
    return lost


def choose(cells: Cells, times: np.ndarray, tol: float) -> str:
    """The cheaper integrator, from rough costs of a stencil and of a factorisation."""
    dim, size = len(cells.grid.shape), cells.grid.size
    if not cells.symmetric:
        return "Radau" if dim == 1 else "BDF"
    if dim == 1:
        return "rational"
    if dim == 3:
        return "chebyshev"
    steep = np.ptp(cells.log_weight) > _STEEP and not cells.keeps_extrema  # which bounds features where digits are lost
    applications = chebyshev.degree_for(float(times[-1]) * cells.bound / 2, tol)
    steps = 1 + np.count_nonzero(np.abs(np.diff(times, 2, prepend=0.0)) > 1e-13 * times[-1])
    return "rational" if steep or applications * size * 2e-9 > steps * 6e-7 * size**1.5 else "chebyshev"


def _chebyshev(cells: Cells, values, times, tol: float, method: str, backend: str, progress: bool) -> tuple[np.ndarray, dict]:
    half = np.exp((cells.log_weight - cells.log_weight.max()) / 2)
    half = np.maximum(half, 1e-300)[:, None]
    growth = cells.growth
    less = cells.less(growth) if growth else cells
    weights = chebyshev.coefficients(times, less.bound, tol) * grown(growth, times)
    operator = _Stencil(less, backend)
    fields, terms = operator.sum(half * values, weights, progress)
    if cells.source is not None:
        integral = chebyshev.integral_coefficients(times, less.bound, tol, growth)
        added, more = operator.sum(half * cells.source, integral, progress)
        finished = (terms >= len(weights)) and (more >= len(integral))
        fields, times = (fields + added, times) if finished else (fields[:0], times[:0])
    else:  # short times need fewer terms: when interrupted, some may have all of theirs
        complete = [not weights[terms:, m].any() for m in range(len(times))]
        fields = fields[: len(times) if all(complete) else complete.index(False)]
    fields = fields / half
    if cells.keeps_extrema and half.min() < _FAINT:
        fields = np.clip(fields, values.min(axis=0), values.max(axis=0))
    return fields, {"applications": len(weights) - 1, **growth_of(cells)}


class _Stencil:
    """Applies P = 1 + 2 S / bound in the layout the compiled march wants: (n0, n1, n2) per column."""

    def __init__(self, cells: Cells, backend: str) -> None:
        shape = (1,) * (3 - len(cells.grid.shape)) + cells.grid.shape
        self.offsets = np.array([(0,) * (3 - len(o)) + o for o in cells.offsets], dtype=np.int64)
        scale = 2 / cells.bound if cells.bound else 0.0
        self.rates = np.ascontiguousarray(scale * cells.exchange.reshape(-1, *shape))
        self.own = 1 - scale * cells.loss.reshape(shape)
        self.shape, self.backend = shape, backend

    def sum(self, values: np.ndarray, weights: np.ndarray, progress: bool) -> tuple[np.ndarray, int]:
        """sum_k weights[k, m] T_k(P) values, (T, n, c), and how many k were reached."""
        if self.backend != "numpy":
            return self._sum_shifted(values, weights, progress)
        columns = np.ascontiguousarray(values.T).reshape(-1, *self.shape)
        result = weights[0][None, :, None, None, None] * columns[:, None]
        first = (np.cumsum(weights[::-1] != 0, axis=0)[::-1] > 0).argmax(axis=1)
        states = [(np.zeros_like(column), column.copy()) for column in columns]
        block = 2 * max(1, int(_CHUNK / (2e-9 * values.size * (len(self.offsets) + len(weights[0])))) // 2)
        done = 1
        try:
            for done in track(range(1, len(weights), block), progress, unit="block"):
                for (before, here), sums in zip(states, result):
                    advance(
                        before,
                        here,
                        sums,
                        weights[done : done + block],
                        first[done : done + block],
                        1.0 if done == 1 else 2.0,
                        self.own,
                        self.rates,
                        self.offsets,
                    )
            done = len(weights)
        except KeyboardInterrupt:
            pass
        return np.moveaxis(result, 0, -1).reshape(len(weights[0]), -1, len(columns)), done

    def _sum_shifted(self, values: np.ndarray, weights: np.ndarray, progress: bool) -> tuple[np.ndarray, int]:
        xp = namespace(self.backend)
        own, rates, offsets = xp.asarray(self.own), xp.asarray(self.rates), self.offsets.tolist()
        start = xp.asarray(np.ascontiguousarray(values.T).reshape(-1, *self.shape))

        def twice(v):
            return 2 * apply(v, own, rates, offsets, xp)

        fields = [chebyshev.propagate(twice, column, weights, progress) for column in start]
        stacked = xp.stack([xp.stack(column) for column in fields], axis=-1)
        stacked = stacked if xp is np else xp.asnumpy(stacked)
        return stacked.reshape(len(weights[0]), -1, len(start)), len(weights)


def _rational(cells: Cells, values, times, tol: float, method: str, backend: str, progress: bool) -> tuple[np.ndarray, dict]:
    growth = cells.growth
    grown(growth, times)
    less = cells.less(growth) if growth else cells
    if len(cells.grid.shape) == 1:
        exponential: LineExponential | Exponential = LineExponential(Chain.of(less), less.source, growth)
        longest = 1 / SMALLEST
    else:
        exponential = Exponential(less.operator(), less.source, growth)
        longest = _FOREVER / max(cells.bound, 1e-200)  # beyond, products of two rates overflow
    steps = np.minimum(np.diff(times, prepend=0.0), longest)
    repeated = [k + 1 < len(steps) and abs(steps[k + 1] - steps[k]) <= 1e-13 * times[-1] for k in range(len(steps))]
    result = []
    try:
        for k in track(range(len(steps)), progress, unit="time"):
            if steps[k] > 0:
                values = exponential.step(values, steps[k], keep=repeated[k])
            result.append(values)
    except KeyboardInterrupt:
        pass
    return np.array(result).reshape(-1, *values.shape), {"poles": DEGREE, **growth_of(cells)}


def growth_of(cells: Cells) -> dict:
    """What statistics say of it where some cell gains."""
    return told_growth(cells.largest, EPS * cells.bound) if cells.gains else {}


def _solve_ivp(cells: Cells, values, times, tol: float, method: str, backend: str, progress: bool) -> tuple[np.ndarray, dict]:
    shape = values.shape
    # one state vector for all columns: the Jacobian repeats on each
    jacobian = sparse.kron(cells.operator(), sparse.eye_array(shape[1])) if cells.coupled is None else cells.coupled
    jacobian = sparse.csc_array(jacobian)
    reaction = cells.reaction

    def slope(t: float, v: np.ndarray) -> sparse.csc_array:
        assert reaction is not None
        return sparse.csc_array(jacobian + _derivative(partial(reaction, t), v.reshape(shape)))

    implicit = {"jac": jacobian if reaction is None else slope} if method in ("BDF", "Radau") else {}

    def rate(t: float, v: np.ndarray) -> np.ndarray:
        source = cells.source if cells.moving_source is None else cells.moving_source(t)
        result = jacobian @ v if source is None else jacobian @ v + source.ravel()
        return result if reaction is None else result + reaction(t, v.reshape(shape)).ravel()

    if method in _EXPLICIT:  # their steps are stable up to a few times 1 / bound
        capacity.ends(times[-1] * cells.bound / 10, "t", 2e-5 + 1e-9 * values.size)
    if times[-1] * cells.bound > _LOST:
        raise ValueError(
            f"t must be at most {_LOST / cells.bound:.3g} for method {method!r}, beyond which its steps are lost in rounding "
            f"errors, got {times[-1]:g}"
        )
    scale = float(np.abs(values).max()) or float(np.abs(rate(0.0, values.ravel())).max()) * times[-1] or 1.0
    options = {"rtol": max(tol, 1e-12), "atol": max(tol, 1e-14) * scale, "max_step": cells.timing.longest_step, **implicit}
    result, v, began, evaluations = [], values.ravel(), 0.0, 0
    try:
        for time in track(times, progress, unit="time"):
            for end, after in [*(jump for jump in cells.timing.jumps if began < jump[0] < time), (time, time)]:
                if end > began:
                    step = getattr(integrate, method)(rate, began, v, end, **options)
                    while step.status == "running":
                        why = step.step()
                    if step.status == "failed":
                        raise RuntimeError(
                            f"method {method!r} failed at t = {step.t:.4g}: {why}{_ADVICE[reaction is not None]}"
                        )
                    v, began, evaluations = step.y, min(after, time), evaluations + step.nfev
            result.append(v.reshape(shape))
    except KeyboardInterrupt:
        pass
    grown_by = growth_of(cells) if cells.coupled is None else {}
    return np.array(result).reshape(-1, *shape), {"evaluations": int(evaluations), **grown_by}


def _derivative(function: Callable, values: np.ndarray) -> sparse.coo_array:
    """Of a function of features (n, c) -> (n, c) cell by cell, by differences: (n c, n c)."""
    size, columns = values.shape
    step = 1e-7 * np.maximum(np.abs(values), np.abs(values).max(axis=0) + 1e-300)
    here, index = function(values), np.arange(values.size).reshape(size, columns)
    rows, across, rates = [], [], []
    for k in range(columns):
        moved = values.copy()
        moved[:, k] += step[:, k]
        rates.append(((function(moved) - here) / (moved - values)[:, [k]]).ravel())
        rows.append(index.ravel())
        across.append(np.repeat(index[:, k], columns))
    entries = np.concatenate(rates), (np.concatenate(rows), np.concatenate(across))
    return sparse.coo_array(entries, shape=(values.size, values.size))
