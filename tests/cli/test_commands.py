"""What all commands have in common, and those that tell of the machine."""

import signal
import subprocess
import sys

import pytest

from attnflow.cli import main


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
