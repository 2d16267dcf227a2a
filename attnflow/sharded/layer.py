"""A layer on tokens that are read block by block: one application, many layers, eigenvalues."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import capacity, checks, display
from ..attention import Attention, BoundLayer, LayerSpectrum
from ..attention.bound import attends_alone, warn_isolated
from ..attention.spectrum import layer_spectrum
from ..progress import track
from .bias import key_bias, refuse
from .disk import check_room
from .rows import Npy, Rows, open_rows
from .sinks import Sink, check_apart, check_out, like
from .sums import InMemory, Sums, Surveyed, check_values, kernel_of, make, survey
from .tasks import check_client


class Sharded:
    """A layer whose tokens need not fit into memory, nor onto one machine.

    Tokens, values and queries are arrays, names of .npy files, Zarr arrays or their folders, Dask arrays, or a list of such
    shards; they are read `block` rows at a time, and what comes between is on disk. Blocks are computed one after the
    other in this process, or by the workers of a Dask cluster: files and `scratch` must then be on a disk that all see.
    Results are the same bits whichever processes compute them, and those of the layer itself to its `rtol`.

    Engines are those of the layer: all pairs ("numba", "reference", "cupy") shard by shard, "cells" in slabs of tokens with
    the keys within their reach, "nufft" as one Fourier series that shards of keys add up to; "auto" takes the one that is
    predicted to be cheapest.

    Parameters
    ----------
    layer : Attention
        Without a mask, of a normalisation that is a key bias: softmax, column and density-corrected are out of core; Sinkhorn
        and rules of your own keep a few numbers per token in memory.
    block : int
        Rows at a time; a task holds some hundreds of bytes for each.
    client : dask.distributed.Client, optional
        None: this process.
    scratch : path, optional
        Folder for files that come and go. Of tokens with n columns and values with c, bytes per token are 8 n + 16 c + 28 at
        most with "cells" (points, 8 n + 4, up to four times where queries are given or f is asymmetric) and 8 with other
        engines, and for many layers 16 c more. Where there is no room for these, and for `out`, nothing is begun.

    Attributes
    ----------
    stats : dict
        Of the last call: the engine, blocks, what the key bias and the engine tell of themselves.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), epsilon=0.01)
    >>> tokens = np.random.default_rng(0).random((3000, 2))
    >>> values = np.cos(2 * np.pi * tokens[:, :1])
    >>> shards = af.Sharded(layer, block=1000)
    >>> bool(abs(shards(tokens, values) - layer(tokens, values)).max() < 1e-12), shards.stats["blocks"]
    (True, 3)
    """

    def __init__(
        self, layer: Attention, block: int = 2**20, client: Any = None, scratch: str | os.PathLike | None = None
    ) -> None:
        if not isinstance(layer, Attention):
            raise TypeError(f"layer must be an Attention, got {type(layer).__name__}")
        refuse(layer)
        self.layer = layer
        self.block = checks.integer(block, "block", least=1)
        self.client = check_client(client)
        self.scratch = None if scratch is None else checks.path(scratch, "scratch")
        if self.scratch is not None and not self.scratch.is_dir():
            raise FileNotFoundError(f"scratch must be a folder that exists, got {str(self.scratch)!r}")
        self.stats: dict[str, Any] = {}

    def __repr__(self) -> str:
        return display.cut(f"Sharded({display.cut(repr(self.layer), 85)} in blocks of {self.block})")

    def __call__(self, tokens: Any, values: Any = None, queries: Any = None, out: str | os.PathLike | None = None) -> Any:
        """Features after one layer; see `Attention`.

        Parameters
        ----------
        tokens : (N, n) rows
            Keys, and queries when none are given.
        values : (N, c) rows, optional
            The tokens themselves when None.
        queries : (M, n) rows, optional
            Needs residual = 1.
        out : path, optional
            An .npy file, or a new .zarr folder, to write; None: an array in memory.

        Returns
        -------
        (M, c) array
            Mapped from the .npy file, or Zarr's, where `out` is one; a Dask array where one came in.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, and the row that is not finite.
        FileNotFoundError, ImportError
            If a path leads nowhere, or Zarr is not installed.
        """
        if queries is not None and self.layer.residual < 1:
            raise ValueError(
                f"queries must be None for residual = {self.layer.residual:g}: the step needs the queries' own values; use residual = 1"
            )
        return self._run(tokens, values, queries, 1, out, False)

    def propagate(
        self, tokens: Any, values: Any, layers: int, out: str | os.PathLike | None = None, progress: bool = False
    ) -> Any:
        """Features (N, c) after so many layers on fixed tokens, of which two layers' are kept at a time.

        Parameters
        ----------
        tokens : (N, n) rows
        values : (N, c) rows
            The tokens themselves when None.
        layers : int
            At least 1; go on from the result for those after more.
        out : path, optional
            As for a call.
        progress : bool
            Show a progress bar.

        Returns
        -------
        (N, c) array
            As of a call.

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
        >>> x = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]
        >>> y = af.Sharded(layer, block=100).propagate(x, np.cos(x), layers=10)     # cos(x) exp(-t), t = layers * time_step
        >>> bool(abs(y - np.cos(x) * np.exp(-0.25)).max() < 1e-10)
        True
        """
        layers = checks.integer(layers, "layers", least=1)
        return self._run(tokens, values, None, layers, out, progress)

    def spectrum(self, tokens: Any, k: int, progress: bool = False) -> LayerSpectrum:
        """As `Attention.spectrum`, sums by blocks; the tokens and 2 k + 64 columns are in memory.

        Parameters
        ----------
        tokens : (N, n) rows
        k : int
        progress : bool
        """
        with self._bind(open_rows(tokens, "tokens"), None) as bound:
            size = bound.keys.rows.size
            k = checks.integer(k, "k", least=1, largest=size - 2)
            capacity.fits(8 * (2 * k + 64 + bound.keys.rows.columns) * size, "k")
            bias = np.zeros(size) if bound.bias is None else bound.bias.read(0, size)[:, 0]
            points = bound.keys.rows.read(0, size)
            sums = InMemory(bound.sums)
            whole = BoundLayer(self.layer, points, bias, sums, self.stats)
            return layer_spectrum(whole, k, progress)

    def _run(self, tokens: Any, values: Any, queries: Any, layers: int, out: Any, progress: bool) -> Any:
        out = None if out is None else check_out(out)
        keys = open_rows(tokens, "tokens")
        features = keys if values is None else open_rows(values, "values", True)
        asked = None if queries is None else open_rows(queries, "queries")
        for name, rows in (("tokens", keys), ("values", features), ("queries", asked)):
            if out is not None and rows is not None:
                check_apart(out, rows, name)
        with self._bind(keys, asked, features, layers, out) as bound:
            if values is not None:
                check_values(features, self.block, self.client)
            steps = track(range(layers), progress)
            for step in steps:
                last = step == layers - 1
                sink: Sink | Npy
                if last:
                    sink = Sink(out, bound.queries.size, features.columns, self.block)
                else:
                    sink = Npy.create(bound.folder / f"features-{step % 2}.npy", (features.size, features.columns))
                try:
                    self._step(bound, features, sink, first=step == 0)
                    if isinstance(sink, Sink):
                        result = sink.finish()
                    else:
                        features = sink
                finally:
                    if isinstance(sink, Sink):
                        sink.abandon()
            self.stats.update(getattr(bound.sums, "stats", {}))
        return like(tokens if values is None else values, result, self.block)

    def _step(self, bound: _Bound, features: Rows, sink: Sink | Npy, first: bool) -> None:
        """One layer, written block by block; the first one also counts isolated tokens."""
        a, alone = self.layer.residual, 0
        for begin, end, (mean, log_sum_exp) in bound.sums.blocks(features, bound.bias):
            if first and bound.own:
                bias = np.zeros(end - begin) if bound.bias is None else bound.bias.read(begin, end)[:, 0]
                alone += int(attends_alone(self.layer, bound.queries.read(begin, end), bias, log_sum_exp).sum())
            if a < 1:
                before = features.read(begin, end)
                mean = before + a * (mean - before)
            sink.write(begin, mean)
        if first and bound.own:
            self.stats["isolated"] = warn_isolated(alone, bound.queries.size, self.layer.epsilon)

    @contextmanager
    def _bind(
        self, tokens: Rows, queries: Rows | None, values: Rows | None = None, layers: int = 1, out: Path | None = None
    ) -> Iterator[_Bound]:
        """The layer on its tokens: read once, checked, sorted where the engine needs it, with their key bias."""
        check_client(self.client)  # it may have been closed meanwhile
        task, scratch = (tokens, queries, values.columns if values else 1, layers), self.scratch or Path(tempfile.gettempdir())
        check_room(self.layer, self.layer.backend, *task, scratch=scratch, out=out)
        keys = survey(self.layer.f, tokens, "tokens", self.block, self.client)
        seen = keys if queries is None else survey(self.layer.f, queries, "queries", self.block, self.client)
        if values is not None and values.size != tokens.size:
            raise ValueError(f"values must have {tokens.size} rows as tokens have, got {values.size}")
        if seen.rows.columns != keys.rows.columns:
            raise ValueError(f"queries must have {keys.rows.columns} columns as tokens have, got {seen.rows.columns}")
        kernel = kernel_of(self.layer, seen, keys)
        check_room(self.layer, kernel.backend, *task, scratch=scratch, out=out)
        with tempfile.TemporaryDirectory(prefix="attnflow-", dir=self.scratch) as name:
            folder = Path(name)
            sums = make(kernel, seen, keys, folder, self.block, self.client)
            own = sums if queries is None else None
            bias, stats = key_bias(self.layer, keys, own, folder, self.block, self.client)
            blocks = -(-seen.rows.size // self.block)
            self.stats = {"engine": sums.kernel.backend, "dtype": self.layer.dtype, "blocks": blocks, **stats}
            yield _Bound(sums, seen.rows, keys, bias, folder, queries is None)


@dataclass(frozen=True)
class _Bound:
    """A layer's sums on its tokens, the queries, the keys with their bias, and a folder for what comes and goes."""

    sums: Sums
    queries: Rows
    keys: Surveyed
    bias: Rows | None
    folder: Path
    own: bool  # whether the tokens are the queries
