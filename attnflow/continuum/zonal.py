"""Densities on S^n that depend on the height u = <x, e> alone, as sums of zonal harmonics; states of noisy tokens among them."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

_NODES = 256  # of u: angles pi / 256 apart
_SMALL = 1e-17  # modes that count
_ROUNDING = 1e-11  # of sums of harmonics
_SEEN = 1e-8  # of a basis of perturbations: singular values that count
_NEWTON, _CLOSE = 40, 1e-9  # steps, and the last one's size: they converge quadratically


class Zonal:
    """Densities that depend on u alone, by their values on nodes of u and their moments m_1, m_2, ..."""

    def __init__(self, beta: float, dim: int, softmax: bool) -> None:
        half = (dim - 1) / 2
        self.beta, self.softmax = beta, softmax
        self.u, weights = special.roots_jacobi(_NODES, dim / 2 - 1, dim / 2 - 1)
        self.weights = weights / weights.sum()
        order = np.arange(_NODES // 2)
        a = special.ive(order + half, beta) / special.ive(half, beta)
        log_Z = special.gammaln((dim + 1) / 2) + half * np.log(2 / beta) + np.log(special.ive(half, beta)) + beta
        self.p, self.slope = polynomials(self.u, len(order), dim)
        kept = order[a / (self.p**2 @ self.weights) > _SMALL]
        self.p, self.slope = self.p[kept], self.slope[kept]
        self.a = a[kept] / (self.p**2 @ self.weights) * (1.0 if softmax else np.exp(log_Z))  # N_k a_k, times Z
        self.start = float(beta / (a[1] * (1.0 if softmax else np.exp(log_Z))))  # g where uniform tokens lose stability

    def row_sums(self, m: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        """The integral of exp(beta <x, y>) rho, for softmax over Z, on the nodes or where polynomials are p."""
        return self.a[0] + (self.a[1:] * m) @ (self.p if p is None else p)[1:]

    def potential(self, q: np.ndarray) -> np.ndarray:
        """U from the row sums."""
        return (np.log(np.maximum(q, _ROUNDING * q.max())) if self.softmax else q) / self.beta

    def density(self, m: np.ndarray, g: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masses of the nodes under exp(g U), U, and dU / dm (modes, nodes)."""
        q = self.row_sums(m)
        U, change = self.potential(q), 1 / self.beta
        if self.softmax:  # where row sums are less than rounding, there is no mass
            change = change / np.maximum(q, _ROUNDING * q.max())
        mass = self.weights * np.exp(g * (U - U.max()))
        return mass / mass.sum(), U, self.a[1:, None] * self.p[1:] * change

    def solve(self, order: float, m: np.ndarray, g: float) -> tuple[np.ndarray, float]:
        """Moments, m_1 = order among them, and g of the state, by Newton's method from a state nearby."""
        m = self.tilted(self.density(m, g)[0], order)
        for _ in range(_NEWTON):
            mass, U, dU = self.density(m, g)
            means = self.p[1:] @ mass
            centred = (self.p[1:] - means[:, None]) * mass
            jacobian = g * centred @ dU.T - np.eye(len(m))
            jacobian[:, 0] = centred @ U  # g is unknown in place of m_1
            try:
                step = np.linalg.solve(jacobian, m - means)
            except np.linalg.LinAlgError:
                break
            for _ in range(_NEWTON):
                q = self.row_sums(m + np.append(0.0, step[1:]))
                if g + step[0] > 0 and (q.min() > -_ROUNDING * q.max() or not self.softmax):
                    break
                step = step / 2  # these were moments of no density
            g, m[1:] = g + step[0], m[1:] + step[1:]
            if np.abs(step[1:]).max(initial=0.0) < _CLOSE and abs(step[0]) < _CLOSE * g:
                return m, float(g)
        raise ValueError(
            f"layer must have a larger epsilon for states of order {order:.3g} to be found, got beta = {self.beta:g}"
        )

    def tilted(self, mass: np.ndarray, order: float) -> np.ndarray:
        """Moments of the density of this order that is `mass` times exp(h u)."""

        def lean(h: float) -> np.ndarray:
            leaning = mass * np.exp(h * (self.u - 1))
            return leaning / leaning.sum()

        farthest = 1.0
        while lean(farthest) @ self.u < order:
            farthest *= 2
        h = optimize.brentq(lambda h: lean(h) @ self.u - order, -1.0, farthest)
        return np.append(order, self.p[2:] @ lean(h))

    def stable(self, m: np.ndarray, g: float) -> bool:
        """Whether perturbations h decay: dh/dt is proportional to div(rho grad(h / rho - g DU h)).

        By Galerkin's method in a basis that is orthonormal with respect to rho.
        """
        mass, _, dU = self.density(m, g)
        p, slope = self.p[1:], self.slope[1:]
        change = slope * self.a[1:, None] / self.beta
        if self.softmax:
            q = np.maximum(q := self.row_sums(m), _ROUNDING * q.max())
            change = change / q - dU * ((self.a[1:] * m) @ slope / q)
        _, size, basis = np.linalg.svd(((p - (p @ mass)[:, None]) * np.sqrt(mass)).T, full_matrices=False)
        kept = size > _SEEN * size[0]
        basis = basis[kept].T / size[kept]
        energy = mass * (1 - self.u**2)
        moments = (p - (p @ mass)[:, None]) * mass @ p.T @ basis  # of perturbations rho times the basis
        rates = basis.T @ ((slope * energy) @ (slope.T @ basis - g * change.T @ moments))
        return bool(np.linalg.eigvals(rates).real.min() > 0)


def polynomials(u: np.ndarray, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """p_k = C_k / C_k(1), of S^dim, and their derivatives: (count, nodes) each."""
    p, slope = np.ones((2, count, len(u)))
    slope[0], p[1] = 0.0, u
    for k in range(1, count - 1):
        c = 2 * k + dim - 1
        p[k + 1] = (c * u * p[k] - k * p[k - 1]) / (k + dim - 1)
        slope[k + 1] = (c * (p[k] + u * slope[k]) - k * slope[k - 1]) / (k + dim - 1)
    return p, slope
