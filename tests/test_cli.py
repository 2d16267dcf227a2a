"""The commands as a user types them, with good and bad input."""

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main

STUDY = """
[space]
kind = "circle"
[density]
kind = "vonmises"
kappa = 1.0
[pseudometric]
kind = "squared-distance"
[layer]
normalization = "density-corrected"
alpha = 0.5
[initial]
kind = "sin"
mode = 2
[study]
t = 0.2
epsilons = [0.2, 0.1, 0.05]
sizes = [50, 100, "inf"]
seeds = 3
"""


@pytest.fixture
def tokens(tmp_path):
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).normal(size=(200, 3)))
    return tmp_path / "tokens.npy"


def test_converge_writes_its_three_files_and_resumes(tmp_path, capsys):
    (tmp_path / "study.toml").write_text(STUDY)
    out = tmp_path / "out"
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "slope in eps" in printed and "predicted" in printed and "nan" not in printed
    assert sorted(p.name for p in out.iterdir()) == ["converge.csv", "converge.csv.json", "converge.png", "study.sqlite"]
    with open(out / "converge.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 3 * 2 * 3 and {row["size"] for row in rows} == {"inf", "50", "100"}
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(out)]) == 0
    assert "21 finished cells taken from" in capsys.readouterr().out


def test_converge_adds_seeds_until_a_slope_is_known(tmp_path, capsys):
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2]\nsizes = [40, 160]\nseeds = 3")
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path), "--width", "0.6"]) == 0
    (known,) = [line for line in capsys.readouterr().out.splitlines() if "the slope in N is known to" in line]
    assert float(known.split("known to ")[1].split(",")[0]) <= 0.6
    assert json.loads((tmp_path / "converge.csv.json").read_text())["tables"]["study"]["seeds"] > 3


@pytest.mark.filterwarnings("always::attnflow.checks.AttnflowWarning")
def test_cells_that_fail_are_told_and_the_others_written(tmp_path, capsys, monkeypatch):
    from attnflow.studies import execution

    real = execution.run_cell

    def fail(study, cell):
        if cell.seed == 1:
            raise RuntimeError("the disk of the moon is full")
        return real(study, cell)

    monkeypatch.setattr(execution, "run_cell", fail)
    (tmp_path / "study.toml").write_text("[study]\nt = 0.2\nepsilons = [0.2]\nsizes = [40]\nseeds = 3")
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path)]) == 1
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "fail" in line]
    assert len(said) == 1 and said[0].startswith(
        "warning: 1 of 4 cells failed, the first with RuntimeError: the disk of the moon"
    )
    assert len((tmp_path / "converge.csv").read_text().splitlines()) == 1 + 3


