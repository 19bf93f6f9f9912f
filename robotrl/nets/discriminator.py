"""A small network that tells experts from policies, its gradient with respect to what it sees, and its losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.functional.imitation import gradient_penalty, interpolates, with_absorbing

Divergence = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
_ACTIVATIONS = ("relu", "tanh")


class Discriminator(nn.Module):
    """`[..., in_dim] -> [...]`: an MLP with one output, orthogonal initialisation and zero biases.

    Args:
        in_dim: input features.
        hidden: widths of the hidden layers.
        activation: `relu` or `tanh`.
        bounded: squash the output by tanh to (-1, 1), which bounds a reward that is read from it.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], *, activation: str = "relu", bounded: bool = False) -> None:
        super().__init__()
        assert activation in _ACTIVATIONS
        self.activation, self.bounded, self.in_dim = activation, bounded, in_dim
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        layers = [nn.Linear(a, b) for a, b in pairwise([in_dim, *hidden, 1])]
        gain = math.sqrt(2.0) if activation == "relu" else 1.0
        for i, layer in enumerate(layers):
            nn.init.orthogonal_(layer.weight, 1.0 if i == len(hidden) else gain)
            self.weights.append(layer.weight)
            self.biases.append(nn.init.zeros_(layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or bounded values, `[...]`."""
        return self._output(self._hidden(x)[-1])

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `[B]` and their gradient with respect to `x [B, in_dim]`, both differentiable by the weights.

        The gradient is written out as products of weights and slopes. A penalty on it then takes one ordinary backward
        pass; through autograd it would take a graph of the backward pass and a second one through that.
        """
        hidden = self._hidden(x)
        out = self._output(hidden[-1])
        gradient: Tensor = self.weights[-1]
        for i in range(len(self.weights) - 2, -1, -1):
            h = hidden[i + 1]
            slope = 1.0 - h.square() if self.activation == "tanh" else (h > 0).to(h.dtype)
            gradient = (gradient * slope) @ self.weights[i]
        if self.bounded:
            gradient = gradient * (1.0 - out.square()).unsqueeze(-1)
        return out, gradient.expand_as(x)

    def _hidden(self, x: Tensor) -> list[Tensor]:
        """The input and what each hidden layer makes of it."""
        values = [x]
        for i in range(len(self.weights) - 1):
            h = F.linear(values[-1], self.weights[i], self.biases[i])
            values.append(torch.tanh(h) if self.activation == "tanh" else torch.relu(h))
        return values

    def _output(self, hidden: Tensor) -> Tensor:
        out = F.linear(hidden, self.weights[-1], self.biases[-1]).squeeze(-1)
        return torch.tanh(out) if self.bounded else out


def adversarial_losses(
    net: Discriminator, divergence: Divergence, expert: Tensor, policy: Tensor, expert_ends: Tensor, policy_ends: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What a discriminator is trained on, from as many pairs of an expert as of a policy.

    Args:
        net: the discriminator.
        divergence: `cross_entropy_loss` or `reverse_kl_loss`.
        expert: pairs `[B, K + 1]`, see `robotrl.functional.imitation`.
        policy: the same of the policy.
        expert_ends: `[B]` bool, whether the expert's step terminated.
        policy_ends: the same of the policy.

    Returns:
        The losses `discriminator` and `penalty`; the outputs for both batches, `[B + 1]`, the last of each that of the
        absorbing state.
    """
    points = interpolates(expert, policy, expert_ends, policy_ends)
    expert, expert_weight = with_absorbing(expert, expert_ends)
    policy, policy_weight = with_absorbing(policy, policy_ends)
    expert_out, policy_out = net(torch.cat([expert, policy])).chunk(2)
    _, gradient = net.with_gradient(points)
    losses = {
        "discriminator": divergence(expert_out, policy_out, expert_weight, policy_weight),
        "penalty": gradient_penalty(gradient, expert_weight[-1] + policy_weight[-1]),
    }
    return losses, expert_out, policy_out
