"""Layers that keep the scale of their activations: whole nets are one node, with the gradients of plain code."""

import pytest
import torch

from robotrl.nets import normed
from robotrl.nets.normed import NormedLinear, NormedMLP, normed_silu


def plainly(net, x):
    for layer in net.hidden:
        x = normed_silu(layer.linear(x), layer.norm)
    return x if net.out is None else net.out(x)


def a_net(out_dim, dtype=torch.float64):
    torch.manual_seed(0)
    net = NormedMLP(13, [32, 16], out_dim).to(dtype)
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return net


@pytest.mark.parametrize("out_dim", [0, 1, 32])
@pytest.mark.parametrize("shape", [(10,), (3, 7), (0,)])
@pytest.mark.parametrize("chunk", [4, 100])
def test_value_and_gradients_are_those_of_pytorchs_rms_norm_and_silu(out_dim, shape, chunk, monkeypatch):
    monkeypatch.setattr(normed, "CHUNK", chunk)
    net = a_net(out_dim)
    x = torch.randn(*shape, 13, dtype=torch.float64, requires_grad=True)
    ours, theirs = net(x), plainly(net, x)
    torch.testing.assert_close(ours, theirs)
    by, towards = [x, *net.parameters()], torch.randn_like(theirs)
    for a, b in zip(*(torch.autograd.grad(out, by, towards) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert torch.equal(net(x), ours)
    known = [torch.autograd.grad(net(given), list(net.parameters()), towards) for given in (x, x.detach())]
    assert all(torch.equal(a, b) for a, b in zip(*known, strict=True)), "inputs that need no gradient cost none"


def test_one_layer_is_a_net_of_one_layer():
    layer = NormedLinear(5, 8)
    x = torch.randn(6, 5, requires_grad=True)
    right = normed_silu(layer.linear(x), layer.norm)
    torch.testing.assert_close(layer(x), right)
    towards = torch.randn(6, 8)
    for a, b in zip(*(torch.autograd.grad(out, x, towards) for out in (layer(x), right)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out_dim", [0, 32])
def test_under_autocast_products_are_rounded_as_pytorch_does_it(out_dim):
    net = a_net(out_dim, torch.float32)
    x = torch.randn(10, 13, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = net(x), plainly(net, x)
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.01, atol=0.01)
    towards = torch.randn(ours.shape)
    grads = [torch.autograd.grad(out.float(), [x, *net.parameters()], towards) for out in (ours, theirs)]
    for a, b in zip(*grads, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
