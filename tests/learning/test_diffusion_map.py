"""Diffusion maps: scikit-learn's contract, known geometry, and points off the data."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_swiss_roll
from sklearn.semi_supervised import LabelPropagation
from sklearn.utils.estimator_checks import parametrize_with_checks

import attnflow as af

ANGLE = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 700))
RING = np.column_stack([np.cos(ANGLE), np.sin(ANGLE), 0.1 * np.sin(3 * ANGLE)])


# data of the checks that fall into sets apart are reported, as they should be
@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning", "ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([af.DiffusionMap()])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("size", [1500, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_swiss_roll_is_unrolled(size):
    X, angle = make_swiss_roll(size, random_state=0)
    first = af.DiffusionMap(n_components=1).fit_transform(X)[:, 0]
    assert abs(np.corrcoef(first, angle)[0, 1]) > 0.95


@pytest.mark.parametrize("alpha, t", [(0.0, 1), (0.5, 3), (1.0, 0.5)])
def test_the_embedding_is_the_definition(alpha, t):
    mapped = af.DiffusionMap(3, epsilon=0.05, alpha=alpha, t=t).fit(RING)
    K = np.exp(-((RING[:, None] - RING) ** 2).sum(axis=-1) / 0.1)
    q = K.sum(axis=1)
    K /= np.outer(q, q) ** alpha
    d = K.sum(axis=1)
    values, vectors = np.linalg.eigh(K / np.sqrt(np.outer(d, d)))
    psi = vectors[:, :-5:-1] / np.sqrt(d)[:, None] * np.sqrt(d.sum())
    expected = psi[:, 1:] * values[-2:-5:-1] ** t
    np.testing.assert_allclose(mapped.eigenvalues_, values[-2:-5:-1], atol=1e-11)
    np.testing.assert_allclose(mapped.embedding_, expected * np.sign((mapped.embedding_ * expected).sum(axis=0)), atol=1e-8)


def test_the_density_of_a_ring_is_forgotten_at_alpha_one():
    angle = 2 * np.pi * np.linspace(0, 1, 1000, endpoint=False)
    angle += 0.6 * np.sin(angle)  # four times as many on one side
    embedding = af.DiffusionMap(epsilon=0.01).fit_transform(np.column_stack([np.cos(angle), np.sin(angle)]))
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), np.sqrt(2), rtol=0.05)


def test_points_off_the_data_are_mapped_between_their_neighbours():
    mapped = af.DiffusionMap(epsilon=0.02)
    embedding = mapped.fit_transform(RING)
    np.testing.assert_allclose(mapped.transform(RING), embedding, atol=1e-8)
    np.testing.assert_allclose(mapped.spectrum_.eigenvectors[1:].T * mapped.eigenvalues_, embedding, atol=1e-8)
    middle = (RING[100:600] + RING[101:601]) / 2
    np.testing.assert_allclose(mapped.transform(middle), (embedding[100:600] + embedding[101:601]) / 2, atol=0.02)
    assert mapped.get_feature_names_out().tolist() == ["diffusionmap0", "diffusionmap1"]


def test_automatic_epsilon_is_the_documented_one():
    X = RING[:100]
    distances = np.sort(np.linalg.norm(X[:, None] - X, axis=-1), axis=1)[:, 1:11]
    assert af.DiffusionMap().fit(X).epsilon_ == pytest.approx((np.median(distances) / 2) ** 2, rel=1e-12)
    with pytest.raises(ValueError, match="^epsilon must be given for X"):
        af.DiffusionMap().fit(np.repeat(X[:5], 20, axis=0))


def test_scikit_learn_is_asked_for_only_then_and_by_the_extra_when_absent():
    code = (
        "import sys; sys.modules['sklearn'] = None; import attnflow\n"
        "from attnflow import *\n"
        "assert 'DiffusionMap' in dir(attnflow) and 'DiffusionMap' not in attnflow.__all__\n"
        "try: attnflow.DiffusionMap\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "attnflow[learning]"' in said


def test_rates_are_the_eigenvalues_that_pydiffmap_gives_to_half_the_temperature():
    X, e = np.random.default_rng(0).normal(size=(60, 2)), 0.1
    K = np.exp(-np.square(X[:, None] - X).sum(axis=-1) / (4 * e))  # its Gaussian, alpha = 1, and L = (P - 1) / e
    K /= K.sum(axis=1)
    evals = np.sort(np.linalg.eigvals((K / K.sum(axis=1)[:, None] - np.eye(60)) / e).real)[::-1]
    fitted = af.DiffusionMap(3, epsilon=2 * e, alpha=1.0).fit(X)
    np.testing.assert_allclose(fitted.spectrum_.rates[1:], evals[1:4], rtol=1e-9)
    np.testing.assert_allclose(fitted.eigenvalues_, 1 + e * evals[1:4], rtol=1e-12)


def test_layers_that_reset_what_is_known_are_scikit_learns_label_propagation():
    X, g = np.random.default_rng(0).normal(size=(80, 2)), 2.0
    y, known = (X[:, 0] > 0).astype(int), np.arange(80) < 10
    layer, labels = af.Attention(af.SquaredDistance(af.Euclidean(2)), 1 / (2 * g)), np.eye(2)[y] * known[:, None]
    H = labels
    for _ in range(400):
        H = layer(X, H)
        H[known] = labels[known]
    peer = LabelPropagation(gamma=g, max_iter=5000, tol=1e-12).fit(X, np.where(known, y, -1))
    np.testing.assert_allclose(H, peer.label_distributions_, atol=1e-9)
