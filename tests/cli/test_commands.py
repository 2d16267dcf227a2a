"""What all commands have in common, and those that tell of the machine."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main


@pytest.fixture
def labelled(tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "two.npz", X=X, y=X[:, 0] > 0)
    np.savez(tmp_path / "one.npz", X=X, y=np.zeros(40))
    return tmp_path


ZERO = "tokens must not be zero vectors for Cosine, got one at index 0"


def refuse(*_, **__):
    raise AssertionError("work has begun")


NOWHERE = pytest.param("/proc/q", marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such folder here"))


@pytest.mark.parametrize("out", [NOWHERE, "file", "file/below"])
def test_where_nothing_can_be_written_no_command_begins(tokens, labelled, out, monkeypatch, capsys):
    for work in ("tokens.propagate", "budget.error_budget", "learned.survey"):
        monkeypatch.setattr(f"attnflow.cli.{work}", refuse)
    monkeypatch.setattr("attnflow.attention.layer.layer_spectrum", refuse)
    monkeypatch.setattr("attnflow.learning.L2Attention.fit", refuse, raising=False)
    (labelled / "file").write_text("")
    (labelled / "study.toml").write_text('[study]\nt = 0.1\nepsilons = [0.1]\nsizes = ["inf"]')
    files = sorted(labelled.iterdir())
    to = ["--out", out if out.startswith("/") else str(labelled / out)]
    commands = [
        ["propagate", str(tokens), *to],
        ["spectrum", str(tokens), *to],
        ["learn", str(labelled / "two.npz"), "--attention", "l2", *to],
        ["anatomy", str(labelled), *to],
        ["converge", str(labelled / "study.toml"), *to],
        ["budget", str(labelled / "study.toml"), "--error", "0.1", *to[:1], f"{to[1]}/plan.toml"],
    ]
    for command in commands:
        assert main(command) == 2, command
        assert capsys.readouterr().err.splitlines()[-1].startswith("attnflow: --out must be "), command
    assert sorted(labelled.iterdir()) == files


@pytest.mark.parametrize(
    "command, message",
    [
        (["learn", "two.npz", "--lipschitz", "2"], "lipschitz must be in (0, 1), got 2.0"),
        (["learn", "two.npz", "--learning-rate", "0"], "learning_rate must be positive and finite, got 0.0"),
        (["learn", "one.npz", "--attention", "l2"], "y must hold at least two classes, got one class, 0.0"),
        (["parity", "--tokens", "20000"], "tokens must be at most 8192, got 20000"),
        (["parity", "--tokens", "8"], "tokens must be at least 32, got 8"),
        (["spectrum", "pair.npy", "--epsilon", "1"], "tokens must be at least 3 for a spectrum, got 2"),
        (["spectrum", "lone.npy", "--epsilon", "1"], "tokens must be at least 3 for a spectrum, got 1"),
        (["propagate", "zero.npy", "--epsilon", "1", "--pseudometric", "cosine"], ZERO),
        (["spectrum", "zero.npy", "--epsilon", "1", "--pseudometric", "cosine"], ZERO),
    ],
)
def test_bad_input_ends_with_status_2_before_anything_is_made(labelled, command, message, monkeypatch, capsys):
    monkeypatch.chdir(labelled)
    np.save("pair.npy", np.ones((2, 2)))
    np.save("lone.npy", np.ones((1, 2)))
    np.save("zero.npy", np.zeros((40, 2)))
    assert main(command) == 2
    assert capsys.readouterr().err == f"attnflow: {message}\n"
    assert not (labelled / "attnflow-output").exists()


def test_a_refusal_in_the_middle_of_a_call_is_of_the_input_and_all_else_is_not(tokens, tmp_path, monkeypatch):
    for error, code in ((NotImplementedError("no"), 2), (ValueError("no"), 2), (RuntimeError("no"), 1), (KeyError("no"), 1)):
        monkeypatch.setattr("attnflow.cli.tokens.propagate", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        assert main(["propagate", str(tokens), "--epsilon", "1", "--out", str(tmp_path / "out")]) == code
    assert not (tmp_path / "out").exists()


def test_a_disc_without_end_has_no_uniform_tokens(tmp_path, capsys):
    text = '[space]\nkind = "hyperbolic-disc"\n[density]\nkind = "uniform"\n[pseudometric]\nkind = "hyperbolic"\n'
    (tmp_path / "study.toml").write_text(text + '[study]\nt = 0.1\nepsilons = [0.1]\nsizes = ["inf"]')
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "[density] of kind 'uniform': space must have finite volume" in capsys.readouterr().err


def test_a_rule_is_called_as_it_was_asked_for():
    layer = af.Attention(af.SquaredDistance(af.Circle()), 1.0, "none")
    with pytest.raises(NotImplementedError, match="must have `key_bias_jvp` for a standard error, got 'none', which has none"):
        af.error_bars(layer, np.ones((5, 1)), np.ones(5), 1)


def test_what_fails_while_running_is_one_line_and_status_1(tokens, tmp_path, monkeypatch, capsys):
    for error in (
        RuntimeError("no\nluck"),
        MemoryError(),
        ZeroDivisionError("division by zero"),
        OSError(28, "No space left on device"),
    ):
        monkeypatch.setattr("attnflow.cli.tokens.propagate", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        assert main(["propagate", str(tokens), "--layers", "1", "--out", str(tmp_path / "out")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("attnflow: ") and (str(error).split() or ["MemoryError"])[0] in line


def test_signals_are_as_before_when_a_command_has_ended():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    main(["info"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
def test_parity_and_info_print_every_engine(capsys):
    assert main(["parity", "--tokens", "300"]) == 0
    printed = capsys.readouterr().out
    for words in ("softmax, float32", "TopK(k=32)", "Perplexity", "causal", "radius graph", "two heads"):
        assert words in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith(("numba", "cells", "graph"))]
    assert {row[0] for row in rows if row[2] == "yes"} == {"numba", "cells", "graph"}
    assert max(float(row[3]) for row in rows if row[2] == "yes") < 1e-4
    assert main(["info"]) == 0
    assert "engine numba: available" in capsys.readouterr().out


def test_info_names_the_extra_that_brings_an_engine(capsys, monkeypatch):
    monkeypatch.setattr("attnflow.kernels.registry.util.find_spec", lambda name: None if name in ("cupy", "finufft") else name)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "engine nufft: not available: needs the package finufft: pip install 'attnflow[fast]'\n" in printed
    assert "engine cupy: not available: needs the package cupy: pip install 'attnflow[gpu]'\n" in printed


def test_the_module_runs_as_a_command_and_names_an_unknown_one():
    run = subprocess.run([sys.executable, "-m", "attnflow.cli", "dance"], capture_output=True, text=True)
    assert run.returncode == 2 and "invalid choice" in run.stderr
