"""A transformer that is run block by block: each block of tokens sees itself and the blocks it is given, no others.

What a block has computed of itself, keys and values of every layer (`Seen`), can be used again: a policy's prefix
(pictures, proprioception, words) is computed once a chunk, however often its actions are denoised. A block-causal mask
is then nothing but the choice of what a block is given, and a block's numbers are bit for bit the same whether or not
others follow it. Layers are pre-norm (Xiong et al. 2020) with GELU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """Weights of attention and of a two-layer MLP, each behind a layer norm and added to what came in.

    `project` and `finish` use them: functions, since a stack of layers is scripted as a whole (`run`).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def weights(self) -> list[Tensor]:
        """Weight and bias of each part, in the order in which they are used."""
        parts = (self.norm1, self.qkv, self.out, self.norm2, self.up, self.down)
        return [tensor for part in parts for tensor in (part.weight, part.bias)]


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
        self.layers = nn.ModuleList(Layer(dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self._drop = 0.0
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
        plain = torch.is_grad_enabled() or watch is not None or x.is_cuda
        call = run if plain else _scripted
        out, keys, values = call(x, *self.inputs(seen, valid, x.shape[1]), watch, self._drop)
        return out, Seen(keys, values, valid)

    @contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """Within, this share of what attention and MLP of each layer add is dropped (Srivastava et al. 2014)."""
        self._drop = share
        try:
            yield
        finally:
            self._drop = 0.0

    def inputs(
        self, seen: Sequence[Seen], valid: Tensor | None, length: int
    ) -> tuple[list[list[Tensor]], int, list[list[Tensor]], list[list[Tensor]], Tensor | None]:
        """What `run` takes beside a block of `length` tokens, see `forward`."""
        layers = [layer.weights() for layer in self.layers if isinstance(layer, Layer)]
        mask = _mask([*(block.valid for block in seen), valid], [*(b.keys[0].shape[2] for b in seen), length])
        keys, values = [block.keys for block in seen], [block.values for block in seen]
        return [*layers, [self.norm.weight, self.norm.bias]], self.heads, keys, values, mask


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


def project(x: Tensor, weights: list[Tensor], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's queries, keys and values `[B, heads, T, width]` of `x [B, T, dim]`."""
    b, t, d = x.shape
    x = F.linear(F.layer_norm(x, [d], weights[0], weights[1]), weights[2], weights[3])
    q, k, v = x.view(b, t, 3 * heads, d // heads).transpose(1, 2).split(heads, 1)
    return q, k, v


def finish(x: Tensor, attended: Tensor, weights: list[Tensor], drop: float = 0.0) -> Tensor:
    """A layer's output, from `attended [B, heads, T, width]`; the share `drop` of what it adds is left out."""
    added = F.linear(attended.transpose(1, 2).flatten(2), weights[4], weights[5])
    x = x + (F.dropout(added, drop) if drop > 0.0 else added)
    inner = F.linear(F.layer_norm(x, x.shape[-1:], weights[6], weights[7]), weights[8], weights[9])
    added = F.linear(F.gelu(inner, approximate="tanh"), weights[10], weights[11])
    return x + (F.dropout(added, drop) if drop > 0.0 else added)


def run(
    x: Tensor,
    weights: list[list[Tensor]],
    heads: int,
    keys: list[list[Tensor]],
    values: list[list[Tensor]],
    mask: Tensor | None,
    watch: list[Tensor] | None = None,
    drop: float = 0.0,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """All layers and the last norm: what comes out, and the block's own keys and values of each layer.

    Args:
        x: as in `Transformer.forward`.
        weights: of each layer, then of the last norm.
        heads: of the attention.
        keys: of each block that is seen, of each layer.
        values: the same.
        mask: see `attend`.
        watch: as in `Transformer.forward`.
        drop: see `finish`.
    """
    own_keys: list[Tensor] = []
    own_values: list[Tensor] = []
    for number, layer in enumerate(weights[:-1]):
        q, k, v = project(x, layer, heads)
        own_keys.append(k)
        own_values.append(v)
        if len(keys) > 0:
            k = torch.cat([block[number] for block in keys] + [k], 2)
            v = torch.cat([block[number] for block in values] + [v], 2)
        x = finish(x, attend(q, k, v, mask, watch), layer, drop)
    return F.layer_norm(x, x.shape[-1:], weights[-1][0], weights[-1][1]), own_keys, own_values


_scripted = torch.jit.script(run)
"""For acting on a CPU, ADR 0014: with a dozen tokens the interpreter takes as long as the arithmetic. On a GPU a script
fuses operations, so that its last bits would not be those of the same operations elsewhere."""


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


__all__ = ["Layer", "Seen", "Transformer", "attend", "finish", "project", "run", "sinusoid"]
