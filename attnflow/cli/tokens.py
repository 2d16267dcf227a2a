"""attnflow propagate and spectrum: attention on a user's own tokens."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import Any

import numpy as np

from .. import checks, files
from ..attention import Attention, MultiHead, heads_of, perplexity
from ..attention.names import NORMALIZATIONS
from ..norms import norm
from ..particles import ErrorBars, error_bars, propagate
from ..particles.responses import probes
from ..provenance import described
from ..solution import load as load_solution
from ..studies import words
from .output import folder, load, new_figure, running, save, writable

_MOST = 300.0  # seconds that error bars may take unasked
_WORDS = ("pseudometric", "epsilon", "normalization", "heads", "mask")  # of `words.make_layer`
_SAME = 1e-9  # of the largest feature, by which a run may differ when it is done again: elsewhere numbers round otherwise
_ALONE = 5  # tokens of a mode that is none of the whole
_SCREENED = {
    "region": "where the density makes column sums large",
    "random": "at random: column sums differ by their noise",
    "ties": "the first ones: column sums are equal",
}


def add_to(commands) -> None:
    """The commands' arguments."""
    run = commands.add_parser("propagate", help="your own tokens through attention layers")
    _add_layer(run)
    run.add_argument("--values", metavar="V.npy", help="(N,) or (N, c) features; the tokens themselves when absent")
    run.add_argument(
        "--heads", type=int, help="heads that divide the columns among them, averaged (without it: one for each --epsilon)"
    )
    run.add_argument("--layers", type=int, default=20)
    run.add_argument(
        "--error-bars",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=f"standard errors and bias, which take many times as long as the layers (default: where that is below {_MOST:g} s)",
    )
    run.add_argument("--out", default="attnflow-output", help="folder for propagate.npz, propagate.csv, propagate.png")
    run.set_defaults(command=_propagate)

    modes = commands.add_parser("spectrum", help="what attention on your own tokens forgets last")
    _add_layer(modes)
    modes.add_argument("-k", type=int, help="eigenvalues (default 10, or all but two of fewer tokens)")
    modes.add_argument("--out", default="attnflow-output", help="folder for spectrum.npz, spectrum.csv, spectrum.png")
    modes.set_defaults(command=_spectrum)


def _add_layer(command: argparse.ArgumentParser) -> None:
    """The tokens and the layer on them."""
    command.add_argument("tokens", metavar="TOKENS.npy", help="(N, n) array")
    command.add_argument("--pseudometric", default="squared-distance", choices=sorted(words.PSEUDOMETRICS))
    command.add_argument(
        "--epsilon", default="auto", help="temperature, 'auto': median perplexity 30 (default), or E1,E2,...: one for each head"
    )
    command.add_argument("--normalization", default="softmax", metavar="NAME[:NUMBER]", help=NORMALIZATIONS)
    command.add_argument("--mask", metavar="causal|M.npy", help="who sees whom: 'causal', or (N,) labels, or (E, 2) edges")


def _layer(options: argparse.Namespace, tokens: np.ndarray) -> tuple[Attention | MultiHead, dict[str, Any]]:
    """The layer, and the words that make it again: a temperature that was chosen as a number, a mask as what its file held."""
    asked: dict[str, Any] = {name: getattr(options, name, None) for name in _WORDS}
    asked["mask"] = words.read_mask(options.mask)
    layer, notes = words.make_layer(tokens, **asked)
    for note in notes:
        print(note)
    asked["mask"] = words.kept_mask(asked["mask"])
    return layer, asked | ({"epsilon": ",".join(repr(head.epsilon) for head in heads_of(layer))} if notes else {})


