"""Many small optimiser steps of a regression in one call.

At the sizes of value functions the interpreter takes as long between operations as they do. Here a whole epoch is one
scripted function: it needs no interpreter until it ends, so another thread can train another net meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robotrl.nets.flat import Adam, clip, clip_gradient
from robotrl.nets.mlp import tanh_pull, tanh_run
from robotrl.nets.network import VECTOR, Network


def regress(
    net: Network,
    adam: Adam,
    inputs: Sequence[tuple[Mapping[str, Tensor], Tensor, Tensor]],
    targets: Sequence[Tensor],
    *,
    coef: float,
    max_norm: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """One step on `coef / 2` times the mean squared error of each minibatch, the gradient's norm clipped.

    Args:
        net: with one output.
        adam: of the net's parameters, flattened.
        inputs: what `net.sequence` takes, of each minibatch: inputs `[T, N, ...]`, hidden `[N, H]`, `is_first [T, N]`.
        targets: `[T, N]` of each.
        coef: of the loss.
        max_norm: largest norm of the gradient.

    Returns:
        Losses and norms (before clipping), one of each a minibatch, the losses not multiplied by `coef`.
    """
    flat, losses, norms = adam.flat, [], []
    if not net.plain:
        for part, target in zip(inputs, targets, strict=True):
            value, pull = net.sequence_pullback(*part)
            error = value.squeeze(-1) - target
            pull((error * (coef / error.numel())).unsqueeze(-1))
            norms.append(clip_gradient(flat, max_norm))
            adam.step()
            losses.append(0.5 * error.square().mean())
        return losses, norms
    parameters = list(net.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    assert flat.grad is not None
    losses, norms = _regress(
        [part[VECTOR].flatten(0, 1) for part, _, _ in inputs], [target.flatten() for target in targets], parameters,
        gradients, flat.data, flat.grad, adam.mean, adam.square, adam.steps, coef, max_norm, adam.lr, adam.beta1,
        adam.beta2, adam.eps,
    )  # fmt: skip
    adam.steps += len(targets)
    return losses, norms


@torch.jit.script
def _regress(
    xs: list[Tensor],
    targets: list[Tensor],
    parameters: list[Tensor],
    gradients: list[Tensor],
    flat: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    steps: int,
    coef: float,
    max_norm: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[list[Tensor], list[Tensor]]:
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    with torch.no_grad():
        for i in range(len(xs)):
            layers = tanh_run(xs[i], parameters)
            error = layers[-1].squeeze(0) - targets[i]
            tanh_pull((error * (coef / error.numel())).unsqueeze(1), layers, parameters, gradients, False)
            norms.append(clip(grad, max_norm))
            # Adam written out: its fused kernel takes lists, through which a script sees no change and leaves it out
            mean.lerp_(grad, 1.0 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
            count = steps + i + 1
            spread = square.sqrt().div_(math.sqrt(1.0 - beta2**count)).add_(eps)
            flat.addcdiv_(mean, spread, value=-lr / (1.0 - beta1**count))
            losses.append(0.5 * error.square().mean())
    return losses, norms
