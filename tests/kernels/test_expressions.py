"""Pseudo-metrics typed as sympy expressions: compiled, with what one token alone decides computed once per token."""

import hashlib
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy as sp

import attnflow as af
from attnflow import compilation, kernels
from attnflow.kernels.numba_engine import arithmetic, generated, hoisting
from attnflow.kernels.numba_engine import dense as engine

x0, x1, x2, y0, y1, y2 = sp.symbols("x:3 y:3", real=True)
CIRCLE = 1 - sp.cos(x0 - y0)
TORUS = 4 * sp.sin((x0 - y0) / 2) ** 2 + 2 * sp.sin((x1 - y1) / 2) ** 2
SKEW = (x0 - y0) ** 2 * (2 + sp.sin(x1)) + sp.sqrt(1 + (x1 - y1) ** 2) + x0 * y1 / 10
MANY = (
    sp.log(1 + (x0 - y0) ** 2)
    + (1 - sp.exp(-((x1 - y1) ** 2)))
    + sp.Abs(x2 - y2) ** sp.Rational(3, 2)
    + sp.Max(x0 - y1, 0) ** sp.Rational(5, 4)
    + sp.sqrt(2 - 2 * sp.cos(x2 - y2))
    + sp.tanh(x1 - y1) ** 2 / (2 + sp.tan((x0 - y0) / 8) ** 2)
)
WITHIN = sp.Piecewise(((x0 - y0) ** 2, sp.Abs(x0 - y0) < 1), (sp.oo, True))
LIBRARY = (
    sp.sinh(x0 - y0) ** 2 / sp.cosh(x0 - y0) ** 2.5
    + sp.atan(x0 * y0) ** 2.0
    + sp.asin(sp.tanh(x0 - y0) / 2) * sp.acos(sp.tanh(x0 * y0) / 3)
    + sp.floor(x0 - y0) * sp.Min(x0, y0, 0) / sp.pi
    + 1 / sp.sqrt(sp.E + x0**2 * y0**2)
    + (1 + x0**2 * y0**2) ** sp.Rational(-3, 2)
    + sp.Piecewise((sp.Abs(x0 - y0), sp.Or(x0 < y0, sp.And(x0 > 1, sp.Ne(x0, y0)))), (2 - x0 * y0, x0 > 0), (x0 + y0 + 7, True))
)
EXPRESSIONS = {
    "circle": (CIRCLE, 1),
    "torus": (TORUS, 2),
    "skew": (SKEW, 2),
    "many": (MANY, 3),
    "within": (WITHIN, 1),
    "library": (LIBRARY, 1),
}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def layer_sums(f, epsilon, queries, keys, backend="numba", dtype="float64", values=None, bias=None):
    plan = kernels.plan(f, epsilon, queries, keys, backend, dtype)
    return plan, plan(values, bias)


def difference_to_reference(f, epsilon=0.2, dtype="float64", count=613):
    """Of the means and the log-sum-exps, the tolerance being relative to the logits that carry weight."""
    rng = np.random.default_rng(0)
    keys, queries = rng.normal(size=(count, f.dim)), rng.normal(size=(21, f.dim))
    values, bias = rng.normal(size=(count, 6)), rng.normal(size=count)
    plan, own = layer_sums(f, epsilon, queries, keys, "numba", dtype, values, bias)
    assert isinstance(plan.run, engine._Compiled)
    _, true = layer_sums(f, epsilon, queries, keys, "reference", dtype, values, bias)
    assert plan.run.stats == {"rows_by_python": 0}
    return np.abs(own.mean - true.mean).max(), np.abs(own.log_sum_exp - true.log_sum_exp).max()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_compiled_expressions_agree_with_the_reference(name, dtype):
    assert max(difference_to_reference(af.PseudoMetric(*EXPRESSIONS[name]), dtype=dtype)) < TOLERANCE[dtype]


def test_an_asymmetric_expression_is_transposed_and_stays_compiled():
    f, x = af.PseudoMetric(SKEW, 2), np.random.default_rng(1).normal(size=(5, 2))
    assert not f.is_symmetric(x)
    np.testing.assert_array_equal(f.transposed()(x, x), f(x, x).T)
    assert max(difference_to_reference(f.transposed())) < 1e-12


