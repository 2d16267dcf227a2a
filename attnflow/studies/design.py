"""What a study asks: which layers on which tokens, compared with which equation at which time; one cell at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from .. import capacity, checks, display
from ..attention import Attention, Normalization, Screening
from ..attention.infinite import check_same_space, first_grid
from ..attention.names import name_of
from ..attention.names import normalization as as_normalization
from ..continuum import limit
from ..continuum.limits import depth
from ..geometry import Density
from ..provenance import described, versions
from ..similarity import PseudoMetric
from .store import content_key

FORM = 4  # of a cell: raise it when the same study comes to mean other numbers, so that stores don't mix them
MOST_CELLS = 10**6
_SEEN = 64  # tokens at which callables are asked for their values
_DIGITS = 10  # that a fingerprint sees: the last bits may differ between machines that share a store


class Cell(NamedTuple):
    """epsilon, number of tokens (numpy.inf for the infinite-token layer), seed, and which of the normalisations."""

    epsilon: float
    size: float
    seed: int
    part: int = 0


class Design:
    """The data of a `ConvergenceStudy`, whose parameters these are; it does not change once it is made."""

    tables: dict | None = None  # of the study file that it was made of, for its store; None where it was made in Python

    def __init__(
        self,
        f: PseudoMetric,
        density: Density,
        initial: Callable,
        t: float,
        epsilons: Sequence[float],
        sizes: Sequence[float],
        seeds: int = 10,
        normalization="softmax",
        grid: int | Sequence[int] | None = None,
        seed: int = 0,
        *,
        residual: float = 1.0,
        backend: str = "auto",
        dtype: str = "float64",
    ) -> None:
        self._layers: dict[float, Attention] = {}
        self._parts: tuple[Design, ...] = ()
        self.grid: tuple[int, ...] | None = None
        self.f, self.density, self.initial = f, density, initial
        self.t = READ["t"](t)
        self.epsilons, self.sizes = READ["epsilons"](epsilons), READ["sizes"](sizes)
        self.seeds = READ["seeds"](seeds)
        self.normalization, self._rules = normalization, rules_of(normalization)
        finite = len([n for n in self.sizes if np.isfinite(n)])
        count = len(self.epsilons) * (1 + finite * self.seeds) * len(self._rules)
        if count > MOST_CELLS:
            raise ValueError(
                f"seeds and sizes must make at most {MOST_CELLS} cells, got {count}: {self.seeds} seeds of {finite} sizes "
                f"at {len(self.epsilons)} temperatures"
            )
        self.seed, self.residual = READ["seed"](seed), READ["residual"](residual)
        self.backend, self.dtype = backend, dtype
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
        if len(self._rules) > 1:
            data = (f, density, initial, t, epsilons, self.sizes, seeds)
            options: dict[str, Any] = {"residual": residual, "backend": backend, "dtype": dtype}
            self._parts = tuple(type(self)(*data, rule, grid, seed, **options) for rule in self._rules)
            self.grid = self._parts[0].grid
        else:
            self._check(grid)
        self._made = True

    def _check(self, grid: int | Sequence[int] | None) -> None:
        """Refuse, before any work, layers that have no limit to compare with, and what does not fit or end."""
        layer, density = self.layer(self.epsilons[0]), self.density
        if layer.normalization.selects:
            raise ValueError(
                f"normalization must be a key bias for a study of epsilon, got {layer.normalization}, whose layers are a unit of "
                "time each; compare propagate with limit(layer, density, n_tokens=N)"
            )
        if isinstance(layer.normalization, Screening):
            raise ValueError(
                f"normalization must keep all tokens for a study, got {layer.normalization}, whose equation lives where those "
                "that are kept are; compare propagate on these with limit(layer, density, n_tokens=N)"
            )
        check_same_space(layer, density)
        self.grid = None if grid is None else density.grid(grid).shape
        places = (density.space.probe_points, lambda: density.sample(_SEEN, np.random.default_rng(0)))
        if not any(checks.evaluate(self.initial, place(), "initial").any() for place in places):
            raise ValueError("initial must not vanish everywhere: errors are relative to the solution")
        _check_feasible(self)
        for epsilon in self.epsilons:
            if self.layers(epsilon) < 1:
                raise ValueError(
                    f"epsilons must be small enough that t = {self.t:g} holds at least one layer, got {epsilon:g} "
                    f"with a time step of {self.layer(epsilon).time_step:g}"
                )
        limit(self.layer(self.epsilons[0]), density).check_solvable()
        for epsilon in self.epsilons:
            first_grid(self.layer(epsilon), density, self.grid)

    def __setattr__(self, name: str, value) -> None:
        if "_made" in vars(self):
            raise AttributeError(f"{name} cannot be set: a study stays as it was made, as its store does; make another one")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        axes = {"epsilon": len(self.epsilons), "size": len(self.sizes), "seed": self.seeds}
        cells = " x ".join(display.counted(count, name) for name, count in axes.items())
        return display.cut(
            f"{type(self).__name__}({cells}, t={self.t:g}, {', '.join(self.names)}, {self.f!r}, {self.density!r})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("pseudo-metric", f"${self.f.latex}$"),
            ("density", f"${self.density.latex}$"),
            ("normalization", ", ".join(self.names)),
            ("initial", display.word(self.initial)),
            ("t", f"{self.t:g}"),
            ("epsilons", ", ".join(f"{epsilon:g}" for epsilon in self.epsilons)),
            ("sizes", ", ".join(f"{size:g}" for size in self.sizes)),
            ("seeds", self.seeds),
        ]
        return display.table(type(self).__name__, rows)

    def layer(self, epsilon: float) -> Attention:
        """The attention layer at one temperature."""
        epsilon = checks.positive(epsilon, "epsilon")
        if epsilon not in self._layers:
            if self._parts:
                raise ValueError(f"normalization must be one for its layers: take study.of(name), name one of {self.names}")
            self._layers[epsilon] = Attention(
                self.f, epsilon, self._rules[0], self.residual, backend=self.backend, dtype=self.dtype
            )
        return self._layers[epsilon]

    def layers(self, epsilon: float) -> int:
        """floor(t / time step): whole layers."""
        return depth(self.layer(epsilon), self.t)[0]

    def rest(self, epsilon: float) -> float:
        """t / time step - floor(t / time step): the part of one more layer, which meets t; 0 where none is missing."""
        return depth(self.layer(epsilon), self.t)[1]

    @property
    def parts(self) -> tuple[Design, ...]:
        """One study for each normalisation, all on the same tokens; itself where there is one."""
        return self._parts or (self,)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the normalisations, as results call them."""
        return tuple(name_of(part._rules[0]) for part in self.parts)

    def of(self, normalization: str | Normalization) -> Design:
        """The study of one of its normalisations."""
        name = name_of(normalization) if isinstance(normalization, Normalization) else normalization
        return self.parts[self.names.index(checks.choice(name, "normalization", self.names))]

    def token_stream(self, cell: Cell) -> np.random.Generator:
        """What draws a cell's tokens: a stream of its own, since the seed alone would reuse tokens across sizes."""
        stream = [cell.seed, int(cell.size), int(np.float64(cell.epsilon).view(np.uint64))]
        return np.random.default_rng(stream + [self.seed] * (self.seed > 0))

    def description(self) -> dict:
        """What it was made of, as JSON: to be read, not to be made again of."""
        names = ("f", "density", "initial", "t", "epsilons", "seeds", "grid", "seed", "residual", "backend", "dtype")
        return {name: described(getattr(self, name)) for name in names} | {
            "sizes": list(map(str, self.sizes)),
            "normalization": self.names,
        }

    def made_of(self, tables: dict) -> Self:
        """This study, which knows the study file's tables that say the same."""
        vars(self)["tables"] = deepcopy(tables)
        return self

    def with_seeds(self, seeds: int) -> Self:
        """The same study with so many seeds: the tokens of those it has stay as they are."""
        data = (self.f, self.density, self.initial, self.t, self.epsilons, self.sizes, seeds, self._rules, self.grid, self.seed)
        made = type(self)(*data, residual=self.residual, backend=self.backend, dtype=self.dtype)
        return made if self.tables is None else made.made_of({**self.tables, "study": {**self.tables["study"], "seeds": seeds}})

    @cached_property
    def words(self) -> str:
        """Digest of what it was made of, functions by their code."""
        names = ("_rules", "f", "density", "initial", "t", "grid", "seed", "residual", "dtype")  # all engines are as accurate
        parts = [_nameless(described(getattr(self, name))) for name in names]
        return content_key([versions()["attnflow"], FORM, *parts])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything the results depend on: `words`, and the values of callables, whose code may not say all.

        They are asked at fixed points of the space, and where the tokens are.
        """
        space = self.density.space
        probe, tokens = space.probe_points(), self.density.sample(_SEEN, np.random.default_rng(0))
        values = [tokens, self.f(probe, probe), self.f(tokens, tokens)]
        for x in (probe, tokens):
            initial = checks.evaluate(self.initial, x, "initial")
            values += [self.density.log_pdf(x), initial, space.metric(x), space.volume_element(x)]
        return content_key([self.words, [[f"{v:.{_DIGITS - 1}e}" for v in np.ravel(value)] for value in values]])

    def __getstate__(self) -> dict[str, Any]:
        """Without what is computed: where it is read back, a function of the same name may be another one."""
        return {name: value for name, value in vars(self).items() if name not in ("words", "fingerprint")}

    def cells(self) -> list[Cell]:
        """All cells, the cheapest first; the infinite-token ones before all."""
        finite, parts = [n for n in self.sizes if np.isfinite(n)], range(len(self.parts))
        some = [Cell(e, n, seed, k) for n in finite for e in self.epsilons for seed in range(self.seeds) for k in parts]
        cost = {cell: cell.size**2 * self.parts[cell.part].layers(cell.epsilon) for cell in some}
        return [Cell(e, np.inf, 0, k) for k in parts for e in self.epsilons] + sorted(some, key=cost.__getitem__)


def _check_feasible(study: Design) -> None:
    """Refuse tokens that do not fit and layers that do not end; what they take is measured, and low."""
    finite = [int(n) for n in study.sizes if np.isfinite(n)]
    largest = max(finite, default=0)
    capacity.fits(bytes_of(largest, study.density.space.columns), "sizes")
    for epsilon in study.epsilons:
        time_step = float(study.layer(epsilon).time_step)
        layers = study.t / time_step if time_step > 0 else np.inf
        capacity.ends(layers, "t" if study.t > 1 else "epsilons", 5e-5 + 5e-8 * largest, "layers")


def bytes_of(n_tokens: int, columns: int) -> int:
    """Bytes that a run on so many tokens takes, of any size: measured, and low."""
    return 300 * n_tokens * columns


def _epsilons(values) -> tuple[float, ...]:
    values = checks.sequence(values, "epsilons", "temperatures")
    return tuple(sorted({checks.positive(epsilon, "epsilons") for epsilon in values}, reverse=True))


def _sizes(values) -> tuple[float, ...]:
    values = checks.sequence(values, "sizes", "token numbers")
    return tuple(sorted({_size(n) for n in values}))


def _size(n) -> float:
    if isinstance(n, float) and np.isposinf(n):
        return np.inf
    return checks.integer(n, "sizes", least=2)


# each number of a study by itself, as a study keeps it; raises ValueError or TypeError by its name
READ: dict[str, Callable[[Any], Any]] = {
    "t": lambda t: checks.positive(t, "t"),
    "epsilons": _epsilons,
    "sizes": _sizes,
    "seeds": lambda seeds: checks.integer(seeds, "seeds", least=1),
    "seed": lambda seed: checks.integer(seed, "seed"),
    "residual": lambda residual: checks.fraction(residual, "residual"),
}


def _nameless(description: Any) -> Any:
    """A description in which functions are known by their code alone."""
    if isinstance(description, dict):
        kept = {key: part for key, part in description.items() if not (key == "text" and "sha256" in description)}
        return {key: _nameless(part) for key, part in kept.items()}
    return [_nameless(part) for part in description] if isinstance(description, list) else description


def rules_of(normalization) -> tuple[Normalization, ...]:
    """One, or several that differ."""
    if not checks.listed(normalization):
        return (as_normalization(normalization),)
    rules = tuple(map(as_normalization, checks.sequence(normalization, "normalization", "normalisations")))
    names = [name_of(rule) for rule in rules]
    if len(set(names)) < len(names):
        raise ValueError(f"normalization must name each once, got {checks.short(names)}")
    return rules
