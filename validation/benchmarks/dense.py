"""Dense sums beside NumPy, PyTorch, JAX and KeOps, and beside what the processor's multiply-adds allow."""

from __future__ import annotations

from dataclasses import replace

from validation import Report

from .sums import multiply_adds_per_second, run_table

OURS = "attnflow, dense"
_ALL = {"numpy": None, "torch": None, "pykeops": None}
PEERS = {
    "dense n=2 N=10000 f64": {"jax": 2.5, "torch SDPA": 3.5, **_ALL},
    "dense n=3 N=10000 f64": {"jax": 2.2, "torch SDPA": 3, **_ALL},
    "dense n=2 N=40000 f64": {"jax": 2.5},
    "dense n=3 N=40000 f64": {"jax": 2.2},
    "dense n=2 N=10000 f32": {"jax": 1.7, "torch SDPA": 4, "numpy": None, "torch": None},
    "dense n=3 N=10000 f32": {"jax": 1.7, "torch SDPA": 4, "numpy": None, "torch": None},
    "dense n=8 N=10000 f64": {"jax": 1.15, "torch SDPA": 1.15, "numpy": 1.15, "torch": 1.15},
    "dense n=64 N=10000 f64": {"jax": 0.95, "torch SDPA": 0.95, "numpy": 0.95, "torch": 0.95},
    "inner n=8 N=10000 f64": {"torch SDPA": 1.7, "numpy": None, "jax": None},
    "inner n=64 N=10000 f64": {"torch SDPA": 1.1, "numpy": None, "jax": None},
}
INSTRUCTIONS = {"n=2": 17, "n=3": 18}  # multiply-adds per pair: 11 polynomial, 3 powers, n distance, 1 sum


def run(rounds: int = 5) -> Report:
    """The table, and the share of the multiply-add limit that ours reaches."""
    limit = multiply_adds_per_second() / 1e6
    report = run_table("Dense pairwise sums beside other libraries", "", OURS, PEERS, rounds)
    lines = [f"Multiply-adds: {limit:.0f} M/s on one core, in float64."]
    for row in report.rows:
        case, method, rate = row[0], row[1], row[4]
        count = next((n for dim, n in INSTRUCTIONS.items() if dim in case.split()), None)
        if method == OURS and rate and count and case.startswith("dense") and case.endswith("f64"):
            most = limit / count
            lines.append(
                f"{case}: {float(rate) / most:.0%} of the {most:.0f} Mpairs/s that {count} of them per pair allow (goal 55%)."
            )
    return replace(report, text=report.text + "\n" + "\n".join(lines), draw=lambda ax: draw(ax, report, limit / 17))


def draw(ax, report: Report, most: float) -> None:
    """Bars per library, with the limit."""
    cases = list(dict.fromkeys(row[0] for row in report.rows))
    methods = list(dict.fromkeys(row[1] for row in report.rows))
    for k, method in enumerate(methods):
        points = [
            (i, float(row[4])) for i, case in enumerate(cases) for row in report.rows if row[:2] == [case, method] and row[4]
        ]
        x, y = zip(*points) if points else ((), ())
        ax.plot(x, y, "os^Dv<>P"[k], label=method, color="#c2410c" if method == OURS else f"{0.15 + 0.1 * k}")
    ax.axhline(most, color="0.6", linestyle=":", label="multiply-add limit, n = 2, float64")
    ax.set(yscale="log", ylabel="million pairs / s, one core", title="Dense sums")
    ax.set_xticks(range(len(cases)), [case.replace(" N=", "\nN=") for case in cases], fontsize=5.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=6, frameon=False, ncols=7)
