"""A cell is taken from a store for the study that it was computed for, and for no other."""

import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

import attnflow as af
from attnflow.attention import Normalization, Softmax
from attnflow.checks import AccuracyWarning, IsolatedTokensWarning
from attnflow.functions import digest
from attnflow.studies.files import read_study

CIRCLE, LINE = af.Circle(), af.Euclidean(1)
WIDE = af.Gaussian([0.0], [[4.0]])


def cos(x):
    return np.cos(x[..., 0])


def study(initial=cos, density=None, f=None, epsilons=(0.1,), sizes=(60,), seeds=2, **options):
    density = af.VonMises(1.0) if density is None else density
    f = af.SquaredDistance(density.space) if f is None else f
    return af.ConvergenceStudy(f, density, initial, 0.3, epsilons, sizes, seeds, **options)


def clipped(most):
    return lambda x: np.clip(x[..., 0], -most, most)


def errors(result):
    return [cell["error"] for cell in result.cells]


@pytest.mark.filterwarnings("ignore::attnflow.checks.AccuracyWarning")
def test_functions_that_differ_where_nobody_asked_are_other_cells(tmp_path):
    first, second = (study(clipped(most), WIDE, sizes=(200,)) for most in (3, 6))
    first.run(tmp_path / "s.sqlite", progress=False)
    after = second.run(tmp_path / "s.sqlite", progress=False)
    here = second.run(progress=False)  # what the process keeps is the first one's, too
    assert after.resumed == 0 and errors(after) == errors(here)
    assert max(errors(here)) < 0.1 < max(errors(first.run(progress=False))) * 2


SHIFT = 5.0


def shifted(x):
    return np.sign(x[..., 0] - SHIFT)


def test_what_functions_read_elsewhere_is_part_of_them(monkeypatch):
    here = af.Gaussian([5.0], [[1.0]])
    before = study(shifted, here).words
    assert study(shifted, here).words == before
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", 6.0)
    assert study(shifted, here).words != before


class Rule(Normalization):
    def __init__(self, share):
        self.share = share

    @property
    def drift(self):
        return 2 * (1 - self.share)

    def key_bias(self, log_sum, size, tol):
        return -self.share * log_sum(np.zeros(size)), {}


class Steeper(Rule):
    def key_bias(self, log_sum, size, tol):
        return -2 * self.share * log_sum(np.zeros(size)), {}


def test_a_rule_is_known_by_what_it_does_and_a_density_by_how_it_is_drawn():
    rules = [Rule(0.5), Rule(0.25), Steeper(0.5), af.DensityCorrected(0.5), "softmax", af.Sinkhorn(1e-9), af.Sinkhorn(1e-8)]
    assert len({study(normalization=rule).fingerprint for rule in rules}) == len(rules)
    assert study(normalization=Rule(0.5)).fingerprint == study(normalization=Rule(0.5)).fingerprint
    same = [af.VonMises(1.0), af.Density(CIRCLE, cos), af.Density(CIRCLE, lambda x: np.cos(x[..., 0]) + 0.0)]
    assert len({study(density=density).fingerprint for density in same}) == 3


def test_names_of_functions_and_variables_make_no_difference():
    def other(points):
        """Says something."""
        return np.cos(points[..., 0])

    assert study(other).fingerprint == study(lambda y: np.cos(y[..., 0])).fingerprint == study().fingerprint


def test_objects_within_objects_are_read_once_each():
    class Round:
        def __init__(self, factor):
            self.factor, self.table = factor, {"steps": [1, 2]}
            self.density = af.Density(CIRCLE, self.log_pdf)

        def log_pdf(self, x):
            return self.factor * np.cos(x[..., 0])

    def fingerprint(factor):
        return study(density=Round(factor).density).words

    assert fingerprint(1.0) == fingerprint(1.0) != fingerprint(2.0)
    deep = []
    for _ in range(50):
        deep = [deep, len]
    assert digest(deep, lambda value: None)


