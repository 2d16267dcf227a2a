"""Densities with a name: constants, scores and samplers in closed form."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import special

from .. import checks, display
from .densities import Density
from .sampling import check_count
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
        super().__init__(space, self._zero)
        infinite = f"space must have finite volume, got {space}; use Gaussian, or Density with a log_pdf"
        try:
            volume = space.volume
        except ValueError as error:
            if np.isfinite(space.bounds).all():
                raise
            raise ValueError(f"{infinite} ({error})") from None
        if not np.isfinite(volume):
            raise ValueError(infinite)

    def __repr__(self) -> str:
        return display.shown("Uniform", self.space)

    def formula(self, name: str) -> str:
        return f"{name} = \\frac{{1}}{{{display.latex_number(self.space.volume)}}}"

    def _zero(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(x.shape[:-1])

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(self.space.volume))

    def score(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(checks.coordinates(x, "x", self.space.columns))

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
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
        super().__init__(Circle(), self._below_mode)

    def __repr__(self) -> str:
        return display.shown("VonMises", self.kappa, **({"loc": self.loc} if self.loc else {}))

    @property
    def shape_latex(self) -> str:
        wave = f"\\cos {_less(self.point_latex, self.loc)}"
        return f"e^{{{display.latex_factor(self.kappa, wave)}}}"

    def _below_mode(self, x: np.ndarray) -> np.ndarray:
        """kappa (cos(x - loc) - 1), without the subtraction that loses a narrow peak."""
        return -2 * self.kappa * np.sin((x[..., 0] - self.loc) / 2) ** 2

    @cached_property
    def _log_mass(self) -> float:
        return float(np.log(2 * np.pi) + _log_scaled_bessel(0.0, self.kappa))

    def score(self, x: np.ndarray) -> np.ndarray:
        return -self.kappa * np.sin(checks.coordinates(x, "x", 1) - self.loc)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
        if self.kappa < 1e5:  # beyond, numpy draws from a normal distribution
            return rng.vonmises(self.loc, self.kappa, (n, 1)) % (2 * np.pi)
        side = np.where(rng.random((n, 1)) < 0.5, -2.0, 2.0)
        return (self.loc + side * np.arcsin(np.sqrt(_depth_below_mode(2, self.kappa, n, rng) / 2))) % (2 * np.pi)


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
        self.mu = space.project(space.check(mu[None], "mu")[0])
        self.kappa = checks.nonnegative(kappa, "kappa")
        super().__init__(space, self._below_mode)

    def __repr__(self) -> str:
        return display.shown("VonMisesFisher", self.mu, self.kappa)

    @property
    def shape_latex(self) -> str:
        mode = display.latex_array(self.mu, "\\mu")
        product = f"\\langle {mode}, x \\rangle"
        return f"e^{{{display.latex_factor(self.kappa, product)}}}"

    def _below_mode(self, x: np.ndarray) -> np.ndarray:
        """kappa (<mu, x> - 1), without the subtraction that loses a narrow peak."""
        return -0.5 * self.kappa * np.sum((x - self.mu) ** 2, axis=-1)

    @cached_property
    def _log_mass(self) -> float:
        nu = len(self.mu) / 2 - 1
        if self.kappa == 0:
            return float(np.log(self.space.volume))
        log_bessel = _log_scaled_bessel(nu, self.kappa)
        return float((nu + 1) * np.log(2 * np.pi) - nu * np.log(self.kappa) + log_bessel)

    def score(self, x: np.ndarray) -> np.ndarray:
        x = checks.coordinates(x, "x", len(self.mu))
        toward = self.mu - x
        return self.kappa * (toward - np.sum(toward * x, axis=-1, keepdims=True) * x)

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
        depth = _depth_below_mode(len(self.mu), self.kappa, n, rng)
        aside = rng.normal(size=(n, len(self.mu)))
        aside -= (aside @ self.mu)[:, None] * self.mu
        aside *= np.sqrt(depth * (2 - depth)) / np.linalg.norm(aside, axis=1, keepdims=True)
        return self.space.project(self.mu * (1 - depth) + aside)


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
        self._precision = _inverse(self.cov, "cov")
        super().__init__(Euclidean(n), self._quadratic)

    def __repr__(self) -> str:
        return display.shown("Gaussian", self.mean, self.cov)

    def formula(self, name: str) -> str:
        mean, cov = display.latex_array(self.mean, "\\mu"), display.latex_array(self.cov, "\\Sigma")
        return f"{name} = \\mathcal{{N}}\\left({mean}, {cov}\\right)"

    def _quadratic(self, x: np.ndarray) -> np.ndarray:
        y = x - self.mean
        return -0.5 * np.sum((y @ self._precision) * y, axis=-1)

    @cached_property
    def _log_mass(self) -> float:
        return float(0.5 * (len(self.mean) * np.log(2 * np.pi) + np.linalg.slogdet(self.cov)[1]))

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate, the range that holds the mass: p falls to e^-42 of its top."""
        reach = np.sqrt(84 * np.diag(self.cov))  # the Gaussian falls to e^-42
        return tuple(zip((self.mean - reach).tolist(), (self.mean + reach).tolist()))

    def score(self, x: np.ndarray) -> np.ndarray:
        return -(checks.coordinates(x, "x", len(self.mean)) - self.mean) @ self._precision

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> np.ndarray:
        n, rng = check_count(n, self.space), checks.generator(rng)
        return self.mean + rng.normal(size=(n, len(self.mean))) @ np.linalg.cholesky(self.cov).T


