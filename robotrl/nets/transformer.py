"""A transformer that is run block by block: each block of tokens sees itself and the blocks it is given, no others.

What a block has computed of itself, keys and values of every layer (`Seen`), can be used again: a policy's prefix
(pictures, proprioception, words) is computed once a chunk, however often its actions are denoised. A block-causal mask
is then nothing but the choice of what a block is given, and a block's numbers are bit for bit the same whether or not
others follow it. Layers are pre-norm (Xiong et al. 2020) with GELU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Seen:
    """What later blocks can attend to of one block."""

    keys: list[Tensor]
    """Of each layer, `[B, heads, T, width]`."""
    values: list[Tensor]
    valid: Tensor | None = None
    """`[B, T]`: which tokens are there; None: all."""

    def repeat(self, times: int) -> Seen:
        """Every row `times` times, one after the other: `[B * times, ...]`."""
        if times == 1:
            return self
        keys, values = ([part.repeat_interleave(times, 0) for part in parts] for parts in (self.keys, self.values))
        return Seen(keys, values, None if self.valid is None else self.valid.repeat_interleave(times, 0))

    def first_of(self, times: int) -> Seen:
        """The first of every `times` rows: the inverse of `repeat`."""
        if times == 1:
            return self
        keys, values = ([part[::times] for part in parts] for parts in (self.keys, self.values))
        return Seen(keys, values, None if self.valid is None else self.valid[::times])


class Layer(nn.Module):
    """Attention and a two-layer MLP, each behind a layer norm and added to what came in."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[B, heads, T, width]` of `x [B, T, dim]`."""
        b, t, d = x.shape
        parts = self.qkv(self.norm1(x)).view(b, t, 3 * self.heads, d // self.heads).transpose(1, 2)
        q, k, v = parts.split(self.heads, 1)
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output, from `attended [B, heads, T, width]`."""
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """A stack of layers, and a norm on what comes out.

    Args:
        dim: numbers of a token.
        layers: how many.
        heads: of the attention; they divide `dim`.
    """

    def __init__(self, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                gain = 1.0 / math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=gain / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, seen: Sequence[Seen] = (), valid: Tensor | None = None, *, watch: list[Tensor] | None = None
    ) -> tuple[Tensor, Seen]:
        """One block.

        Args:
            x: its tokens `[B, T, dim]`, which all see each other.
            seen: blocks it sees besides, in the order in which their keys are put before its own.
            valid: which tokens there are `[B, T]`; the others are seen by none, and what comes out of them is to be
                ignored.
            watch: gets each layer's attention `[B, heads, T, all]`; for looking at, not for speed.

        Returns:
            What comes out `[B, T, dim]`, normed, and what later blocks can see.
        """
        mask = _mask([*(block.valid for block in seen), valid], [*(b.keys[0].shape[2] for b in seen), x.shape[1]])
        keys, values = [], []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            q, k, v = layer.project(x)
            keys.append(k)
            values.append(v)
            all_k = torch.cat([*(block.keys[number] for block in seen), k], 2) if seen else k
            all_v = torch.cat([*(block.values[number] for block in seen), v], 2) if seen else v
            x = layer.finish(x, attend(q, all_k, all_v, mask, watch))
        return self.norm(x), Seen(keys, values, valid)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, watch: list[Tensor] | None = None) -> Tensor:
    """Attention, `[B, heads, T, width]`.

    With a gradient it is written out: on a CPU that of PyTorch's own fused kernel takes three times as long for a few
    dozen tokens. Without one the kernel is the faster.
    """
    if watch is None and not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, mask)
    logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    weight = torch.softmax(logits, -1)
    if watch is not None:
        watch.append(weight.float())
    return weight.to(v.dtype) @ v


def _mask(valid: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor | None:
    """Which keys may be attended to, `[B, 1, 1, all]`; None: all."""
    known = [part for part in valid if part is not None]
    if not known:
        return None
    rows = len(known[0])
    parts = [
        known[0].new_ones(rows, length) if part is None else part for part, length in zip(valid, lengths, strict=True)
    ]
    return torch.cat(parts, 1)[:, None, None]


def sinusoid(x: Tensor, dim: int, longest: float = 4.0, shortest: float = 4e-3) -> Tensor:
    """Sines and cosines `[..., dim]` of `x [...]`, of periods from `longest` to `shortest` (as in pi0)."""
    share = torch.linspace(0.0, 1.0, dim // 2, dtype=torch.float32, device=x.device)
    angle = x.float().unsqueeze(-1) * (2 * math.pi / (longest * (shortest / longest) ** share))
    return torch.cat([angle.sin(), angle.cos()], -1)


__all__ = ["Layer", "Seen", "Transformer", "attend", "sinusoid"]
