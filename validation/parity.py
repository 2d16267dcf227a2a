"""Every engine against the dense reference: each normalisation and sparse law, masks, graphs, several heads."""

from __future__ import annotations

from string import ascii_lowercase

import attnflow as af
from attnflow.studies.parity_cases import cases

from . import Claim, Report

TOKENS = 1000
MOST = {"float64": 1e-11, "float32": 1e-4}  # differences; Sinkhorn's engines each stop at 1e-12, and 1e-5


def run() -> Report:
    """A row for each layer: what engines differ by, or a letter for what they say in refusing it."""
    present = [name for name, state in af.backends().items() if state.startswith("available")]
    rows, claims, refusals = [], [], {}
    for words, layer, tokens, values in cases(TOKENS):
        table = {row.engine: row for row in af.parity(layer, tokens, values, present).rows}
        cells = []
        for row in table.values():
            if not row.ran:
                refusals.setdefault(row.note, f"({ascii_lowercase[len(refusals)]})")
            cells.append(f"{row.difference:.0e}" if row.ran else refusals[row.note])
        rows.append([words, *cells])
        most = MOST[layer.layers[0].dtype if isinstance(layer, af.MultiHead) else layer.dtype]
        ran = [row for row in table.values() if row.ran]
        worst = max(row.difference for row in ran)
        names = ", ".join(row.engine for row in ran)
        held = bool(len(ran) > 1 and worst <= most)
        claims.append(Claim(f"{words}: what {names} differ by", f"{worst:.0e}", f"at most {most:.0e}", held))
    missing = [f"{name} {state.partition(': ')[2]}" for name, state in af.backends().items() if name not in present]
    text = "\n".join([
        f"One layer on {TOKENS} tokens: the largest difference of each engine from the dense reference in float64, relative to the",
        f"largest value. Not here: {'; '.join(missing) or 'none'}. Refused:",
        "",
        *(f"- {letter} {note}" for note, letter in refusals.items()),
    ])  # fmt: skip
    return Report("Every engine on every kind of layer", text, ["layer", *present], rows, claims)
