"""Every equation with a known solution: error against grid, its order, and whether the automatic solver keeps rtol."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

import attnflow as af
from attnflow.checks import AccuracyWarning
from attnflow.pde import DriftDiffusion, Heat
from attnflow.plotting import style

from . import Claim, Report, exact
from .exact import Case

TOLERANCES = (1e-4, 1e-6, 1e-8)
ALLOWED = 3.0  # error of the automatic solver over rtol
DEVIATION = {2: 0.1, 3: 0.2, 4: 0.2}  # allowed from an order
CASES: tuple[Callable[[], Case], ...] = (
    exact.line,
    exact.circle,
    lambda: exact.conformal(exact.circle()),
    exact.forward,
    lambda: exact.walls("no-flux", 0.5),
    lambda: exact.walls("dirichlet", 1.0),
    exact.torus,
    lambda: exact.skew(channel=False),
    lambda: exact.skew(channel=True),
    exact.sphere,
    exact.torus3,
    lambda: exact.conformal(exact.torus3()),
)


def run(cases: Sequence[Callable[[], Case]] = CASES, tolerances: Sequence[float] = TOLERANCES) -> Report:
    """Errors of all cases on three given grids and at three tolerances; then eigenvalues and steady states.

    Parameters
    ----------
    cases : sequence of callables
        Each returns a Case.
    tolerances : sequence of float
        rtol of the automatic solves.
    """
    rows, claims, curves = [], [], {}
    for case in (build() for build in cases):
        errors, better = grid_errors(case)
        order, extrapolated = slope(errors), slope(better)
        solves = [automatic(case, rtol) for rtol in tolerances]
        worst = max(ratio for ratio, _ in solves)
        cells = [" x ".join(str(factor * n) for n in case.cells) for factor in (1, 4)]
        rows.append(
            [case.name, f"{cells[0]} to {cells[1]}", *(f"{e:.2e}" for e in errors), f"{order:.3f}"]
            + [*(f"{e:.2e}" for e in better), f"{extrapolated:.3f}", *(_solved(*solve) for solve in solves)]
        )
        curves[case.name] = np.array(case.cells).min() * np.array([1, 2, 4]), errors, better
        claims.append(_order(case.name, 2, order))
        if case.extrapolated is not None:
            claims.append(_order(f"{case.name}, after Richardson", case.extrapolated, extrapolated))
        held = bool(worst <= ALLOWED)
        claims.append(Claim(f"{case.name}: automatic error over rtol", f"{worst:.2g}", f"at most {ALLOWED:g}", held))
    if cases is CASES:
        for check in (_literals, _eigenvalues, _sphere, _steady_states):
            claims += check()
    text = (
        "Finite volumes on given grids of N, 2 N and 4 N cells per axis: w-weighted relative L2 error at the\n"
        "coarsest grid's nodes, its order, and after one Richardson step (N with 2 N, 2 N with 4 N). Then the\n"
        "automatic solver at three rtol: error over rtol on other points, its method and grid. Between walls that\n"
        "are Dirichlet or not square to the metric the error has a term h^3; on the sphere the error over h^2\n"
        "depends on h near the poles, so no order is claimed there. Solutions without closed form "
        "are those of the Schroedinger\n"
        "form by a dense Fourier matrix."
    )
    columns = ["case", "cells", "N", "2 N", "4 N", "order", "N, 2 N", "2 N, 4 N", "order"]
    columns += [f"rtol {rtol:.0e}" for rtol in tolerances]
    title = "Equations: exact solutions against grid and tolerance"
    return Report(title, text, columns, rows, claims, lambda ax: _draw(ax, curves))


def grid_errors(case: Case) -> tuple[list[float], list[float]]:
    """Errors of the finite volumes on three given grids, and of the two Richardson extrapolations of neighbours.

    All at the coarsest grid's nodes.
    """
    solutions = [
        case.pde.solve(case.initial, case.t, [factor * n for n in case.cells], case.boundary, method="finite-volume")
        for factor in (1, 2, 4)
    ]
    grid = solutions[0].grid
    fields = [solution.at(grid.points) for solution in solutions]
    better = [(4 * fine - coarse) / 3 for coarse, fine in zip(fields, fields[1:])]
    return tuple([case.error(f, grid.points, grid.weights) for f in group] for group in (fields, better))


def automatic(case: Case, rtol: float) -> tuple[float, af.Solution]:
    """Error over rtol of a solve that chooses grid and method, and the solution."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)  # the ratio says it
        solution = case.pde.solve(case.initial, case.t, boundary=case.boundary, rtol=rtol)
    return case.error(solution.at(case.points), case.points) / rtol, solution


def slope(errors: Sequence[float]) -> float:
    """Order of errors on grids that double."""
    return float(np.polyfit(-np.log(2) * np.arange(len(errors)), np.log(errors), 1)[0])


def _solved(ratio: float, solution: af.Solution) -> str:
    grid = " x ".join(map(str, solution.stats["grid"]))
    return f"{ratio:.1g} ({solution.stats['method']}, {grid})"


