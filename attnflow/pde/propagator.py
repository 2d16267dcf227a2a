"""exp(t S) of a symmetric form: modes along each axis where it has them, else Chebyshev polynomials or eigenvectors.

A form has its `size`, `root` (the constant's image), `bound` of the spectrum, `doubled(scale)`, the function
v -> 2 (v + scale S v), the same as `plane(scale)`, matrices for fields on two axes (or None), and its `apply_seconds`,
`dense` matrix, `modes` along each axis of (c, ...) fields (or None), `moves` (0 on Dirichlet walls, or None), whether
it `conserves` the constant and `gains` somewhere, and namespace `xp`: `nodes.operator.SymmetricForm`,
`harmonics.operator.HarmonicForm`.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from . import chebyshev

EPS = np.finfo(float).eps
_MOST_GROWTH = 500.0  # of the logarithm of features
_CONVERGED = 1e-10  # of the spectrum's bound, to which its upper end is iterated
_MOMENT = 3e-4  # seconds not worth a second thought


def propagate(form, start, source, times: np.ndarray, tol: float, progress: bool = False) -> tuple[list, dict]:
    """u at the times (T,) from du/dt = S u + source, and how it was computed."""
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


def _by_chebyshev(form, start, source, times: np.ndarray, tol: float, progress: bool) -> tuple[list, dict]:
    told = told_growth(_largest(form), _CONVERGED * form.bound) if form.gains else {}
    growth = told.get("growth", 0.0)
    form = form.less(growth) if growth else form
    weights = chebyshev.coefficients(times, form.bound, tol) * grown(growth, times)
    stats = {"integrator": "chebyshev", "applications": len(weights) - 1, **told}
    plane = form.plane(2 / form.bound) if form.bound and not progress and source is None else None
    if plane is not None:
        fields = [chebyshev.propagate_plane(*plane, np.ascontiguousarray(field), weights) for field in start]
        return list(np.stack(fields, axis=1)), stats
    twice = form.doubled(2 / form.bound) if form.bound else np.copy
    fields = chebyshev.propagate(twice, start, weights, progress)
    if source is not None and bool((source != 0).any()):
        weights = chebyshev.integral_coefficients(times, form.bound, tol, growth)
        fields = [a + b for a, b in zip(fields, chebyshev.propagate(twice, source, weights, progress))]
    return fields, stats


def _by_axes(form, start: np.ndarray, source: np.ndarray | None, times: np.ndarray) -> tuple[list, dict]:
    modes = form.modes
    values = reduce(np.add.outer, [along.values for along in modes])
    values = values if form.gains else np.minimum(values, 0.0)

    def into(fields: np.ndarray) -> np.ndarray:
        for axis, along in enumerate(modes, start=1):
            fields = along.into(fields, axis)
        return fields

    if form.conserves:  # the constant stays, however long: its eigenvalue is zero but for rounding
        values[np.unravel_index(np.abs(into(form.root[None])).argmax(), values.shape)] = 0.0
    amplitude, result, stats = into(start), [], _eigen_stats(form, values, times)
    pushed = None if source is None else into(source)
    for t in times:
        fields = np.exp(t * values) * amplitude
        if pushed is not None:
            fields += t * _phi(t * values) * pushed
        for axis, along in enumerate(modes, start=1):
            fields = along.back(fields, axis)
        result.append(fields)
    return result, stats


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


def _by_modes(form, start: np.ndarray, source: np.ndarray | None, times: np.ndarray) -> tuple[list, dict]:
    values, vectors = eigenpairs(form)
    stats = _eigen_stats(form, values, times)
    columns = len(start)
    amplitude = start.reshape(columns, -1) @ vectors
    decay = np.exp(times[:, None] * values)
    result = decay[:, None] * amplitude
    if source is not None:
        phi = _phi(times[:, None] * values)
        result = result + (times[:, None] * phi)[:, None] * (source.reshape(columns, -1) @ vectors)
    return list((result @ vectors.T).reshape(len(times), *start.shape)), stats


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
