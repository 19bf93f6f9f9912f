"""Instructions in words, as a policy knows them: from a fixed list, of which its training data used some."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

import robotrl.assets.tabletop as assets
from robotrl.types import RobotRLError

PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z0-9]+")


@cache
def tabletop_words() -> tuple[str, ...]:
    """The words of the tabletop suite, in the order of their tokens, which begin at 2."""
    return tuple((Path(assets.__file__).parent / "vocabulary.txt").read_text(encoding="utf-8").split())


class Vocabulary(nn.Module):
    """Words and their tokens; 0 pads, 1 stands for every word that is not known.

    A word that the training data never used has a vector nobody trained, so in `known` it becomes token 1, which
    training gets used to by leaving out a word now and then.

    Args:
        words: all there are; their tokens count from 2.
        length: words of an instruction at most.
    """

    taught: Tensor

    def __init__(self, words: Sequence[str], length: int) -> None:
        super().__init__()
        self.words, self.length = tuple(words), length
        self._number = {word: number for number, word in enumerate(self.words, 2)}
        self.register_buffer("taught", torch.zeros(len(self), dtype=torch.bool))
        self._warned = False

    def __len__(self) -> int:
        return len(self.words) + 2

    def fit(self, tokens: Tensor) -> None:
        """Note which words occur in instructions `[..., length]`."""
        self.taught[tokens.flatten().clamp(0, len(self) - 1)] = True
        self.taught[[PAD, UNKNOWN]] = True

    def known(self, tokens: Tensor) -> Tensor:
        """`tokens [..., length]` with every word that training did not teach as token 1."""
        inside = tokens.clamp(0, len(self) - 1)
        fine = self.taught[inside] & (inside == tokens)
        return torch.where(fine, tokens, UNKNOWN)

    def understood(self, tokens: Tensor) -> Tensor:
        """`known(tokens)`, with a warning the first time that a row `[B, length]` is not wholly known."""
        known = self.known(tokens)
        if not self._warned and bool((known != tokens).any()):
            row = int((known != tokens).any(-1).nonzero()[0])
            new = self.decode(tokens[row][known[row] != tokens[row]].clamp(0, len(self) - 1))
            self._warned = True
            warnings.warn(
                f"The instruction '{self.decode(tokens[row].clamp(0, len(self) - 1))}' has words that this policy was "
                f"not taught ({new}); it goes by the others.",
                stacklevel=3,
            )
        return known

    def encode(self, text: str) -> Tensor:
        """The tokens `[length]` of an instruction in words. A slip of the pen is mended: `blok` is `block`.

        Raises:
            RobotRLError: too many words, or some that training did not teach; the nearest ones are suggested.
        """
        words = _WORD.findall(text.lower())
        if len(words) > self.length:
            raise RobotRLError(
                f"The instruction '{text}' has {len(words)} words, but at most {self.length} fit. Shorten it."
            )
        taught = [word for word, number in self._number.items() if bool(self.taught[number])]
        tokens, unknown = torch.zeros(self.length, dtype=torch.int64), []
        for place, word in enumerate(words):
            close = [word] if word in taught else difflib.get_close_matches(word, taught, n=1, cutoff=0.8)
            tokens[place] = self._number[close[0]] if close else UNKNOWN
            unknown += [] if close else [word]
        if unknown:
            raise RobotRLError(
                f"The instruction '{text}' has words that this policy was not taught: {', '.join(unknown)}. It knows: "
                f"{' '.join(sorted(taught))}."
            )
        return tokens

    def decode(self, tokens: Tensor) -> str:
        """The words of `tokens [length]`."""
        names = ("<pad>", "<unknown>", *self.words)
        return " ".join(names[int(token)] for token in tokens if int(token) != PAD)


__all__ = ["PAD", "UNKNOWN", "Vocabulary", "tabletop_words"]
