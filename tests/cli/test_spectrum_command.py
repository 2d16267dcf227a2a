"""attnflow spectrum: what layers on a user's tokens forget last."""

import csv

import numpy as np
import pytest

import attnflow as af
from attnflow.cli import main


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
    options = ["--normalization", "topk:10", "--epsilon", "0.5", "-k", "12", "--out", str(tmp_path / "out")]
    assert main(["spectrum", str(tokens), *options]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()[:13]
    assert shown.err.count("warning") == 0 and len({len(line) for line in lines}) == 1
    with np.load(tmp_path / "out" / "spectrum.npz") as archive:
        eigenvalues = archive["eigenvalues"]
    assert np.iscomplexobj(eigenvalues) and lines[1].split()[1] == "1.0000000000"
    assert 0 < sum("j" in line for line in lines) == (eigenvalues.imag != 0).sum() < 12
    with open(tmp_path / "out" / "spectrum.csv") as file:
        np.testing.assert_array_equal([complex(row["eigenvalue"]) for row in csv.DictReader(file)], eigenvalues)


def test_few_tokens_have_as_many_modes_as_they_can(tmp_path, capsys):
    np.save(tmp_path / "five.npy", np.arange(5.0)[:, None])
    assert main(["spectrum", str(tmp_path / "five.npy"), "--epsilon", "1", "--out", str(tmp_path / "out")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:4]] == ["mode", "0", "1", "2"]
