"""A pretrained head is the softmax of its model, whatever the model calls its weights."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_bert

import attnflow as af
from attnflow.learning import from_safetensors, symmetry
from attnflow.learning.tensor_files import write_tensors

RNG = np.random.default_rng(1)
N, HEADS, R = 12, 4, 3
X = RNG.standard_normal((6, N))
Q, K, V = RNG.standard_normal((3, HEADS * R, N))
BIASES = RNG.standard_normal(3 * HEADS * R)
B_Q, B_K, B_V = np.split(BIASES, 3)


def softmax(queries, keys):
    scores = np.exp(queries @ keys.T / np.sqrt(R))
    return scores / scores.sum(axis=1, keepdims=True)


def bert(prefix="", layer=0):
    stem = f"{prefix}encoder.layer.{layer}.attention.self."
    return {f"{stem}query.weight": Q, f"{stem}key.weight": K, f"{stem}query.bias": B_Q, f"{stem}key.bias": B_K}


def gpt2(prefix="", layer=0):
    stem = f"{prefix}h.{layer}.attn.c_attn."
    return {f"{stem}weight": np.concatenate([Q, K, V]).T.copy(), f"{stem}bias": BIASES}


def grouped(prefix="", layer=0):
    stem = f"{prefix}layers.{layer}.self_attn."
    return {f"{stem}q_proj.weight": Q, f"{stem}q_proj.bias": B_Q, f"{stem}k_proj.weight": K[: 2 * R]}


def model(folder, tensors, **config):
    write_tensors(folder / "model.safetensors", tensors)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    "make, prefix", [(bert, ""), (bert, "model.bert."), (gpt2, ""), (gpt2, "transformer."), (grouped, "model.")]
)
@pytest.mark.parametrize("head", range(HEADS))
def test_half_a_temperature_is_the_heads_softmax(make, prefix, head, tmp_path):
    path = model(
        tmp_path,
        make(prefix, 3) | {"lm_head.weight": np.ones(2)},
        **{"n_head" if make is gpt2 else "num_attention_heads": HEADS},
    )
    f, part = from_safetensors(path, 3, head), slice(head * R, head * R + R)
    keys = K[part] if make is not grouped else K[head // 2 * R :][:R]  # two query heads to a key head
    expected = softmax(X @ Q[part].T + B_Q[part], X @ keys.T + (0 if make is grouped else B_K[part]))
    np.testing.assert_allclose(af.Attention(f, 0.5).weights(X), expected, rtol=1e-12, atol=1e-15)
    assert isinstance(f, af.DotProduct) and f.factors[0].shape == (R, N)


def test_bfloat16_weights_are_those_they_stand_for(tmp_path):
    # the upper half of a float32: 1.5 is 3FC0, -0.25 is BE80
    header = {"h.0.attn.c_attn.weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}
    text = json.dumps(header).encode()
    (tmp_path / "m").write_bytes(len(text).to_bytes(8, "little") + text + bytes.fromhex("c03f80bec03f"))
    f = from_safetensors(tmp_path / "m", 0, 0, heads=1)
    assert f.factors[0].dtype == np.float64 and (f.factors[0].item(), f.factors[1].item()) == (1.5, -0.25)


def test_heads_given_hold_before_those_of_the_configuration(tmp_path):
    path = model(tmp_path, bert(), num_attention_heads=HEADS)
    assert from_safetensors(path, 0, 1, heads=2).factors[0].shape == (2 * R, N)


def test_symmetry_is_one_zero_or_a_half(tmp_path):
    turn = np.kron(np.eye(N // 2), [[0.0, 1.0], [-1.0, 0.0]])
    wide = np.random.default_rng(0).standard_normal((2, 400, 400))
    layers = [(np.eye(N), np.eye(N)), (np.eye(N), turn), (turn, turn), tuple(wide)]
    tensors = {}
    for layer, factors in enumerate(layers):
        for part, weight in zip(("query", "key"), factors):
            tensors[f"encoder.layer.{layer}.attention.self.{part}.weight"] = weight
    found = symmetry(model(tmp_path, tensors))
    np.testing.assert_allclose(found[:3], [1, 0, 1], atol=1e-15)
    assert found[3] == pytest.approx(0.5, abs=0.01)  # the trace of M^2 over |M|^2 is of order 1/n


@pytest.mark.parametrize("make", [bert, gpt2, grouped])
def test_symmetry_sums_over_heads(make, tmp_path):
    path = model(tmp_path, make(), num_attention_heads=HEADS)
    M = sum(f.factors[0].T @ f.factors[1] for f in (from_safetensors(path, 0, head) for head in range(HEADS)))
    part = (M + M.T) / 2
    np.testing.assert_allclose(symmetry(path), [(part**2).sum() / (M**2).sum()], rtol=1e-12)


@pytest.mark.parametrize(
    "tensors, layer, head, heads, message",
    [
        (bert(), 1, 0, 4, r"layer must be one of the 1 in .*model.safetensors' \(0\), got 1"),
        (bert(), 0, 4, 4, "head must be below the 4 heads of layer 0, got 4"),
        (bert(), 0, -1, 4, "head must be at least 0"),
        (bert(), 0, 0, None, "heads must be known for .*no config.json"),
        (bert(), 0, 0, 5, "heads must divide the 12 rows"),
        (grouped(), 0, 0, 3, "heads must divide the 12 rows of queries and 6 of keys"),
        (bert("a.") | bert("b."), 0, 0, 4, "path must hold one model, got BERT under 'a.', BERT under 'b.'"),
        ({"x": np.ones(1), "y": np.ones(1)}, 0, 0, 4, "path must hold query and key weights .* got 2 tensors .*: 'x', 'y'$"),
        ({f"t{k}": np.ones(1) for k in range(9)}, 0, 0, 4, r"got 9 tensors .* 't5', \.\.\.$"),
        ({"h.0.attn.c_attn.weight": np.ones((4, 11))}, 0, 0, 1, r"c_attn.weight must have shape \(4, 12\), got \(4, 11\)"),
        (bert() | {"encoder.layer.0.attention.self.key.weight": Q[:6]}, 0, 0, 4, r"key.weight must have shape \(12, 12\)"),
        ({"encoder.layer.0.attention.self.query.weight": Q}, 0, 0, 4, "must hold 'encoder.layer.0.attention.self.key.weight'"),
        (
            bert() | {"encoder.layer.0.attention.self.query.weight": np.full((12, 12), np.nan)},
            0,
            0,
            4,
            "query.weight must be finite",
        ),
        (
            grouped() | {"layers.0.self_attn.q_norm.weight": np.ones(3)},
            0,
            0,
            4,
            "linear queries, got layers.0.self_attn.q_norm",
        ),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_said(tensors, layer, head, heads, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        from_safetensors(model(tmp_path, tensors), layer, head, heads)


@pytest.mark.parametrize("name", ["0" * 5000, "00", "\u0660"])
def test_layers_have_one_name_each(name, tmp_path):
    tensors = bert() | {f"encoder.layer.{name}.attention.self.query.weight": 2 * Q}
    np.testing.assert_array_equal(from_safetensors(model(tmp_path, tensors), 0, 0, 4).factors[0], Q[:R] / np.sqrt(R))


@pytest.mark.parametrize(
    "name, value", [("scale_attn_by_inverse_layer_idx", True), ("query_pre_attn_scalar", 144), ("attn_logit_softcapping", 50.0)]
)
def test_scores_that_are_scaled_otherwise_are_refused(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"config.json must have {name}"):
        from_safetensors(model(tmp_path, grouped(), **{name: value}), 0, 0, 4)


def test_symmetry_does_not_know_units(tmp_path):
    (tmp_path / "small").mkdir()
    small = {name: 1e-90 * tensor for name, tensor in bert().items()}
    np.testing.assert_allclose(symmetry(model(tmp_path / "small", small)), symmetry(model(tmp_path, bert())), rtol=1e-12)


@pytest.mark.parametrize("text", ["[1]", "{", '{"num_attention_heads": 0}'])
def test_a_damaged_configuration_is_refused(text, tmp_path):
    path = tiny_bert.write(tmp_path / "model") / "model.safetensors"
    (path.parent / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json must be"):
        from_safetensors(path, 0, 0)


def test_reading_heads_imports_no_framework():
    code = (
        "import sys\nfrom attnflow.learning import anatomy, from_safetensors, hidden_states, symmetry\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'torch', 'sklearn', 'transformers', 'matplotlib', 'sympy'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.optional
@pytest.mark.parametrize("kind, digits", [("GPT2", 1e-12), ("Qwen2", 1e-6)])  # whose softmax is in float32 always
def test_heads_are_those_of_the_transformers_library(kind, digits, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "GPT2":
        config = transformers.GPT2Config(n_embd=12, n_layer=2, n_head=3, vocab_size=20, n_positions=16)
    else:
        sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 20}
        config = transformers.Qwen2Config(num_attention_heads=6, num_key_value_heads=2, **sizes)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases of queries, too, that are no zeros
            parameter.normal_()
        model.save_pretrained(tmp_path)
        places = torch.zeros(1, 7, dtype=torch.long)  # all in one place: nothing is turned
        run = model.double()(
            input_ids=torch.arange(7)[None], position_ids=places, output_hidden_states=True, output_attentions=True
        )
        norms = [block.ln_1 for block in model.h] if kind == "GPT2" else [block.input_layernorm for block in model.layers]
        seen = [norm(state)[0].numpy() for norm, state in zip(norms, run.hidden_states)]
    for layer, tokens in enumerate(seen):
        for head, expected in enumerate(run.attentions[layer][0].numpy()):
            f = from_safetensors(tmp_path / "model.safetensors", layer, head)
            np.testing.assert_allclose(af.Attention(f, 0.5, mask="causal").weights(tokens), expected, atol=digits)
