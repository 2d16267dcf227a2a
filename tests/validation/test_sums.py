"""The benchmark of pairwise sums: every method at hand computes the same layer, and the numbers mean what they say."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from validation.benchmarks import dense, sparse, sums
from validation.benchmarks.sums_cases import CASES
from validation.benchmarks.sums_methods import METHODS, make

IMPORTED = {"scikit-learn": "sklearn"}


@pytest.mark.parametrize(
    "method", ["attnflow", "attnflow, dense", "numpy", "torch SDPA", "torch", "jax", "cKDTree", "KernelDensity", "finufft pair"]
)
def test_every_method_computes_the_same_layer(method):
    package, chunks = METHODS[method]
    if importlib.util.find_spec(IMPORTED.get(package, package)) is None:
        pytest.skip(f"needs {package}")
    name = "wide n=2 N=1000000" if method == "finufft pair" else "near n=2 N=100000"
    case = replace(CASES[name], size=1000, width=0.05)
    assert case.error(make(method, case, chunks[-1])()) < 1e-8
    spoiled = make(method, case, chunks[-1])()
    spoiled[0] *= 1.01
    assert case.error(spoiled) > 1e-5


def test_every_case_and_method_of_the_tables_exists():
    for table in (dense.PEERS, sparse.PEERS):
        assert set(table) <= set(CASES)
        assert {method for goals in table.values() for method in goals} <= set(METHODS)


def test_multiply_adds_are_counted_in_numbers_not_in_vectors():
    rate = sums.multiply_adds_per_second(rounds=1)
    assert 1e8 < rate < 1e12


def test_dense_cases_reach_the_stated_exponent():
    case = CASES["dense n=2 N=10000 f64"]
    assert case.dim / (2 * case.epsilon) == 25
    x, _ = case.tokens()
    assert np.ptp(x, axis=0).max() <= 1
