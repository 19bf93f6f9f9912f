"""Seeing, for learners whose critics train the convolutions of the policy: DrQ (Yarats et al. 2021).

Images are shifted at random by a few pixels each time they are looked at; the convolutions follow the gradient of the
critics' loss alone; the policy's head and the critics each have a projection of their own on what the convolutions see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robotrl.nets.cnn import CNN, Projection
from robotrl.nets.ensemble import Ensemble
from robotrl.nets.flat import Adam, flatten_parameters, gradient_norm, zero_gradient
from robotrl.nets.network import VECTOR, Network
from robotrl.types import Batch, StateDict


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Every image `[B, C, H, W]` moved by its own whole offset of up to `pixels` each way; the edge is repeated.

    Drawn by torch's generator. Yarats et al. 2021, sec. 3; DrQ-v2 interpolates between pixels as well.
    """
    if not pixels or not len(images):
        return images
    offsets = torch.randint(-pixels, pixels + 1, (2, len(images)))
    return _shifted(images, offsets) if images.is_cuda else torch.from_numpy(_copied(images.numpy(), offsets.tolist()))


def _shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """One gather: image i at row y and column x is that at y + `offsets[0, i]` and x + `offsets[1, i]`."""
    down, right = offsets.to(images.device).unsqueeze(-1)
    rows = (torch.arange(images.shape[2], device=images.device) + down).clamp_(0, images.shape[2] - 1)
    columns = (torch.arange(images.shape[3], device=images.device) + right).clamp_(0, images.shape[3] - 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _copied(images: NDArray[np.uint8], offsets: list[list[int]]) -> NDArray[np.uint8]:
    """As `_shifted`, image by image: on a CPU three times as fast, being copies of rows."""
    result, (height, width) = np.empty_like(images), images.shape[2:]
    for image, out, down, right in zip(images, result, *offsets, strict=True):
        top, left = max(0, -down), max(0, -right)
        bottom, end = height - max(0, down), width - max(0, right)
        out[:, top:bottom, left:end] = image[:, top + down : bottom + down, left + right : end + right]
        out[:, :top, left:end] = out[:, top : top + 1, left:end]
        out[:, bottom:, left:end] = out[:, bottom - 1 : bottom, left:end]
        out[:, :, :left] = out[:, :, left : left + 1]
        out[:, :, end:] = out[:, :, end - 1 : end]
    return result


def jitter(images: Tensor, most: float) -> Tensor:
    """Every uint8 image `[B, C, H, W]` with its own brightness, contrast and balance of channels, off by up to `most`.

    One multiplication and one addition a channel; the balance is off by a third of `most`. Drawn by torch's generator.
    """
    if not most or not len(images):
        return images
    draw = torch.rand(len(images), images.shape[1] + 2, 1, 1, device=images.device) * 2.0 - 1.0
    gain = (1.0 + most * draw[:, :1]) * (1.0 + most / 3.0 * draw[:, 2:])
    offset = 127.5 * (1.0 - gain) + 127.5 * most * draw[:, 1:2]
    return torch.addcmul(offset, images.float(), gain).clamp_(0.0, 255.0).to(torch.uint8)


def erase(images: Tensor, count: int) -> Tensor:
    """Every image `[B, C, H, W]` with `count` rectangles of its mean colour laid over it (as in Zhong et al. 2017).

    Each side is an eighth to a third of the picture's. Drawn by torch's generator. What is left must do to act, so that
    a scene is not known by heart from any one thing in it.
    """
    if not count or not len(images):
        return images
    rows, _, height, width = images.shape
    covered = torch.zeros(rows, height, width, dtype=torch.bool, device=images.device)
    for _ in range(count):
        inside = []
        for side in (height, width):
            length = (torch.rand(rows, 1, device=images.device) * (1 / 3 - 1 / 8) + 1 / 8) * side
            start = torch.rand(rows, 1, device=images.device) * (side + length) - length
            at = torch.arange(side, device=images.device)
            inside.append((at >= start) & (at < start + length))
        covered |= inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    mean = images.float().mean((2, 3), keepdim=True).to(images.dtype)
    return torch.where(covered.unsqueeze(1), mean, images)


class Vision:
    """Trains the convolutions of a policy's network.

    Args:
        net: the policy's.
        learning_rate: of the convolutions.
        shift: pixels by which images are shifted at most.
        dtype: of the convolutions' arithmetic.
    """

    def __init__(self, net: Network, learning_rate: float, *, shift: int, dtype: torch.dtype) -> None:
        self._net, self._shift, self._dtype = net, shift, dtype
        self._encoders = {name: _cnn(module) for name, module in zip(net.image_names, net.encoders, strict=True)}
        parameters = net.seeing_parameters() or [nn.Parameter(torch.zeros(0))]  # pictures of 8 pixels have none
        self._flat = flatten_parameters(parameters)
        self._adam = Adam(self._flat, learning_rate)
        self._seen: list[Tensor] = []

    def see(self, rows: Batch) -> Batch:
        """Rows `[B, ...]` in which every image of `obs` and `next_obs` is what the convolutions see of it, shifted.

        Nothing in them has a gradient; `step` knows where the images of `obs` went.
        """
        made: Batch = {}
        self._seen = []
        for name, encoder in self._encoders.items():
            with torch.enable_grad():
                seen = encoder.see(random_shift(rows[f"obs/{name}"], self._shift), self._dtype)
            self._seen.append(seen)
            made[f"obs/{name}"] = seen.detach()
            with torch.no_grad():
                following = random_shift(rows[f"next_obs/{name}"], self._shift)
                made[f"next_obs/{name}"] = encoder.see(following, self._dtype)
        return rows | made

    def step(self, by_seen: Tensor) -> Tensor:
        """A step along the gradient of a loss; its norm.

        Args:
            by_seen: of the loss by what was seen of `obs`, images side by side, `[B, seen + more]`; more is ignored.
        """
        zero_gradient(self._flat)
        widths = [seen.shape[1] for seen in self._seen]
        if self._flat.numel():
            torch.autograd.backward(self._seen, list(by_seen[:, : sum(widths)].split(widths, 1)))
        self._seen = []
        norm = gradient_norm(self._flat)
        self._adam.step()
        return norm

    @torch.no_grad()
    def glance(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """What the convolutions see of every image of `inputs`, shifted, `[B, seen_dim]` each; without a gradient."""
        return [
            encoder.see(random_shift(inputs[name], self._shift), self._dtype)
            for name, encoder in self._encoders.items()
        ]

    def state_dict(self) -> StateDict:
        """The optimiser; the convolutions are the policy's."""
        return self._adam.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._adam.load_state_dict(state)


class Onlooker(nn.Module):
    """Sees what a discriminator is shown: numbers as they are, of images a projection of what the convolutions see.

    Nothing trains that projection. One that follows the actor, as in AILBoost's code, forgets whatever the actor does
    not use, and then the discriminator cannot tell it either.

    Args:
        net: the policy's.
        vision: trains its convolutions; None: there are no images.
        numbers: of the inputs that are no images.
        features: that each image is projected to.
    """

    def __init__(self, net: Network, vision: Vision | None, numbers: int, features: int) -> None:
        super().__init__()
        self._vision = vision
        self.projections = nn.ModuleList(Projection(count, features) for count in net.seen_dims).requires_grad_(False)
        self.dim = numbers + features * len(self.projections)

    @torch.no_grad()
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What `ObsInputs` has made, as `[B, dim]`."""
        if self._vision is None:
            return inputs[VECTOR]
        seen = self._vision.glance(inputs)
        parts = [project(part) for project, part in zip(self.projections, seen, strict=True)]
        return torch.cat([*parts, *([inputs[VECTOR]] if VECTOR in inputs else [])], -1)


class SeeingEnsemble(nn.Module):
    """An `Ensemble` on inputs `[B, seen + rest]` whose first numbers are what convolutions see: they are projected.

    Args:
        seen: numbers of each image.
        features: that each image's projection gives.
        rest: numbers that follow.
        make: the ensemble on that many inputs.
    """

    def __init__(self, seen: Sequence[int], features: int, rest: int, make: Callable[[int], Ensemble]) -> None:
        super().__init__()
        self._seen, self._features = list(seen), features * len(seen)
        self.projections = nn.ModuleList(Projection(count, features) for count in seen)
        self.ensemble = make(self._features + rest)
        self.dtype = self.ensemble.dtype

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Members on `x`: `[E, B, out_dim]`; None: all."""
        seen, rest = self._split(x)
        return self.ensemble(torch.cat([self._project(seen), rest], -1), members)

    def pullback(self, x: Tensor) -> tuple[Tensor, Callable[..., Tensor | None]]:
        """As `Ensemble.pullback`."""
        seen, rest = self._split(x)
        leaf = seen.detach().requires_grad_()
        with torch.enable_grad():
            projected = self._project(leaf)
        out, pull = self.ensemble.pullback(torch.cat([projected.detach(), rest], -1))

        def back(grad: Tensor, *, to_weights: bool = True, to_x: slice | None = None) -> Tensor | None:
            by_input = pull(grad, to_weights=to_weights, to_x=slice(None))
            assert by_input is not None
            weights = list(self.projections.parameters()) if to_weights else []
            wanted = [*weights, *([] if to_x is None else [leaf])]
            found = torch.autograd.grad(projected, wanted, by_input[:, : self._features])
            for parameter, value in zip(weights, found, strict=False):
                assert parameter.grad is not None, "flatten_parameters allocates gradients"
                parameter.grad.copy_(value)
            return None if to_x is None else torch.cat([found[-1], by_input[:, self._features :]], -1)[:, to_x]

        return out, back

    def _split(self, x: Tensor) -> list[Tensor]:
        count = sum(self._seen)
        return list(x.split([count, x.shape[-1] - count], -1))

    def _project(self, seen: Tensor) -> Tensor:
        parts = seen.split(self._seen, -1)
        return torch.cat([project(part) for project, part in zip(self.projections, parts, strict=True)], -1)


def ensemble(seen: Sequence[int], features: int, rest: int, *args: Any, **options: Any) -> Ensemble | SeeingEnsemble:
    """An `Ensemble` with these arguments, on `rest` inputs, or behind projections of what was `seen` of images."""
    if not seen:
        return Ensemble(rest, *args, **options)
    return SeeingEnsemble(seen, features, rest, lambda in_dim: Ensemble(in_dim, *args, **options))


def _cnn(module: nn.Module) -> CNN:
    assert isinstance(module, CNN)
    return module


__all__ = ["Onlooker", "SeeingEnsemble", "Vision", "ensemble", "erase", "jitter", "random_shift"]
