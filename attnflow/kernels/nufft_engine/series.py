"""How a sum of Gaussians becomes a Fourier series, and how far the result can be off.

On a box of sides P with periodic continuation,

    sum_j w_j exp(-|x - y_j|^2 / (2 eps)) = sum_k g_k c_k e^{i k x},     c_k = sum_j w_j e^{-i k y_j},
    g_k = prod_a sqrt(2 pi eps) / P_a exp(-eps k_a^2 / 2),     k_a = 2 pi / P_a {-K_a, ..., K_a},

which are two non-uniform fast Fourier transforms (Greengard & Strain 1991; Potts & Steidl 2003; FINUFFT: Barnett,
Magland & af Klinteberg 2019). In units of sigma = sqrt(eps), and with u the unit of rounding, one key of weight w at y
is off at x by at most

    |w| [ 3 (tol + u P) exp(-0.2 (|x - y| + h)^2) + (4 + P / 500) u + leak ].

The first part is local, because spreading and interpolation touch neighbouring nodes only: a transform of tolerance
tol is accurate relative to what lies around a point, not only to the whole sum. It contains the rounding of positions
to u P; h is half the diagonal of a cell of nodes. The second part is the rounding of the fast Fourier transform, the
third what lies beyond K and the images at multiples of P. The constants 3, 4 and 1/500 are measured, the largest
error found being 0.7 of the bound; a test holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import fft, special

from ..threads import ForkGate, in_threads

TOKEN, NODE, FOURIER = 75, 0.95, 2.0  # of `work`: per token, per node it is spread to, per node of the grid and log2
ALONE = 3e7  # work below which a second thread takes longer than it saves
LARGEST = 2**27  # nodes of FINUFFT's grid, twice as many per axis as modes: two gigabytes
FINEST = 1e-14  # below this tolerance FINUFFT's kernel would be wider than it can be
_SHARE = 0.4  # eps over the variance of the local error
_UNIT = np.finfo(float).eps / 2
_FINUFFT = ForkGate()  # it plans and spreads under locks of its own: who inherits one that is held waits for ever


@dataclass(frozen=True)
class Series:
    """A box that is continued periodically, and the Fourier modes that carry a Gaussian on it.

    Attributes
    ----------
    epsilon : float
        Variance of the Gaussian.
    centre, period : (m,) array
        The box.
    modes : tuple of int
        2 K_a + 1 per axis.
    leak : float
        Largest error, per unit of weight, from the modes left out and from images.
    """

    epsilon: float
    centre: np.ndarray
    period: np.ndarray
    modes: tuple[int, ...]
    leak: float

    def near(self, tol: float) -> float:
        """Local part of the error per weight: FINUFFT's tolerance and the rounding of positions."""
        return 3 * (tol + _UNIT * self._widest)

    @property
    def far(self) -> float:
        """Error per weight from the rounding of the fast Fourier transform, felt everywhere."""
        return (4 + self._widest / 500) * _UNIT

    @property
    def _widest(self) -> float:
        return float(self.period.max()) / np.sqrt(self.epsilon)

    def angles(self, x: np.ndarray) -> list[np.ndarray]:
        """Coordinates (m, N) in units where the period is 2 pi."""
        return [(x[a] - self.centre[a]) * (2 * np.pi / side) for a, side in enumerate(self.period)]

    def factors(self, variance: float) -> list[np.ndarray]:
        """Fourier coefficients of the Gaussian of that variance, one array per axis, lowest mode first."""
        return [_coefficients(variance, count, side) for count, side in zip(self.modes, self.period)]


def torus(epsilon: float, period: np.ndarray, level: float) -> Series:
    """The series on a torus; the images at other multiples of its periods belong to the sum."""
    return _series(epsilon, np.zeros(len(period)), np.asarray(period, dtype=float), level, level)


def reach(epsilon: float, dim: int, level: float) -> float:
    """Distance beyond which a Gaussian is below level / (2 dim)."""
    return np.sqrt(epsilon) * np.sqrt(2 * np.log(2 * dim / level))


def box(epsilon: float, low: np.ndarray, high: np.ndarray, span: np.ndarray, level: float) -> Series:
    """The series for keys between two corners and coordinate differences of at most `span`.

    Beyond the span the period leaves room for a Gaussian to fall below the level before the next image begins.
    """
    period = span + reach(epsilon, len(span), level)
    return _series(epsilon, low + (high - low) / 2, period, level, 2 * level)


def work(modes: tuple[int, ...], tokens: float, tol: float) -> float:
    """What both transforms of so many points take on one thread, in units of about a nanosecond; fitted to timings."""
    fine, width = float(np.prod([2 * count for count in modes])), np.ceil(np.log10(1 / tol)) + 1
    return tokens * (TOKEN + NODE * width ** len(modes)) + FOURIER * fine * np.log2(fine)


