"""Classifiers on the same repeats: accuracy, paired intervals, loss against epochs, seconds.

In one repeat every classifier gets the same tokens and the same random state, so that what they differ by is known
more exactly than what each reaches. Intervals are Student's, of 95 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import t as student
from tqdm.auto import tqdm

from attnflow.plotting import style

EPOCHS, DECAY = 600, 1e-4  # the source paper's, as the first of the rates
RATES = (1e-3, 3e-3, 1e-2)
PAPER = f"{RATES[0]:g}"
METHODS = ("self", "L2", "metric", "metric, lipschitz 0.9")
COLUMNS = ("accuracy", "spread", "minus self", "loss, epoch 100", "loss, last", "seconds")
LEGEND = (
    f"Width 10, weight decay {DECAY:g}, epochs of Adam on all tokens at once, the learning rate {PAPER} being the source paper's.\n"
    "Spread: standard deviation over repeats. Minus self: paired difference from self-attention, else alike, with its\n"
    "95 % interval. Loss: mean over repeats, nats per token. Seconds: processor time of a fit, median."
)
Cells = tuple[str, ...]  # method, learning rate, and what else tells rows apart


@dataclass(frozen=True)
class Task:
    """Tokens to learn from and to be tested on, and the edges along which queries see keys, if there are any."""

    tokens: np.ndarray
    labels: np.ndarray
    test_tokens: np.ndarray
    test_labels: np.ndarray
    edges: np.ndarray | None = None
    test_edges: np.ndarray | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes
    ----------
    cells : tuple of str
        What its first cells say.
    make : callable
        Makes the classifier; takes `random_state`.
    against : tuple of str, optional
        Cells of the row that its accuracy is compared with.
    edges : bool
        Whether the classifier is told the task's edges.
    """

    cells: Cells
    make: Callable
    against: Cells | None = None
    edges: bool = False


@dataclass(frozen=True)
class Fit:
    """Accuracy on the test tokens, loss at each epoch (empty where there is none), seconds of processor time in training."""

    accuracy: float
    loss: np.ndarray
    seconds: float


def attentions(epochs: int, *setting: str, methods: Sequence[str] = METHODS, edges: bool = False, **options) -> list[Entry]:
    """Every attention at every learning rate of Adam, each compared with self-attention at the same.

    Parameters
    ----------
    epochs : int
        None is left out: there is no early stopping.
    *setting : str
        Cells that say what is special.
    methods : sequence of str
        Of `METHODS`, self first.
    edges : bool
    **options
        Of the classifiers.
    """
    from attnflow.learning import L2Attention, MetricAttention, SelfAttention

    kinds = dict(zip(METHODS, (SelfAttention, L2Attention, MetricAttention, partial(MetricAttention, lipschitz=0.9))))
    options |= {"weight_decay": DECAY, "epochs": epochs, "n_iter_no_change": epochs}
    result = []
    for rate in RATES:
        cells = f"{rate:g}", *setting
        for method in methods:
            against = None if method == "self" else ("self", *cells)
            result.append(Entry((method, *cells), partial(kinds[method], learning_rate=rate, **options), against, edges))
    return result


def run_repeats(entries: Sequence[Entry], task: Callable[[int], Task], repeats: int, jobs: int = -1) -> dict[Cells, list[Fit]]:
    """Every entry on every repeat, in processes that share the cores.

    Parameters
    ----------
    entries : sequence of Entry
    task : callable
        Number of the repeat -> Task; called in the processes.
    repeats, jobs : int
        As many processes as cores for jobs = -1.

    Returns
    -------
    dict
        Cells -> one Fit for each repeat.
    """
    from joblib import Parallel, delayed  # comes with scikit-learn

    calls = [delayed(measure)(entry, task, repeat) for repeat in range(repeats) for entry in entries]
    done = tqdm(Parallel(n_jobs=jobs, return_as="generator")(calls), "fits", len(calls), leave=False)
    fits: dict[Cells, list[Fit]] = {entry.cells: [] for entry in entries}
    for k, fit in enumerate(done):
        fits[entries[k % len(entries)].cells].append(fit)
    return fits


def measure(entry: Entry, task: Callable[[int], Task], repeat: int) -> Fit:
    """Train on one repeat, and count."""
    own = task(repeat)
    classifier = entry.make(random_state=repeat)
    seen, seen_in_test = ({"edges": own.edges}, {"edges": own.test_edges}) if entry.edges else ({}, {})
    began = time.process_time()
    classifier.fit(own.tokens, own.labels, **seen)
    seconds = time.process_time() - began
    if getattr(classifier, "interrupted_", False):  # it keeps what it learned; as a result it would be wrong
        raise KeyboardInterrupt
    accuracy = float(np.mean(classifier.predict(own.test_tokens, **seen_in_test) == own.test_labels))
    history = getattr(classifier, "history_", {"loss": []})
    return Fit(accuracy, np.array(history["loss"], dtype=float), seconds)


