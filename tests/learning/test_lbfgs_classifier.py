"""L2 attention trained without PyTorch, and what every attention classifier does in NumPy: gradients, projections, files, refusals."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.utils.estimator_checks import parametrize_with_checks

import attnflow as af
from attnflow.checks import ConvergenceWarning
from attnflow.learning import L2Attention, MetricAttention, lbfgs, load, propagation
from attnflow.learning.maps import AffineMap, Composition, ResidualMap
from attnflow.learning.tensor_files import read_tensors, write_tensors

X, Y = make_moons(60, noise=0.1, random_state=0)
FRESH = np.random.default_rng(1).normal(size=(20, 2))
RING = np.array([(k, (k + s) % 60) for k in range(60) for s in (0, 1, 5)])
NAMES = np.where(Y == 0, "upper", "lower")


def quick(**options):
    return L2Attention(**{"solver": "lbfgs", "epochs": 15, "random_state": 0, **options})


@pytest.fixture(scope="module")
def model():
    return quick().fit(X, NAMES)


@pytest.mark.slow
@parametrize_with_checks([quick(epochs=30)])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("edges", [None, RING], ids=["all", "edges"])
def test_the_gradient_is_that_of_finite_differences(edges):
    sizes = propagation.shapes("l2", 2, 3, 6, 2)
    at = propagation.initial(sizes, np.random.RandomState(0))
    labels = np.arange(60) % 3
    gradient = lbfgs.loss_and_gradient(at, X, labels, edges)[2]
    rng, step = np.random.default_rng(0), 1e-3
    for name in sizes:
        along = rng.normal(size=sizes[name])

        def loss(t, name=name, along=along):
            return lbfgs.loss_and_gradient({**at, name: at[name] + t * along}, X, labels, edges)[0]

        slope = (8 * (loss(step) - loss(-step)) - loss(2 * step) + loss(-2 * step)) / (12 * step)
        assert (gradient[name] * along).sum() == pytest.approx(slope, rel=1e-6, abs=1e-10), name


def test_the_loss_is_that_of_the_predictions(model):
    p = model.predict_proba(X)[np.arange(60), (NAMES == "upper").astype(int)]
    assert -np.log(p).mean() == pytest.approx(model.history_["loss"][-1], rel=1e-10)
    assert model.history_["accuracy"][-1] == model.score(X, NAMES)
    assert model.n_iter_ == len(model.history_["loss"]) == 15


def test_the_gradient_is_zero_where_training_ends():
    model = quick(epochs=500, tol=1e-4, weight_decay=0.01).fit(X, Y)
    assert model.n_iter_ < 500
    gradient = lbfgs.loss_and_gradient(model.parameters_, X, Y)[2]
    for name, value in model.parameters_.items():
        assert abs(gradient[name] + 0.01 * value).max() < 1e-4, name


def test_maps_have_exact_jacobians_and_injective_ones_an_inverse():
    rng = np.random.default_rng(0)
    W = [rng.normal(size=(3, 3)) for _ in range(2)]
    residual = ResidualMap(
        W[0], rng.normal(size=3), 0.9 * W[1] / np.prod([np.linalg.norm(w, 2) for w in W]), rng.normal(size=3)
    )
    phi, step = Composition(residual, AffineMap(rng.normal(size=(3, 2)), rng.normal(size=3))), 1e-3
    near, far = (np.stack([phi(FRESH + s * e) - phi(FRESH - s * e) for e in step * np.eye(2)], axis=-1) for s in (1, 2))
    np.testing.assert_allclose(phi.jacobian(FRESH), (8 * near - far) / (12 * step), rtol=0, atol=1e-10)
    image = residual(y := rng.normal(size=(5, 3)))
    back = np.zeros((5, 3))
    for _ in range(400):  # a contraction by .9
        back = image - (residual(back) - back)
    np.testing.assert_allclose(back, y, atol=1e-12)


def test_the_first_block_is_its_pseudometric_on_raw_tokens(model):
    layer = af.Attention(model.pseudometric_, model.epsilon_)
    np.testing.assert_allclose(model.attention(FRESH), layer.weights(X, FRESH), rtol=1e-9)
    Q = model.parameters_["blocks.0.query.weight"] @ model.parameters_["input.weight"]
    np.testing.assert_allclose(model.pseudometric_.metric(X), np.broadcast_to(Q.T @ Q, (60, 2, 2)), rtol=1e-12)


def test_the_projection_is_pca_of_the_learned_map(model):
    pca = PCA(2).fit(model.pseudometric_.phi(X))
    expected = pca.transform(model.pseudometric_.phi(FRESH))
    signs = np.sign(pca.components_[[0, 1], np.abs(pca.components_).argmax(axis=1)])
    np.testing.assert_allclose(model.project(FRESH), expected * signs, atol=1e-10)
    assert model.project(FRESH, n=1).shape == (20, 1)


@pytest.mark.parametrize(
    "labels", [NAMES, NAMES.astype(object), Y, Y == 1, Y + 1.0], ids=["str", "object", "int", "bool", "float"]
)
def test_a_saved_classifier_comes_back(tmp_path, labels):
    model = quick(epochs=2, blocks=2).fit(X, labels)
    model.save(tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert type(back) is L2Attention and back.get_params() == model.get_params()
    assert back.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(back.predict(FRESH), model.predict(FRESH))
    np.testing.assert_array_equal(back.predict_proba(FRESH), model.predict_proba(FRESH))
    np.testing.assert_array_equal(back.project(FRESH), model.project(FRESH))
    np.testing.assert_array_equal(back.history_["loss"], model.history_["loss"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(FRESH), model.predict_proba(FRESH))
    f = pickle.loads(pickle.dumps(model.pseudometric_))
    np.testing.assert_array_equal(f(FRESH, X), model.pseudometric_(FRESH, X))


def test_what_is_saved_is_the_fit_and_not_what_was_set_since(tmp_path):
    model = quick().fit(X, NAMES)
    said = model.predict_proba(X)
    model.set_params(width=7, blocks=3).save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors").predict_proba(X), said)


def test_a_saved_classifier_of_a_graph_knows_its_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    model = quick().fit(pandas.DataFrame(X, columns=["east", "north"]), Y, edges=RING)
    model.save(tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert back.feature_names_in_.tolist() == ["east", "north"]
    frame = pandas.DataFrame(FRESH, columns=["east", "north"])
    edges = RING[(RING < 20).all(axis=1)]
    np.testing.assert_array_equal(back.predict(frame, edges), model.predict(frame, edges))


def altered(note=None, **tensors):
    """How a file may differ from what it should be."""
    return lambda arrays, notes: ({**arrays, **tensors}, {**notes, **(note or {})})


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda arrays, note: (arrays, None), "its metadata do not say so"),
        (altered({"estimator": "os.system"}), "KeyError in its metadata"),
        (altered({"options": {"width": 10, "blocks": 10**12}}), "no tensors of 1000000000000 blocks"),
        (altered({"options": {"width": 0}}), "width must be at least 1"),
        (altered({"options": {"lipschitz": 0.5}}), "TypeError in its metadata"),
        (altered({"classes": ["upper"]}), "less than two classes"),
        (altered({"classes": ["a", "b", "c"]}), "output.weight has shape"),
        (altered({"columns": ["east"]}), "1 names of 2 columns"),
        (altered(extra=np.ones(2)), "tensors other than those of its network"),
        (altered(**{"input.bias": np.full(10, np.nan)}), "input.bias is not finite float64"),
        (altered(**{"states.0": np.ones((4, 3))}), "states.0 has shape"),
        (altered(**{"states.0": np.array(1.0)}), "states.0 has shape"),
        (altered(**{"history.loss": np.array(1.0)}), "history.loss has shape"),
        (altered({"dtype": "M8[s]", "classes": [0, 1]}), "classes [0, 1] of type datetime64"),
        (altered({"dtype": "O", "classes": [["a"], "b"]}), "TypeError in its metadata: classes"),
        (altered({"classes": ["a", "a"]}), "less than two classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, model, change, why):
    path = tmp_path / "model.safetensors"
    model.save(path)
    file = read_tensors(path)
    arrays, note = change({name: file[name] for name in file}, json.loads(file.metadata["attnflow.learning"]))
    write_tensors(path, arrays, None if note is None else {"attnflow.learning": json.dumps(note)})
    with pytest.raises(ValueError, match="^path must be a classifier saved by attnflow.learning") as refused:
        load(path)
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_an_interrupted_training_keeps_what_it_learned(monkeypatch):
    original, calls = lbfgs.loss_and_gradient, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(lbfgs, "loss_and_gradient", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after .* of 15 iterations"):
        model = quick().fit(X, Y)
    monkeypatch.undo()
    whole = quick(epochs=model.n_iter_).fit(X, Y)
    assert 0 < model.n_iter_ < 12 and model.interrupted_ and not whole.interrupted_
    np.testing.assert_array_equal(model.predict_proba(FRESH), whole.predict_proba(FRESH))


BAD = {
    "y of another length": (lambda: quick().fit(X, Y[:-1]), r"^y must have shape \(60,\)"),
    "one class": (lambda: quick().fit(X, np.zeros(60, int)), "^y must hold at least two classes, got one class"),
    "labels of several kinds": (
        lambda: quick().fit(X, np.array(["a", 1] * 30, object)),
        "^y must hold labels that can be sorted",
    ),
    "width": (lambda: quick(width=0).fit(X, Y), "^width must be at least 1"),
    "width of another": (lambda: MetricAttention(width=0).fit(X, Y), "^width must be at least 1"),
    "blocks": (lambda: quick(blocks=0).fit(X, Y), "^blocks must be at least 1"),
    "epochs": (lambda: quick(epochs=0).fit(X, Y), "^epochs must be at least 1"),
    "learning_rate": (lambda: quick(learning_rate=0.0).fit(X, Y), "^learning_rate must be positive"),
    "weight_decay": (lambda: quick(weight_decay=-1.0).fit(X, Y), "^weight_decay must be at least 0"),
    "tol": (lambda: quick(tol=np.nan).fit(X, Y), "^tol must be finite"),
    "solver": (lambda: quick(solver="sgd").fit(X, Y), "^solver must be one of 'adam', 'lbfgs'"),
    "lipschitz of one": (lambda: MetricAttention(lipschitz=1).fit(X, Y), r"^lipschitz must be in \(0, 1\)"),
    "lipschitz of zero": (lambda: MetricAttention(lipschitz=0.0).fit(X, Y), r"^lipschitz must be in \(0, 1\)"),
    "edges of one column": (lambda: quick().fit(X, Y, edges=[[0], [1]]), r"^edges must have shape \(any, 2\)"),
    "edges of fractions": (lambda: quick().fit(X, Y, edges=[[0.0, 1.5]]), "^edges must be integers, query first"),
    "edges to nowhere": (lambda: quick().fit(X, Y, edges=[[0, 60]]), "^edges must be between tokens from 0 to 59, got 0 to 60"),
    "edges from some": (
        lambda: quick().fit(X, Y, edges=[[0, 1]]),
        "^edges must let every token see some, got none from token 1",
    ),
    "columns": (lambda: quick(epochs=1).fit(X, Y).predict(X[:, :1]), "X has 1 features, but L2Attention is expecting 2"),
    "edges without": (
        lambda: quick(epochs=1).fit(X, Y).predict(X, RING),
        "^edges must be given if the fit had some, got a fit without",
    ),
    "without edges": (
        lambda: quick(epochs=1).fit(X, Y, RING).predict(X),
        "^edges must be given if the fit had some, got a fit with",
    ),
    "axes": (lambda: quick(epochs=1).fit(X, Y).project(X, 11), "^n must be at most 10, got 11"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_packages_are_asked_for_only_then_and_by_the_extra_when_absent():
    code = """
