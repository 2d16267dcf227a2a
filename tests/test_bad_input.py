"""Every argument of every public function, crossed with what it must refuse: by name, in a few words, before work."""

import inspect

import pytest
from bad_input import ROWS

import attnflow as af
from attnflow import families, learning, theory
from attnflow.attention import Normalization


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.owner}({row.argument})")
def test_what_is_no_such_argument_is_refused_by_name_in_a_few_words(row):
    wrong = {}
    for kind, value in row.kinds.items():
        if kind in row.skip:
            continue
        try:
            row.call(value)
            wrong[kind] = "accepted"
        except (TypeError, ValueError) as error:
            message = str(error)
            if not message.startswith(row.says or row.argument) or len(message) > 400:
                wrong[kind] = message[:500]
    assert wrong == {}


def test_the_table_is_long():
    assert sum(len(set(row.kinds) - set(row.skip)) for row in ROWS) > 3000


# what is public but takes its arguments from the inside of the package, already checked, and what takes anything
INTERNAL = {
    "project",
    "formula",
    "with_cells",
    "from_unit_cube",
    "probe_points",
    "check",
    "query_features",
    "key_features",
    "features_vjp",
    "evaluate",
    "paired",
    "check_queries",
    "diagonal",
    "transposed",
    "ranges",
    "cells",
    "log_weight",
    "uniform",
    "check_solvable",
    "formal_limit",
    "ingredients",
    "token_stream",
    "fit",  # of estimators: what scikit-learn refuses, by its own checks in tests/learning
    "fit_transform",
    "transform",
}
ANYTHING = {"progress", "self", "cls", "args", "kwargs"}
RESULTS_ONLY = {
    "Comparison",
    "ErrorBudget",
    "Solution",
    "StudyResult",
}  # made by functions; what files may hold is tested beside them


def arguments_of(module, prefix=""):
    """(owner, argument) of all public functions, constructors and methods, a method under the class that defines it."""
    for name in [*module.__all__, *(["DiffusionMap"] if module is af else [])]:  # which a star does not import
        thing = getattr(module, name)
        if not callable(thing):
            continue
        if inspect.isfunction(thing) or name not in RESULTS_ONLY:
            yield from ((f"{prefix}{name}", a) for a in inspect.signature(thing).parameters if a not in ANYTHING)
        asked_by_layers = inspect.isclass(thing) and issubclass(thing, Normalization)
        for method, function in vars(thing).items() if inspect.isclass(thing) and not asked_by_layers else ():
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and method not in INTERNAL and not method.startswith("_"):
                parameters = list(inspect.signature(function).parameters)[1:]
                yield from ((f"{prefix}{name}.{method}", a) for a in parameters if a not in ANYTHING)


def test_no_argument_of_a_public_function_is_left_out():
    covered = {(row.owner, row.argument) for row in ROWS}
    # a method that a class inherits, or defines anew with the same argument, is covered by any class's
    methods = {(owner.rpartition(".")[2], argument) for owner, argument in covered if "." in owner}
    missing = [
        (owner, argument)
        for owner, argument in arguments_of(af)
        if (owner, argument) not in covered and not ("." in owner and (owner.rpartition(".")[2], argument) in methods)
    ]
    assert missing == []
    functions = [
        getattr(learning, name) for name in dir(learning)
    ]  # its classes are estimators: scikit-learn's checks, and rows
    missing = [
        (f"learning.{f.__name__}", argument)
        for f in functions
        if inspect.isfunction(f) and f.__module__.startswith("attnflow.learning.")
        for argument in inspect.signature(f).parameters
        if (f"learning.{f.__name__}", argument) not in covered
    ]
    assert missing == []
    results = {"FuzzyCMeans", "MarkovClustering", "MeanShift"}
    missing = [
        pair for pair in arguments_of(families, "families.") if pair[0].split(".")[1] not in results and pair not in covered
    ]
    assert missing == []
    made = {
        "Kernel",
        "Layer",
        "Operator",
        "Process",
        "HeadSum",
        "TokenFlow",
        "Moments",
        "Identity",
        "ConformalForm",
        "DisplacedLimit",
        "ManifoldAverage",
        "Formula",
    }  # results of the derivations
    missing = [
        (owner, argument)
        for owner, argument in arguments_of(theory, "theory.")
        if owner.split(".")[1] not in made and (owner, argument) not in covered
    ]
    assert missing == []