class GaussSums:
    """Sums of Gaussians between fixed points: FINUFFT plans with their points sorted once.

    `modes` and `at_targets` are the two halves; `around` is what the error bound needs. Points come as coordinates
    (m, N); targets None: the sources. Of no points, (m, 0), there are no plans: one half may be elsewhere. All arrays are of the namespace `xp`; CuPy's are transformed by cuFINUFFT.
    """

    def __init__(self, series: Series, targets: np.ndarray | None, sources: np.ndarray, tol: float, xp=np) -> None:
        self.series, self._xp = series, xp
        self._factors, self._wide = (
            [xp.asarray(factor) for factor in series.factors(series.epsilon / share)] for share in (1.0, _SHARE)
        )
        make, self._inverse = _transforms(xp)
        tokens = (sources.shape[1] + (sources if targets is None else targets).shape[1]) / 2
        parts = 1 if xp is not np else parts_of(series.modes, tokens, tol)
        angles = series.angles(sources)
        self._forward = self._plans(make, 1, angles, parts, tol)
        angles = angles if targets is None else series.angles(targets)
        self._backward = self._plans(make, 2, angles, parts, tol)
        self._nodes = [fft.next_fast_len(count) for count in series.modes]
        self.nearest = self._nearest(angles)

    def modes(self, strengths: np.ndarray) -> np.ndarray:
        """c_k of complex strengths (N,)."""
        first, *others = self._all(self._forward, lambda plan, some: plan.execute(strengths[some]))
        for other in others:
            first += other
        return first

    def at_targets(self, modes: np.ndarray) -> np.ndarray:
        """sum_k g_k c_k e^{ikx} at the targets: (M,) complex."""
        modes = _multiplied(modes, self._factors)
        parts = self._all(self._backward, lambda plan, some: plan.execute(modes))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _plans(self, make, kind, angles, parts, tol):
        """Plans and the points that are theirs."""
        edges = [len(angles[0]) * k // parts for k in range(parts + 1)]
        plans = []
        if len(angles[0]) == 0:
            return plans
        with _FINUFFT:
            for some in map(slice, edges, edges[1:]):
                plans.append((make(kind, self.series.modes, eps=tol, isign=-1 if kind == 1 else 1), some))
                self._in_step(plans[-1][0].setpts, *(np.ascontiguousarray(x[some]) if parts > 1 else x for x in angles))
        return plans

    def _all(self, plans, call):
        """call(plan, points) of every plan, by all threads."""
        results = [None] * len(plans)

        def run(first, last):
            for k in range(first, last):
                results[k] = call(*plans[k])

        with _FINUFFT:
            if len(plans) == 1:
                return [self._in_step(call, plans[0][0], slice(None))]
            in_threads(run, len(plans), 1)
        return results

    def around(self, modes: np.ndarray) -> np.ndarray:
        """Real part of sum_j w_j exp(-0.2 |x - y_j|^2 / eps) on nodes, of which `nearest` is that of each target."""
        xp = self._xp
        padded = xp.zeros(self._nodes, dtype=complex)
        places = [(xp.arange(count) - count // 2) % nodes for count, nodes in zip(self.series.modes, self._nodes)]
        padded[xp.ix_(*places)] = _multiplied(modes, self._wide)
        field = self._inverse(padded, norm="forward").real
        return xp.maximum(field.ravel(), 0.0)

    def _nearest(self, angles: list[np.ndarray]) -> np.ndarray:
        node = self._xp.zeros(len(angles[0]), dtype=np.int32)
        for x, count in zip(angles, self._nodes):
            node *= count
            place = self._xp.rint(x * (count / (2 * np.pi))).astype(np.int32)  # from minus half a period, or a little further
            place %= np.int32(count)
            node += place
        return node

    def _in_step(self, call: Callable, *arrays: np.ndarray):
        """cuFINUFFT works on the default stream, its caller on any."""
        if self._xp is np:
            return call(*arrays)
        self._xp.cuda.get_current_stream().synchronize()
        result = call(*arrays)
        self._xp.cuda.Stream.null.synchronize()
        return result


def parts_of(modes: tuple[int, ...], tokens: float, tol: float) -> int:
    """Into how many parts points are cut that are transformed side by side: at the price of a Fourier transform each.

    FINUFFT's own threads add up in any order, and differ in the last bits from call to call. Parts are two whatever the
    number of threads, and only where one thread would lose little by them.
    """
    everything = work(modes, tokens, tol)
    return 2 if everything > ALONE and work(modes, 0, tol) < everything / 4 else 1


def _transforms(xp) -> tuple[Callable, Callable]:
    """What makes plans, and the inverse fast Fourier transform."""
    if xp is not np:
        import cufinufft

        return partial(cufinufft.Plan, dtype="complex128", upsampfac=2.0), xp.fft.ifftn
    import finufft

    # no messages of its own on the terminal: the tolerance is in its range
    return partial(finufft.Plan, nthreads=1, upsampfac=2.0, showwarn=0), partial(fft.ifftn, overwrite_x=True)


def _series(epsilon, centre, period, level, leak) -> Series:
    dim, sigma = len(period), np.sqrt(epsilon)
    highest = np.ceil(special.erfcinv(level / dim) / (np.sqrt(2) * np.pi) * (period / sigma))  # tail of g: erfc
    modes = 2 * highest + 1
    if not np.prod(2 * modes) <= LARGEST:
        raise ValueError(
            "epsilon is too small for backend 'nufft': tokens that extend over "
            f"{' x '.join(f'{side:.3g}' for side in period / sigma)} widths sqrt(epsilon) need "
            f"{' x '.join(f'{count:.3g}' for count in modes)} Fourier modes, of which it takes {LARGEST / 2**dim:.3g}; "
            "use backend='cells', or 'numba' if only few tokens lie far out"
        )
    return Series(epsilon, centre, period, tuple(int(count) for count in modes), leak)


def _coefficients(variance, count, side):
    k = 2 * np.pi / side * (np.arange(count) - count // 2)
    return np.sqrt(2 * np.pi * variance) / side * np.exp(-variance * k**2 / 2)


def _multiplied(modes, factors):
    for a, factor in enumerate(factors):
        modes = modes * factor.reshape([-1 if b == a else 1 for b in range(len(factors))])
    return modes