def paired(a: Sequence[Fit], b: Sequence[Fit]) -> tuple[float, float]:
    """Mean difference of accuracies a - b over common repeats, and half its 95 % interval.

    Examples
    --------
    >>> a, b = ([Fit(x, np.empty(0), 0.0) for x in values] for values in ([0.9, 0.8, 0.9], [0.8, 0.8, 0.8]))
    >>> mean, half = paired(a, b)
    >>> print(f"{mean:.4f} {half:.4f}")
    0.0667 0.1434
    """
    difference = np.array([x.accuracy - y.accuracy for x, y in zip(a, b)])
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(student.ppf(0.975, len(difference) - 1) * error)


def said(a: str, b: str, difference: tuple[float, float]) -> str:
    """In words: whether a is more accurate than b, with the interval.

    Examples
    --------
    >>> said("metric", "self", (0.022, 0.041))
    'no difference of metric from self is shown (+0.0220 ± 0.0410)'
    """
    center, half = difference
    interval = f"({center:+.4f} ± {half:.4f})"
    if abs(center) <= half:
        return f"no difference of {a} from {b} is shown {interval}"
    return f"{a} is {'more' if center > 0 else 'less'} accurate than {b} {interval}"


def metric_against_self(fits: Mapping[Cells, Sequence[Fit]], *setting: str) -> str:
    """Two sentences: at the source paper's learning rate, and each at its best."""
    tops = best(fits, "metric", *setting), best(fits, "self", *setting)
    names = [f"{method} (at {rate})" for method, rate, *_ in tops]
    same = paired(fits["metric", PAPER, *setting], fits["self", PAPER, *setting])
    where = f" ({', '.join(setting)})" if setting else ""
    return (
        f"At the source paper's learning rate{where} {said('metric', 'self', same)};\n"
        f"each at its best rate (by these very tests), {said(*names, paired(*(fits[top] for top in tops)))}."
    )


def best(fits: Mapping[Cells, Sequence[Fit]], method: str | None = None, *setting: str) -> Cells:
    """Cells of the highest mean accuracy, of one method or of all that were trained, in one setting or in all."""
    trained = [cells for cells, some in fits.items() if len(some[0].loss)]
    chosen = [c for c in trained if method in (None, c[0]) and (not setting or c[2:] == setting)]
    return max(chosen, key=lambda cells: mean(fits[cells]))


def mean(fits: Sequence[Fit]) -> float:
    """Mean accuracy."""
    return float(np.mean([fit.accuracy for fit in fits]))


def rows(entries: Sequence[Entry], fits: Mapping[Cells, Sequence[Fit]]) -> list[list[str]]:
    """The table under the cells' own columns and `COLUMNS`."""
    result = []
    for entry in entries:
        some = fits[entry.cells]
        spread = np.std([fit.accuracy for fit in some], ddof=1)
        difference = "" if entry.against is None else "{:+.4f} ± {:.4f}".format(*paired(some, fits[entry.against]))
        losses = loss(some)
        at = [f"{losses[min(epoch, len(losses)) - 1]:.3f}" if len(losses) else "" for epoch in (100, len(losses))]
        seconds = f"{np.median([fit.seconds for fit in some]):.1f}"
        result.append([*entry.cells, f"{mean(some):.4f}", f"{spread:.4f}", difference, *at, seconds])
    return result


def loss(fits: Sequence[Fit]) -> np.ndarray:
    """Mean loss over repeats at every epoch; one that ended keeps its last."""
    longest = max(len(fit.loss) for fit in fits)
    if not longest:
        return np.empty(0)
    return np.mean([np.append(fit.loss, np.full(longest - len(fit.loss), fit.loss[-1])) for fit in fits], axis=0)


def draw_losses(ax, fits: Mapping[Cells, Sequence[Fit]], shown: Mapping[str, Cells], what: str) -> None:
    """Mean training loss against epochs, at the source paper's learning rate; the legend says what it was worth."""
    looks = (style.INK, "-"), ("0.55", "-"), (style.ACCENT, "-"), (style.ACCENT, "--"), ("0.55", ":")
    for (name, cells), (color, line) in zip(shown.items(), looks):
        losses = loss(fits[cells])
        label = f"{name}: {mean(fits[cells]):.3f}"
        ax.plot(np.arange(1, len(losses) + 1), losses, color=color, linestyle=line, label=label)
    ax.set_yscale("log")
    ahead, half = paired(fits[shown["metric"]], fits[shown["self"]])
    title = f"{what}: metric minus self {ahead:+.3f} ± {half:.3f}"
    style.finish(ax, title, f"epoch (learning rate {PAPER})", "training loss (nats per token)")
    ax.legend(frameon=False, fontsize=8, title="test accuracy", title_fontsize=8)
