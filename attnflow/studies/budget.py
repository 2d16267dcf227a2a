"""Which temperature and how many tokens meet an asked error in the least time: a plan, before any run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import checks, display
from ..attention import Attention, DensityCorrected, Normalization
from ..attention.names import name_of
from ..attention.names import normalization as as_normalization
from ..continuum import PredictedError
from ..geometry import Density, KernelDensity
from ..progress import track
from ..similarity import PseudoMetric
from .convergence import ConvergenceStudy
from .design import rules_of
from .planning import Search, layer_of

COMPARED: tuple[str | Normalization, ...] = ("softmax", DensityCorrected(0.5), "column", "sinkhorn")
_REPRESENTED = 50.0  # tokens a query averages over, from which the leading orders hold to a tenth or so


@dataclass(frozen=True, repr=False)
class ErrorBudget:
    """A plan: layers, temperature and tokens that meet an asked error. Printed, it is a few lines.

    Attributes
    ----------
    error : float
        The asked one, relative, as `compare` measures it.
    layer : Attention
    layers : int
        layers * layer.time_step is the time that was asked for.
    n_tokens : int
    predicted : PredictedError
        Of this plan: at most 2 % below the asked error, or less than a token's worth.
    engine : str
        What "auto" takes for so many tokens.
    seconds : float
        That one run takes on this machine: all layers, the key bias and what is around them; between runs it varies.
    memory : int
        Bytes.
    message : str
        Where the prediction is less sure than it looks, and which normalisations can't be planned; empty if neither.
    alternatives : tuple of ErrorBudget
        Where normalisations were compared: the other ones, fastest first.
    density, initial, t
        As they were given; a `KernelDensity` of a sample.
    """

    error: float
    layer: Attention
    layers: int
    n_tokens: int
    predicted: PredictedError
    engine: str
    seconds: float
    memory: int
    density: Density
    initial: Callable
    t: float
    message: str = ""
    alternatives: tuple[ErrorBudget, ...] = ()

    @property
    def epsilon(self) -> float:
        """The temperature."""
        return self.layer.epsilon

    @property
    def residual(self) -> float:
        """The step of a layer: 1, since a smaller one costs layers and makes the same noise."""
        return self.layer.residual

    @property
    def normalization(self) -> Normalization:
        """The layer's."""
        return self.layer.normalization

    @property
    def shares(self) -> dict[str, float]:
        """What bias, noise and mean make of the square of the predicted error; they add up to 1.

        The mean's holds its product with the bias, and is negative where they cancel; nan where it is not predicted.
        """
        whole, parts = self.predicted.relative**2, self.predicted
        bias, noise = parts.bias_share**2 / whole, parts.noise_share**2 / whole
        return {"bias": bias, "noise": noise, "mean": np.nan if np.isnan(parts.mean_share) else 1 - bias - noise}

    def study(self, seeds: int = 10) -> ConvergenceStudy:
        """The plan and its surroundings as a study, ready to run: half and twice its layers, a quarter of its tokens.

        Examples
        --------
        >>> import attnflow as af, numpy as np
        >>> plan = af.error_budget(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]),
        ...                        t=0.5, error=0.1, normalization="softmax")
        >>> study = plan.study()
        >>> plan.epsilon in study.epsilons, study.layers(plan.epsilon) == plan.layers
        (True, True)
        """
        depths = {max(self.layers // 2, 1), self.layers, 2 * self.layers}
        epsilons = [layer_of(self.layer.f, self.normalization, self.t, depth).epsilon for depth in depths]
        sizes = sorted({max(self.n_tokens // 4, 2), self.n_tokens})
        return ConvergenceStudy(
            self.layer.f, self.density, self.initial, self.t, epsilons, [*sizes, np.inf], seeds, self.normalization
        )

    def __repr__(self) -> str:
        rule = display.cut(name_of(self.normalization), 30)
        return f"ErrorBudget({self.error:g}: {rule}, epsilon={self.epsilon:.6g}, {self.layers} layers, {self.n_tokens} tokens)"

    def _repr_html_(self) -> str:
        header = ("normalization", "drift", "epsilon", "layers", "tokens", "predicted error", "seconds")
        rows = [
            (
                name_of(plan.normalization),
                f"{plan.normalization.drift:g}",
                f"{plan.epsilon:.4g}",
                plan.layers,
                plan.n_tokens,
                f"{plan.predicted.relative:.3g}",
                f"{plan.seconds:.2g}",
            )
            for plan in (self, *self.alternatives)
        ]
        return display.table(f"Plans for an error of {self.error:g}", rows, header)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        lines = [
            f"ErrorBudget for {self.error:g}: {name_of(self.normalization)}, epsilon = {self.epsilon:.6g}, {self.layers} layers, "
            f"{self.n_tokens} tokens",
            f"  predicted error {self.predicted.relative:.3g} ({shares} of its square), {self.predicted.regime}, "
            f"N_eff >= {self.predicted.n_eff:.3g}",
            f"  {self.seconds:.2g} s with engine {self.engine!r}, {self.memory / 1e6:.3g} MB",
        ]
        if self.alternatives:
            lines.append(f"  its equation has drift {self.normalization.drift:g}; against equations of their own:")
        for other in self.alternatives:
            lines.append(
                f"    {name_of(other.normalization)}, drift {other.normalization.drift:g}: {other.seconds:.2g} s, "
                f"epsilon = {other.epsilon:.4g}, {other.layers} layers, {other.n_tokens} tokens"
            )
        return "\n".join(lines + [f"  {self.message}"] * bool(self.message))


def error_budget(
    f: PseudoMetric,
    density: Density | np.ndarray,
    initial: Callable,
    t: float,
    error: float,
    normalization: str | Normalization | Sequence[str | Normalization] | None = None,
    progress: bool = False,
) -> ErrorBudget:
    """The fastest layers that meet the limit equation at time t to within an error, in root mean square over token sets.

    Parameters
    ----------
    f : PseudoMetric
    density : Density or (N, n) array
        Tokens are independent samples of it; of a sample of tokens, in up to three dimensions, it is their `KernelDensity`.
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation.
    error : float
        Relative, p-weighted L2 at the tokens: what `compare` measures and `predicted_error` predicts.
    normalization : str or Normalization, or several, optional
        Several are compared; None compares softmax, alpha = 1/2, column and Sinkhorn. Unless the density is uniform these have equations of their
        own, with other drifts: the fastest approximates *its* equation most cheaply.
    progress : bool
        Show a progress bar: in the plane a prediction takes some seconds, and about ten are needed.

    Returns
    -------
    ErrorBudget

    Raises
    ------
    ValueError
        If error is not positive, or unreachable: below the bias of the coldest layers that can be predicted, or for more
        tokens than fit into memory or than end within a month; where `predicted_error` refuses, or knows no mean of order 1/N
        and tokens are too few to do without.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> plan = af.error_budget(af.SquaredDistance(af.Circle()), af.VonMises(1.0), lambda x: np.cos(x[..., 0]),
    ...                        t=0.5, error=0.05, normalization="softmax")
    >>> plan.layers * plan.layer.time_step, bool(0.049 <= plan.predicted.relative <= 0.05)
    (0.5, True)
    """
    error, t = checks.positive(error, "error"), checks.positive(t, "t")
    checks.instance(f, PseudoMetric, "f", "a pseudo-metric such as SquaredDistance(space)")
    density = _density(density)
    rules = COMPARED if normalization is None else rules_of(normalization)
    for rule in map(as_normalization, rules):
        if rule.selects:
            raise ValueError(f"normalization must be a key bias for a budget of epsilon, got {name_of(rule)}")
    if normalization is not None and len(rules) == 1:
        (normalization,) = rules
        return _budget(Search(f, density, initial, t, error, normalization, progress))
    plans, refused = [], {}
    for rule in track(rules, progress, unit="normalization"):
        try:
            plans.append(_budget(Search(f, density, initial, t, error, rule)))
        except (ValueError, NotImplementedError) as reason:
            refused[name_of(as_normalization(rule))] = reason
    if not plans:
        raise next(iter(refused.values()))
    best, *others = sorted(plans, key=lambda plan: plan.seconds)
    told = [best.message] * bool(best.message) + [f"{name} is left out: {reason}" for name, reason in refused.items()]
    return replace(best, alternatives=tuple(others), message="; ".join(told))


def _density(density: Density | np.ndarray) -> Density:
    if isinstance(density, Density):
        return density
    if not checks.listed(density):
        raise TypeError(f"density must be an attnflow density or a sample of tokens, got {checks.short(density)}")
    tokens = checks.points(density, "density")
    if tokens.shape[1] > 3:
        raise ValueError(f"density must have at most 3 dimensions for a prediction from a sample, got {tokens.shape[1]}")
    return KernelDensity(tokens)


def _budget(search: Search) -> ErrorBudget:
    plan = search.plan()
    return ErrorBudget(
        search.error,
        plan.layer,
        plan.layers,
        plan.n_tokens,
        plan.predicted,
        plan.engine,
        plan.seconds,
        plan.memory,
        search.density,
        search.initial,
        search.t,
        "; ".join([*_doubts(plan.predicted), *plan.notes]),
    )


def _doubts(found: PredictedError) -> list[str]:
    """Where the prediction is less sure than it looks."""
    told = []
    if found.n_eff < _REPRESENTED:
        told.append(f"some queries average over {found.n_eff:.3g} tokens only: below {_REPRESENTED:g} the asymptotics end")
    if np.isnan(found.mean_share):
        told.append("the mean of order 1/N is not predicted")
    return told
