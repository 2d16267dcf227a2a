"""The heads of a pretrained transformer as pseudo-metrics: query and key weights from a safetensors file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import checks, display, files
from ..similarity import DotProduct
from .tensor_files import TensorFile, read_tensors

_NUMBER = "0|[1-9][0-9]{0,8}"  # one name for each
# what the names of a layer's attention end with: any prefix, then the layer's number
_ATTENTION = {
    "BERT": re.compile(rf"((?:[\w.]+\.)?)encoder\.layer\.({_NUMBER})\.attention\.self\.query\.weight"),
    "GPT-2": re.compile(rf"((?:[\w.]+\.)?)h\.({_NUMBER})\.attn\.c_attn\.weight"),
    "grouped-query": re.compile(rf"((?:[\w.]+\.)?)layers\.({_NUMBER})\.self_attn\.q_proj\.weight"),
}
_CONFIG = 2**22  # bytes, far above any configuration
# settings by which scores are other than inner products over sqrt(d_head), and the values that leave them so
_SCORES = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "attn_logit_softcapping": None,
    "query_pre_attn_scalar": None,
    "attention_multiplier": None,
}


def from_safetensors(path: str | os.PathLike, layer: int, head: int, heads: int | None = None) -> DotProduct:
    """A pretrained head's pseudo-metric f(x, y) = -(W_Q x + b_Q).(W_K y) / sqrt(d_head): `Attention(f, 0.5)` is its softmax.

    The tokens it is for are those its attention sees: hidden states in BERT, which `hidden_states` computes; normalised ones
    in GPT-2 and grouped-query models. b_Q'W_K y is a key bias; a bias of the keys has no effect and is left out. Rotary
    position embeddings, which turn queries and keys by their place in the text, are no part of f: for models that have them
    it is what the weights alone say, or two tokens in one place.

    Parameters
    ----------
    path : str or os.PathLike
        A safetensors file of a BERT-type model (encoder.layer.0.attention.self.query.weight, ...), of GPT-2's type
        (h.0.attn.c_attn.weight) or a grouped-query model (layers.0.self_attn.q_proj.weight, in which query heads share key
        heads in turn), with any prefix before these names.
    layer, head : int
        From 0.
    heads : int, optional
        Query heads of a layer; None: what config.json beside the file says.

    Returns
    -------
    DotProduct
        Of factors (d_head, n) and a bias, in float64.

    Raises
    ------
    ValueError
        Naming what is wrong: a layer or head that is not there, tensors of other names or shapes, no number of heads.
    OSError
        If there is no such file.

    Examples
    --------
    >>> import tempfile
    >>> from attnflow.learning.tensor_files import write_tensors
    >>> stem = "bert.encoder.layer.0.attention.self"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/model.safetensors", {f"{stem}.{part}.weight": np.eye(8) for part in ("query", "key")})
    ...     f = from_safetensors(f"{folder}/model.safetensors", layer=0, head=1, heads=2)
    >>> f.factors[0].shape, float(f(np.ones((1, 8)), np.ones((1, 8)))[0, 0])     # the last four columns, over sqrt(4)
    ((4, 8), -2.0)

    Source: Vaswani et al. 2017; Devlin et al. 2019; Radford et al. 2019; Ainslie et al. 2023 (grouped queries).
    """
    model = read_heads(path, heads)
    return model.head(layer, head)


def symmetry(path: str | os.PathLike) -> np.ndarray:
    """How symmetric each layer's scores are: |sym M|^2 / |M|^2, M the sum over heads of W_Q'W_K, biases left out.

    1 for symmetric M, 0 for antisymmetric, 0.5 for random weights. Saponati et al. (arXiv 2502.10927) print for
    bert-base-uncased .7696 .8055 .4535 .7896 .7518 .7869 .7405 .8043 .7582 .7143 .6885 .6948, for bert-tiny .8099 .9583.

    Parameters
    ----------
    path : str or os.PathLike
        As of `from_safetensors`. A grouped-query model needs config.json beside it.

    Returns
    -------
    (layers,) array

    Raises
    ------
    ValueError, OSError
        As `from_safetensors`.

    Examples
    --------
    >>> import tempfile
    >>> from attnflow.learning.tensor_files import write_tensors
    >>> W_Q, W_K = np.eye(2), np.array([[1.0, 1.0], [-1.0, 1.0]])              # M = 1 + a turn by a right angle
    >>> stem = "encoder.layer.0.attention.self"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/m.safetensors", {f"{stem}.query.weight": W_Q, f"{stem}.key.weight": W_K})
    ...     symmetry(f"{folder}/m.safetensors")
    array([0.5])
    """
    model = read_heads(path)
    shares = []
    for layer in model.stems:
        queries, _, keys = model.projections(layer)
        if len(queries) != len(keys):
            queries, keys = (np.concatenate(list(parts)) for parts in zip(*model.pairs(queries, keys)))
        M = queries.T @ keys
        largest = np.abs(M).max()
        if not 0 < largest < np.inf:
            raise ValueError(
                f"path must hold weights whose products are no zeros to say how symmetric they are, got {largest:g} in layer {layer}"
            )
        M /= largest
        shares.append(float(np.linalg.norm(M / 2 + M.T / 2) / np.linalg.norm(M)) ** 2)
    return np.array(shares)


@dataclass(frozen=True)
class HeadsFile:
    """A model's attention in its file: which layers there are, under which names, and how many heads each has.

    Attributes
    ----------
    file : TensorFile
    kind : {"BERT", "GPT-2", "grouped-query"}
    prefix : str
        Of all names.
    stems : dict
        Layer -> what the names of its attention's tensors begin with.
    heads : int or None
        Query heads of a layer; None if nothing says so.
    """

    file: TensorFile
    kind: str
    prefix: str
    stems: dict[int, str]
    heads: int | None

    __repr__ = display.of_fields

    def head(self, layer: int, head: int) -> DotProduct:
        """The pseudo-metric of one head; see `from_safetensors`."""
        layer, head = checks.integer(layer, "layer"), checks.integer(head, "head")
        if layer not in self.stems:
            known = ", ".join(map(str, self.stems))
            raise ValueError(f"layer must be one of the {len(self.stems)} in {str(self.file.path)!r} ({known}), got {layer}")
        if self.heads is not None and head >= self.heads:
            raise ValueError(f"head must be below the {self.heads} heads of layer {layer}, got {head}")
        queries, bias, keys = self.projections(layer)
        W_Q, W_K = list(self.pairs(queries, keys))[head]
        r = len(W_Q)
        return DotProduct(W_Q / np.sqrt(r), W_K, None if bias is None else bias[head * r :][:r] / np.sqrt(r))

    def pairs(self, queries: np.ndarray, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(W_Q, W_K) of every head, (r, n) each, from all queries (heads r, n) and keys (groups r, n)."""
        heads, where = self.heads, str(self.file.path)
        if heads is None:
            raise ValueError(f"heads must be known for {where!r}, but no config.json beside it says how many")
        r, odd = divmod(len(queries), heads)
        if odd or r == 0 or len(keys) % r or len(queries) % len(keys):
            raise ValueError(
                f"heads must divide the {len(queries)} rows of queries and {len(keys)} of keys of {where!r}, got {heads}"
            )
        group = len(queries) // len(keys)
        return ((queries[h * r :][:r], keys[h // group * r :][:r]) for h in range(heads))

    def projections(self, layer: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """W_Q (heads r, n), b_Q (heads r,) where there is one, W_K (groups r, n) of a layer, in float64."""
        stem = self.stems[layer]
        if self.kind == "GPT-2":  # (in, out), queries, keys and values side by side
            together = self.tensor(f"{stem}c_attn.weight", (None, None)).T
            width = together.shape[1]
            name = f"{stem}c_attn.bias"
            bias = self.tensor(name, (3 * width,))[:width] if name in self.file else None
            if len(together) != 3 * width:
                raise ValueError(f"{stem}c_attn.weight must have shape ({width}, {3 * width}), got {together.T.shape}")
            queries, keys = together[:width], together[width : 2 * width]
        else:
            of_queries, of_keys = ("query", "key") if self.kind == "BERT" else ("q_proj", "k_proj")
            if f"{stem}q_norm.weight" in self.file:
                raise ValueError(f"path must hold heads with linear queries, got {stem}q_norm in {str(self.file.path)!r}")
            queries = self.tensor(f"{stem}{of_queries}.weight", (None, None))
            rows, width = queries.shape
            keys = self.tensor(f"{stem}{of_keys}.weight", (rows if self.kind == "BERT" else None, width))
            name = f"{stem}{of_queries}.bias"
            bias = self.tensor(name, (rows,)) if name in self.file else None
        queries, keys = queries.astype(np.float64), keys.astype(np.float64)
        return queries, None if bias is None else bias.astype(np.float64), keys

    def tensor(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """An array of the file, of finite numbers and a shape that has None where any length will do."""
        if name not in self.file:
            raise _other_names(self.file, f"{name!r}")
        return checks.array(self.file[name], name, shape)


def read_heads(path: str | os.PathLike, heads: int | None = None) -> HeadsFile:
    """Find a model's attention in its file by the names of its tensors; `heads` as of `from_safetensors`."""
    file = read_tensors(path)
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name in file:
        for kind, pattern in _ATTENTION.items():
            if match := pattern.fullmatch(name):
                prefix, layer = match.groups()
                stem = name.removesuffix(".weight")
                found.setdefault((kind, prefix), {})[int(layer)] = stem[: stem.rindex(".") + 1]
    if not found:
        raise _other_names(file, "query and key weights of a BERT-type, GPT-2 or grouped-query model")
    if len(found) > 1:
        several = ", ".join(f"{kind} under {prefix!r}" for kind, prefix in list(found)[:4])
        raise ValueError(f"path must hold one model, got {several} in {str(file.path)!r}")
    ((kind, prefix), stems), *_ = found.items()
    config = read_config(file.path.parent)
    for name, usual in _SCORES.items():
        if config.get(name, usual) not in (usual, None):
            raise ValueError(
                f"config.json must have {name} {usual!r} for heads whose scores are over sqrt(d_head), got "
                f"{checks.short(config[name])} beside {str(file.path)!r}"
            )
    if heads is None:
        heads = config.get("num_attention_heads", config.get("n_head"))
        if heads is not None:
            heads = checks.integer(heads, "num_attention_heads of config.json", least=1)
    else:
        heads = checks.integer(heads, "heads", least=1)
    return HeadsFile(file, kind, prefix, dict(sorted(stems.items())), heads)


def read_config(folder: Path) -> dict:
    """What config.json in a model's folder says; nothing where there is none."""
    try:
        return files.read_json(folder / "config.json", _CONFIG, "config.json")
    except FileNotFoundError:
        return {}


def _other_names(file: TensorFile, wanted: str) -> ValueError:
    """What a file has, where something else was looked for."""
    names = list(file)
    some = ", ".join(repr(name[:60]) for name in names[:6]) + ", ..." * (len(names) > 6)
    return ValueError(f"path must hold {wanted}, got {len(names)} tensors in {str(file.path)!r}: {some or 'none'}")