class Factor:
    size = 1.0

    def __call__(self, x):
        return self.size * np.cos(x[..., 0])


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size

    def __call__(self, x):
        return self.size * np.cos(x[..., 0])


def by_factor(x):
    return Factor()(x)


def test_what_code_does_is_read_to_the_last_sign(monkeypatch):
    def of(function):
        return digest(function, lambda value: None)

    table = np.array([1.0, None], dtype=object), np.array([2.0, None], dtype=object)
    days = np.array(["2020-01-01"], dtype="datetime64[D]"), np.array(["2020-01-02"], dtype="datetime64[D]")
    pairs = [
        (lambda x: np.cos(x), lambda x: -np.cos(x)),
        (lambda x: x > 1, lambda x: x >= 1),
        (lambda x: x[0], lambda x: x(0)),
        (lambda x: [k for k in x if k], lambda x: [k for k in x if not k]),
        (Slotted(1.0), Slotted(2.0)),
        (CubicSpline(range(4), [0, 1, 4, 9]), CubicSpline(range(4), [0, 1, 8, 27])),  # of a library: its data, not its code
        *(tuple(lambda x, part=part: part for part in parts) for parts in (table, days)),
    ]
    for one, other in pairs:
        assert of(one) != of(other)
    before = of(Factor()), of(by_factor)
    monkeypatch.setattr(Factor, "size", 2.0)
    assert (of(Factor()) == before[0], of(by_factor) == before[1]) == (False, False)
    monkeypatch.setattr(Factor, "size", 1.0)
    assert (of(Factor()), of(by_factor)) == before


def test_a_fingerprint_is_the_same_in_another_process():
    code = """
import numpy as np, attnflow as af
def start(x):
    return names["a"] * np.cos(x[..., 0]) * (len({"p", "q", "r"}) > 2)
names = {"a": 1.0, "b": 2.0}
f = af.SquaredMap(lambda x: np.stack([np.cos(x[..., 0]), np.sin(x[..., 0])], axis=-1))
found = af.ConvergenceStudy(f, af.VonMises(1.0), start, 0.3, [0.1], [60], 2).fingerprint
"""
    exec(code, here := {})
    environment = {"PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", f"{code}print(found)"], env=environment, capture_output=True, text=True)
    assert there.stdout.strip() == here["found"] and len(here["found"]) == 32


