"""A head's shares are those of its dense logits, and heads of known kinds are told apart."""

import csv
import warnings

import numpy as np
import pytest
import tiny_bert

import attnflow as af
from attnflow import checks
from attnflow.cli import main
from attnflow.learning import anatomy, from_safetensors
from attnflow.learning.head_survey import survey

RNG = np.random.default_rng(0)
N, DIM, R = 60, 7, 3
TOKENS = RNG.standard_normal((N, DIM)) + 1
HEAD = af.DotProduct(*RNG.standard_normal((2, R, DIM)), bias=RNG.standard_normal(R))
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


def test_shares_are_those_of_the_dense_logits():
    found, logits = anatomy(HEAD, TOKENS), -HEAD(TOKENS, TOKENS)
    rows = logits - logits.mean(axis=1, keepdims=True)
    total, by_key = (rows**2).sum(), N * (rows.mean(axis=0) ** 2).sum()
    both = rows - rows.mean(axis=0)
    values = np.linalg.eigvalsh((both + both.T) / 2)
    expected = {
        "key": by_key / total,
        "metric": (values[values > 0] ** 2).sum() / total,
        "repelling": (values[values < 0] ** 2).sum() / total,
        "antisymmetric": (((both - both.T) / 2) ** 2).sum() / total,
    }
    assert found.shares == pytest.approx(expected, rel=1e-12)
    assert sum(found.shares.values()) == pytest.approx(1, abs=1e-14)
    assert found.spread == pytest.approx(np.sqrt(rows.var(axis=1).mean()))
    weights = af.Attention(HEAD, 0.5).weights(TOKENS)
    np.testing.assert_array_equal(found.most_attended, weights.argmax(axis=1))
    assert found.self_attending == np.mean(weights.argmax(axis=1) == np.arange(N))
    assert found.perplexity == pytest.approx(np.median(np.exp(-(weights * np.log(weights)).sum(axis=1))))
    # the distance to the nearest -|Lx - Ly|^2 / 2: what is not the positive part, of all that is not of one token alone
    positive, vectors = np.linalg.eigh((both + both.T) / 2)
    near = (vectors * np.maximum(positive, 0)) @ vectors.T
    assert found.distance == pytest.approx(np.linalg.norm(both - near) / np.linalg.norm(both))


def test_parts_of_the_matrix_and_of_the_covariance_are_the_dense_ones():
    found, W = anatomy(HEAD, TOKENS), HEAD.factors[0].T @ HEAD.factors[1]
    part, singular = (W + W.T) / 2, np.linalg.svd(W)[1]
    assert found.symmetric == pytest.approx(np.linalg.norm(part))
    assert found.antisymmetric == pytest.approx(np.linalg.norm(W - W.T) / 2)
    own, weight = np.linalg.eigvalsh(part), singular[:R] / singular.sum()
    assert found.definiteness == pytest.approx(own.sum() / np.abs(own).sum())
    assert found.effective_rank == pytest.approx(np.exp(-(weight * np.log(weight)).sum()))
    values, vectors = np.linalg.eigh(np.cov(TOKENS.T, bias=True))
    root = (vectors * np.sqrt(values)) @ vectors.T
    expected = np.linalg.eigvalsh(root @ part @ root)[::-1]
    np.testing.assert_allclose(found.eigenvalues, expected[np.abs(expected) > 1e-10], rtol=1e-10)
    output, mean = af.Attention(HEAD, 0.5)(TOKENS), TOKENS.mean(axis=0)
    gaussian = mean + (TOKENS @ W + HEAD.bias @ HEAD.factors[1]) @ np.cov(TOKENS.T, bias=True)
    assert found.gaussian_error == pytest.approx(np.linalg.norm(output - gaussian) / np.linalg.norm(output - mean))