def _propagate(options: argparse.Namespace) -> int:
    writable(options.out)
    tokens = checks.points(load(options.tokens, "tokens"), "tokens")
    values = tokens if options.values is None else checks.features(load(options.values, "values"), "values", len(tokens))
    layers = checks.integer(options.layers, "layers", least=1)
    layer, asked = _layer(options, tokens)
    with running(options):
        run = propagate(layer, tokens, values, layers, progress=True)
    out = folder(options.out)
    run.provenance["command"] = asked
    assert run.layers is not None
    if run.status:
        print(f"attnflow: {run.message}", file=sys.stderr)
    share = np.full(len(tokens), 1 / len(tokens))
    spread = np.array([norm(share, y - y.mean(axis=0)) for y in run.y])
    attended = [perplexity(head.bind(tokens)) for head in heads_of(layer)]
    run.save(out / "propagate.npz")
    with files.whole(out / "propagate.csv", "w") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "t", "spread"])
        writer.writerows(zip(run.layers.tolist(), run.t.tolist(), spread.tolist()))
    from ..plotting.tokens import plot_tokens

    bars, sure = _error_bars(layer, tokens, values, run, options.error_bars)
    panels = 3 + (bars is not None)
    figure = new_figure(3.84 * panels, 3.6)
    plot_tokens(run, spread, np.concatenate(attended), figure.subplots(1, panels), bars)
    save(figure, out / "propagate.png")
    print(f"{len(tokens)} tokens, {run.layers[-1]} layers, t = {run.t[-1]:.4g}, engine {run.stats['engine']}")
    print(f"spread of the features: {spread[0]:.4g} at the start, {spread[-1]:.4g} at the end")
    print(sure)
    for k, (rows, stats) in enumerate(zip(attended, run.stats.get("heads", [run.stats]))):
        low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75])
        print(
            f"{f'head {k + 1}: ' * (len(attended) > 1)}perplexity: median {middle:.1f}, quartiles {low:.1f} and {high:.1f}",
            end="",
        )
        print(f" of {len(tokens)} tokens{_chosen(stats)}")
    print(f"wrote {out / 'propagate.npz'}, {out / 'propagate.csv'} and {out / 'propagate.png'}")
    return {0: 0, 1: 130}.get(run.status, 1)


def rerun_solution(path: str, out: str | None = None) -> int:
    """Do again what `attnflow propagate` did, from its file alone, and say by how much the features differ.

    Parameters
    ----------
    path : str
        A propagate.npz: tokens, features at the start, and the layer in words, with the labels or edges of a mask.
    out : str, optional
        Folder for the new propagate.npz.

    Returns
    -------
    int
        0 where features agree to 1e-9 of the largest, else 1.

    Raises
    ------
    ValueError
        If the file was not made by the command, or its words make another layer.
    """
    if out is not None:
        writable(out)
    wanted = "file must be propagate.npz of attnflow propagate, or study.sqlite of attnflow converge"
    try:
        before = load_solution(path)
    except ValueError as error:
        raise ValueError(f"{wanted}, got {path!r}: {error}") from None
    told: Any = before.provenance.get("parameters")
    asked: Any = before.provenance.get("command")
    known = isinstance(told, dict) and {"layer", "layers"} <= set(told) and isinstance(asked, dict) and {*asked} == {*_WORDS}
    if before.points is None or not known:
        raise ValueError(f"{wanted}, got {path!r}, which lacks what it was given")
    layers = checks.integer(told["layers"], "layers")
    layer, _ = words.make_layer(before.points, **asked)
    if json.loads(json.dumps(described(layer))) != told["layer"]:
        raise ValueError(f"file must be of the layer that its words make, got {path!r}, whose words make another one")
    run = propagate(layer, before.points, before.y[0], layers, progress=True)
    common = min(len(run.y), len(before.y))
    size = float(np.abs(before.y).max()) or 1.0
    difference = float(np.abs(run.y[:common] - before.y[:common]).max()) / size
    now = run.provenance["versions"]
    for name, version in sorted(before.provenance.get("versions", {}).items()):
        if now.get(name) != version:
            print(f"{name} {now.get(name)}, then {version}")
    print(f"{common} saved layers differ by at most {difference:.2g} of the largest feature")
    if out is not None:
        run.provenance["command"] = asked
        run.save(folder(out) / "propagate.npz")
        print(f"wrote {folder(out) / 'propagate.npz'}")
    return 0 if difference <= _SAME and run.status == 0 else 1