MODULE = "import numpy as np\ndef start(x):\n    return np.cos({k} * x[..., 0])\n"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_module_that_was_edited_since_it_was_imported_computes_nothing_elsewhere(tmp_path, monkeypatch, jobs):
    (tmp_path / "starts.py").write_text(MODULE.format(k=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "starts", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import starts

    (tmp_path / "starts.py").write_text(MODULE.format(k=3))
    made, path = study(starts.start), tmp_path / "s.sqlite"
    if jobs == 1:
        assert errors(made.run(path, progress=False)) == errors(study().run(progress=False))
        return
    with pytest.raises(RuntimeError, match="the study is another one where it is computed: a module"):
        made.run(path, n_jobs=2, progress=False)
    assert made.run(path, progress=False).resumed == 0


def test_another_temperature_leaves_finished_cells_where_they_are(tmp_path):
    path = tmp_path / "s.sqlite"
    study(epsilons=(0.1, 0.05)).run(path, progress=False)
    assert study(epsilons=(0.2, 0.1, 0.05)).run(path, progress=False).resumed == 6
    assert study(epsilons=(0.05,)).run(path, progress=False).resumed == 3


class Pool:
    """A client that computes in threads."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(1)

    def submit(self, function, *args):
        return self.pool.submit(function, *args)

    def gather(self, futures):
        return [future.result() for future in futures]


def test_warnings_of_cells_are_said_again_by_whoever_takes_them(tmp_path):
    made = study(epsilons=(0.001,), sizes=(20,))
    for path, how in [("s", {}), ("s", {}), ("p", {"n_jobs": 2}), ("p", {}), ("c", {"client": Pool()}), ("c", {})]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made.run(tmp_path / path, progress=False, **how)
        assert sum(one.category is IsolatedTokensWarning for one in told) == 2, (path, how)


def test_a_client_that_sends_nothing_may_have_what_cannot_be_sent():
    lock = threading.Lock()

    def start(x):
        with lock:
            return np.cos(x[..., 0])

    assert errors(study(start).run(client=Pool(), progress=False)) == errors(study().run(progress=False))


def test_the_last_study_is_the_one_that_a_store_speaks_of(tmp_path):
    path, table = tmp_path / "s.sqlite", (
        '[space]\nkind = "circle"\n[density]\nkind = "vonmises"\nkappa = {}\n[pseudometric]\nkind = "squared-distance"\n'
        '[initial]\nkind = "cos"\n[study]\nt = 0.3\nepsilons = [0.1]\nsizes = [60]\nseeds = 2\n'
    )  # fmt: skip
    for kappa in (1.0, 2.0, 1.0):
        (tmp_path / "study.toml").write_text(table.format(kappa))
        read_study(tmp_path / "study.toml").run(path, progress=False)
    from attnflow.studies.rerun import recorded

    assert recorded(path).study.density.kappa == 1.0


def test_a_start_that_lives_where_the_tokens_are_is_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        assert study(lambda x: np.maximum(x[..., 0] - 8, 0.0), af.Gaussian([10.0], [[1.0]])).fingerprint
    with pytest.raises(ValueError, match="initial must not vanish everywhere"):
        study(lambda x: np.maximum(x[..., 0] - 80, 0.0), af.Gaussian([10.0], [[1.0]]))


def test_nothing_finished_is_a_table_without_rows(tmp_path):
    pytest.importorskip("pandas")
    result = study().run(progress=False, callback=lambda seen: True)
    none = result.with_cells([])
    assert list(none.to_dataframe().columns) == list(result.to_dataframe().columns) and len(none.to_dataframe()) == 0


def test_one_seed_is_refined_like_several():
    result = study(sizes=(50, 100), seeds=1).refine("size", 2.0, progress=False)
    assert result.status == 0 and result.study.seeds > 1
    result = study(sizes=(50,), seeds=1).refine("size", 2.0, kind="constant", progress=False)
    assert result.status == 0 and result.study.seeds > 1


def test_rules_whose_weights_are_not_their_parents_are_no_children_of_theirs():
    with pytest.raises(TypeError, match="key_bias must not be overridden in a class derived from Softmax"):

        class Other(Softmax):
            def key_bias(self, log_sum, size, tol):
                return np.zeros(size), {}

    with pytest.raises(ValueError, match="normalization must keep all tokens for a study"):
        study(normalization=af.Screening(0.5))
    layer = af.Attention(af.SquaredDistance(CIRCLE), 0.05, "screening:0.5")
    with pytest.raises(NotImplementedError, match="must let all tokens be keys for a predicted error, got 'screening:0.5'"):
        af.predicted_error(layer, af.VonMises(1.0), cos, 0.2, n_tokens=500)


def test_a_store_is_a_file_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study().run(":memory:", progress=False)
    assert (tmp_path / ":memory:").is_file() and study().run(":memory:", progress=False).resumed == 3


def test_tokens_that_a_study_file_names_are_part_of_it(tmp_path):
    (tmp_path / "study.toml").write_text(
        '[space]\nkind = "euclidean"\ndim = 1\n[density]\nkind = "kernel"\ntokens = "t.npy"\nbandwidth = 0.5\n'
        '[pseudometric]\nkind = "squared-distance"\n[initial]\nkind = "cos"\n[study]\nt = 0.3\nepsilons = [0.1]\nsizes = [60]\n'
    )
    seen = set()
    for last in (9.0, 10.5):
        np.save(tmp_path / "t.npy", np.append(np.linspace(-1, 1, 40), last)[:, None])
        seen.add(read_study(tmp_path / "study.toml").fingerprint)
    assert len(seen) == 2
