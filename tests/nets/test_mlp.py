import math

import pytest
import torch
from torch import nn

from robotrl.nets.mlp import MLP


def plain(net, x, activation=torch.tanh):
    """The same function from torch's own parts."""
    for layer in net.layers[:-1]:
        x = activation(nn.functional.linear(x, layer.weight, layer.bias))
    return nn.functional.linear(x, net.layers[-1].weight, net.layers[-1].bias)


@pytest.mark.parametrize("hidden", [[], [5], [7, 6], [4, 5, 6]])
@pytest.mark.parametrize("shape", [(3,), (9, 3), (4, 9, 3), (2, 3, 4, 3), (0, 3)])
def test_the_tanh_net_is_torchs_for_any_batch_axes(hidden, shape):
    torch.manual_seed(0)
    net, x = MLP(3, hidden, 2).double(), torch.randn(shape, dtype=torch.float64)
    out = net(x)
    assert out.shape == (*shape[:-1], 2)
    torch.testing.assert_close(out, plain(net, x))


@pytest.mark.parametrize("hidden", [[], [5], [7, 6]])
@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 3)])
def test_its_gradients_are_right_for_input_and_parameters(hidden, shape):
    torch.manual_seed(0)
    net = MLP(3, hidden, 2).double()
    names = [name for name, _ in net.named_parameters()]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().clone().requires_grad_() for p in net.parameters()]
    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))  # a gradient penalty differentiates twice


def test_its_gradients_are_torchs_in_single_precision_and_add_up():
    torch.manual_seed(0)
    net, x, target = MLP(17, [64, 64], 6), torch.randn(512, 17), torch.randn(512, 6)
    for function in (net, lambda x: plain(net, x)):
        (function(x) - target).square().mean().backward()
    twice = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (plain(net, x) - target).square().mean().backward()
    for p, grad in zip(net.parameters(), twice, strict=True):
        torch.testing.assert_close(grad, 2 * p.grad, rtol=1e-4, atol=1e-6)


def test_an_input_that_needs_no_gradient_gets_none_and_frozen_layers_neither():
    net, x = MLP(3, [5], 2), torch.randn(4, 3)
    net.layers[0].weight.requires_grad_(False)
    net(x).sum().backward()
    assert x.grad is None
    assert net.layers[0].weight.grad is None
    assert net.layers[1].weight.grad is not None


def test_the_input_is_left_as_it_was():
    net, x = MLP(3, [5, 5], 2), torch.randn(4, 3)
    before = x.clone()
    net(x).sum().backward()
    assert torch.equal(x, before)


def test_large_inputs_saturate_without_overflow():
    net = MLP(1, [8], 1)
    out = net(torch.tensor([[1e30], [-1e30]]))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "activation"), [("relu", torch.relu), ("elu", nn.functional.elu), ("silu", nn.functional.silu)]
)
def test_other_activations(name, activation):
    torch.manual_seed(0)
    net, x = MLP(3, [5, 4], 2, activation=name), torch.randn(2, 6, 3)
    torch.testing.assert_close(net(x), plain(net, x, activation))


def test_layers_start_orthogonal_with_the_gains_asked_for():
    torch.manual_seed(0)
    net = MLP(16, [16, 16], 4, out_gain=0.01)
    for layer, gain in zip(net.layers, (math.sqrt(2), math.sqrt(2), 0.01), strict=True):
        singular = torch.linalg.svdvals(layer.weight)
        torch.testing.assert_close(singular, torch.full_like(singular, gain), rtol=1e-4, atol=1e-6)
        assert (layer.bias == 0).all()
