"""Drift-diffusion as heat flow in a conformal metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import display
from ..geometry import Density, Remetrised
from .equation import where_latex
from .equations import DriftDiffusion
from .generator import Generator
from .grids import on_sphere


class ConformalHeat(DriftDiffusion):
    """Drift-diffusion as heat flow: dH/dt = c Delta_G H in the metric G = c g, c = p^(2 drift / (n - 2)).

    With drift 2, G = p^(4 / (n - 2)) g and 1/c is the heat capacity (Ruan & Zhang 2024, Theorem 4). The solution is
    that of DriftDiffusion(density, drift); where c spans many decades, that form is the one to compute with.

    Parameters
    ----------
    density : Density
        p, on a space of dimension n != 2 (or a uniform p).
    drift : float

    Raises
    ------
    ValueError
        For n = 2 and a p that is not constant: no metric conformal to g has p^-2 div(p^2 grad) as a multiple of its
        Laplacian there. Use DriftDiffusion, whose form holds in every dimension.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> H0 = lambda x: np.cos(x[:, 0])
    >>> p, x = af.VonMises(1.0), np.array([[0.5]])
    >>> heat, drift = (pde.solve(H0, t=0.1).at(x) for pde in (af.ConformalHeat(p), af.DriftDiffusion(p)))
    >>> bool(abs(heat - drift) < 1e-9)
    True
    """

    def __init__(self, density: Density, drift: float = 2.0) -> None:
        super().__init__(density, drift)
        log_p = density.log_pdf(self._probe())
        if density.space.dim == 2 and self.drift and np.ptp(log_p) > 1e-9:
            raise ValueError(
                "density must be constant in dimension 2 for the heat form: the conformal factor p^(4 / (n - 2)) does "
                "not exist at n = 2; use DriftDiffusion, dH/dt = p^-2 div(p^2 grad H), which holds in every dimension"
            )

    @property
    def latex(self) -> str:
        if not self._power:
            return DriftDiffusion(self.density, 0.0).latex
        power = display.latex_number(self._power)
        return f"\\partial_t H = p^{{{power}}} \\Delta_G H, \\quad G = p^{{{power}}} g{where_latex(self.density)}"

    @cached_property
    def generator(self) -> Generator:
        """m Delta_G with m = c: without drift, in the metric G."""
        space = self.density.space
        factor = _Factor(self.density, self._power, float(self.density.log_pdf(self._probe()).max()))
        remetrised = Remetrised(space, factor.metric)
        scale = self.drift * factor.log_top  # w = p^drift sqrt(det g), as for the drift-diffusion equation
        return Generator(remetrised, _Constant(remetrised, self.density), 0.0, factor, self.drift, scale)

    @property
    def _power(self) -> float:
        """Of p in c; p is uniform for n = 2."""
        n = self.density.space.dim
        return 0.0 if n == 2 or not self.drift else 2 * self.drift / (n - 2)

    def _probe(self) -> np.ndarray:
        space = self.density.space
        if on_sphere(space):
            return space.probe_points(64)
        return space.from_unit_cube(np.random.default_rng(0).random((64, space.dim)), self.density.extent)


@dataclass(frozen=True)
class _Factor:
    """c = (p / top)^power, in units of its size at one point: G changes by a constant factor, the equation does not."""

    density: Density
    power: float
    log_top: float

    def __repr__(self) -> str:
        return f"p^{self.power:g}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self.power * (self.density.log_pdf(x) - self.log_top)) if self.power else np.ones(x.shape[:-1])

    def metric(self, x: np.ndarray) -> np.ndarray:
        """G = c g."""
        return self(x)[..., None, None] * np.asarray(self.density.space.metric(x), dtype=float)


class _Constant(Density):
    """The constant density, which on a line reaches as far as the tokens do."""

    def __init__(self, space: Remetrised, tokens: Density) -> None:
        super().__init__(space, _zeros)
        self._tokens = tokens

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        return self._tokens.extent


def _zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape[:-1])
