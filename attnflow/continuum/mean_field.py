"""How the density of moving tokens evolves: its own nonlinear transport equation at finite eps.

Tokens that are their own values move with the layer's velocity, so their density rho obeys

    d rho / dt + div(rho v) = 0,    v(x) = A_rho x - x  (on the sphere P_x A_rho x),    t in layers,

A_rho the layer whose keys weigh rho (Sander et al. 2022; Geshkovski et al. 2023). Finite volumes: see transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import capacity, checks, display
from ..attention import Attention
from ..attention.infinite import check_same_space
from ..attention.masks import check_unmasked
from ..geometry import Density, Euclidean, Sphere
from ..grid import Grid
from ..progress import track
from ..provenance import provenance
from ..resolution import interpolation_error
from ..solution import Solution
from .transport import Flow, cell_volumes, too_narrow

_FEWEST = {1: 64, 2: 16}  # cells per axis of the first grid
_MOST = {1: 1024, 2: 96**2}  # cells that are chosen without being asked for
_BLIND = 0.3  # relative error of rho between cells that do not see it


@dataclass(frozen=True)
class MeanField(display.Typeset):
    """d rho/dt + div(rho v) = 0 with v(x) = A_rho x - x, on a sphere P_x A_rho x; t in layers.

    The limit of infinitely many tokens of `evolve_continuous`. Attention attracts: tokens gather in clusters.

    Parameters
    ----------
    layer : Attention
        With residual 1: the flow has no step of its own. Any normalisation (its key bias follows rho), but alpha > 1,
        which spreads tokens, on the sphere only.
    density : Density
        rho at time 0, on Euclidean space or a sphere of dimension 1 or 2.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or density and layer live on different spaces.

    Examples
    --------
    >>> import attnflow as af
    >>> from attnflow.continuum import MeanField
    >>> layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), epsilon=0.4)
    >>> run = MeanField(layer, af.Gaussian([0.0], [[1.0]])).solve(t=1.0, grid=120)
    >>> x, rho = run.grid.points[:, 0], run.y[-1, :, 0]
    >>> mass = rho * run.grid.weights
    >>> mass.sum().round(12), (mass @ x**2).round(2)   # Sigma + s ln Sigma fell by 2 s
    (np.float64(1.0), np.float64(0.49))
    """

    layer: Attention
    density: Density

    def __repr__(self) -> str:
        return display.cut(f"MeanField({display.cut(repr(self.layer), 75)}, {self.density!r})")

    @property
    def latex(self) -> str:
        velocity = "P_x A_\\rho x" if isinstance(self.density.space, Sphere) else "A_\\rho x - x"
        flow = f"\\partial_t \\rho + \\nabla \\cdot (\\rho v) = 0, \\quad v(x) = {velocity}"
        return ", \\quad ".join([flow, self.layer.f.latex, self.density.formula("\\rho_0")])

    def __post_init__(self) -> None:
        check_same_space(self.layer, self.density)
        check_unmasked(self.layer, "a mean field")
        space = self.density.space
        if not isinstance(space, (Euclidean, Sphere)) or space.dim > 2:
            raise ValueError(f"density must live on Euclidean or Sphere of dimension 1 or 2 to move, got {space}")
        if isinstance(space, Euclidean) and self.layer.normalization.drift < 0:
            raise ValueError(
                f"layer must not spread tokens (alpha <= 1) on {space}, for the grid ends where the density does, "
                f"got {self.layer.normalization}; use evolve_continuous"
            )
        if self.layer.residual != 1:
            raise ValueError(f"layer must have residual 1: the flow has no step of its own, got {self.layer.residual}")

    def formal_limit(self) -> float:
        """Diffusivity D of the limit eps -> 0, d rho/dt = D Delta_g rho, per layer and in the metric of f.

        Returns
        -------
        float
            D = -(drift / 2) m2 if not negative: 0 for column and alpha = 1, whose tokens stand still to this order.

        Raises
        ------
        ValueError
            If D < 0, as for softmax, Sinkhorn and alpha < 1: that is the backward heat equation.

        Examples
        --------
        >>> import attnflow as af
        >>> f = af.SquaredDistance(af.Euclidean(1))
        >>> MeanField(af.Attention(f, 0.1, "column"), af.Gaussian([0.0], [[1.0]])).formal_limit()
        0.0
        """
        f, drift = self.layer.f, self.layer.normalization.drift
        f.metric(self.density.space.probe_points())  # says at once if there is no local limit
        rate = drift / 2 * f.second_moment(self.layer.epsilon, self.density.space.dim)
        if rate > 0:
            raise ValueError(
                f"layer must not attract for its formal limit to be solved, got d rho/dt = -{rate:g} Delta rho per "
                f"layer: the backward heat equation, which is ill-posed; wave number k grows as exp({rate:g} k^2 t) "
                "however large k is. solve() keeps epsilon finite, where waves shorter than the kernel do not grow"
            )
        return abs(rate)

    def solve(
        self,
        t: float | Sequence[float],
        grid: int | Sequence[int] | None = None,
        rtol: float = 1e-3,
        progress: bool = False,
    ) -> Solution:
        """rho at the times t, second order in the cells.

        Parameters
        ----------
        t : float or sequence of float
            Output time or increasing times >= 0, in layers as for `evolve_continuous`.
        grid : int, sequence of int or None
            Cells, one number or one per axis (S^2: colatitude, longitude; n stands for (n, 2n)) over the density's
            extent. None: doubled until the estimated error is below rtol.
        rtol : float
            Misplaced share of the mass, the integral of abs(rho - exact). A given grid is kept, and rtol
            then only bounds the time step, rtol^(1/3) / 2.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Solution
            .t = .layers: the layers passed. y is (T, *grid, 1), rho with respect to the volume of the space, >= 0.
            stats["estimated_error"] compares with a grid half as fine; stats["mass_error"] is of round-off.
            status -1 when clusters became too narrow for the cells: the last time is then that of the stop.

        Raises
        ------
        ValueError
            If the cells do not resolve the density, or are wider than half the kernel width sqrt(m2).

        Warns
        -----
        AccuracyWarning
            If the clusters outgrow the grid, or the finest grid does not reach rtol.
        """
        times, rtol = checks.output_times(t), checks.positive(rtol, "rtol")
        step, progress = rtol ** (1 / 3) / 2, bool(progress)
        capacity.ends(times[-1] / step, "t", 3e-4)
        shapes = _sizes(self) if grid is None else [_check_grid(self, grid)]
        coarse, error = None, np.nan
        for shape in shapes:
            run = _march(self, shape, times, step, progress)
            if run.status == 1:
                break
            if coarse is not None or len(shapes) == 1:
                other = _comparison(self, run, coarse, step, progress)
                if other.status == 1:
                    run, error = replace(run, status=1, message="interrupted while the error was estimated"), np.nan
                    break
                error = max(_misplaced(run, other), _unseen(self.density, run.grid))
                if error <= rtol and run.status == 0:
                    break
            coarse = run
        solution = _report(self, run, error, rtol if grid is None else None)
        return replace(solution, provenance=provenance("MeanField.solve", equation=self, t=times, grid=grid, rtol=rtol))


@dataclass(frozen=True)
class _Run:
    """rho (T, *grid) at the layers `times`."""

    grid: Grid
    times: np.ndarray
    fields: np.ndarray
    steps: int
    status: int
    message: str


def _sizes(equation: MeanField) -> list[tuple[int, ...]]:
    """Grids to try, each twice as fine as the one before."""
    density = equation.density
    dim = density.space.dim
    trial = density.grid(_FEWEST[dim])
    needed = np.array(trial.shape) * np.maximum(2 / _cells_per_width(equation, trial), 1)
    shape, sizes = tuple(2 * int(np.ceil(n / 2)) for n in needed), []
    while np.prod(shape) <= _MOST[dim]:
        if _start(density, density.grid(shape)) is not None:
            sizes.append(shape)
        shape = tuple(2 * n for n in shape)
    if not sizes:
        raise ValueError(
            f"grid must be given: epsilon = {equation.layer.epsilon:g} or the density needs more than {_MOST[dim]} "
            "cells, the most that are chosen unasked"
        )
    return sizes


def _check_grid(equation: MeanField, grid: int | Sequence[int]) -> tuple[int, ...]:
    cells = equation.density.grid(grid)
    if min(cells.shape) < 8:
        raise ValueError(f"grid must have at least 8 cells per axis, got {cells.shape}")
    resolved = _cells_per_width(equation, cells)
    if resolved.min() < 2:
        enough = tuple(2 * int(np.ceil(n / r)) for n, r in zip(cells.shape, resolved))
        raise ValueError(
            f"grid must have at least 2 cells per kernel width sqrt(m2), got {resolved.min():.3g} with {cells.shape}: "
            f"on cells that do not see epsilon the equation is ill-posed: backward heat; use {enough} or more, or None"
        )
    if _start(equation.density, cells) is None:
        raise ValueError(f"grid must resolve the density, got clusters narrower than two cells with {cells.shape}")
    return cells.shape


def _cells_per_width(equation: MeanField, grid: Grid) -> np.ndarray:
    """sqrt(m2) / spacing per axis, in the metric of f at its largest."""
    f, space = equation.layer.f, equation.density.space
    metric = f.metric(space.probe_points(64))
    if grid.sphere:
        stretch = np.sqrt(np.linalg.eigvalsh(metric)[..., -1].max())
    else:
        stretch = np.sqrt(np.max(np.diagonal(metric, axis1=-2, axis2=-1), axis=0))
    spacing = np.array([axis.spacing for axis in grid.axes])
    return np.sqrt(f.second_moment(equation.layer.epsilon, space.dim)) / (stretch * spacing)


def _start(density: Density, grid: Grid, watch: bool = True) -> np.ndarray | None:
    """rho (*grid) at time 0, of mass 1; None where the cells do not resolve it."""
    rho = density.pdf(grid.points).reshape(grid.shape)
    mass = np.sum(rho * cell_volumes(grid))
    if watch and (not 0.9 < mass < 1.1 or too_narrow(rho, grid) or _unseen(density, grid) > _BLIND):
        return None
    return rho / mass


def _unseen(density: Density, grid: Grid) -> float:
    """How far rho at time 0 is from its interpolant on the cells, between their centres."""
    return float(interpolation_error(density.pdf, grid, density.pdf(grid.points), "density")[0])


def _march(
    equation: MeanField, shape: tuple[int, ...], times: np.ndarray, step: float, progress: bool, watch: bool = True
) -> _Run:
    """All of `times` on one grid, in steps of at most `step`; with `watch`, until clusters are too narrow for it."""
    grid = equation.density.grid(shape)
    capacity.fits(24 * grid.size * len(times), "t")
    flow, rho = Flow(equation.layer, grid), _start(equation.density, grid, watch)
    assert rho is not None  # such cells are not asked for
    reached, fields, steps = [0.0], [rho], 0
    status, message = 0, "finished"
    try:
        for t, rho in track(flow.steps(rho, times, step), progress, unit="step"):
            steps += 1
            narrow = watch and too_narrow(rho, grid)
            if t in times or narrow:
                reached.append(t)
                fields.append(rho)
            if narrow:
                status = -1
                message = (
                    f"stopped after {t:.6g} of {times[-1]:g} layers: clusters are narrower than two of the {shape} "
                    "cells. The flow is close to ill-posed (its limit is the backward heat equation): features as "
                    "small as the kernel width grow fastest, and clusters shrink to points; use more cells, or a "
                    "shorter time"
                )
                break
    except KeyboardInterrupt:
        status, message = 1, f"interrupted after {reached[-1]:g} of {times[-1]:g} layers; what was computed is here"
    first = 0 if times[0] == 0 or len(reached) == 1 else 1
    return _Run(grid, np.array(reached[first:]), np.stack(fields[first:]), steps, status, message)


def _comparison(equation: MeanField, run: _Run, coarse: _Run | None, step: float, progress: bool) -> _Run:
    """The run on half as many cells: `coarse` where it went as far, or one that goes on where it was too narrow."""
    if coarse is not None and not run.status and not coarse.status:
        return coarse
    shape = tuple(max(4, 2 * (n // 4)) for n in run.grid.shape)
    return _march(equation, shape, run.times, step, progress, watch=False)


def _misplaced(run: _Run, coarse: _Run) -> float:
    """Largest misplaced share of the mass, by the change from the coarser cells; they err as the spacing squared."""
    factor = (run.grid.shape[0] / coarse.grid.shape[0]) ** 2 - 1
    there = [coarse.grid.interpolate(rho[..., None], run.grid.points).reshape(run.grid.shape) for rho in coarse.fields]
    volumes = cell_volumes(run.grid)
    return float(np.max([np.sum(np.abs(a - b) * volumes) for a, b in zip(run.fields, there)]) / factor)


def _report(equation: MeanField, run: _Run, error: float, rtol: float | None) -> Solution:
    message = run.message
    if run.status == 0 and rtol is None:
        message = f"finished on the given grid; estimated error {error:.1g} of the mass"
    elif run.status == 0 and rtol is not None and not error <= rtol:
        message = (
            f"estimated error {error:.1g} of the mass on the finest grid {run.grid.shape}, above rtol = {rtol:g}; "
            "give a finer grid, a shorter time or a larger rtol"
        )
    if run.status == -1 or (run.status == 0 and rtol is not None and not error <= rtol):
        checks.warn(message, checks.AccuracyWarning)
    mass = (run.fields * cell_volumes(run.grid)).reshape(len(run.times), -1).sum(axis=1)
    stats = {
        "quantity": "density",
        "method": "finite-volume",
        "backend": equation.layer.backend,
        "grid": list(run.grid.shape),
        "steps": run.steps,
        "estimated_error": error,
        "mass_error": float(np.abs(mass - 1).max()),
    }
    return Solution(run.times, run.fields[..., None], run.times, None, run.grid, run.status, message, stats)
