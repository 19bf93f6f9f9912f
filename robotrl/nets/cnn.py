"""Convolutional encoder for images (Mnih et al. 2015's shape, sized to the input)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """uint8 images `[..., C, H, W]` to `features` numbers.

    Strided 3x3 convolutions halve the image until 8 pixels or fewer remain, so 64x64 takes three of them.

    Args:
        shape: `(C, H, W)`.
        features: output features, after a linear layer and tanh.
        width: channels of the first convolution; doubled by the second.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 128, width: int = 16) -> None:
        super().__init__()
        channels, height, breadth = shape
        layers: list[nn.Module] = []
        size, out = min(height, breadth), width
        while size > 8:
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            channels, out, size = out, 2 * width, (size + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, *shape)).numel()
        self.project = nn.Linear(flat, features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(module.weight, math.sqrt(2.0))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every layer here has a bias
        self.shape, self.out_dim = shape, features

    def forward(self, image: Tensor) -> Tensor:
        """`[..., C, H, W]` uint8 in [0, 255] to `[..., features]` in (-1, 1)."""
        lead = image.shape[: -len(self.shape)]
        x = image.reshape(-1, *self.shape).float().div_(255.0).sub_(0.5)
        x = self.convolutions(x).flatten(1)
        return torch.tanh(self.project(x)).reshape(*lead, self.out_dim)
