"""What --help-study prints is what study files are read by."""

import inspect
import re
import tomllib

import pytest

from attnflow.cli import main
from attnflow.studies import ConvergenceStudy
from attnflow.studies.files import BUILT_IN, LAYER, STUDY, study_from_tables
from attnflow.studies.kinds import KINDS
from attnflow.studies.reference import study_reference


def section(name):
    return study_reference().split(f"## [{name}]")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_and_key_is_there_with_its_default_and_words(name):
    kinds = dict(re.findall(r'^- `kind = "([\w-]+)"`: (.*(?:\n  .*)*)', section(name), re.M))
    assert list(kinds) == list(KINDS[name])
    for kind, text in kinds.items():
        assert not re.search(r"\b[A-Z][a-z]+[A-Z][a-z]", text), (kind, "words of users, no names of classes")
        listed = re.findall(r"^  - `(\w+)`, (?:default `(.*?)`|required|optional): \S", text, re.M)
        wanted = {key: p for key, p in inspect.signature(KINDS[name][kind]).parameters.items() if key != "space"}
        assert [key for key, _ in listed] == list(wanted), kind
        for key, default in listed:
            known = wanted[key].default
            assert default == ("" if known in (inspect.Parameter.empty, None) else f"{known:.12g}"), key


@pytest.mark.parametrize("name, keys", [("layer", LAYER), ("study", STUDY)])
def test_every_key_of_the_layers_and_the_study_is_there(name, keys):
    listed = dict(re.findall(r"^- `(\w+)`, (?:default `(.*?)`|required|optional): \S", section(name), re.M))
    assert tuple(listed) == keys
    for key, parameter in inspect.signature(ConvergenceStudy).parameters.items():
        if key in listed and listed[key]:
            assert listed[key].strip('"') == str(parameter.default).removesuffix(".0")


def test_every_normalisation_it_names_is_accepted():
    names = re.findall(r"[a-z][a-z:-]*[a-zA-Z]", section("layer").split("One of ")[1].split(", the key biases")[0])
    assert {"softmax", "sinkhorn", "column"} < set(names)
    for name in ("softmax", "sinkhorn", "column", "density-corrected:0.5", "density-corrected"):
        assert study_from_tables({**BUILT_IN, "layer": {"normalization": name}}).t == 0.5


def test_its_example_is_the_built_in_study():
    assert tomllib.loads(study_reference().split("```toml\n")[1].split("```")[0]) == BUILT_IN


def test_the_command_prints_it_and_computes_nothing(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["converge", "--help-study"])
    assert stopped.value.code == 0 and capsys.readouterr().out == study_reference()
