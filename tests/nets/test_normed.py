"""Layers that keep the scale of their activations."""

import pytest
import torch

from robotrl.nets.normed import EPS, normed_silu


def as_pytorch(x, scale):
    return torch.nn.functional.silu(torch.nn.functional.rms_norm(x, scale.shape, scale, EPS))


@pytest.mark.parametrize("shape", [(3, 8), (4, 2, 64), (0, 8)])
def test_value_and_gradients_are_those_of_pytorchs_rms_norm_and_silu(shape):
    x, scale = torch.randn(shape, requires_grad=True), (torch.rand(shape[-1]) + 0.5).requires_grad_()
    towards = torch.randn(shape)
    ours, theirs = normed_silu(x, scale), as_pytorch(x, scale)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(out, (x, scale), towards) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(normed_silu(x, scale), ours)
