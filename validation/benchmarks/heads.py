"""Sums with the columns of attention heads, and with few columns of values, beside NumPy, PyTorch and JAX."""

from __future__ import annotations

from validation import Report

from .sums import run_table

OURS = "attnflow, dense"
_ALL = ("jax", "torch", "torch SDPA", "numpy")
PEERS = {
    f"{kind} n={dim} c={dim} N=10000 f{bits}": dict.fromkeys(_ALL, 1.0)
    for kind in ("dense", "inner")
    for bits in (64, 32)
    for dim in (16, 32, 64)
} | {f"dense n={dim} c=3 N=10000 f{bits}": {"jax": 2.2} for bits in (64, 32) for dim in (2, 3)}


def run(rounds: int = 5) -> Report:
    """The table; a goal of 1.0 is the least, 1.3 is aimed at."""
    return run_table("Sums with the columns of attention heads beside other libraries", "", OURS, PEERS, rounds)
