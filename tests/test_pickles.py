"""What a user holds can be sent to another process and says the same there."""

import pickle

import numpy as np
import pytest

import attnflow as af

CIRCLE, P, LINE, GAUSS = af.Circle(), af.VonMises(1.0), af.Euclidean(1), af.Gaussian(0.0, 1.0)
LAYER = af.Attention(af.SquaredDistance(CIRCLE), 0.1)
X = np.array([[0.3], [0.8]])
UNIT = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])


def start(x):
    return np.cos(x[..., 0])


def walkers(x):
    return 1 + 0.3 * np.cos(x[..., 0])


def across(x):
    return np.ones_like(x)


def study():
    return af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, start, 0.1, [0.1, 0.05], [50], 2)


HELD = {
    "spectral": (lambda: af.DriftDiffusion(P).solve(start, 0.1), lambda s: s.at(X, t=0.03)),
    "finite volumes": (lambda: af.DriftDiffusion(P).solve(start, 0.1, method="finite-volume"), lambda s: s.at(X, t=0.03)),
    "given nodes": (lambda: af.DriftDiffusion(P).solve(start, 0.1, grid=32), lambda s: s.at(X, t=0.03)),
    "given cells": (lambda: af.Heat(af.Box([(0, 1)])).solve(start, 0.1, grid=32), lambda s: s.at(X, t=0.03)),
    "sphere": (lambda: af.Heat(af.Sphere(2)).solve(start, 0.1), lambda s: s.at(UNIT, t=0.03)),
    "tokens on a sphere": (
        lambda: af.DriftDiffusion(af.VonMisesFisher([0, 0, 1.0], 1.0)).solve(start, 0.1),
        lambda s: s.at(UNIT, t=0.03),
    ),
    "heads": (lambda: af.MultiHead([LAYER, LAYER], [0.5, [[0.5]]]), lambda heads: heads(X)),
    "limit of heads": (lambda: af.limit(af.MultiHead([LAYER, LAYER]), P), lambda equation: equation.solve(start, 0.1).at(X)),
    "forward": (lambda: af.FokkerPlanck(P).solve(walkers, 0.1), lambda s: s.at(X, t=0.03)),
    "velocity": (lambda: af.General(P, across).solve(start, 0.1), lambda s: s.at(X, t=0.03)),
    "tokens": (lambda: af.propagate(LAYER, P, start, 3), lambda s: s.at(X)),
    "mean field": (lambda: af.MeanField(af.Attention(af.SquaredDistance(LINE), 0.1), GAUSS).solve(0.1), lambda s: s.at(X)),
    "bias": (lambda: af.predicted_bias(LAYER, P, start, 0.1), lambda bias: bias(X)),
    "noise": (lambda: af.predicted_noise(LAYER, P, start, 0.1, 100), lambda noise: noise(X)),
    "spectrum": (lambda: af.DriftDiffusion(P).spectrum(3), lambda s: s.eigenvalues),
    "layer's spectrum": (lambda: LAYER.spectrum(np.linspace(0, 6, 20)[:, None], 3), lambda s: np.vstack([s.at(X).T, s.rates])),
    "diffusion map": (lambda: af.DiffusionMap(1).fit(np.linspace(0, 6, 20)[:, None]), lambda m: m.transform(X)),
    "classifier": (
        lambda: af.learning.L2Attention(solver="lbfgs", epochs=1).fit(np.linspace(0, 6, 20)[:, None], np.arange(20) > 9),
        lambda m: m.predict_proba(X),
    ),
    "limit": (lambda: af.limit(LAYER, P), lambda equation: equation.solve(start, 0.1).at(X)),
    "study": (study, lambda s: np.array([c["error"] for c in s.run(progress=False).cells])),
    "result": (lambda: study().run(progress=False), lambda r: np.array(r.noise(), dtype=float)),
}


@pytest.mark.parametrize("name", HELD)
def test_it_comes_back_from_another_process_and_says_the_same(name):
    make, say = HELD[name]
    held = make()
    np.testing.assert_array_equal(say(pickle.loads(pickle.dumps(held))), say(held))
