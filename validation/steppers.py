"""Every time integrator on the same cells against the matrix exponential: only the error in time shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import expm

import attnflow as af
from attnflow.pde import DriftDiffusion
from attnflow.pde.boundaries import read_boundary
from attnflow.pde.volumes.march import SOLVE_IVP, march

from . import Claim, Report

EXACT = ("chebyshev", "rational")
TOLERANCES = (1e-4, 1e-6, 1e-8)
SHARE = 1e-3  # of rtol that a solve leaves to the error in time
OUTPUTS = 50
_EFFORT = ("applications", "poles", "evaluations")


@dataclass(frozen=True)
class Setting:
    """Cells with a source and initial values on them, and when to look: the solution is expm's."""

    name: str
    pde: DriftDiffusion
    shape: tuple[int, ...]
    times: tuple[float, ...]
    boundary: object = None

    def cells(self):
        """The finite-volume operator."""
        return self.pde.cells(self.shape, read_boundary(self.boundary, self.pde.space))

    def initial(self) -> np.ndarray:
        """(*grid, 1) values that hold slow and fast modes."""
        x = self.cells().grid.points
        return (np.exp(np.sin(x).sum(axis=1)) + np.cos(3 * x).prod(axis=1)).reshape(*self.shape, 1)

    def exact(self) -> np.ndarray:
        """(T, *grid, 1) by expm of the operator; a source is one more unknown that stays 1."""
        cells, start = self.cells(), self.initial().ravel()
        size = len(start)
        operator = np.zeros((size + 1, size + 1))
        operator[:size, :size] = self.pde.operator(self.shape, self.boundary).toarray()
        if cells.source is not None:
            operator[:size, size] = cells.source[:, 0]
        fields = [(expm(t * operator) @ np.append(start, 1.0))[:size] for t in self.times]
        return np.array(fields).reshape(len(fields), *self.shape, 1)


def settings() -> list[Setting]:
    """A circle, a box with clamped walls, a torus with an off-diagonal metric, short and long times."""
    inverse = np.array([[0.8, 0.35], [0.35, 0.9]])
    metric, bounds = np.linalg.inv(inverse), [(0, 2 * np.pi)] * 2
    skew = af.Chart(lambda x: np.broadcast_to(metric, (*x.shape, 2)), bounds, periodic=True)
    circle, tokens = DriftDiffusion(af.VonMises(1.5)), af.Density(skew, lambda x: np.cos(x[..., 0] - x[..., 1]))
    box = DriftDiffusion(af.Density(af.Box([(0, np.pi)]), lambda x: 0.5 * x[..., 0]))
    return [
        Setting("circle, 96 cells", circle, (96,), (0.05, 0.5)),
        Setting("circle, long", circle, (96,), (5.0, 50.0)),
        Setting("clamped box, 64 cells", box, (64,), (0.05, 0.5), (("dirichlet", 1.0), ("dirichlet", -0.5))),
        Setting("skew torus, 18 x 18 cells", DriftDiffusion(tokens), (18, 18), (0.05, 0.5)),
        Setting("skew torus, long", DriftDiffusion(tokens), (18, 18), (5.0, 50.0)),
    ]


def run(chosen: list[Setting] | None = None) -> Report:
    """Errors of all integrators, relative to the largest initial value."""
    rows, worst = [], {}
    for setting in chosen or settings():
        exact, cells, start = setting.exact(), setting.cells(), setting.initial()
        for method in (*EXACT, *SOLVE_IVP):
            tolerances = (1e-15,) if method in EXACT else TOLERANCES
            errors, effort = [], ""
            for tol in tolerances:
                fields, stats = march(cells, start, np.array(setting.times), tol, method)
                errors.append(float(np.abs(fields - exact).max() / np.abs(start).max()))
                effort = " ".join(f"{stats[key]} {key}" for key in _EFFORT if key in stats)
            worst.setdefault(method, []).append(errors)
            shown = [f"{error:.1e}" for error in errors]
            shown = [*[""] * len(TOLERANCES), *shown] if method in EXACT else [*shown, ""]
            rows.append([setting.name, method, *shown, effort])
    claims = []
    for method, errors in worst.items():
        largest = np.max(errors, axis=0)
        if method in EXACT:
            claims.append(Claim(f"{method}: largest error", f"{largest[0]:.1e}", "at most 1e-12", bool(largest[0] <= 1e-12)))
        else:
            ratio = float(np.max(largest * SHARE / TOLERANCES))
            what = f"{method}: given {SHARE:g} rtol, the error in time over rtol"
            claims.append(Claim(what, f"{ratio:.1g}", "below 1", ratio < 1))
            # not from each to the next: LSODA's choice of methods and orders may hang on last digits
            errors = np.array(errors)
            held = bool((errors[:, -1:] < errors[:, :-1]).all())
            claims.append(
                Claim(
                    f"{method}: errors that are smallest at the smallest tolerance", "all" if held else "not all", "all", held
                )
            )
    if chosen is None:
        claims += _shared()
    text = (
        "The same finite volumes for all; the solution is scipy.linalg.expm of their matrix. Error at two times, over\n"
        "the largest initial value, for the tolerance given to the integrator; the work is that of the smallest one.\n"
        f"The solvers give the integrator {SHARE:g} of their rtol."
    )
    columns = ["cells", "integrator", *(f"tolerance {tol:.0e}" for tol in TOLERANCES), "exact", "work"]
    return Report("Time integrators against the matrix exponential", text, columns, rows, claims)


def _shared() -> list[Claim]:
    """Many output times for the work of the last one, and the same fields."""
    setting = settings()[3]
    cells, start, end = setting.cells(), setting.initial(), setting.times[-1]
    times = end * np.arange(1, OUTPUTS + 1) / OUTPUTS
    claims = []
    for method in EXACT:
        many, shared = march(cells, start, times, 1e-15, method)
        one, alone = march(cells, start, times[-1:], 1e-15, method)
        gap = float(np.abs(many[-1] - one[-1]).max() / np.abs(start).max())
        claims.append(
            Claim(f"{method}: the last of {OUTPUTS} output times less that of one", f"{gap:.1e}", "below 1e-12", gap < 1e-12)
        )
        if method == "chebyshev":
            numbers = shared["applications"], alone["applications"]
            required = f"at most 1.1 times the {numbers[1]} for one"
            what = f"{method}: applications for {OUTPUTS} output times"
            claims.append(Claim(what, str(numbers[0]), required, bool(numbers[0] <= 1.1 * numbers[1])))
    return claims
