"""attnflow learn and anatomy: metrics learned from labels, or found in a pretrained transformer."""

from __future__ import annotations

import argparse
import csv

import numpy as np

from .. import checks, files
from ..learning.head_survey import survey
from ..learning.sentences import SENTENCES, read_sentences
from .output import folder, new_figure, running, save, writable


def add_to(commands) -> None:
    """The commands' arguments."""
    learn = commands.add_parser(
        "learn", help="the metric behind the labels of your own tokens, by a classifier made of attention"
    )
    learn.add_argument("data", metavar="DATA.npz", help="arrays X (N, n) and y (N,)")
    learn.add_argument("--target", default="y", metavar="NAME", help="of the array of labels (default y)")
    learn.add_argument("--attention", default="metric", choices=("l2", "metric", "self"), help="(default metric)")
    learn.add_argument(
        "--lipschitz", type=float, help="below 1: the learned map does not fold, so that it has a limit equation"
    )
    learn.add_argument("--learning-rate", type=float, default=1e-3, help="(default 0.001; l2 needs none)")
    learn.add_argument("--quiet", action="store_true", help="no progress bar")
    learn.add_argument("--out", default="attnflow-output", help="folder for learn.png, learn.csv, learn.safetensors")
    learn.set_defaults(command=_learn)

    heads = commands.add_parser("anatomy", help="the heads of a BERT-type model: which are metrics, and how far from a limit")
    heads.add_argument("model", metavar="MODEL_FOLDER", help="with model.safetensors, config.json and the tokenizer's files")
    heads.add_argument("--text", metavar="FILE", help="UTF-8, a sentence a line; thirty sentences of attnflow's when absent")
    heads.add_argument("--out", default="attnflow-output", help="folder for anatomy.csv and anatomy.png")
    heads.set_defaults(command=_anatomy)


def _learn(options: argparse.Namespace) -> int:
    accepted, what = {"X", options.target}, f"an .npz file of tokens X and labels {options.target}"
    try:
        arrays = files.read_archive(options.data, accepted, "data", what)
    except FileNotFoundError:
        raise ValueError(f"data must be {what}, but there is none at {options.data!r}") from None
    if missing := sorted(accepted - set(arrays)):
        raise ValueError(f"data must be {what}, got {options.data!r} without {', '.join(missing)}")
    X, y = checks.points(arrays["X"], "X"), arrays[options.target]
    if y.shape != (len(X),):
        raise ValueError(f"{options.target} must have shape ({len(X)},), one label for each row of X, got {y.shape}")
    model = _classifier(options)
    order = np.random.default_rng(0).permutation(len(X))
    seen, held_out = order[len(X) // 5 :], order[: len(X) // 5]
    if not 0 < len(held_out) or not set(y[held_out]) <= set(y[seen]):
        raise ValueError(f"{options.target} must hold each class several times, got {checks.short(y)}")
    writable(options.out)
    with running(options):
        model.fit(X[seen], y[seen])
    out = folder(options.out)
    rows = [("attention", options.attention), ("tokens", len(seen)), ("epochs", model.n_iter_), ("epsilon", model.epsilon_)]
    rows += [
        (f"accuracy on {len(part)} {name}", model.score(X[part], y[part]))
        for name, part in (("seen", seen), ("held out", held_out))
    ]
    rows += list(model.pseudometric_.defects(X[seen]).items())
    for name, value in rows:
        print(f"{name:24} {value if isinstance(value, (str, int)) else format(value, '.4g')}")
    with files.whole(out / "learn.csv", "w") as file:
        csv.writer(file).writerows([("quantity", "value"), *rows])
    model.save(out / "learn.safetensors")
    from ..plotting.metrics import plot_learning

    panels = 4 if X.shape[1] == 2 else 2
    figure = new_figure(4.2 * panels, 3.9)
    plot_learning(model, X[seen], y[seen], figure.subplots(1, panels))
    save(figure, out / "learn.png")
    print(f"wrote {out / 'learn.png'}, {out / 'learn.csv'} and {out / 'learn.safetensors'}")
    return 130 if model.interrupted_ else 0


def _classifier(options: argparse.Namespace):
    """What is asked for; L2 attention is trained by L-BFGS, which needs no PyTorch."""
    from ..learning import L2Attention, MetricAttention, SelfAttention

    common = {"learning_rate": options.learning_rate, "random_state": 0, "progress": not options.quiet}
    if options.lipschitz is not None and options.attention != "metric":
        raise ValueError(f"--lipschitz must be left out for {options.attention} attention, got {options.lipschitz!r}")
    if options.attention == "metric":
        return MetricAttention(lipschitz=options.lipschitz, **common)
    return SelfAttention(**common) if options.attention == "self" else L2Attention(solver="lbfgs", **common)


def _anatomy(options: argparse.Namespace) -> int:
    sentences = SENTENCES if options.text is None else read_sentences(options.text)
    writable(options.out)
    with running(options):
        found = survey(options.model, sentences, progress=True)
    out = folder(options.out)
    print(found.summary())
    found.to_csv(out / "anatomy.csv")
    figure = new_figure(9.6, 3.9)
    found.plot(figure.subplots())
    save(figure, out / "anatomy.png")
    print(f"wrote {out / 'anatomy.csv'} and {out / 'anatomy.png'}")
    return 0
