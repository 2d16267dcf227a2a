"""Of classifiers, and of pretrained heads."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from bad_values import (
    INTEGER,
    NAME,
    OBJECT,
    PATH,
    POSITIVE,
    REAL,
    SEQUENCE,
    points,
)

import attnflow as af
from attnflow import learning
from attnflow.learning.tensor_files import write_tensors

from .rows import TOKENS, F, Row, optional

MODEL = str(Path(mkdtemp()) / "model.safetensors")
write_tensors(MODEL, {f"encoder.layer.0.attention.self.{part}.weight": np.eye(4) for part in ("query", "key")})


def head_of(path=MODEL, layer=0, head=0, heads=2):
    return learning.from_safetensors(path, layer, head, heads)


def classifier(**arguments):
    """Of two classes, trained for one iteration without PyTorch."""
    options = {"solver": "lbfgs", "epochs": 1} | arguments
    return af.learning.L2Attention(**options).fit(TOKENS, TOKENS[:, 0] > 3)


LEARNED = classifier()

LEARNING = [
    Row("learning.from_safetensors", "path", head_of, PATH),
    Row("learning.from_safetensors", "layer", lambda v: head_of(layer=v), INTEGER | {"absent": 1}),
    Row("learning.from_safetensors", "head", lambda v: head_of(head=v), INTEGER | {"absent": 2}),
    optional("learning.from_safetensors", "heads", lambda v: head_of(heads=v), INTEGER | {"zero": 0, "odd": 5}),
    Row("learning.symmetry", "path", learning.symmetry, PATH),
    Row("learning.hidden_states", "folder", lambda v: learning.hidden_states(v, ["a"]), PATH),
    Row("learning.hidden_states", "sentences", lambda v: learning.hidden_states(MODEL, v), SEQUENCE | {"numbers": [1]}),
    Row("learning.anatomy", "head", lambda v: learning.anatomy(v, np.eye(2)), OBJECT | {"other": F}),
    Row("learning.anatomy", "tokens", lambda v: learning.anatomy(head_of(), v), points(np.eye(4), same=np.ones((4, 4)))),
]

CLASSIFIERS = [
    *(
        Row("learning.L2Attention", name, lambda v, name=name: classifier(**{name: v}), INTEGER | {"zero": 0})
        for name in ("width", "blocks", "epochs", "n_iter_no_change")
    ),
    Row("learning.L2Attention", "learning_rate", lambda v: classifier(learning_rate=v), POSITIVE),
    *(
        Row("learning.L2Attention", name, lambda v, name=name: classifier(**{name: v}), REAL | {"negative": -1.0})
        for name in ("weight_decay", "tol")
    ),
    Row("learning.L2Attention", "solver", lambda v: classifier(solver=v), NAME),
    optional(
        "learning.MetricAttention",
        "lipschitz",
        lambda v: af.learning.MetricAttention(lipschitz=v).fit(TOKENS, TOKENS[:, 0] > 3),
        POSITIVE | {"one": 1.0, "two": 2},
    ),
    Row("learning.L2Attention.project", "n", lambda v: LEARNED.project(TOKENS, v), INTEGER | {"zero": 0, "eleven": 11}),
    Row("learning.L2Attention.save", "path", LEARNED.save, PATH),
    Row("learning.load", "path", af.learning.load, PATH),
    optional(
        "learning.L2Attention.fit",
        "edges",
        lambda v: af.learning.L2Attention(solver="lbfgs", epochs=1).fit(TOKENS, TOKENS[:, 0] > 3, v),
        {
            "text": "a",
            "one column": [[0], [1]],
            "fractions": [[0.5, 1.0]],
            "beyond": [[0, 6]],
            "negative": [[-1, 0]],
            "ragged": [[0], [0, 1]],
            "empty": [],
            "from one token": [[0, 1]],
        },
    ),
]
