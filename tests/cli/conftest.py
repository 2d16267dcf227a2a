"""Tokens of a user, in a file."""

import numpy as np
import pytest


@pytest.fixture
def tokens(tmp_path):
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).normal(size=(200, 3)))
    return tmp_path / "tokens.npy"
