"""Token densities p, normalised with respect to the Riemannian volume: integral p dvol_g = 1.

A Density is a log p up to a constant on a space. The named ones know their constant and their score
in closed form; any other is normalised by quadrature and differentiated numerically.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np

from .. import checks
from ..grid import Grid
from . import sampling
from .differences import partial_derivatives
from .spaces import Space

_LARGEST = {1: 2**15, 2: 2**10, 3: 2**7}  # nodes per axis at which normalisation gives up


class Density:
    """A density on a space, from its logarithm up to a constant.

    Parameters
    ----------
    space : Space
    log_pdf : callable
        log p at points (..., columns) -> (...), up to a constant; -inf where p = 0.

    Raises
    ------
    ValueError
        If log_pdf does not return one number per point, or cannot be normalised.

    Examples
    --------
    >>> import attnflow as af
    >>> p = af.Density(af.Circle(), lambda x: np.cos(x[..., 0]))
    >>> p.pdf(np.array([[0.0]])).round(6)   # e / (2 pi I_0(1))
    array([0.341711])
    """

    def __init__(self, space: Space, log_pdf: Callable) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if not callable(log_pdf):
            raise TypeError(f"log_pdf must be callable on points (..., n), got {type(log_pdf).__name__}")
        self.space = space
        self._log_density = log_pdf
        checks.scalar_field(log_pdf, space.probe_points(), "log_pdf")

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        """log p at points (..., columns): (...)."""
        return self._unnormalised(x) - self._log_mass

    def pdf(self, x: np.ndarray) -> np.ndarray:
        """p at points (..., columns): (...), in 1 / volume."""
        return np.exp(self.log_pdf(x))

    def score(self, x: np.ndarray) -> np.ndarray:
        """grad log p in the coordinates (tangential on a sphere), (..., columns); by checked differences."""
        return partial_derivatives(self._unnormalised, x, "log_pdf")

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        """n independent tokens (n, columns): exact, by inversion (n = 1) or rejection (n = 2, 3)."""
        return sampling.sample(self, checks.integer(n, "n", least=1), checks.generator(rng))

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate, the range that holds the mass: the space's bounds, or where p falls below e^-42 of its top."""
        if np.isfinite(self.space.bounds).all():
            return self.space.bounds
        return _extent_on_a_line(self._unnormalised, self.space.dim)

    def grid(self, shape: int | tuple[int, ...]) -> Grid:
        """Quadrature grid of the space over the density's extent."""
        return self.space.grid(shape, self.extent)

    def _unnormalised(self, x: np.ndarray) -> np.ndarray:
        return checks.scalar_field(self._log_density, np.asarray(x, dtype=float), "log_pdf")

    @cached_property
    def _log_mass(self) -> float:
        if self.space.dim > 3:
            raise ValueError(
                f"density must have dimension at most 3 to be normalised by quadrature, got {self.space.dim}; "
                "use Uniform, Gaussian or VonMisesFisher, which are normalised in closed form"
            )
        size, previous = 32, np.nan
        while True:
            grid = self.grid(size)
            log_p = self._unnormalised(grid.points)
            top = log_p.max()
            if not np.isfinite(top):
                raise ValueError("log_pdf must be finite somewhere, got -inf at every node")
            volume = self.space.volume_element(grid.points)
            mass = float(np.log(np.sum(grid.weights * volume * np.exp(log_p - top))) + top)
            change = abs(mass - previous)
            if change < 1e-13 * max(1.0, abs(mass)):
                return mass
            if 2 * size > _LARGEST[self.space.dim]:
                if not change < 1e-8:
                    warnings.warn(
                        f"density is normalised to {change:.1g} only: log_pdf is not smooth on the finest grid",
                        checks.AccuracyWarning,
                        stacklevel=2,
                    )
                return mass
            size, previous = 2 * size, mass


class Reexpressed(Density):
    """The same distribution of tokens as a density of another metric on the same coordinates.

    q dx is unchanged, so p_new = p sqrt(det g) / sqrt(det g_new).
    """

    def __init__(self, density: Density, space: Space) -> None:
        self.space = space
        self._density = density

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        ratio = self._density.space.volume_element(x) / self.space.volume_element(x)
        return self._density.log_pdf(x) + np.log(ratio)

    def score(self, x: np.ndarray) -> np.ndarray:
        return partial_derivatives(self.log_pdf, x, "log_pdf")

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        return self._density.sample(n, rng)

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        return self._density.extent


def _extent_on_a_line(log_pdf: Callable, dim: int) -> tuple[tuple[float, float], ...]:
    """Grow a cube until log p has fallen by 42 all over its faces, then shrink each axis to where it has."""
    half = 1.0
    for _ in range(40):
        side = np.linspace(-half, half, 65 if dim < 3 else 33)
        mesh = np.stack(np.meshgrid(*[side] * dim, indexing="ij"), axis=-1)
        log_p = log_pdf(mesh)
        low_enough = log_p < log_p.max() - 42
        if all(low_enough.take([0, -1], axis=k).all() for k in range(dim)):
            kept = np.argwhere(~low_enough)
            low, high = side[kept.min(axis=0) - 1], side[kept.max(axis=0) + 1]
            return tuple(zip(low.tolist(), high.tolist()))
        half *= 2
    raise ValueError("log_pdf must decay in every direction to be normalised on a Euclidean space")
