"""What an equation is made of: L = w^-1 d_i (w m g^ij d_j) and its coefficients at points.

w = p^drift sqrt(det g) / m is the conserved weight, m the mobility (1 unless given). Only log w is ever
formed: differences of it stay finite where w itself would underflow. On spheres the coordinates are the
grid's angles; tensors of the surrounding space are carried over to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import checks
from ..geometry import Density, Space, Sphere, Uniform
from ..geometry.tensors import determinant, inverse
from ..grid import Axis, Grid
from .grids import on_sphere
from .peaks import Peaks, find_peaks, scattered_in

_DEPTH = 24.0  # of the root of the weight, below its top, where a line is cut
_WIDENINGS = 24  # by half the width each, until the weight has ended


@dataclass(frozen=True)
class Generator:
    """The data of L.

    Attributes
    ----------
    space : Space
        Its metric is g.
    density : Density
        p.
    drift : float
        The power of p in w.
    mobility : callable or None
        m at points (N, n): (N,), positive; None is 1.
    pull : float or None
        The power of p in the weight in other words, which tells how far a line is followed: that of the drift-diffusion
        equation whose other form this is. None: the drift.
    log_scale : float
        What log w lacks beside p's normalisation.
    """

    space: Space
    density: Density
    drift: float
    mobility: Callable | None = None
    pull: float | None = None
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.pull is None:
            object.__setattr__(self, "pull", self.drift)

    @property
    def on_globe(self) -> bool:
        """Whether the space is S^2, whatever its metric."""
        return on_sphere(self.space) and self.space.dim == 2

    @property
    def is_laplacian(self) -> bool:
        """Whether L is known to be the Laplacian of a flat space or a round sphere, whose modes are waves or harmonics."""
        known = (self.space.flat or type(self.space) is Sphere) and self.mobility is None
        return known and (not self.drift or isinstance(self.density, Uniform))

    @property
    def outgrows_tokens(self) -> bool:
        """Whether the weight reaches far beyond the tokens: on a line with drift < 1."""
        assert self.pull is not None
        return not on_sphere(self.space) and _endless(self.space) and self.drift < 1 and self.pull < 1

    @property
    def norm_name(self) -> str:
        """The norm that errors are measured in, in words."""
        power = 1.0 if self.outgrows_tokens else self.pull
        if power == 0 and self.mobility is None:
            return "the L2 norm"
        mobile = self.mobility is not None and self.pull == self.drift
        return f"the norm weighted by {'p' if power == 1 else f'p^{power:g}'}{' / mobility' if mobile else ''}"

    def log_weight(self, x: np.ndarray, metric: np.ndarray | None = None) -> np.ndarray:
        """log of w per volume of the points' own coordinates (the round measure on a sphere) at points (N, n): (N,).

        Up to a constant: the equation does not depend on p's normalisation, which may cost a quadrature.

        `metric` is g at the points, if it is known already and they are coordinates.

        Raises
        ------
        ValueError
            If p vanishes at a point, or the mobility is not positive there: nothing carries features across it.
        """
        result = self._log_power(x)
        if metric is not None:
            result = result + np.log(determinant(metric)) / 2
        elif not self.space.flat:
            result = result + np.log(self.space.volume_element(x))
        return result if self.mobility is None else result - self._log_mobility(x)

    def _log_power(self, x: np.ndarray) -> np.ndarray:
        """drift log p, up to a constant."""
        log_p = self.density.relative_log_pdf(x) if self.drift else np.zeros(len(x))
        bad = ~np.isfinite(log_p)
        if bad.any():
            where = int(np.argmax(bad))
            raise ValueError(
                f"density must be positive wherever the equation is solved, got log p = {log_p[where]} at x = {x[where]}; "
                "restrict the space to where it is, or mix in a little of a Uniform or wide Gaussian density"
            )
        return self.drift * log_p

    def _log_mobility(self, x: np.ndarray) -> np.ndarray:
        return np.log(self.mobility_at(x))

    def _metric_fields(self, x: np.ndarray) -> np.ndarray:
        fields = tensor_fields(self.space.metric(x), on_sphere(self.space))
        if not on_sphere(self.space):
            fields[:, : self.space.dim] = np.log(fields[:, : self.space.dim])
        return fields

    def peaks(self, ranges: tuple[tuple[float, float], ...] | None) -> tuple[Peaks, ...]:
        """Narrow peaks of what L is made of, on the ranges: each of density, mobility and metric by itself, as one that stands on
        a wave of another is not found."""
        made_of: list[tuple[Callable, str]] = []
        if self.drift and not isinstance(self.density, Uniform):
            made_of.append((self._log_power, "density"))
        if self.mobility is not None:
            made_of.append((self._log_mobility, "mobility"))
        if not self.space.flat and type(self.space) is not Sphere:
            made_of.append((self._metric_fields, "metric"))
        found: tuple[Peaks, ...] = ()
        places = scattered_in(self.space, ranges)
        for function, name in made_of:
            known = checks.evaluate(function, places, name)
            size = np.abs(known).max() if name == "metric" and on_sphere(self.space) else 1.0
            found += find_peaks(function, name, self.space, ranges, known, size=float(size))
        return found

    def normalised_log_weight(self, x: np.ndarray) -> np.ndarray:
        """The same with p's normalisation: log of the conserved weight itself."""
        constant = self.density.log_pdf(x[:1]) - self.density.relative_log_pdf(x[:1]) if self.drift else 0.0
        return self.log_weight(x) + (self.drift * constant + self.log_scale)

    def mobility_at(self, x: np.ndarray) -> np.ndarray:
        """m at points (N, n): (N,), positive."""
        values = checks.scalar_field(checks.function(self.mobility, "mobility"), x, "mobility")
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            where = int(np.argmax(bad))
            raise ValueError(f"mobility must be positive and finite, got {values[where]} at x = {x[where]}")
        return values

    def coefficients(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """log w (N,) per volume of the grid's coordinates, and m g^ij (N, n, n), None for the identity everywhere.

        At points (N, columns): coordinates, or unit vectors off the poles, where a grid runs over angles.
        """
        space = self.space
        if not on_sphere(space):
            metric = None if space.flat else space.metric(x)  # checked there
            tensor = None if metric is None else inverse(metric)
            log_w = self.log_weight(x, metric)
        else:
            log_w = self.log_weight(x)
            tensor = None
            if space.dim == 2:
                log_w = log_w + np.log(np.hypot(x[:, 0], x[:, 1]))
            if space.dim == 2 or type(space) is not Sphere:  # the angle of the round circle is its length
                frame = _angular_frame(x)
                tensor = np.linalg.inv(checks.spd(frame.swapaxes(1, 2) @ space.metric(x) @ frame, "metric", x))
        if self.mobility is None:
            return log_w, tensor
        return log_w, self.mobility_at(x)[:, None, None] * (np.eye(space.dim) if tensor is None else tensor)

    def crossing(self, x: np.ndarray, k: int) -> np.ndarray:
        """(M,) speeds at points of a wall of axis k: what crosses it is w T^kj d_j H = w speed d_nu H, T = m g^-1.

        nu is the outward normal of unit length in g, or in the metric of the equation whose other form this is.
        """
        tensor = self.coefficients(x)[1]
        own = tensor[:, k, k] if tensor is not None else np.ones(len(x))
        return np.sqrt(own if self.mobility is None or self.pull != self.drift else own * self.mobility_at(x))

    def ingredients(
        self, x: np.ndarray, known: tuple[np.ndarray, np.ndarray | None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What L is made of at points (N, n), to see how smooth it is: logarithms of weights (N, k), other functions (N, m).

        `known` are the coefficients there, if they are known already and the space is not S^2.
        """
        if self.on_globe:  # angles have poles: functions on the sphere
            parts = [] if self.space.flat else [tensor_fields(self.space.metric(x), True)]
            parts += [] if self.mobility is None else [self.mobility_at(x)[:, None]]
            return self.log_weight(x)[:, None], np.concatenate([np.empty((len(x), 0)), *parts], axis=1)
        log_w, tensor = self.coefficients(x) if known is None else known
        return log_w[:, None], np.empty((len(x), 0)) if tensor is None else tensor_fields(tensor)

    def ranges(self, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
        """The (low, high) of each axis the equation is solved on; None for spheres, whose grids know.

        A line is cut where p^(drift / 2), the root of the weight, has fallen to e^-24 of its top: what happens beyond
        changes features by less in the norm of the weight. Without drift the weight does not fall, so the wall is moved
        out of reach of diffusion: 10 sqrt(horizon) beyond the density's extent, where its influence is erfc(5) = 2e-12.

        Raises
        ------
        ValueError
            If a line has a negative drift: features would be carried in from infinity.
        """
        if on_sphere(self.space):
            return None
        if not _endless(self.space):
            return self.space.bounds
        assert self.pull is not None
        if self.pull < 0:
            raise ValueError(f"drift must not be negative on a line: features come in from infinity, got {self.pull}")
        if self.pull > 0:
            return self._cut()
        reach = 10 * np.sqrt(horizon)
        return tuple(
            (low - reach, high + reach) if not np.isfinite(bound).all() else (low, high)
            for (low, high), bound in zip(self.density.extent, self.space.bounds)
        )

    def _cut(self) -> tuple[tuple[float, float], ...]:
        """The box around all nodes of a sample grid where the root of the weight matters, one node wider."""
        size = {1: 512, 2: 64, 3: 32}[self.space.dim]
        open_ends = np.isinf(np.array(self.space.bounds))
        ranges = np.array(self.density.extent, dtype=float)
        for _ in range(_WIDENINGS):
            nodes = Grid(tuple(Axis("cells", size, low, high) for low, high in ranges))
            log_w = self.log_weight(nodes.points)
            inside = (log_w > log_w.max() - 2 * _DEPTH).reshape(nodes.shape)
            spans = [
                np.flatnonzero(inside.any(axis=tuple(j for j in range(inside.ndim) if j != k))) for k in range(inside.ndim)
            ]
            touches = np.array([(where[0] == 0, where[-1] == size - 1) for where in spans]) & open_ends
            if not touches.any():
                break
            ranges += touches * (ranges[:, 1] - ranges[:, 0])[:, None] * np.array([-0.25, 0.25])
        cut = [(x.nodes[where[0]] - x.spacing, x.nodes[where[-1]] + x.spacing) for x, where in zip(nodes.axes, spans)]
        within = np.clip(cut, ranges[:, :1], ranges[:, 1:])
        return tuple((float(low), float(high)) for low, high in np.where(open_ends, within, ranges))

    def error_weights(self, grid: Grid) -> np.ndarray:
        """(size,) weights of the norm of errors: w dx; on a line with drift < 1, where that is wider than the tokens, p dvol."""
        if self.outgrows_tokens:
            log_w = self.density.relative_log_pdf(grid.points)
            if not self.space.flat:
                log_w = log_w + np.log(self.space.volume_element(grid.points))
        else:
            log_w = self.log_weight(grid.points)
        weights = grid.weights * np.exp(log_w - log_w.max())
        return weights / weights.sum()


def tensor_fields(tensor: np.ndarray, ambient: bool = False) -> np.ndarray:
    """What a symmetric tensor (N, n, n) is made of, (N, n (n + 1) / 2), to see how smooth it is.

    Its diagonal, and above it 1 + T_ij / sqrt(T_ii T_jj): rounding errors next to a zero are no structure. Tensors in
    three coordinates of a surface may vanish along one of them: entries as they are.
    """
    diagonal = np.diagonal(tensor, axis1=1, axis2=2)
    i, j = np.triu_indices(tensor.shape[-1], 1)
    if ambient:
        return np.concatenate([diagonal, tensor[:, i, j]], axis=1)
    return np.concatenate([diagonal, 1 + tensor[:, i, j] / np.sqrt(diagonal[:, i] * diagonal[:, j])], axis=1)


def _angular_frame(x: np.ndarray) -> np.ndarray:
    """d x / d (angles) at unit vectors (N, n + 1): (N, n + 1, n), the columns along colatitude and longitude."""
    around = np.zeros_like(x)
    around[:, 0], around[:, 1] = -x[:, 1], x[:, 0]
    if x.shape[1] == 2:
        return around[:, :, None]
    radius = np.hypot(x[:, 0], x[:, 1])
    down = np.stack([x[:, 2] * x[:, 0] / radius, x[:, 2] * x[:, 1] / radius, -radius], axis=1)
    return np.stack([down, around], axis=2)


def _endless(space: Space) -> bool:
    return any(math.isinf(end) for pair in space.bounds for end in pair)
