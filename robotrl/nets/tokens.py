"""From pictures and words to tokens of a transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.nets.transformer import sinusoid

SHARP = 8.0
"""Of a word's attention to places at the start: a thing of a few pixels is one place among a thousand."""
NEVER = -1e9
"""Asked of a word that is not there: finite, because a sentence may have none."""
COLOUR = 4.0
"""By which a place's colour, as it differs from the picture's mean, is multiplied to stand beside normed features."""


class Words(nn.Module):
    """Tokens of an instruction: a vector for each word plus one for its place.

    Args:
        vocabulary: how many words there are; 0 pads.
        length: words of an instruction at most.
        dim: numbers of a token.
    """

    def __init__(self, vocabulary: int, length: int, dim: int) -> None:
        super().__init__()
        self.word = nn.Parameter(torch.randn(vocabulary, dim) * 0.5)
        self.place = nn.Parameter(torch.randn(length, dim) * 0.2)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From `words [B, length]`: tokens `[B, L, dim]`, the words' own vectors, and which are there `[B, L]`.

        L is the length of the longest instruction.
        """
        there = words != 0
        length = max((place for place, used in enumerate(there.any(0).tolist(), 1) if used), default=1)
        own = F.embedding(words[:, :length], self.word)
        return own + self.place[:length], own, there[:, :length]


class Search(nn.Module):
    """Which places of a picture have a colour that a word stands for.

    One serves all cameras: a thing has its colour in each, and what the camera with the clearest view teaches helps
    where it is seen small, seldom or from close by.

    Args:
        channels: of the pictures.
        dim: numbers of a word's vector.
        heads: each word looks for so many colours.
    """

    def __init__(self, channels: int, dim: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.features = nn.Sequential(nn.Linear(channels, 32), nn.ReLU())
        self.key = nn.Linear(32, 16 * heads, bias=False)
        self.ask = nn.Linear(dim, 16 * heads)

    def forward(self, colours: Tensor, words: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """Attention `[B, heads * L, places]` of `words [B, L, dim]` to `colours [B, places, C]`."""
        return _looking(SHARP * self.ask(words), self.key.weight, self.features(colours), self.heads, watch)


class Glance(nn.Module):
    """Where in a camera's picture is what a word names: the place that a `Search` finds, and what is there.

    Where it looks follows from the word's own vector and from a place's colour alone: not from the sentence, the
    scene or the place. So "red" finds what is red in any sentence and anywhere after some dozen demonstrations; a
    network that sees everything at once learns a few hundred scenes by heart instead. A fraction of a place
    survives the mean.

    Args:
        shape: `(C, H, W)` of the pictures.
        dim: numbers of a token.
        heads: of the search.
    """

    places: Tensor

    def __init__(self, shape: tuple[int, ...], dim: int, heads: int = 2) -> None:
        super().__init__()
        self.grid = (-(-shape[1] // 2), -(-shape[2] // 2))
        self.register_buffer("places", _places(*self.grid), persistent=False)
        self.what = nn.Linear((self.places.shape[-1] + shape[0]) * heads, dim)

    def forward(self, pictures: Tensor, words: Tensor, search: Search, watch: list[Tensor] | None = None) -> Tensor:
        """What each word finds, `[B, L, dim]`.

        Args:
            pictures: `[B, C, H, W]` in [-1, 1].
            words: their vectors `[B, L, dim]`.
            search: of so many channels and heads.
            watch: gets the attention `[B, heads, L, places]`.
        """
        colours = F.adaptive_avg_pool2d(pictures, self.grid).flatten(2).transpose(1, 2)
        colours = COLOUR * (colours - colours.mean(1, keepdim=True))
        weight = search(colours, words, watch)
        found = torch.cat([weight @ self.places.to(weight.dtype), weight @ colours.to(weight.dtype)], -1)
        return self.what(found.unflatten(1, (search.heads, -1)).transpose(1, 2).flatten(2))


class Named(nn.Module):
    """The few things that a sentence names, a token each: a mean over what its words found.

    Which words name a thing follows from the words' own vectors alone, as where they look does: what "red" found comes
    to the same token wherever the word stands, without what "the" found. Of two colours in one sentence a token is a
    mixture; which is which only the words' own tokens tell.

    Args:
        dim: numbers of a token.
        count: how many things.
    """

    def __init__(self, dim: int, count: int = 2) -> None:
        super().__init__()
        self.ask = nn.Linear(dim, count)
        self.kinds = nn.Parameter(torch.randn(count, dim) * 0.2)

    def forward(self, own: Tensor, there: Tensor, found: Tensor) -> Tensor:
        """What is found of each thing, `[B, count, dim]`.

        Args:
            own: the words' vectors `[B, L, dim]`.
            there: which words there are, `[B, L]` bool; a sentence without any finds a mean of what its padding found.
            found: what each found, `[B, L, dim]`.
        """
        asked = self.ask(own).float().masked_fill(~there.unsqueeze(-1), NEVER)
        weight = torch.softmax(asked, 1).to(found.dtype)
        return weight.transpose(1, 2) @ found + self.kinds


class Gaze(nn.Module):
    """What is at the places of a picture, for a few tokens that look at it.

    Where they look follows from what is there alone, not from where that is, so little is learned by heart.

    Args:
        features: numbers of a place.
        grid: rows and columns of places.
        dim: numbers of a token.
        heads: each token looks at so many places.
    """

    places: Tensor

    def __init__(self, features: int, grid: tuple[int, int], dim: int, heads: int) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        self.norm = nn.LayerNorm(features)
        self.key, self.read = nn.Linear(features, dim, bias=False), nn.Linear(features, dim)
        self.register_buffer("places", _places(*grid), persistent=False)
        self.place = nn.Linear(self.places.shape[-1], dim)
        self.ask, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, seen: Tensor, asked: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """What each token finds, `[B, T, dim]`.

        Args:
            seen: `[B, places, features]`, row by row.
            asked: tokens `[B, T, dim]`.
            watch: gets the attention `[B, heads, T, places]`.
        """
        seen = self.norm(seen)
        weight = _looking(2.0 * self.ask(asked), self.key.weight, seen, self.heads, watch)
        found = torch.cat([weight @ seen.to(weight.dtype), weight @ self.places.to(weight.dtype)], -1)
        layers = torch.cat([self.read.weight, self.place.weight], 1)
        return self.out(_by_head(found, layers, self.read.bias + self.place.bias, self.heads))


class Sight(nn.Module):
    """Convolutions, then `Gaze` at their places, 16 x 16 for pictures of 64 x 64.

    Args:
        shape: `(C, H, W)` of the pictures.
        dim: numbers of a token.
        channels: of the convolutions.
        heads: of the attention.
    """

    def __init__(self, shape: tuple[int, ...], dim: int, channels: Sequence[int], heads: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, size = shape[0], min(shape[1:])
        for number, count in enumerate(channels):
            stride = 2 if size > 16 or (number == 0 and size > 8) else 1
            layers += [nn.Conv2d(before, count, 3, stride=stride, padding=1), nn.ReLU()]
            before, size = count, -(-size // stride)
        self.convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            height, width = self.convolutions(torch.zeros(1, *shape)).shape[-2:]
        self.gaze = Gaze(before, (int(height), int(width)), dim, heads)

    def forward(self, pictures: Tensor, asked: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """As `Gaze.forward`, for pictures `[B, C, H, W]` in [-1, 1]."""
        # With the channels last a CPU's convolutions take less time, and places come out as rows.
        seen = self.convolutions(pictures.contiguous(memory_format=torch.channels_last))
        found: Tensor = self.gaze(seen.flatten(2).transpose(1, 2), asked, watch)
        return found


def _looking(q: Tensor, key: Tensor, seen: Tensor, heads: int, watch: list[Tensor] | None) -> Tensor:
    """Attention `[B, heads * T, places]` of `q [B, T, heads * width]` to what `key` makes of `seen [B, places, in]`.

    A few tokens look at many places, so the keys' matrix `[heads * width, in]` is multiplied with the tokens, not with
    the places. (A bias of the keys would not change the attention.) The same is done with values, see `_by_head`.
    """
    b, t, d = q.shape
    q = (q / math.sqrt(d // heads)).view(b * t, heads, -1).transpose(0, 1)
    asked = torch.bmm(q, key.view(heads, d // heads, -1)).view(heads, b, t, -1).transpose(0, 1).flatten(1, 2)
    weight = torch.softmax(torch.bmm(asked, seen.to(asked.dtype).transpose(1, 2)), -1).to(asked.dtype)
    if watch is not None:
        watch.append(weight.float().unflatten(1, (heads, -1)))
    return weight


def _by_head(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Each head's share of a layer's outputs for its own rows: `[B, heads * T, in]` to `[B, T, out]`."""
    b, inputs = len(x), x.shape[2]
    x = x.view(b, heads, -1, inputs).transpose(0, 1).flatten(1, 2)
    out = torch.bmm(x, weight.view(heads, -1, inputs).transpose(1, 2))
    return out.view(heads, b, -1, out.shape[-1]).permute(1, 2, 0, 3).flatten(2) + bias


def _places(height: int, width: int) -> Tensor:
    """Numbers `[height * width, 18]` that tell a place of a grid: its coordinates in [-1, 1], and waves of them."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    waves = [sinusoid(part.flatten(), 8, longest=4.0, shortest=0.4) for part in (x, y)]
    return torch.cat([torch.stack([x.flatten(), y.flatten()], -1), *waves], -1)


__all__ = ["Gaze", "Glance", "Named", "Search", "Sight", "Words"]
