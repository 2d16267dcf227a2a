"""attnflow propagate on a user's own tokens, and attnflow rerun of what it wrote."""

import csv

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main


def test_propagate_takes_a_users_own_tokens(tokens, tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.arange(200))
    out = tmp_path / "out"
    command = ["propagate", str(tokens), "--values", str(tmp_path / "v.npy"), "--layers", "7", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "epsilon = " in printed and "perplexity: median 30." in printed.replace("29.9", "30.")
    layer = af.Attention(af.SquaredDistance(af.Euclidean(3)), float(printed.split("epsilon = ")[1].split(":")[0]))
    bars = af.error_bars(layer, np.load(tokens), np.arange(200), 7)
    assert f"relative standard error {bars.noise_share:.2g}" in printed and f"bias {bars.bias_share:.2g}" in printed
    run = af.load(out / "propagate.npz")
    assert run.y.shape == (8, 200, 1) and run.layers[-1] == 7
    with open(out / "propagate.csv") as file:
        spread = [float(row["spread"]) for row in csv.DictReader(file)]
    assert len(spread) == 8 and (np.diff(spread) < 0).all()
    assert spread[0] == pytest.approx(np.arange(200).std())
    assert (out / "propagate.png").stat().st_size > 10_000


def test_propagate_says_why_there_are_no_error_bars(tokens, tmp_path, capsys):
    assert main(["propagate", str(tokens), "--layers", "2", "--mask", "causal", "--out", str(tmp_path)]) == 0
    assert "relative standard error: none; mask must be None or labels" in capsys.readouterr().out


def test_error_bars_are_left_out_when_told_to_or_when_they_take_long(tokens, tmp_path, capsys, monkeypatch):
    command = ["propagate", str(tokens), "--layers", "2", "--out", str(tmp_path)]
    assert main([*command, "--no-error-bars"]) == 0
    assert "relative standard error: none, by --no-error-bars" in capsys.readouterr().out
    monkeypatch.setattr("attnflow.cli.tokens._MOST", 1e-6)
    assert main(command) == 0
    assert "none, it would take about" in capsys.readouterr().out
    assert main([*command, "--error-bars"]) == 0
    assert "for other tokens of the same density" in capsys.readouterr().out


def test_propagate_keeps_its_picture_when_error_bars_are_interrupted(tokens, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("attnflow.cli.tokens.error_bars", interrupted)
    assert main(["propagate", str(tokens), "--layers", "2", "--out", str(tmp_path)]) == 0
    assert "relative standard error: none, it was interrupted" in capsys.readouterr().out
    assert (tmp_path / "propagate.png").stat().st_size > 10_000


def test_a_propagated_file_is_done_again_from_itself(tokens, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    np.save(tmp_path / "labels.npy", np.arange(200) % 2)
    how = ["--mask", str(tmp_path / "labels.npy"), "--normalization", "sinkhorn", "--layers", "4"]
    assert main(["propagate", str(tokens), *how, "--no-error-bars", "--out", str(out)]) == 0
    assert af.load(out / "propagate.npz").provenance["command"]["epsilon"] not in ("auto", None)
    tokens.unlink()
    (tmp_path / "labels.npy").unlink()
    capsys.readouterr()
    file = str(out / "propagate.npz")
    assert main(["rerun", file, "--out", str(again)]) == 0
    assert capsys.readouterr().out.startswith("5 saved layers differ by at most 0 of the largest feature")
    assert main(["rerun", str(again / "propagate.npz")]) == 0

    run = af.load(file)
    run.y[1:] *= 1 + 1e-6
    run.provenance["versions"]["numpy"] = "1.0"
    run.save(tmp_path / "other.npz")
    assert main(["rerun", str(tmp_path / "other.npz")]) == 1
    assert f"numpy {np.__version__}, then 1.0" in capsys.readouterr().out
    run.provenance["command"]["mask"] = [k % 4 for k in range(200)]
    run.save(tmp_path / "other.npz")
    assert main(["rerun", str(tmp_path / "other.npz")]) == 2
    assert "whose words make another one" in capsys.readouterr().err


def test_a_file_that_lacks_what_made_it_is_not_done_again(tokens, tmp_path, capsys):
    cloud = np.load(tokens)
    run = af.propagate(af.Attention(af.SquaredDistance(af.Euclidean(3)), 1.0), cloud, cloud, 2)
    for change in ({}, {"command": 3}, {"command": {"epsilon": "1"}}, {"parameters": []}):
        run.provenance |= change
        run.save(tmp_path / "run.npz")
        assert main(["rerun", str(tmp_path / "run.npz")]) == 2
        assert "file must be propagate.npz of attnflow propagate" in capsys.readouterr().err


@pytest.mark.parametrize("status, code", [(1, 130), (-1, 1)])
def test_an_unfinished_run_keeps_what_was_done_and_says_so(tokens, tmp_path, monkeypatch, capsys, status, code):
    def unfinished(*arguments, **options):
        run = af.propagate(*arguments, **options)
        run.status, run.message = status, "half way"
        return run

    monkeypatch.setattr("attnflow.cli.tokens.propagate", unfinished)
    assert main(["propagate", str(tokens), "--layers", "2", "--out", str(tmp_path / "out")]) == code
    assert "attnflow: half way" in capsys.readouterr().err and (tmp_path / "out" / "propagate.npz").exists()


def test_a_failed_picture_leaves_no_partial_file(tokens, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no picture today")

    monkeypatch.setattr("attnflow.plotting.tokens.plot_tokens", fail)
    assert main(["propagate", str(tokens), "--layers", "1", "--out", str(tmp_path / "out")]) == 1
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".csv", ".npz"]


def test_propagate_refuses_bad_files_and_leaves_nothing_behind(tokens, tmp_path, capsys):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "nan.npy", np.array([[0.0], [np.nan]]))
    np.save(tmp_path / "line.npy", np.arange(5.0))
    (tmp_path / "text.npy").write_text("not an array")
    np.savez(tmp_path / "many.npz", a=np.ones(3))
    np.save(tmp_path / "five.npy", np.ones(5))
    cases = {
        "missing.npy": "tokens must be an .npy file, but there is none at",
        "objects.npy": "tokens must be an .npy file of numbers",
        "words.npy": "tokens must be an array of real numbers",
        "nan.npy": "tokens must be finite, got nan at index (1, 0)",
        "line.npy": "add an axis: tokens[:, None]",
        "text.npy": "tokens must be an .npy file of numbers",
        "many.npz": "tokens must be a single .npy array",
    }
    for name, message in cases.items():
        assert main(["propagate", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2, name
        assert message in capsys.readouterr().err, name
    for options, message in (
        (["--values", str(tmp_path / "five.npy")], "values must have shape (200,)"),
        (["--epsilon", "-1"], "epsilon must be positive"),
        (["--epsilon", "warm"], "epsilon must be a number or 'auto'"),
        (["--layers", "0"], "layers must be at least 1"),
    ):
        assert main(["propagate", str(tokens), *options, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
