"""exp(t S) of a symmetric form: modes along each axis where it has them, else Chebyshev polynomials or eigenvectors.

A form has its `size`, `root` (the constant's image), `bound` of the spectrum, its `typical` eigenvalue, `doubled(scale)`, the function
v -> 2 (v + scale S v), the same as `plane(scale)`, matrices for fields on two axes (or None), and its `apply_seconds`,
`dense` matrix, `modes` along each axis of (c, ...) fields (or None), `moves` (0 on Dirichlet walls, or None), whether
it `conserves` the constant and `gains` somewhere, and namespace `xp`: `nodes.operator.SymmetricForm`,
`harmonics.operator.HarmonicForm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from . import chebyshev

EPS = np.finfo(float).eps
_MOST_GROWTH = 500.0  # of the logarithm of features
_CONVERGED = 1e-10  # of the spectrum's bound, to which its upper end is iterated
_MOMENT = 3e-4  # seconds not worth a second thought


def propagate(form, start, source, times: np.ndarray, tol: float, progress: bool = False) -> tuple[list, dict, np.ndarray]:
    """u (c, ...) at the times (T,) from du/dt = S u + source, how it was computed, and what rounding errors of S may take
    from its norm (T, c).

    Rounding errors are spread over a matrix: they move eigenvalues by EPS times the root mean square of all of them. That
    changes what has decayed by then no more, and the constant, where it stays, not at all.
    """
    if form.modes is not None:
        return _by_axes(form, start, source, times)
    if form.xp is np and predicted_seconds(form, times, tol) == _eigen_seconds(form):
        return _by_modes(form, start, source, times)
    return _by_chebyshev(form, start, source, times, tol, progress)


def predicted_seconds(form, times: np.ndarray, tol: float) -> float:
    """Roughly what `propagate` takes, beyond the modes of the axes."""
    if form.modes is not None:
        each = sum(5e-8 if modes.vectors is None else 5e-10 * len(modes.values) for modes in form.modes)
        return len(times) * each * form.size
    eigen = _eigen_seconds(form)
    return eigen if eigen < _MOMENT else min(eigen, _chebyshev_seconds(form, times, tol))


def _eigen_seconds(form) -> float:
    return 2e-4 + 2e-6 * form.size + 1.2e-9 * form.size**3 if form.size <= 3000 else np.inf


def _chebyshev_seconds(form, times: np.ndarray, tol: float) -> float:
    degree = chebyshev.degree_for(float(times[-1]) * form.bound / 2, tol)
    return degree * form.apply_seconds * (1 if form.moves is None else 2)


def _by_chebyshev(form, start, source, times: np.ndarray, tol: float, progress: bool) -> tuple[list, dict, np.ndarray]:
    told = told_growth(_largest(form), _CONVERGED * form.bound) if form.gains else {}
    growth = told.get("growth", 0.0)
    still, gained = _constant(form, start), None if source is None else _constant(form, source)
    moving, pushed = start - still, None if source is None else source - gained
    form = form.less(growth) if growth else form
    weights = chebyshev.coefficients(times, form.bound, tol) * grown(growth, times)
    stats = {"integrator": "chebyshev", "applications": len(weights) - 1, **told}
    plane = form.plane(2 / form.bound) if form.bound and not progress and source is None else None
    if plane is not None:
        fields = [chebyshev.propagate_plane(*plane, np.ascontiguousarray(field), weights) for field in moving]
        fields = list(np.stack(fields, axis=1))
    else:
        twice = form.doubled(2 / form.bound) if form.bound else np.copy
        fields = chebyshev.propagate(twice, moving, weights, progress)
        if pushed is not None and bool((pushed != 0).any()):
            weights = chebyshev.integral_coefficients(times, form.bound, tol, growth)
            fields = [a + b for a, b in zip(fields, chebyshev.propagate(twice, pushed, weights, progress))]
    norms = np.stack([_norms(field, form.root.ndim) for field in (fields if form.xp is np else map(form.xp.asnumpy, fields))])
    lost = np.minimum(EPS * form.typical * times, 1.0)[:, None] * norms
    fields = [a + (still if gained is None else still + t * gained) for t, a in zip(times.tolist(), fields)]
    return fields, stats, lost


def _constant(form, fields):
    """The part of fields (c, ...) that stays: their mean's, or nothing."""
    if not form.conserves:
        return form.xp.zeros_like(fields)
    dim = form.root.ndim
    return form.xp.tensordot(fields, form.root, dim).reshape(-1, *(1,) * dim) * form.root


def _norms(fields, dim: int):
    """Of fields (..., *grid) on a grid of that many axes: (...)."""
    return (fields**2).sum(axis=tuple(range(-dim, 0))) ** 0.5


def _by_axes(form, start: np.ndarray, source: np.ndarray | None, times: np.ndarray) -> tuple[list, dict, np.ndarray]:
    modes = form.modes
    values, doubts = (reduce(np.add.outer, parts) for parts in zip(*((along.values, along.doubts) for along in modes)))
    values = values if form.gains else np.minimum(values, 0.0)

    def into(fields: np.ndarray) -> np.ndarray:
        for axis, along in enumerate(modes, start=1):
            fields = along.into(fields, axis)
        return fields

    stats = _eigen_stats(form, values, times)
    grow = _Growth(form, values, doubts, into(start), None if source is None else into(source))
    result, lost = [], []
    for t in times:
        fields = grow.by(t)
        lost.append(grow.lost_by(t, fields))
        for axis, along in enumerate(modes, start=1):
            fields = along.back(fields, axis)
        result.append(fields)
    return result, stats, np.array(lost)


