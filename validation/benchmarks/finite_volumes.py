"""The second-order finite-volume operator on a torus as a sparse matrix: what scipy's steppers are given."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from . import Case


def assemble(case: Case, size: int) -> tuple[sparse.csr_array, np.ndarray]:
    """The matrix of w^-1 d_i (w d_i H) on size^dim cells, face weights geometric means; and the nodes (N, dim).

    Parameters
    ----------
    case : Case
        Periodic, without metric.
    size : int
        Cells per axis.
    """
    points = case.nodes(size)
    weight = case.weight(points)
    forward = sparse.csr_array(sparse.diags_array([-1.0, 1.0, 1.0], offsets=[0, 1, 1 - size], shape=(size, size)))
    total = sparse.csr_array((len(points), len(points)))
    for k in range(case.dim):
        before, after = sparse.eye_array(size**k), sparse.eye_array(size ** (case.dim - 1 - k))
        difference = sparse.csr_array(sparse.kron(sparse.kron(before, forward), after)) * (size / case.length)
        face = np.exp(abs(difference.sign()) @ np.log(weight) / 2)
        total = total - difference.T @ sparse.diags_array(face) @ difference
    return sparse.csr_array(sparse.diags_array(1 / weight) @ total), points
