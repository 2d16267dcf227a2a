"""Sentences to word pieces as BERT cuts them, from the files in a model's folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import checks, files

_LARGEST = 2**27  # bytes of a vocabulary's file
_LONGEST = 100  # characters of a word that is looked up
_NORMALIZER = "BertNormalizer"
_MODEL = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": _LONGEST}
_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_IDEOGRAPHS = (  # Chinese characters, which stand alone; not Hangul, Hiragana or Katakana
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True)
class WordPiece:
    """BERT's tokeniser: words and punctuation, each cut from the left into the longest pieces that the vocabulary has.

    Attributes
    ----------
    vocabulary : mapping
        Piece -> its number; those that continue a word begin with ##.
    lower_case, strip_accents, split_ideographs : bool

    Examples
    --------
    >>> pieces = "[UNK] [CLS] [SEP] un ##believ ##able , cafe".split()
    >>> cut = WordPiece({piece: number for number, piece in enumerate(pieces)})
    >>> cut.pieces("Unbelievable, café ☕")
    ['un', '##believ', '##able', ',', 'cafe', '[UNK]']
    >>> cut("café")
    [1, 7, 2]

    Source: Devlin et al. 2019; Wu et al. 2016.
    """

    vocabulary: Mapping[str, int]
    lower_case: bool = True
    strip_accents: bool = True
    split_ideographs: bool = True

    def __call__(self, sentence: str) -> list[int]:
        """The numbers of a sentence's pieces, [CLS] before and [SEP] after them."""
        return [self.vocabulary[piece] for piece in ("[CLS]", *self.pieces(sentence), "[SEP]")]

    def pieces(self, sentence: str) -> list[str]:
        """A sentence's pieces; what stands for one in square brackets, as [MASK], is taken as it is."""
        special = [piece for piece in _SPECIAL if piece in self.vocabulary]
        parts = re.split(f"({'|'.join(map(re.escape, special))})", sentence)
        found: list[str] = []
        for part in parts:
            found += [part] if part in special else [piece for word in self._words(part) for piece in self._cut(word)]
        return found

    def _words(self, text: str) -> list[str]:
        """Runs of characters without white space; each mark of punctuation is one of its own."""
        text = "".join(map(self._cleaned, text))
        if self.strip_accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        if self.lower_case:
            text = "".join(map(str.lower, text))  # one by one: a sigma is the same wherever it stands
        return "".join(f" {c} " if _is_punctuation(c) else c for c in text).split()

    def _cleaned(self, character: str) -> str:
        if character in "\t\n\r":
            return " "
        if character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):  # control, format, private
            return ""
        if self.split_ideographs and any(first <= ord(character) <= last for first, last in _IDEOGRAPHS):
            return f" {character} "
        return character

    def _cut(self, word: str) -> list[str]:
        """The longest piece from the left, again and again; [UNK] if anything is left, or the word is too long."""
        pieces, begin = [], 0
        while begin < len(word) <= _LONGEST:
            lead = "##" if begin else ""
            end = next((k for k in range(len(word), begin, -1) if lead + word[begin:k] in self.vocabulary), None)
            if end is None:
                break
            pieces.append(lead + word[begin:end])
            begin = end
        return pieces if begin == len(word) else ["[UNK]"]


def _is_punctuation(character: str) -> bool:
    """Of Unicode's category P; among ASCII all that is neither letter, digit, space nor control, as $ and ^."""
    if character < "\x7f":
        return character > " " and not character.isalnum()
    return unicodedata.category(character)[0] == "P"


def read_tokenizer(folder: str | os.PathLike) -> WordPiece:
    """The tokeniser of a BERT-type model from its folder.

    The vocabulary is that of tokenizer.json or, without it, of vocab.txt, a piece a line. What tokenizer_config.json says
    of do_lower_case, strip_accents and tokenize_chinese_chars holds before what tokenizer.json does; without either,
    letters become small and lose their accents.

    Raises
    ------
    ValueError
        If there is no vocabulary, it is not of word pieces, or lacks [UNK], [CLS] or [SEP]; if words are cut in another way.
    """
    folder = checks.path(folder, "folder")
    config = _table(folder / "tokenizer_config.json")
    described = _table(folder / "tokenizer.json")
    normalizer = described.get("normalizer") or {}
    if not isinstance(normalizer, dict) or normalizer.get("type", _NORMALIZER) != _NORMALIZER:
        raise ValueError(
            f"folder must hold a tokenizer.json with a {_NORMALIZER}, got {checks.short(normalizer)} in {str(folder)!r}"
        )
    if config.get("do_basic_tokenize") is False:
        raise ValueError(
            f"folder must hold a tokenizer that splits words at punctuation, got do_basic_tokenize false in {str(folder)!r}"
        )
    vocabulary = _described(described, folder) if described else _listed(folder)
    for piece in ("[UNK]", "[CLS]", "[SEP]"):
        if piece not in vocabulary:
            raise ValueError(f"folder must hold a vocabulary with {piece}, got {len(vocabulary)} pieces in {str(folder)!r}")
    lower_case = _setting(config, "do_lower_case", normalizer.get("lowercase"), True)
    strip_accents = _setting(config, "strip_accents", normalizer.get("strip_accents"), lower_case)
    ideographs = _setting(config, "tokenize_chinese_chars", normalizer.get("handle_chinese_chars"), True)
    return WordPiece(vocabulary, lower_case, strip_accents, ideographs)


def _table(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path, _LARGEST, path.name)
    except FileNotFoundError:
        return {}


def _setting(config: dict[str, Any], name: str, described: bool | None, usual: bool) -> bool:
    """The first that is known."""
    known = [value for value in (config.get(name), described, usual) if value is not None]
    if not isinstance(known[0], bool):
        raise ValueError(f"{name} of the tokenizer must be true, false or null, got {checks.short(known[0])}")
    return known[0]


def _described(described: dict[str, Any], folder: Path) -> dict[str, int]:
    model = described.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or model.get("type", "WordPiece") != "WordPiece" or not isinstance(vocabulary, dict):
        kind = model.get("type") if isinstance(model, dict) else None
        raise ValueError(f"folder must hold a tokenizer.json of word pieces, got {checks.short(kind)} in {str(folder)!r}")
    for name, usual in _MODEL.items():
        if model.get(name, usual) != usual:
            got = checks.short(model[name])
            raise ValueError(f"folder must hold a tokenizer.json with {name} {usual!r}, got {got} in {str(folder)!r}")
    if not all(type(number) is int and number >= 0 for number in vocabulary.values()):
        raise ValueError(f"folder must hold a tokenizer.json that numbers its pieces, got others in {str(folder)!r}")
    return vocabulary


def _listed(folder: Path) -> dict[str, int]:
    try:
        text = files.read_bytes(folder / "vocab.txt", _LARGEST, "vocab.txt").decode()
    except FileNotFoundError:
        raise ValueError(f"folder must hold tokenizer.json or vocab.txt, got neither in {str(folder)!r}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"vocab.txt must be UTF-8 text, got {files.one_line(error)} in {str(folder)!r}") from None
    return {line.rstrip("\r"): number for number, line in enumerate(text.removesuffix("\n").split("\n"))}
