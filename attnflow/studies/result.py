"""What a study measured: slopes and constants with confidence intervals, next to the predicted ones."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .. import checks, display, files
from ..attention import Normalization
from ..exports import plain
from ..provenance import versions
from .cells import COLUMNS
from .design import Design
from .fits import Estimate, fit_squares, fit_values
from .prediction import Prediction, order, predict

_AXES = ("epsilon", "size")
_FITTED = (("slope", "epsilon"), ("constant", "epsilon"), ("slope", "size"), ("constant", "size"))


@dataclass(frozen=True)
class StudyResult:
    """Finished cells of a study; of one of several normalisations, `of(name)` has what is fitted and predicted.

    Attributes
    ----------
    study : ConvergenceStudy
    cells : list of dict
        normalization, epsilon, size ("inf" or int), seed, layers, t, error, deviation, accuracy, seconds, engine.
    message : str
        "finished", or how far an interrupted run came, or how many cells failed and how.
    resumed : int
        How many cells came out of the store.
    status : int
        0 when finished, 1 when interrupted or when a budget is spent, -1 when cells failed: the others are here.
    store : path or None
        Where predictions are kept too.
    progress : bool
        Show a bar where predictions take time.
    """

    study: Design
    cells: list[dict]
    message: str
    resumed: int = 0
    status: int = 0
    store: str | os.PathLike | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        cells = display.counted(len(self.cells), "cell")
        return display.cut(f"StudyResult({cells}, {', '.join(self.study.names)}, {self.message!r})")

    def _repr_html_(self) -> str:
        """What was measured; predictions, which take time, only if they have been made."""
        rows = []
        for part, (kind, axis) in ((part, pair) for part in self.parts for pair in _FITTED):
            predicted = getattr(part.predicted, kind)[axis] if "predicted" in vars(part) else np.nan
            try:
                value, low, high = getattr(part, kind)(axis)
                measured = f"{value:.4g}", f"[{low:.4g}, {high:.4g}]"
            except ValueError as error:  # too few cells for this one
                measured = "-", str(error).partition(":")[0]
            names = [*part.study.names, f"{kind} in {axis}"][len(self.parts) == 1 :]
            rows.append((", ".join(names), *measured, f"{predicted:.4g}" if np.isfinite(predicted) else "-"))
        return display.table(repr(self), rows, ("", "measured", "95 % interval", "predicted"))

    def of(self, normalization: str | Normalization) -> StudyResult:
        """The result of one of the study's normalisations.

        Raises
        ------
        ValueError
            If it is none of them.

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> study = af.ConvergenceStudy(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.5,
        ...                             epsilons=[0.02, 0.01, 0.005], sizes=[np.inf], normalization=["softmax", "sinkhorn"])
        >>> result = study.run(progress=False)
        >>> [round(result.of(name).slope("epsilon").value) for name in study.names]
        [1, 2]
        """
        return self.parts[self.study.parts.index(self.study.of(normalization))]

    @cached_property
    def parts(self) -> tuple[StudyResult, ...]:
        """One result for each normalisation."""
        if len(self.study.parts) == 1:
            return (self,)
        cells = {name: [cell for cell in self.cells if cell["normalization"] == name] for name in self.study.names}
        return tuple(replace(self, study=study, cells=cells[study.names[0]]) for study in self.study.parts)

    def with_cells(self, cells: list[dict]) -> StudyResult:
        """The same with other cells; predictions that were made stay."""
        other = replace(self, cells=cells)
        for one, its in zip(self.parts, other.parts):
            if "predicted" in vars(one):
                vars(its)["predicted"] = one.predicted
        return other

    def to_dataframe(self):
        """The cells as a pandas DataFrame, sizes as numbers (inf included)."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_dataframe needs pandas: pip install pandas, or read .cells or .to_csv(path)") from None
        return pandas.DataFrame(self.cells, columns=list(COLUMNS)).assign(size=lambda table: table["size"].astype(float))

    def to_xarray(self):
        """The cells as an xarray Dataset over normalization, epsilon, size (inf included) and seed; NaN where there is none."""
        try:
            import xarray  # noqa: F401  pandas looks for it
        except ImportError:
            raise ImportError("to_xarray needs xarray: pip install attnflow[storage]") from None
        table = self.to_dataframe().set_index(["normalization", "epsilon", "size", "seed"])
        return table.to_xarray().assign_attrs(
            {name: json.dumps(value, default=plain) for name, value in self._origin().items()}
        )

    def to_csv(self, path: str | os.PathLike) -> None:
        """The cells as a CSV file; beside it, with .json at its end, the study and the versions that wrote it."""
        with files.whole(path, "w") as file:
            writer = csv.DictWriter(file, fieldnames=COLUMNS)
            writer.writeheader()
            writer.writerows(self.cells)
        with files.whole(f"{os.fspath(path)}.json", "w") as file:
            json.dump(self._origin(), file, indent=1, default=plain)

    def _origin(self) -> dict:
        told = {"study": self.study.description(), "tables": self.study.tables, "written_by": versions()}
        return told | {"status": self.status, "message": self.message}

    def slope(self, axis: str) -> Estimate:
        """Order of convergence in "epsilon" or in "size", with its 95% interval.

        "epsilon": of the infinite-token layer's error, d log error / d log eps as eps -> 0; with four
        temperatures or more the next order is fitted along (log error = c + k log eps + d tau).
        The interval is that of the fit and of nothing else: it holds what the fitted form leaves over. The runs have no
        noise, so it is no confidence interval, and the next orders may move the slope by more.
        "size": of the root mean square deviation from the infinite-token layer, one slope common to all eps, fitted to
        the cells' squares with the variance that such squares have (`fits.fit_squares`). Its interval is the noise's, of
        the slope over these sizes; the features' mean is off by O(1/N) too, which makes the slope of few tokens steeper
        than -1/2: `predicted.at_sizes` knows by how much.

        Raises
        ------
        ValueError
            If there are too few cells for the fit, or errors of round-off only.
        """
        if checks.choice(axis, "axis", _AXES) == "epsilon":
            epsilons, errors = self._resolved_bias()
            columns = [np.log(epsilons), np.ones_like(epsilons)]
            if len(epsilons) >= 4:
                columns.append([self.study.layer(e).time_step for e in epsilons])
            return fit_values(np.stack(columns, axis=1), np.log(errors), "epsilons")
        epsilons, sizes, squares = self._squares()
        temperatures = np.unique(epsilons) == epsilons[:, None]
        return Estimate(*(v / 2 for v in fit_squares(np.column_stack([np.log(sizes), temperatures]), squares, "sizes")))

    def constant(self, axis: str, epsilon: float | None = None) -> Estimate:
        """The factor in front of the power law, with its 95% interval.

        "epsilon": the limit of error / time_step as eps -> 0 (error / time_step^2 for Sinkhorn, whose first
        order vanishes), by a straight line in the time step. The interval is that of the fit, as in `slope`.
        "size": sqrt(N) times the deviation at one temperature (None: the largest), over all sizes and seeds.
        """
        if checks.choice(axis, "axis", _AXES) == "epsilon":
            if self.study.density.space.has_boundary:
                raise ValueError("walls leave no constant: the error is no power of the time step there")
            epsilons, errors = self._resolved_bias()
            tau = np.array([self.study.layer(e).time_step for e in epsilons])
            columns = np.stack([np.ones_like(tau), tau], axis=1)
            return fit_values(columns, errors / tau ** order(self.study), "epsilons")
        epsilon = max(self.study.epsilons) if epsilon is None else checks.positive(epsilon, "epsilon")
        if epsilon not in self.study.epsilons:
            raise ValueError(f"epsilon must be one of {self.study.epsilons}, got {epsilon}")
        epsilons, sizes, squares = self._squares()
        at = epsilons == epsilon
        if at.sum() < 2:
            raise ValueError(f"too few cells of finitely many tokens: {at.sum()} at this temperature, where 2 are needed")
        log = fit_squares(np.ones((at.sum(), 1)), (sizes * squares)[at], "seeds")
        return Estimate(*(float(np.exp(v / 2)) for v in log))

    @cached_property
    def predicted(self) -> Prediction:
        """Predicted errors, slopes and constants; computed when first asked for, and kept in the store."""
        return predict(self.study, self.store, self.progress)

    def summary(self) -> str:
        """Measured against predicted, as a table; below it what is not predicted and why, and what the intervals are."""
        if len(self.study.parts) > 1:
            return "\n\n".join(f"{part.study.names[0]}\n{part.summary()}" for part in self.parts)
        lines = [f"{'':34}{'measured':>12}   {'95% interval':<22}{'predicted':>10}{'at these N':>12}"]
        names = {
            ("slope", "epsilon"): "slope in eps (bias, N = inf)",
            ("constant", "epsilon"): f"error / time step{'^2' * (order(self.study) == 2)} (eps -> 0)",
            ("slope", "size"): "slope in N (noise)",
            ("constant", "size"): f"sqrt(N) x deviation (eps = {max(self.study.epsilons):g})",
        }
        for (kind, axis), name in names.items():
            predicted = getattr(self.predicted, kind)[axis]
            expected = f"{predicted:10.4f}" if np.isfinite(predicted) else f"{'-':>10}"
            if axis == "size" and np.isfinite(here := self.predicted.at_sizes[kind]):
                expected += f"{here:12.4f}"
            try:
                value, low, high = getattr(self, kind)(axis)
                lines.append(f"{name:34}{value:12.4f}   [{low:.4f}, {high:.4f}]".ljust(71) + expected)
            except ValueError as error:  # too few cells for this one: the others still stand
                lines.append(f"{name:34}{'-':>12}   {str(error).partition(':')[0]}")
        titles = {"slope": "slope in eps", "bias": "error at N = inf", "noise": "deviation at finite N"}
        reasons: dict[str, list[str]] = {}
        for kind, why in self.predicted.unknown.items():
            reasons.setdefault(why, []).append(titles[kind])
        lines += [f"no prediction of the {' and the '.join(what)}: {why}" for why, what in reasons.items()]
        lines.append("intervals in eps are those of the fit, whose runs have no noise; in N those of the noise")
        return "\n".join(lines)

    def plot(self, axes=None):
        """Bias against eps and noise against N, predictions drawn before the points; returns the two Axes."""
        from ..plotting.studies import plot_study

        return plot_study(self, axes)

    @property
    def exact(self) -> bool:
        """Whether the infinite-token layer solves the equation as closely as can be told: all its errors are round-off."""
        infinite = self._rows(finite=False)
        return bool(infinite) and all(c["error"] <= c["accuracy"] for c in infinite)

    def bias(self) -> tuple[np.ndarray, np.ndarray]:
        """(epsilons, errors) of the infinite-token layer, eps decreasing."""
        rows = sorted(((c["epsilon"], c["error"]) for c in self._rows(finite=False)), reverse=True)
        if not rows:
            return np.empty(0), np.empty(0)
        epsilons, errors = zip(*rows)
        return np.array(epsilons), np.array(errors)

    def _resolved_bias(self) -> tuple[np.ndarray, np.ndarray]:
        """`bias` where it is more than round-off, to fit."""
        if self.exact:
            raise ValueError("exact to round-off: the errors at N = inf are below their accuracy")
        above = {c["epsilon"] for c in self._rows(finite=False) if c["error"] > c["accuracy"]}
        epsilons, errors = self.bias()
        kept = np.isin(epsilons, list(above))
        return epsilons[kept], errors[kept]

    def _rows(self, finite: bool) -> list[dict]:
        """Cells of finitely or infinitely many tokens, of the one normalisation that there must be."""
        if len(self.study.parts) > 1:
            raise ValueError(f"normalization must be one to fit: take result.of(name), name one of {self.study.names}")
        return [cell for cell in self.cells if (cell["size"] != "inf") == finite]

    def _squares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """epsilon, size and squared deviation of the finite cells."""
        finite = [(c["epsilon"], c["size"], c["deviation"] ** 2) for c in self._rows(finite=True)]
        epsilons, sizes, squares = np.array(finite, dtype=float).reshape(-1, 3).T
        return epsilons, sizes, squares

    def noise(self) -> list[tuple[float, int, float]]:
        """(epsilon, size, root mean square deviation over seeds)."""
        groups: dict[tuple[float, int], list[float]] = {}
        for c in self._rows(finite=True):
            groups.setdefault((c["epsilon"], c["size"]), []).append(c["deviation"])
        return [(e, n, float(np.sqrt(np.mean(np.square(d))))) for (e, n), d in sorted(groups.items())]
