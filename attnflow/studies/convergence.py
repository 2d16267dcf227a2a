"""The main job: iterated attention against its limit equation, over temperatures, sizes and seeds.

Every cell runs floor(t / tau) layers at one temperature on one set of tokens, and one more of a residual step that
meets the time t, and compares with the equation there. Bias (temperature) and noise (number of tokens) are told apart
by the infinite-token layer, which is always computed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

from .. import checks
from ..progress import track
from .cells import check_row
from .design import Design
from .execution import compute
from .result import StudyResult
from .signals import Signals, Terminated
from .store import Store, content_key


class ConvergenceStudy(Design):
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
    normalization : str, DensityCorrected or Sinkhorn, or a sequence of them
        Several see the same tokens; `StudyResult.of` has the results of each.
    grid : int, sequence of int or None
        Nodes per axis of the infinite-token layer; None chooses them for every temperature.
    seed : int
        Another one makes all sets of tokens other ones.
    residual, backend, dtype
        Of the layers, see `Attention`. A store that is resumed keeps cells of whatever engine ran: all agree to the accuracy
        that a cell states.

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
                prints = [part.fingerprint for part in self.parts]
                keys = {cell: content_key([prints[cell.part], cell.epsilon, str(cell.size), cell.seed]) for cell in cells}
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
                        kept.add(keys[cell], prints[cell.part], result)
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
