"""Observations to tokens and features back to observations: vectors through symlog, images through convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from robotrl.functional.twohot import symexp, symlog
from robotrl.nets.network import is_image
from robotrl.nets.normed import EPS, Linear, NormedMLP, init_linear
from robotrl.types import ArraySpec, Obs, RobotRLError
from robotrl.world_models.sizes import ModelSize

MULTIPLES = (2, 3, 4, 4)
"""Channels of the convolutions, in multiples of `ModelSize.depth`; each halves the image."""
KERNEL = 5


class Encoder(nn.Module):
    """Observation groups to tokens: `{group: [..., *shape]} -> [..., dim]`.

    Numbers of all groups, by name, pass symlog and three layers; each image passes four convolutions of 5x5 with
    max-pooling. There is no memory in here.

    Args:
        obs: the groups it reads.
        size: widths.

    Raises:
        RobotRLError: a group is neither numbers nor an image of a size that can be halved four times.
    """

    def __init__(self, obs: Mapping[str, ArraySpec], size: ModelSize) -> None:
        super().__init__()
        self.vectors, self.images = split_groups(obs)
        width = sum(math.prod(obs[name].shape) for name in self.vectors)
        self.vector = NormedMLP(width, [size.units] * 3) if width else None
        self.image = nn.ModuleDict()
        self.dim = self.vector.out_dim if self.vector else 0
        for name in self.images:
            channels, height, breadth = obs[name].shape
            self.image[module_name(name)] = _ImageEncoder(channels, size.depth)
            self.dim += size.depth * MULTIPLES[-1] * (height // 16) * (breadth // 16)
        self._shapes = {name: tuple(spec.shape) for name, spec in obs.items()}

    def forward(self, obs: Obs) -> Tensor:
        """Tokens `[..., dim]` of the groups, each `[..., *shape]`."""
        parts = []
        if self.vector is not None:
            flat = [symlog(flatten(obs[name], self._shapes[name]).float()) for name in self.vectors]
            parts.append(self.vector(torch.cat(flat, -1)))
        for name in self.images:
            image = obs[name]
            lead = image.shape[:-3]
            x = image.reshape(-1, *image.shape[-3:]).float().div_(255.0).sub_(0.5)
            parts.append(self.image[module_name(name)](x).reshape(*lead, -1))
        return torch.cat(parts, -1)


class Decoder(nn.Module):
    """Features to observations: symlog numbers `[..., *shape]`, and images `[..., C, H, W]` in [0, 1].

    Args:
        obs: the groups it predicts.
        size: widths.
    """

    def __init__(self, obs: Mapping[str, ArraySpec], size: ModelSize) -> None:
        super().__init__()
        self.vectors, self.images = split_groups(obs)
        self._shapes = {name: tuple(spec.shape) for name, spec in obs.items()}
        self.vector = NormedMLP(size.features, [size.units] * 3) if self.vectors else None
        self.heads = nn.ModuleDict(
            {module_name(n): Linear(size.units, math.prod(self._shapes[n])) for n in self.vectors}
        )
        self.image = nn.ModuleDict(
            {module_name(n): _ImageDecoder(size.features, self._shapes[n], size.depth) for n in self.images}
        )

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Predictions for features `[..., F]`, as the losses want them."""
        lead, out = features.shape[:-1], {}
        if self.vector is not None:
            hidden = self.vector(features)
            for name in self.vectors:
                out[name] = self.heads[module_name(name)](hidden).float().reshape(*lead, *self._shapes[name])
        for name in self.images:
            image = self.image[module_name(name)](features.reshape(-1, features.shape[-1]))
            out[name] = image.reshape(*lead, *self._shapes[name])
        return out

    def losses(self, features: Tensor, obs: Obs) -> dict[str, Tensor]:
        """Squared errors `[...]` a group, summed over its numbers: of symlog values, of pixels in [0, 1]."""
        losses = {}
        for name, predicted in self(features).items():
            seen = obs[name].float()
            target = seen / 255.0 if name in self.images else symlog(seen)
            losses[name] = flatten(predicted - target, self._shapes[name]).square().sum(-1)
        return losses

    def decode(self, features: Tensor) -> Obs:
        """Observations as an env gives them: numbers in its units, images uint8."""
        obs = self(features)
        for name in self.vectors:
            obs[name] = symexp(obs[name])
        for name in self.images:
            obs[name] = obs[name].mul(255.0).round_().to(torch.uint8)
        return obs


