"""The one result type: what tokens, layers and equations all return, and how it is saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import capacity, checks, display, exports, files, stores
from .grid import Grid
from .provenance import provenance

ARRAYS = ("t", "y", "layers", "points", "embedding", "local_error")  # what a file holds besides its description
READ = ("meta", *ARRAYS)
MONITORS = ("mean", "deviation", "mass")  # stats with an entry per time


@dataclass(repr=False)
class Solution:
    """Features or tokens over time.

    Attributes
    ----------
    t : (T,) array
        Times of the limit equation, in the units of the metric squared: layers * time_step for
        layers. For `evolve_continuous` the layer count, as in `layers`.
    y : (T, N, c) array for tokens, (T, *grid.shape, c) for fields
        c is kept when it is 1. For moving tokens y holds their positions.
    layers : (T,) array or None
        Number of layers at each saved time; None for a solution of the equation.
    points : (N, n) array or None
        Where fixed tokens sit.
    grid : Grid or None
        Where a field is sampled.
    status : int
        0 when finished, 1 when interrupted (what was computed is here), -1 when the method failed.
    message : str
        The status in words, with the remedy where there is one.
    stats : dict
        What ran: engine, sweeps, sizes, estimated errors.
    embedding : (grid.size, 2 or 3) array or None
        Where the grid's nodes sit in the plane or in space; None for the coordinates themselves.
    dense : callable or None
        Increasing times (M,) -> fields (M, *grid.shape, c) at any times >= 0, solved anew on the same grid
        from the initial values: as accurate as the saved ones. Not saved to files.
    local_error : (*grid.shape, c) array, a function that computes it when it is asked for, or None
        Estimated absolute error at the grid's nodes, at any of the times; see `error`.
    provenance : dict
        "versions" of attnflow, numpy, numba and python; of runs also "function" and "parameters": layers and densities
        in words of study files, seeds, and large arrays by their digests.
    """

    t: np.ndarray
    y: np.ndarray
    layers: np.ndarray | None = None
    points: np.ndarray | None = None
    grid: Grid | None = None
    status: int = 0
    message: str = "finished"
    stats: dict[str, Any] = field(default_factory=dict)
    embedding: np.ndarray | None = None
    dense: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False)
    local_error: np.ndarray | Callable[[], np.ndarray] | None = field(default=None, compare=False)
    provenance: dict[str, Any] = field(default_factory=provenance, compare=False)

    def __post_init__(self) -> None:
        self.status = checks.integer(self.status, "status", least=-1)
        if self.status > 1:
            raise ValueError(f"status must be -1, 0 or 1, got {self.status}")
        if not isinstance(self.message, str):
            raise TypeError(f"message must be a string, got {type(self.message).__name__}")
        if not isinstance(self.stats, dict):
            raise TypeError(f"stats must be a dict, got {type(self.stats).__name__}")
        if not isinstance(self.provenance, dict):
            raise TypeError(f"provenance must be a dict, got {type(self.provenance).__name__}")
        if not isinstance(self.grid, Grid | None):
            raise TypeError(f"grid must be a Grid or None, got {type(self.grid).__name__}")
        if not (self.dense is None or callable(self.dense)):
            raise TypeError(f"dense must be callable or None, got {type(self.dense).__name__}")
        self.t = _increasing(self.t, "t")
        # what a failed method leaves behind may be infinite: the status says so
        read = checks.array if self.status >= 0 else checks.reals
        self.y = read(self.y, "y")
        space = (None,) if self.grid is None else self.grid.shape
        wanted = (len(self.t), *space, None)
        if self.y.size == 0 or self.y.ndim != len(wanted) or any(n not in (None, m) for n, m in zip(wanted, self.y.shape)):
            shape = ", ".join("any" if n is None else str(n) for n in wanted)
            raise ValueError(f"y must have shape ({shape}) for {len(self.t)} times, got {self.y.shape}")
        if self.layers is not None:
            self.layers = _increasing(self.layers, "layers", len(self.t))
        if self.points is not None:
            if self.grid is not None:
                raise ValueError("points must be None for a field on a grid")
            self.points = checks.points(self.points, "points")
            if len(self.points) != self.y.shape[1]:
                raise ValueError(f"points must be {self.y.shape[1]} as y has, got shape {self.points.shape}")
        if self.embedding is not None:
            if self.grid is None:
                raise ValueError("embedding must be None without a grid")
            self.embedding = checks.array(self.embedding, "embedding", (self.grid.size, None))
            if self.embedding.shape[1] not in (2, 3):
                raise ValueError(f"embedding must have 2 or 3 columns, got shape {self.embedding.shape}")
        if self.local_error is not None:
            if self.grid is None:
                raise ValueError("local_error must be None without a grid")
            if not callable(self.local_error):
                self.local_error = read(self.local_error, "local_error")
                if self.local_error.shape != self.y.shape[1:]:
                    raise ValueError(f"local_error must have shape {self.y.shape[1:]}, got {self.local_error.shape}")

    def __repr__(self) -> str:
        what = [self._where, f"{display.counted(len(self.t), 'time')} to t = {self.t[-1]:.4g}"]
        what += [f"{self.y.shape[-1]} columns"] * (self.y.shape[-1] > 1)
        what += [f"by {self.stats[name]}" for name in ("engine", "method") if name in self.stats][:1]
        return display.cut(f"Solution({', '.join(what)}, {self.message.partition(';')[0]!r})")

    def _repr_html_(self) -> str:
        kinds = (int, float, str, bool, list, tuple)  # what runs say of themselves in a word or two
        stats = {name: value for name, value in self.stats.items() if name not in MONITORS and isinstance(value, kinds)}
        rows = [
            ("where", self._where),
            ("times", f"{len(self.t)}, from {self.t[0]:.4g} to {self.t[-1]:.4g}"),
            *([] if self.layers is None else [("layers", f"{self.layers[-1]:.6g}")]),
            ("columns", self.y.shape[-1]),
            ("message", self.message),
            *(
                (name, display.cut(value if isinstance(value, str) else display.word(value), 60))
                for name, value in stats.items()
            ),
        ]
        return display.table("Solution", rows)

    @property
    def _where(self) -> str:
        """Where the features live, in words."""
        if self.grid is not None:
            return f"on {' x '.join(map(str, self.grid.shape))} nodes"
        return f"of {display.counted(self.y.shape[1], 'token')}{' that move' * (self.points is None)}"

    def at(self, points: np.ndarray, t: float | Sequence[float] | None = None) -> np.ndarray:
        """The field at points (M, n), interpolated at the grid's own order.

        On a line, beyond where the equation's weight ends, the values at that end hold. An equation's estimated error
        is one of the norm weighted by p^drift; where p is small the field may be far less accurate, as `error` says.

        Parameters
        ----------
        points : (M, n) array
        t : float, sequence of float or None
            Saved times, or any times >= 0 where there is dense output; None means the last.

        Returns
        -------
        (M, c) array, or (len(t), M, c) for a sequence of times

        Raises
        ------
        ValueError
            If a time was neither saved nor is covered by dense output, or the solution lives on tokens: those have
            no values in between.
        """
        if self.grid is None:
            raise ValueError(
                "points must be grid points of a field, but this solution lives on tokens; "
                "extend it to other points with layer(tokens, values, queries=points)"
            )
        points = self.grid.check(points)
        if t is None:
            return self.grid.interpolate(self.y[-1], points)
        times = checks.sequence(t, "t", "times") if checks.listed(t) else (t,)
        fields = [self.grid.interpolate(field, points) for field in self._fields(times)]
        return np.stack(fields) if checks.listed(t) else fields[0]

    def error(self, points: np.ndarray) -> np.ndarray:
        """Estimated absolute error of the field at points (M, n), at any of the times.

        The solver's estimate, which is one of the norm weighted by w = p^drift, over the root of w / max w: the same
        where tokens are dense, and larger where they are rare. An estimate, no bound: a field with a kink or step errs
        more next to it.

        Parameters
        ----------
        points : (M, n) array

        Returns
        -------
        (M, c) array

        Raises
        ------
        ValueError
            If there is no such estimate: of tokens, of layers, and of runs that were interrupted or failed.

        Examples
        --------
        >>> import attnflow as af
        >>> pde = af.DriftDiffusion(af.VonMises(100.0), drift=1.0)   # exp(-200) as many tokens at pi as at 0
        >>> H = pde.solve(lambda x: np.cos(x[..., 0]), t=0.01)
        >>> H.error(np.array([[0.0], [np.pi]])) < [[1e-8], [1e-8]]
        array([[ True],
               [False]])
        """
        if self.grid is None:
            raise ValueError("points must be points of a field, but this solution lives on tokens; see attnflow.error_bars")
        if self.local_error is None:
            raise ValueError(
                f"points have no estimated error in this solution ({self.message}): those of an equation's `solve` that "
                "finished have one"
            )
        points = self.grid.check(points)
        errors = self.node_errors()
        assert errors is not None
        between = self.grid.interpolate(np.log(np.maximum(errors, 1e-300)), points)
        # interpolation by all nodes of an axis rounds as the largest value does, times the number of nodes
        reach = max((axis.size for axis in self.grid.axes if axis.kind not in ("cells", "periodic")), default=1)
        rounding = np.finfo(float).eps * reach * np.abs(self.y).reshape(-1, self.y.shape[-1]).max(axis=0)
        with np.errstate(over="ignore"):
            return np.maximum(np.exp(between), rounding)

    def node_errors(self) -> np.ndarray | None:
        """`local_error` as an array, computed once; None where there is no estimate."""
        if callable(self.local_error):
            self.local_error = self.local_error()
        return self.local_error

    def frames(self, t: float | Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Times (K,) and y at them (K, ...): saved ones, or any >= 0 where there is dense output; None: all saved."""
        if t is None:
            return self.t, self.y
        times = checks.sequence(t, "t", "times") if checks.listed(t) else (t,)
        fields = self._fields(times)  # which reads the numbers
        return np.array(times, dtype=float), np.stack(fields)

    def _fields(self, times: Sequence[float]) -> list[np.ndarray]:
        """The fields at the times: saved ones as they are, all others from one run of the dense output."""
        times = [checks.real(time, "t") for time in times]
        found = [int(np.argmin(np.abs(self.t - time))) for time in times]
        missing = [time for time, k in zip(times, found) if abs(self.t[k] - time) > 1e-9 * abs(time) + 1e-15 * abs(self.t[-1])]
        if missing and (self.dense is None or min(missing) < 0):
            raise ValueError(
                f"t must be a saved time, got {missing[0]}; the nearest saved one is "
                f"{self.t[np.argmin(np.abs(self.t - missing[0]))]}; ask for it when solving"
            )
        capacity.fits(2 * self.y[0].nbytes * len(missing), "t")
        between = np.unique(missing)
        dense = dict(zip(between.tolist(), self.dense(between))) if missing and self.dense is not None else {}
        return [dense.get(time, self.y[k]) for time, k in zip(times, found)]

    def save(self, path: str | os.PathLike) -> None:
        """Write to an .npz file, whole or not at all; read it back with `attnflow.load`."""
        meta = stores.encode(self.grid, self.status, self.message, self.stats, self.provenance)
        self.node_errors()
        arrays = {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        with files.whole(path) as file:
            np.savez_compressed(file, meta=np.array(meta), **arrays)

    def to_xarray(self):
        """An xarray Dataset: `y` over time, place and column, where each is, and what the run says of itself as attributes.

        Places are the grid's coordinates (theta for an angle, colatitude and longitude on S^2) or the tokens, whose positions
        are coordinates x, or x1, x2, .... Where there is an estimate, `estimated_error` is that of `error` at the nodes.

        Raises
        ------
        ImportError
            Without xarray, of the extra `storage`.
        """
        return exports.to_xarray(self)

    def to_dataframe(self):
        """A pandas DataFrame with a row for each time and place: t, layers, the place, and y (or y1, y2, ...).

        Raises
        ------
        ImportError
            Without pandas, of the extra `storage`.
        """
        return exports.to_dataframe(self)

    def plot(self, ax=None, column: int = 0, t: float | Sequence[float] | None = None, kind: str | None = None):
        """Draw one column at one or several times (None: a few, or the last); returns the Axes.

        kind "history" draws a line's field over position and time; "plane" and "space" choose where there are pictures on both.
        """
        from .plotting.solutions import plot_solution

        return plot_solution(self, ax, column, t, kind)

    def animate(self, column: int = 0, t: Sequence[float] | None = None):
        """A matplotlib animation of one column over the times (None: all saved ones), on the axes of `plot`.

        Notebooks show it with a player; its `.save(filename)` writes .gif, .html, or .mp4 where ffmpeg is installed.
        """
        from .plotting.solutions import animate_solution

        return animate_solution(self, column, t)


def load(path: str | os.PathLike) -> Solution:
    """Read a Solution written by `Solution.save`, or the store of a run; nothing in it is executed.

    Parameters
    ----------
    path : path
        A file, or the folder that a run was told as its `store`. Of a run that is still going on, or was killed, it holds what
        was finished: the status is 1.

    Raises
    ------
    ValueError
        If it is neither.
    ImportError
        Of a Zarr store without zarr, of the extra `storage`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Solution(t=np.array([0.0]), y=np.ones((1, 2, 1))).save(f"{folder}/run.npz")
    ...     load(f"{folder}/run.npz").y.shape
    (1, 2, 1)
    """
    arrays: dict[str, Any] = stores.read(path) if stores.is_store(path) else files.read_archive(path, READ, "path", stores.WHAT)
    try:
        told = stores.decode(arrays.pop("meta").item(), len(arrays["t"]))
        return Solution(**told, **arrays)
    except KeyError as error:
        raise ValueError(f"path must be {stores.WHAT}, got {os.fspath(path)!r} (it lacks {error})") from None
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"path must be {stores.WHAT}, got {os.fspath(path)!r} ({files.one_line(error)})") from None


def _increasing(values, name: str, count: int | None = None) -> np.ndarray:
    """Increasing numbers (T,), whole ones kept as such."""
    array = checks.array(values, name, (count,))
    if len(array) == 0 or (array[1:] <= array[:-1]).any():
        raise ValueError(f"{name} must be increasing numbers, at least one, got shape {array.shape}")
    return array if np.asarray(values).dtype.kind == "f" else np.asarray(values)
