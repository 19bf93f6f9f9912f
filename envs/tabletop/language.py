"""Instructions as numbers: one token a word, from a fixed list of words that is part of the package.

Token 0 pads, token 1 stands for a word that is not in the list. Case and punctuation do not matter. The list is
`assets/tabletop/vocabulary.txt`, a word a line; words are only ever added at its end, so that old data stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import robotrl.assets.tabletop as assets
from robotrl.types import RobotRLError

LENGTH = 20
"""Tokens of an instruction; shorter ones are padded."""
PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z0-9]+")


class Tokenizer:
    """Words to numbers and back."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = ("<pad>", "<unknown>", *words)
        self._number = {word: number for number, word in enumerate(self.words)}
        if len(self._number) != len(self.words):
            raise RobotRLError("A word stands twice in the vocabulary. Remove the second one.")

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, length: int = LENGTH) -> NDArray[np.int64]:
        """Tokens `[length]` of `text`, padded with 0; words that are not known become 1.

        Raises:
            RobotRLError: the text has more words than `length`.
        """
        found = _WORD.findall(text.lower())
        if len(found) > length:
            raise RobotRLError(
                f"The instruction '{text}' has {len(found)} words, but at most {length} fit. Shorten it."
            )
        tokens = np.zeros(length, np.int64)
        tokens[: len(found)] = [self._number.get(word, UNKNOWN) for word in found]
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that `encode` took, in lower case and without punctuation.

        Raises:
            RobotRLError: a number that is no token.
        """
        numbers = [int(token) for token in tokens]
        strange = [number for number in numbers if not 0 <= number < len(self.words)]
        if strange:
            raise RobotRLError(f"{strange[0]} is no token of this vocabulary, which has {len(self.words)}.")
        return " ".join(self.words[number] for number in numbers if number != PAD)


@cache
def tokenizer() -> Tokenizer:
    """The suite's own, from the words that come with the package."""
    path = Path(assets.__file__).parent / "vocabulary.txt"
    return Tokenizer(path.read_text(encoding="utf-8").split())


__all__ = ["LENGTH", "PAD", "UNKNOWN", "Tokenizer", "tokenizer"]
