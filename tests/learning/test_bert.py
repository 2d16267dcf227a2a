"""A model's hidden states are those of its definition, its tokens those of BERT's tokeniser."""

import json
import math

import numpy as np
import pytest
import tiny_bert

import attnflow as af
from attnflow.learning import from_safetensors, hidden_states
from attnflow.learning.tokenizer import WordPiece, read_tokenizer

SENTENCES = ["Heat flows slow.", "flowing, between the classes!", "", "[MASK] a-b c"]


def expected_states(tensors, numbers, prefix="", norms=("weight", "bias")):
    """One sentence by the definition: attention by this package's own engine, everything else a line each."""
    get = lambda name: tensors[prefix + name].astype(float)  # noqa: E731
    gelu = np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)

    def norm(stem, x):
        x = (x - x.mean(axis=1)[:, None]) / np.sqrt(x.var(axis=1)[:, None] + tiny_bert.CONFIG["layer_norm_eps"])
        return x * get(f"{stem}LayerNorm.{norms[0]}") + get(f"{stem}LayerNorm.{norms[1]}")

    def linear(stem, x):
        return x @ get(f"{stem}.weight").T + get(f"{stem}.bias")

    embeddings = (get(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type"))
    words, places, types = embeddings
    x = norm("embeddings.", words[numbers] + places[: len(numbers)] + types[0])
    states, r = [x], tiny_bert.WIDTH // tiny_bert.HEADS
    for layer in range(tiny_bert.LAYERS):
        stem = f"encoder.layer.{layer}."
        values, attended = linear(f"{stem}attention.self.value", x), []
        for head in range(tiny_bert.HEADS):
            part = slice(head * r, head * r + r)
            W_Q, W_K = (get(f"{stem}attention.self.{kind}.weight")[part] for kind in ("query", "key"))
            f = af.DotProduct(W_Q, W_K, get(f"{stem}attention.self.query.bias")[part])
            attended.append(af.Attention(f, np.sqrt(r) / 2, backend="reference")(x, values[:, part]))
        x = norm(f"{stem}attention.output.", x + linear(f"{stem}attention.output.dense", np.concatenate(attended, axis=1)))
        x = norm(f"{stem}output.", x + linear(f"{stem}output.dense", gelu(linear(f"{stem}intermediate.dense", x))))
        states.append(x)
    return states


@pytest.mark.parametrize("prefix, norms", [("", ("weight", "bias")), ("bert.", ("gamma", "beta"))])
def test_hidden_states_are_those_of_the_definition(prefix, norms, tmp_path):
    folder = tiny_bert.write(tmp_path / "model", prefix, norms)
    states, cut = hidden_states(folder, SENTENCES), read_tokenizer(folder)
    assert len(states) == tiny_bert.LAYERS + 1
    for k, sentence in enumerate(SENTENCES):
        for layer, expected in enumerate(expected_states(tiny_bert.tensors(prefix, norms), cut(sentence), prefix, norms)):
            np.testing.assert_allclose(states[layer][k], expected, rtol=1e-12, atol=1e-13)


def test_a_head_on_a_hidden_state_is_what_moves_the_next_one(tmp_path):
    folder = tiny_bert.write(tmp_path / "model")
    f = from_safetensors(folder / "model.safetensors", layer=1, head=2)
    tokens = hidden_states(folder, SENTENCES[:1])[1][0]
    tensors, part = tiny_bert.tensors(), slice(8, 12)
    q, k = (
        tokens @ tensors[f"encoder.layer.1.attention.self.{kind}.weight"][part].T
        + tensors[f"encoder.layer.1.attention.self.{kind}.bias"][part]
        for kind in ("query", "key")
    )
    weights = np.exp(q @ k.T / 2)
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(af.Attention(f, 0.5).weights(tokens), expected, rtol=1e-12)


@pytest.mark.optional
@pytest.mark.parametrize("heads", [3, 4])
def test_the_forward_pass_is_that_of_the_transformers_library(heads, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tiny_bert.write(tmp_path / "model", num_attention_heads=heads)
    library = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    states, cut = hidden_states(folder, SENTENCES), read_tokenizer(folder)
    for k, sentence in enumerate(SENTENCES):
        with torch.no_grad():
            run = library(input_ids=torch.tensor([cut(sentence)]), output_hidden_states=True, output_attentions=True)
        for layer, expected in enumerate(run.hidden_states):
            np.testing.assert_allclose(states[layer][k], expected[0].numpy(), rtol=1e-12, atol=1e-13)
        for layer, expected in enumerate(run.attentions):
            f = from_safetensors(folder / "model.safetensors", layer, heads - 1)
            np.testing.assert_allclose(af.Attention(f, 0.5).weights(states[layer][k]), expected[0, -1].numpy(), rtol=1e-12)


PIECES = {piece: k for k, piece in enumerate(tiny_bert.VOCABULARY)}
CASES = [  # sentence, pieces: with small letters and no accents
    ("Heat FLOWS", ["heat", "flow", "##s"]),
    ("heät\tflöwing\u00a0slow", ["heat", "flow", "##ing", "slow"]),
    ("he\u200bat", ["heat"]),  # a format character is no space
    ("a\x00,\ufffdb.", ["a", ",", "b", "."]),
    ("a-b...c!", ["a", "-", "b", ".", ".", ".", "c", "!"]),
    ("a東b", ["a", "[UNK]", "b"]),  # Chinese characters stand alone
    ("flowflow", ["[UNK]"]),  # no ##flow: nothing is left of the word
    ("flow" + "s" * 96, ["flow"] + ["##s"] * 96),  # a hundred characters, and more
    ("flow" + "s" * 97 + " a", ["[UNK]", "a"]),
    ("the [MASK] [mask]", ["the", "[MASK]", "[UNK]", "[UNK]", "[UNK]"]),
    ("a^b", ["a", "[UNK]", "b"]),  # ASCII marks are punctuation, whatever Unicode calls them
    ("a€b", ["[UNK]"]),  # others are by Unicode's rule
    (" \n ", []),
]


@pytest.mark.parametrize("sentence, pieces", CASES)
def test_sentences_are_cut_as_bert_cuts_them(sentence, pieces):
    cut = WordPiece(PIECES)
    assert cut.pieces(sentence) == pieces
    assert cut(sentence) == [2, *(PIECES[piece] for piece in pieces), 3]


@pytest.mark.optional
@pytest.mark.parametrize("lower_case", [True, False])
def test_sentences_are_cut_as_the_tokenizers_library_cuts_them(lower_case, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower_case)
    split, model = tokenizers.pre_tokenizers.BertPreTokenizer(), tokenizers.models.WordPiece(PIECES, unk_token="[UNK]")
    cut, rng = WordPiece(PIECES, lower_case, lower_case), np.random.default_rng(0)
    for most in (0x80, 0x250, 0x530, 0x3100):
        for _ in range(200):
            words = "".join(chr(c) for c in rng.integers(1, most, 20)) + " Heat flows a b"
            words = "".join(c for c in words if c not in tokenizers_unknown(words))
            expected = [
                token.value
                for word, _ in split.pre_tokenize_str(normalizer.normalize_str(words))
                for token in model.tokenize(word)
            ]
            assert cut.pieces(words) == expected, words


def tokenizers_unknown(text):
    """Characters younger than the library's table of Unicode, of which both may think differently."""
    import unicodedata

    return {c for c in text if unicodedata.ucd_3_2_0.category(c) == "Cn"}


def test_ideographs_may_stay_together():
    cut = {"東京": 5, **PIECES}
    assert WordPiece(cut, split_ideographs=False).pieces("東京") == ["東京"]
    assert WordPiece(cut).pieces("東京") == ["[UNK]", "[UNK]"]


def test_casing_follows_the_configuration(tmp_path):
    folder = tiny_bert.write(tmp_path / "model")
    assert read_tokenizer(folder).pieces("HEAT") == ["heat"]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert read_tokenizer(folder).pieces("HEAT heät") == ["[UNK]", "[UNK]"]
    described = {"normalizer": {"lowercase": False, "strip_accents": True}, "model": {"type": "WordPiece", "vocab": PIECES}}
    (folder / "tokenizer.json").write_text(json.dumps(described))
    (folder / "tokenizer_config.json").unlink()
    assert read_tokenizer(folder).pieces("Heat heät") == ["[UNK]", "heat"]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert read_tokenizer(folder).pieces("Heat heät") == ["heat", "heat"]


@pytest.mark.parametrize(
    "files, message",
    [
        ({"vocab.txt": None}, "folder must hold tokenizer.json or vocab.txt"),
        ({"vocab.txt": b"heat\n[CLS]\n[SEP]"}, r"folder must hold a vocabulary with \[UNK\], got 3 pieces"),
        ({"vocab.txt": b"\xff"}, "vocab.txt must be UTF-8"),
        ({"tokenizer.json": b"[]"}, "tokenizer.json must be a JSON table"),
        ({"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {}}}'}, "tokenizer.json of word pieces, got str 'BPE'"),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": "b"}}}'}, "numbers its pieces"),
        (
            {"tokenizer.json": b'{"model": {"vocab": {"a": 1}, "continuing_subword_prefix": "@@"}}'},
            "continuing_subword_prefix '##', got str '@@'",
        ),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": 1}}, "normalizer": "x"}'}, "with a BertNormalizer, got str 'x'"),
        (
            {"tokenizer.json": b'{"model": {"vocab": {"a": 1}}, "normalizer": {"type": "Sequence"}}'},
            "with a BertNormalizer, got",
        ),
        ({"tokenizer_config.json": b'{"do_basic_tokenize": false}'}, "got do_basic_tokenize false"),
        ({"tokenizer_config.json": b'{"do_lower_case": "yes"}'}, "do_lower_case of the tokenizer must be true"),
        ({"config.json": b'{"model_type": "roberta"}'}, "folder must hold a model of BERT's type, got 'roberta'"),
        ({"config.json": b'{"hidden_act": "relu"}'}, "hidden_act 'gelu', got str 'relu'"),
        ({"config.json": b'{"num_hidden_layers": 3}'}, "folder must hold all 3 layers of its model, got 0, 1 in"),
        ({"config.json": b"{}"}, "config.json must have num_attention_heads that divide 12, got None"),
        ({"vocab.txt": b"[UNK]\n" * 30 + b"[CLS]\n[SEP]"}, "folder must hold a vocabulary of the 20 words"),
        ({"model.safetensors": b""}, "path must be a safetensors file"),
    ],
)
def test_a_folder_of_another_kind_is_refused(files, message, tmp_path):
    folder = tiny_bert.write(tmp_path / "model")
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        hidden_states(folder, ["heat"])


@pytest.mark.parametrize(
    "sentences, error, message",
    [
        ("heat", TypeError, "sentences must be a sequence of str"),
        ([], ValueError, "sentences must be a sequence of str, got none"),
        (["heat", 3], TypeError, "sentences must be str, got int 3 at index 1"),
        (["a", "a " * 15], ValueError, "sentences must have at most 16 tokens each, got 17 at index 1; split it"),
    ],
)
def test_bad_sentences_are_named(sentences, error, message, tmp_path):
    with pytest.raises(error, match=message):
        hidden_states(tiny_bert.write(tmp_path / "model"), sentences)
