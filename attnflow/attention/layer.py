"""One attention layer: a pseudo-metric, a temperature, a normalisation, and the engine that sums."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .. import capacity, checks, display
from ..kernels import Choice, check_backend, choose
from ..kernels.near import choose_source
from ..similarity import PseudoMetric
from . import gradients
from .bound import BoundLayer, bind, read_log_mass
from .host import through_host
from .masks import Causal, Graph, read_mask
from .names import name_of
from .names import normalization as as_normalization
from .normalization import Normalization
from .normalizations import Unnormalized
from .operators import linear_operator
from .selected import bind_selected
from .spectrum import LayerSpectrum, layer_spectrum
from .sums import bind_sums

_RTOL = {"float64": 1e-12, "float32": 1e-5}


class Attention:
    """Attention with weights S_ij proportional to exp(-f(x_i, x_j) / (2 epsilon) + b_j), sum_j S_ij = 1.

    One layer maps features H to H + residual * (S H - H).

    Parameters
    ----------
    f : PseudoMetric
    epsilon : float
        Temperature, in the unit of f; a transformer's softmax(x'Wy) is epsilon = 1/2 with DotProduct(W).
    normalization : str or Normalization
        What the key bias b_j is: "softmax", "column", "sinkhorn", "none", DensityCorrected, Sinkhorn. Or which keys a query
        weighs: TopK, Sparse, Perplexity, Screening. As words too: "density-corrected:0.5", "topk:32".
        "none": no row sums, S_ij = exp(-f / (2 epsilon)) / N, for tokens that move on a sphere.
    residual : float
        Step a in (0, 1]; 1 is the plain layer.
    mask : None, "causal", labels, sparse matrix or edges
        Which tokens see which: None, all of them; "causal", token i those up to i; labels (N,), of any kind that can be
        sorted, those of the same label. A scipy sparse matrix (N, N) has an edge from query to key wherever it is not
        zero, and so has a list (E, 2), query first; a token then sees itself only where an edge says so.
    backend : str
        Engine, see `attnflow.backends`; "auto" takes the one predicted to be fastest for the tokens, see `plan`.
    rtol : float, optional
        Relative accuracy, 1e-12 when None (1e-5 in float32): the tolerance of Sinkhorn.
    dtype : {"float64", "float32"}
        Arithmetic of the engine.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> tokens = af.VonMises(1.0).sample(200, rng=0)
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05)
    >>> layer(tokens, np.cos(tokens)).shape
    (200, 1)
    >>> layer.time_step
    0.025
    """

    def __init__(
        self,
        f: PseudoMetric,
        epsilon: float,
        normalization: str | Normalization = "softmax",
        residual: float = 1.0,
        mask: Any = None,
        *,
        backend: str = "auto",
        rtol: float | None = None,
        dtype: str = "float64",
    ) -> None:
        if not isinstance(f, PseudoMetric):
            raise TypeError(f"f must be a pseudo-metric such as SquaredDistance(space), got {type(f).__name__}")
        self.f = f
        self.epsilon = checks.positive(epsilon, "epsilon")
        self.normalization = as_normalization(normalization)
        self.residual = checks.fraction(residual, "residual")
        self.dtype = checks.choice(dtype, "dtype", _RTOL)
        self.rtol = _RTOL[self.dtype] if rtol is None else checks.positive(rtol, "rtol")
        self.mask = read_mask(mask)
        self.backend = check_backend(backend, type(None) if self.mask is None else self.mask.kind)
        rule, causal = self.normalization, isinstance(self.mask, Causal)
        one_way = self.mask is not None and not self.mask.symmetric
        # two potentials may suit other one-way masks, but triangular weights whose columns sum to one are the identity
        if one_way and (rule.needs_symmetry or (rule.doubly_stochastic and causal)):
            raise ValueError(
                f"mask must go both ways for normalization {type(self.normalization).__name__.lower()!r}, got {self.mask!r}; "
                "use 'softmax' or 'column', or add the edges back"
            )
        self._last: tuple[str, BoundLayer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def __repr__(self) -> str:
        f, options = display.cut(repr(self.f), 60), self._options
        return display.cut(", ".join([f"Attention({f}", *(f"{name}={value}" for name, value in options.items())]) + ")")

    def _description_(self) -> dict[str, Any]:
        rest = {name: getattr(self, name) for name in ("residual", "mask", "backend", "rtol", "dtype")}
        return {"f": self.f, "epsilon": self.epsilon, "normalization": name_of(self.normalization), **rest}

    @property
    def _options(self) -> dict[str, str]:
        """How it differs from a plain softmax layer in double precision."""
        usual = {"residual": 1.0, "mask": None, "backend": "auto", "dtype": "float64"}
        unusual = {name: display.word(getattr(self, name)) for name, value in usual.items() if getattr(self, name) != value}
        rule = name_of(self.normalization)
        return {"epsilon": f"{self.epsilon:g}", "normalization": repr(rule) if rule.islower() else rule, **unusual}

    @property
    def latex(self) -> str:
        """The weights in LaTeX, and f."""
        kernel = rf"e^{{-f(x_i, x_j) / {display.latex_number(2 * self.epsilon)}}}"
        return rf"{self.normalization.weights_latex(kernel)}, \quad {self.f.latex}"

    def _repr_html_(self) -> str:
        rows = [("weights", f"${self.latex}$"), *((name, value.strip("'")) for name, value in self._options.items())]
        if self.has_time_step:
            rows.append(("time step", f"{self.time_step:.6g}"))
        return display.table("Attention", rows)

    @property
    def time_step(self) -> float:
        """Time of the limit equation that one layer advances: residual * m2 / 2, in the units of f.metric.

        Where queries choose their keys (TopK, Sparse, Perplexity), and on edges, whose reach a layer does not know, m2 / 2
        is in the limit's equation: a layer is one unit of its time, times the residual.

        Raises
        ------
        ValueError
            If f has no local limit, as DotProduct(W) with a W that is not symmetric positive definite.
        """
        if self._counts_layers:
            return self.residual
        if self.f.obstacle:
            raise ValueError(self.f.obstacle)
        return self.residual * self.f.second_moment(self.epsilon, self.f.dim) / 2

    @property
    def _counts_layers(self) -> bool:
        return self.normalization.selects or isinstance(self.mask, Graph)

    @property
    def clock(self) -> float:
        """What a layer adds to the time of a run: time_step, or 1 where f has no limit equation and layers are counted."""
        return self.time_step if self.has_time_step else 1.0

    @property
    def has_time_step(self) -> bool:
        """Whether there is a limit equation, as far as f tells, or layers are its unit of time."""
        return self._counts_layers or not self.f.obstacle

    @through_host
    def __call__(self, tokens: np.ndarray, values: np.ndarray | None = None, queries: np.ndarray | None = None) -> np.ndarray:
        """Features after one layer.

        Parameters
        ----------
        tokens : (N, n) array
            The keys, and the queries when none are given.
        values : (N, c) or (N,) array, optional
            Features the tokens carry; the tokens themselves when None.
        queries : (M, n) array, optional
            Where to evaluate: row-normalised with the tokens' key bias. Needs residual = 1 and no mask.

        Returns
        -------
        (M, c) array
            A CuPy array where one came in: tokens pass through the host once, their pairs don't.
        """
        if queries is not None:
            self.check_queries(queries)
        bound = self.bind(tokens)
        values = bound.tokens if values is None else checks.features(values, "values", len(bound.tokens))
        if queries is None:
            return bound.step(values)
        if self.residual < 1:
            raise ValueError(
                f"queries must be None for residual = {self.residual:g}: the step needs the queries' own values; "
                "use residual = 1 and combine them yourself"
            )
        return bound.attend(values, self.f.check(queries, "queries")).mean

    vjp = gradients.vjp

    def weights(self, tokens: np.ndarray, queries: np.ndarray | None = None) -> np.ndarray:
        """The dense (M, N) weights S, rows summing to one; refused above 2^26 entries.

        The residual step is not included: S is what the step mixes in.
        """
        tokens, rows = self.f.check(tokens, "tokens").astype(np.float64), len(tokens)
        if queries is not None:
            self.check_queries(queries)
            queries = self.f.check(queries, "queries").astype(np.float64)
            rows = len(queries)
        if queries is not None and queries.shape[1] != tokens.shape[1]:
            raise ValueError(f"queries must have {tokens.shape[1]} columns as tokens have, got shape {queries.shape}")
        if rows * len(tokens) > 2**26:
            raise ValueError(
                f"tokens must make at most {2**26} dense weights, got {rows} x {len(tokens)}: "
                f"{8.0 * rows * len(tokens):.3g} bytes"
            )
        capacity.fits(24 * rows * len(tokens), "tokens")
        return self.bind(tokens).weights(queries)

    def check_queries(self, queries: np.ndarray) -> None:
        """ValueError if there is a mask: it is of tokens, and says nothing of points that are none."""
        if self.mask is not None:
            raise ValueError(
                f"queries must be None under a mask, which says what tokens see, got {checks.short(queries)}; "
                "put them among the tokens"
            )

    def plan(self, tokens: np.ndarray, columns: int = 1, layers: int = 1) -> Choice:
        """Which engine "auto" takes for these tokens, and why: prints as a table of predicted seconds.

        Parameters
        ----------
        tokens : (N, n) array
        columns : int
            Of the values.
        layers : int

        Examples
        --------
        >>> import attnflow as af
        >>> tokens = af.VonMises(1.0).sample(200, rng=0)
        >>> print(af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05).plan(tokens).engine)
        numba
        """
        tokens = self.f.check(tokens, "tokens").astype(np.float64)
        columns, layers = checks.integer(columns, "columns", least=1), checks.integer(layers, "layers", least=1)
        mask = None if self.mask is None else self.mask.of(len(tokens))
        if self.normalization.selects:
            engine = choose_source(self.f, None, tokens, mask)
            return Choice(engine, {}, facts={"queries": len(tokens), "keys": len(tokens), "weights": self.normalization})
        return choose(self.f, self.epsilon, None, tokens, self.dtype, self.rtol, columns, layers + 1, mask)

    def operator(self, tokens: np.ndarray) -> LinearOperator:
        """The layer on fixed tokens as an operator A of shape (N, N), residual step included: A H = layer(tokens, H).

        Its `matmat` sends all columns through the engine at once; the adjoint is there too, for asymmetric f and masks as well.

        Parameters
        ----------
        tokens : (N, n) array

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> tokens = af.VonMises(1.0).sample(200, rng=0)
        >>> A = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.05).operator(tokens)
        >>> A.shape, bool(np.allclose(A @ np.ones(200), 1))
        ((200, 200), True)
        """
        return linear_operator(self.bind(tokens), self.residual, 1 - self.residual)

    def generator(self, tokens: np.ndarray) -> LinearOperator:
        """(A - 1) / clock on fixed tokens (N, n), which approximates the operator of the limit equation; (N, N)."""
        rate = self.residual / self.clock
        return linear_operator(self.bind(tokens), rate, -rate)

    def spectrum(self, tokens: np.ndarray, k: int, progress: bool = False) -> LayerSpectrum:
        """The k largest eigenvalues of the layer on its tokens, A v = lambda v, with right eigenvectors.

        For symmetric f and mask they are real, found by a block Lanczos iteration in the inner product of the conserved weight,
        w_i S_ij = w_j S_ji, whatever the normalisation; otherwise complex, ordered by their real part, by an Arnoldi
        iteration. The first is 1, its eigenvector constant. A causal layer is a triangular matrix, its eigenvalues are the
        weights that tokens give themselves, and it may lack eigenvectors: `.residuals` then don't tell how far an
        eigenvalue is off, which is measured against these weights. Memory is that of 2 k + 64 columns; up to 500 tokens, and
        for k beyond a fifth of them, the dense weights are decomposed.

        Parameters
        ----------
        tokens : (N, n) array
        k : int
            From 1 to N - 2.
        progress : bool
            Show a progress bar.

        Returns
        -------
        LayerSpectrum
            The pair of eigenvalues (k,), largest first, and eigenvectors (k, N), of unit norm in `.weight`. Beside them
            `.rates`, `.gap`, `.at(queries)`, `.metastable_sets()`, `.residuals` and `.plot()`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, before any work but the row sums.
        RuntimeError
            If f is asymmetric and the iteration gave up, after about a thousand applications.

        Warns
        -----
        IsolatedTokensWarning
            If eigenvalue 1 is not alone: the tokens fall into more sets that do not attend to each other than the mask makes.
        ConvergenceWarning
            If it gave up for symmetric f: `.residuals` tell how far it came. Or if eigenvalues of a causal layer are off.

        Examples
        --------
        On the circle the limit has eigenvalues 0, -1, -1, -4, -4, ...:

        >>> import attnflow as af
        >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.01, normalization="sinkhorn")
        >>> layer.spectrum(np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None], 5).rates.round(6)
        array([ 0.     , -0.997504, -0.997504, -3.960265, -3.960265])

        Sources: Coifman & Lafon 2006 (the symmetrised operator); Wu & Simon 2000 (restarts).
        """
        tokens = self.f.check(tokens, "tokens")
        if len(tokens) < 3:
            raise ValueError(f"tokens must be at least 3 for a spectrum, got {len(tokens)}")
        k = checks.integer(k, "k", least=1, largest=len(tokens) - 2)
        capacity.fits(8 * (2 * k + 64) * len(tokens), "k")
        return layer_spectrum(self.bind(tokens), k, progress)

    def bind(self, tokens: np.ndarray, log_mass: np.ndarray | None = None) -> BoundLayer:
        """The layer on fixed tokens: its key bias computed once, kept until the tokens' content changes.

        `log_mass` (N,) weighs the tokens: quadrature nodes stand for p times the volume around them.
        """
        tokens = self.f.check(tokens, "tokens")
        if log_mass is not None:
            log_mass = read_log_mass(log_mass, len(tokens))
        digest = hashlib.blake2b()
        # the features, not only the tokens: a map's parameters may have been trained on meanwhile
        for content in (tokens, self.f.query_features(tokens), self.f.key_features(tokens), log_mass):
            digest.update(b"" if content is None else np.ascontiguousarray(content).tobytes())
        mask = None if self.mask is None else self.mask.content
        options = self.epsilon, self.normalization, self.rtol, self.backend, self.dtype, mask
        key = " ".join(map(str, (digest.hexdigest(), tokens.dtype, tokens.shape, *options)))
        last = self._last  # read once: another thread may bind other tokens meanwhile
        if last is None or last[0] != key:
            points = tokens.astype(np.float64)
            bound = self._bind(points, log_mass)
            last = self._last = (key, bound)
        return last[1]

    def _bind(self, tokens: np.ndarray, log_mass: np.ndarray | None) -> BoundLayer:
        if self.normalization.selects:
            return bind_selected(self, tokens, log_mass)
        return (bind_sums if isinstance(self.normalization, Unnormalized) else bind)(self, tokens, log_mass)