def _less(symbol: str, shift: float) -> str:
    """A coordinate less a number, in LaTeX."""
    if not shift:
        return symbol
    return f"({symbol} {'-' if shift > 0 else '+'} {display.latex_number(abs(shift))})"


def _inverse(matrix: np.ndarray, name: str) -> np.ndarray:
    """The inverse, or a ValueError where double precision holds it not."""
    with np.errstate(all="ignore"):
        try:
            result = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            result = np.full_like(matrix, np.inf)
    if not (np.isfinite(result).all() and (np.diag(result) > 0).all()):
        raise ValueError(f"{name} must have an inverse within double precision, got entries up to {np.abs(matrix).max():.3g}")
    return result


def _log_scaled_bessel(nu: float, kappa: float) -> float:
    """log(I_nu(kappa) e^-kappa); where scipy ends, by Debye's expansion to 1e-3 / (nu^2 + kappa^2)^2."""
    value = special.ive(nu, kappa) if kappa < 1e5 else 0.0
    if value > 1e-290:
        return float(np.log(value))
    root = np.hypot(nu, kappa)
    t, ratio = nu / root, nu / kappa
    u1 = (3 - 5 * t**2) / 24
    u2 = (81 - 462 * t**2 + 385 * t**4) / 1152
    u3 = (30375 - 369603 * t**2 + 765765 * t**4 - 425425 * t**6) / 414720
    series = np.log1p((u1 + (u2 + u3 / root) / root) / root)
    excess = nu * nu / (root + kappa)  # root - kappa
    return float(excess - nu * np.log1p(ratio + excess / kappa) - 0.5 * np.log(2 * np.pi * root) + series)


def _depth_below_mode(dim: int, kappa: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """1 - <mu, x> of von Mises-Fisher samples in R^dim: (n, 1), to full relative accuracy.

    Rejection from Wood's envelope (Wood 1994), written in 1 - w for his w so that no narrow peak rounds to 0.
    """
    b = (dim - 1) / (2 * kappa + np.hypot(2 * kappa, dim - 1))
    kept, count = [], 0
    while count < n:
        z = rng.beta((dim - 1) / 2, (dim - 1) / 2, n - count + 16)
        depth = 2 * b * z / (1 - (1 - b) * z)
        best = 2 * b / (1 + b)  # where the target exceeds the envelope most
        gap = kappa * (best - depth) + (dim - 1) * np.log((1 + b) / 2 * (1 + (1 - b) * depth / (2 * b)))
        kept.append(depth[np.log(rng.random(len(z))) < gap])
        count += len(kept[-1])
    return np.minimum(np.concatenate(kept)[:n, None], 2.0)
