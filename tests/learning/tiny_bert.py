"""A BERT of a few random numbers in a folder, for tests that read models."""

import json

import numpy as np

from attnflow.learning.tensor_files import write_tensors

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] heat flow ##s ##ing slow between classes . , - ! the a b c".split()
HEADS, WIDTH, LAYERS = 3, 12, 2
CONFIG = {
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "vocab_size": len(VOCABULARY),
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}


def tensors(prefix="", norms=("weight", "bias"), seed=0):
    """Name -> random array, every tensor of the model: float32, so that every library reads the same numbers."""
    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (16, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    linear = {
        "attention.self.query": (WIDTH, WIDTH),
        "attention.self.key": (WIDTH, WIDTH),
        "attention.self.value": (WIDTH, WIDTH),
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (20, WIDTH),
        "output.dense": (WIDTH, 20),
    }
    stems = [f"encoder.layer.{layer}." for layer in range(LAYERS)]
    for stem in stems:
        for name, shape in linear.items():
            shapes |= {f"{stem}{name}.weight": shape, f"{stem}{name}.bias": shape[:1]}
    for stem in ("embeddings.", *(f"{stem}{part}output." for stem in stems for part in ("attention.", ""))):
        shapes |= {f"{stem}LayerNorm.{name}": (WIDTH,) for name in norms}
    return {prefix + name: np.float32(0.5 * rng.standard_normal(shape)) for name, shape in shapes.items()}


def write(folder, prefix="", norms=("weight", "bias"), **config):
    """model.safetensors, config.json and vocab.txt; returns the folder."""
    folder.mkdir(exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors(prefix, norms))
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder
