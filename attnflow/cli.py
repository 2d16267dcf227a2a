"""The commands: attnflow converge | propagate | spectrum | parity | info."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from . import checks, files
from .attention import Attention, MultiHead, heads_of, perplexity
from .kernels import backends
from .kernels.numba_engine.tiles import absorb
from .norms import norm
from .particles import propagate
from .studies import parity, words
from .studies.files import read_study
from .studies.parity_cases import cases
from .studies.signals import Signals, Terminated

_ALONE = 5  # tokens of a mode that is none of the whole
_SCREENED = {
    "region": "where the density makes column sums large",
    "random": "at random: column sums differ by their noise",
    "ties": "the first ones: column sums are equal",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 when all is done, 2 for bad input, 1 for what failed while running, 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = _parser().parse_args(arguments)
    options.running = False  # until a command has read and checked its input
    try:
        with Signals(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            return options.command(options)
    except KeyboardInterrupt:
        print("attnflow: interrupted; run the same command again", file=sys.stderr)
        return 130
    except Terminated as error:
        _say(error)
        return error.code
    except Exception as error:
        _say(error)
        # cells of a study that fail say how far it came
        return 1 if options.running or hasattr(error, "__notes__") else 2


def _say(error: BaseException) -> None:
    """What happened, in one line."""
    known = (ValueError, TypeError, OSError, ImportError, NotImplementedError, RuntimeError, Terminated)
    text = str(error) if isinstance(error, known) and str(error) else f"{type(error).__name__}: {error}"
    print("attnflow: " + " ".join("; ".join([text, *getattr(error, "__notes__", ())]).split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attnflow", description="The drift-diffusion limit of attention.")
    commands = parser.add_subparsers(required=True, metavar="command")

    converge = commands.add_parser("converge", help="layers against their limit equation, with predicted error bars")
    converge.add_argument("study", nargs="?", metavar="STUDY.toml", help="study file; the built-in study when absent")
    converge.add_argument("--out", default="attnflow-output", help="folder for converge.png, converge.csv, study.sqlite")
    converge.add_argument("--jobs", type=int, default=1, help="processes (default 1, which uses all cores as threads)")
    converge.set_defaults(command=_converge)

    run = commands.add_parser("propagate", help="your own tokens through attention layers")
    _add_layer(run)
    run.add_argument("--values", metavar="V.npy", help="(N,) or (N, c) features; the tokens themselves when absent")
    run.add_argument(
        "--heads", type=int, help="heads that divide the columns among them, averaged (without it: one for each --epsilon)"
    )
    run.add_argument("--layers", type=int, default=20)
    run.add_argument("--out", default="attnflow-output", help="folder for propagate.npz, propagate.csv, propagate.png")
    run.set_defaults(command=_propagate)

    modes = commands.add_parser("spectrum", help="what attention on your own tokens forgets last")
    _add_layer(modes)
    modes.add_argument("-k", type=int, default=10, help="eigenvalues (default 10)")
    modes.add_argument("--out", default="attnflow-output", help="folder for spectrum.npz, spectrum.csv, spectrum.png")
    modes.set_defaults(command=_spectrum)

    check = commands.add_parser("parity", help="every engine against the reference, on every kind of layer")
    check.add_argument("--tokens", type=int, default=1000, help="number of tokens (default 1000)")
    check.set_defaults(command=_parity)

    commands.add_parser("info", help="versions, engines found, why the others are not").set_defaults(command=_info)
    return parser


def _add_layer(command: argparse.ArgumentParser) -> None:
    """The tokens and the layer on them."""
    command.add_argument("tokens", metavar="TOKENS.npy", help="(N, n) array")
    command.add_argument("--pseudometric", default="squared-distance", choices=sorted(words.PSEUDOMETRICS))
    command.add_argument(
        "--epsilon", default="auto", help="temperature, 'auto': median perplexity 30 (default), or E1,E2,...: one for each head"
    )
    command.add_argument("--normalization", default="softmax", metavar="NAME[:NUMBER]", help=words.NORMALIZATIONS)
    command.add_argument("--mask", metavar="causal|M.npy", help="who sees whom: 'causal', or (N,) labels, or (E, 2) edges")


def _converge(options: argparse.Namespace) -> int:
    study = read_study(options.study)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {options.jobs}")
    out = _folder(options.out)
    result = study.run(out / "study.sqlite", n_jobs=options.jobs)
    if result.resumed:
        print(f"{result.resumed} finished cells taken from {out / 'study.sqlite'}")
    if result.message != "finished":
        print(f"attnflow: {result.message}", file=sys.stderr)
        return 130
    options.running = True
    print(result.summary())
    result.to_csv(out / "converge.csv")
    figure = _figure(9.6, 3.9)
    result.plot(figure.subplots(1, 2))
    _save(figure, out / "converge.png")
    print(f"wrote {out / 'converge.png'} and {out / 'converge.csv'}")
    return 0


def _layer(options: argparse.Namespace, tokens: np.ndarray, heads: int | None = None) -> Attention | MultiHead:
    layer, notes = words.make_layer(tokens, options.pseudometric, options.epsilon, options.normalization, heads, options.mask)
    for note in notes:
        print(note)
    return layer


def _propagate(options: argparse.Namespace) -> int:
    tokens = checks.points(_load(options.tokens, "tokens"), "tokens")
    values = tokens if options.values is None else checks.features(_load(options.values, "values"), "values", len(tokens))
    layers = checks.integer(options.layers, "layers", least=1)
    layer = _layer(options, tokens, options.heads)
    options.running = True
    run = propagate(layer, tokens, values, layers, progress=True)
    assert run.layers is not None
    if run.status:
        print(f"attnflow: {run.message}", file=sys.stderr)
    share = np.full(len(tokens), 1 / len(tokens))
    spread = np.array([norm(share, y - y.mean(axis=0)) for y in run.y])
    attended = [perplexity(head.bind(tokens)) for head in heads_of(layer)]
    out = _folder(options.out)
    run.save(out / "propagate.npz")
    with files.whole(out / "propagate.csv", "w") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "t", "spread"])
        writer.writerows(zip(run.layers.tolist(), run.t.tolist(), spread.tolist()))
    from .plotting.tokens import plot_tokens

    figure = _figure(11.5, 3.6)
    plot_tokens(run, spread, np.concatenate(attended), figure.subplots(1, 3))
    _save(figure, out / "propagate.png")
    print(f"{len(tokens)} tokens, {run.layers[-1]} layers, t = {run.t[-1]:.4g}, engine {run.stats['engine']}")
    print(f"spread of the features: {spread[0]:.4g} at the start, {spread[-1]:.4g} at the end")
    for k, (rows, stats) in enumerate(zip(attended, run.stats.get("heads", [run.stats]))):
        low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75])
        print(
            f"{f'head {k + 1}: ' * (len(attended) > 1)}perplexity: median {middle:.1f}, quartiles {low:.1f} and {high:.1f}",
            end="",
        )
        print(f" of {len(tokens)} tokens{_chosen(stats)}")
    print(f"wrote {out / 'propagate.npz'}, {out / 'propagate.csv'} and {out / 'propagate.png'}")
    return {0: 0, 1: 130}.get(run.status, 1)


def _chosen(stats: dict) -> str:
    """What a normalisation chose, where it chooses."""
    told = []
    if "keys_per_query" in stats:
        told.append(f"{stats['keys_per_query']:.4g} keys for each")
    if "epsilon" in stats:
        told.append(f"epsilon = {stats['epsilon']:.4g} for a fraction of {stats['fraction']:.4g}")
    if "kept" in stats:
        told.append(f"{stats['kept']} keys kept, {_SCREENED[stats['screening']]}")
    return "".join(f"; {word}" for word in told)


def _spectrum(options: argparse.Namespace) -> int:
    tokens = checks.points(_load(options.tokens, "tokens"), "tokens")
    k = checks.integer(options.k, "k", least=1, largest=len(tokens) - 2)
    layer = _layer(options, tokens)
    if isinstance(layer, MultiHead):
        raise ValueError(f"epsilon must be one number for a spectrum, got {options.epsilon!r}")
    options.running = True
    spectrum = layer.spectrum(tokens, k, progress=True)
    share = spectrum.weight * np.abs(spectrum.eigenvectors) ** 2
    held = 1 / np.square(share).sum(axis=1)  # tokens that would carry a mode if all did alike
    rows = list(zip(range(k), spectrum.eigenvalues.tolist(), spectrum.rates.tolist(), held.tolist()))
    print(f"{'mode':>4}  {'eigenvalue':>14}  {'rate':>12}  {'tokens':>8}")
    for index, eigenvalue, rate, tokens_held in rows:
        print(f"{index:4d}  {eigenvalue:14.10f}  {rate:12.5g}  {tokens_held:8.0f}")
    if (alone := int((held[1:] < _ALONE).sum())) and len(tokens) > 10 * _ALONE:
        print(f"{alone} of the modes are of fewer than {_ALONE} tokens, far from all others: a larger --epsilon connects them")
    out = _folder(options.out)
    with files.whole(out / "spectrum.npz") as file:
        np.savez(file, eigenvalues=spectrum.eigenvalues, rates=spectrum.rates, eigenvectors=spectrum.eigenvectors)
    with files.whole(out / "spectrum.csv", "w") as file:
        writer = csv.writer(file)
        writer.writerow(["mode", "eigenvalue", "rate", "tokens"])
        writer.writerows(rows)
    from .plotting.spectra import plot_modes, plot_rates

    drawable = np.isrealobj(spectrum.eigenvectors) and (k > 2 or (k == 2 and tokens.shape[1] == 2))
    axes = _figure(9.6 if drawable else 4.8, 3.9).subplots(1, 1 + drawable, squeeze=False)[0]
    for draw, ax in zip((plot_rates, plot_modes), axes):
        draw(spectrum, ax)
    _save(axes[0].figure, out / "spectrum.png")
    print(f"wrote {out / 'spectrum.npz'}, {out / 'spectrum.csv'} and {out / 'spectrum.png'}")
    return 0


def _parity(options: argparse.Namespace) -> int:
    size = checks.integer(options.tokens, "tokens", least=32)
    options.running = True
    for case in cases(size):
        print(f"{case.words}, {size} tokens\n{parity(case.layer, case.tokens, case.values)}\n")
    return 0


def _info(options: argparse.Namespace) -> int:
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores")
    for package in ("attnflow", "numpy", "scipy", "numba", "matplotlib", "sympy", "tqdm", "cloudpickle"):
        try:
            print(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package} not installed")
    print(f"compiled loops are {'kept in ' + kept if (kept := absorb.stats.cache_path) else 'not kept'}")
    for name, state in backends().items():
        print(f"engine {name}: {state}")
    return 0


def _load(path: str, name: str) -> np.ndarray:
    """A numeric array from an .npy file."""
    try:
        return checks.array(files.read_array(path, name), name)
    except FileNotFoundError:
        raise ValueError(f"{name} must be an .npy file, but there is none at {path!r}") from None


def _folder(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _figure(width: float, height: float):
    """A figure without pyplot: no window can open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure, path: Path) -> None:
    with files.whole(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)


if __name__ == "__main__":
    sys.exit(main())
