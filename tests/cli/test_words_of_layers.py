"""The words of a command that say which layer it is: pseudo-metric, normalisation, heads, mask."""

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main


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
