"""A study file is a study, or one line that says why not; nothing in it is executed."""

import os
import random
import re

import pytest

import attnflow as af
from attnflow.cli import main
from attnflow.studies.files import read_study

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
VALUES = [
    "1e308", "1e-320", "1e300", "-1", "0", "1", "2", "0.5", "nan", "inf", "true", '"inf"', '"a"', "[]", "[[1.0]]", "{}", "{a = 1}",
    "10" * 60, "1979-05-27", "0x7fffffffffffffff", "[1, 'a']", "[nan]", '"torus"', '"gaussian"', '"sphere"', '"box"', '"uniform"',
    '"euclidean"', '"mahalanobis"', '"dot-product"', '"cosine"', '"sinkhorn"', '"cos"', '"coordinate"', "[0.1, 0.05]", "[[0, 1]]",
    "[20, 1000000000000]", "10000000000000", "[1e-320]", "[[1e-320]]", "[[[1]]]", '"é\\u0000"',
]  # fmt: skip
LINES = [
    "lengths = [1.0, 2.0]", "dim = 10000000000000", "dim = 2", "bounds = [[0, 1e308]]", "mean = [0.0]", "cov = [[1e-320]]",
    "length = 1e-320", "q = 1e300", "G = [[1]]", "W = [[[1]]]", "axis = 10000000000000", "loc = [0, 0]", "[[a]]", "a.b.c = 1",
    "[study]", '"""', "\x00", "a = " + "[" * 3000, "9" * 5000, "",
]  # fmt: skip


def mutated(seed: int) -> bytes:
    """The study with one to three values, lines or bytes changed."""
    chance = random.Random(seed)
    lines = STUDY.splitlines()
    for _ in range(chance.randint(1, 3)):
        k = chance.choice([k for k, line in enumerate(lines) if "=" in line] or [0])
        how = chance.randrange(8)
        if how < 5:
            lines[k] = lines[k].partition("=")[0] + "= " + chance.choice(VALUES)
        elif how == 5:
            lines.insert(k, chance.choice(LINES))
        elif how == 6:
            del lines[k]
        else:
            lines[k] = lines[k][: chance.randint(0, len(lines[k]))]
    content = bytearray("\n".join(lines).encode())
    if chance.random() < 0.1:
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 300), marks=pytest.mark.slow)], ids=["60", "300"])
def test_a_random_study_file_is_a_study_or_one_line(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(af.capacity, "available", lambda: 2**34)
    outcomes = []
    for seed in seeds:
        path = tmp_path / f"{seed}.toml"
        path.write_bytes(mutated(seed))
        try:
            outcomes.append(isinstance(read_study(path), af.ConvergenceStudy))
        except (ValueError, TypeError, NotImplementedError) as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 600, (seed, error)
            outcomes.append(False)
    assert any(outcomes) and not all(outcomes)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"\xff\xfe[study]", "study file must be TOML"),
        (b"t = " + b"9" * 5000, "study file must be TOML"),
        (b"[study]\nt = 1\nt = 2", "study file must be TOML"),
        (b"#" * 10**6, "study file must have at most"),
        (STUDY.replace("0.05]", "1e308]").encode(), "epsilons must"),
        (STUDY.replace("0.05]", "1e-320]").encode(), "epsilons must end within 30 days"),
        (STUDY.replace("0.05]", "1e-12]").encode(), "epsilons must end within 30 days, got .* 4.00e.11 layers"),
        (STUDY.replace("t = 0.2", "t = 1e300").encode(), "t must end within 30 days"),
        (STUDY.replace("100,", "1000000000000000,").encode(), "sizes must fit into memory, got a request for 3.00e.17 bytes"),
        (STUDY.replace("100,", "100000000,").encode(), "sizes must fit into memory"),
        (STUDY.replace("seeds = 3", "seeds = 1000000000").encode(), "seeds and sizes must"),
        (STUDY.replace("kappa", "a" * 10**4).encode(), "must only have the keys"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_line(content, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(af.capacity, "available", lambda: 2**34)
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    assert main(["converge", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1 and len(error) < 500
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such files or limits there")
def test_a_study_is_read_from_a_regular_file_only(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        assert main(["converge", str(path), "--out", str(tmp_path / "out")]) == 2
        assert "study file must be a regular file" in capsys.readouterr().err


def test_nothing_in_a_study_file_is_executed(tmp_path):
    trap = tmp_path / "trap"
    for code in (
        f"__import__('os').mkdir('{trap}')",
        f"!!python/object/apply:os.mkdir ['{trap}']",
        f"lambda x: open('{trap}', 'w')",
    ):
        for line in STUDY.splitlines():
            if "=" in line:
                (tmp_path / "s.toml").write_text(STUDY.replace(line, f'{line.partition("=")[0]} = "{code}"'))
                with pytest.raises((ValueError, TypeError)):
                    read_study(tmp_path / "s.toml")
    assert not trap.exists()
