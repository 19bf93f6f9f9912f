"""The flow of a chunk of actions: noisy actions become tokens, a transformer reads them, a head says where they go.

An inference of a small policy is ten passes of a dozen tokens, in which the interpreter takes about as long as the
arithmetic: so all of them are one scripted function (ADR 0014).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robotrl.functional.flow import euler_step
from robotrl.nets.transformer import run


def action_tokens(x: Tensor, when: Tensor, ends: list[Tensor]) -> Tensor:
    """Tokens `[B, h, dim]` of noisy actions `x [B, h, A]`.

    Args:
        x: the actions.
        when: tells their time `[..., dim]`.
        ends: weight and bias of a layer for actions and of one behind a GELU, what each place of the chunk adds, and
            weight and bias of the head.
    """
    return F.linear(F.gelu(F.linear(x, ends[0], ends[1]) + when), ends[2], ends[3]) + ends[4]


def euler(
    x: Tensor,
    whens: Tensor,
    ends: list[Tensor],
    weights: list[list[Tensor]],
    heads: int,
    keys: list[list[Tensor]],
    values: list[list[Tensor]],
    mask: Tensor | None,
) -> Tensor:
    """From noise `x [B, h, A]` to actions, as `robotrl.functional.flow.integrate`.

    Args:
        x: the noise.
        whens: of each step, for `action_tokens`, `[steps, 1, dim]`.
        ends: see there.
        weights: of the trunk; this and what follows as in `robotrl.nets.transformer.run`.
        heads: of its attention.
        keys: of the blocks that the actions see.
        values: the same.
        mask: which of them.
    """
    for when in whens.unbind(0):
        out, _, _ = run(action_tokens(x, when, ends), weights, heads, keys, values, mask)
        x = euler_step(x, F.linear(out, ends[5], ends[6]).float(), len(whens))
    return x


euler_scripted = torch.jit.script(euler)
"""For CPUs, as `robotrl.nets.transformer.run` is scripted."""


__all__ = ["action_tokens", "euler", "euler_scripted"]
