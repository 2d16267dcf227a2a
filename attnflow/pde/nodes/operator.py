"""Spectral discretisation of L for smooth problems, in any metric: Fourier where an axis wraps, Legendre between walls.

With w the conserved weight and q the quadrature weights of the nodes, L = w^-1 d_i (w T^ij d_j) is, in
u = sqrt(q w) H, symmetric and non-positive:

    S = -sum_ij A_i' T^ij A_j,     A_i = B_i - (B_i sqrt(q w)) / sqrt(q w),     B_i = sqrt(q) d_i / sqrt(q).

In the identity metric that is -sum B_i' B_i minus a potential, Schroedinger's form, which is computed as such.
Integration by parts is exact on these nodes, so a no-flux wall needs nothing, and the flux through another is added to
the nodes on it, over their quadrature weight across the wall; at a Dirichlet wall the node on it is held. A_i sends
sqrt(q w), the constant's image, to zero: constants stay, and the integral of w H is conserved, on any grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np

from ...grid import Grid
from ..backends import namespace
from ..boundaries import Walls
from ..generator import Generator
from ..grids import NODES
from .modes import Modes, derivative_norm, derivative_size, free_modes, scaled_derivative, scaled_laplacian
from .walls import crossings, dirichlet_nodes


@dataclass(frozen=True)
class SymmetricForm:
    """S on a grid, as factors to be applied axis by axis to fields (c, *grid).

    Attributes
    ----------
    grid : Grid
    tensor : (n, n, *grid) array or None
        T^ij; None for the identity.
    root : (*grid) array
        sqrt(q w), of norm 1.
    log_weight : (size,) array
        log w, up to a constant of the density.
    moves : (*grid) array or None
        1 where features move, 0 on Dirichlet walls.
    leak : (*grid) array or None
        Rate at which a node loses features to walls or a reaction, part of S; None without any.
    xp : module
        The arrays' namespace, numpy or cupy.
    """

    grid: Grid
    tensor: Any
    root: Any
    log_weight: np.ndarray
    moves: Any = None
    leak: Any = None
    xp: Any = np

    @property
    def size(self) -> int:
        return self.grid.size

    @property
    def conserves(self) -> bool:
        """Whether the constant's image stays."""
        return self.moves is None and self.leak is None

    @property
    def gains(self) -> bool:
        """Whether features may grow."""
        return self.leak is not None and bool((self.leak < 0).any())

    def less(self, rate: float | np.ndarray) -> SymmetricForm:
        """S - rate, a number or one per node (*grid)."""
        more = self.xp.asarray(np.broadcast_to(rate, self.grid.shape))
        return replace(self, leak=more if self.leak is None else self.leak + more)

    @property
    def apply_seconds(self) -> float:
        """Roughly what `apply` takes for one field."""
        dim = len(self.grid.axes)
        each, work = 3e-6 if dim == 2 and self.moves is None else 8e-6 * dim, 2e-9 * dim + 2.5e-10 * sum(self.grid.shape)
        if self.tensor is not None:
            each, work = 2e-5 * dim, 1.5e-9 * dim**2 + 2 * work
        return each + work * self.size

    @cached_property
    def derivatives(self) -> list:
        """B_k along its axis, (n_k, n_k) each."""
        return [self.xp.asarray(scaled_derivative(axis)) for axis in self.grid.axes]

    @cached_property
    def modes(self) -> list[Modes] | None:
        """Those of each axis, where S is a sum of operators along one axis each; else None.

        Without a weight, waves are modes of axes that wrap. Otherwise the potential must be a sum, to rounding errors.
        """
        if self.tensor is not None or self.xp is not np:
            return None
        axes, dim = self.grid.axes, len(self.grid.axes)
        others = [_others(dim, k) for k in range(dim)]
        moves = np.ones(self.grid.shape) if self.moves is None else self.moves
        free = [moves.max(axis=across) > 0 for across in others]
        root = self.root / np.sqrt(self.grid.weights).reshape(self.grid.shape)
        if np.ptp(root) <= 1e-14 * root.max() and self.leak is None:
            return [free_modes(axis, tuple(f)) for axis, f in zip(axes, free)]
        if dim == 1:
            return None
        # each axis has a kernel of its own, unless a node on it is held or loses features
        roots = [self.root.mean(axis=across) for across in others]
        parts = [(L @ r) / r for L, r in zip(self._laplacians, roots)]
        leaks = [0 * r for r in roots]
        if self.leak is not None:
            leaks = [along - along.min() for along in (self.leak.mean(axis=across) for across in others)]
            leaks[0] = leaks[0] + self.leak.min()
        total = reduce(np.add.outer, [part + leak for part, leak in zip(parts, leaks)])
        if np.abs(total - self._potential).max() > 1e-14 * self.bound:
            return None
        return [
            Modes.of(L - np.diag(part + leak), f, r if f.all() and not leak.any() else None)
            for L, part, leak, f, r in zip(self._laplacians, parts, leaks, free, roots)
        ]

    @cached_property
    def mass(self) -> np.ndarray:
        """q w / sum q w, (size,)."""
        root = self.root if self.xp is np else self.xp.asnumpy(self.root)
        return root.ravel() ** 2

    @cached_property
    def bound(self) -> float:
        """No eigenvalue is below -bound: max eigenvalue of T * sum |A_k|^2, or sum |B_k|^2 + max |potential|."""
        return self._of_size([derivative_norm(axis) for axis in self.grid.axes])

    @cached_property
    def typical(self) -> float:
        """Root mean square of the eigenvalues, from above: many are far from the bound, which nodes next to walls are at."""
        return self._of_size([derivative_size(axis) for axis in self.grid.axes])

    def _of_size(self, norms: list[float]) -> float:
        if self.tensor is None:
            return sum(norm**2 for norm in norms) + float(abs(self._potential).max())
        largest = self.xp.linalg.eigvalsh(self.xp.moveaxis(self.tensor, (0, 1), (-2, -1))).max()
        bound = float(largest) * sum((n + float(abs(a).max())) ** 2 for n, a in zip(norms, self.slopes))
        return bound if self.leak is None else bound + float(abs(self.leak).max())

    @cached_property
    def slopes(self) -> list:
        """(B_k sqrt(q w)) / sqrt(q w), half the slope of log w and a little of q: (*grid) each."""
        return [_along(B, self.root[None], k)[0] / self.root for k, B in enumerate(self.derivatives)]

    @cached_property
    def _laplacians(self) -> list:
        return [self.xp.asarray(scaled_laplacian(axis)) for axis in self.grid.axes]

    @cached_property
    def _potential(self):
        potential = sum(_along(L, self.root[None], k)[0] for k, L in enumerate(self._laplacians)) / self.root
        return potential if self.leak is None else potential + self.leak

    def apply_without_walls(self, v):
        """S v for fields (c, *grid), Dirichlet walls left out."""
        if self.tensor is None:
            return sum(_along(L, v, k) for k, L in enumerate(self._laplacians)) - self._potential * v
        slopes = self.gradient(v)
        result = self.divergence([sum(T * s for T, s in zip(row, slopes)) for row in self.tensor])
        return result if self.leak is None else result - self.leak * v

    def gradient(self, v) -> list:
        """A_k v for fields (c, *grid), one for each axis."""
        return [_along(B, v, k) - a * v for k, (B, a) in enumerate(zip(self.derivatives, self.slopes))]

    def divergence(self, fields):
        """-sum_k A_k' of fields (c, *grid), one for each axis."""
        pairs = enumerate(zip(self.derivatives, self.slopes, fields))
        return sum(a * s - _along(B.T, s, k) for k, (B, a, s) in pairs)

    def apply(self, v):
        """S v for fields (c, *grid)."""
        return self.apply_without_walls(v) if self.moves is None else self.moves * self.apply_without_walls(self.moves * v)

    def doubled(self, scale: float) -> Callable:
        """v -> 2 (v + scale S v), a new array."""
        if self.tensor is not None:
            return lambda v: 2 * v + (2 * scale) * self.apply(v)
        own, matrices = 2 - (2 * scale) * self._potential, [(2 * scale) * L for L in self._laplacians]

        def function(v):
            result = own * v
            for k, matrix in enumerate(matrices):
                result += _along(matrix, v, k)
            if self.moves is not None:  # held nodes are zero and stay so
                result *= self.moves
            return result

        return function

    def plane(self, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """own, across and along with own v + across v + v along = 2 (v + scale S v) for a field on two axes; else None."""
        if len(self.derivatives) != 2 or self.tensor is not None or self.moves is not None or self.xp is not np:
            return None
        across, along = ((2 * scale) * L for L in self._laplacians)
        return 2 - (2 * scale) * self._potential, across, np.ascontiguousarray(along.T)

    def dense(self) -> np.ndarray:
        """S as a matrix, (size, size)."""
        if len(self.derivatives) == 1 and self.tensor is None and self.moves is None:
            return self._laplacians[0] - np.diag(self._potential)
        identity = np.eye(self.grid.size).reshape(-1, *self.grid.shape)
        matrix = self.apply(identity).reshape(self.grid.size, -1)
        return (matrix + matrix.T) / 2


def symmetric_form(generator: Generator, grid: Grid, walls: Walls, backend: str = "numpy") -> SymmetricForm:
    """S on a grid of fourier axes of odd size and lobatto axes.

    Raises
    ------
    ValueError
        If an axis is of another kind, or of even size where it wraps: an even number of nodes has a mode that its
        derivative does not see.
    """
    for axis in grid.axes:
        if axis.kind not in NODES or (axis.kind == "fourier" and axis.size % 2 == 0):
            raise ValueError(
                "grid must have axes of kind 'lobatto', or of kind 'fourier' and odd size, "
                f"got kind {axis.kind!r}, size {axis.size}"
            )
    xp = namespace(backend)
    log_w, tensor = generator.coefficients(grid.points)
    root = (np.exp((log_w - log_w.max()) / 2) * np.sqrt(grid.weights)).reshape(grid.shape)
    root /= np.linalg.norm(root)
    if tensor is not None:
        tensor = xp.asarray(np.moveaxis(tensor.reshape(*grid.shape, *tensor.shape[1:]), (-2, -1), (0, 1)))
    clamped, leak = dirichlet_nodes(grid, walls), np.zeros(grid.size)
    for nodes, rate, side in crossings(generator, grid, walls):
        leak[nodes] += rate * side.coefficient_at(grid.points[nodes])
    return SymmetricForm(
        grid,
        tensor,
        xp.asarray(root),
        log_w,
        None if clamped is None else xp.asarray(1.0 - clamped),
        xp.asarray(leak.reshape(grid.shape)) if leak.any() else None,
        xp,
    )


def spectral_matrix(generator: Generator, grid: Grid) -> np.ndarray:
    """The dense matrix of L: values at the nodes to values of L H there; no-flux at walls.

    Parameters
    ----------
    generator : Generator
    grid : Grid
        See `symmetric_form`.

    Returns
    -------
    (grid.size, grid.size) array
        Rows sum to zero; symmetric and non-positive in the weight w times that of the nodes.

    Notes
    -----
    Where w is small, L H loses relative accuracy: rounding errors there grow as sqrt(max(w) / w).

    Examples
    --------
    >>> import attnflow as af
    >>> from attnflow.pde.nodes.operator import spectral_matrix
    >>> p = af.VonMises(1.0)
    >>> grid = p.space.grid(41)
    >>> H = np.cos(grid.points[:, 0])
    >>> expected = -H + 2 * np.sin(grid.points[:, 0]) ** 2   # H'' - 2 sin H'
    >>> bool(np.abs(spectral_matrix(af.DriftDiffusion(p).generator, grid) @ H - expected).max() < 1e-11)
    True
    """
    form = symmetric_form(generator, grid, (None,) * len(grid.axes))
    root = form.root.ravel()
    return form.dense() * (root / root[:, None])


def _along(matrix, v, k: int):
    """The matrix applied to fields (c, *grid) along axis k."""
    last = v.ndim - 2
    if k == last:
        return v @ matrix.T
    if k == last - 1:
        return matrix @ v
    return (matrix @ v.reshape(*v.shape[: k + 2], -1)).reshape(v.shape)


def _others(dim: int, k: int) -> tuple[int, ...]:
    return tuple(j for j in range(dim) if j != k)
