"""Token densities p, normalised with respect to the Riemannian volume: integral p dvol_g = 1.

A Density is a log p up to a constant on a space. The named ones know their constant and their score
in closed form; any other is normalised by quadrature and differentiated numerically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from .. import checks, display
from ..grid import Grid
from . import sampling
from .differences import gradient
from .frame import Frame
from .quadrature import log_integral
from .spaces import Space


class Density(display.Typeset):
    """A density on a space, from its logarithm up to a constant.

    Parameters
    ----------
    space : Space
    log_pdf : callable
        log p at points (..., columns) -> (...), up to a constant of any size; -inf where p = 0.

    Raises
    ------
    ValueError
        If log_pdf does not return one number per point, is NaN, is not periodic where the space is,
        or cannot be normalised.

    Warns
    -----
    AccuracyWarning
        When p is normalised, if its integral is known to less than 1e-8.

    Notes
    -----
    Peaks are found wherever log p slopes towards them, near or far, however narrow. Not found is one that rises from
    a plateau (uniform plus a little of something) and is, seven widths around, narrower than the lattice looked at:
    2^17 points in one dimension, 720 per axis in two, 64 in three, fewer on curved spaces; or that lies far outside of
    all others and falls off beside them before a lattice of 96 points per axis (two dimensions; 20 in three) sees it.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> p = af.Density(af.Circle(), lambda x: np.cos(x[..., 0]))
    >>> p.pdf(np.array([[0.0]])).round(6)   # e / (2 pi I_0(1))
    array([0.34171])
    """

    def __init__(self, space: Space, log_pdf: Callable) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if not callable(log_pdf):
            raise TypeError(f"log_pdf must be callable on points (..., n), got {type(log_pdf).__name__}")
        self.space = space
        self._log_pdf = log_pdf
        self._check_periodic(space.probe_points())

    def __repr__(self) -> str:
        return display.shown(type(self).__name__, self.space, self._log_pdf)

    @property
    def latex(self) -> str:
        """p in LaTeX, mostly up to a constant."""
        return self.formula("p")

    def formula(self, name: str) -> str:
        """In LaTeX, the density being called by that name."""
        return f"{name}({self.point_latex}) \\propto {self.shape_latex}"

    @property
    def shape_latex(self) -> str:
        """What it is proportional to."""
        name = display.latex_name(self._log_pdf, "\\ell")
        return f"e^{{{name}({self.point_latex})}}"

    @property
    def point_latex(self) -> str:
        """A point: the coordinate where there is one, else x."""
        symbols = self.space.symbols
        return symbols[0] if len(symbols) == 1 else "x"

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        """log p at points (..., columns): (...)."""
        return self._unnormalised(x) - self._log_mass

    def relative_log_pdf(self, x: np.ndarray) -> np.ndarray:
        """log p at points (..., columns) up to a constant: (...), without the quadrature that normalises p."""
        return self._unnormalised(x)

    def pdf(self, x: np.ndarray) -> np.ndarray:
        """p at points (..., columns): (...), in 1 / volume."""
        return np.exp(self.log_pdf(x))

    def score(self, x: np.ndarray) -> np.ndarray:
        """Partial derivatives of log p (tangential on a sphere), (..., columns); by checked differences."""
        x = checks.coordinates(x, "x", self.space.columns)
        return gradient(self._unnormalised, x, "log_pdf", self.space)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        """n independent tokens (n, columns): by quantiles (n = 1), exact to round-off, or rejection (n = 2, 3)."""
        return sampling.sample(self._frame, sampling.check_count(n, self.space), checks.generator(rng))

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate, the range that holds the mass: the bounds, or where p falls below e^-42 of its top."""
        return self._frame.extent

    def grid(self, shape: int | Sequence[int]) -> Grid:
        """Quadrature grid of the space over the density's extent."""
        return self.space.grid(shape, self.extent)

    def _unnormalised(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", self.space.columns)
        return checks.scalar_field(self._log_pdf, x, "log_pdf")

    @cached_property
    def _log_mass(self) -> float:
        return log_integral(self._frame)

    @cached_property
    def _frame(self) -> Frame:
        if self.space.dim > 3:
            raise ValueError(
                f"density must have dimension at most 3 to be normalised or sampled, got {self.space.dim}; "
                "use Uniform, Gaussian, VonMisesFisher, KernelDensity or a Mixture of them"
            )
        return Frame(self.space, self._log_pdf, "log_pdf")

    def _check_periodic(self, x: np.ndarray) -> None:
        here = self._unnormalised(x)
        for k in np.flatnonzero(self.space.periodic):
            period = np.zeros(self.space.columns)
            period[k] = np.ptp(self.space.bounds[k])
            there = self._unnormalised(x + period)
            seen = here[np.isfinite(here)]
            height, size = max(seen, default=0.0), max(np.abs(seen), default=0.0)
            # a constant added to log_pdf changes no more than its rounding
            off = ~np.isclose(here - height, there - height, rtol=1e-8, atol=1e-8 + 1e-13 * size)
            if off.any():
                i = int(np.argmax(off))
                raise ValueError(
                    f"log_pdf must be periodic on {self.space}, got {here[i]} at x = {x[i]} "
                    f"and {there[i]} one period of {period[k]:.6g} further along coordinate {k}"
                )


class Reexpressed(Density):
    """The same distribution of tokens as a density of another metric on the same coordinates.

    Tokens do not move: q dx is unchanged, so p_new = p sqrt(det g) / sqrt(det g_new).

    Parameters
    ----------
    density : Density
    space : Space
        With the points and coordinates of density.space, as Remetrised makes it.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> from attnflow.geometry import Reexpressed, Remetrised
    >>> box = af.Box([(0, 1)])
    >>> stretched = Remetrised(box, lambda x: np.full((len(x), 1, 1), 4.0))   # twice as long
    >>> Reexpressed(af.Uniform(box), stretched).pdf(np.array([[0.3]]))
    array([0.5])
    """

    def __init__(self, density: Density, space: Space) -> None:
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if (space.columns, space.bounds) != (density.space.columns, density.space.bounds):
            raise ValueError(f"space must have the points of {density.space}, got {space}")
        self.space = space
        self._density = density

    def __repr__(self) -> str:
        return display.cut(f"{self._density!r} under {getattr(self.space, 'metric_word', repr(self.space))}")

    def formula(self, name: str) -> str:
        """The density that it was made of, per volume of the metric."""
        return f"{name} \\sqrt{{\\det g}} = q, \\quad {self._density.formula('q')}"

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        return self._density.log_pdf(x) + self._log_ratio(x)

    def relative_log_pdf(self, x: np.ndarray) -> np.ndarray:
        return self._density.relative_log_pdf(x) + self._log_ratio(x)

    def score(self, x: np.ndarray) -> np.ndarray:
        return self._density.score(x) + gradient(self._log_ratio, x, "volume element", self.space)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        return self._density.sample(n, rng)

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        return self._density.extent

    def _log_ratio(self, x: np.ndarray) -> np.ndarray:
        return np.log(self._density.space.volume_element(x) / self.space.volume_element(x))
