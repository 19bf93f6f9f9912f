"""Regression in one scripted call against the same steps one by one."""

import pytest
import torch

from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.nets.network import VECTOR, Network, ObsInputs
from robotrl.nets.regression import regress
from robotrl.types import ArraySpec

NO_MEMORY = torch.zeros(8, 0)


def _net(activation):
    torch.manual_seed(1)
    net = Network(ObsInputs({"state": ArraySpec((5,))}, ["state"]), 1, hidden=[16, 16], activation=activation)
    flat = flatten_parameters(net.parameters())
    return net, flat, Adam(flat, 1e-2, eps=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_it_makes_the_steps_of_autograd_and_adam(activation):
    torch.manual_seed(0)
    is_first = torch.zeros(4, 8, dtype=torch.bool)
    inputs = [({VECTOR: torch.randn(4, 8, 5)}, NO_MEMORY, is_first) for _ in range(6)]
    targets = [3.0 * torch.randn(4, 8) for _ in range(6)]
    net, flat, adam = _net(activation)
    losses, norms = [], []
    for part, target in zip(inputs, targets, strict=True):
        loss = 0.5 * (net.sequence(*part)[0].squeeze(-1) - target).square().mean()
        zero_gradient(flat)
        (0.7 * loss).backward()
        norms.append(clip_gradient(flat, 0.5))
        losses.append(loss.detach())
        adam.step()
    other, other_flat, other_adam = _net(activation)
    found, found_norms = [], []
    for part in (slice(0, 4), slice(4, 6)):  # the optimiser goes on from call to call
        a, b = regress(other, other_adam, inputs[part], targets[part], coef=0.7, max_norm=0.5)
        found, found_norms = found + a, found_norms + b
    torch.testing.assert_close(torch.stack(found), torch.stack(losses))
    torch.testing.assert_close(torch.stack(found_norms), torch.stack(norms))
    torch.testing.assert_close(other_flat, flat, rtol=1e-5, atol=1e-6)
    assert other_adam.steps == adam.steps == 6


def test_a_gradient_that_is_not_finite_moves_no_weight():
    net, flat, adam = _net("tanh")
    before = flat.detach().clone()
    _, norms = regress(
        net,
        adam,
        [({VECTOR: torch.full((1, 8, 5), torch.nan)}, NO_MEMORY, torch.ones(1, 8))],
        [torch.zeros(1, 8)],
        coef=1.0,
        max_norm=0.5,
    )
    assert not torch.isfinite(norms[0])
    assert torch.equal(flat, before)