def test_a_key_bias_changes_the_share_of_the_key_alone():
    found, biased = anatomy(HEAD, TOKENS), anatomy(af.DotProduct(*HEAD.factors, bias=HEAD.bias + 9), TOKENS)
    assert biased.shares["key"] > found.shares["key"] + 0.1
    assert biased.distance == pytest.approx(found.distance, rel=1e-10)
    np.testing.assert_allclose(biased.eigenvalues, found.eigenvalues, rtol=1e-10)


SPHERE = af.Uniform(af.Sphere(2)).sample(1000, rng=0)


def test_a_metric_on_the_sphere_is_local_and_its_layer_is_the_one_of_the_squared_distance():
    found = anatomy(af.DotProduct(12 * np.eye(3)), SPHERE)
    assert found.kind == "metric" and found.shares["metric"] > 0.99 and found.definiteness == pytest.approx(1)
    np.testing.assert_allclose(found.eigenvalues, 4, rtol=0.1)  # 12 times the covariance 1/3
    assert found.local_directions == 3 and found.effective_rank == pytest.approx(3)
    assert found.diffusion_error < 0.02  # -x'Wy and |x - y|^2_W / 2 are one similarity there, but for the mean of the sample
    assert found.verdict.startswith("Nearest to a diffusive limit in 3 of 3 directions (largest eigenvalue ")
    wide = anatomy(af.DotProduct(2 * np.eye(3)), SPHERE)
    assert wide.local_directions == 0 and "no direction is local (largest eigenvalue 0.6" in wide.verdict


@pytest.mark.parametrize(
    "W, bias, kind, words",
    [
        (-8 * np.eye(2), None, "repelling", "repels: tokens attend to what they are least like"),
        (8 * TURN, None, "antisymmetric", "is antisymmetric: it transports"),
        (np.eye(2), [30.0, 0.0], "key", "depends on the key alone: all tokens are drawn to the same ones"),
    ],
)
def test_heads_of_one_kind_are_in_no_limit_for_their_own_reason(W, bias, kind, words):
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    found = anatomy(af.DotProduct(W, bias=bias), np.column_stack([np.cos(angle), np.sin(angle)]))
    assert found.kind == kind and found.shares[kind] > 0.95 and found.diffusion_error is None
    assert found.verdict.startswith("In no diffusive limit, because its largest part, ") and words in found.verdict
    assert f"{kind} {found.shares[kind]:.2f}" in repr(found) and words in repr(found)


def test_gaussian_tokens_move_by_the_gaussian_result():
    # mu + Sigma (W'x + b), exact for infinitely many tokens; the error falls like N^(-1/2)
    cov = np.array([[1.0, 0.3], [0.3, 0.5]])
    head = af.DotProduct([[0.4, 0.2], [-0.3, 0.5]], bias=[0.2, -0.1])
    errors = [
        np.mean([anatomy(head, af.Gaussian([0.3, -0.2], cov).sample(size, rng=k)).gaussian_error for k in range(20)])
        for size in (100, 400)
    ]
    assert errors[1] < 0.2 and errors[0] / errors[1] == pytest.approx(2, rel=0.25)


def test_a_cloud_that_is_no_sphere_moves_unlike_drift_diffusion():
    # N(0, 1), W = w: the layer maps x to w x, the one of the squared distance to w/(1 + w) x
    w = 0.3
    found = anatomy(af.DotProduct(w * np.eye(2)), af.Gaussian([0.0, 0.0], np.eye(2)).sample(3000, rng=0))
    assert found.kind == "metric" and found.diffusion_error == pytest.approx((w - w / (1 + w)) / (1 - w), rel=0.05)


def test_weights_that_draw_all_tokens_alike_have_no_pairwise_part():
    found = anatomy(af.DotProduct(np.zeros((1, DIM)), np.ones((1, DIM)), bias=[1.0]), TOKENS)
    assert found.shares["key"] == 1 and found.distance == 1 and len(found.eigenvalues) == found.local_directions == 0
    assert found.effective_rank == found.definiteness == found.symmetric == 0


