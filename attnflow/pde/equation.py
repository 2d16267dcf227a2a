"""What all limit equations dH/dt = L H have in common: they are solved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np

from .. import checks, display
from ..geometry import Density, Remetrised, Space
from ..grid import Grid
from ..provenance import provenance
from ..recording import Step, Watch
from ..solution import Solution
from .boundaries import NO_GROWTH, Walls, read_boundary, sides, warn_of_growth
from .generator import Generator
from .grids import on_sphere
from .methods import METHODS, solve_problem
from .peaks import Peaks
from .problem import Problem, moderated, read_problem, read_shape
from .report import moments, restored
from .volumes.operator import Cells, assemble
from .watched import TOGETHER, watched


class Equation(display.Typeset):
    """What all equations have in common: they are solved.

    A new one tells its `generator`, or the `cells` of an operator that has none; one whose features are not those that
    are solved for says in `_asked` what is, and in `_presented` how the answer is.
    """

    self_adjoint: ClassVar[bool] = True
    mixes_columns: ClassVar[bool] = False

    @property
    def generator(self) -> Generator:
        """What L is made of."""
        raise NotImplementedError

    @property
    def space(self) -> Space:
        """Where features live."""
        return self.generator.space

    def ranges(self, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
        """Where the equation is solved up to the time `horizon`: (low, high) per axis, None for spheres."""
        return self.generator.ranges(horizon)

    def _peaks(self, ranges: tuple[tuple[float, float], ...] | None) -> tuple[Peaks, ...]:
        """Narrow peaks of what the equation is made of, which grids on the ranges have to see."""
        return self.generator.peaks(ranges)

    def cells(self, shape: tuple[int, ...], walls: Walls, columns: int = 1, ranges=None) -> Cells:
        """The finite-volume operator on that many cells per axis, with the walls' sources for `columns` features."""
        return assemble(self.generator, shape, walls, columns, self.ranges() if ranges is None else ranges)

    def log_weight(self, x: np.ndarray) -> np.ndarray:
        """log of the weight w = p^drift sqrt(det g) / m of the self-adjoint part at points (N, n): (N,)."""
        return self.generator.normalised_log_weight(x)

    def check_solvable(self) -> None:
        """Raise NotImplementedError where `solve` would."""
        if self.space.dim > (2 if on_sphere(self.space) else 3):
            raise NotImplementedError(
                "density must live on a torus, box, line or chart of dimension 1, 2 or 3 or on S^1 or S^2 for the "
                f"equation to be solved, got {self.space}"
            )

    def solve(
        self,
        initial: Callable | np.ndarray,
        t: float | Sequence[float],
        grid: int | Sequence[int] | None = None,
        boundary=None,
        rtol: float = 1e-8,
        method: str = "auto",
        progress: bool = False,
        backend: str = "numpy",
        source: Callable | None = None,
        *,
        save: str = "all",
        callback: Callable[[Step], object] | None = None,
        store: str | os.PathLike | None = None,
    ) -> Solution:
        """Features at the times t, exact in time and to rtol in space.

        Parameters
        ----------
        initial : callable or array
            Features at time 0: points (N, n) -> (N,) or (N, c), or values (*grid,) or (*grid, c) at the
            nodes of the given grid: low + (i + 1/2) h between walls and in colatitude, low + i h on an axis that wraps.
        t : float or sequence of float
            Output time or increasing times >= 0, in units of length squared.
        grid : int, sequence of int or None
            Cells, one number or one per axis (colatitudes and longitudes on S^2). None: refined until the estimated
            error is below rtol. A given grid is kept, and its error, as rtol means it, is in stats["estimated_error"].
        boundary : None, side or sequence
            None: no-flux at every wall. Otherwise one side for all walls, or one side or (low, high) pair of sides per
            axis: "no-flux", ("dirichlet", value), ("neumann", g), d_nu H = g, or ("robin", b, g), d_nu H + b H = g. nu is
            the outward normal of unit length in g's metric: d_nu H = +- g^ka d_a H / sqrt(g^kk) at an end of axis k. Values
            and g are numbers, one per column, or callables on wall points (M, n), or on wall points and the time; b is a
            number or a callable on wall points -> (M,), in units of 1 / length. Through such walls the integral of H w
            dx changes at the rate of that of p^drift (g - b H) dS, dS the walls' area in g. What walls do for less than 1/300
            of the time may be missed: ask for output times there.
        rtol : float
            Relative error in the L2 norm weighted by w, that is by p^drift, relative to the largest norm over time
            (on a line with drift < 1, weighted by p). Where p^drift is small the error at a point may be far larger:
            `solution.error(points)` estimates it there.
        method : "auto", "spectral", "finite-volume" or the name of a time integrator
            "auto" is spectral where density, metric and initial values are smooth: Fourier on axes that wrap,
            Legendre between walls, spherical harmonics on S^2 (there only without a given grid; "spectral" takes
            colatitudes and longitudes, and harmonics of the largest degree they hold). "chebyshev" and "rational" are
            finite volumes, exact in time; "BDF", "Radau", "LSODA", "RK45", "RK23" and "DOP853" are solve_ivp's.
        progress : bool
            Show a progress bar.
        backend : "numpy" or "cupy"
            Where the fields are computed; spectral nodes and the "chebyshev" integrator run on a graphics card too.
        source : callable or None
            What is added to dH/dt: points (M, n), the time and H (M, c) to (M, c). Where it is found to be s(x) + r(x) H,
            at points, times and features of several sizes and at last at all nodes and output times, the equation is
            solved exactly in time, as without; else on finite volumes by "Radau" or "BDF". What it does for less than
            1/300 of the time may be missed: ask for output times there.
        save : {"all", "final", "statistics"}
            Which output times the solution holds: "final" the last one only; "statistics" that one, and in stats["statistics"]
            "t" and the columns' "mean" and "variance" (weighted by w), "min" and "max" at each (T, c).
        callback : callable, optional
            Called with each output time as callback(step): step.t and step.y, the field there. Where it returns something
            true, later times are left out (status 1).
        store : path, optional
            A new folder that each output time is written to as it is done; a Zarr group if its name ends in .zarr.
            `attnflow.load` reads it, also while the run goes on.
            With any of these three a grid is found for sixteen of the times, first and last among them, and the others are
            solved for on it some at a time, in 64 MB or sixteen fields; with a `source`, or walls that change in time, all are solved for at once.

        Returns
        -------
        Solution
            y is (T, *grid, c), and `at` takes any time. stats has method, grid, integrator, estimated_error, the part of it
            that rounding errors of |L| t may take (round_off; none in finite volumes on a line, which know the slowest rates
            as well as the fastest), the number of applications of L (or of poles, or evaluations), whether finite volumes are `monotone` (no new extrema),
            and at each time the weighted mean and the deviation from it. When interrupted, what was computed.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as above, or p vanishes somewhere.
        ImportError
            If the store ends in .zarr and zarr is not installed.
        NotImplementedError
            In more than three dimensions, and on spheres beyond S^2.

        Warns
        -----
        AccuracyWarning
            If the finest grid does not reach rtol, or a given one is too coarse for p; the message has the numbers.
        GrowthWarning
            If a wall's negative b lets features grow, or so little that it cannot be told; stats["growth"] is their rate, and
            stats["growth_between"] the interval in which the largest eigenvalue of L lies.

        Examples
        --------
        Heat comes in on the left at the rate 1 and leaves on the right; at last H = 2 - x:

        >>> import numpy as np, attnflow as af
        >>> rod = af.Heat(af.Box([(0, 1)]))
        >>> H = rod.solve(lambda x: 0 * x[:, 0], t=30.0, boundary=(("neumann", 1.0), ("robin", 1.0, 0.0)))
        >>> H.at([[0.0], [1.0]]).ravel().round(8)
        array([2., 1.])

        Growth that is limited, dH/dt = H'' + H (1 - H):

        >>> H = rod.solve(lambda x: 0.1 + 0 * x[:, 0], t=2.0, source=lambda x, t, H: H * (1 - H), rtol=1e-6)
        >>> H.at([[0.5]]).ravel().round(6)   # 1 / (1 + 9 exp(-2))
        array([0.450853])
        """
        watch = Watch.of_times(save, callback, store)
        self.check_solvable()
        method = checks.choice(method, "method", METHODS)
        rtol = checks.positive(rtol, "rtol")
        shape = read_shape(grid, self.space)

        def solve(times: float | Sequence[float]) -> Solution:
            problem, powers = moderated(self._asked(initial, times, shape, boundary, backend, progress, source))
            return self._presented(restored(self._answer(problem, shape, rtol, method), powers))

        asked = {"t": t, "grid": shape, "boundary": boundary, "rtol": rtol, "method": method, "source": source}
        return self._watched(watch, solve, initial, progress, **asked, backend=backend)

    def _watched(self, watch: Watch, solve: Callable, initial, progress: bool, **asked) -> Solution:
        """What `solve` finds at the times that were asked for, as the watch says, with what the call was given."""

        def call() -> dict:
            given = initial if callable(initial) else np.asarray(initial)
            return provenance(f"{type(self).__name__}.solve", equation=self, initial=given, **asked)

        if watch.idle:
            return replace(solve(asked["t"]), provenance=call())
        times = checks.output_times(asked["t"])
        moves = any(side.moves for side in sides(read_boundary(asked["boundary"], self.space)))
        together = len(times) if moves or asked.get("source") is not None else TOGETHER  # what acts briefly is seen there
        return watched(watch, times, together, solve, self._weighted, call, bool(progress))

    def _answer(self, problem: Problem, shape: tuple[int, ...] | None, rtol: float, method: str) -> Solution:
        """Of the problem of moderate size."""
        solution = self._solved(problem, shape, rtol, method)
        added = problem.source
        if added is not None and added.affine and self.self_adjoint:
            assert solution.grid is not None
            nodes = solution.grid.points
            fields = solution.y.reshape(len(solution.t), len(nodes), -1)
            if not added.is_affine(nodes, solution.t, fields):
                problem = replace(problem, source=added.again(nodes, solution.t, fields))
                solution = self._solved(problem, shape, rtol, method)
        rate = solution.stats.get("growth_between", NO_GROWTH if self.self_adjoint else None)
        reacts = problem.source is not None and not problem.source.affine
        warn_of_growth(problem.walls, self.space, None if rate and rate[1] > 0 and reacts else rate)
        return solution

    def _solved(self, problem: Problem, shape: tuple[int, ...] | None, rtol: float, method: str) -> Solution:
        assemble = partial(self._assembled, problem)  # no closure, which could not be pickled with the solution
        return solve_problem(self.generator, problem, shape, rtol, method, assemble, self.self_adjoint)

    def _assembled(self, problem: Problem, shape: tuple[int, ...]) -> Cells:
        cells = self.cells(shape, problem.walls, problem.columns, problem.ranges)
        cells = replace(cells, timing=problem.timing)
        return cells if problem.source is None else cells.plus(problem.source)

    def _asked(self, initial, t, shape: tuple[int, ...] | None, boundary, backend: str, progress: bool, source) -> Problem:
        problem = read_problem(self.generator, self.ranges, self._peaks, initial, t, shape, boundary, backend, progress, source)
        return replace(problem, mixed=self.mixes_columns)

    def _presented(self, solution: Solution) -> Solution:
        return solution

    def _weighted(self, grid: Grid) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, np.ndarray]]]:
        """What means over the nodes are weighted by, (size,) of sum 1, and what stats say of fields (T, size, c)."""
        share = self.generator.error_weights(grid)
        return share, partial(moments, share)


def flow_latex(space: Space, drift: float, mobile: bool = False) -> str:
    """m (Delta_g H + drift <grad log p, grad H>_g) in LaTeX."""
    g = "_g" if isinstance(space, Remetrised) else ""
    terms = rf"\Delta{g} H"
    if drift:
        product = rf"\langle \nabla \log p, \nabla H \rangle{g}"
        terms += f" {'+' if drift > 0 else '-'} {display.latex_factor(abs(drift), product)}"
    return rf"m(x) \left({terms}\right)" if mobile else terms


def where_latex(density: Density, drifts: bool = True) -> str:
    """The density and the metric that were given, after a formula; of a flow without drift, where it is."""
    space = density.space
    parts = [density.latex] if drifts else [rf"x \in {space.latex}"]
    if isinstance(space, Remetrised) and space.metric_latex:
        parts.append(f"g = {space.metric_latex}")
        if space.columns != space.dim:  # vectors, of which g sees what is tangential
            parts.append(rf"x{', y' * ('f(x, y)' in parts[-1])} \in {space.space.latex}")
    return "".join(rf", \quad {part}" for part in parts)
