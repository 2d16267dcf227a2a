"""Densities with a name: constants, scores and samplers in closed form."""

from __future__ import annotations

import numpy as np
from scipy import special

from .. import checks
from .densities import Density
from .spaces import Circle, Euclidean, Space


class Uniform(Density):
    """Constant density on a space of finite volume."""

    def __init__(self, space: Space) -> None:
        super().__init__(space, lambda x: np.zeros(np.shape(x)[:-1]))


class VonMises(Density):
    """p proportional to exp(kappa cos(x - loc)) on the circle of length 2 pi.

    Parameters
    ----------
    kappa : float
        Concentration >= 0.
    loc : float
        Mode, in radians.

    Examples
    --------
    >>> VonMises(1.0).pdf(np.array([[0.0]])).round(6)
    array([0.341711])
    """

    def __init__(self, kappa: float, loc: float = 0.0) -> None:
        self.kappa, self.loc = checks.real(kappa, "kappa"), checks.real(loc, "loc")
        if kappa < 0:
            raise ValueError(f"kappa must be at least 0, got {kappa}")
        super().__init__(Circle(), lambda x: self.kappa * np.cos(x[..., 0] - self.loc))

    @property
    def _log_mass(self) -> float:
        return float(np.log(2 * np.pi * special.ive(0, self.kappa)) + self.kappa)

    def score(self, x: np.ndarray) -> np.ndarray:
        return -self.kappa * np.sin(np.asarray(x, dtype=float) - self.loc)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n = checks.integer(n, "n", least=1)
        return checks.generator(rng).vonmises(self.loc, self.kappa, (n, 1)) % (2 * np.pi)


class Gaussian(Density):
    """Normal density N(mean, cov) on Euclidean(n).

    Parameters
    ----------
    mean : (n,) array or float
    cov : (n, n) array or float
        Symmetric positive definite.
    """

    def __init__(self, mean, cov) -> None:
        self.mean = np.atleast_1d(checks.array(mean, "mean"))
        n = len(self.mean)
        cov = checks.array(cov, "cov")
        self.cov = checks.spd(cov.reshape(n, n) if cov.size == n * n else cov, "cov")
        self._precision = np.linalg.inv(self.cov)
        super().__init__(Euclidean(n), self._quadratic)

    def _quadratic(self, x: np.ndarray) -> np.ndarray:
        y = x - self.mean
        return -0.5 * np.einsum("...i,ij,...j->...", y, self._precision, y)

    @property
    def _log_mass(self) -> float:
        return float(0.5 * np.linalg.slogdet(2 * np.pi * self.cov)[1])

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        reach = np.sqrt(84 * np.diag(self.cov))
        return tuple(zip((self.mean - reach).tolist(), (self.mean + reach).tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        return -(np.asarray(x, dtype=float) - self.mean) @ self._precision

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        factor = np.linalg.cholesky(self.cov)
        return self.mean + checks.generator(rng).normal(size=(checks.integer(n, "n", least=1), len(self.mean))) @ factor.T
