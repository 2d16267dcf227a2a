"""Every engine against the dense reference, through whole layers: each pseudo-metric, each normalisation."""

import sys
from types import ModuleType

import numpy as np
import pytest
from pseudometrics import of_each_kind

import attnflow as af
from attnflow import kernels
from attnflow.kernels import reference_engine as reference
from attnflow.kernels.numba_engine import dense as numba_engine
from attnflow.kernels.registry import ENGINES, Engine

RNG = np.random.default_rng(7)
FLAT, UNIT = RNG.normal(size=(307, 3)), RNG.normal(size=(307, 3))
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
VALUES = RNG.normal(size=(307, 3))
HEAD = RNG.normal(size=(307, 24)) / np.sqrt(24)
W_Q, W_K = RNG.normal(size=(2, 16, 24)) / 4
PSEUDOMETRICS = of_each_kind(FLAT, UNIT) | {
    "24 columns": (af.SquaredDistance(af.Euclidean(24)), HEAD),
    "a head's factors": (af.DotProduct(W_Q, W_K), HEAD),
    "map to many": (af.SquaredMap(lambda x: np.concatenate([x, np.sin(x), np.tanh(x)], axis=-1)), FLAT),
    "your own": (af.PseudoMetric(lambda x, y: np.abs(x - y).sum(axis=-1), 3), FLAT),
}
NORMALIZATIONS = ["softmax", "column", af.DensityCorrected(0.5), "sinkhorn"]


def compare_engines(f, tokens, normalization, backend="numba", dtype="float64", epsilon=0.3):
    """Largest difference relative to the largest value, and the tolerance that holds for it."""
    exact = af.Attention(f, epsilon, normalization, backend="reference")
    other = af.Attention(f, epsilon, normalization, backend=backend, dtype=dtype)
    bound = other.bind(tokens)
    assert bound.stats["engine"] == backend and exact.bind(tokens).stats["engine"] == "reference"
    expected = exact(tokens, VALUES)
    S = exact.weights(tokens)
    carried = np.abs(f(tokens, tokens))[S > 1e-17].max() / (2 * epsilon)
    unit = {"float64": 1e-13, "float32": 1e-5}[dtype] * max(1.0, carried)
    return np.abs(bound.step(VALUES) - expected).max() / np.abs(expected).max(), unit


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("name", PSEUDOMETRICS)
def test_numba_agrees_with_the_reference(name, normalization, dtype):
    f, tokens = PSEUDOMETRICS[name]
    if normalization == "sinkhorn" and not f.is_symmetric(tokens):
        with pytest.raises(ValueError, match="symmetric f"):
            af.Attention(f, 0.3, normalization).bind(tokens)
        return
    difference, tolerance = compare_engines(f, tokens, normalization, dtype=dtype)
    # Sinkhorn stops at its own tolerance: both engines are within it of the same scaling
    tolerance += {"float64": 4e-12, "float32": 4e-5}[dtype] * (normalization == "sinkhorn")
    assert difference < tolerance


def perturbed(change):
    """A numba engine that lies a little, as a registered engine."""
    module = ModuleType("perturbed_engine")

    def plan(f, epsilon, queries, keys, dtype, rtol):
        honest = numba_engine.plan(f, epsilon, queries, keys, dtype, rtol)
        return lambda values, key_bias: honest(values, change(np.zeros(len(keys)) if key_bias is None else np.array(key_bias)))

    module.plan = plan
    return module


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("what", ["one weight off by a billionth", "one key lost at a tile edge"])
def test_a_perturbed_engine_is_noticed(monkeypatch, what, normalization):
    def change(bias):
        where = len(bias) - 1
        bias[where] = bias[where] + 1e-9 if what.startswith("one weight") else -np.inf
        return bias

    monkeypatch.setitem(sys.modules, "perturbed_engine", perturbed(change))
    monkeypatch.setitem(ENGINES, "perturbed", Engine("perturbed_engine"))
    f, tokens = PSEUDOMETRICS["squared"]
    difference, tolerance = compare_engines(f, tokens, normalization, "perturbed")
    assert difference > tolerance


def test_the_registry_names_what_is_missing(monkeypatch):
    assert all(af.backends()[name].startswith("available: ") for name in ("reference", "numba"))
    monkeypatch.setitem(ENGINES, "imaginary", Engine("nowhere", ("no_such_package",)))
    assert af.backends()["imaginary"] == "not available: needs the package no_such_package"
    with pytest.raises(ImportError, match="backend 'imaginary' needs the package no_such_package"):
        kernels.load("imaginary")
    with pytest.raises(ValueError, match="backend must be one of .*'numba'"):
        kernels.load("nothing")


def test_too_many_pairs_for_the_reference_are_refused_before_any_work():
    many = np.zeros((2**13 + 1, 1))
    with pytest.raises(ValueError, match="tokens must make at most"):
        reference.dense_logits(af.SquaredDistance(af.Euclidean(1)), 1.0, many, many, None)


def test_parity_reports_engine_difference_and_absence(monkeypatch):
    monkeypatch.setitem(ENGINES, "imaginary", Engine("nowhere", ("no_such_package",)))
    f, tokens = PSEUDOMETRICS["squared"]
    table = af.parity(af.Attention(f, 0.3, "sinkhorn"), tokens, VALUES)
    rows = {row.engine: row for row in table.rows}
    assert rows["numba"].ran and rows["numba"].difference < 1e-11
    assert rows["reference"].ran and rows["reference"].difference == 0
    assert not rows["imaginary"].available and "no_such_package" in str(table)
    with pytest.raises(ValueError, match="backends must be one of"):
        af.parity(af.Attention(f, 0.3), tokens, VALUES, ["gpu"])