import sys
hidden = {"torch"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import attnflow as af
import attnflow.learning.maps, attnflow.learning.propagation
assert "sklearn" not in sys.modules and "MetricAttention" in dir(af.learning)
X, y = [[0.0], [0.2], [0.8], [1.0]], [0, 0, 1, 1]
assert af.learning.L2Attention(solver="lbfgs", epochs=1).fit(X, y).n_features_in_ == 1
try: af.learning.MetricAttention().fit(X, y)
except ImportError as error: print(error)
for name in [name for name in sys.modules if name.startswith(("sklearn", "attnflow.learning."))]:
    del sys.modules[name]
hidden.add("sklearn")
try: af.learning.MetricAttention
except ImportError as error: print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.partition(" need")[0] for line in said] == ["training attention by Adam", "attention classifiers"]
    assert all('pip install "attnflow[learning]"' in line for line in said)


def test_self_attention_is_a_dot_product_with_a_key_bias():
    """On raw tokens, from parameters that nobody trained."""
    parameters = propagation.initial(propagation.shapes("self", 3, 2, 5, 1), np.random.RandomState(0))
    x = np.random.default_rng(0).normal(size=(9, 3))
    h = propagation.entry(parameters)(x)
    logits = (h @ parameters["blocks.0.query.weight"].T) @ (h @ parameters["blocks.0.key.weight"].T).T / np.sqrt(5)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    layer = af.Attention(propagation.first_pseudometric(parameters, "self"), propagation.temperature(parameters))
    np.testing.assert_allclose(layer.weights(x), expected, rtol=1e-12)
