"""The pairwise sums that are timed: tokens, similarity and accuracy of each, and exact rows to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = 64  # compared with the definition, in float64


@dataclass(frozen=True)
class Sum:
    """Weighted means of value columns over `size` tokens that are uniform in the unit cube or on a sphere.

    Attributes
    ----------
    name : str
    dim : int
        Columns of the tokens.
    size : int
    width : float or None
        sqrt(eps) of the Gaussian exp(-|x - y|^2 / (2 eps)); None: wide enough that f / (2 eps) <= 25.
    dtype : str
    inner : bool
        exp(5 x . y) of unit vectors in the place of the Gaussian.
    rtol : float
    columns : int
    """

    name: str
    dim: int
    size: int
    width: float | None = None
    dtype: str = "float64"
    inner: bool = False
    rtol: float = 1e-12
    columns: int = 1

    @property
    def epsilon(self) -> float:
        """In exp(-f / (2 eps)), f the squared distance, or minus the inner product."""
        if self.inner:
            return 0.1
        return self.dim / 50 if self.width is None else self.width**2

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, n) and values (N, c)."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.size, self.dim)) if self.inner else rng.random((self.size, self.dim))
        if self.inner:
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x.astype(self.dtype), rng.standard_normal((self.size, self.columns)).astype(self.dtype)

    def error(self, mean: np.ndarray) -> float:
        """Largest error of some rows of means (N, c), relative to the largest value."""
        x, v = (array.astype(np.float64) for array in self.tokens())
        rows = np.linspace(0, self.size - 1, ROWS).astype(int)
        worst = 0.0
        for i in rows:
            f = -(x @ x[i]) if self.inner else ((x - x[i]) ** 2).sum(axis=1)
            weights = np.exp(-(f - f.min()) / (2 * self.epsilon))
            worst = max(worst, float(np.abs(mean[i] - weights @ v / weights.sum()).max()))
        return worst / float(np.abs(v).max())


def _dense(dim: int, size: int, dtype: str = "float64", inner: bool = False, columns: int = 1) -> Sum:
    kind = "inner" if inner else "dense"
    name = f"{kind} n={dim} {f'c={columns} ' if columns > 1 else ''}N={size} f{dtype.removeprefix('float')}"
    return Sum(name, dim, size, None, dtype, inner, 1e-12 if dtype == "float64" else 1e-5, columns)


CASES = {
    case.name: case
    for case in (
        *(_dense(dim, size) for dim in (2, 3) for size in (10_000, 40_000)),
        *(_dense(dim, 10_000, "float32") for dim in (2, 3)),
        *(_dense(dim, 10_000) for dim in (8, 64)),
        *(_dense(dim, 10_000, inner=True) for dim in (8, 64)),
        *(_dense(dim, 10_000, dtype, columns=3) for dim in (2, 3) for dtype in ("float64", "float32")),
        *(
            _dense(dim, 10_000, dtype, inner, columns=dim)
            for inner in (False, True)
            for dtype in ("float64", "float32")
            for dim in (16, 32, 64)
        ),
        Sum("near n=2 N=10000", 2, 10_000, 0.01),
        Sum("near n=2 N=100000", 2, 100_000, 0.003),
        Sum("near n=3 N=100000", 3, 100_000, 0.005),
        Sum("wide n=2 N=1000000", 2, 1_000_000, 0.02, rtol=1e-9),
    )
}
