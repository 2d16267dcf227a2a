"""Sums of which few pairs matter, and of very many tokens: beside a k-d tree, a kernel density and a raw FINUFFT pair."""

from __future__ import annotations

from validation import Report

from .sums import run_table

PEERS = {
    "near n=2 N=10000": {"cKDTree": None, "KernelDensity": None},
    "near n=2 N=100000": {"cKDTree": 5},
    "near n=3 N=100000": {"cKDTree": 5},
    "wide n=2 N=1000000": {"finufft pair": 0.8},  # at most 1.25 times as long as the pair
}


def run(rounds: int = 5) -> Report:
    """The table."""
    text = (
        "cKDTree: query_pairs to the reach that leaves out 1e-12, and bincount, the tree built anew as ours sorts anew in its\n"
        "plan; KernelDensity: row sums of ones and of the values; finufft pair: type 1 and type 2 at rtol 1e-9, nothing else.\n"
        "Pairs are all N^2 of them, whether or not they were looked at."
    )
    return run_table("Sums over near keys and over many tokens beside other libraries", text, "attnflow", PEERS, rounds)
