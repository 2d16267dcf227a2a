"""The main job: iterated attention against its limit equation, over temperatures, sizes and seeds.

Every cell runs floor(t / tau) layers at one temperature on one set of tokens, and one more of a residual step that
meets the time t, and compares with the equation there. Bias (temperature) and noise (number of tokens) are told apart
by the infinite-token layer, which is always computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks
from .design import Design
from .refinement import Goal, narrowed
from .result import StudyResult
from .store import Store
from .sweep import Means, sweep


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
        callback: Callable[[StudyResult], Any] | None = None,
    ) -> StudyResult:
        """Compute the cells that are not in the store yet.

        Parameters
        ----------
        store : path, optional
            SQLite file that finished cells go into as they finish; a second run resumes from it.
        n_jobs : int
            Processes, each with its share of the cores; -1 uses all. One that dies takes only its cell with it, which another
            tries once more.
        client : object, optional
            Anything with submit(function, *args) and gather(futures), such as a dask.distributed
            Client; used in place of n_jobs.
        progress : bool
            Show a bar of predicted seconds, corrected on the way.
        callback : callable, optional
            Given the StudyResult of what is finished so far, at the start where the store has some of it and after each cell;
            a true answer ends the study. `LiveFigure` and `LivePage` are such.

        Returns
        -------
        StudyResult
            After Ctrl-C it holds the cells that were finished and says so in .message; .status is then 1. Where cells
            failed, .status is -1: the others are there.

        Warns
        -----
        PartialWarning
            If cells failed, with the first error. The store has them all; a run with the same store tries them again.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, before any work; a store that is damaged, holds anything else, or is of a newer format is
            left as it is. So is a client named that is closed, or whose workers have another version of attnflow.
        OSError
            If the store stops taking cells: the disk is full.
        Exception
            What the first cell raised, if no cell could be finished.
        SystemExit
            SIGTERM ends the study with status 143, where nobody else handles it. A note says how much is finished, with
            this as with the others, and how to go on.
        """
        means = Means(n_jobs, client, progress, callback)
        means.check()
        with Store(store) as kept:
            return sweep(self, kept, store, means)

    def refine(
        self,
        axis: str,
        width: float,
        cells: int | None = None,
        seconds: float | None = None,
        kind: str = "slope",
        store: str | os.PathLike | None = None,
        n_jobs: int = 1,
        client=None,
        progress: bool = True,
        callback: Callable[[StudyResult], Any] | None = None,
    ) -> StudyResult:
        """Add seeds until the 95% interval of a slope or a constant is narrow enough, or a budget is spent.

        The seeds of the study are the first, and the tokens of theirs stay: with a store, a study that is refined again goes on
        from where it was.

        Parameters
        ----------
        axis : {"size"}
            See `StudyResult.slope`. What is fitted in "epsilon" has no noise: no seed narrows it.
        width : float
            high - low of the interval that is wanted; of several normalisations, of the widest.
        cells : int, optional
            Most cells to compute.
        seconds : float, optional
            Longest time to begin cells in. Where they are computed beside each other, the first that ends after it is the
            last, and the others are given up.
        kind : {"slope", "constant"}
            What is to be known: `StudyResult.slope` or `StudyResult.constant`.
        store, n_jobs, client, progress, callback
            As of `run`.

        Returns
        -------
        StudyResult
            Of the study with the seeds that it took. .status is 0 where the interval is narrow enough, 1 where a budget was
            spent before, -1 where cells failed: no seeds are added then. .message says which, and how wide it is.

        Raises
        ------
        TypeError, ValueError, OSError
            As `run`; if there are fewer finite sizes than two, for a constant one, or the deviations have no slope.

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.2,
        ...                             epsilons=[0.2], sizes=[50, 200], seeds=3)
        >>> result = study.refine("size", width=0.5, cells=200, progress=False)
        >>> value, low, high = result.slope("size")
        >>> high - low <= 0.5, result.study.seeds > 3
        (True, True)
        """
        if checks.choice(axis, "axis", ("epsilon", "size")) == "epsilon":
            raise ValueError("axis must be 'size' to refine, got 'epsilon': runs at N = inf have no noise for seeds to lessen")
        goal = Goal(
            checks.choice(kind, "kind", ("slope", "constant")),
            checks.positive(width, "width"),
            None if cells is None else checks.integer(cells, "cells", least=1),
            None if seconds is None else checks.positive(seconds, "seconds"),
        )
        least = 2 if goal.kind == "slope" else 1
        if sum(map(np.isfinite, self.sizes)) < least:
            raise ValueError(
                f"sizes must have at least {least} finite for a {goal.kind} in them, got {checks.short(self.sizes)}"
            )
        means = Means(n_jobs, client, progress, callback)
        means.check()
        with Store(store) as kept:
            return narrowed(self, goal, kept, store, means)
