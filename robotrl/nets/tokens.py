"""From pictures and words to tokens of a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.nets.transformer import attend, sinusoid


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
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From `words [B, length]`: tokens `[B, L, dim]`, which are there `[B, L]`, and a summary `[B, dim]`.

        L is the length of the longest instruction. The summary is a mean over words of what an MLP makes of word and
        place, so it tells their order.
        """
        length = max(1, int((words != 0).any(0).nonzero().max()) + 1) if bool((words != 0).any()) else 1
        words = words[:, :length]
        valid = words != 0
        tokens = F.embedding(words, self.word) + self.place[:length]
        each = self.down(F.gelu(self.up(tokens), approximate="tanh"))
        share = valid.float() / valid.sum(1, keepdim=True).clamp(min=1)
        return tokens, valid, (share.unsqueeze(-1) * each).sum(1)


class Gaze(nn.Module):
    """A few tokens of what was seen at the places of a picture, chosen by what is asked for.

    The queries depend on the instruction and on the robot's own state, so a token can be "where the red block is":
    the attention picks it out by colour, and the value carries the place. A fraction of a cell survives the mean over
    places, which a patch would round away.

    Args:
        features: numbers of a place.
        grid: rows and columns of places.
        dim: numbers of a token.
        tokens: how many.
        heads: of the attention; each token looks at so many places.
    """

    places: Tensor

    def __init__(self, features: int, grid: tuple[int, int], dim: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        self.norm = nn.LayerNorm(features)
        self.read = nn.Linear(features, 2 * dim)
        self.register_buffer("places", _places(*grid), persistent=False)
        self.place = nn.Linear(self.places.shape[-1], 2 * dim)
        self.queries = nn.Parameter(torch.randn(tokens, dim))
        self.ask = nn.Linear(2 * dim, tokens * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, seen: Tensor, asked: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """Tokens `[B, tokens, dim]`.

        Args:
            seen: `[B, places, features]`, row by row.
            asked: what the queries depend on, `[B, 2 * dim]`.
            watch: gets the attention `[B, heads, tokens, places]`.
        """
        b, heads = len(seen), self.heads
        read = self.read(self.norm(seen)) + self.place(self.places)
        k, v = read.view(b, seen.shape[1], 2, heads, -1).permute(2, 0, 3, 1, 4)
        q = self.queries + self.ask(asked).view(b, *self.queries.shape)
        split = q.view(b, q.shape[1], heads, -1).transpose(1, 2)
        found = attend(split.to(k.dtype), k, v, watch=watch)
        return q + self.out(found.transpose(1, 2).flatten(2))


class Sight(nn.Module):
    """A few tokens of a picture: convolutions, then `Gaze` at their places, 16 x 16 for pictures of 64 x 64.

    Args:
        shape: `(C, H, W)` of the uint8 pictures.
        dim: numbers of a token.
        channels: of the convolutions.
        tokens: how many.
        heads: of the attention.
    """

    def __init__(self, shape: tuple[int, ...], dim: int, channels: Sequence[int], tokens: int, heads: int) -> None:
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
        self.gaze = Gaze(before, (int(height), int(width)), dim, tokens, heads)

    def forward(self, images: Tensor, asked: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """As `Gaze.forward`, for uint8 images `[B, C, H, W]`."""
        seen = self.convolutions(images.float() / 127.5 - 1.0)
        found: Tensor = self.gaze(seen.flatten(2).transpose(1, 2), asked, watch)
        return found


def _places(height: int, width: int) -> Tensor:
    """Numbers `[height * width, 18]` that tell a place of a grid: its coordinates in [-1, 1], and waves of them."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    waves = [sinusoid(part.flatten(), 8, longest=4.0, shortest=0.4) for part in (x, y)]
    return torch.cat([torch.stack([x.flatten(), y.flatten()], -1), *waves], -1)


__all__ = ["Gaze", "Sight", "Words"]