def test_plot_names_the_shares_and_the_local_directions():
    from matplotlib.figure import Figure

    ax = anatomy(af.DotProduct(12 * np.eye(3)), SPHERE).plot(Figure().subplots())
    assert ax.get_title(loc="left") == "Local in 3 of 3 directions"
    assert "antisymmetric 0.00" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.filterwarnings("ignore::attnflow.checks.IsolatedTokensWarning")
def test_a_layer_that_moves_nothing_is_not_off_by_anything():
    found = anatomy(af.DotProduct(1e7 * np.eye(3)), SPHERE[:30])
    assert found.perplexity == pytest.approx(1) and found.diffusion_error == 0 and "0 % of its step off" in found.verdict


def test_a_head_of_keys_alone_has_a_picture():
    from matplotlib.figure import Figure

    ax = anatomy(af.DotProduct(np.zeros((1, DIM)), np.ones((1, DIM)), bias=[1.0]), TOKENS).plot(Figure().subplots())
    assert ax.get_title(loc="left") == "Local in none of 0 directions"


def test_a_survey_is_the_anatomy_of_every_head_on_all_tokens(tmp_path):
    folder = tiny_bert.write(tmp_path / "model")
    found = survey(folder, ["heat flows", "the classes!"])
    assert list(found.heads) == [(layer, head) for layer in range(tiny_bert.LAYERS) for head in range(tiny_bert.HEADS)]
    one = anatomy(from_safetensors(folder / "model.safetensors", 1, 2), np.concatenate(found.states[1]))
    assert found.heads[1, 2].numbers == one.numbers


def test_the_command_writes_a_row_and_a_bar_for_each_head(tmp_path, capsys):
    folder, out = tiny_bert.write(tmp_path / "model"), tmp_path / "out"
    (tmp_path / "text").write_text("Heat flows.\n\nThe classes flow slow!\n", encoding="utf-8")
    assert main(["anatomy", str(folder), "--text", str(tmp_path / "text"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "6 heads on 13 tokens of 2 texts" in printed and "diffusive limit" in printed
    with open(out / "anatomy.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = survey(folder, ["Heat flows.", "The classes flow slow!"]).heads
    assert [(int(row["layer"]), int(row["head"])) for row in rows] == list(expected)
    for row, one in zip(rows, expected.values()):
        assert float(row["metric"]) == one.shares["metric"] and row["verdict"] == one.verdict
    assert (out / "anatomy.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "text must be a file of sentences, but there is none"),
        (b"\n \n", "text must hold a sentence"),
        (b"\xff", "UTF-8"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_text(text, message, tmp_path, capsys):
    if text is not None:
        (tmp_path / "text").write_bytes(text)
    assert main(["anatomy", str(tiny_bert.write(tmp_path / "model")), "--text", str(tmp_path / "text")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "head, tokens, error, message",
    [
        (af.SquaredDistance(af.Euclidean(2)), TOKENS[:, :2], TypeError, "head must be a DotProduct"),
        (HEAD, TOKENS[:, :3], ValueError, "tokens must have 7 columns"),
        (HEAD, TOKENS[:1], ValueError, "tokens must be at least 2"),
        (HEAD, np.ones((4, DIM)), ValueError, "tokens must get different logits"),
        (HEAD, np.zeros((10_000, DIM)), ValueError, "tokens must make at most"),
        (HEAD, np.full((4, DIM), np.nan), ValueError, "tokens must be finite"),
    ],
)
def test_bad_input_is_named(head, tokens, error, message):
    with pytest.raises(error, match=message):
        anatomy(head, tokens)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e5])
def test_a_metric_without_its_key_bias_or_of_lone_tokens_is_near_no_limit(scale):
    """Off the sphere x'Wy lacks -y'Wy / 2; far up, tokens see themselves only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", checks.IsolatedTokensWarning)
        found = anatomy(af.DotProduct(scale * np.eye(3)), np.random.default_rng(0).normal(size=(200, 3)))
    assert found.kind == "metric" and found.local_directions > 1 and found.diffusion_error > 0.9
    assert found.verdict.startswith("In no diffusive limit")
