"""A normalisation that knows only part of itself: what rests on the rest says what is missing, and nothing is guessed."""

from dataclasses import dataclass

import numpy as np
import pytest

import attnflow as af
from attnflow.attention import Normalization

CIRCLE, P = af.Circle(), af.VonMises(1.0)


def cos(x):
    return np.cos(x[..., 0])


@dataclass(frozen=True)
class Plain(Normalization):
    """Softmax's key bias, and no more."""

    def key_bias(self, log_sum, size, tol):
        return np.zeros(size), {}


class WithDrift(Plain):
    drift = 2.0


class WithErrors(WithDrift):
    def first_order(self):
        return 0.0, 1.0

    def response(self, weights, plain, mass):
        return np.zeros_like(weights)


def layer(rule):
    return af.Attention(af.SquaredDistance(CIRCLE), 0.05, rule)


def test_a_layer_needs_the_key_bias_alone():
    x = P.sample(50, rng=0)
    np.testing.assert_array_equal(layer(Plain())(x, cos(x)[:, None]), layer("softmax")(x, cos(x)[:, None]))
    with pytest.raises(NotImplementedError, match="normalization must have `key_bias` for a layer, got Normalization"):
        layer(Normalization())(x, cos(x)[:, None])


def test_what_is_not_known_is_refused_by_name():
    with pytest.raises(NotImplementedError, match="must have `drift` for a limit, got Plain"):
        af.limit(layer(Plain()), P)
    for predict, member in ((af.predicted_bias, "first_order"), (lambda *a: af.predicted_noise(*a, 100), "response")):
        with pytest.raises(NotImplementedError, match=f"must have `{member}` for a predicted (bias|noise), got WithDrift"):
            predict(layer(WithDrift()), P, cos, 0.5)


def test_a_class_that_knows_all_is_predicted_as_its_members_say():
    x = np.linspace(0, 6, 9)[:, None]
    for predict in (af.predicted_bias, lambda *a: af.predicted_noise(*a, 100)):
        own, named = (predict(layer(rule), P, cos, 0.5)(x) for rule in (WithErrors(), "softmax"))
        np.testing.assert_allclose(own, named, rtol=1e-12, atol=1e-15)


class Stored(Normalization):
    """Not a dataclass; its drift belongs to the instance."""

    def __init__(self, drift):
        self.drift = drift

    def key_bias(self, log_sum, size, tol):
        return -(1 - self.drift / 2) * log_sum(np.zeros(size)), {}


class Tabled(WithDrift):
    def __init__(self, table):
        self.table = table


def test_a_study_of_it_is_known_by_its_parameters_and_says_what_is_not_predicted(tmp_path):
    def study(drift):
        f = af.SquaredDistance(CIRCLE)
        return af.ConvergenceStudy(f, P, cos, 0.47, (0.1, 0.05), (60,), 2, normalization=Stored(drift))

    assert study(1.0).fingerprint == study(1.0).fingerprint != study(2.0).fingerprint
    many = [np.zeros(5000), np.eye(1, 5000, 2500)[0]]  # the same when printed
    assert (
        len(
            {
                af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, cos, 0.47, (0.1,), (60,), 2, Tabled(t)).fingerprint
                for t in many
            }
        )
        == 2
    )
    study(1.0).run(tmp_path / "s.sqlite", progress=False)
    result = study(1.0).run(tmp_path / "s.sqlite", progress=False)
    assert result.resumed == len(result.cells) == 6 and "must have `first_order`" in result.summary()
    known = af.ConvergenceStudy(
        af.SquaredDistance(CIRCLE), P, cos, 0.47, (0.1, 0.05), (60,), 2, normalization=af.DensityCorrected(0.5)
    )
    for own, other in zip(result.cells, known.run(progress=False).cells):
        assert own["error"] == pytest.approx(other["error"], rel=1e-9)