class _ImageEncoder(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        widths = [channels, *(depth * m for m in MULTIPLES)]
        self.layers = nn.ModuleList(_Convolution(a, b, doubles=False) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # convolutions of few channels are faster so
        for layer in self.layers:
            x = layer(x)
        return x.flatten(1)


class _ImageDecoder(nn.Module):
    """The encoder turned round: a linear layer to the smallest map, then convolutions after doublings."""

    def __init__(self, features: int, shape: tuple[int, ...], depth: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        widths = [depth * m for m in reversed(MULTIPLES)]
        self.smallest = (widths[0], height // 16, breadth // 16)
        self.start = Linear(features, math.prod(self.smallest))
        self.norm = nn.Parameter(torch.ones(widths[0]))
        self.layers = nn.ModuleList(_Convolution(a, b, doubles=True) for a, b in pairwise(widths))
        self.out = _convolution(widths[-1], channels)

    def forward(self, features: Tensor) -> Tensor:
        x = channel_norm_silu(self.start(features).unflatten(-1, self.smallest), self.norm)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x)
        return torch.sigmoid(convolve_doubled(x, self.out).float())


class _Convolution(nn.Module):
    """A convolution that halves or doubles the image, a norm over channels, and SiLU."""

    def __init__(self, channels: int, out: int, *, doubles: bool) -> None:
        super().__init__()
        self.conv = _convolution(channels, out)
        self.norm = nn.Parameter(torch.ones(out))
        self.doubles = doubles

    def forward(self, x: Tensor) -> Tensor:
        x = convolve_doubled(x, self.conv) if self.doubles else nn.functional.max_pool2d(self.conv(x), 2)
        return channel_norm_silu(x, self.norm)


def _convolution(channels: int, out: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, KERNEL, padding=KERNEL // 2)
    init_linear(conv.weight.data, channels * KERNEL * KERNEL)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def convolve_doubled(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv`, of 5x5, on `[B, C, H, W]` with every pixel repeated twice each way: `[B, out, 2 * H, 2 * W]`.

    Of the doubled image the 25 weights see nine pixels at most that differ. So the weights that see the same pixel are
    added up beforehand, for each of the four places that an output pixel has over its input pixel: 36 products for
    four output pixels instead of 100, and the doubled image is never made.
    """
    places = [nn.functional.pad(conv.weight, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)]
    weight = torch.stack(places, 1).flatten(0, 1).unflatten(-1, (3, 2)).unflatten(-3, (3, 2)).sum((-3, -1))
    assert conv.bias is not None
    four = nn.functional.conv2d(x, weight, conv.bias.repeat_interleave(4), padding=1)
    return nn.functional.pixel_shuffle(four, 2)


def channel_norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """RMSNorm over the channels of each pixel of `[B, C, H, W]`, then SiLU."""
    inverse = torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)
    return nn.functional.silu(x * inverse * scale[:, None, None])


def split_groups(obs: Mapping[str, ArraySpec]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the number groups and of the image groups, each sorted.

    Raises:
        RobotRLError: no group at all, or an image that four halvings do not divide.
    """
    if not obs:
        raise RobotRLError("A world model needs at least one observation group, but it was given none.")
    images = tuple(sorted(name for name, spec in obs.items() if is_image(spec)))
    for name in images:
        _, height, breadth = obs[name].shape
        if height % 16 or breadth % 16 or min(height, breadth) < 32:
            raise RobotRLError(
                f"The world model cannot take the image '{name}' of {height}x{breadth} pixels: its encoder halves "
                "images four times. Set env.pixels.height and env.pixels.width to multiples of 16 from 32 on, such "
                "as 64."
            )
    return tuple(sorted(set(obs) - set(images))), images


def flatten(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`[..., *shape]` to `[..., numbers]`; a shape of () becomes one number."""
    return x.unsqueeze(-1) if not shape else x.flatten(-len(shape))


def module_name(group: str) -> str:
    """The group's name as that of a submodule."""
    return group.replace(".", "_").replace("/", "_")


__all__ = ["Decoder", "Encoder", "convolve_doubled", "flatten", "module_name", "split_groups"]
