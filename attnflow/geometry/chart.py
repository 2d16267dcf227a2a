"""Curved spaces: a metric tensor put on coordinates (Chart), or on the points of another space (Remetrised)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import checks, display
from ..grid import Grid
from .frame import Frame
from .quadrature import log_integral
from .spaces import Space, check_bounds
from .tensors import Jacobian, PulledBack, SympyMetric, compare, determinant


class Remetrised(Space):
    """The points and coordinates of a space under another metric tensor.

    The volume element is sqrt(det g) in the coordinates. On a sphere g is a tensor of the surrounding space,
    restricted to the tangent space, and the volume element is the one relative to the round measure,
    sqrt(det(P g P + x x')) with P = I - x x'.

    Parameters
    ----------
    space : Space
        Its own metric is forgotten.
    metric : callable
        Points (N, columns) -> (N, columns, columns), symmetric positive definite on the tangent space.

    Raises
    ------
    ValueError
        If the metric has the wrong shape or is not positive definite, naming the point: checked at
        probe points on construction, and wherever it is evaluated.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> from attnflow.geometry import Remetrised
    >>> half = Remetrised(af.Sphere(2), lambda x: np.broadcast_to(np.eye(3) / 2, (len(x), 3, 3)))
    >>> round(half.volume, 6)   # half of 4 pi
    6.283185
    """

    dim: int
    columns: int
    bounds: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]

    def __init__(self, space: Space, metric: Callable) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if not callable(metric):
            raise TypeError(f"metric must be callable on points (..., n) or a sympy Matrix, got {type(metric).__name__}")
        self.space: Space = space.space if isinstance(space, Remetrised) else space
        self.dim, self.columns = self.space.dim, self.space.columns
        self.bounds, self.periodic = self.space.bounds, self.space.periodic
        # the map of a pull-back: where its points sit in the plane or in space, for pictures
        self.embedding: Callable | None = getattr(space, "embedding", None)
        self._metric = metric
        probes = self.probe_points()
        self.metric(probes)
        for k in np.flatnonzero(self.periodic):
            low, high = probes.copy(), probes.copy()
            low[:, k], high[:, k] = self.bounds[k]
            g_low, g_high = self.metric(low), self.metric(high)
            off = np.abs(g_low - g_high).max(axis=(1, 2)) > 1e-8 * np.abs(g_low).max(axis=(1, 2))
            if off.any():
                i = int(np.argmax(off))
                raise ValueError(
                    f"metric must be periodic in x{k}, got {checks.entries(g_low[i])} at x = {checks.entries(low[i])} "
                    f"and {checks.entries(g_high[i])} at x = {checks.entries(high[i])}"
                )

    def __repr__(self) -> str:
        return display.shown("Remetrised", self.space, self._metric)

    @property
    def metric_word(self) -> str:
        """The metric tensor in a word."""
        return display.word(self._metric)

    @property
    def metric_latex(self) -> str:
        """The metric tensor in LaTeX; nothing where no formula is known."""
        owner = getattr(self._metric, "__self__", None)  # such as a pseudo-metric, of its method
        return getattr(self._metric, "latex", getattr(owner, "metric_latex", ""))

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.space.symbols

    @property
    def latex(self) -> str:
        return f"({self.space.latex}, g)"

    @property
    def flat(self) -> bool:
        return False

    @property
    def has_boundary(self) -> bool:
        return self.space.has_boundary

    @cached_property
    def volume(self) -> float:
        """Integral of dvol, by quadrature."""
        return float(np.exp(log_integral(Frame(self.space, self._log_volume_element, "volume element"))))

    def _log_volume_element(self, x: np.ndarray) -> np.ndarray:
        """At points (..., columns), also so far out that the metric is not positive definite in numbers."""
        if np.isfinite(self.bounds).all():
            return np.log(self.volume_element(x))
        rows = x.reshape(-1, self.columns)
        with np.errstate(all="ignore"):
            return np.log(determinant(np.asarray(self._metric(rows), dtype=float))).reshape(x.shape[:-1]) / 2

    def metric(self, x: np.ndarray) -> np.ndarray:
        """Metric tensor g at points (..., columns): (..., columns, columns), tangential on a sphere."""
        return self._tensors(x)[0]

    def volume_element(self, x: np.ndarray) -> np.ndarray:
        """sqrt(det g) at points (..., columns): (...), relative to the round measure on a sphere."""
        return np.sqrt(determinant(self._tensors(x)[1]))

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Refused: geodesics of a general metric have no closed form."""
        raise ValueError(
            f"space must have a distance in closed form, {self} has none; where the metric is the pull-back of a map "
            "phi (Chart.pullback), use SquaredMap(phi), which has the same limit"
        )

    def check(self, x, name: str = "x") -> np.ndarray:
        """Points (N, columns), or a ValueError naming the argument and the first point outside."""
        return self.space.check(x, name)

    def grid(self, shape: int | Sequence[int], extent: Sequence[tuple[float, float]] | None = None) -> Grid:
        """The quadrature grid of the coordinates: its weights do not contain the volume element."""
        return self.space.grid(shape, extent)

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest points of the space."""
        return self.space.project(x)

    def from_unit_cube(self, u: np.ndarray, extent: Sequence[tuple[float, float]] | None = None) -> np.ndarray:
        """Points of the unit cube (N, n) carried over as on the space underneath."""
        return self.space.from_unit_cube(u, extent)

    def _tensors(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric, and the same made regular: the identity is added on the normal space, if there is one."""
        x = checks.coordinates(x, "x", self.columns)
        rows = x.reshape(-1, self.columns)
        tensor = checks.array(self._metric(rows), "metric")
        if tensor.shape != (len(rows), self.columns, self.columns):
            raise ValueError(
                f"metric must return shape {(len(rows), self.columns, self.columns)} for points of shape {rows.shape}, "
                f"got {tensor.shape}; a constant G needs numpy.broadcast_to(G, x.shape + x.shape[-1:])"
            )
        tensor = tensor.reshape(*x.shape, self.columns)
        if self.space.flat:
            return (checks.spd(tensor, "metric", where=x),) * 2
        tangent = self.space.metric(x)
        tensor = tangent @ tensor @ tangent
        regular = tensor + (np.eye(self.columns) - tangent)
        checks.spd(regular, "metric", where=x)
        return tensor, regular


class Chart(Remetrised):
    """Coordinates in a box, half-space or line, under a metric tensor g(x); axes may wrap.

    Parameters
    ----------
    metric : callable or sympy Matrix
        g at points (..., n) -> (..., n, n), or an n x n sympy Matrix in symbols named x0, x1, ...
    bounds : sequence of (low, high)
        One pair per coordinate; -inf and inf where there is no end.
    periodic : bool or sequence of bool
        Whether the coordinates wrap: one answer, or one per axis.

    Raises
    ------
    TypeError
        If metric is neither; a string is not parsed, since that executes it.
    ValueError
        If g has the wrong shape, is not symmetric positive definite (naming the point), or is not
        periodic where the coordinate is.

    Examples
    --------
    A surface of revolution of radius 2 + cos x0:

    >>> import numpy as np, attnflow as af, sympy
    >>> x0 = sympy.Symbol("x0")
    >>> ring = af.Chart(sympy.diag(1, (2 + sympy.cos(x0)) ** 2), [(0, 2 * np.pi)] * 2, periodic=True)
    >>> ring.volume_element(np.array([[0.0, 1.0]]))
    array([3.])
    """

    def __init__(self, metric, bounds, periodic: bool | Sequence[bool] = False) -> None:
        domain = _Coordinates.checked(bounds, periodic)
        if type(metric).__module__.startswith("sympy."):
            metric = SympyMetric(metric, domain.dim)
        super().__init__(domain, metric)

    def __repr__(self) -> str:
        wraps: bool | list[bool] = self.periodic[0] if len({*self.periodic}) == 1 else list(self.periodic)
        name, first = ("Chart", self._metric) if self.embedding is None else ("Chart.pullback", self.embedding)
        return display.shown(name, first, list(self.bounds), **({"periodic": wraps} if wraps else {}))

    @classmethod
    def pullback(
        cls, phi: Callable, bounds, jacobian: Callable | None = None, periodic: bool | Sequence[bool] = False
    ) -> Chart:
        """The metric g = J'J that a map phi with Jacobian J gives its arguments; phi stays as `chart.embedding`.

        Parameters
        ----------
        phi : callable
            Points (..., n) -> (..., m), m >= n, injective, of full rank.
        bounds, periodic
            As for Chart.
        jacobian : callable or None
            Points (..., n) -> (..., m, n); None takes checked differences of phi.

        Raises
        ------
        ValueError
            If J has not full rank somewhere, or is not the derivative of phi.

        Examples
        --------
        >>> import numpy as np, attnflow as af
        >>> parabola = af.Chart.pullback(lambda x: np.stack([x[..., 0], x[..., 0] ** 2], axis=-1), [(0, 1)])
        >>> parabola.metric(np.array([[0.5]])).round(6)   # 1 + 4 x^2
        array([[[2.]]])
        """
        domain = _Coordinates.checked(bounds, periodic)
        if not callable(phi):
            raise TypeError(f"phi must be callable on points (..., n), got {type(phi).__name__}")
        if jacobian is not None and not callable(jacobian):
            raise TypeError(f"jacobian must be callable on points (..., n) or None, got {type(jacobian).__name__}")
        derivative = Jacobian(phi, domain) if jacobian is None else jacobian
        chart = cls(PulledBack(derivative, domain.dim), bounds, periodic)
        if jacobian is not None:
            compare(jacobian, Jacobian(phi, domain), chart.probe_points())
        chart.embedding = phi
        return chart


@dataclass(frozen=True)
class _Coordinates(Space):
    """The flat domain under a chart."""

    bounds: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]

    def __repr__(self) -> str:
        return display.shown("coordinates", *self.bounds)

    @property
    def dim(self) -> int:
        """Intrinsic dimension n."""
        return len(self.bounds)

    columns = dim

    @classmethod
    def checked(cls, bounds, periodic: bool | Sequence[bool]) -> _Coordinates:
        bounds = check_bounds(bounds)
        wraps = tuple(periodic) if checks.listed(periodic) else (periodic,) * len(bounds)
        if len(wraps) != len(bounds) or not all(isinstance(w, (bool, np.bool_)) for w in wraps):
            raise ValueError(f"periodic must be one bool or one for each of {len(bounds)} axes, got {checks.short(periodic)}")
        if any(w and not np.isfinite(pair).all() for w, pair in zip(wraps, bounds)):
            raise ValueError(f"bounds must be finite along a periodic axis, got {checks.short(bounds)}")
        return cls(bounds, tuple(bool(w) for w in wraps))