def test_the_built_in_study_spans_a_decade():
    from attnflow.studies.files import read_study

    study = read_study()
    finite = [n for n in study.sizes if np.isfinite(n)]
    assert max(study.epsilons) / min(study.epsilons) >= 10 and max(finite) / min(finite) >= 10 and np.inf in study.sizes
    assert all(study.layers(e) * study.layer(e).time_step == pytest.approx(0.5) for e in study.epsilons)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('kind = "circle"', 'kind = "klein-bottle"', "[space] kind must be one of"),
        (
            "kappa = 1.0",
            "kapa = 1.0",
            "[density] of kind 'vonmises' must only have the keys ['kappa', 'loc'], got also ['kapa']",
        ),
        ("[layer]", "[layers]", "the study file must only have the keys"),
        ('kind = "squared-distance"', 'kind = "power-distance"', "[pseudometric] of kind 'power-distance'"),
        ("alpha = 0.5", 'alpha = "half"', "alpha must be a real number"),
        ('normalization = "density-corrected"', 'normalization = "softmax"', "[layer] alpha must come with"),
        ('kind = "sin"', "kind = \"__import__('os')\"", "[initial] kind must be one of"),
        ("t = 0.2", "", "[study] must have ['t']"),
        ("epsilons = [0.2", "epsilons = [-0.2", "epsilons must be positive"),
        ('sizes = [50, 100, "inf"]', 'sizes = [50, "many"]', "sizes must be an integer"),
        ("seeds = 3", "seeds = 3\ncolour = 1", "[study] must only have the keys"),
        ("[space]", "[space", "study file must be TOML"),
        ('[space]\nkind = "circle"', 'space = "circle"', "[space] must be a table of keys"),
        (
            'kind = "sin"\nmode = 2',
            'kind = "coordinate"',
            "[initial] of kind 'coordinate': kind must be 'cos' or 'sin' on a torus",
        ),
        ('kind = "sin"', 'kind = "sin"\naxis = 1', "[initial] of kind 'sin': axis must be below 1"),
        ('kind = "circle"', 'kind = "circle"\nlength = 1.0', "[density] must live on the [space]"),
    ],
)
def test_a_wrong_study_file_is_named_and_leaves_nothing_behind(tmp_path, capsys, old, new, message):
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new))
    assert main(["converge", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


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


def test_a_propagated_file_is_done_again_from_itself(tokens, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    np.save(tmp_path / "labels.npy", np.arange(200) % 2)
    how = ["--mask", str(tmp_path / "labels.npy"), "--normalization", "sinkhorn", "--layers", "4"]
    assert main(["propagate", str(tokens), *how, "--no-error-bars", "--out", str(out)]) == 0
    assert af.load(out / "propagate.npz").provenance["command"]["epsilon"] not in ("auto", None)
    tokens.unlink()
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
    np.save(tmp_path / "labels.npy", np.arange(200) % 4)
    assert main(["rerun", file]) == 2
    assert "has changed" in capsys.readouterr().err


def test_a_file_that_lacks_what_made_it_is_not_done_again(tokens, tmp_path, capsys):
    cloud = np.load(tokens)
    run = af.propagate(af.Attention(af.SquaredDistance(af.Euclidean(3)), 1.0), cloud, cloud, 2)
    for change in ({}, {"command": 3}, {"command": {"epsilon": "1"}}, {"parameters": []}):
        run.provenance |= change
        run.save(tmp_path / "run.npz")
        assert main(["rerun", str(tmp_path / "run.npz")]) == 2
        assert "file must be propagate.npz of attnflow propagate" in capsys.readouterr().err


def test_propagate_keeps_its_picture_when_error_bars_are_interrupted(tokens, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("attnflow.cli.tokens.error_bars", interrupted)
    assert main(["propagate", str(tokens), "--layers", "2", "--out", str(tmp_path)]) == 0
    assert "relative standard error: none, it was interrupted" in capsys.readouterr().out
    assert (tmp_path / "propagate.png").stat().st_size > 10_000


@pytest.mark.parametrize("metric", ["cosine", "dot-product"])
def test_propagate_knows_other_pseudometrics(tokens, tmp_path, metric):
    command = [
        "propagate",
        str(tokens),
        "--pseudometric",
        metric,
        "--epsilon",
        "0.5",
        "--layers",
        "2",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 0


LAYERS = {
    "topk:32": (af.TopK(32), 0.5),
    "sparse:0.2": (af.Sparse(0.2), None),
    "sparse:auto": (af.Sparse("auto"), None),
    "density-corrected:0.5": (af.DensityCorrected(0.5), 0.5),
    "perplexity:30": (af.Perplexity(30), None),
    "screening:0.25": (af.Screening(0.25), 0.5),
    "column": ("column", 0.5),
}


@pytest.mark.parametrize("text", LAYERS)
def test_propagate_runs_the_layer_that_its_words_say(tokens, tmp_path, capsys, text):
    rule, epsilon = LAYERS[text]
    out, chosen = tmp_path / "out", [] if epsilon is None else ["--epsilon", str(epsilon)]
    assert main(["propagate", str(tokens), "--normalization", text, *chosen, "--layers", "2", "--out", str(out)]) == 0
    points = np.load(tokens)
    layer = af.Attention(af.SquaredDistance(af.Euclidean(3)), epsilon or 1.0, rule)
    np.testing.assert_allclose(af.load(out / "propagate.npz").y[-1], layer(points, layer(points)), atol=1e-13)
    printed = capsys.readouterr().out
    assert ("32 keys for each" in printed) == (text == "topk:32")
    assert ("for a fraction of 0.2" in printed) == (text == "sparse:0.2")
    assert ("50 keys kept" in printed) == (text == "screening:0.25")


def test_heads_divide_the_columns_or_are_one_for_each_temperature(tmp_path, capsys):
    points, out = np.random.default_rng(0).normal(size=(150, 4)), tmp_path / "out"
    np.save(tmp_path / "t.npy", points)

    def run(*options):
        assert main(["propagate", str(tmp_path / "t.npy"), *options, "--layers", "1", "--out", str(out)]) == 0
        return af.load(out / "propagate.npz").y[-1]

    def head(f, columns, epsilon):
        some = points[:, columns]
        K = np.exp(-f(some, some) / (2 * epsilon))
        return K / K.sum(axis=1, keepdims=True) @ points

    squared = af.SquaredDistance(af.Euclidean(2))
    for name, f in (("squared-distance", squared), ("cosine", af.Cosine()), ("dot-product", af.DotProduct())):
        expected = (head(f, slice(0, 2), 0.3) + head(f, slice(2, 4), 0.6)) / 2
        np.testing.assert_allclose(run("--heads", "2", "--epsilon", "0.3,0.6", "--pseudometric", name), expected, atol=1e-12)
    whole = af.SquaredDistance(af.Euclidean(4))
    expected = (head(whole, slice(0, 4), 0.3) + head(whole, slice(0, 4), 0.6)) / 2
    np.testing.assert_allclose(run("--epsilon", "0.3,0.6"), expected, atol=1e-12)
    capsys.readouterr()
    run("--heads", "2")
    printed = capsys.readouterr().out
    for k in (1, 2):
        assert f"head {k}: epsilon = " in printed and f"head {k}: perplexity: median 30." in printed


def test_a_mask_is_causal_or_labels_or_edges_of_a_file(tokens, tmp_path, capsys):
    points, f = np.load(tokens), af.SquaredDistance(af.Euclidean(3))
    labels, edges = np.arange(200) % 7, np.stack([np.arange(400) % 200, np.arange(400) * 3 % 200], axis=1)
    for name, mask in (("labels", labels), ("words", labels.astype(str)), ("edges", edges)):
        np.save(tmp_path / f"{name}.npy", mask)
        words = ["--mask", str(tmp_path / f"{name}.npy"), "--epsilon", "0.5", "--layers", "1", "--out", str(tmp_path / "out")]
        assert main(["propagate", str(tokens), *words]) == 0
        run = af.load(tmp_path / "out" / "propagate.npz")
        np.testing.assert_allclose(run.y[-1], af.Attention(f, 0.5, mask=mask)(points), atol=1e-13)
    capsys.readouterr()
    words = ["--mask", "causal", "--normalization", "topk:4", "--layers", "1", "--out", str(tmp_path / "out")]
    assert main(["propagate", str(tokens), *words]) == 0
    assert "under softmax without a mask" in capsys.readouterr().out
    assert af.load(tmp_path / "out" / "propagate.npz").y[-1, 0].tolist() == points[0].tolist()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--normalization", "nope"],
            "normalization must be one of softmax, sinkhorn, column, none, sparse:auto, density-corrected:ALPHA, topk:K",
        ),
        (["--normalization", "topk"], "normalization must be one of softmax"),
        (["--normalization", "topk:3.5"], "normalization must be one of softmax"),
        (["--normalization", "topk:__import__('os')"], "normalization must be one of softmax"),
        (["--normalization", "softmax:1"], "normalization must be one of softmax"),
        (["--normalization", "topk:0"], "normalization topk:0: k must be at least 1, got 0"),
        (["--normalization", "sparse:2"], "normalization sparse:2: fraction must"),
        (["--normalization", "perplexity:nan"], "normalization perplexity:nan: target must"),
        (["--normalization", "topk:200"], "k must be below the number of tokens 200"),
        (["--normalization", "perplexity:30", "--epsilon", "1"], "epsilon must be left out for perplexity:30"),
        (["--heads", "2"], "heads must divide the 3 columns of the tokens, got 2"),
        (["--heads", "0"], "heads must divide"),
        (["--heads", "3", "--epsilon", "1,2"], "epsilon must be one number, or one for each of 3 heads, got 2"),
        (["--epsilon", "1,warm"], "epsilon must be a number or 'auto', or numbers separated by commas, got '1,warm'"),
        (["--epsilon", "1,-1"], "epsilon must be positive"),
        (["--mask", "casual"], "mask must be 'causal' or an .npy file, but there is none at 'casual'"),
        (["--mask", "five"], "mask must hold one label for each of 200 tokens, got 5"),
        (["--mask", "causal", "--normalization", "sinkhorn"], "mask must go both ways"),
    ],
)
def test_words_that_make_no_layer_are_refused_before_any_work(tokens, tmp_path, capsys, options, message):
    np.save(tmp_path / "five.npy", np.arange(5))
    options = [str(tmp_path / "five.npy") if word == "five" else word for word in options]
    assert main(["propagate", str(tokens), *options, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"attnflow: {message}")
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("columns, k", [(3, 4), (2, 2), (1, 1)])
def test_spectrum_prints_and_writes_the_layers_own(tmp_path, capsys, columns, k):
    tokens = np.random.default_rng(0).uniform(size=(200, columns))
    np.save(tmp_path / "tokens.npy", tokens)
    out = tmp_path / "out"
    assert main(["spectrum", str(tmp_path / "tokens.npy"), "-k", str(k), "--epsilon", "0.05", "--out", str(out)]) == 0
    expected = af.Attention(af.SquaredDistance(af.Euclidean(columns)), 0.05).spectrum(tokens, k)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1 : k + 1]]
    np.testing.assert_allclose(np.array(rows, dtype=float)[:, 1], expected.eigenvalues, atol=1e-10)
    with open(out / "spectrum.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in table] == expected.rates.tolist()
    with np.load(out / "spectrum.npz") as archive:
        np.testing.assert_array_equal(archive["eigenvectors"], expected.eigenvectors)
        assert sorted(archive) == ["eigenvalues", "eigenvectors", "rates"]
    assert (out / "spectrum.png").stat().st_size > 10_000


def test_spectrum_chooses_epsilon_as_propagate_does_and_refuses_bad_input(tokens, tmp_path, capsys):
    assert main(["spectrum", str(tokens), "-k", "3", "--normalization", "sinkhorn", "--out", str(tmp_path / "out")]) == 0
    assert "the median token then attends to 30 tokens" in capsys.readouterr().out
    for options, message in ((["-k", "0"], "k must be at least 1"), (["-k", "199"], "k must be at most 198, got 199")):
        assert main(["spectrum", str(tokens), *options, "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert main(["spectrum", str(tokens), "--epsilon", "1,2", "--out", str(tmp_path / "none")]) == 2
    assert "epsilon must be one number for a spectrum" in capsys.readouterr().err
    assert main(["spectrum", str(tmp_path / "missing.npy"), "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_spectra_of_weights_that_are_not_symmetric_are_complex(tokens, tmp_path, capsys):
    options = ["--normalization", "topk:60", "--epsilon", "0.5", "-k", "12", "--out", str(tmp_path / "out")]
    assert main(["spectrum", str(tokens), *options]) == 0
    shown = capsys.readouterr()
    assert "j" in shown.out.splitlines()[1] and shown.err.count("warning") == 0
    with np.load(tmp_path / "out" / "spectrum.npz") as archive:
        assert np.iscomplexobj(archive["eigenvalues"])


def test_a_failed_picture_leaves_no_partial_file(tokens, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no picture today")

    monkeypatch.setattr("attnflow.plotting.tokens.plot_tokens", fail)
    assert main(["propagate", str(tokens), "--layers", "1", "--out", str(tmp_path / "out")]) == 1
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".csv", ".npz"]


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


@pytest.mark.parametrize("status, code", [(1, 130), (-1, 1)])
def test_an_unfinished_run_keeps_what_was_done_and_says_so(tokens, tmp_path, monkeypatch, capsys, status, code):
    def unfinished(*arguments, **options):
        run = af.propagate(*arguments, **options)
        run.status, run.message = status, "half way"
        return run

    monkeypatch.setattr("attnflow.cli.tokens.propagate", unfinished)
    assert main(["propagate", str(tokens), "--layers", "2", "--out", str(tmp_path / "out")]) == code
    assert "attnflow: half way" in capsys.readouterr().err and (tmp_path / "out" / "propagate.npz").exists()


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
