"""Convolutional encoder for images (Mnih et al. 2015's shape, sized to the input)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CNN(nn.Module):
    """uint8 images `[..., C, H, W]` to `features` numbers.

    Strided 3x3 convolutions halve the image until 8 pixels or fewer remain, so 64x64 takes three of them. A linear
    layer, layer normalisation and tanh follow (as in Yarats et al. 2021, DrQ, appendix B).

    Args:
        shape: `(C, H, W)`.
        features: output features.
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
            self.seen_dim = self.convolutions(torch.zeros(1, *shape)).numel()
            """Numbers that the convolutions make of an image."""
        self.project = Projection(self.seen_dim, features)
        for module in self.convolutions:
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, math.sqrt(2.0))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every layer here has a bias
        self.shape, self.out_dim = shape, features

    def forward(self, image: Tensor) -> Tensor:
        """`[..., C, H, W]` uint8, or `[..., seen_dim]` that `see` has made of it, to `[..., features]` in (-1, 1)."""
        return self.project(self.see(image) if image.dtype == torch.uint8 else image)

    def see(self, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the convolutions make of `[..., C, H, W]` uint8: `[..., seen_dim]` float32.

        Args:
            image: values in [0, 255].
            dtype: of the arithmetic.
        """
        lead = image.shape[: -len(self.shape)]
        x = image.reshape(-1, *self.shape).to(dtype).mul_(1.0 / 255.0).sub_(0.5)
        for layer in self.convolutions:
            if isinstance(layer, nn.Conv2d):
                x = F.relu_(_convolved(x, layer))
        return x.flatten(1).float().reshape(*lead, self.seen_dim)


class Projection(nn.Module):
    """Linear, layer normalisation, tanh: `[..., in_dim]` to `[..., out_dim]` in (-1, 1)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim)
        nn.init.orthogonal_(self.linear.weight, math.sqrt(2.0))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it over the last axis."""
        return torch.tanh(self.norm(self.linear(x)))


def _convolved(x: Tensor, layer: nn.Conv2d) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if x.dtype != weight.dtype:
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding)


__all__ = ["CNN", "Projection"]