@pytest.mark.parametrize("epsilon", [1e-8, 1e-5, 1e-2, 1e3])
def test_every_temperature_keeps_the_logits_to_what_was_asked(epsilon):
    """Near 1e-5 angles are no longer taken apart: a unit of rounding, divided by epsilon, would show."""
    f, x = af.PseudoMetric(CIRCLE, 1), np.sort(np.random.default_rng(2).uniform(-4, 4, (400, 1)), axis=0)
    _, own = layer_sums(f, epsilon, None, x, values=x)
    with mpmath.workdps(40):
        true = []
        for i in range(0, 400, 37):
            logits = [-(1 - mpmath.cos(mpmath.mpf(x[i, 0]) - mpmath.mpf(x[j, 0]))) / (2 * epsilon) for j in range(400)]
            true.append(float(mpmath.log(sum(map(mpmath.exp, logits)))))
    # cos itself is rounded to a unit of 1
    np.testing.assert_allclose(own.log_sum_exp[::37], true, rtol=0, atol=2e-12 + 2.3e-16 / epsilon)


def test_a_large_constant_rounds_nothing_but_f_away():
    f, constant = af.PseudoMetric(CIRCLE + 10**6, 1), 1e6
    x = np.random.default_rng(3).normal(size=(700, 1))
    _, own = layer_sums(f, 0.1, None, x, values=x)
    _, true = layer_sums(af.PseudoMetric(CIRCLE, 1), 0.1, None, x, "reference", values=x)
    unit = np.spacing(constant) / 0.2
    assert np.abs(own.mean - true.mean).max() < 4 * unit
    assert np.abs(own.log_sum_exp + constant / 0.2 - true.log_sum_exp).max() < 4 * unit + np.spacing(constant / 0.2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_a_row_has_in_common_may_be_seen_late(dtype):
    """Far keys come first: beside their f of up to 1e43 nothing of the near ones would be left."""
    f, x = af.PseudoMetric(sp.exp(100 * sp.Abs(x0 - y0)), 1), np.linspace(1, 0, 800)[:, None]
    _, own = layer_sums(f, 0.7, x[-40:], x, dtype=dtype, values=x)
    _, true = layer_sums(f, 0.7, x[-40:], x, "reference", values=x)
    np.testing.assert_allclose(own.mean, true.mean, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(own.log_sum_exp, true.log_sum_exp, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("exponent", [-1000, 140])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_unit_of_f_does_not_matter(exponent, dtype):
    x = np.random.default_rng(4).normal(size=(300, 2))
    plain = layer_sums(af.PseudoMetric(SKEW, 2), 0.1, None, x, dtype=dtype, values=x)[1]
    f = af.PseudoMetric(sp.Float(2.0**exponent) * SKEW, 2)
    plan, scaled = layer_sums(f, 0.1 * 2.0**exponent, None, x, dtype=dtype, values=x)
    assert isinstance(plan.run, engine._Compiled)
    np.testing.assert_allclose(scaled.mean, plain.mean, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(scaled.log_sum_exp, plain.log_sum_exp, rtol=0, atol=TOLERANCE[dtype])


def test_a_loop_that_is_off_by_a_billionth_is_noticed(monkeypatch):
    honest = generated.load

    def load(source):
        assert source.count("= u0*v0 +") == 1
        return honest(source.replace("= u0*v0 +", "= 1.000000001*u0*v0 +"))

    monkeypatch.setattr(generated, "load", load)
    assert max(difference_to_reference(af.PseudoMetric(CIRCLE, 1))) > 1e-10


def parts(expression, dim, epsilon=0.1):
    """Features and what is left of an expression for points of size 1."""
    sides = sp.symbols(f"x:{dim}", real=True), sp.symbols(f"y:{dim}", real=True)
    points = 2 * (np.ones((3, dim)),)
    return hoisting.hoist(hoisting.expand(expression, sides, points, 2 * epsilon * 1e-12), sides)


def test_of_a_cosine_two_products_and_a_sum_are_left():
    hoisted = parts(sp.cos(x0 - y0), 1)
    u0, u1, v0, v1 = sp.symbols("u:2 v:2", real=True)
    assert hoisted.result == u0 * v0 + u1 * v1 and sp.count_ops(hoisted.result) == 3
    assert set(hoisted.queries) == {sp.cos(x0), sp.sin(x0)} and set(hoisted.keys) == {sp.cos(y0), sp.sin(y0)}


@pytest.mark.parametrize(
    "expression, epsilon",
    [
        ((x0 - y0) ** 2, 0.1),  # cancels
        (sp.exp(x0 - y0), 0.1),  # overflows
        (sp.sqrt(2 - 2 * sp.cos(x0 - y0)), 0.1),  # of 1e-16 it makes 1e-8
        (sp.cos(x0 - y0), 1e-6),
        (sp.cos(10**6 * (x0 - y0)), 0.1),  # the rounding of a large angle
        (10**6 * sp.cos(x0 - y0), 0.1),
        (sp.cos(x0 * y0), 0.1),
    ],
)
def test_nothing_is_taken_apart_that_would_lose_digits(expression, epsilon):
    hoisted = parts(expression, 1, epsilon)
    assert all(part.atoms(sp.sin, sp.cos, sp.exp) == set() for part in (*hoisted.queries, *hoisted.keys))


def test_angles_are_taken_apart_within_the_bound_that_is_stated():
    expression, x = (3 + x1**2) * sp.sin(2 * x0 - y0) ** 2 * sp.cos(x1 - y1), np.random.default_rng(5).uniform(-9, 9, (40, 2))
    sides = (x0, x1), (y0, y1)
    error = np.finfo(float).eps * (3 + 27 + 18) * 84 * 3
    apart = [hoisting.expand(expression, sides, (x, x), allowed) for allowed in (error, 1e-15)]
    assert apart[0] != expression and apart[1] == expression
    f, g = (sp.lambdify((x0, x1, y0, y1), e) for e in (expression, apart[0]))
    pairs = *(c[:, None] for c in x.T), *x.T
    assert np.abs(f(*pairs) - g(*pairs)).max() < error


def test_a_plan_says_what_is_compiled(monkeypatch):
    x = np.random.default_rng(6).normal(size=(50, 2))

    def told(f):
        return af.Attention(f, 0.1).plan(x[:, : f.dim])

    assert "f compiled, 4 parts hoisted" in str(told(af.PseudoMetric(CIRCLE, 1)))
    assert told(af.PseudoMetric(TORUS, 2)).facts["f"] == "compiled, 8 parts hoisted"
    python = {
        "evaluated by Python": lambda x, y: np.abs(x - y).sum(axis=-1),
        "evaluated by Python, sign is not compiled": sp.sign(x0 - y0) + CIRCLE,
        "evaluated by Python, Pow is not compiled": (1 + x0**2) ** (y0**2),
        "evaluated by Python, Sum, Tuple is not compiled": sp.Sum(x0 - sp.Symbol("k") * y0, (sp.Symbol("k"), 1, 3)) ** 2,
        "evaluated by Python, it depends on one token alone": y0**2,
    }
    for how, f in python.items():
        assert told(af.PseudoMetric(f, 1)).facts["f"] == how
        plan, own = layer_sums(af.PseudoMetric(f, 1), 0.1, None, x[:, :1], values=x)
        assert not isinstance(plan.run, engine._Compiled)
        np.testing.assert_allclose(
            own.mean, layer_sums(af.PseudoMetric(f, 1), 0.1, None, x[:, :1], "reference", values=x)[1].mean
        )
    assert "f" not in told(af.SquaredDistance(af.Euclidean(2))).facts
    monkeypatch.setattr("attnflow.kernels.numba_engine.dense.BEGUN", 0.0)  # so few tokens take no longer than that
    slow, fast = (told(af.PseudoMetric(f, 1)).seconds["numba"] for f in (python["evaluated by Python"], CIRCLE))
    assert slow > 8 * fast


@pytest.mark.parametrize("value", [sp.nan, -sp.oo])
@pytest.mark.parametrize("queries", [300, None])
def test_a_pair_without_a_number_is_named(value, queries):
    f = af.PseudoMetric(sp.Piecewise((value, x0 * y0 > sp.Rational(1, 2)), ((x0 - y0) ** 2, True)), 1)
    keys = np.zeros((900, 1))
    keys[777] = 1
    x = None if queries is None else np.zeros((queries, 1))
    if x is not None:
        x[299] = 1
    where = f"query {299 if queries else 777} and key 777"
    with pytest.raises(ValueError, match=f"f must be a number or inf, got (nan|-inf) for {where}"):
        layer_sums(f, 1.0, x, keys)


def test_logarithms_and_roots_without_a_value_are_named():
    keys = np.array([[1.0], [2.0], [-1.0]])
    for f in (sp.log(x0 * y0), sp.sqrt(x0 * y0), (x0 * y0) ** sp.Rational(1, 3)):
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="got nan for query 0 and key 2"):
            layer_sums(af.PseudoMetric(f, 1), 1.0, None, keys)


def test_infinity_hides_a_token_and_a_query_that_sees_none_is_named():
    f = af.PseudoMetric(WITHIN, 1)
    keys = np.array([[0.0], [0.5], [10.0], [10.5]])
    mean = layer_sums(f, 1.0, None, keys, values=keys)[1].mean
    assert (mean[:2] < 0.5).all() and (mean[2:] > 10).all()
    with pytest.raises(ValueError, match="f must be finite between query 1 and at least one key"):
        layer_sums(f, 1.0, np.array([[0.0], [5.0]]), keys)


def test_arguments_that_the_loop_leaves_to_others_are_computed_by_python():
    f, x = af.PseudoMetric(1 - sp.cos(x0**2 * y0), 1), np.linspace(0, 150, 500)[:, None]
    plan, own = layer_sums(f, 0.1, None, x, values=x)
    _, true = layer_sums(f, 0.1, None, x, "reference", values=x)
    assert 100 < plan.run.stats["rows_by_python"] < 400
    np.testing.assert_allclose(own.mean, true.mean, rtol=1e-11)
    assert af.Attention(f, 0.1, backend="numba").bind(x).attend(x).mean == pytest.approx(true.mean, rel=1e-11)


@pytest.mark.parametrize(
    "expression, message",
    [
        (x0 - sp.Symbol("z") * y0, r"f must be an expression in \[x0, y0\], got also \['z'\]"),
        (sp.Function("g")(x0 - y0) ** 2, r"f must be made of functions that sympy knows, got also \['g'\]"),
        (sp.besselj(0, x0 - y0), "f must be made of functions that NumPy knows, got besselj .*'besselj' is not defined"),
        (sp.erf(x0 - y0), "f must be made of functions that NumPy knows, got erf"),
        (sp.zoo * (x0 - y0), "f must be a number or inf, got .*, which has no value"),
        (sp.exp(sp.I * (x0 - y0)), "f must be real for real points, got .*, which is complex"),
        (1 + sp.sqrt(-1 - (x0 - y0) ** 2), "f must be real for real points, got .*, which is complex"),
    ],
)
def test_what_is_no_real_function_of_two_points_is_refused(expression, message):
    with pytest.raises(ValueError, match=message):
        af.PseudoMetric(expression, 1)


def test_conjugates_and_assumptions_do_not_matter():
    a, b = sp.Symbol("x0"), sp.Symbol("y0", positive=True)
    f, x = af.PseudoMetric(sp.conjugate(a - b) * (a - b), 1), np.random.default_rng(7).normal(size=(9, 1))
    np.testing.assert_array_equal(f(x, x), (x - x.T) ** 2)


def test_what_is_pickled_is_the_expression():
    f = pickle.loads(pickle.dumps(af.PseudoMetric(TORUS, 2)))
    x = np.random.default_rng(8).normal(size=(40, 2))
    plan, own = layer_sums(f, 0.1, None, x, values=x)
    again = pickle.loads(pickle.dumps(plan))
    assert isinstance(again.run, engine._Compiled)
    np.testing.assert_array_equal(again(x, None).mean, own.mean)
    np.testing.assert_allclose(f.metric(x[:2]), np.diag([1.0, 0.5]) + np.zeros((2, 1, 1)), atol=1e-7)
    np.testing.assert_allclose(f.lean(x[:2]), 0, atol=1e-4)


def test_no_array_of_all_pairs_is_made():
    x = np.random.default_rng(9).normal(size=(4000, 2))
    plan, _ = layer_sums(af.PseudoMetric(TORUS, 2), 0.1, x[:9], x)
    plan = kernels.plan(af.PseudoMetric(TORUS, 2), 0.1, None, x, "numba")
    tracemalloc.start()
    plan(x, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 4000 * 40


RUN = """
import sys, numpy as np, sympy, attnflow as af
x, y = sympy.symbols("x0 y0")
f = af.PseudoMetric(1 - sympy.cos(x - y), 1)
layer = af.Attention(f, 0.5, backend="numba")
print(layer([[0.0], [1.0]]).sum(), type(layer.bind([[0.0], [1.0]]).plan.run).__name__)
"""


def run(cache, **environment):
    root = str(Path(af.__file__).parents[1])
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": root, **environment}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0 _Compiled\n"
    return done


@pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
def test_the_loop_is_kept_for_other_processes(tmp_path):
    run(tmp_path)
    folder = tmp_path / "attnflow" / "expressions"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (source,) = folder.glob("*.py")
    text, compiled = source.read_text(), {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}
    assert text.startswith('"""1 - cos(x0 - y0)\n') and "row[j] = u0*v0 + u1*v1 + 1.0\n" in text
    run(tmp_path)
    assert compiled and compiled == {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}  # taken from there


def test_a_file_with_other_content_is_written_anew_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, _ = generated.write(parts(3 * sp.Abs(x0 - y0), 1), "a trap")
    file = Path(compilation.keep_source(f"{hashlib.sha256(source.encode()).hexdigest()}.py", source))
    file.write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\n" + source)
    generated.load(source)
    assert file.read_text() == source and not (tmp_path / "trap").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
@pytest.mark.parametrize("trouble", ["others can write", "a file"])
def test_without_a_folder_of_ones_own_nothing_is_kept(tmp_path, trouble, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "attnflow" / "expressions"
    folder.parent.mkdir()
    if trouble == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    f = af.PseudoMetric((2 + len(trouble)) * (x0 - y0) ** 2, 1)  # not compiled yet
    assert difference_to_reference(f)[0] < 1e-12
    assert not list(folder.glob("*"))


@pytest.mark.parametrize(
    "function, exact, low, high, units, relative",
    [
        (arithmetic.sin, mpmath.sin, -20, 20, 2, True),
        (arithmetic.sin, mpmath.sin, -9e5, 9e5, 2, True),
        (arithmetic.cos, mpmath.cos, -9e5, 9e5, 4, False),
        (arithmetic.exp, mpmath.exp, -700, 700, 2, True),
        (arithmetic.exp, mpmath.exp, -1, 1, 2, True),
        (arithmetic.tanh, mpmath.tanh, -3, 3, 4, True),
        (arithmetic.tanh, mpmath.tanh, -1e-3, 1e-3, 4, True),
        (arithmetic.sinh, mpmath.sinh, -1e-3, 1e-3, 4, True),
        (arithmetic.sinh, mpmath.sinh, -700, 700, 4, True),
        (arithmetic.cosh, mpmath.cosh, -700, 700, 3, True),
        (arithmetic.tan, mpmath.tan, -1.5, 1.5, 80, True),
    ],
)
def test_elementary_functions_are_good_to_units_of_rounding(function, exact, low, high, units, relative):
    for x in np.append(np.random.default_rng(10).uniform(low, high, 1000), (np.pi if high > 2 else 0.1) * np.arange(1, 6)):
        true = exact(mpmath.mpf(float(x)))
        assert abs(function(x) - true) <= units * np.finfo(float).eps * (abs(true) if relative else 1)


def test_elementary_functions_outside_their_range_are_none_or_infinite():
    assert arithmetic.cos(0.0) == 1 and arithmetic.sin(0.0) == 0 and arithmetic.exp(0.0) == 1
    for function in (arithmetic.sin, arithmetic.cos):
        assert np.isnan([function(x) for x in (3e6, -1e9, np.inf, np.nan)]).all()
    assert [arithmetic.exp(x) for x in (-np.inf, -1e9, 1e9, np.inf)] == [0, 0, np.inf, np.inf]
    assert [arithmetic.tanh(x) for x in (-np.inf, -0.0, 1e9, np.inf)] == [-1, 0, 1, 1]
    assert [arithmetic.sinh(x) for x in (-np.inf, 0.0, 1e9)] == [-np.inf, 0, np.inf] and arithmetic.cosh(-1e9) == np.inf
    assert np.isnan([f(np.nan) for f in (arithmetic.tanh, arithmetic.sinh, arithmetic.cosh, arithmetic.tan)]).all()
    outside = arithmetic.exp(np.nan), *(arithmetic.log_of_any(x) for x in (-1.0, 0.0, np.inf, np.nan))
    assert np.isnan([*outside, *(arithmetic.power_of_any(x, 1.3) for x in (-1.0, np.inf, np.nan))]).all()


@pytest.mark.parametrize("f", [sp.Piecewise((0, sp.cos(x0 - y0) >= 1), (5, True)), 3 * sp.floor(sp.cos(x0 - y0))])
def test_a_wave_that_f_jumps_with_stays_whole(f):
    x = np.random.default_rng(5).standard_normal((40, 1))
    layers = (af.Attention(af.PseudoMetric(f, 1), 0.5, backend=backend) for backend in ("numba", "reference"))
    own, expected = (layer(x, np.eye(40)) for layer in layers)
    np.testing.assert_allclose(own, expected, rtol=1e-12)
