"""The equation solvers timed beside other libraries, at the same error.

An error is the largest over a method's own nodes, relative to the largest |H| there. Our time is a whole warm
`solve`, its choice of grid and its error estimate included; a peer's is its time stepping alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import shorten

from validation import Claim, Report

from .machine import describe_machine
from .pde_cases import CASES
from .processes import Worker

OURS = "attnflow"

# py-pde's scipy steppers are for one dimension: their sparse factors make them slower than its own beyond
PEERS: dict[str, dict[str, float | None]] = {  # case: peer: how many times longer it should take; None: no goal
    "circle": {"BDF": 50, "Radau": 50, "py-pde": 1000, "py-pde, scipy stepper": 1000},
    "torus": {"py-pde": 300, "BDF": 50, "attnflow, finite volumes": None},
    "torus-fine": {"findiff": 3, "Fourier by FFT": 1, "Fourier by matrices": 1, "attnflow, finite volumes": None},
    "box": {"py-pde": 300, "scikit-fem": 20},
    "box-fine": {"scikit-fem": 20},
    "cube": {"expm_multiply": 10, "attnflow, finite volumes": None},
}
COLUMNS = (
    "case",
    "method",
    "setting",
    "error",
    "seconds",
    "fastest",
    "slowest",
    "setup (s)",
    "compiling (s)",
    "times ours",
    "goal",
    "met",
)


@dataclass
class Entry:
    """One method on one case: its worker and what it measured."""

    worker: Worker
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def run(self) -> float:
        event = self.worker.run()
        self.seconds.append(event["seconds"])
        self.errors.append(event["error"])
        return event["seconds"]


def run(cases: Sequence[str] | None = None, rounds: int = 5) -> Report:
    """Tune every method, then time ours, a peer, ours, the next peer, ... in rounds.

    Parameters
    ----------
    cases : sequence of str or None
        Some of CASES; None: all.
    rounds : int

    Returns
    -------
    Report
        Its claims are about errors only: goals are in the table, since machines differ.
    """
    rows, claims = [], []
    for name in cases or CASES:
        found, held = run_case(name, rounds)
        rows += found
        claims += held
    text = (
        "Every method is first tuned to the coarsest grid and loosest tolerance that reach the error of the case: the\n"
        "largest over its own nodes, relative to the largest |H| there. Each then runs in a process of its own on one\n"
        f"core and one thread; {rounds} rounds, ours before every peer; medians, fastest and slowest round, in seconds\n"
        "of processor time, which other programs disturb less than the clock on the wall.\n"
        "Our seconds are the whole warm solve, choice of grid and error estimate included; a peer's are its time\n"
        "stepping alone, factorisations included; assembly and other setup, and what a first solve takes longer, are apart\n"
        "(py-pde compiles in its setup).\n"
        f"{describe_machine()}"
    )
    return Report("Equation solvers beside other libraries, at the same error", text, COLUMNS, rows, claims)


def run_case(name: str, rounds: int) -> tuple[list[list[str]], list[Claim]]:
    """Rows of one case, ours first, and what they claim."""
    case, entries = CASES[name], {}
    try:
        for method in (OURS, *PEERS[name]):
            entries[method] = Entry(Worker(name, method))
        ours, ratios = entries[OURS], {method: [] for method in PEERS[name]}
        for _ in range(rounds):
            for method in PEERS[name]:
                own = ours.run() if ours.worker.solves else float("nan")
                if entries[method].worker.solves:
                    ratios[method].append(entries[method].run() / own)
    finally:
        for entry in entries.values():
            entry.worker.close()
    rows = [_row(name, OURS, ours, None, None)]
    for method, goal in PEERS[name].items():
        ratio = statistics.median(ratios[method]) if ratios[method] and ours.seconds else None
        rows.append(_row(name, method, entries[method], ratio, goal))
    worst = max((error for entry in entries.values() for error in entry.errors), default=0.0)
    solved = "reached" if ours.worker.solves else ours.worker.ready["why"]
    return rows, [
        Claim(f"{name}: error that {OURS} reaches", solved, f"{case.error:g}", ours.worker.solves),
        Claim(f"{name}: worst of the timed solutions", f"{worst:.2g}", f"at most {case.error:g}", bool(worst <= case.error)),
    ]


def _row(case: str, method: str, entry: Entry, ratio: float | None, goal: float | None) -> list[str]:
    ready, aim = entry.worker.ready, "" if goal is None else f">= {goal:g}"
    if not entry.seconds:
        what = {"absent": "absent"}.get(ready["event"], "not solved")
        why = ready.get("why", "no round was run")
        return [case, method, f"{what}: {shorten(why, 60, placeholder=' ...')}", *[""] * 7, aim, ""]
    seconds = [f"{value:.5f}" for value in (statistics.median(entry.seconds), min(entry.seconds), max(entry.seconds))]
    apart = [f"{ready[key]:.3f}" for key in ("setup_seconds", "compile_seconds")]
    times = "" if ratio is None else f"{ratio:.3g}"
    met = "" if ratio is None or goal is None else "yes" if ratio >= goal else "no"
    return [case, method, ready["setting"], f"{max(entry.errors):.1e}", *seconds, *apart, times, aim, met]