def _error_bars(layer: Attention | MultiHead, tokens, values, run, wanted: bool | None) -> tuple[ErrorBars | None, str]:
    """Of the features after the last layer, where they are known and wanted (None: if they are quick); and in words."""
    if run.status or len(tokens) < 2:
        return None, "relative standard error: none of a run that did not finish, or of one token"
    if wanted is False:
        return None, "relative standard error: none, by --no-error-bars"
    seconds = _seconds(layer, tokens, values.shape[1] if values.ndim > 1 else 1, int(run.layers[-1]))
    if wanted is None and seconds > _MOST:
        return None, f"relative standard error: none, it would take about {seconds:.2g} s; --error-bars computes it"
    try:
        bars = error_bars(layer, tokens, values, int(run.layers[-1]), progress=True, rng=0)
    except (ValueError, NotImplementedError) as error:
        return None, f"relative standard error: none; {error}"
    except KeyboardInterrupt:  # the layers are done
        return None, "relative standard error: none, it was interrupted"
    bias = f"{bars.bias_share:.2g}, from two temperatures" if bars.bias is not None else "none: no limit equation"
    return bars, f"relative standard error {bars.noise_share:.2g}, for other tokens of the same density; bias {bias}"


def _seconds(layer: Attention | MultiHead, tokens: np.ndarray, columns: int, layers: int) -> float:
    """About what error bars take: as many layers of a column for each probe, and twice as many of half the step."""
    carried = columns * min(len(tokens), probes(columns))
    parts = [(head, more, layers * times) for head in heads_of(layer) for more, times in ((carried, 1), (columns, 2))]
    return sum(min(head.plan(tokens, more, deep).seconds.values(), default=0.0) for head, more, deep in parts)


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


def _plain(value: complex) -> complex | float:
    """The real part of what has no other: weights that are not symmetric may still have real eigenvalues."""
    return value if value.imag else value.real


def _spectrum(options: argparse.Namespace) -> int:
    writable(options.out)
    tokens = checks.points(load(options.tokens, "tokens"), "tokens")
    k = min(10, max(len(tokens) - 2, 1)) if options.k is None else options.k
    layer, _ = _layer(options, tokens)
    if isinstance(layer, MultiHead):
        raise ValueError(f"epsilon must be one number for a spectrum, got {options.epsilon!r}")
    with running(options):
        spectrum = layer.spectrum(tokens, k, progress=True)
    out = folder(options.out)
    share = spectrum.weight * np.abs(spectrum.eigenvectors) ** 2
    held = 1 / np.square(share).sum(axis=1)  # tokens that would carry a mode if all did alike
    values, rates = (list(map(_plain, numbers.tolist())) for numbers in (spectrum.eigenvalues, spectrum.rates))
    rows = list(zip(range(k), values, rates, held.tolist()))
    wide = 14 * (2 if any(isinstance(value, complex) for value in values) else 1)
    print(f"{'mode':>4}  {'eigenvalue':>{wide}}  {'rate':>{wide}}  {'tokens':>8}")
    for index, eigenvalue, rate, tokens_held in rows:
        print(f"{index:4d}  {eigenvalue:{wide}.10f}  {rate:{wide}.5g}  {tokens_held:8.0f}")
    if (alone := int((held[1:] < _ALONE).sum())) and len(tokens) > 10 * _ALONE:
        print(f"{alone} of the modes are of fewer than {_ALONE} tokens, far from all others: a larger --epsilon connects them")
    with files.whole(out / "spectrum.npz") as file:
        np.savez(file, eigenvalues=spectrum.eigenvalues, rates=spectrum.rates, eigenvectors=spectrum.eigenvectors)
    with files.whole(out / "spectrum.csv", "w") as file:
        writer = csv.writer(file)
        writer.writerow(["mode", "eigenvalue", "rate", "tokens"])
        writer.writerows(rows)
    from ..plotting.spectra import plot_modes, plot_rates

    drawable = np.isrealobj(spectrum.eigenvectors) and (k > 2 or (k == 2 and tokens.shape[1] == 2))
    axes = new_figure(9.6 if drawable else 4.8, 3.9).subplots(1, 1 + drawable, squeeze=False)[0]
    for draw, ax in zip((plot_rates, plot_modes), axes):
        draw(spectrum, ax)
    save(axes[0].figure, out / "spectrum.png")
    print(f"wrote {out / 'spectrum.npz'}, {out / 'spectrum.csv'} and {out / 'spectrum.png'}")
    return 0
