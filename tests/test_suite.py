"""What the suite says of itself is so."""

from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_that_is_called_lengthy_exists():
    listed = [line for line in (TESTS / "lengthy.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert listed == sorted(set(listed))
    for name in listed:
        path, _, function = name.partition("::")
        assert path.startswith("tests/"), f"{name} is no test function"
        assert f"def {function}(" in (TESTS.parent / path).read_text(encoding="utf-8"), f"{name} is none any more"
