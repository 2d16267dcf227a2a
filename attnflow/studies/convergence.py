"""The main job: iterated attention against its limit equation, over temperatures, sizes and seeds.

Every cell runs floor(t / tau) layers at one temperature on one set of tokens, and one more of a residual step that
meets the time t, and compares with the equation there. Bias (temperature) and noise (number of tokens) are told apart
by the infinite-token layer, which is always computed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .. import capacity, checks
from ..attention import Attention
from ..continuum import limit
from ..continuum.limits import depth
from ..geometry import Density
from ..particles.quadrature import check_same_space, first_grid
from ..progress import track
from ..similarity import PseudoMetric
from .cells import FORM, Cell, check_row
from .execution import compute
from .result import StudyResult
from .signals import Signals, Terminated
from .store import Store, content_key

_MOST_CELLS = 10**6


class ConvergenceStudy:
    """Errors of attention layers against the equation, over epsilons x sizes x seeds.

    Parameters
    ----------
    f : PseudoMetric
    density : Density
        Tokens are independent samples of it.
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation to compare at.
    epsilons : sequence of float
        Temperatures.
    sizes : sequence of int or numpy.inf
        Numbers of tokens; numpy.inf is the infinite-token layer, computed for every epsilon in any case.
    seeds : int
        Independent sets of tokens per finite size.
    normalization : str, DensityCorrected or Sinkhorn
    grid : int, sequence of int or None
        Nodes per axis of the infinite-token layer; None chooses them for every temperature.
    seed : int
        Another one makes all sets of tokens other ones.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> circle = af.Circle()
    >>> study = af.ConvergenceStudy(af.SquaredDistance(circle), af.VonMises(1.0), lambda x: np.cos(x[..., 0]),
    ...                             t=0.5, epsilons=[0.01, 0.02, 0.04, 0.08], sizes=[np.inf])
    >>> value, low, high = study.run(progress=False).slope("epsilon")
    >>> low < 1 < high or abs(value - 1) < 0.03
    True
    """

    def __init__(
        self,
        f: PseudoMetric,
        density: Density,
        initial: Callable,
        t: float,
        epsilons: Sequence[float],
        sizes: Sequence[float],
        seeds: int = 10,
        normalization="softmax",
        grid: int | Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.f, self.density, self.initial = f, density, initial
        self.t = checks.positive(t, "t")
        epsilons = checks.sequence(epsilons, "epsilons", "temperatures")
        self.epsilons = tuple(sorted({checks.positive(e, "epsilons") for e in epsilons}, reverse=True))
        sizes = checks.sequence(sizes, "sizes", "token numbers")
        self.sizes = tuple(sorted({_size(n) for n in sizes}))
        self.seeds = checks.integer(seeds, "seeds", least=1)
        finite = len([n for n in self.sizes if np.isfinite(n)])
        count = len(self.epsilons) * (1 + finite * self.seeds)
        if count > _MOST_CELLS:
            raise ValueError(
                f"seeds and sizes must make at most {_MOST_CELLS} cells, got {count}: {self.seeds} seeds of {finite} sizes "
                f"at {len(self.epsilons)} temperatures"
            )
        self.seed = checks.integer(seed, "seed")
        self.normalization = normalization
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
        check_same_space(self.layer(self.epsilons[0]), density)
        self.grid = None if grid is None else density.grid(grid).shape
        if not checks.evaluate(initial, density.space.probe_points(), "initial").any():
            raise ValueError("initial must not vanish everywhere: errors are relative to the solution")
        _check_feasible(self)
        for epsilon in self.epsilons:
            if self.layers(epsilon) < 1:
                raise ValueError(
                    f"epsilons must be small enough that t = {self.t:g} holds at least one layer, got {epsilon:g} "
                    f"with a time step of {self.layer(epsilon).time_step:g}"
                )
        limit(self.layer(self.epsilons[0]), density).check_solvable()
        for epsilon in self.epsilons:
            first_grid(self.layer(epsilon), density, self.grid)

    def layer(self, epsilon: float) -> Attention:
        """The attention layer at one temperature."""
        return Attention(self.f, epsilon, self.normalization)

    def layers(self, epsilon: float) -> int:
        """floor(t / tau): plain layers."""
        return depth(self.layer(epsilon), self.t)[0]

    def residual(self, epsilon: float) -> float:
        """t / tau - floor(t / tau): the residual step of one more layer, which meets t; 0 where none is missing."""
        return depth(self.layer(epsilon), self.t)[1]

    def token_stream(self, cell: Cell) -> np.random.Generator:
        """What draws a cell's tokens: a stream of its own, since the seed alone would reuse tokens across sizes."""
        stream = [cell.seed, int(cell.size), int(np.float64(cell.epsilon).view(np.uint64))]
        return np.random.default_rng(stream + [self.seed] * (self.seed > 0))

    @property
    def fingerprint(self) -> str:
        """Digest of everything the results depend on, callables by their values at fixed probe points."""
        probe = self.density.space.probe_points()
        space = self.density.space
        values = (
            self.f(probe, probe),
            self.density.log_pdf(probe),
            checks.evaluate(self.initial, probe, "initial"),
            space.metric(probe),
            space.volume_element(probe),
        )
        return content_key(
            {
                "version": _version(),
                "form": FORM,
                "space": repr(self.density.space),
                "normalization": repr(self.layer(self.epsilons[0]).normalization),
                "t": self.t,
                "grid": self.grid,
                "seed": self.seed,
                "time_step": self.layer(self.epsilons[0]).time_step,
                # 12 digits: the last bits may differ between machines that share a store
                "values": [[f"{v:.11e}" for v in np.ravel(value)] for value in values],
            }
        )

    def cells(self) -> list[Cell]:
        """All cells, the cheapest first; the infinite-token ones before all."""
        finite = [n for n in self.sizes if np.isfinite(n)]
        some = [Cell(e, n, seed) for n in finite for e in self.epsilons for seed in range(self.seeds)]
        cost = {cell: cell.size**2 * self.layers(cell.epsilon) for cell in some}
        return [Cell(e, np.inf, 0) for e in self.epsilons] + sorted(some, key=cost.get)

    def run(
        self,
        store: str | os.PathLike | None = None,
        n_jobs: int = 1,
        client=None,
        progress: bool = True,
    ) -> StudyResult:
        """Compute the cells that are not in the store yet.

        Parameters
        ----------
        store : path, optional
            SQLite file that finished cells go into as they finish; a second run resumes from it.
        n_jobs : int
            Processes; -1 uses all cores.
        client : object, optional
            Anything with submit(function, *args) and gather(futures), such as a dask.distributed
            Client; used in place of n_jobs.
        progress : bool

        Returns
        -------
        StudyResult
            After Ctrl-C it holds the cells that were finished and says so in .message.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, before any work; a store that is damaged, or holds anything else, is left as it is.
        OSError
            If the store stops taking cells: the disk is full.
        Exception
            Whatever a cell raises ends the study at once, and SIGTERM does by SystemExit with status 143 where nobody
            else handles it; a note says how much is finished and how to go on.
        """
        if checks.integer(n_jobs, "n_jobs", least=-1) == 0:
            raise ValueError("n_jobs must be positive, or -1 for all cores, got 0")
        if client is not None and not (hasattr(client, "submit") and hasattr(client, "gather")):
            raise TypeError(f"client must have submit(function, *args) and gather(futures), got {type(client).__name__}")
        cells, found, done, message = self.cells(), {}, {}, "finished"
        with Signals() as signals, Store(store) as kept:
            try:
                fingerprint = self.fingerprint
                keys = {cell: content_key([fingerprint, cell.epsilon, str(cell.size), cell.seed]) for cell in cells}
                found = kept.find({key: partial(check_row, self, cell) for cell, key in keys.items()})
                done = {cell: found[key] for cell, key in keys.items() if key in found}
                missing = [cell for cell in cells if cell not in done]
                if missing:
                    kept.prepare()
                results = compute(self, missing, n_jobs, client, signals)
                with _note(signals, lambda: _so_far(done, cells, store)), contextlib.closing(results):
                    for cell, result in track(results, progress and bool(missing), len(missing), "cell"):
                        signals.check()  # one that was lost in a callback: the cell may be half a one
                        check_row(self, cell, result)
                        kept.add(keys[cell], fingerprint, result)
                        done[cell] = result
            except KeyboardInterrupt:
                message = f"interrupted after {_so_far(done, cells, store)}"
        return StudyResult(self, [done[cell] for cell in cells if cell in done], message, resumed=len(found))