def _literals() -> list[Claim]:
    """Values computed elsewhere, at points, by the reference and by the solver at rtol 1e-11."""
    known = [
        (exact.circle(), np.pi / 2 * np.arange(4.0)[:, None],
         [0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043]),
        (exact.torus(), np.pi * np.array([[0, 0], [0.5, 0], [0, 0.5], [1, 1]]),
         [0.53797857874327, 0.55911782726059, 0.40535835076568, -0.26474250701675]),
        (exact.line(), np.array([[-0.5], [0.0], [0.4], [1.1]]),
         [0.902404523462279, 0.913296183755108, 0.873861343782559, 0.708552953230377]),
    ]  # fmt: skip
    claims = []
    for case, points, values in known:
        reference = float(np.abs(np.ravel(case.exact(points)) - values).max())
        solved = float(np.abs(case.pde.solve(case.initial, case.t, rtol=1e-9).at(points)[:, 0] - values).max())
        claims.append(_below(f"{case.name}: the reference less the published values", reference, 1e-12))
        claims.append(_below(f"{case.name}: rtol 1e-9 less the published values", solved, ALLOWED * 1e-9))
    return claims


def _eigenvalues() -> list[Claim]:
    """Of the automatic grid, relative, against the error it says it has."""
    box = af.Density(af.Box([(0, np.pi)]), lambda x: 0.5 * x[..., 0])
    double = np.repeat([2.39819200632760, 5.24051706548912, 10.1740608680591, 17.1524814264963], 2)
    k = np.arange(6)
    known = [
        ("von Mises 1.5", DriftDiffusion(af.VonMises(1.5)), None, np.r_[0, double]),
        ("von Mises 1, the first", DriftDiffusion(af.VonMises(1.0)), None, np.array([0, 1.6473653985])),
        ("Gaussian tokens", DriftDiffusion(af.Gaussian(0.2, 0.49)), None, 2 * k / 0.49),
        ("exp(x/2), no-flux walls", DriftDiffusion(box), None, np.r_[0, 0.25 + k[1:] ** 2]),
        ("exp(x/2), Dirichlet walls", DriftDiffusion(box), ("dirichlet", 0.0), 0.25 + (k + 1) ** 2),
    ]
    claims = []
    for name, pde, boundary, values in known:
        spectrum = pde.spectrum(len(values), boundary=boundary)
        claims.append(_below(f"eigenvalues, {name}: relative error", _relative(spectrum.eigenvalues, -values), 1e-8))
    return claims


def _sphere() -> list[Claim]:
    """Eigenvalues -l (l + 1), l <= 3, on grids of 2 degrees and 1 degree, and extrapolated."""
    pde, known = Heat(af.Sphere(2)), -np.repeat([0.0, 2, 6, 12], [1, 3, 5, 7])
    coarse, fine = (pde.spectrum(16, grid=(n, 2 * n)).eigenvalues for n in (90, 180))
    error, better = _relative(fine, known), _relative((4 * fine - coarse) / 3, known)
    return [
        _below("sphere, eigenvalues l <= 3 at 1 degree: relative error", error, 4e-4),
        _below("sphere, the same after one Richardson step: relative error", better, 1e-5),
    ]


def _steady_states() -> list[Claim]:
    """Long times: consensus of the features, and the density of the walkers."""
    claims = []
    for name, drift, value in (("2", 2.0, 0.6977746580), ("1", 1.0, 0.4463899659), ("0", 0.0, 0.0)):
        for method in ("spectral", "finite-volume"):
            pde = DriftDiffusion(af.VonMises(1.0), drift)
            gap = float(np.abs(pde.solve(lambda x: np.cos(x[:, 0]), 200.0, method=method).y - value).max())
            claims.append(_below(f"consensus, drift {name}, {method}: less {value:.10f}", gap, 1e-9))
    case = exact.forward()
    walkers = case.pde.solve(case.initial, 40.0)
    x = exact.rule([(0, exact.TAU)], 400)
    invariant = case.weight(x) ** -1.0
    gap = float(np.abs(walkers.at(x)[:, 0] * invariant.mean() / invariant - 1).max())  # the initial mean is 1
    claims.append(_below("forward equation: the density in the end over p^2 / integral p^2, less one", gap, ALLOWED * 1e-8))
    return claims


def _below(what: str, error: float, most: float) -> Claim:
    return Claim(what, f"{error:.1e}", f"below {most:g}", bool(error < most))


def _order(what: str, order: int, found: float) -> Claim:
    allowed = DEVIATION[order]
    return Claim(f"{what}: order", f"{found:.3f}", f"{order} +- {allowed:g}", bool(abs(found - order) <= allowed))


def _relative(values: np.ndarray, known: np.ndarray) -> float:
    return float(np.max(np.abs(values - known) / np.where(known, np.abs(known), 1.0)))


def _draw(ax, curves: dict[str, tuple]) -> None:
    """Errors on given grids and after one Richardson step, with lines of order 2 and 4."""
    looks = (style.INK, "o", 1, "finite volumes"), (style.ACCENT, "s", 2, "one Richardson step")
    for color, marker, k, label in looks:
        for m, curve in enumerate(curves.values()):
            cells, errors = curve[0][-len(curve[k]) :], curve[k]
            ax.plot(cells, errors, color=color, marker=marker, markersize=4, linewidth=0.8, label=None if m else label)
    cells = np.array([16.0, 256.0])
    for order, start, look in ((2, 4e-2, "--"), (4, 4e-4, ":")):
        ax.plot(cells, start * (cells / cells[0]) ** -order, look, color="0.6", label=f"order {order}")
    ax.set(xscale="log", yscale="log")
    style.plain_ticks(ax.xaxis, [16, 32, 64, 128, 256])
    ax.legend(frameon=False, fontsize=8)
    title = "Cells: order 2, and 4 after one Richardson step"
    style.finish(ax, title, "cells per axis", "relative L2 error")
