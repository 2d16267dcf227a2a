"""The main job: iterated attention against its limit equation, over temperatures, sizes and seeds.

Every cell runs round(t / tau) layers at one temperature on one set of tokens and compares with the
equation at layers * tau. Bias (temperature) and noise (number of tokens) are told apart by the
infinite-token layer, which is always computed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .. import capacity, checks
from ..attention import Attention
from ..continuum import limit
from ..geometry import Density
from ..particles.quadrature import check_same_space
from ..progress import track
from ..similarity import PseudoMetric
from .cells import Cell, run_cell
from .result import StudyResult
from .store import Store, content_key


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
    ) -> None:
        self.f, self.density, self.initial = f, density, initial
        self.t = checks.positive(t, "t")
        epsilons = checks.sequence(epsilons, "epsilons", "temperatures")
        self.epsilons = tuple(sorted({checks.positive(e, "epsilons") for e in epsilons}, reverse=True))
        sizes = checks.sequence(sizes, "sizes", "token numbers")
        self.sizes = tuple(sorted({_size(n) for n in sizes}))
        self.seeds = checks.integer(seeds, "seeds", least=1)
        self.normalization = normalization
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
        check_same_space(self.layer(self.epsilons[0]), density)
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

    def layer(self, epsilon: float) -> Attention:
        """The attention layer at one temperature."""
        return Attention(self.f, epsilon, self.normalization)

    def layers(self, epsilon: float) -> int:
        """round(t / tau): layers that reach the time t."""
        return int(round(self.t / self.layer(epsilon).time_step))

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
                "space": repr(self.density.space),
                "normalization": repr(self.layer(self.epsilons[0]).normalization),
                "t": self.t,
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
            Processes (joblib's loky); -1 uses all cores.
        client : object, optional
            Anything with submit(function, *args) and gather(futures), such as a dask.distributed
            Client; used in place of n_jobs.
        progress : bool

        Returns
        -------
        StudyResult
            Interrupted, it holds the cells that were finished and says so in .message.
        """
        if checks.integer(n_jobs, "n_jobs", least=-1) == 0:
            raise ValueError("n_jobs must be positive, or -1 for all cores, got 0")
        if client is not None and not (hasattr(client, "submit") and hasattr(client, "gather")):
            raise TypeError(f"client must have submit(function, *args) and gather(futures), got {type(client).__name__}")
        cells = self.cells()
        keys = {cell: content_key([self.fingerprint, cell.epsilon, str(cell.size), cell.seed]) for cell in cells}
        message = "finished"
        with Store(store) as kept:
            found = kept.find(keys.values())
            done = {cell: found[key] for cell, key in keys.items() if key in found}
            missing = [cell for cell in cells if cell not in done]
            with contextlib.closing(_compute(self, missing, n_jobs, client)) as results:
                try:
                    for cell, result in track(results, progress and bool(missing), len(missing), "cell"):
                        kept.add(keys[cell], self.fingerprint, result)
                        done[cell] = result
                except KeyboardInterrupt:
                    message = f"interrupted after {len(done)} of {len(cells)} cells; run again with the same store to resume"
        return StudyResult(self, [done[cell] for cell in cells if cell in done], message, resumed=len(found))


def _compute(study: ConvergenceStudy, cells: list[Cell], n_jobs: int, client) -> Iterator[tuple[Cell, dict]]:
    """Results as they finish."""
    if client is not None:
        pending = [(cell, client.submit(run_cell, study, cell)) for cell in cells]
        while pending:
            # whatever is finished first, where futures can tell; else in order
            ready = [p for p in pending if getattr(p[1], "done", lambda: False)()] or pending[:1]
            pending = [p for p in pending if p not in ready]
            for cell, future in ready:
                yield cell, client.gather([future])[0]
    elif n_jobs == 1:
        for cell in cells:
            yield cell, run_cell(study, cell)
    elif cells:
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=n_jobs, backend="loky", return_as="generator_unordered")
        yield from parallel(delayed(_with_cell)(study, cell) for cell in cells)


def _with_cell(study: ConvergenceStudy, cell: Cell) -> tuple[Cell, dict]:
    return cell, run_cell(study, cell)


def _check_feasible(study: ConvergenceStudy) -> None:
    """Refuse tokens that do not fit, and layers and cells that do not end; what they take is measured, and low."""
    finite = [int(n) for n in study.sizes if np.isfinite(n)]
    largest, cells = max(finite, default=0), study.seeds * len(finite) * len(study.epsilons)
    capacity.fits(300 * largest * study.density.space.columns, "sizes")
    capacity.fits(500 * cells, "seeds")
    capacity.ends(cells, "seeds", 5e-3, "cells")
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
