"""A small convolutional autoencoder of pictures: what a policy predicts of the future is its latents."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8
"""Rows and columns of latents at least."""


class Autoencoder(nn.Module):
    """uint8 pictures `[B, C, H, W]` to latents `[B, channels, h, w]` of mean 0 and deviation 1, and back.

    Strided convolutions halve a picture until its shorter side has 8 rows; nearest-neighbour upsampling and
    convolutions undo it. It is trained once, by `fit`, and frozen.

    Args:
        shape: `(C, H, W)`, sides that halve without a rest.
        channels: of the latents.
        width: of the convolutions.
    """

    mean: Tensor
    std: Tensor
    usual: Tensor

    def __init__(self, shape: tuple[int, ...], channels: int, width: int) -> None:
        super().__init__()
        halvings = max(1, int(math.log2(min(shape[1:]) / SIDE)))
        widths = [width if number == 0 else 2 * width for number in range(halvings)]
        down: list[nn.Module] = []
        for before, after in pairwise([shape[0], *widths]):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        up: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 3, padding=1)]
        for before, after in pairwise([*reversed(widths), shape[0]]):
            up += [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], channels, 1))
        self.decoder = nn.Sequential(*up)
        self.grid = (shape[1] >> halvings, shape[2] >> halvings)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.register_buffer("usual", torch.zeros(1, *shape))
        self.requires_grad_(requires_grad=False)

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of uint8 pictures."""
        latents: Tensor = self.encoder(_floats(pictures))
        return (latents - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 pictures of latents."""
        seen = self.decoder(latents * self.std + self.mean) + self.usual
        return ((seen + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def fit(self, pictures: Tensor, steps: int, *, batch_size: int = 32, learning_rate: float = 2e-3) -> float:
        """Train on `pictures [N, C, H, W]`, drawn at random, and freeze; the last squared error, of values in [-1, 1].

        It learns what differs from the mean picture, and a pixel counts the more the further it differs: else the few
        pixels of a small thing would be lost among those of the table.
        """
        self.usual.copy_(torch.stack([_floats(part).mean(0) for part in pictures.split(256)]).mean(0))
        self.requires_grad_()
        adam = torch.optim.Adam(self.parameters(), learning_rate)
        error = torch.zeros(())
        with torch.enable_grad():
            for step in range(steps):
                adam.param_groups[0]["lr"] = learning_rate * (1.0 - step / steps)
                chosen = _floats(pictures[torch.randint(0, len(pictures), (batch_size,))])
                change = chosen - self.usual
                made = self.decoder(self.encoder(chosen))
                error = ((1.0 + 10.0 * change.abs()) * (made - change).square()).mean()
                adam.zero_grad()
                error.backward()
                adam.step()
        self.requires_grad_(requires_grad=False)
        latents = torch.cat([self.encoder(_floats(part)) for part in pictures[:1024].split(256)])
        self.mean.copy_(latents.mean((0, 2, 3), keepdim=True))
        self.std.copy_(latents.std((0, 2, 3), keepdim=True).clamp(min=1e-3))
        return float(error.detach())


def _floats(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1.0


def patches(latents: Tensor, side: int) -> Tensor:
    """Latents `[B, C, h, w]` as tokens `[B, h / side * w / side, C * side * side]`."""
    return F.unfold(latents, side, stride=side).transpose(1, 2)


def unpatched(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse of `patches`."""
    return F.fold(tokens.transpose(1, 2), grid, side, stride=side)


__all__ = ["Autoencoder", "patches", "unpatched"]