@contextlib.contextmanager
def _note(signals: Signals, so_far: Callable[[], str]) -> Iterator[None]:
    try:
        try:
            yield
        except Exception:  # a call that was interrupted may say so in an exception of its own
            signals.check()
            raise
    except (Exception, Terminated) as error:
        error.add_note(f"after {so_far()}")
        raise


def _so_far(done: dict, cells: list, store) -> str:
    how = "run again with a store to be able to" if store is None else "run again with the same store to"
    return f"{len(done)} of {len(cells)} cells; {how} resume"


def _check_feasible(study: ConvergenceStudy) -> None:
    """Refuse tokens that do not fit and layers that do not end; what they take is measured, and low."""
    finite = [int(n) for n in study.sizes if np.isfinite(n)]
    largest = max(finite, default=0)
    capacity.fits(300 * largest * study.density.space.columns, "sizes")
    for epsilon in study.epsilons:
        time_step = float(study.layer(epsilon).time_step)
        layers = study.t / time_step if time_step > 0 else np.inf
        capacity.ends(layers, "t" if study.t > 1 else "epsilons", 5e-5 + 5e-8 * largest, "layers")


def _size(n) -> float:
    if isinstance(n, float) and np.isposinf(n):
        return np.inf
    return checks.integer(n, "sizes", least=2)


def _version() -> str:
    try:
        return version("attnflow")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "uninstalled"
