"""attnflow budget: which temperature and how many tokens a study needs for an error."""

from __future__ import annotations

import argparse

from ..studies.budget import error_budget
from ..studies.files import layer_table, read_tables, study_from_tables, write_tables
from .output import folder, running, writable_file


def add_to(commands) -> None:
    """The command's arguments."""
    budget = commands.add_parser("budget", help="the fastest temperature and number of tokens that meet an error")
    budget.add_argument(
        "study", metavar="STUDY.toml", help="study file; without a normalization, or with several, they are compared"
    )
    budget.add_argument("--error", type=float, required=True, help="relative error against the equation at [study] t")
    budget.add_argument("--out", metavar="PLAN.toml", help="a study around the plan, ready for attnflow converge")
    budget.set_defaults(command=_budget)


def _budget(options: argparse.Namespace) -> int:
    tables = read_tables(options.study)
    asked = study_from_tables(tables)
    if asked.residual != 1:
        raise ValueError(
            f"[layer] residual must be 1 for a budget, got {asked.residual:g}: a smaller one costs layers and makes the same noise"
        )
    out = None if options.out is None else writable_file(options.out)
    normalization = asked.normalization if "normalization" in tables.get("layer", {}) else None
    with running(options):
        plan = error_budget(asked.f, asked.density, asked.initial, asked.t, options.error, normalization, progress=True)
    print(plan)
    if out is not None:
        study = plan.study(asked.seeds)
        sizes = ["inf" if size == float("inf") else int(size) for size in study.sizes]
        around = {"t": study.t, "epsilons": list(study.epsilons), "sizes": sizes, "seeds": study.seeds}
        kept = {key: value for key, value in tables.get("layer", {}).items() if key in ("backend", "dtype")}
        layer = {"layer": {**layer_table(plan.normalization), **kept}}
        write_tables({**tables, **layer, "study": {**tables["study"], **around}}, folder(out.parent) / out.name)
        print(f"wrote {out}")
    return 0
