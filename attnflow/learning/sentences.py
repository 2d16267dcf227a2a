"""Thirty sentences on which a model is looked at where no text is given: of everyday life, law, nature and numbers; or those of a file."""

from __future__ import annotations

import os

from .. import files

_LARGEST = 2**24  # bytes of text

SENTENCES = (
    "The cat sat on the warm windowsill and watched the rain.",
    "A musician tuned her violin before the evening concert.",
    "Prices of wheat rose sharply after the drought.",
    "He forgot his umbrella on the train to Edinburgh.",
    "Water boils at a lower temperature on a high mountain.",
    "The committee will publish its report in September.",
    "Why do birds sing louder in the early morning?",
    "She poured the batter into a greased pan and waited.",
    "Light from the nearest star takes four years to reach us.",
    "The bridge was closed because ice had damaged its cables.",
    "My grandmother kept letters from the war in a tin box.",
    "Two players were injured in the first half of the match.",
    "Every even number greater than two may be a sum of two primes.",
    "The nurse checked the patient's pulse and wrote it down.",
    "A small leak can sink a great ship.",
    "The court ruled that the contract was not valid.",
    "Heat flows from warm bodies to cold ones, never back by itself.",
    "They painted the kitchen yellow and the hall pale green.",
    "The software crashed whenever two users logged in at once.",
    "Bees find their way home by the position of the sun.",
    "Please send the invoice to our office in Madrid.",
    "The old lighthouse has guided sailors for three centuries.",
    "Children learn to walk by falling down many times.",
    "Her latest novel tells the story of a deaf clockmaker.",
    "Nobody expected the volcano to erupt again so soon.",
    "The recipe calls for garlic, lemon, olive oil and salt.",
    "A fair coin has no memory of its earlier tosses.",
    "The last bus leaves at midnight, so we should hurry.",
    "Engineers tested the new engine in a wind tunnel.",
    "In winter the lake freezes and people skate to work.",
)


def read_sentences(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 text file that are not empty.

    Raises
    ------
    ValueError
        If it is no such file, has none, or more than 2^24 bytes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/text", "w") as file:
    ...         _ = file.write("Heat flows.\\n\\nSlowly.\\n")
    ...     read_sentences(f"{folder}/text")
    ['Heat flows.', 'Slowly.']
    """
    try:
        text = files.read_bytes(path, _LARGEST, "text").decode()
    except FileNotFoundError:
        raise ValueError(f"text must be a file of sentences, but there is none at {os.fspath(path)!r}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"text must be UTF-8, got {os.fspath(path)!r} ({files.one_line(error)})") from None
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not sentences:
        raise ValueError(f"text must hold a sentence, got none in {os.fspath(path)!r}")
    return sentences
