"""A study file is a study, or one line that says why not; nothing in it is executed."""

import os
import random
import re

import numpy as np
import pytest

import attnflow as af
from attnflow.attention.names import normalization
from attnflow.cli import main
from attnflow.studies.files import layer_table, read_study, read_tables, write_tables

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
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500, (seed, error)
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


def with_table(name: str, table: str) -> str:
    """The study with another table of that name."""
    return re.sub(rf"\[{name}\][^\[]*", f"[{name}]\n{table}\n", STUDY, count=1)


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    faulty = STUDY.replace("kappa", "kapa").replace("squared-distance", "squared").replace('"sin"', '"tan"')
    faulty = faulty.replace("t = 0.2", "t = -1").replace("seeds = 3", "seeds = 0").replace('"density-corrected"', '"softmix"')
    (tmp_path / "s.toml").write_text(faulty)
    with pytest.raises(ValueError) as caught:
        read_study(tmp_path / "s.toml")
    for fault in (
        "[density] .*kapa",
        "[pseudometric] kind",
        "[initial] kind",
        "alpha must come with",
        "t must be",
        "seeds must be",
    ):
        assert re.search(fault.replace("[", r"\[").replace("]", r"\]"), str(caught.value)), fault
    assert str(caught.value).count("; ") == 5


def test_no_entry_or_part_that_is_wrong_hides_the_next(tmp_path):
    faulty = with_table("layer", 'backend = "gpu"\nresidual = 2\ndtype = "float16"')
    parts = '{kind = "cos", mode = 0}, {kind = "sin", axis = 4}, {kind = "bla"}, {kind = "cos", factor = "a"}'
    faulty = faulty.replace('kind = "sin"\nmode = 2', f'kind = "sum"\nparts = [{parts}]')
    densities = '{kind = "vonmises", kappa = -1.0}, {kind = "gaussian", mean = [0.0], cov = [[-1.0]]}'
    faulty = faulty.replace('kind = "vonmises"\nkappa = 1.0', f'kind = "mixture"\nparts = [{densities}]')
    faulty = faulty.replace("0.1, 0.05]", '-2, "a", 0]').replace('50, 100, "inf"]', '1, "many"]') + "grid = -3\n"
    (tmp_path / "s.toml").write_text(faulty)
    with pytest.raises(ValueError) as caught:
        read_study(tmp_path / "s.toml")
    assert [" ".join(fault.split()[: 2 + fault.startswith("[")]) for fault in str(caught.value).split("; ")] == [
        "[density.parts] of kind", "[density.parts] of kind",
        "[initial.parts] of kind", "[initial.parts] of kind", "[initial.parts] kind must", "[initial.parts] factor must",
        "epsilons must", "epsilons must", "epsilons must", "sizes must", "sizes must", "grid must",
        "residual must", "backend must", "dtype must",
    ]  # fmt: skip


@pytest.mark.parametrize("parts, got", [("[]", "an empty one"), ("[1]", "one with an int"), ("3", "an int"), ("{}", "a dict")])
def test_parts_are_tables_and_at_least_one(parts, got, tmp_path):
    (tmp_path / "s.toml").write_text(with_table("initial", f'kind = "sum"\nparts = {parts}'))
    with pytest.raises(ValueError, match=rf"\[initial\] of kind 'sum': parts must be a list of tables, .*, got {got}$"):
        read_study(tmp_path / "s.toml")


def test_a_table_that_is_wrong_does_not_take_others_with_it(tmp_path):
    (tmp_path / "s.toml").write_text(STUDY.replace('"circle"', '"cirle"').replace("mode = 2", "mode = 0"))
    with pytest.raises(ValueError, match=r"^\[space\] kind must be one of [^;]*$"):
        read_study(tmp_path / "s.toml")


def test_densities_and_starts_are_made_of_parts_and_of_data_beside_the_file(tmp_path):
    data = np.random.default_rng(0).normal(size=(30, 1))
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "tokens.npy", data)
    text = with_table("space", 'kind = "euclidean"\ndim = 1')
    for name, table in {
        "density": 'kind = "mixture"\nweights = [0.25, 0.75]\nparts = [{kind = "gaussian", mean = [1.0], cov = [[2.0]]}, '
        '{kind = "kernel", tokens = "data/tokens.npy", bandwidth = 0.5}]',
        "initial": 'kind = "sum"\nparts = [{kind = "cos", mode = 2}, {kind = "sin", factor = -0.3}]',
    }.items():
        text = re.sub(rf"\[{name}\]\n(?:[^\[].*\n)*", f"[{name}]\n{table}\n", text)
    (tmp_path / "s.toml").write_text(text)
    study, x = read_study(tmp_path / "s.toml"), np.array([[0.2], [1.7]])
    mixture = af.Mixture([af.Gaussian([1.0], [[2.0]]), af.KernelDensity(data, 0.5)], [0.25, 0.75])
    np.testing.assert_array_equal(study.density.pdf(x), mixture.pdf(x))
    np.testing.assert_allclose(study.initial(x), np.cos(2 * x[:, 0]) - 0.3 * np.sin(x[:, 0]), rtol=1e-15)
    write_tables(read_tables(tmp_path / "s.toml"), tmp_path / "data" / "copy.toml")
    assert read_study(tmp_path / "data" / "copy.toml").fingerprint == study.fingerprint
    (tmp_path / "data" / "tokens.npy").unlink()
    with pytest.raises(ValueError, match=r"\[density.parts\] of kind 'kernel': tokens could not be read"):
        read_study(tmp_path / "s.toml")


@pytest.mark.parametrize(
    "table, rules",
    [
        ('normalization = "density-corrected:0.5"', [af.DensityCorrected(0.5)]),
        ('normalization = "density-corrected"\nalpha = 0.25', [af.DensityCorrected(0.25)]),
        ('normalization = ["softmax", "sinkhorn"]\ntol = 1e-6', ["softmax", af.Sinkhorn(tol=1e-6)]),
    ],
)
def test_a_layer_is_spelt_as_everywhere(table, rules, tmp_path):
    (tmp_path / "s.toml").write_text(with_table("layer", table))
    study, rules = read_study(tmp_path / "s.toml"), [normalization(rule) for rule in rules]
    assert [part.layer(0.1).normalization for part in study.parts] == rules
    for rule in rules:
        again = layer_table(rule)
        lines = "\n".join(f"{key} = {value!r}" for key, value in again.items())
        (tmp_path / "again.toml").write_text(with_table("layer", lines))
        assert read_study(tmp_path / "again.toml").layer(0.1).normalization == rule
        assert again["normalization"] == "sinkhorn" or af.Attention(study.f, 0.1, again["normalization"]).normalization == rule
