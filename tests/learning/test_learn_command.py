"""attnflow learn: a picture, a model that predicts the same, and a table of what was learned."""

import csv

import numpy as np
import pytest
from sklearn.datasets import make_moons

from attnflow.cli import main
from attnflow.learning import lbfgs, load


@pytest.mark.filterwarnings("always::attnflow.checks.ConvergenceWarning")
def test_what_was_learned_until_an_interruption_is_written_and_said(moons, tmp_path, monkeypatch, capsys):
    gradient, calls = lbfgs.loss_and_gradient, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 9:
            raise KeyboardInterrupt
        return gradient(*arguments)

    monkeypatch.setattr(lbfgs, "loss_and_gradient", interrupted)
    out = tmp_path / "out"
    assert main(["learn", str(moons[0]), "--target", "label", "--attention", "l2", "--quiet", "--out", str(out)]) == 130
    assert "training was interrupted" in capsys.readouterr().err
    assert load(out / "learn.safetensors").interrupted_


@pytest.fixture
def moons(tmp_path):
    X, y = make_moons(200, noise=0.1, random_state=0)
    np.savez(tmp_path / "moons.npz", X=X, label=np.array(["left", "right"])[y])
    return tmp_path / "moons.npz", X, np.array(["left", "right"])[y]


@pytest.mark.parametrize("attention", ["l2", *(pytest.param(name, marks=pytest.mark.optional) for name in ("metric", "self"))])
def test_it_writes_three_files_that_agree(attention, moons, tmp_path, capsys):
    if attention != "l2":  # whose L-BFGS needs no PyTorch
        pytest.importorskip("torch")
    path, X, labels = moons
    out = tmp_path / attention
    assert main(["learn", str(path), "--target", "label", "--attention", attention, "--quiet", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and f"wrote {out / 'learn.png'}" in printed.out
    assert sorted(file.name for file in out.iterdir()) == ["learn.csv", "learn.png", "learn.safetensors"]
    with open(out / "learn.csv") as file:
        table = {row["quantity"]: row["value"] for row in csv.DictReader(file)}
    model = load(out / "learn.safetensors")
    held_out = np.random.default_rng(0).permutation(200)[:40]
    accuracy = float(table["accuracy on 40 held out"])
    assert accuracy == pytest.approx(model.score(X[held_out], labels[held_out])) and accuracy > 0.8
    assert float(table["epsilon"]) == pytest.approx(model.epsilon_)
    assert (float(table["folding"]) > 0) == (attention != "self")


@pytest.mark.optional
def test_a_bound_keeps_the_map_from_folding_and_more_columns_are_drawn_in_the_plane(tmp_path):
    pytest.importorskip("torch")
    X, y = make_moons(100, noise=0.1, random_state=0)
    np.savez(tmp_path / "data.npz", X=np.column_stack([X, X[:, 0]]), y=y)
    arguments = ["learn", str(tmp_path / "data.npz"), "--lipschitz", "0.5", "--learning-rate", "0.003", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    table = dict(csv.reader(open(tmp_path / "learn.csv")))
    assert float(table["folding"]) > (1 - 0.5) / (1 + 0.5)


@pytest.mark.parametrize(
    "arrays, arguments, message",
    [
        ({"X": np.ones((3, 2))}, (), "without y"),
        ({"X": np.ones((3, 2)), "y": np.arange(2)}, (), "y must have shape (3,)"),
        ({"X": np.ones(3), "y": np.arange(3)}, (), "X must have shape (N, n)"),
        ({"X": np.ones((3, 2)), "y": np.arange(3), "z": np.ones(3)}, (), "it may hold X, y, got 'z'"),
        ({"X": np.ones((9, 2)), "y": np.arange(9)}, ("--attention", "l2"), "y must hold each class several times"),
        (
            {"X": np.ones((9, 2)), "y": np.arange(9)},
            ("--attention", "l2", "--lipschitz", "0.9"),
            "--lipschitz must be left out",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_it(arrays, arguments, message, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", **arrays)
    assert main(["learn", str(tmp_path / "data.npz"), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
