"""attnflow parity and info: what this machine runs, and whether its engines agree."""

from __future__ import annotations

import argparse
import math
import os
import sys
from importlib import metadata

from .. import checks
from ..kernels import backends
from ..kernels.numba_engine.tiles import absorb
from ..kernels.reference_engine import LARGEST
from ..studies import parity
from ..studies.parity_cases import cases


def add_to(commands) -> None:
    """The commands' arguments."""
    check = commands.add_parser("parity", help="every engine against the reference, on every kind of layer")
    check.add_argument("--tokens", type=int, default=1000, help="number of tokens (default 1000)")
    check.set_defaults(command=_parity)

    commands.add_parser("info", help="versions, engines found, why the others are not").set_defaults(command=_info)


def _parity(options: argparse.Namespace) -> int:
    size = checks.integer(options.tokens, "tokens", least=32, largest=math.isqrt(LARGEST))
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