@dataclass(frozen=True)
class _Growth:
    """Modes at any time: eigenvalues (...) and what they may be off by, amplitudes (c, ...) at time 0 and what is added."""

    form: Any
    values: np.ndarray
    doubts: np.ndarray
    amplitude: np.ndarray
    pushed: np.ndarray | None

    def by(self, t: float | np.ndarray) -> np.ndarray:
        """Amplitudes (c, ...) at a time, or (T, c, ...) at some (T, 1, ...)."""
        return self._with(self.values, t)

    def lost_by(self, t: float | np.ndarray, here: np.ndarray) -> np.ndarray:
        """How far the norms (c,) or (T, c) of those amplitudes may be off."""
        dim = self.values.ndim
        if not self.doubts.any():
            return np.zeros(here.shape[:-dim])
        more = self.values + self.doubts
        ends = self.values - self.doubts, more if self.form.gains else np.minimum(more, 0.0)
        return np.max([_norms(self._with(values, t) - here, dim) for values in ends], axis=0)

    def _with(self, values: np.ndarray, t: float | np.ndarray) -> np.ndarray:
        fields = np.exp(t * values) * self.amplitude
        return fields if self.pushed is None else fields + t * _phi(t * values) * self.pushed


def _eigen_stats(form, values: np.ndarray, times: np.ndarray) -> dict:
    told = told_growth(float(values.max()), EPS * form.bound) if form.gains else {}
    grown(told.get("growth", 0.0), times)
    return {"integrator": "eigenvectors", **told}


def told_growth(largest: float, error: float) -> dict:
    """What statistics say of the largest eigenvalue of L, known to an error: the rate at which features grow, at least 0,
    and between which numbers the eigenvalue itself lies."""
    return {"growth": max(largest, 0.0), "growth_between": [largest - error, largest + error]}


def compared_growth(fine: dict, coarse: dict) -> dict:
    """Statistics of a fine grid, the interval of the largest eigenvalue widened by how far it is from a coarser grid's."""
    if "growth_between" not in fine or "growth_between" not in coarse:
        return fine
    low, high = fine["growth_between"]
    change = abs(low + high - sum(coarse["growth_between"])) / 2
    return {**fine, "growth_between": [low - change, high + change]}


def _phi(z: np.ndarray) -> np.ndarray:
    """(e^z - 1) / z."""
    return np.where(z != 0, np.expm1(z) / np.where(z != 0, z, 1.0), 1.0)


def _by_modes(form, start: np.ndarray, source: np.ndarray | None, times: np.ndarray) -> tuple[list, dict, np.ndarray]:
    values, vectors = eigenpairs(form)
    stats, columns = _eigen_stats(form, values, times), len(start)
    doubts = np.where((values == 0) & form.conserves, 0.0, doubt(values))
    pushed = None if source is None else source.reshape(columns, -1) @ vectors
    grow = _Growth(form, values, doubts, start.reshape(columns, -1) @ vectors, pushed)
    result = grow.by(times[:, None, None])
    return list((result @ vectors.T).reshape(len(times), *start.shape)), stats, grow.lost_by(times[:, None, None], result)


def doubt(values: np.ndarray) -> float:
    """By how much rounding errors of a symmetric matrix move its eigenvalues (n,)."""
    return float(EPS * np.sqrt(np.mean(values**2)))


def eigenpairs(form) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,) of S from the largest down and orthonormal eigenvectors (m, k), zero on Dirichlet walls."""
    matrix = form.dense()
    if form.moves is None:
        values, vectors = np.linalg.eigh(-matrix)
    if form.conserves:
        values[np.argmax(np.abs(form.root.ravel() @ vectors))] = 0.0  # the constant's, but for rounding
    if form.moves is not None:
        free = form.moves.ravel() > 0
        values, moving = np.linalg.eigh(-matrix[np.ix_(free, free)])
        vectors = np.zeros((len(matrix), len(values)))
        vectors[free] = moving
    return -(values if form.gains else np.maximum(values, 0.0)), vectors


def _largest(form) -> float:
    """The largest eigenvalue of S."""
    shape = form.root.shape

    def apply(v: np.ndarray) -> np.ndarray:
        return form.apply(v.reshape(1, *shape)).ravel()

    return largest_eigenvalue(LinearOperator((form.size, form.size), matvec=apply, dtype=float), form.bound)


def largest_eigenvalue(matrix, bound: float, above: float | None = None) -> float:
    """The largest eigenvalue of a symmetric matrix with spectrum above -bound, to a part of the bound, which an eigenvalue
    near 0 is small beside; or next to a number `above` all of them, by solves.

    Raises
    ------
    RuntimeError
        If the iteration does not converge.
    """
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    try:
        if above is not None:
            values = eigsh(matrix.tocsc(), 1, sigma=above, which="LM", v0=start, return_eigenvectors=False)
            return float(values.max())
        raised = LinearOperator(matrix.shape, matvec=lambda v: matrix @ v + bound * v, dtype=float)
        values = eigsh(raised, 1, which="LA", v0=start, tol=_CONVERGED, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        raise RuntimeError("the rate at which walls let features grow did not converge; pass a coarser grid") from error
    return float(values.max()) - bound


def grown(growth: float, times: np.ndarray) -> np.ndarray:
    """exp(growth t), (T,).

    Raises
    ------
    ValueError
        Where that is no number any more.
    """
    if growth * times[-1] > _MOST_GROWTH:
        raise ValueError(
            f"t must be at most {_MOST_GROWTH / growth:.3g} where features grow as exp({growth:.3g} t), got {times[-1]:g}"
        )
    return np.exp(growth * times)
