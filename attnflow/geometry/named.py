"""Densities with a name: constants, scores and samplers in closed form."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import special

from .. import checks
from .densities import Density
from .spaces import Circle, Euclidean, Space
from .sphere import Sphere


class Uniform(Density):
    """Constant density 1 / volume on a space of finite volume.

    Parameters
    ----------
    space : Space

    Raises
    ------
    ValueError
        If the volume is infinite.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> af.Uniform(af.Sphere(2)).pdf(np.array([0.0, 0.0, 1.0])).round(6)   # 1 / (4 pi)
    np.float64(0.079577)
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space, lambda x: np.zeros(x.shape[:-1]))
        if not np.isfinite(space.volume):
            raise ValueError(f"space must have finite volume, got {space}; use Gaussian, or Density with a log_pdf")

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(self.space.volume))

    def score(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(checks.coordinates(x, "x", self.space.columns))

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = checks.integer(n, "n", least=1), checks.generator(rng)
        if isinstance(self.space, Sphere):
            return self.space.uniform(n, rng)
        if self.space.flat:
            return self.space.from_unit_cube(rng.random((n, self.space.dim)))
        return super().sample(n, rng)


class VonMises(Density):
    """p = exp(kappa cos(x - loc)) / (2 pi I_0(kappa)) on the circle of length 2 pi.

    Parameters
    ----------
    kappa : float
        Concentration >= 0.
    loc : float
        Mode, in radians.

    Raises
    ------
    ValueError
        If kappa is negative.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> af.VonMises(1.0).pdf(np.array([[0.0]])).round(6)
    array([0.34171])
    """

    def __init__(self, kappa: float, loc: float = 0.0) -> None:
        self.kappa, self.loc = checks.nonnegative(kappa, "kappa"), checks.real(loc, "loc")
        super().__init__(Circle(), lambda x: self.kappa * np.cos(x[..., 0] - self.loc))

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(2 * np.pi * special.ive(0, self.kappa)) + self.kappa)

    def score(self, x: np.ndarray) -> np.ndarray:
        return -self.kappa * np.sin(checks.coordinates(x, "x", 1) - self.loc)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n = checks.integer(n, "n", least=1)
        return checks.generator(rng).vonmises(self.loc, self.kappa, (n, 1)) % (2 * np.pi)


class VonMisesFisher(Density):
    """p = C exp(kappa <mu, x>) on the unit sphere in R^d, C = kappa^nu / ((2 pi)^(d/2) I_nu(kappa)), nu = d/2 - 1.

    Parameters
    ----------
    mu : (d,) array
        Mode, a unit vector.
    kappa : float
        Concentration >= 0; 0 is uniform.

    Raises
    ------
    ValueError
        If mu is not a unit vector with at least two entries, or kappa is negative.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> p = af.VonMisesFisher([0.0, 0.0, 1.0], 2.0)
    >>> p.pdf(np.array([0.0, 0.0, 1.0])).round(6)   # kappa / (2 pi (1 - e^(-2 kappa)))
    np.float64(0.324249)
    """

    def __init__(self, mu: np.ndarray, kappa: float) -> None:
        mu = checks.array(mu, "mu", (None,)).astype(float)
        if len(mu) < 2:
            raise ValueError(f"mu must have at least two entries, got {mu.tolist()}")
        space = Sphere(len(mu) - 1)
        self.mu, self.kappa = space.check(mu[None], "mu")[0], checks.nonnegative(kappa, "kappa")
        super().__init__(space, lambda x: self.kappa * (x @ self.mu - 1))

    @cached_property
    def _log_mass(self) -> float:
        nu = len(self.mu) / 2 - 1
        if self.kappa == 0:
            return float(np.log(self.space.volume))
        log_bessel = _log_scaled_bessel(nu, self.kappa)
        return float((nu + 1) * np.log(2 * np.pi) - nu * np.log(self.kappa) + log_bessel)

    def score(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", len(self.mu))
        return self.kappa * (self.mu - (x @ self.mu)[..., None] * x)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = checks.integer(n, "n", least=1), checks.generator(rng)
        if self.kappa == 0:
            return self.space.uniform(n, rng)
        from scipy.stats import vonmises_fisher  # takes as long to import as all the rest

        return vonmises_fisher(self.mu / np.linalg.norm(self.mu), self.kappa).rvs(n, random_state=rng).reshape(n, -1)


class Gaussian(Density):
    """Normal density N(mean, cov) on Euclidean(n), in any dimension.

    Parameters
    ----------
    mean : (n,) array or float
    cov : (n, n) array or float
        Symmetric positive definite.

    Raises
    ------
    ValueError
        If the shapes do not fit, or cov is not symmetric positive definite.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> af.Gaussian([0.0, 0.0], np.diag([1.0, 4.0])).pdf(np.zeros((1, 2))).round(6)   # 1 / (4 pi)
    array([0.079577])
    """

    def __init__(self, mean, cov) -> None:
        mean, cov = checks.array(mean, "mean"), checks.array(cov, "cov")
        self.mean = checks.array(np.atleast_1d(mean), "mean", (None,)).astype(float)
        n = len(self.mean)
        self.cov = checks.spd(checks.array(cov.reshape(n, n) if cov.size == n == 1 else cov, "cov", (n, n)), "cov")
        self._precision = np.linalg.inv(self.cov)
        if not np.isfinite(self._precision).all():
            raise ValueError(f"cov must have an inverse in floating point, got {checks.entries(self.cov)}")
        super().__init__(Euclidean(n), self._quadratic)

    def _quadratic(self, x: np.ndarray) -> np.ndarray:
        y = x - self.mean
        return -0.5 * np.sum((y @ self._precision) * y, axis=-1)

    @cached_property
    def _log_mass(self) -> float:
        return float(0.5 * np.linalg.slogdet(2 * np.pi * self.cov)[1])

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        reach = np.sqrt(84 * np.diag(self.cov))  # the Gaussian falls to e^-42
        return tuple(zip((self.mean - reach).tolist(), (self.mean + reach).tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        return -(checks.coordinates(x, "x", len(self.mean)) - self.mean) @ self._precision

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = checks.integer(n, "n", least=1), checks.generator(rng)
        return self.mean + rng.normal(size=(n, len(self.mean))) @ np.linalg.cholesky(self.cov).T


def _log_scaled_bessel(nu: float, kappa: float) -> float:
    """log(I_nu(kappa) e^-kappa); where scipy underflows, so nu > 50, by Debye's expansion to 2e-4 / nu^4."""
    value = special.ive(nu, kappa)
    if value > 1e-290:
        return float(np.log(value))
    root = np.hypot(nu, kappa)
    t = nu / root
    u1 = (3 * t - 5 * t**3) / 24
    u2 = (81 * t**2 - 462 * t**4 + 385 * t**6) / 1152
    u3 = (30375 * t**3 - 369603 * t**5 + 765765 * t**7 - 425425 * t**9) / 414720
    series = np.log1p(u1 / nu + u2 / nu**2 + u3 / nu**3)
    return float(root + nu * np.log(kappa / (nu + root)) - kappa - 0.5 * np.log(2 * np.pi * root) + series)
