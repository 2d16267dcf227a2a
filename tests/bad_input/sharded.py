"""Of layers on tokens that are read block by block."""

from bad_values import INTEGER, OBJECT, PATH, arrays, points

import attnflow as af

from .rows import LAYER, TOKENS, Row, optional

SHARDS = af.Sharded(LAYER, block=2)
FILES = {name: value for name, value in PATH.items() if name not in ("none", "number", "list", "array")}  # others are arrays
NOT_FILES = ("text",)  # the name of a file that does not exist: FileNotFoundError

SHARDED = [
    Row("Sharded", "layer", af.Sharded, OBJECT),
    Row("Sharded", "block", lambda v: af.Sharded(LAYER, v), INTEGER | {"zero": 0}),
    optional("Sharded", "client", lambda v: af.Sharded(LAYER, client=v), OBJECT),
    optional("Sharded", "scratch", lambda v: af.Sharded(LAYER, scratch=v), PATH),
    Row("Sharded", "tokens", SHARDS, points(TOKENS) | FILES, NOT_FILES),
    optional("Sharded", "values", lambda v: SHARDS(TOKENS, v), arrays(TOKENS, few=TOKENS[1:]) | FILES, *NOT_FILES),
    optional("Sharded", "queries", lambda v: SHARDS(TOKENS, queries=v), points(TOKENS) | FILES, *NOT_FILES),
    optional("Sharded", "out", lambda v: SHARDS(TOKENS, out=v), PATH | {"no such kind": "a.txt"}),
    Row("Sharded.propagate", "tokens", lambda v: SHARDS.propagate(v, TOKENS, 1), points(TOKENS) | FILES, NOT_FILES),
    optional("Sharded.propagate", "values", lambda v: SHARDS.propagate(TOKENS, v, 1), arrays(TOKENS) | FILES, *NOT_FILES),
    Row("Sharded.propagate", "layers", lambda v: SHARDS.propagate(TOKENS, TOKENS, v), INTEGER | {"zero": 0}),
    optional("Sharded.propagate", "out", lambda v: SHARDS.propagate(TOKENS, TOKENS, 1, v), PATH),
    Row("Sharded.spectrum", "tokens", lambda v: SHARDS.spectrum(v, 2), points(TOKENS) | FILES, NOT_FILES),
    Row("Sharded.spectrum", "k", lambda v: SHARDS.spectrum(TOKENS, v), INTEGER | {"zero": 0, "five": 5}),
]
