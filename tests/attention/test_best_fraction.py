"""Sparse(fraction="auto"): the share does not know units, and under a mask it is of the pairs that see each other."""

import numpy as np
import pytest

import attnflow as af

TOKENS = np.random.default_rng(2).normal(size=(120, 2))
SQUARED = af.SquaredDistance(af.Euclidean(2))


def found(tokens, mask=None):
    bound = af.Attention(SQUARED, 1.0, af.Sparse(fraction="auto"), mask=mask).bind(tokens)
    return bound.stats["fraction"], bound.weights()


@pytest.mark.parametrize("mask", [None, "causal"])
def test_it_does_not_depend_on_the_unit_or_the_origin(mask):
    share, _ = found(TOKENS, mask)
    assert 0.1 < share < 0.95
    for other in (1e-100 * TOKENS, 1e100 * TOKENS, TOKENS + 1e5):
        assert found(other, mask)[0] == pytest.approx(share, rel=1e-3)


def test_copies_that_do_not_see_each_other_keep_the_share_of_one():
    alone, _ = found(TOKENS)
    labels = np.repeat([0, 1, 2], len(TOKENS))
    share, weights = found(np.tile(TOKENS, (3, 1)), labels)
    assert share == pytest.approx(alone, rel=0.02)
    assert (weights > 0).sum() == pytest.approx(share * 3 * len(TOKENS) ** 2, abs=10)


def test_tokens_without_a_choice_keep_all_and_those_without_a_scale_are_refused():
    for tokens in (TOKENS[:1], np.zeros((20, 2))):
        share, weights = found(tokens)
        assert share == 1 and (weights > 0).all()
    with pytest.raises(ValueError, match="^fraction must be a number for these tokens, got 'auto'"):
        found(np.r_[np.zeros((199, 2)), TOKENS[:1]])
